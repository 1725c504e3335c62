package domain

import (
	"errors"
	"fmt"
	"iter"
)

// History is a stream's aggregate and its place in the stream. Apply takes events from
// the log and checks every one. Advance and Decide make the next events. Not safe for
// concurrent use.
type History struct {
	Stream    string
	Aggregate Aggregate
	Head      Head
	// Changed is the revision of the last event that changed the object itself:
	// see ChangesObject.
	Changed Revision
}

// NewHistory is the history of a stream before its first event. The stream's
// name must begin with a kind.
func NewHistory(stream string) *History {
	return &History{Stream: stream, Aggregate: NewAggregate(StreamKind(stream)), Head: EmptyHead(), Changed: NoStream}
}

// Fork returns a copy that evolves apart from the original.
func (h *History) Fork() *History {
	f := *h
	f.Aggregate = h.Aggregate.Fork()
	return &f
}

// Apply takes the next event of the log. It checks that the event continues the
// stream without a gap, that the hash chain holds, that the event can be decoded and
// that the rules allow it. Otherwise it returns a *HistoryError, and the caller must not
// use h any more.
func (h *History) Apply(r *Recorded) error {
	next, err := h.Head.Next(h.Stream, r)
	if err != nil {
		return err
	}
	if err := h.evolve(r.Event, next); err != nil {
		if v, ok := errors.AsType[*RuleError](err); ok {
			return breaks(h.Stream, r, v.Rule, "%s", v.Detail)
		}
		return err
	}
	h.Identify(r.Event, r.ID)
	// Otherwise two streams could hold the same id.
	if id := h.subject(); r.Revision == 0 && id != "" && id.Stream() != h.Stream {
		return breaks(h.Stream, r, "a stream is about what it is named for", "it is about %s", id)
	}
	return nil
}

// Next is the head after r, the next event of the stream that ends at h. It checks that
// the event continues the stream without a gap, that the hash chain holds and that the
// event can be read; otherwise it returns a *HistoryError. Only a History can check
// whether the rules allow the event.
func (h Head) Next(stream string, r *Recorded) (Head, error) {
	if r.Stream != stream || r.Revision != h.Revision+1 {
		return Head{}, breaks(stream, r, "revisions have no gaps", "%s@%d follows %d", r.Stream, r.Revision, h.Revision)
	}
	metadata, hash, ok := SplitHash(r.RawMetadata)
	if !ok || hash != EventHash(r.ID, r.Type, r.Stream, r.Revision, r.Data, metadata, h.Hash) {
		return Head{}, breaks(stream, r, "each event's hash covers it and the event before", "it does not")
	}
	if r.Undecoded != nil {
		return Head{}, breaks(stream, r, "every event can be read", "%s", r.Undecoded)
	}
	return Head{r.Revision, hash}, nil
}

// breaks says that an event of a stream breaks a rule.
func breaks(stream string, r *Recorded, rule, format string, args ...any) *HistoryError {
	return &HistoryError{stream, r.Revision, r.Type, rule, fmt.Sprintf(format, args...)}
}

// ReadWhole yields the events of a stream after a revision, as read returns them, and
// checks that the stream still holds the event at the revision known. It ends after the
// first error. When the store says that the stream is gone, read gives a *HistoryError.
//
// The server that read asks may lag behind the server that returned the known event. So
// when the stream seems to be gone or to end too early, ReadWhole calls again, and
// reads on after the last event if again returns true. If again returns false,
// ReadWhole ends with a *HistoryError: somebody shortened the stream. An error of again
// ends the reading too.
func ReadWhole(stream string, after, known Revision, read func(after Revision) iter.Seq2[*Recorded, error], again Again) iter.Seq2[*Recorded, error] {
	return func(yield func(*Recorded, error) bool) {
		for attempt := 1; ; attempt++ {
			var failed error
			for r, err := range read(after) {
				if failed = err; err != nil {
					break
				}
				if !yield(r, nil) {
					return
				}
				after = r.Revision
			}
			if failed == nil && after < known {
				failed = &HistoryError{
					Stream: stream, Revision: after + 1, Rule: "what was recorded stays",
					Detail: fmt.Sprintf("the event at revision %d is known, and the stream ends before it", known),
				}
			}
			if failed == nil {
				return
			}
			more := false
			if _, gone := errors.AsType[*HistoryError](failed); gone {
				var err error
				if more, err = again(attempt); err != nil {
					failed = err
				}
			}
			if !more {
				yield(nil, failed)
				return
			}
		}
	}
}

// Again reports whether ReadWhole should read once more. attempt is the number of reads so
// far, from 1. Again waits before it returns true.
type Again func(attempt int) (bool, error)

// Once is an Again for servers that do not lag behind. It always returns false, so
// ReadWhole reads only once.
func Once(int) (bool, error) { return false, nil }

// subject is the id of the object that the stream is about, or "" when it is about
// none.
func (h *History) subject() ID {
	switch a := h.Aggregate.(type) {
	case Distribution:
		return a.Shared().ID
	case *Organization:
		return a.ID
	}
	return ""
}

func (h *History) evolve(e Event, next Head) error {
	if err := h.Aggregate.Evolve(e); err != nil {
		return err
	}
	h.Head = next
	if ChangesObject(e) {
		h.Changed = next.Revision
	}
	return nil
}

// Identify tells the aggregate the id of an event that it has applied. A grant is
// identified by the id of its event.
func (h *History) Identify(e Event, id [16]byte) {
	if g, ok := h.Aggregate.(granter); ok {
		g.identify(e, id)
	}
}

// At returns the time of a command that is decided when the clock shows clock. It is
// never earlier than the latest time in the stream.
func (h *History) At(clock Instant) Instant {
	return max(clock, h.Aggregate.Time())
}

// Advance does everything that is due at now, one step after another, and yields the
// events of each step. h has evolved by them already. A caller that stops early can call
// Advance again: it goes on after the last step.
func (h *History) Advance(now Instant) iter.Seq2[[]Event, error] {
	return func(yield func([]Event, error) bool) {
		for {
			events, err := h.Decide(now, Advance{})
			if err == nil && len(events) == 0 || !yield(events, err) || err != nil {
				return
			}
		}
	}
}

// Decide decides cmd at now, evolves h by its events and returns them. The caller must
// have advanced h to now before, and advances it again for the steps that the events make
// due. A refusal leaves h unchanged. The hash of the new head is empty until the log has
// the events.
func (h *History) Decide(now Instant, cmd Command) ([]Event, error) {
	events, err := h.Aggregate.Decide(now, cmd)
	if err != nil {
		return nil, err
	}
	for _, e := range events {
		if err := h.evolve(e, Head{Revision: h.Head.Revision + 1}); err != nil {
			return nil, fmt.Errorf("the rules refuse what they decided, %T on %s: %w", e, h.Stream, err)
		}
	}
	return events, nil
}
