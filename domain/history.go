package domain

import (
	"errors"
	"fmt"
	"iter"
)

// History is a stream's aggregate and the place that it has reached. Events come
// to it either from the log, through Apply, which believes nothing, or from
// Advance and Decide, which decide what comes next. Not safe for concurrent use.
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
// stream without a gap, that the hash chain holds, that the event can be read and
// that the rules allow it; otherwise it gives a *HistoryError and h is of no use
// any more.
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
	// Or two streams could claim one id.
	if id := h.subject(); r.Revision == 0 && id != "" && id.Stream() != h.Stream {
		return breaks(h.Stream, r, "a stream is about what it is named for", "it is about %s", id)
	}
	return nil
}

// Next is the head after r, the next event of the stream that ends at h. It checks
// that the event continues the stream without a gap, that the hash chain holds and
// that the event can be read; otherwise it gives a *HistoryError. Whether the rules
// allow the event takes a History.
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

// ReadWhole yields what read does of a stream behind a revision, of which it is known
// that it holds an event at the revision known. It ends after the first error. Read
// may give a *HistoryError when the store says that the stream is gone.
//
// A server may lag behind another one, from which the event is known. So when the
// stream seems to be gone, or to end too early, ReadWhole reads on from where it is,
// as long as again reports true. When again reports false the stream was shortened,
// which is a *HistoryError. An error of again ends the reading.
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

// Again reports whether ReadWhole is to read once more, after so many attempts. It
// waits before it says so.
type Again func(attempt int) (bool, error)

// Once is for a server that does not lag behind.
func Once(int) (bool, error) { return false, nil }

// subject is what the stream is about, or "" for one that is about no object.
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

// Identify says which id an event has that h has evolved by: a session is known by
// the event that began it.
func (h *History) Identify(e Event, id [16]byte) {
	if admitted, ok := e.(ConsumerAdmitted); ok {
		h.Aggregate.(*Queue).identify(admitted.Entry, id)
	}
}

// ChangesObject reports whether e changes the object that a stream is about,
// rather than what belongs to it: an organization is the same with another key, a
// queue with another consumer.
func ChangesObject(e Event) bool {
	switch e.(type) {
	case KeyCreated, KeyRevoked, KeyExpired,
		ConsumerEntered, ConsumerAdmitted, ConsumerCompleted, ConsumerExpired, ConsumerLeft, ConsumerDenied:
		return false
	}
	return true
}

// At is the time at which a command counts that is decided when the clock shows
// clock: never earlier than the latest time in the stream.
func (h *History) At(clock Instant) Instant {
	if d, ok := h.Aggregate.(Distribution); ok {
		return max(clock, d.Shared().Latest)
	}
	if o, ok := h.Aggregate.(*Organization); ok {
		return max(clock, o.Latest)
	}
	if s, ok := h.Aggregate.(*SigningKeys); ok {
		return max(clock, s.Latest)
	}
	return clock
}

// Advance does what is due at now, one thing after another, and yields the events
// of each; h has evolved by them when they are yielded. Whoever stops early goes on
// by calling it again: what is left is determined by what was done.
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

// Decide decides cmd at now, evolves h by its events and returns them. What is due
// because of them is left to Advance. The caller has advanced h to now before.
// After a refusal h is as it was. The hash of the new head is not known until the
// events have their place in the log.
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
