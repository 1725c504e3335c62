package domain

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
)

// Participation is a consumer's part in one distribution: the state of the consumer's
// latest entry or best bid, and the right that it gives. It is immutable.
type Participation interface {
	// Consumer is the consumer's id.
	Consumer() string
	// Grant is the right that the consumer has now. A token proves it. It is false when
	// the consumer has no right.
	Grant() (Grant, bool)
	// AppendJSON appends the state as the API shows it.
	AppendJSON(dst []byte, v View) []byte
}

// View says how a participation is shown.
type View struct {
	// Token is the token that proves the participation's grant, or "" when there is
	// none.
	Token string
}

// Grant is a right that an event gave to a consumer, such as a session in a queue.
type Grant struct {
	Use          GrantUse
	Consumer     string
	Event        [16]byte // the id of the event
	Distribution ID
	From         Instant
	Until        Instant // 0: no limit
}

// GrantUse says what a grant is for.
type GrantUse string

// GrantAdmission lets the consumer in: a session in a queue.
const GrantAdmission GrantUse = "lotline:admission"

// granter is an aggregate whose events give grants. A grant is identified by the id of
// its event. That id is made only after the aggregate has applied the event.
type granter interface {
	// identify takes the id of an event that the aggregate has applied.
	identify(e Event, id [16]byte)
}

// ConsumerCommand is a command about a consumer. Its result is the consumer's
// participation.
type ConsumerCommand interface {
	Command
	// Consumer is the consumer that the command names. It is "" for a Picker that
	// lets the aggregate pick consumers.
	Consumer() string
}

// Picker is a ConsumerCommand that may let the aggregate pick consumers. Then its
// result is the participation of each of them, and it may fill an append by itself.
type Picker interface {
	ConsumerCommand
	// Picked returns the consumer that the aggregate picked when it made e, an event
	// of this command, and "" when e is about no picked consumer.
	Picked(e Event) string
}

// noParticipants is embedded in the kinds that do not have participants yet.
type noParticipants struct{}

// Entries implements Distribution.
func (noParticipants) Entries() int64 { return 0 }

// ParticipantsDone implements Distribution.
func (noParticipants) ParticipantsDone() bool { return true }

// KnowsParticipants implements Distribution.
func (noParticipants) KnowsParticipants() bool { return true }

// ForgetParticipants implements Distribution.
func (noParticipants) ForgetParticipants() {}

// Participation implements Distribution.
func (noParticipants) Participation(string) (Participation, bool) { return nil, false }

// Participants implements Distribution.
func (noParticipants) Participants() iter.Seq[Participation] {
	return func(func(Participation) bool) {}
}

// AppendParticipants implements Distribution.
func (noParticipants) AppendParticipants(dst []byte) []byte { return dst }

// RestoreParticipants implements Distribution.
func (noParticipants) RestoreParticipants(b []byte) error {
	if len(b) > 0 {
		return errSnapshot
	}
	return nil
}

// Standing is the status of a consumer's entry.
type Standing uint8

// The standings. An entry that is QUEUED or ADMITTED can still change. The others are
// final.
const (
	StandingNone Standing = iota // never entered
	StandingQueued
	StandingAdmitted
	StandingCompleted
	StandingExpired
	StandingDenied
	StandingLeft
)

var standings = [...]string{"", "QUEUED", "ADMITTED", "COMPLETED", "EXPIRED", "DENIED", "LEFT"}

func (s Standing) String() string { return standings[s] }

// final reports whether the status of the entry cannot change any more.
func (s Standing) final() bool { return s != StandingQueued && s != StandingAdmitted }

// outside reports whether the consumer may enter, again or for the first time.
func (s Standing) outside() bool {
	return s == StandingNone || s == StandingLeft || s == StandingExpired
}

// MarshalJSON writes the name.
func (s Standing) MarshalJSON() ([]byte, error) { return appendString(nil, s.String()), nil }

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Standing) UnmarshalJSON(raw []byte) error {
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return err
	}
	i := slices.Index(standings[:], name)
	if i < 1 {
		return fmt.Errorf("%q is not a standing", name)
	}
	*s = Standing(i)
	return nil
}

// DenyReason says why a consumer was denied.
type DenyReason string

// The reasons. A request cannot give QUEUE_CLOSED. It is the reason for consumers who
// still wait when their queue is COMPLETED.
const (
	DenyOrderLimit  DenyReason = "ORDER_LIMIT_EXCEEDED"
	DenyFraud       DenyReason = "FRAUD_DETECTED"
	DenyAdmin       DenyReason = "ADMIN_ACTION"
	DenyQueueClosed DenyReason = "QUEUE_CLOSED"
)

// DenyReasons are the reasons that a request may give.
func DenyReasons() []DenyReason { return []DenyReason{DenyOrderLimit, DenyFraud, DenyAdmin} }

// denial is a reason in one byte: 0 is no reason, the other values are the reasons that
// a request may give.
type denial uint8

func denialOf(r DenyReason) denial { return denial(slices.Index(DenyReasons(), r) + 1) }

func (d denial) reason() DenyReason {
	if d == 0 {
		return ""
	}
	return DenyReasons()[d-1]
}

// MaxConsumerID is how many characters a consumer's id may have.
const MaxConsumerID = 128
