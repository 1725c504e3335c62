package domain

import (
	"errors"
	"fmt"
	"time"
)

// Revision is an event's place in its stream, from 0 without gaps.
type Revision int64

// NoStream is the revision of a stream without events.
const NoStream Revision = -1

// Position is an event's place in the whole log. Positions order events and mean
// nothing else: they have gaps and no arithmetic. The zero Position precedes
// every event.
type Position struct {
	Commit  uint64 `json:"commit"`
	Prepare uint64 `json:"prepare"`
}

// Before reports whether p is an earlier place than q.
func (p Position) Before(q Position) bool {
	return p.Commit < q.Commit || (p.Commit == q.Commit && p.Prepare < q.Prepare)
}

// Metadata says who caused an event, by which command and request. Its JSON is stored.
// The two names with a dollar sign are EventStoreDB's own.
type Metadata struct {
	SchemaVersion int    `json:"schemaVersion"`
	CommandID     string `json:"commandId"`
	CorrelationID string `json:"$correlationId"` // the request or timer that caused the command
	CausationID   string `json:"$causationId"`   // the command that the event follows from
	Actor         string `json:"actor"`          // a key's id, or one of the Actor constants
	OnBehalfOf    string `json:"onBehalfOf,omitempty"`
	RequestID     string `json:"requestId,omitempty"`
	BodyHash      string `json:"bodyHash,omitempty"` // SHA-256 of the request's body in lower-case hex
	// Traceparent is the command's place in a trace (W3C Trace Context), when traces
	// were on. No rule depends on it.
	Traceparent string `json:"traceparent,omitempty"`
}

// Actors that are not keys.
const (
	ActorClock    = "clock"    // a timer, or a step that was due when another command came
	ActorOperator = "operator" // the command line and the start of the program
	ActorConsumer = "consumer" // the consumer whom the event is about
)

// Proposed is an event that is ready to be appended: encoded, with its secrets sealed. It
// has no place in a stream yet.
type Proposed struct {
	ID       [16]byte
	Type     string
	Data     []byte
	Metadata []byte // without the hash, which depends on the place
}

// Size is the approximate number of bytes that the event takes up in an append.
func (p Proposed) Size() int { return len(p.Type) + len(p.Data) + len(p.Metadata) + 256 }

// Recorded is an event as the log holds it.
type Recorded struct {
	ID          [16]byte
	Type        string
	Stream      string
	Revision    Revision
	Position    Position
	RecordedAt  time.Time
	Data        []byte // the stored bytes
	RawMetadata []byte // the stored bytes
	Metadata    Metadata
	// Event is the decoded event, with its secrets opened. It is nil when
	// Undecoded says why the event could not be read.
	Event     Event
	Undecoded error
}

// Head is where a stream ends: the revision and the hash of its last event.
type Head struct {
	Revision Revision `json:"revision"`
	Hash     string   `json:"hash"`
}

// EmptyHead is the head of a stream without events.
func EmptyHead() Head { return Head{Revision: NoStream} }

// Errors of appends and reads. They are wrapped with the name of the stream.
var (
	// ErrWrongRevision: the stream is at another revision than the append expected.
	// Nothing was written.
	ErrWrongRevision = errors.New("the stream is at another revision")
	// ErrUnavailable: the log cannot be reached. Nothing was written.
	ErrUnavailable = errors.New("the event store is unavailable")
	// ErrOutcomeUnknown: an append ended without an answer. It may have been
	// written.
	ErrOutcomeUnknown = errors.New("the outcome of an append is unknown")
)

// HistoryError says that a stream holds an event that the rules do not allow, and which
// event that is.
type HistoryError struct {
	Stream   string   `json:"stream"`
	Revision Revision `json:"revision"`
	Type     string   `json:"type"` // "" when the error is about a missing event
	Rule     string   `json:"rule"`
	Detail   string   `json:"detail"`
}

func (e *HistoryError) Error() string {
	if e.Type == "" {
		return fmt.Sprintf("%s@%d breaks a rule: %s: %s", e.Stream, e.Revision, e.Rule, e.Detail)
	}
	return fmt.Sprintf("%s@%d (%s) breaks a rule: %s: %s", e.Stream, e.Revision, e.Type, e.Rule, e.Detail)
}
