package domain

import "encoding/json"

// Event is something that happened. Only this package defines events. An event that
// several kinds have is one Go type, and its stored name contains the kind. The JSON of
// an event is what is stored and what subscribers get. Golden files check that it does
// not change.
type Event interface {
	// When is the time at which the event counts. In one stream it never runs
	// backwards.
	When() Instant
	event()
}

// Stamp is embedded in every event.
type Stamp struct {
	At Instant `json:"at"`
}

// When returns the time at which the event counts.
func (s Stamp) When() Instant { return s.At }
func (Stamp) event()          {}

// Part is embedded in an event about a part of an object, such as an API key of an
// organization. The object itself stays the same, and with it its ETag and its
// updatedAt.
type Part struct{}

func (Part) part() {}

// ChangesObject reports whether e changes the object that a stream is about, rather
// than a part of it.
func ChangesObject(e Event) bool {
	_, part := e.(interface{ part() })
	return !part
}

// Identity is the id of a distribution and of the organization that owns it.
type Identity struct {
	ID             ID `json:"id"`
	OrganizationID ID `json:"organizationId"`
}

// QueueCreated begins a queue's stream.
type QueueCreated struct {
	Stamp
	Identity
	Common
	QueueSettings
}

// DrawCreated begins a draw's stream. SeedCommitment, the SHA-256 of the secret,
// is public from here on; the secret itself is revealed by Drawn.
type DrawCreated struct {
	Stamp
	Identity
	Common
	DrawSettings
	SeedCommitment string `json:"seedCommitment"`
	Secret         Secret `json:"secret"`
}

// AuctionCreated begins an auction's stream.
type AuctionCreated struct {
	Stamp
	Identity
	Common
	AuctionSettings
}

// Secrets names the event's secrets.
func (e *QueueCreated) Secrets() []SecretField { return e.Common.secrets() }

// Secrets names the event's secrets.
func (e *DrawCreated) Secrets() []SecretField {
	return append(e.Common.secrets(), SecretField{"secret", &e.Secret})
}

// Secrets names the event's secrets.
func (e *AuctionCreated) Secrets() []SecretField { return e.Common.secrets() }

// Change is the old and the new value of a field, both as the API shows them.
type Change struct {
	Old json.RawMessage `json:"old"`
	New json.RawMessage `json:"new"`
}

// Cause says why fields changed.
type Cause string

// The causes of a change.
const (
	CauseCreate Cause = "create"
	CauseUpdate Cause = "update"
	CauseHand   Cause = "hand" // a step by hand set the time of the step to now
)

// Updated says which fields of a distribution or an organization changed.
type Updated struct {
	Stamp
	Changed map[string]Change `json:"changed"`
	Cause   Cause             `json:"cause"`
}

// Scheduled moves a distribution from DRAFT to SCHEDULED, because openAt is set.
type Scheduled struct{ Stamp }

// Unscheduled moves a distribution back from SCHEDULED to DRAFT, because openAt was
// cleared. No other event moves a distribution back.
type Unscheduled struct{ Stamp }

// Opened moves a distribution to OPEN.
type Opened struct{ Stamp }

// Closed moves a queue or an auction to CLOSED.
type Closed struct{ Stamp }

// DrawClosed moves a draw to CLOSED and freezes its list of entries. EntriesRoot is the
// RFC 6962 Merkle root of the list in lower-case hex.
type DrawClosed struct {
	Stamp
	EntriesRoot string `json:"entriesRoot"`
	EntryCount  int64  `json:"entryCount"`
}

// EntropySupplied records the value that the draw's entropy source published.
type EntropySupplied struct {
	Stamp
	Value string `json:"value"`
}

// Drawn moves a draw to DRAWN. It reveals the secret. Its digest covers the winners in
// order of rank. docs/integrity.md has the exact bytes.
type Drawn struct {
	Stamp
	Secret          string  `json:"secret"`  // 32 bytes in lower-case hex
	Entropy         *string `json:"entropy"` // null when no source was named
	Seed            string  `json:"seed"`    // lower-case hex
	OperatorTrusted bool    `json:"operatorTrusted"`
	WinnerCount     int64   `json:"winnerCount"`
	WinnersDigest   string  `json:"winnersDigest"` // lower-case hex
}

// Settled moves an auction to SETTLED.
type Settled struct {
	Stamp
	WinnerCount int64 `json:"winnerCount"`
}

// Completed moves a queue or a draw to COMPLETED.
type Completed struct{ Stamp }

// Deleted ends a distribution. Its stream stays.
type Deleted struct{ Stamp }

// Participant is the consumer that an event is about, and the number of the entry.
// Entries are numbered from 1 in the order in which they were made. An event that
// embeds it is about a part of the distribution.
type Participant struct {
	ConsumerID string `json:"consumerId"`
	Entry      int64  `json:"entry"`
}

func (Participant) part() {}

// ConsumerEntered gives a consumer a new entry at the back of the queue.
type ConsumerEntered struct {
	Stamp
	Participant
}

// ConsumerAdmitted is the beginning of a session.
type ConsumerAdmitted struct {
	Stamp
	Participant
	ExpiresAt Instant `json:"expiresAt"` // null: the session has no limit
	ByHand    bool    `json:"byHand"`    // a request asked for it, regardless of turn and rate
}

// ConsumerCompleted ends a session in which the consumer finished the purchase, or
// whatever the queue gives access to.
type ConsumerCompleted struct {
	Stamp
	Participant
}

// ConsumerExpired ends a session whose time is over.
type ConsumerExpired struct {
	Stamp
	Participant
}

// ConsumerLeft ends an entry because the consumer left.
type ConsumerLeft struct {
	Stamp
	Participant
	From Standing `json:"from"`
}

// ConsumerDenied ends an entry because the organization denied the consumer.
type ConsumerDenied struct {
	Stamp
	Participant
	From   Standing   `json:"from"`
	Reason DenyReason `json:"reason"`
}

// OrganizationCreated begins an organization's stream.
type OrganizationCreated struct {
	Stamp
	ID           ID       `json:"id"`
	Name         string   `json:"name"`
	TimeZone     string   `json:"timeZone"`
	CurrencyCode Currency `json:"currencyCode"`
}

// KeyLevel says what a key may do.
type KeyLevel string

// The levels of keys.
const (
	SecretKey      KeyLevel = "secret"
	PublishableKey KeyLevel = "publishable"
)

// KeyMode says what a key is meant for. Keys of both modes see the same objects.
type KeyMode string

// The modes of keys.
const (
	LiveKey KeyMode = "live"
	TestKey KeyMode = "test"
)

// KeyCreated gives an organization a key. The event holds only the key's hash.
type KeyCreated struct {
	Part
	Stamp
	KeyID     ID       `json:"keyId"`
	Level     KeyLevel `json:"level"`
	Name      string   `json:"name"`
	Hint      string   `json:"hint"` // how the key begins, to tell it from others
	Hash      string   `json:"hash"` // SHA-256 of the key in lower-case hex
	ExpiresAt Instant  `json:"expiresAt,omitempty"`
}

// KeyRevoked ends a key.
type KeyRevoked struct {
	Part
	Stamp
	KeyID ID `json:"keyId"`
}

// KeyExpired ends a key because its expiry time has passed.
type KeyExpired struct {
	Part
	Stamp
	KeyID ID `json:"keyId"`
}

// Claimed records which distribution a repeatable creation makes. Every node that
// carries out the creation makes the same one.
type Claimed struct {
	Stamp
	ID ID `json:"id"`
}

// SigningKeyCreated makes the key that signs tokens from then on.
type SigningKeyCreated struct {
	Stamp
	KeyID     string `json:"keyId"`     // the JWK thumbprint of the public half
	PublicKey string `json:"publicKey"` // 32 bytes in unpadded base64url
	Secret    Secret `json:"secret"`    // the private half is derived from it
}

// Secrets names the event's secrets.
func (e *SigningKeyCreated) Secrets() []SecretField { return []SecretField{{"secret", &e.Secret}} }

// SigningKeyRevoked makes every token that the key has signed invalid.
type SigningKeyRevoked struct {
	Stamp
	KeyID string `json:"keyId"`
}

// Leased says which node sends the messages of a sink, and up to which position all
// messages are sent.
type Leased struct {
	Stamp
	Holder   string   `json:"holder"` // the node, or "" when it gave the lease back
	Position Position `json:"position"`
}

// ClockCompared is written by a node that compares its clock with the store's. At is the
// time of the node's clock, and the store records when the event came.
type ClockCompared struct{ Stamp }

// SealChecked holds a known value, sealed. A node that can open it has the log's master
// key.
type SealChecked struct {
	Stamp
	Value Secret `json:"value"`
}

// Secrets names the event's secrets.
func (e *SealChecked) Secrets() []SecretField { return []SecretField{{"value", &e.Value}} }
