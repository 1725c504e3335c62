package projections

import (
	"context"
	"errors"
	"iter"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// After a restart, the queues that are not over are folded from the log, so that their
// participants and wakes are right. Those that are over are not folded. Following continues
// after that.
func TestRestore(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	live := l.openQueue(t, org, map[string]string{"sessionDurationSeconds": "60"})
	l.enter(t, live, "a", "b")
	l.must(t, live, domain.Admit{ConsumerID: "a"})
	ends := l.now.Add(time.Minute)
	rated := l.openQueue(t, org, map[string]string{"admissionRate": "60"})
	l.enter(t, rated, "a", "b")
	empty := l.openQueue(t, org, nil)
	past := l.closedQueue(t, org, 2)
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
	wantStandings(t, v, org, live, map[string]domain.Standing{"a": domain.StandingAdmitted, "b": domain.StandingQueued})
	if got := v.wake(live.Stream()).At; got != ends {
		t.Errorf("it wakes at %s, and the session ends at %s", got, ends)
	}
	if got := v.wake(rated.Stream()).At; got != due || got == 0 {
		t.Errorf("it wakes at %s, before the restart at %s", got, due)
	}
	if h, _ := v.State(live.Stream()); h == nil {
		t.Error("a writer cannot decide on the folded state")
	}
	if !slices.Contains(wakes(v), live.Stream()) {
		t.Error("its wake is not among Wakes")
	}
	row, err := v.Get(org, past)
	if err != nil || row.Distribution.(*domain.Queue).KnowsParticipants() {
		t.Errorf("a queue that is over is folded: %v", err)
	}
	l.must(t, live, domain.Complete{ConsumerID: "a"})
	l.enter(t, live, "c")
	l.enter(t, empty, "x")
	l.must(t, empty, domain.Admit{ConsumerID: "x"})
	follow(v, l)
	wantStandings(t, v, org, live, map[string]domain.Standing{"a": domain.StandingCompleted, "b": domain.StandingQueued, "c": domain.StandingQueued})
	wantStandings(t, v, org, empty, map[string]domain.Standing{"x": domain.StandingAdmitted})
	if n := from.count(); n != 0 {
		t.Errorf("%d more were read", n)
	}
}

// When the log fails, Restore returns the error. Called again, it folds only the queues that
// are left.
func TestRestore_continuesAfterAnError(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	ids := []domain.ID{l.openQueue(t, org, nil), l.openQueue(t, org, nil), l.openQueue(t, org, nil)}
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
		wantStandings(t, v, org, id, map[string]domain.Standing{"a": domain.StandingQueued})
	}
}

// A history that was damaged since the file was written is put into quarantine. The others
// are restored.
func TestRestore_quarantinesADamagedHistory(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	bad, good := l.openQueue(t, org, nil), l.openQueue(t, org, nil)
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
	wantStandings(t, v, org, good, map[string]domain.Standing{"a": domain.StandingQueued})
}

// A history that is shorter than the views know is damaged as well.
func TestRestore_quarantinesAHistoryThatIsShorter(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.openQueue(t, org, nil)
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

// recordingLog is a log that notes from where it is read.
type recordingLog struct {
	*testLog
	from []domain.Revision
}

func (w *recordingLog) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	w.from = append(w.from, after)
	return w.testLog.Read(ctx, stream, after)
}

// After a restart all participants are known again, from the log alone or from a snapshot and
// the log.
func TestRestore_findsAllParticipants(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id, quiet := l.busyQueue(t, org), l.create(t, org, domain.KindQueue, nil)
	path := filepath.Join(t.TempDir(), "views.db")
	w := &recordingLog{testLog: l}
	open := func() *Views {
		t.Helper()
		w.from = nil
		v, err := Open(path, Origin{ID: testOrigin.ID, Head: testOrigin.Head, Log: w}, testSeals{}, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		return v
	}
	check := func(v *Views) {
		t.Helper()
		q, err := v.Participants(t.Context(), org, id)
		if err != nil {
			t.Fatal(err)
		}
		want := folded(t, l, id)
		h, _ := v.State(id.Stream())
		if h == nil || !domaintest.SameState(h, want) || v.wake(id.Stream()).At != want.Aggregate.Wake() {
			t.Fatalf("got %+v, want %+v", h, want.Aggregate)
		}
		if p, _ := q.(*domain.Queue).Place("c-150"); p.Position == 0 {
			t.Errorf("got %+v", p)
		}
	}
	v := open()
	follow(v, l)
	check(v)
	save(t, v)
	closeViews(t, v)
	l.must(t, id, domain.Enter{ConsumerID: "meanwhile"})

	v = open()
	if !slices.Equal(w.from, []domain.Revision{domain.NoStream}) {
		t.Errorf("read from %d", w.from)
	}
	follow(v, l)
	check(v)
	if h, _ := v.State(quiet.Stream()); h != nil {
		t.Error("a state that was loaded from the file is given to writers")
	}
	v.keep(v.indexes.streams[id.Stream()].current.history)
	kept := v.indexes.streams[id.Stream()].current.history.Head.Revision
	l.must(t, id, domain.Enter{ConsumerID: "late"})
	follow(v, l)
	save(t, v)
	closeViews(t, v)

	v = open()
	if !slices.Equal(w.from, []domain.Revision{kept}) {
		t.Errorf("read from %d, and the snapshot is of %d", w.from, kept)
	}
	check(v)
	v.keep(v.indexes.streams[id.Stream()].current.history)
	closeViews(t, v)
	l.must(t, id, domain.Enter{ConsumerID: "later"})

	v = open()
	if len(w.from) > 0 {
		t.Errorf("read from %d, and the snapshot is as new as the file", w.from)
	}
	follow(v, l)
	check(v)
	closeViews(t, v)

	// A snapshot that contradicts the log is ignored.
	strange := folded(t, l, id)
	strange.Head = domain.Head{Revision: 5, Hash: "another"}
	if err := newSnapshots(path, testOrigin.ID, testSeals{}).save(strange); err != nil {
		t.Fatal(err)
	}
	v = open()
	if !slices.Equal(w.from, []domain.Revision{5, domain.NoStream}) {
		t.Errorf("read from %d", w.from)
	}
	follow(v, l)
	check(v)
	closeViews(t, v)
}
