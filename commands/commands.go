package commands

import (
	"context"
	"iter"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// Log is the event log as this package needs it.
type Log interface {
	// Encode makes e ready to be appended to stream, except for its id. It seals
	// the secrets.
	Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error)
	// Append writes events behind head, all of them or none. On success they are
	// on disk. Errors: domain.ErrWrongRevision, domain.ErrUnavailable (both:
	// nothing was written), domain.ErrOutcomeUnknown.
	Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error)
	// Read yields the events of stream behind a revision, oldest first, and ends
	// after the first error. A stream that does not exist yields nothing.
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// States are the read models, as far as this package needs them.
type ReadModels interface {
	// State returns a copy of a stream's state that was folded from the log in this
	// process, and a position up to which it holds the log; or nil. It may be
	// behind: what is appended to it finds out.
	State(stream string) (*domain.History, domain.Position)
	// Known is a revision at which a stream held an event, or domain.NoStream, and why
	// the stream is in quarantine, or nil.
	Known(stream string) (domain.Revision, *domain.HistoryError)
	// Quarantine takes note of a stream whose history is inconsistent.
	Quarantine(broken *domain.HistoryError)
}

// Caller is who asks, for the metadata of the events.
type Caller struct {
	Actor      string // a key's id, or one of the domain.Actor constants
	OnBehalfOf string // the consumer that a key acts for, or ""
	RequestID  string // "" when no request is behind the command
	// Traceparent is where the command stands in a trace (W3C Trace Context), or "".
	// A handler with an observer sets it.
	Traceparent string
}

// Request is a command for one stream.
type Request struct {
	Stream  string
	Command domain.Command
	Caller  Caller
	// Organization is whose distribution the caller may touch; another's is not
	// found. "" may touch all.
	Organization domain.ID
	// Key makes the command repeatable. The zero Key does not.
	IdempotencyKey IdempotencyKey
	// IfMatch refuses the command unless the object's last change is at one of
	// these revisions. Nil asks for nothing.
	IfMatch []domain.Revision
	// IfNoneMatch refuses the command if the object's last change is at one of these
	// revisions.
	IfNoneMatch []domain.Revision
}

// Key is what makes a command repeatable: its id, made from the caller's
// idempotency key and scope, and the hash of the request's body, in lower-case
// hex. A command whose id is in the stream is not carried out again.
type IdempotencyKey struct {
	CommandID uuid.UUID
	BodyHash  string
}

func (k IdempotencyKey) given() bool { return k.CommandID != uuid.Nil }

// Result is the outcome of a command that was not refused.
type Result struct {
	// History is the stream after the command, though without the hash of its
	// head. The caller owns it. It is nil after a domain.ConsumerCommand.
	History *domain.History
	// Participations are those of the consumers whom a domain.ConsumerCommand was
	// about, after the command.
	Participations []domain.Participation
	// Position is where the last event stands in the log that the answer rests
	// on, a refusal's too. It is zero for an empty stream.
	Position domain.Position
	// Replayed says that the command had been carried out before.
	Replayed bool
	// Raced says that another node wrote to the stream meanwhile.
	Raced bool
	// Written says that events were appended, for the command or for what was due before
	// it.
	Written bool
}
