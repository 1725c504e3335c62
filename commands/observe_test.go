package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// witness is an Observer that notes its calls. It gives each command a number as its
// traceparent.
type witness struct {
	mu       sync.Mutex // guards the fields below
	begun    int
	ended    []string
	appended []string
}

type numberKey struct{}

func (w *witness) Begun(ctx context.Context, k domain.Kind, c domain.Command) (context.Context, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.begun++
	return context.WithValue(ctx, numberKey{}, w.begun), fmt.Sprint("trace ", w.begun)
}

func (w *witness) Ended(ctx context.Context, a Outcome) {
	w.mu.Lock()
	defer w.mu.Unlock()
	outcome := "done"
	if refusal, ok := errors.AsType[*domain.Error](a.Err); ok {
		outcome = string(refusal.Code)
	} else if a.Err != nil {
		outcome = "fault"
	}
	w.ended = append(w.ended, fmt.Sprintf("%d %T %s %s replayed=%t after %s", ctx.Value(numberKey{}), a.Command, a.Kind, outcome, a.Replayed, a.Took))
}

func (w *witness) Appended(a Append) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var waiting []any
	for _, ctx := range a.Commands {
		waiting = append(waiting, ctx.Value(numberKey{}))
	}
	w.appended = append(w.appended, fmt.Sprintf("%s: %d events for %v, attempt %d after %s, lost=%t", a.Kind, a.Events, waiting, a.Attempt, a.Took, errors.Is(a.Err, domain.ErrWrongRevision)))
}

func observedBench() (*bench, *witness) {
	b, w := newBench(), &witness{}
	b.Observe(w)
	return b, w
}

func (w *witness) want(t *testing.T, ended, appended []string) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.ended, ended) {
		t.Errorf("told of the outcomes\n%q\nwant\n%q", w.ended, ended)
	}
	if !slices.Equal(w.appended, appended) {
		t.Errorf("told of the appends\n%q\nwant\n%q", w.appended, appended)
	}
}

// A creation is one command although it writes to two streams. Load is not a command.
func TestObserver_isToldOfCommandsAndAppends(t *testing.T) {
	t.Parallel()
	b, w := observedBench()
	// Each append takes a second.
	b.log.before = func(int, string) error { b.clock.add(time.Second); return nil }
	k := idempotencyKey("k", "b")
	r, err := b.Create(t.Context(), creation(k))
	if err != nil {
		t.Fatal(err)
	}
	stream := r.History.Stream
	if _, err := b.Create(t.Context(), creation(k)); err != nil {
		t.Fatal(err)
	}
	if err := b.Load(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	refusedWith(t, b.update(t, stream, "winnerCount", "1"), domain.ValidationFailed)
	w.want(t, []string{
		"1 domain.Create queue done replayed=false after 2s",
		"2 domain.Create queue done replayed=true after 0s",
		"3 domain.Update queue Validation failed replayed=false after 0s",
	}, []string{
		"claim: 1 events for [1], attempt 1 after 1s, lost=false",
		"queue: 1 events for [1], attempt 1 after 1s, lost=false",
	})
}

func TestObserver_isToldOfALostRace(t *testing.T) {
	t.Parallel()
	b, w := observedBench()
	stream := b.queue(t)
	other, lost := NewHandler(b.log, nil, b.clock.time), false
	b.log.before = func(int, string) error {
		if lost {
			return nil
		}
		lost = true
		_, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"theirs"`)}})
		return err
	}
	if err := b.update(t, stream, "name", `"ours"`); err != nil {
		t.Fatal(err)
	}
	w.want(t, []string{
		"1 domain.Create queue done replayed=false after 0s",
		"2 domain.Update queue done replayed=false after 0s",
	}, []string{
		"queue: 1 events for [1], attempt 1 after 0s, lost=false",
		"queue: 1 events for [2], attempt 1 after 0s, lost=true",
		"queue: 1 events for [2], attempt 2 after 0s, lost=false",
	})
}

func TestObserver_isToldWhichCommandsShareAnAppend(t *testing.T) {
	t.Parallel()
	b, w := observedBench()
	stream := b.queue(t)
	held, release := b.hold()
	var all sync.WaitGroup
	update := func(name string) {
		all.Go(func() {
			if err := b.update(t, stream, "name", name); err != nil {
				t.Error(err)
			}
		})
	}
	update(`"first"`)
	<-held
	for i := range 3 {
		update(fmt.Sprintf(`"name %d"`, i))
	}
	b.awaitWaiting(t, stream, 3)
	if got := b.Occupancy(); got != (Occupancy{Writers: 1, Waiting: 3}) {
		t.Errorf("it holds %+v", got)
	}
	close(release)
	all.Wait()
	if got := b.Occupancy(); got != (Occupancy{Writers: 1}) {
		t.Errorf("in the end it holds %+v", got)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var numbers [3]int
	if n, err := fmt.Sscanf(w.appended[2], "queue: 3 events for [%d %d %d],", &numbers[0], &numbers[1], &numbers[2]); err != nil {
		t.Errorf("%d numbers, %v: %s", n, err, w.appended[2])
	}
	slices.Sort(numbers[:])
	if numbers != [3]int{3, 4, 5} {
		t.Errorf("the second append was for %v", numbers)
	}
}

// The events of a command, and those that were due before it, have the command's
// traceparent.
func TestObserver_marksTheEventsOfACommand(t *testing.T) {
	t.Parallel()
	b, _ := observedBench()
	stream := b.queue(t, "openAt", `"2026-12-15T10:00:00Z"`)
	b.clock.add(2 * time.Hour)
	if err := b.update(t, stream, "name", `"x"`); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range b.log.streams[stream] {
		got = append(got, fmt.Sprintf("%T %s", r.Event, r.Metadata.Traceparent))
		if _, err := uuid.Parse(r.Metadata.CommandID); err != nil {
			t.Error(err)
		}
	}
	want := []string{"*domain.QueueCreated trace 1", "domain.Scheduled trace 1", "domain.Opened trace 2", "domain.Updated trace 2"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	b.log.verify(t)
}
