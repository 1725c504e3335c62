package commands

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestHandler_appendsDueEventsWithTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench()
	r, err := b.Create(t.Context(), creation(IdempotencyKey{}, "openAt", `"2026-12-15T08:00:00Z"`, "closeAt", `"2026-12-15T10:00:00Z"`))
	if err != nil {
		t.Fatal(err)
	}
	stream := r.History.Stream
	want := []string{"*domain.QueueCreated", "domain.Scheduled", "domain.Opened"}
	if got := b.log.types(stream); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if b.log.appends != 1 || r.Position.Commit != 3 || shared(r).Status != domain.StatusOpen || r.History.Changed != 2 {
		t.Errorf("%d appends, %+v", b.log.appends, r)
	}
	// The due events come first even when the command is refused.
	b.clock.add(2 * time.Hour)
	err = b.update(t, stream, "name", `"late"`)
	refusedWith(t, err, domain.UpdateClosed)
	want = append(want, "domain.Closed", "domain.Completed")
	if got := b.log.types(stream); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

func TestHandler_batchesCommandsThatWait(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	held, release := b.hold()
	const n = 200
	errs := make(chan error, n)
	send := func(i int) { errs <- b.update(t, stream, "name", fmt.Sprintf(`"%d"`, i)) }
	go send(0)
	<-held
	for i := 1; i < n; i++ {
		go send(i)
	}
	b.awaitWaiting(t, stream, n-1)
	close(release)
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if b.log.appends != 3 {
		t.Errorf("%d appends for the creation, one update and those that waited", b.log.appends)
	}
	if got := len(b.log.types(stream)); got != n+1 {
		t.Errorf("%d events", got)
	}
	b.log.verify(t)
}

// An outcome that does not fit into one append is written in parts. The caller gets the
// result when all of it is in the log.
func TestHandler_anOutcomeLargerThanAnAppendIsWrittenInParts(t *testing.T) {
	t.Parallel()
	past := []string{"openAt", `"2026-12-15T08:00:00Z"`, "closeAt", `"2026-12-15T08:30:00Z"`}
	want := []string{"*domain.QueueCreated", "domain.Scheduled", "domain.Opened", "domain.Closed", "domain.Completed"}
	const appends = 5 // the claim, the creation with the first due event, and one for each further event
	create := func(t *testing.T, b *bench) error {
		b.maxAppend = 1
		r, err := b.Create(t.Context(), creation(idempotencyKey("create", "b"), past...))
		if err != nil {
			return err
		}
		stream := r.History.Stream
		if got := b.log.types(stream); shared(r).Status != domain.StatusCompleted || !slices.Equal(got, want) {
			t.Errorf("the result says %s when the log has %s", shared(r).Status, got)
		}
		for _, e := range b.log.streams[stream] {
			if e.Metadata.RequestID != "r1" || e.Metadata.CommandID != idempotencyKey("create", "").CommandID.String() {
				t.Errorf("%s does not name the request: %+v", e.Type, e.Metadata)
			}
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		if err := create(t, b); err != nil || b.log.appends != appends {
			t.Fatalf("%d appends, %v", b.log.appends, err)
		}
		b.log.verify(t)
	})
	fail := map[string]func(b *bench, k int, err error){
		"before": func(b *bench, k int, err error) {
			b.log.before = func(n int, _ string) error { return unlessOther(n, k, err) }
		},
		"after": func(b *bench, k int, err error) {
			b.log.after = func(n int, _ string) error { return unlessOther(n, k, err) }
		},
	}
	for point, plant := range fail {
		for k := 2; k <= appends; k++ {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				plant(b, k, domain.ErrOutcomeUnknown)
				if err := create(t, b); err != nil {
					t.Errorf("%s append %d: %v", point, k, err)
				}
				b.log.verify(t)
			})
		}
	}
	// When the store goes away between two parts, the outcome is unknown. A repeat of the
	// request completes it.
	for k := 3; k <= appends; k++ {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			fail["before"](b, k, domain.ErrUnavailable)
			if err := create(t, b); !errors.Is(err, domain.ErrOutcomeUnknown) {
				t.Errorf("append %d: %v", k, err)
			}
			next := NewHandler(b.log, nil, b.clock.time)
			next.maxAppend = 1
			r, err := next.Create(t.Context(), creation(idempotencyKey("create", "b"), past...))
			if err != nil || !r.Replayed {
				t.Fatalf("append %d, repeated: %v", k, err)
			}
			if _, err := next.Handle(t.Context(), Request{Stream: r.History.Stream, Command: domain.Advance{}}); err != nil {
				t.Fatal(err)
			}
			if got := b.log.types(r.History.Stream); !slices.Equal(got, want) {
				t.Errorf("append %d: %s", k, got)
			}
			b.log.verify(t)
		})
	}
}

// unlessOther returns err for the k-th append only.
func unlessOther(n, k int, err error) error {
	if n != k {
		return nil
	}
	return err
}

// A command that waits after an outcome in parts is decided when all of it is in the log,
// even if another node writes some of it.
func TestHandler_aCommandAfterAnOutcomeInPartsWaitsForTheLastPart(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.maxAppend = 1
	stream := b.queue(t, "openAt", `"2026-12-15T10:00:00Z"`, "closeAt", `"2026-12-15T11:00:00Z"`)
	b.clock.add(3 * time.Hour)
	other := NewHandler(b.log, nil, b.clock.time)
	other.maxAppend = 1
	first := b.log.appends + 1
	b.log.after = func(n int, _ string) error {
		if n == first {
			_, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Advance{}})
			return err
		}
		return nil
	}
	refusedWith(t, b.update(t, stream, "name", `"late"`), domain.UpdateClosed)
	want := []string{"*domain.QueueCreated", "domain.Scheduled", "domain.Opened", "domain.Closed", "domain.Completed"}
	if got := b.log.types(stream); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}
