package commands

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestHandler_decidesAgainAfterALostRace(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	other := NewHandler(b.log, nil, b.clock.time)
	lost := false
	b.log.before = func(_ int, _ string) error {
		if lost {
			return nil
		}
		lost = true
		_, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"theirs"`)}})
		return err
	}
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"ours"`)}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Raced || r.History.Head.Revision != 2 {
		t.Errorf("%+v", r)
	}
	if m := b.log.streams[stream][0].Metadata; m.CorrelationID != "r1" || m.CausationID != m.CommandID {
		t.Errorf("metadata %+v", m)
	}
	last := b.log.streams[stream][2].Event.(domain.Updated)
	if got := string(last.Changed["name"].Old); got != `"theirs"` {
		t.Errorf("decided on %s", got)
	}
	b.log.verify(t)
}

func TestHandler_givesUpARaceAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(int, string) error {
		b.clock.add(300 * time.Millisecond)
		return domain.ErrWrongRevision
	}
	refusedWith(t, b.update(t, stream, "name", `"x"`), domain.ChangedByAnother)
	if b.log.appends < 5 || b.log.appends > 10 {
		t.Errorf("%d attempts in two seconds of 300 ms each", b.log.appends)
	}
	b.log.before = func(int, string) error { return nil }
	if err := b.update(t, stream, "name", `"y"`); err != nil {
		t.Error(err)
	}
}

func TestHandler_aStoreThatNeverAnswersAnAppendLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(int, string) error {
		b.clock.add(300 * time.Millisecond)
		return domain.ErrOutcomeUnknown
	}
	if err := b.update(t, stream, "name", `"x"`); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if b.log.appends > 10 {
		t.Errorf("%d attempts in two seconds of 300 ms each", b.log.appends)
	}
}

func TestHandler_aLostAnswerIsFoundInTheStream(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.after = func(n int, _ string) error {
		if n == 2 {
			return domain.ErrOutcomeUnknown
		}
		return nil
	}
	// If the command were decided again, it would be refused.
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Position.Commit != 4 || r.History.Head.Revision != 3 || r.Replayed {
		t.Errorf("%+v", r)
	}
	if got := b.log.types(stream); len(got) != 4 {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

func TestHandler_anAppendThatDidNothingIsDoneAgain(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(n int, _ string) error {
		if n == 2 {
			return domain.ErrOutcomeUnknown
		}
		return nil
	}
	if err := b.update(t, stream, "name", `"once"`); err != nil {
		t.Fatal(err)
	}
	if got := b.log.types(stream); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestHandler_aStoreThatStaysAwayLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	away := true
	b.log.after = func(int, string) error {
		if away {
			return domain.ErrOutcomeUnknown
		}
		return nil
	}
	b.log.reading = func(int, string) error {
		b.clock.add(500 * time.Millisecond)
		if away {
			return domain.ErrUnavailable
		}
		return nil
	}
	k := idempotencyKey("k", "body")
	update := Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"x"`)}, IdempotencyKey: k}
	if _, err := b.Handle(t.Context(), update); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if b.log.reads > 10 {
		t.Errorf("%d attempts to read in two seconds of 500 ms each", b.log.reads)
	}
	away = false
	// The first append had been written, so the repeat finds its events.
	r, err := b.Handle(t.Context(), update)
	if err != nil || !r.Replayed {
		t.Errorf("%+v, %v", r, err)
	}
	if got := b.log.types(stream); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

// For every k, the k-th append fails before or after it has written. Then the same commands
// are repeated on a new node. The log has as many events as without failures.
func TestHandler_theKthAppendFails(t *testing.T) {
	t.Parallel()
	story := func(h *Handler, ctx context.Context) error {
		created, err := h.Create(ctx, creation(idempotencyKey("create", "b")))
		if err != nil {
			return err
		}
		stream := created.History.Stream
		for i, cmd := range []domain.Command{
			domain.Update{Fields: fields("name", `"n"`)}, domain.Step{To: domain.StatusOpen}, domain.Step{To: domain.StatusClosed}, domain.Delete{},
		} {
			if _, err := h.Handle(ctx, Request{Stream: stream, Command: cmd, IdempotencyKey: idempotencyKey(fmt.Sprint(i), "b")}); err != nil {
				return err
			}
		}
		return nil
	}
	count := func(l *testLog) (n int) {
		for _, events := range l.streams {
			n += len(events)
		}
		return n
	}
	clean := newBench()
	if err := story(clean.Handler, t.Context()); err != nil {
		t.Fatal(err)
	}
	want := count(clean.log)
	for _, point := range []string{"before", "after"} {
		for _, kind := range []error{domain.ErrUnavailable, domain.ErrOutcomeUnknown} {
			if point == "after" && errors.Is(kind, domain.ErrUnavailable) {
				continue // after an append has written, the store never says that it is unavailable
			}
			for k := 1; k <= clean.log.appends; k++ {
				b := newBench()
				fail := func(n int, _ string) error {
					if n == k {
						return kind
					}
					return nil
				}
				if point == "before" {
					b.log.before = fail
				} else {
					b.log.after = fail
				}
				err := story(b.Handler, t.Context())
				if errors.Is(kind, domain.ErrUnavailable) != errors.Is(err, domain.ErrUnavailable) {
					t.Errorf("%s, %v at %d: %v", point, kind, k, err)
				}
				if err := story(NewHandler(b.log, nil, b.clock.time), t.Context()); err != nil {
					t.Errorf("%s, %v at %d, repeated: %v", point, kind, k, err)
				}
				if got := count(b.log); got != want {
					t.Errorf("%s, %v at %d: %d events, want %d", point, kind, k, got, want)
				}
				b.log.verify(t)
			}
		}
	}
}

// With the largest number of waiting commands and many failing appends, each command is
// carried out once. After a failure, the writer decides only one batch again and reads only
// the events after its state.
func TestHandler_aFailedAppendCostsOneBatchAndTheTail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		stream := b.queue(t)
		held, release := b.hold()
		var failed int
		holding := b.log.before
		b.log.before = func(k int, s string) error {
			if k%3 == 0 {
				failed++
				return domain.ErrOutcomeUnknown
			}
			return holding(k, s)
		}
		b.log.after = func(k int, _ string) error {
			if k%3 == 1 {
				failed++
				return domain.ErrOutcomeUnknown
			}
			return nil
		}
		ask := func(i int) *pendingRequest {
			k := idempotencyKey(strconv.Itoa(i), "b")
			p := &pendingRequest{
				Request: Request{Stream: stream, Command: domain.Update{Fields: fields("name", strconv.Quote(strconv.Itoa(i)))}, IdempotencyKey: k},
				ctx:     t.Context(), id: k.CommandID, done: make(chan struct{}),
			}
			if err := b.addWaiting(p); err != nil {
				t.Fatal(err)
			}
			return p
		}
		all := []*pendingRequest{ask(0)}
		<-held
		for i := range maxWaiting {
			all = append(all, ask(i+1))
		}
		before := b.log.encoded
		close(release)
		wrong := 0
		for i, p := range all {
			<-p.done
			if p.err != nil || *shared(p.result).Name != strconv.Itoa(i) {
				wrong++
			}
			p.result = Result{}
		}
		b.working.Wait()
		if wrong > 0 {
			t.Errorf("%d commands have a result that is not their own", wrong)
		}
		if got := len(b.log.types(stream)); got != maxWaiting+2 {
			t.Errorf("%d events", got)
		}
		if least := 2 * maxWaiting / maxBatch / 3; failed < least {
			t.Errorf("only %d appends failed", failed)
		}
		if again := b.log.encoded - before - maxWaiting; again > failed*maxBatch {
			t.Errorf("%d events were encoded again after %d failures", again, failed)
		}
		if b.log.yielded > failed*maxBatch {
			t.Errorf("%d events were read after %d failures", b.log.yielded, failed)
		}
		b.log.verify(t)
	})
}

// The store writes an append whose answer was lost only after the writer has read the
// stream and decided the command again.
func TestHandler_anAppendThatLandsLateIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	var late func()
	b.log.delay = func(n int, write func()) error {
		switch n {
		case 2:
			late = write
			return domain.ErrOutcomeUnknown
		case 3:
			b.clock.add(7 * time.Millisecond)
			late()
		}
		return nil
	}
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"one"`)}})
	if err != nil || r.History.Head.Revision != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := b.update(t, stream, "name", `"two"`); err != nil {
		t.Error(err)
	}
	if got := b.log.types(stream); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

// While the store may still write an append, no result says that nothing happened.
func TestHandler_aRefusalDoesNotOvertakeAnAppendInDoubt(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t, "openAt", `"2026-12-15T08:00:00Z"`, "closeAt", `"2026-12-15T10:00:00Z"`)
	var land func()
	doubtful := b.log.appends + 1
	b.log.delay = func(n int, write func()) error {
		if n != doubtful {
			return nil
		}
		land = write
		b.clock.add(10 * time.Second) // then the requested closing time is past
		return domain.ErrOutcomeUnknown
	}
	if err := b.update(t, stream, "closeAt", `"2026-12-15T09:00:05Z"`); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	land()
	if got := b.log.types(stream); got[len(got)-1] != "domain.Updated" {
		t.Errorf("got %v", got)
	}
	// Once the stream has another head, the store refuses the append, so results are
	// certain again.
	b.clock.add(-10 * time.Second)
	other := NewHandler(b.log, nil, b.clock.time)
	doubtful = b.log.appends + 1
	b.log.delay = func(n int, _ func()) error {
		if n != doubtful {
			return nil
		}
		if _, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusClosed}}); err != nil {
			t.Error(err)
		}
		return domain.ErrOutcomeUnknown
	}
	refusedWith(t, b.update(t, stream, "name", `"late"`), domain.UpdateClosed)
	b.log.verify(t)
}

// A result without events comes from the newest state in the log, not from the state that
// this node has in memory.
func TestHandler_resultsWithoutEventsComeFromTheNewestState(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		theirs, ours domain.Command
		ifMatch      []domain.Revision
		refused      domain.Code
	}{
		"a step that is next by now": {theirs: domain.Step{To: domain.StatusOpen}, ours: domain.Step{To: domain.StatusClosed}},
		"a tag that holds by now":    {theirs: domain.Update{Fields: fields("name", `"x"`)}, ours: domain.Update{Fields: fields("name", `"y"`)}, ifMatch: []domain.Revision{1}},
		"nothing to change, deleted": {theirs: domain.Delete{}, ours: domain.Update{}, refused: "Queue not found"},
	} {
		b := newBench()
		stream := b.queue(t)
		if _, err := NewHandler(b.log, nil, b.clock.time).Handle(t.Context(), Request{Stream: stream, Command: c.theirs}); err != nil {
			t.Fatal(err)
		}
		r, err := b.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: c.ours, IfMatch: c.ifMatch})
		switch {
		case c.refused != "":
			refusedWith(t, err, c.refused)
		case err != nil || !r.Raced:
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		b.log.verify(t)
	}
}

// While the outcome of an append is unknown, no error may say that nothing was written.
func TestHandler_anUnknownOutcomeIsNotForgotten(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	var late func()
	b.log.delay = func(n int, write func()) error {
		switch n {
		case 2:
			late = write
			b.clock.add(7 * time.Millisecond) // otherwise the next attempt would have the same event ids
			return domain.ErrOutcomeUnknown
		case 3:
			late()
			b.log.reading = func(int, string) error {
				b.clock.add(time.Second)
				return domain.ErrUnavailable
			}
		}
		return nil
	}
	if err := b.update(t, stream, "name", `"x"`); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v, and the stream has %v", err, b.log.types(stream))
	}
}
