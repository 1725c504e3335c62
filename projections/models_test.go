package projections

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestGet(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.id("org")
	id := l.create(t, org, domain.KindDraw, map[string]string{"name": `"first"`})
	follow(v, l)

	first, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	again, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	if &first.JSON()[0] != &again.JSON()[0] {
		t.Error("rendered twice")
	}
	was := string(first.JSON())
	if !strings.Contains(was, `"name":"first"`) || !strings.Contains(was, `"encryptionSeed":"plain seed of `+string(id)) {
		t.Errorf("got %s", was)
	}

	l.must(t, id, fields("name", `"second"`))
	follow(v, l)
	second, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	if first.Changed != 0 || second.Changed != 1 || second.Head.Revision != 1 || second.Head.Hash == first.Head.Hash {
		t.Errorf("from %+v to %+v", first, second)
	}
	if string(first.JSON()) != was || !strings.Contains(string(second.JSON()), `"name":"second"`) {
		t.Errorf("from %s to %s", first.JSON(), second.JSON())
	}
	if made := (Row{Distribution: second.Distribution}); !bytes.Equal(made.JSON(), second.JSON()) {
		t.Errorf("a row without views is %s", made.JSON())
	}
}

// A deleted distribution is gone, but its stream is still judged by its end.
func TestViews_deleted(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.id("org")
	id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:00Z"`})
	kept := l.create(t, org, domain.KindQueue, nil)
	v, path := testViews(t, l)
	if v.wake(id.Stream()).At == 0 {
		t.Fatal("it does not wait for its opening")
	}
	l.must(t, id, domain.Delete{})
	follow(v, l)

	gone := func(v *Views) {
		t.Helper()
		if _, err := v.Get(org, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
		page, err := v.List(ListQuery{Organization: org, SortBy: SortName, Limit: 9})
		if err != nil || !slices.Equal(rowIDs(page.Rows), []domain.ID{kept}) {
			t.Errorf("listed %v, %v", rowIDs(page.Rows), err)
		}
		if v.wake(id.Stream()).At != 0 {
			t.Error("it is still woken")
		}
		if q, ok := v.Owned(org, id); !ok || q != nil {
			t.Errorf("its history is owned %v, %v", ok, q)
		}
		for _, other := range []domain.ID{"", l.id("org"), id} {
			if _, ok := v.Owned(other, id); ok {
				t.Errorf("%q owns its history", other)
			}
		}
		v.Wakes(func(w domain.Wake) bool {
			t.Errorf("%s is still woken", w.Stream)
			return true
		})
	}
	gone(v)
	save(t, v)
	restarted := openViews(t, path)
	defer restarted.Close()
	gone(restarted)

	// What comes after the deletion continues the stream, and is not allowed.
	l.record(id.Stream(), domain.Opened{Stamp: domain.Stamp{At: l.now}})
	follow(v, l)
	follow(restarted, l)
	for _, v := range []*Views{v, restarted} {
		q := v.Quarantined()
		if len(q) != 1 || q[0].Rule != "nothing follows the deletion" {
			t.Errorf("in quarantine: %v", q)
		}
		if _, err := v.Get(org, id); !errors.As(err, new(*domain.HistoryError)) {
			t.Errorf("got %v", err)
		}
		if why, ok := v.Owned(org, id); !ok || why == nil || why.Rule != q[0].Rule {
			t.Errorf("its history is owned %v, %v", ok, why)
		}
	}
}

func TestViews_quarantine(t *testing.T) {
	t.Parallel()
	at := func(l *testLog) domain.Stamp { return domain.Stamp{At: l.now} }
	for name, c := range map[string]struct {
		spoil func(l *testLog, stream string)
		rule  string
	}{
		"an impossible event": {
			func(l *testLog, stream string) { l.record(stream, domain.Settled{Stamp: at(l)}) },
			"an event belongs to its kind",
		},
		"a changed byte": {
			func(l *testLog, stream string) {
				r := l.record(stream, domain.Deleted{Stamp: at(l)})
				r.Data = append(slices.Clone(r.Data), ' ')
			},
			"each event's hash covers it and the event before",
		},
		"an event that cannot be read": {
			func(l *testLog, stream string) {
				r := l.record(stream, domain.Deleted{Stamp: at(l)})
				r.Event, r.Undecoded = nil, errors.New("unknown type")
			},
			"every event can be read",
		},
		"a gap": {
			func(l *testLog, stream string) { l.record(stream, domain.Deleted{Stamp: at(l)}).Revision++ },
			"revisions have no gaps",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLog()
			org := l.organization(t)
			hash := l.key(t, org, "key_1", "first", 0)
			id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:00Z"`})
			other := l.create(t, org, domain.KindAuction, nil)
			c.spoil(l, id.Stream())
			c.spoil(l, org.Stream())
			l.record(id.Stream(), domain.Deleted{Stamp: at(l)}) // is not believed
			l.must(t, other, fields("name", `"goes on"`))
			v, path := testViews(t, l)
			save(t, v)
			restarted := openViews(t, path)
			defer restarted.Close()

			for _, v := range []*Views{v, restarted} {
				if v.Position() != l.events[len(l.events)-1].Position {
					t.Errorf("stopped at %v", v.Position())
				}
				broken := v.Quarantined()
				if len(broken) != 2 || broken[0].Stream != org.Stream() || broken[1].Stream != id.Stream() || broken[1].Rule != c.rule {
					t.Errorf("in quarantine: %v", broken)
				}
				var bad *domain.HistoryError
				if _, err := v.Get(org, id); !errors.As(err, &bad) || *bad != broken[1] {
					t.Errorf("got %v", err)
				}
				page, err := v.List(ListQuery{Organization: org, SortBy: SortCreatedAt, Limit: 9})
				if err != nil || len(page.Rows) != 1 || !strings.Contains(string(page.Rows[0].JSON()), "goes on") {
					t.Errorf("listed %v, %v", rowIDs(page.Rows), err)
				}
				if v.wake(id.Stream()).At != 0 {
					t.Error("what is in quarantine is woken")
				}
				if _, ok := v.Organization(org); ok || len(v.Organizations()) != 0 {
					t.Error("what is in quarantine is served")
				}
				if _, ok := v.Account(org); ok {
					t.Error("what is in quarantine is served")
				}
				if _, ok := v.Credential(hash); ok {
					t.Error("what is in quarantine gives access")
				}
			}
		})
	}
}

// What a writer goes on from is what the log says, nothing that a file could have
// spoiled, and apart from what is shown.
func TestState(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.create(t, org, domain.KindDraw, nil)
	deleted := l.create(t, org, domain.KindQueue, nil)
	l.must(t, deleted, domain.Delete{})
	broken := l.create(t, org, domain.KindQueue, nil)
	l.record(broken.Stream(), domain.Settled{Stamp: domain.Stamp{At: l.now}})
	v, path := testViews(t, l)

	got, position := v.State(id.Stream())
	if !reflect.DeepEqual(got, folded(t, l, id)) || position != v.Position() {
		t.Fatalf("%+v at %v", got, position)
	}
	if _, err := domaintest.Carry(got, l.now, fields("name", `"apart"`)); err != nil {
		t.Fatal(err)
	}
	if row, err := v.Get(org, id); err != nil || row.Distribution.Shared().Name != nil {
		t.Errorf("it is shown as %s, %v", row.JSON(), err)
	}
	unknown := l.id("queue")
	for _, id := range []domain.ID{deleted, broken, unknown, org} {
		if h, _ := v.State(id.Stream()); h != nil {
			t.Errorf("%s is %+v", id, h)
		}
	}

	save(t, v)
	restarted := openViews(t, path)
	defer restarted.Close()
	l.must(t, id, fields("name", `"after the restart"`))
	fresh := l.create(t, org, domain.KindQueue, nil)
	follow(restarted, l)
	if h, _ := restarted.State(id.Stream()); h != nil {
		t.Errorf("from a file: %+v", h)
	}
	if h, _ := restarted.State(fresh.Stream()); !reflect.DeepEqual(h, folded(t, l, fresh)) {
		t.Errorf("%+v", h)
	}
}

// folded is a stream's state, folded from its first event.
func folded(t *testing.T, l *testLog, id domain.ID) *domain.History {
	t.Helper()
	h := domain.NewHistory(id.Stream())
	for _, r := range l.events {
		if r.Stream != h.Stream {
			continue
		}
		if err := h.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// A stream that says to be about what another one is about takes nobody's place.
func TestViews_foreignID(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.id("org")
	id := l.create(t, org, domain.KindQueue, map[string]string{"name": `"true"`})
	liar := l.id("queue")
	l.record(liar.Stream(), l.events[0].Event)
	follow(v, l)
	if row, err := v.Get(org, id); err != nil || !strings.Contains(string(row.JSON()), `"true"`) {
		t.Fatal(row, err)
	}
	if q := v.Quarantined(); len(q) != 1 || q[0].Stream != liar.Stream() {
		t.Fatalf("in quarantine: %v", q)
	}
}

func TestViews_quarantineIsLogged(t *testing.T) {
	t.Parallel()
	l := newLog()
	l.record("queue-x", domain.Opened{})
	l.record("queue-x", domain.Opened{})
	var out bytes.Buffer
	v := newViews(nil, loaded{models: newModels(0)}, zerolog.New(&out))
	follow(v, l)
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "queue-x") || !strings.Contains(s, "creation") {
		t.Fatalf("logged %s", s)
	}
}

func TestCredential(t *testing.T) {
	t.Parallel()
	l := newLog()
	a, b := l.organization(t), l.organization(t)
	shared := l.key(t, a, "key_2", "shared", 0)
	l.key(t, b, "key_1", "shared", 0)
	own := l.key(t, b, "key_3", "own", 0)
	ending := l.key(t, b, "key_4", "ending", l.now.Add(time.Minute))
	v, path := testViews(t, l)
	want := func(hash string, c Credential, known bool) {
		t.Helper()
		save(t, v)
		restarted := openViews(t, path)
		defer restarted.Close()
		for _, v := range []*Views{v, restarted} {
			if got, ok := v.Credential(hash); got != c || ok != known {
				t.Errorf("%s: got %v, %t", hash, got, ok)
			}
		}
	}
	want(own, Credential{b, "key_3", domain.SecretKey}, true)
	want(shared, Credential{b, "key_1", domain.SecretKey}, true)
	want(ending, Credential{b, "key_4", domain.SecretKey}, true)
	want("unknown", Credential{}, false)
	l.must(t, b, domain.RevokeKey{KeyID: "key_1"})
	l.must(t, b, domain.RevokeKey{KeyID: "key_3"})
	l.now = l.now.Add(time.Minute)
	l.must(t, b, domain.Advance{})
	follow(v, l)
	want(own, Credential{}, false)
	want(ending, Credential{}, false)
	want(shared, Credential{a, "key_2", domain.SecretKey}, true)

	o, ok := v.Organization(b)
	if !ok || o.ID != b || len(o.Keys) != 3 {
		t.Errorf("got %v", o)
	}
	if all := v.Organizations(); len(all) != 2 || all[0].ID != a || all[1].ID != b {
		t.Errorf("got %v", all)
	}
}

// The object is changed by its own updates, not by what happens to its keys.
func TestAccount(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	v, path := testViews(t, l)
	for i, do := range []func(){
		func() {},
		func() { l.key(t, org, "key_1", "first", l.now.Add(time.Minute)) },
		func() { l.now = l.now.Add(time.Minute); l.must(t, org, domain.Advance{}) },
		func() { l.must(t, org, fields("name", `"Other"`)) },
	} {
		do()
		follow(v, l)
		save(t, v)
		restarted := openViews(t, path)
		for _, v := range []*Views{v, restarted} {
			a, ok := v.Account(org)
			if want := domain.Revision(i / 3 * 3); !ok || a.Changed != want || (a.Organization.Name == "Other") != (want > 0) {
				t.Errorf("%d: %+v at %d", i, a.Organization, a.Changed)
			}
		}
		closeViews(t, restarted)
	}
	for _, id := range []domain.ID{l.id("org"), l.create(t, org, domain.KindQueue, nil)} {
		if a, ok := v.Account(id); ok {
			t.Errorf("%s is %+v", id, a)
		}
	}
}

// An organization wakes when a key expires, and whoever keeps time is told of it.
func TestWakes_organization(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	v, path := testViews(t, l)
	v.NewWakes()
	wakes := func(want domain.Instant) {
		t.Helper()
		follow(v, l)
		if w := toldWakes(v)[org.Stream()]; w != (domain.Wake{Stream: org.Stream(), Revision: l.ends[org.Stream()] - 1, At: want}) {
			t.Errorf("told of %+v, want %s", w, want)
		}
		save(t, v)
		restarted := openViews(t, path)
		defer restarted.Close()
		for _, v := range []*Views{v, restarted} {
			var next domain.Wake
			v.Wakes(func(w domain.Wake) bool { next = w; return w.Stream != org.Stream() })
			if got := v.wake(org.Stream()); got.At != want || next.At != want || next.At != 0 && next != got {
				t.Errorf("wakes at %+v, and among all at %+v, want %s", got, next, want)
			}
		}
	}
	l.key(t, org, "key_1", "lasting", 0)
	wakes(0)
	end := l.now.Add(time.Minute)
	l.key(t, org, "key_2", "ending", end)
	wakes(end)
	l.key(t, org, "key_3", "sooner", end-1)
	wakes(end - 1)
	l.now = end
	l.must(t, org, domain.Advance{})
	wakes(0)
}

func TestWakes(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.id("org")
	late := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:03Z"`})
	soon := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:01Z"`})
	l.create(t, org, domain.KindQueue, nil)
	follow(v, l)
	wakes := func() (all []string) {
		v.Wakes(func(w domain.Wake) bool {
			if w != v.wake(w.Stream) { // the views may be asked meanwhile
				t.Errorf("%+v, not %+v", w, v.wake(w.Stream))
			}
			all = append(all, w.Stream)
			return true
		})
		return all
	}
	if got := wakes(); !slices.Equal(got, []string{soon.Stream(), late.Stream()}) {
		t.Fatalf("got %v", got)
	}
	l.must(t, soon, fields("openAt", `"2100-01-01T00:00:09Z"`))
	follow(v, l)
	if got := wakes(); !slices.Equal(got, []string{late.Stream(), soon.Stream()}) {
		t.Fatalf("got %v", got)
	}
	if v.wake("queue-unknown").At != 0 {
		t.Fatal("an unknown stream is woken")
	}
	n := 0
	v.Wakes(func(domain.Wake) bool { n++; return false })
	if n != 1 {
		t.Fatalf("went on after false: %d", n)
	}
}

func TestWaitFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, v := newLog(), emptyViews()
		org := l.id("org")
		for range 4 {
			l.create(t, org, domain.KindQueue, nil)
		}
		wait := func(p domain.Position) chan error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			done := make(chan error, 1)
			go func() {
				defer cancel()
				done <- v.WaitFor(ctx, p)
			}()
			synctest.Wait()
			return done
		}
		at := func(i int) domain.Position { return l.events[i].Position }
		second, again, fourth := wait(at(1)), wait(at(1)), wait(at(3))
		late := wait(domain.Position{Commit: at(3).Commit + 1})

		v.Follow(l.events[0])
		synctest.Wait()
		if len(second)+len(again)+len(fourth) != 0 {
			t.Fatal("woken too early")
		}
		v.Follow(l.events[1])
		synctest.Wait()
		if len(second) != 1 || len(again) != 1 || len(fourth) != 0 {
			t.Fatal("the second event does not wake who waits for it, or wakes others")
		}
		if err := errors.Join(<-second, <-again); err != nil {
			t.Fatal(err)
		}
		v.Passed(at(3))
		if err := <-fourth; err != nil {
			t.Fatal(err)
		}
		if v.Position() != at(1) {
			t.Fatalf("following would resume at %v", v.Position())
		}
		if err := v.WaitFor(t.Context(), at(2)); err != nil {
			t.Fatal(err)
		}
		if err := <-late; !errors.Is(err, ErrBehind) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if n := v.waiters.Len(); n != 0 {
			t.Fatalf("%d still wait", n)
		}
	})
}

// Everything may be asked while the log is followed and written.
func TestViews_concurrency(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	hash := l.key(t, org, "key_1", "first", 0)
	var ids []domain.ID
	for range 40 {
		l.now++
		ids = append(ids, l.create(t, org, domain.KindQueue, map[string]string{"name": `"a"`}))
	}
	for i, id := range ids {
		l.must(t, id, fields("name", `"b"`, "openAt", `"2100-01-01T00:00:00Z"`))
		if i%3 == 0 {
			l.must(t, id, domain.Delete{})
		}
	}
	v := openViews(t, filepath.Join(t.TempDir(), "views.db"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, id := range ids {
					if row, err := v.Get(org, id); err == nil {
						row.JSON()
					}
				}
				for _, by := range sorts {
					if _, err := v.List(ListQuery{Organization: org, SortBy: by, Descending: true, Limit: 5, Search: "b"}); err != nil {
						t.Error(err)
					}
				}
				v.Credential(hash)
				v.Account(org)
				v.Organizations()
				v.Quarantined()
				v.Wakes(func(w domain.Wake) bool { return w.At > 0 })
				v.NewWakes()
				v.Digest()
			}
		})
	}
	go func() {
		for _, e := range l.events {
			v.Follow(e)
		}
	}()
	if err := v.WaitFor(t.Context(), l.events[len(l.events)-1].Position); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	closeViews(t, v)
}

// An engine may come to what a crash has cut in two. Nobody is shown the part before the
// log is known to end there, but whoever keeps time is told that somebody has to finish
// it.
func TestCaughtUp_whatACrashCutInTwoIsDueAtOnce(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	v.NewWakes()
	org := l.id("org")
	id := l.create(t, org, domain.KindQueue, nil)
	l.must(t, id, domain.Step{To: domain.StatusOpen})
	l.must(t, id, domain.Step{To: domain.StatusClosed})
	if last := l.events[len(l.events)-1]; last.Type != "queue.domain.Completed" {
		t.Fatalf("the last event is %s", last.Type)
	}
	l.events = l.events[:len(l.events)-1]
	follow(v, l)
	want := domain.Wake{Stream: id.Stream(), Revision: domain.Revision(len(l.events) - 1), At: l.now, Unfinished: true}
	if got := toldWakes(v); got[id.Stream()] != want || v.wake(id.Stream()).At != 0 {
		t.Errorf("before the log is known to end, told of %+v, and shown %+v", got, v.wake(id.Stream()))
	}
	v.CaughtUp()
	if got := toldWakes(v); got[id.Stream()] != want || v.wake(id.Stream()) != want {
		t.Errorf("told of %+v, and shown %+v", got, v.wake(id.Stream()))
	}
}
