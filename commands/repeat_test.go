package commands

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestHandler_aRepeatedCreationIsOne(t *testing.T) {
	t.Parallel()
	b := newBench()
	k := idempotencyKey("k", "body")
	first, err := b.Create(t.Context(), creation(k))
	if err != nil {
		t.Fatal(err)
	}
	stream := first.History.Stream
	if err := b.update(t, stream, "name", `"changed since"`); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*Handler{"same node": b.Handler, "another node": NewHandler(b.log, nil, b.clock.time)} {
		again, err := h.Create(t.Context(), creation(k))
		if err != nil {
			t.Fatal(err)
		}
		if !again.Replayed || again.History.Stream != stream || again.History.Head.Revision != first.History.Head.Revision {
			t.Errorf("%s: %+v", name, again)
		}
		if shared(again).Name != nil {
			t.Errorf("%s: the repeat shows what came later", name)
		}
		_, err = h.Create(t.Context(), creation(idempotencyKey("k", "another body")))
		refusedWith(t, err, domain.IdempotencyReused)
	}
}

func TestHandler_twoNodesThatCreateAtOnceMakeOne(t *testing.T) {
	t.Parallel()
	b := newBench()
	nodes := []*Handler{b.Handler, NewHandler(b.log, nil, b.clock.time)}
	for round := range 50 {
		k := idempotencyKey(fmt.Sprint(round), "body")
		var ids, seeds [2]string
		var all sync.WaitGroup
		for i, h := range nodes {
			all.Go(func() {
				r, err := h.Create(t.Context(), creation(k))
				if err != nil {
					t.Error(err)
					return
				}
				ids[i], seeds[i] = r.History.Stream, shared(r).EncryptionSeed.Plain
			})
		}
		all.Wait()
		if ids[0] != ids[1] || seeds[0] != seeds[1] {
			t.Errorf("made %v with the seeds %v", ids, seeds)
		}
		if got := b.log.types(ids[0]); len(got) != 1 {
			t.Errorf("got %v", got)
		}
	}
	b.log.verify(t)
}

func TestHandler_aRefusalIsNotRemembered(t *testing.T) {
	t.Parallel()
	b := newBench()
	k := idempotencyKey("k", "bad")
	_, err := b.Create(t.Context(), creation(k, "maxCapacity", "0"))
	refusedWith(t, err, domain.ValidationFailed)
	if len(b.log.streams) != 0 {
		t.Errorf("a refusal left %v", b.log.streams)
	}
	k.BodyHash = "good"
	r, err := b.Create(t.Context(), creation(k))
	if err != nil || r.Replayed {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestHandler_aRepeatedCommandIsDoneOnce(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	open := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: idempotencyKey("k", "")}
	open.IdempotencyKey.BodyHash = "e3b0"
	if r, err := b.Handle(t.Context(), open); err != nil || r.Replayed {
		t.Fatal(r, err)
	}
	n := len(b.log.types(stream))
	for name, h := range map[string]*Handler{"same node": b.Handler, "after a restart": NewHandler(b.log, nil, b.clock.time)} {
		r, err := h.Handle(t.Context(), open)
		if err != nil || !r.Replayed || shared(r).Status != domain.StatusOpen {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		other := open
		other.IdempotencyKey.BodyHash = "another"
		_, err = h.Handle(t.Context(), other)
		refusedWith(t, err, domain.IdempotencyReused)
	}
	if got := len(b.log.types(stream)); got != n {
		t.Errorf("%d events became %d", n, got)
	}
}

// Repeats that wait at the same time are decided in one batch.
func TestHandler_aRepeatInTheSameBatchIsDoneOnce(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	held, release := b.hold()
	answered := make(chan error, 1)
	go func() { answered <- b.update(t, stream, "name", `"first"`) }()
	<-held
	const n = 5
	results := make(chan Result, n)
	open := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: idempotencyKey("k", "body")}
	for range n {
		go func() {
			r, err := b.Handle(t.Context(), open)
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	b.awaitWaiting(t, stream, n)
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	replayed := 0
	for range n {
		if r := <-results; r.Replayed {
			replayed++
		}
	}
	if replayed != n-1 {
		t.Errorf("%d of %d were replayed", replayed, n)
	}
	b.log.verify(t)
}

// When two nodes decide the same command at the same time, only one of them may report that
// its events are in the log.
func TestHandler_twoNodesThatDecideTheSameCommandAtOnceAgree(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	other := NewHandler(b.log, nil, b.clock.time)
	if err := other.Load(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	open := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: idempotencyKey("k", "body")}
	raced := false
	b.log.before = func(int, string) error {
		if raced {
			return nil
		}
		raced = true
		b.clock.add(7 * time.Millisecond)
		_, err := other.Handle(t.Context(), open)
		return err
	}
	r, err := b.Handle(t.Context(), open)
	if err != nil || !r.Replayed {
		t.Errorf("%+v, %v", r, err)
	}
	if at := b.log.streams[stream][1].Event.When(); shared(r).OpenAt != at {
		t.Errorf("the result says %s, the log says %s", shared(r).OpenAt, at)
	}
	b.log.before = func(int, string) error { return nil }
	for _, h := range []*Handler{b.Handler, other} {
		if _, err := h.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%p"`, h))}}); err != nil {
			t.Error(err)
		}
	}
	b.log.verify(t)
}

func TestHandler_aRacedRepeatWithAnotherBodyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	other := NewHandler(b.log, nil, b.clock.time)
	theirs := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: idempotencyKey("k", "theirs")}
	raced := false
	b.log.before = func(int, string) error {
		if raced {
			return nil
		}
		raced = true
		_, err := other.Handle(t.Context(), theirs)
		return err
	}
	ours := theirs
	ours.IdempotencyKey.BodyHash = "ours"
	_, err := b.Handle(t.Context(), ours)
	refusedWith(t, err, domain.IdempotencyReused)
}

// After a clock was days ahead, the stream has its time for ever. Idempotency keys are still
// remembered for a day.
func TestHandler_aClockThatWasDaysAheadForgetsNoKey(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.clock.add(48 * time.Hour)
	if err := b.update(t, stream, "name", `"ahead"`); err != nil {
		t.Fatal(err)
	}
	b.clock.add(-48 * time.Hour)
	r := Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"a"`)}, IdempotencyKey: idempotencyKey("k", "b")}
	if _, err := b.Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := b.update(t, stream, "name", `"b"`); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*Handler{"the same node": b.Handler, "another one": NewHandler(b.log, nil, b.clock.time)} {
		if again, err := h.Handle(t.Context(), r); err != nil || !again.Replayed || *shared(again).Name != "b" {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
	b.log.verify(t)
}

// A claim is in the log for ever, so a creation is recognised for ever.
func TestHandler_aCreationIsRepeatableForEver(t *testing.T) {
	t.Parallel()
	b := newBench()
	first, err := b.Create(t.Context(), creation(idempotencyKey("k", "b")))
	if err != nil {
		t.Fatal(err)
	}
	b.clock.add(72 * time.Hour)
	again, err := NewHandler(b.log, nil, b.clock.time).Create(t.Context(), creation(idempotencyKey("k", "b")))
	if err != nil || !again.Replayed || again.History.Stream != first.History.Stream {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = b.Create(t.Context(), creation(idempotencyKey("k", "another")))
	refusedWith(t, err, domain.IdempotencyReused)
}

// Two requests with one idempotency key are in a batch whose append loses its answer. One is
// done. The other is a repeat, or is refused when it has another body.
func TestHandler_aLostAnswerToARepeatedCommandIsForOneOfThem(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"body", "another"} {
		b := newBench()
		stream := b.queue(t)
		held, release := b.hold()
		b.log.after = func(n int, _ string) error {
			if n == 3 {
				return domain.ErrOutcomeUnknown
			}
			return nil
		}
		first := make(chan error, 1)
		go func() { first <- b.update(t, stream, "name", `"first"`) }()
		<-held
		type reply struct {
			Result
			err error
		}
		replies := make(chan reply, 2)
		for i, body := range []string{"body", other} {
			go func() {
				r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: idempotencyKey("k", body)})
				replies <- reply{r, err}
			}()
			b.awaitWaiting(t, stream, i+1)
		}
		close(release)
		if err := <-first; err != nil {
			t.Error(err)
		}
		done, repeated, misused := 0, 0, 0
		for range 2 {
			a := <-replies
			switch {
			case a.err != nil:
				refusedWith(t, a.err, domain.IdempotencyReused)
				misused++
			case a.Replayed:
				repeated++
			default:
				done++
			}
		}
		if done != 1 || (other == "body") != (repeated == 1) || (other == "another") != (misused == 1) {
			t.Errorf("%s: %d done, %d repeated, %d misused", other, done, repeated, misused)
		}
		b.log.verify(t)
	}
}

func TestHandler_forgetsIdempotencyKeysAfterMoreThanADay(t *testing.T) {
	t.Parallel()
	var m doneCommands
	day := domain.Instant(24 * time.Hour / time.Millisecond)
	m.add(idempotencyKey("old", "b"), day, 0)
	m.add(idempotencyKey("new", "b"), 2*day, 1)
	m.add(idempotencyKey("old", "c"), 3*day, 2)
	m.forgetBefore(day + 1)
	if done, _, _ := m.find(idempotencyKey("old", "b")); done {
		t.Error("the old one is remembered")
	}
	if done, same, first := m.find(idempotencyKey("new", "b")); !done || !same || first != 1 {
		t.Error("the new one is forgotten")
	}
	if done, same, _ := m.find(idempotencyKey("new", "c")); !done || same {
		t.Error("another body is taken for the same")
	}
	// A writer forgets old keys when it decides.
	b := newBench()
	stream := b.queue(t)
	for i := range 3 {
		b.clock.add(24 * time.Hour)
		r := Request{Stream: stream, Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%d"`, i))}, IdempotencyKey: idempotencyKey(fmt.Sprint(i), "b")}
		if _, err := b.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	b.working.Wait()
	if n := len(b.writers[stream].remembered.order); n != 2 {
		t.Errorf("%d keys are remembered", n)
	}
	if rememberFor < 24*time.Hour {
		t.Error("keys hold for 24 hours at least")
	}
}
