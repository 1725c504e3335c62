package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// Read yields what the log has of a stream.
func (l *testLog) Read(_ context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		for _, r := range l.events {
			if r.Stream == stream && r.Revision > after && !yield(r, nil) {
				return
			}
		}
	}
}

// watched is a log that notes how it is read.
type watched struct {
	*testLog
	from []domain.Revision
}

func (w *watched) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	w.from = append(w.from, after)
	return w.testLog.Read(ctx, stream, after)
}

// busy makes an open queue in which everything has happened that can happen.
func (l *testLog) busy(tb testing.TB, org domain.ID) domain.ID {
	tb.Helper()
	id := l.create(tb, org, domain.KindQueue, map[string]string{"sessionDurationSeconds": "60", "admissionRate": "60"})
	l.must(tb, id, domain.Step{To: domain.StatusOpen})
	for i := range 300 {
		l.must(tb, id, domain.Enter{ConsumerID: fmt.Sprintf("c-%d", i)})
	}
	l.must(tb, id, domain.Leave{ConsumerID: "c-10"})
	l.must(tb, id, domain.Enter{ConsumerID: "c-10"})
	l.must(tb, id, domain.Deny{ConsumerID: "c-11", Reason: domain.DenyFraud})
	l.must(tb, id, domain.Admit{ConsumerID: "c-200"})
	l.must(tb, id, domain.Complete{ConsumerID: "c-200"})
	l.now = l.now.Add(50 * time.Second)
	l.must(tb, id, domain.Admit{ConsumerID: "c-201"})
	l.now = l.now.Add(15 * time.Second)
	l.must(tb, id, domain.Admit{Count: 5})
	return id
}

func testSnapshots(tb testing.TB) *snapshots {
	tb.Helper()
	return newSnapshots(filepath.Join(tb.TempDir(), "views.db"), testOrigin.ID, testSeals{})
}

func TestSnapshots_areTheSameAndGoOn(t *testing.T) {
	t.Parallel()
	l := newLog()
	id := l.busy(t, l.id("org"))
	h := folded(t, l, id)
	s := testSnapshots(t)
	if s.load(id.Stream()) != nil {
		t.Fatal("there is one before it was made")
	}
	if err := s.save(h); err != nil {
		t.Fatal(err)
	}
	got := s.load(id.Stream())
	if got == nil || !domaintest.SameState(got, h) || got.Aggregate.Wake() != h.Aggregate.Wake() {
		t.Fatalf("got %+v, want %+v", got, h)
	}
	// What it knows is enough to judge what follows.
	before := len(l.events)
	l.must(t, id, domain.Leave{ConsumerID: "c-201"})
	l.now = l.now.Add(2 * time.Minute)
	l.must(t, id, domain.Enter{ConsumerID: "c-201"})
	for _, r := range l.events[before:] {
		if err := errors.Join(got.Apply(r), h.Apply(r)); err != nil {
			t.Fatal(err)
		}
	}
	if len(l.events)-before < 10 || !domaintest.SameState(got, h) {
		t.Errorf("behind %d events\n got %+v\nwant %+v", len(l.events)-before, got.Aggregate, h.Aggregate)
	}
}

func TestSnapshots_whatIsDamagedOrForeignIsNone(t *testing.T) {
	t.Parallel()
	l := newLog()
	id := l.busy(t, l.id("org"))
	h := folded(t, l, id)
	s := testSnapshots(t)
	save := func() []byte {
		t.Helper()
		if err := s.save(h); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(s.path(id.Stream()))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	put := func(b []byte) {
		t.Helper()
		if err := os.WriteFile(s.path(id.Stream()), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole := save()
	for i := 0; i < len(whole); i += 37 {
		b := slices.Clone(whole)
		b[i] ^= 1
		put(b)
		if s.load(id.Stream()) != nil {
			t.Fatalf("byte %d is another, and it is taken", i)
		}
	}
	for _, n := range []int{0, 1, 31, 32, len(whole) / 2, len(whole) - 1} {
		put(whole[:n])
		if s.load(id.Stream()) != nil {
			t.Fatalf("of %d bytes there are %d, and they are taken", len(whole), n)
		}
	}
	save()
	another := *newSnapshots("", "another log", testSeals{})
	another.dir = s.dir
	if another.load(id.Stream()) != nil {
		t.Error("one of another log is taken")
	}
	other := l.busy(t, l.id("org"))
	if err := os.Rename(s.path(id.Stream()), s.path(other.Stream())); err != nil {
		t.Fatal(err)
	}
	if s.load(other.Stream()) != nil {
		t.Error("one of another stream is taken")
	}
}

func TestSnapshots_theOldestMakeRoom(t *testing.T) {
	t.Parallel()
	s := testSnapshots(t)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"b", "a", "c"} {
		f, err := os.Create(filepath.Join(s.dir, name))
		if err == nil {
			err = errors.Join(f.Truncate(maxSnapshots/2-10), f.Close())
		}
		if err == nil {
			err = os.Chtimes(f.Name(), time.Time{}, time.Unix(int64(1000+i), 0))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := s.shrink(20); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(s.dir, "*"))
	if err != nil || len(left) != 2 || filepath.Base(left[0]) != "a" || filepath.Base(left[1]) != "c" {
		t.Errorf("left are %s, %v", left, err)
	}
}

// A restart finds everybody again: from the log alone, or on from a snapshot.
func TestRestore_findsEverybodyAgain(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id, quiet := l.busy(t, org), l.create(t, org, domain.KindQueue, nil)
	path := filepath.Join(t.TempDir(), "views.db")
	w := &watched{testLog: l}
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
		t.Error("what came from the file alone is decided on")
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

	// A snapshot that the log does not continue is as good as none.
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

// A snapshot is made of a queue under way when it lacks enough, and of no other.
func TestSnapshots_areMadeOfQueuesThatWentOn(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	busy, over, quiet := l.busy(t, org), l.past(t, org, 30), l.open(t, org, nil)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), newReadable(l))
	defer closeViews(t, v)
	current := func() (all []*state) {
		for _, id := range []domain.ID{busy, over, quiet} {
			all = append(all, v.indexes.slotOf(id.Stream()).current)
		}
		return append(all, v.indexes.slotOf(org.Stream()).current)
	}
	kept := func() (of domain.Revision) {
		t.Helper()
		if files, err := os.ReadDir(v.snapshots.dir); err != nil || len(files) != 1 {
			t.Fatalf("there are %v, %v", files, err)
		}
		return v.snapshots.load(busy.Stream()).Head.Revision
	}
	v.snapshot(current(), 20)
	first := kept()
	for range 19 {
		l.must(t, busy, domain.Leave{ConsumerID: "c-250"})
		l.must(t, busy, domain.Enter{ConsumerID: "c-250"})
		follow(v, l)
		if h := current()[0].history; h.Head.Revision-first >= 20 {
			break
		}
		v.snapshot(current(), 20)
		if kept() != first {
			t.Fatalf("it is made anew after %d events", kept()-first)
		}
	}
	v.snapshot(current(), 20)
	if kept() < first+20 {
		t.Errorf("it is as old as before, by %d events", current()[0].history.Head.Revision-kept())
	}
}
