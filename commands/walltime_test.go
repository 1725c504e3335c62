package commands

import (
	"errors"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// With a clock outside of the years that an event can record, the handler decides nothing
// and writes nothing.
func TestHandler_decidesNothingOutsideTheYearsThatCanBeRecorded(t *testing.T) {
	t.Parallel()
	for _, at := range []time.Time{
		time.Unix(10, 0), time.Date(1999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2306, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		b := newBench()
		stream := b.queue(t)
		right, appends := b.clock.time(), b.log.appends
		b.clock.add(at.Sub(right))
		for what, ask := range map[string]func() error{
			"a command": func() error {
				_, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{}})
				return err
			},
			"a timer": func() error {
				_, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Advance{}})
				return err
			},
			"a load":                func() error { return b.Load(t.Context(), stream) },
			"a creation":            func() error { _, err := b.Create(t.Context(), creation(IdempotencyKey{})); return err },
			"a repeatable creation": func() error { _, err := b.Create(t.Context(), creation(idempotencyKey("k", "b"))); return err },
			"a key":                 func() error { _, err := b.CreateKey(t.Context(), KeyCreation{Organization: org}); return err },
			"the time":              func() error { _, err := b.Now(t.Context()); return err },
		} {
			if err := ask(); !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) {
				t.Errorf("%s: %s ends with %v", at, what, err)
			}
		}
		if b.log.appends != appends {
			t.Errorf("%s: %d appends", at, b.log.appends-appends)
		}
		b.clock.add(right.Sub(at))
		if _, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}}); err != nil {
			t.Error(err)
		}
		if _, err := b.Create(t.Context(), creation(idempotencyKey("k", "b"))); err != nil {
			t.Error(err)
		}
	}
}

// In the last year, a session may have to end after it, and could not be recorded.
func TestHandler_writesNoEventThatCannotBeReadBack(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t, "sessionDurationSeconds", "31536000", "admissionRate", "null")
	for _, c := range []domain.Command{domain.Step{To: domain.StatusOpen}, domain.Enter{ConsumerID: "c"}} {
		if _, err := b.Handle(t.Context(), Request{Stream: stream, Command: c}); err != nil {
			t.Fatal(err)
		}
	}
	b.clock.add(time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC).Sub(b.clock.time()))
	before := b.log.appends
	if _, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Admit{ConsumerID: "c"}}); err == nil || b.log.appends != before {
		t.Errorf("a session until 2200: %v, %d appends", err, b.log.appends-before)
	}
	if _, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Leave{ConsumerID: "c"}}); err != nil {
		t.Error(err)
	}
}
