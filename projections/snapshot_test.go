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

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// Read implements Histories.
func (l *testLog) Read(_ context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		for _, r := range l.events {
			if r.Stream == stream && r.Revision > after && !yield(r, nil) {
				return
			}
		}
	}
}

// busyQueue creates an open queue with events of every type.
func (l *testLog) busyQueue(tb testing.TB, org domain.ID) domain.ID {
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

func TestSnapshots_keepTheStateAndCanBeContinued(t *testing.T) {
	t.Parallel()
	l := newLog()
	id := l.busyQueue(t, l.id("org"))
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
	// The later events can be applied to it.
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
		t.Errorf("after %d events\n got %+v\nwant %+v", len(l.events)-before, got.Aggregate, h.Aggregate)
	}
}

func TestSnapshots_aDamagedOrForeignOneIsIgnored(t *testing.T) {
	t.Parallel()
	l := newLog()
	id := l.busyQueue(t, l.id("org"))
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
			t.Fatalf("byte %d is changed, and the snapshot is used", i)
		}
	}
	for _, n := range []int{0, 1, 31, 32, len(whole) / 2, len(whole) - 1} {
		put(whole[:n])
		if s.load(id.Stream()) != nil {
			t.Fatalf("of %d bytes there are %d, and the snapshot is used", len(whole), n)
		}
	}
	save()
	another := *newSnapshots("", "another log", testSeals{})
	another.dir = s.dir
	if another.load(id.Stream()) != nil {
		t.Error("a snapshot of another log is used")
	}
	other := l.busyQueue(t, l.id("org"))
	if err := os.Rename(s.path(id.Stream()), s.path(other.Stream())); err != nil {
		t.Fatal(err)
	}
	if s.load(other.Stream()) != nil {
		t.Error("a snapshot of another stream is used")
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

// A snapshot is made of a running queue when the last one lacks enough events, and of no
// other queue.
func TestSnapshots_areMadeOfQueuesWithNewEvents(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	busy, over, quiet := l.busyQueue(t, org), l.closedQueue(t, org, 30), l.openQueue(t, org, nil)
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
			t.Fatalf("there is a new one after %d events", kept()-first)
		}
	}
	v.snapshot(current(), 20)
	if kept() < first+20 {
		t.Errorf("it still lacks %d events", current()[0].history.Head.Revision-kept())
	}
}

// A snapshot that has more events than the log is ignored.
func TestFold_aSnapshotIsNotAheadOfTheLog(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.openQueue(t, org, nil)
	l.enter(t, id, "a", "b")
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	whole := folded(t, l, id)
	if err := v.snapshots.save(whole); err != nil {
		t.Fatal(err)
	}
	// The read models do not know the stream, only the snapshot does.
	unknown := &state{history: domain.NewHistory(id.Stream())}
	h, err := v.fold(t.Context(), unknown, wholeStream, ReadAgain(t.Context()))
	if err != nil || h.Head != whole.Head {
		t.Fatalf("got %+v, %v", h, err)
	}
	shorter := newLog()
	shorter.events = l.events[:len(l.events)-1]
	from.log = shorter
	if h, err = v.fold(t.Context(), unknown, wholeStream, ReadAgain(t.Context())); err != nil || h.Head.Revision != whole.Head.Revision-1 {
		t.Errorf("got %+v, %v", h, err)
	}
}
