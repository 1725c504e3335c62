package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// readable is the log of a test as Histories. The test can delay its reads or make them fail.
type readable struct {
	log     *testLog
	reading func(ctx context.Context, stream string) error
	reads   chan string // the streams that were read
}

func newReadable(l *testLog) *readable {
	return &readable{log: l, reading: func(context.Context, string) error { return nil }, reads: make(chan string, 1000)}
}

func (r *readable) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		r.reads <- stream
		if err := r.reading(ctx, stream); err != nil {
			yield(nil, err)
			return
		}
		for _, e := range r.log.events {
			if e.Stream == stream && e.Revision > after && !yield(e, nil) {
				return
			}
		}
	}
}

// count returns the number of reads since its last call.
func (r *readable) count() int {
	n := 0
	for len(r.reads) > 0 {
		<-r.reads
		n++
	}
	return n
}

// openParticipants opens views that read histories from a log, restores them and follows the
// log to its end.
func openParticipants(tb testing.TB, path string, from *readable) *Views {
	tb.Helper()
	origin := testOrigin
	origin.Log = from
	v, err := Open(path, origin, testSeals{}, zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	if err := v.Restore(tb.Context()); err != nil {
		tb.Fatal(err)
	}
	follow(v, from.log)
	return v
}

// openQueue creates an open queue.
func (l *testLog) openQueue(tb testing.TB, org domain.ID, fields map[string]string) domain.ID {
	tb.Helper()
	id := l.create(tb, org, domain.KindQueue, fields)
	l.must(tb, id, domain.Step{To: domain.StatusOpen})
	return id
}

func (l *testLog) enter(tb testing.TB, queue domain.ID, consumers ...string) {
	tb.Helper()
	for _, c := range consumers {
		l.must(tb, queue, domain.Enter{ConsumerID: c})
	}
}

// closedQueue creates a queue with entries, all of which wait until it closes.
func (l *testLog) closedQueue(tb testing.TB, org domain.ID, entries int) domain.ID {
	tb.Helper()
	id := l.openQueue(tb, org, nil)
	for i := range entries {
		l.enter(tb, id, fmt.Sprintf("c%d", i))
	}
	l.must(tb, id, domain.Step{To: domain.StatusClosed})
	return id
}

// wantStandings checks the standings of consumers in a queue.
func wantStandings(tb testing.TB, v *Views, org, queue domain.ID, want map[string]domain.Standing) {
	tb.Helper()
	q, err := v.Participants(tb.Context(), org, queue)
	if err != nil {
		tb.Fatal(err)
	}
	for c, standing := range want {
		if p, _ := q.(*domain.Queue).Place(c); p.Standing != standing {
			tb.Errorf("%s is %q, not %s", c, p.Standing, standing)
		}
	}
}

// The participants of a queue that is not over are in memory, so no history is read.
func TestQueue_knowsItsParticipants(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.openQueue(t, org, nil)
	l.enter(t, id, "a", "b", "c")
	l.must(t, id, domain.Admit{ConsumerID: "b"})
	l.must(t, id, domain.Leave{ConsumerID: "c"})
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	wantStandings(t, v, org, id, map[string]domain.Standing{
		"a": domain.StandingQueued, "b": domain.StandingAdmitted, "c": domain.StandingLeft, "d": domain.StandingNone,
	})
	if n := from.count(); n != 0 {
		t.Errorf("%d histories were read", n)
	}
	if _, err := v.Participants(t.Context(), l.id("org"), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("another organization's: %v", err)
	}
}

// The participants of a queue that is over are dropped. The first query folds them again.
func TestQueue_isFoldedOnDemandWhenItIsOver(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.closedQueue(t, org, 3)
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	row, err := v.Get(org, id)
	if err != nil || row.Distribution.(*domain.Queue).KnowsParticipants() {
		t.Fatalf("the participants are kept: %v", err)
	}
	for range 3 {
		wantStandings(t, v, org, id, map[string]domain.Standing{"c0": domain.StandingDenied, "c2": domain.StandingDenied, "c3": domain.StandingNone})
	}
	if n := from.count(); n != 1 {
		t.Errorf("the history was read %d times", n)
	}
	l.must(t, id, domain.Delete{})
	follow(v, l)
	if _, err := v.Participants(t.Context(), org, id); !errors.Is(err, ErrNotFound) {
		t.Errorf("once it is deleted: %v", err)
	}
}

// The folded queues in memory are bounded by their entries. The least recently used ones are
// dropped first, and the last one is never dropped.
func TestQueue_foldsAreBounded(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	var ids []domain.ID
	for range 4 {
		ids = append(ids, l.closedQueue(t, org, 10))
	}
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	v.folds.max = 25
	ask := func(i, reads int) {
		t.Helper()
		wantStandings(t, v, org, ids[i], map[string]domain.Standing{"c9": domain.StandingDenied})
		v.folds.working.Wait()
		if n := from.count(); n != reads {
			t.Errorf("for %d, %d histories were read", i, n)
		}
	}
	ask(0, 1)
	ask(1, 1)
	ask(0, 0)
	ask(2, 1) // 1 is dropped
	ask(0, 0)
	ask(2, 0)
	ask(1, 1) // 0 is dropped
	ask(2, 0)
	ask(0, 1)
	v.folds.max = 5
	ask(3, 1)
	ask(3, 0)
	if len(v.folds.known) != 1 || len(v.folds.order) != 1 {
		t.Errorf("kept: %v", v.folds.order)
	}
}

// At most two histories are folded at once. A read that waits for more than two seconds is
// refused. The fold continues, and serves all later reads.
func TestQueue_aReadThatWaitsTooLongIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		org := l.organization(t)
		var ids []domain.ID
		for range 3 {
			ids = append(ids, l.closedQueue(t, org, 1))
		}
		from := newReadable(l)
		from.reading = func(ctx context.Context, _ string) error {
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
			}
			return ctx.Err()
		}
		v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
		defer closeViews(t, v)
		started := time.Now()
		refused := make(chan error)
		for _, id := range append(ids, ids...) {
			go func() {
				_, err := v.Participants(t.Context(), org, id)
				refused <- err
			}()
		}
		for range 2 * len(ids) {
			if err := <-refused; !errors.Is(err, ErrBehind) {
				t.Errorf("got %v", err)
			}
		}
		if waited := time.Since(started); waited != foldWait {
			t.Errorf("waited %s", waited)
		}
		if n := from.count(); n != foldsAtOnce {
			t.Errorf("%d are folded at once", n)
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Participants(gone, org, ids[0]); !errors.Is(err, context.Canceled) {
			t.Errorf("with a context that has ended: %v", err)
		}
		time.Sleep(9 * time.Second) //nolint:forbidigo // synctest; two folds end after 5 seconds, the third after 10
		for _, id := range ids {
			wantStandings(t, v, org, id, map[string]domain.Standing{"c0": domain.StandingDenied})
		}
		if n := from.count(); n != 1 {
			t.Errorf("%d more were read", n)
		}
	})
}

// A fold that fails is not kept, so the next query folds again.
func TestQueue_aFoldThatFailsIsRepeated(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.closedQueue(t, org, 1)
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	from.reading = func(context.Context, string) error { return domain.ErrUnavailable }
	if _, err := v.Participants(t.Context(), org, id); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	v.folds.working.Wait()
	from.reading = func(context.Context, string) error { return nil }
	wantStandings(t, v, org, id, map[string]domain.Standing{"c0": domain.StandingDenied})
}

// When the views are closed, the folds in progress end, and so do those that wait.
func TestQueue_foldsEndWithTheViews(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	from := newReadable(l)
	from.reading = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	ids := []domain.ID{l.closedQueue(t, org, 1), l.closedQueue(t, org, 1), l.closedQueue(t, org, 1)}
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	failed := make(chan error)
	for _, id := range ids {
		go func() {
			_, err := v.Participants(t.Context(), org, id)
			failed <- err
		}()
	}
	<-from.reads
	closeViews(t, v)
	for range ids {
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}
