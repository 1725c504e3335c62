package domain

import (
	"encoding/json"
	"iter"
)

// Distribution is an aggregate of one of the three kinds.
type Distribution interface {
	Aggregate
	SecretHolder
	Kind() Kind
	Shared() *Lifecycle
	// AppendJSON appends the object as an admin sees it.
	AppendJSON(dst []byte) []byte
	// AppendPublicJSON appends the object as everybody may see it.
	AppendPublicJSON(dst []byte) []byte

	// Entries is how many entries or bids were ever made.
	Entries() int64
	// ParticipantsDone reports whether nothing more happens to any participant.
	ParticipantsDone() bool
	// KnowsParticipants reports whether the distribution has all its participants in
	// memory. A distribution that is restored from JSON lacks them, if it has any.
	// Participation, Participants and AppendParticipants need them.
	KnowsParticipants() bool
	// ForgetParticipants drops everybody who ever took part.
	ForgetParticipants()
	// Participation is a consumer's part in the distribution. It is false for a
	// consumer who never took part.
	Participation(consumer string) (Participation, bool)
	// Participants yields everybody who ever took part, in the order of their latest
	// entries.
	Participants() iter.Seq[Participation]
	// AppendParticipants appends everybody who ever took part, in a form that
	// RestoreParticipants reads. It is for files that may be thrown away: the stream
	// has all of it.
	AppendParticipants(dst []byte) []byte
	// RestoreParticipants adds the participants to a distribution that was restored
	// from JSON. Both must come from the same state. It fails when they do not fit
	// together.
	RestoreParticipants(b []byte) error

	// fields are the admin fields in the order of the contract, bound to this
	// value.
	fields() []field
	// preset fills in what a creation may leave out.
	preset(Defaults)
	// check finds what is wrong with the settings as a whole.
	check(*clashes)
	// created is the event that makes a distribution with these settings.
	created(Stamp, Create) Event
	// publicStatus is the status that everybody may see. It tells only what matters to
	// consumers: DRAFT and SCHEDULED, for example, are both PENDING.
	publicStatus() Status
	// stepTime is the time that the step to a status waits for, or nil when
	// there is no such step from the present status.
	stepTime(Status) *Instant
}

// NewDistribution is a distribution that has not been created yet.
func NewDistribution(k Kind) Distribution {
	switch k {
	case KindQueue:
		return &Queue{}
	case KindDraw:
		return &Draw{}
	case KindAuction:
		return &Auction{}
	case KindOrganization, KindClaim, KindSeal, KindSink, KindSigning, KindClock:
	}
	panic("not a kind of distribution: " + string(k))
}

// Common are the settings that every kind has.
type Common struct {
	SequenceID     string          `json:"sequenceId"`
	Name           *string         `json:"name"`
	TimeZone       string          `json:"timeZone"`
	OpenAt         Instant         `json:"openAt"`
	CloseAt        Instant         `json:"closeAt"`
	EncryptionSeed Secret          `json:"encryptionSeed"`
	Metadata       json.RawMessage `json:"metadata"`
}

func (c *Common) secrets() []SecretField {
	return []SecretField{{"encryptionSeed", &c.EncryptionSeed}}
}
