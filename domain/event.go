package domain

import "encoding/json"

// Event is something that happened. The set is closed. Events shared by the
// kinds are one Go type; the stored name carries the kind. The JSON of an event
// is what is stored and what subscribers get: golden files pin it.
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

// Identity is what a distribution is called and whose it is.
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

// Change is what a field was and what it is now, both as the API shows them.
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
	CauseHand   Cause = "hand" // a step by hand set the matching time to now
)

// Updated says which fields of a distribution or an organization changed, from
// what to what.
type Updated struct {
	Stamp
	Changed map[string]Change `json:"changed"`
	Cause   Cause             `json:"cause"`
}

// Scheduled is the step from DRAFT: the opening time is set.
type Scheduled struct{ Stamp }

// Unscheduled is the one step back, to DRAFT: the opening time was cleared.
type Unscheduled struct{ Stamp }

// Opened is the step to OPEN.
type Opened struct{ Stamp }

// Closed is the step of a queue or an auction to CLOSED.
type Closed struct{ Stamp }

// DrawClosed is the step of a draw to CLOSED: the list of entries is frozen.
// EntriesRoot is its RFC 6962 Merkle root in lower-case hex.
type DrawClosed struct {
	Stamp
	EntriesRoot string `json:"entriesRoot"`
	EntryCount  int64  `json:"entryCount"`
}

// EntropySupplied brings what the draw's entropy source published.
type EntropySupplied struct {
	Stamp
	Value string `json:"value"`
}

// Drawn is the step of a draw to DRAWN. It reveals the secret, and its digest
// covers the winners in order of rank. docs/integrity.md has the exact bytes.
type Drawn struct {
	Stamp
	Secret          string  `json:"secret"`  // 32 bytes in lower-case hex
	Entropy         *string `json:"entropy"` // null when no source was named
	Seed            string  `json:"seed"`    // lower-case hex
	OperatorTrusted bool    `json:"operatorTrusted"`
	WinnerCount     int64   `json:"winnerCount"`
	WinnersDigest   string  `json:"winnersDigest"` // lower-case hex
}

// Settled is the step of an auction to SETTLED.
type Settled struct {
	Stamp
	WinnerCount int64 `json:"winnerCount"`
}

// Completed is the step of a queue or a draw to COMPLETED.
type Completed struct{ Stamp }

// Deleted ends a distribution. Its stream stays.
type Deleted struct{ Stamp }

// Participant is whom an event in a queue is about, and which entry of theirs.
// Entries are numbered from 1 in the order in which they were made.
type Participant struct {
	ConsumerID string `json:"consumerId"`
	Entry      int64  `json:"entry"`
}

// ConsumerEntered is a consumer's new place at the back of the line.
type ConsumerEntered struct {
	Stamp
	Participant
}

// ConsumerAdmitted is the beginning of a session.
type ConsumerAdmitted struct {
	Stamp
	Participant
	ExpiresAt Instant `json:"expiresAt"` // null: the session has no limit
	ByHand    bool    `json:"byHand"`    // out of turn, or out of time
}

// ConsumerCompleted is the end of a session in which the consumer got what they
// came for.
type ConsumerCompleted struct {
	Stamp
	Participant
}

// ConsumerExpired is the end of a session whose time is over.
type ConsumerExpired struct {
	Stamp
	Participant
}

// ConsumerLeft is the end of an entry by the consumer's own will.
type ConsumerLeft struct {
	Stamp
	Participant
	From Standing `json:"from"`
}

// ConsumerDenied is the end of an entry by somebody else's will.
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

// KeyMode says what a key is meant for. Both see the same.
type KeyMode string

// The modes of keys.
const (
	LiveKey KeyMode = "live"
	TestKey KeyMode = "test"
)

// KeyCreated gives an organization a key, of which only the hash is known here.
type KeyCreated struct {
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
	Stamp
	KeyID ID `json:"keyId"`
}

// KeyExpired is the end of a key whose time has come.
type KeyExpired struct {
	Stamp
	KeyID ID `json:"keyId"`
}

// Claimed says which distribution a repeatable creation makes, whoever carries
// it out.
type Claimed struct {
	Stamp
	ID ID `json:"id"`
}

// SigningKeyCreated gives the installation a key that signs tokens, in the place
// of the one before it.
type SigningKeyCreated struct {
	Stamp
	KeyID     string `json:"keyId"`     // the JWK thumbprint of the public half
	PublicKey string `json:"publicKey"` // 32 bytes in unpadded base64url
	Secret    Secret `json:"secret"`    // what the private half follows from
}

// Secrets names the event's secrets.
func (e *SigningKeyCreated) Secrets() []SecretField { return []SecretField{{"secret", &e.Secret}} }

// SigningKeyRevoked ends what a key has signed.
type SigningKeyRevoked struct {
	Stamp
	KeyID string `json:"keyId"`
}

// Leased says which node sends what leaves the system through a sink, and up to
// where all is sent.
type Leased struct {
	Stamp
	Holder   string   `json:"holder"` // "" when the lease was given back
	Position Position `json:"position"`
}

// ClockCompared is written by a node that compares its clock with the store's: At is
// what the node's clock showed, and the store records when the event came.
type ClockCompared struct{ Stamp }

// SealChecked holds a known value, sealed, by which a node finds out whether its
// master key is the log's.
type SealChecked struct {
	Stamp
	Value Secret `json:"value"`
}

// Secrets names the event's secrets.
func (e *SealChecked) Secrets() []SecretField { return []SecretField{{"value", &e.Value}} }
