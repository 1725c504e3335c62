package commands

import (
	"context"
	"iter"

	"github.com/lotline/lotline/domain"
)

// Log is the part of the event log that this package uses.
type Log interface {
	// Encode makes e ready to be appended to stream, and seals its secrets. The caller
	// sets the id.
	Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error)
	// Append writes all events after head, or none of them. On success they are on
	// disk. After domain.ErrWrongRevision and domain.ErrUnavailable nothing was
	// written. After domain.ErrOutcomeUnknown the events may be written, now or later.
	Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error)
	// Read yields the events of stream after a revision, oldest first, and ends after
	// the first error. A stream that does not exist yields nothing.
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// ReadModels are the part of the read models that this package uses.
type ReadModels interface {
	// State returns a copy of a stream's state, and a position up to which it holds
	// the log. The state was folded from the log in this process. It is nil when there
	// is no such state. It may be behind the log: then an append to it fails with
	// domain.ErrWrongRevision.
	State(stream string) (*domain.History, domain.Position)
	// Known returns a revision at which the stream held an event, or domain.NoStream.
	// The error says why the stream is in quarantine; it is nil when it is not.
	Known(stream string) (domain.Revision, *domain.HistoryError)
	// Quarantine puts a stream into quarantine because its history is inconsistent.
	Quarantine(broken *domain.HistoryError)
}

// Caller says on whose behalf a command comes. It goes into the metadata of the
// events.
type Caller struct {
	Actor      string // an API key's id, or one of the domain.Actor constants
	OnBehalfOf string // the consumer that the API key acts for, or ""
	RequestID  string // "" for a command that no HTTP request caused
	// Traceparent is the command's place in a trace (W3C Trace Context), or "". A
	// handler with an observer sets it.
	Traceparent string
}

// Request is a command for one stream.
type Request struct {
	Stream  string
	Command domain.Command
	Caller  Caller
	// Organization is the organization whose distributions the caller may use. Those
	// of other organizations are not found. "" may use all.
	Organization domain.ID
	// IdempotencyKey makes the command repeatable, unless it is zero.
	IdempotencyKey IdempotencyKey
	// IfMatch refuses the command unless the object's last change is at one of these
	// revisions. Nil refuses nothing.
	IfMatch []domain.Revision
	// IfNoneMatch refuses the command when the object's last change is at one of these
	// revisions.
	IfNoneMatch []domain.Revision
}

// Result is what a command led to.
type Result struct {
	// History is the stream's state after the command. Its head may lack the hash. The
	// caller owns it. It is nil after a domain.ConsumerCommand and after an error.
	History *domain.History
	// Participations are set after a domain.ConsumerCommand. They are the participations of
	// the command's consumers after the command.
	Participations []domain.Participation
	// Position is the log position of the last event of the state that the command was
	// decided on, with the events that it led to. A refusal has one as well. It is zero
	// for an empty stream.
	Position domain.Position
	// Replayed says that a command with the same IdempotencyKey was carried out before.
	// Then this one wrote nothing.
	Replayed bool
	// Raced says that another node wrote to the stream while the command was decided.
	Raced bool
	// Written says that the command's batch appended events: its own, or those that
	// were due before it.
	Written bool
}
