package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// readable is a test's log as a source of histories, whose reads can be held back and
// made to fail.
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

// count is how many reads there were since it was called last.
func (r *readable) count() int {
	n := 0
	for len(r.reads) > 0 {
		<-r.reads
		n++
	}
	return n
}

// openParticipants opens views that know where histories are, and brings them to the
// log's end.
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

// open makes a queue that is open.
func (l *testLog) open(tb testing.TB, org domain.ID, fields map[string]string) domain.ID {
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

// past makes a queue that is over, with so many who waited to the end.
func (l *testLog) past(tb testing.TB, org domain.ID, entries int) domain.ID {
	tb.Helper()
	id := l.open(tb, org, nil)
	for i := range entries {
		l.enter(tb, id, fmt.Sprintf("c%d", i))
	}
	l.must(tb, id, domain.Step{To: domain.StatusClosed})
	return id
}

func stands(tb testing.TB, v *Views, org, queue domain.ID, want map[string]domain.Standing) {
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

// While a queue lives its participants are at hand; nothing is read.
func TestQueue_knowsWhoTakesPart(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.open(t, org, nil)
	l.enter(t, id, "a", "b", "c")
	l.must(t, id, domain.Admit{ConsumerID: "b"})
	l.must(t, id, domain.Leave{ConsumerID: "c"})
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	stands(t, v, org, id, map[string]domain.Standing{
		"a": domain.StandingQueued, "b": domain.StandingAdmitted, "c": domain.StandingLeft, "d": domain.StandingNone,
	})
	if n := from.count(); n != 0 {
		t.Errorf("%d histories were read", n)
	}
	if _, err := v.Participants(t.Context(), l.id("org"), id); !errors.Is(err, ErrNotFound) {
		t.Errorf("another organization's: %v", err)
	}
}

// Who took part in a queue that is over is dropped, and folded once when somebody
// asks.
func TestQueue_isFoldedOnDemandWhenItIsOver(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.past(t, org, 3)
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	row, err := v.Get(org, id)
	if err != nil || row.Distribution.(*domain.Queue).KnowsParticipants() {
		t.Fatalf("they are kept: %v", err)
	}
	for range 3 {
		stands(t, v, org, id, map[string]domain.Standing{"c0": domain.StandingDenied, "c2": domain.StandingDenied, "c3": domain.StandingNone})
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

// The folded queues are bounded by their entries; which were asked for the longest
// time ago go first, and the last one stays in any case.
func TestQueue_foldsAreBounded(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	var ids []domain.ID
	for range 4 {
		ids = append(ids, l.past(t, org, 10))
	}
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	v.folds.max = 25
	ask := func(i, reads int) {
		t.Helper()
		stands(t, v, org, ids[i], map[string]domain.Standing{"c9": domain.StandingDenied})
		v.folds.working.Wait()
		if n := from.count(); n != reads {
			t.Errorf("asked for %d: %d histories were read", i, n)
		}
	}
	ask(0, 1)
	ask(1, 1)
	ask(0, 0)
	ask(2, 1) // 1 goes
	ask(0, 0)
	ask(2, 0)
	ask(1, 1) // 0 goes
	ask(2, 0)
	ask(0, 1)
	v.folds.max = 5
	ask(3, 1)
	ask(3, 0)
	if len(v.folds.known) != 1 || len(v.folds.order) != 1 {
		t.Errorf("kept: %v", v.folds.order)
	}
}

// At most two histories are folded at once. Whoever waits for more than two seconds
// is refused; the folding goes on, for all who ask for it together.
func TestQueue_whoWaitsTooLongIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		org := l.organization(t)
		var ids []domain.ID
		for range 3 {
			ids = append(ids, l.past(t, org, 1))
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
			t.Errorf("who has gone: %v", err)
		}
		time.Sleep(9 * time.Second) //nolint:forbidigo // synctest; two were done after five of them, then the third
		for _, id := range ids {
			stands(t, v, org, id, map[string]domain.Standing{"c0": domain.StandingDenied})
		}
		if n := from.count(); n != 1 {
			t.Errorf("%d more were read", n)
		}
	})
}

// A fold that fails is not kept: whoever asks again has it tried again.
func TestQueue_aFoldThatFailsIsTriedAgain(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.past(t, org, 1)
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	from.reading = func(context.Context, string) error { return domain.ErrUnavailable }
	if _, err := v.Participants(t.Context(), org, id); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	v.folds.working.Wait()
	from.reading = func(context.Context, string) error { return nil }
	stands(t, v, org, id, map[string]domain.Standing{"c0": domain.StandingDenied})
}

// What is under way ends when the views are closed, what waits for it as well.
func TestQueue_foldsEndWithTheViews(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	from := newReadable(l)
	from.reading = func(ctx context.Context, _ string) error {
		<-ctx.Done()
		return ctx.Err()
	}
	ids := []domain.ID{l.past(t, org, 1), l.past(t, org, 1), l.past(t, org, 1)}
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

// After a restart those under way are folded anew, so that who takes part is known and
// the wakes are right; those that are over are not. Following goes on from there.
func TestRestore(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	live := l.open(t, org, map[string]string{"sessionDurationSeconds": "60"})
	l.enter(t, live, "a", "b")
	l.must(t, live, domain.Admit{ConsumerID: "a"})
	ends := l.now.Add(time.Minute)
	rated := l.open(t, org, map[string]string{"admissionRate": "60"})
	l.enter(t, rated, "a", "b")
	empty := l.open(t, org, nil)
	past := l.past(t, org, 2)
	from := newReadable(l)
	path := filepath.Join(t.TempDir(), "views.db")
	v := openParticipants(t, path, from)
	due := v.wake(rated.Stream()).At
	save(t, v)
	closeViews(t, v)
	from.count()

	v = openParticipants(t, path, from)
	defer closeViews(t, v)
	read := []string{<-from.reads, <-from.reads}
	slices.Sort(read)
	if want := []string{live.Stream(), rated.Stream()}; !slices.Equal(read, want) || len(from.reads) > 0 {
		t.Errorf("%q were read, and %d others", read, len(from.reads))
	}
	stands(t, v, org, live, map[string]domain.Standing{"a": domain.StandingAdmitted, "b": domain.StandingQueued})
	if got := v.wake(live.Stream()).At; got != ends {
		t.Errorf("it wakes at %s, and the session ends at %s", got, ends)
	}
	if got := v.wake(rated.Stream()).At; got != due || got == 0 {
		t.Errorf("it wakes at %s, before the restart at %s", got, due)
	}
	if h, _ := v.State(live.Stream()); h == nil {
		t.Error("nothing can be decided on what was folded")
	}
	if !slices.Contains(wakes(v), live.Stream()) {
		t.Error("nobody is told of the wake")
	}
	row, err := v.Get(org, past)
	if err != nil || row.Distribution.(*domain.Queue).KnowsParticipants() {
		t.Errorf("one that is over is folded: %v", err)
	}
	l.must(t, live, domain.Complete{ConsumerID: "a"})
	l.enter(t, live, "c")
	l.enter(t, empty, "x")
	l.must(t, empty, domain.Admit{ConsumerID: "x"})
	follow(v, l)
	stands(t, v, org, live, map[string]domain.Standing{"a": domain.StandingCompleted, "b": domain.StandingQueued, "c": domain.StandingQueued})
	stands(t, v, org, empty, map[string]domain.Standing{"x": domain.StandingAdmitted})
	if n := from.count(); n != 0 {
		t.Errorf("%d more were read", n)
	}
}

// An error of the log ends it, and it goes on where it stopped.
func TestRestore_goesOnAfterAnError(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	ids := []domain.ID{l.open(t, org, nil), l.open(t, org, nil), l.open(t, org, nil)}
	for _, id := range ids {
		l.enter(t, id, "a")
	}
	from := newReadable(l)
	path := filepath.Join(t.TempDir(), "views.db")
	v := openParticipants(t, path, from)
	save(t, v)
	closeViews(t, v)
	origin := testOrigin
	origin.Log = from
	v, err := Open(path, origin, testSeals{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer closeViews(t, v)
	from.reading = func(_ context.Context, stream string) error {
		if stream == ids[1].Stream() {
			return domain.ErrUnavailable
		}
		return nil
	}
	if err := v.Restore(t.Context()); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("got %v", err)
	}
	from.reading = func(context.Context, string) error { return nil }
	from.count()
	if err := v.Restore(t.Context()); err != nil {
		t.Error(err)
	}
	if n := from.count(); n != 1 {
		t.Errorf("%d were read the second time", n)
	}
	for _, id := range ids {
		stands(t, v, org, id, map[string]domain.Standing{"a": domain.StandingQueued})
	}
}

// A history that was damaged since is put into quarantine, and the others go on.
func TestRestore_quarantinesADamagedHistory(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	bad, good := l.open(t, org, nil), l.open(t, org, nil)
	l.enter(t, bad, "a", "b")
	l.enter(t, good, "a")
	from := newReadable(l)
	path := filepath.Join(t.TempDir(), "views.db")
	v := openParticipants(t, path, from)
	save(t, v)
	closeViews(t, v)
	damaged := newLog()
	for _, e := range l.events {
		if entered, ok := e.Event.(domain.ConsumerEntered); ok && e.Stream == bad.Stream() && entered.ConsumerID == "b" {
			other := *e
			entered.Entry = 7
			other.Event = entered
			e = &other
		}
		damaged.events = append(damaged.events, e)
	}
	from.log = damaged
	v = openParticipants(t, path, from)
	defer closeViews(t, v)
	if _, err := v.Participants(t.Context(), org, bad); !errors.As(err, new(*domain.HistoryError)) {
		t.Errorf("got %v", err)
	}
	if q := v.Quarantined(); len(q) != 1 || q[0].Stream != bad.Stream() {
		t.Errorf("in quarantine: %v", q)
	}
	if v.wake(bad.Stream()).At != 0 {
		t.Error("it wakes")
	}
	stands(t, v, org, good, map[string]domain.Standing{"a": domain.StandingQueued})
}

// So is one of which less is there than the views know: what they know is of another
// history.
func TestRestore_quarantinesAHistoryThatIsShorter(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.open(t, org, nil)
	l.enter(t, id, "a", "b")
	from := newReadable(l)
	path := filepath.Join(t.TempDir(), "views.db")
	v := openParticipants(t, path, from)
	save(t, v)
	closeViews(t, v)
	for _, keep := range []int{0, 1} {
		shorter := newLog()
		for _, e := range l.events {
			if e.Stream != id.Stream() || int(e.Revision) < keep {
				shorter.events = append(shorter.events, e)
			}
		}
		from.log = shorter
		v = openParticipants(t, path, from)
		if _, err := v.Participants(t.Context(), org, id); !errors.As(err, new(*domain.HistoryError)) {
			t.Errorf("with %d events: %v", keep, err)
		}
		closeViews(t, v)
	}
}
