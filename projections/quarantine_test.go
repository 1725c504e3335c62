package projections

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

func damaged(stream string, at domain.Revision) *domain.HistoryError {
	return &domain.HistoryError{Stream: stream, Revision: at, Type: "t", Rule: "r", Detail: "d"}
}

// Damage that another part of the node has found counts from then on, also after a restart.
// It is logged once in each process.
func TestQuarantine_ofDamageThatAnotherPartHasFound(t *testing.T) {
	t.Parallel()
	l := newLog()
	org, theirs := l.organization(t), l.organization(t)
	hash := l.apiKey(t, theirs, "key_1", "first", 0)
	var ids []domain.ID
	for _, k := range domain.Kinds() {
		ids = append(ids, l.create(t, org, k, map[string]string{"openAt": `"2100-01-01T00:00:00Z"`}))
	}
	sound := l.create(t, org, domain.KindQueue, nil)
	if err := l.send(domain.SigningStream, domain.MakeSigningKey{Secret: [32]byte{1}, OnlyFirst: true}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "views.db")
	var logged bytes.Buffer
	v, err := Open(path, testOrigin, testSeals{}, zerolog.New(&logged))
	if err != nil {
		t.Fatal(err)
	}
	follow(v, l)
	claim := domain.ClaimStream("5d2f5c2e-7a0c-4a4f-9a53-0d1f6c1f3a10")
	streams := []string{theirs.Stream(), domain.SigningStream, claim}
	for _, id := range ids {
		streams = append(streams, id.Stream())
	}
	for _, stream := range streams {
		v.Quarantine(damaged(stream, 0))
		v.Quarantine(damaged(stream, 7)) // the first report counts
	}
	check := func(v *Views, log string) {
		t.Helper()
		for _, id := range ids {
			if _, err := v.Get(org, id); !errors.As(err, new(*domain.HistoryError)) {
				t.Errorf("got %v", err)
			}
			if _, err := v.Get(theirs, id); !errors.Is(err, ErrNotFound) {
				t.Errorf("others get %v", err)
			}
			if h, _ := v.State(id.Stream()); h != nil || v.wake(id.Stream()).At != 0 {
				t.Errorf("%s is decided on", id)
			}
			if broken, ok := v.Owned(org, id); !ok || broken == nil {
				t.Errorf("its history is owned %v, %v", ok, broken)
			}
		}
		if page, err := v.List(ListQuery{Organization: org, SortBy: SortCreatedAt, Limit: 9}); err != nil || !slices.Equal(rowIDs(page.Rows), rowIDs([]Row{row(t, v, org, sound)})) {
			t.Errorf("listed %v, %v", rowIDs(page.Rows), err)
		}
		if _, works := v.Credential(hash); works {
			t.Error("a key of it works")
		}
		if _, err := v.SigningKeys(); !errors.As(err, new(*domain.HistoryError)) {
			t.Errorf("got %v", err)
		}
		for _, stream := range streams {
			if at, broken := v.Known(stream); broken == nil || at != 0 {
				t.Errorf("%s: known is %d, %v", stream, at, broken)
			}
			if strings.Count(log, stream) != 1 {
				t.Errorf("of %s the log says %s", stream, log)
			}
		}
		if len(v.Quarantined()) != len(streams) || strings.Count(log, "\n") != len(streams) || strings.Count(log, `"level":"error"`) != len(streams) || strings.Count(log, "stream quarantined") != len(streams) {
			t.Errorf("in quarantine: %v\n%s", v.Quarantined(), log)
		}
		if at, broken := v.Known(sound.Stream()); broken != nil || at != 0 {
			t.Errorf("known is %d, %v", at, broken)
		}
	}
	check(v, logged.String())
	save(t, v)
	closeViews(t, v)
	logged.Reset()
	if v, err = Open(path, testOrigin, testSeals{}, zerolog.New(&logged)); err != nil {
		t.Fatal(err)
	}
	defer closeViews(t, v)
	check(v, logged.String())
}

func row(t *testing.T, v *Views, org, id domain.ID) Row {
	t.Helper()
	r, err := v.Get(org, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A writer may find damage before the stream's creation is followed. The owner of the stream
// becomes known when it is followed.
func TestQuarantine_ofAStreamThatIsNotFollowedYet(t *testing.T) {
	t.Parallel()
	for name, report := range map[string]func(v *Views, l *testLog, id domain.ID){
		"before": func(v *Views, l *testLog, id domain.ID) {
			v.Quarantine(damaged(id.Stream(), 0))
			follow(v, l)
		},
		"while its creation is held back": func(v *Views, l *testLog, id domain.ID) {
			for _, e := range l.events {
				v.Follow(e)
				if e.Stream == id.Stream() && e.Revision == 0 {
					v.Quarantine(damaged(id.Stream(), 0))
				}
			}
			v.CaughtUp()
		},
		"after": func(v *Views, l *testLog, id domain.ID) {
			follow(v, l)
			v.Quarantine(damaged(id.Stream(), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, v := newLog(), emptyViews()
			org := l.organization(t)
			// More follows at the same time, so the views hold the creation back.
			id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": instant(l.now - 1000)})
			report(v, l, id)
			if _, err := v.Get(org, id); !errors.As(err, new(*domain.HistoryError)) {
				t.Errorf("got %v", err)
			}
			if _, err := v.Get(l.id("org"), id); !errors.Is(err, ErrNotFound) {
				t.Errorf("others get %v", err)
			}
			if h, _ := v.State(id.Stream()); h != nil || v.wake(id.Stream()).At != 0 {
				t.Error("it is decided on")
			}
		})
	}
}

// An untrusted first event only decides which organization sees the damage.
func TestQuarantine_ofTheFirstEventIsVisibleToTheOrganizationInIt(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(r *domain.Recorded)
		known bool
	}{
		"a changed byte":             {func(r *domain.Recorded) { r.Data = append(slices.Clone(r.Data), ' ') }, true},
		"an unknown type":            {func(r *domain.Recorded) { r.Type, r.Event, r.Undecoded = "x", nil, errors.New("unknown") }, true},
		"data that is not JSON":      {func(r *domain.Recorded) { r.Data, r.Event, r.Undecoded = []byte("{"), nil, errors.New("cut") }, false},
		"an invalid organization id": {func(r *domain.Recorded) { r.Data = []byte(`{"organizationId":"nobody"}`) }, false},
		"the first event is missing": {func(r *domain.Recorded) { r.Revision = 1 }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLog()
			org := l.organization(t)
			id := l.create(t, org, domain.KindDraw, nil)
			c.spoil(l.events[len(l.events)-1])
			l.record(id.Stream(), domain.Deleted{Stamp: domain.Stamp{At: l.now}})
			v, path := testViews(t, l)
			save(t, v)
			restarted := openViews(t, path)
			defer closeViews(t, restarted)
			for _, v := range []*Views{v, restarted} {
				_, err := v.Get(org, id)
				if told := errors.As(err, new(*domain.HistoryError)); told != c.known {
					t.Errorf("got %v", err)
				}
				if _, owned := v.Owned(org, id); owned != c.known {
					t.Errorf("it is owned: %t", owned)
				}
				if _, err := v.Get(l.id("org"), id); !errors.Is(err, ErrNotFound) {
					t.Errorf("others get %v", err)
				}
				if q := v.Quarantined(); len(q) != 1 || q[0].Stream != id.Stream() {
					t.Errorf("in quarantine: %v", q)
				}
			}
			if v.Digest() != restarted.Digest() {
				t.Error("the file says something else")
			}
		})
	}
}

// The events of a damaged stream before the damage are believed.
func TestBelieves_nothingFromTheDamageOn(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.organization(t)
	id, sound := l.create(t, org, domain.KindQueue, nil), l.create(t, org, domain.KindQueue, nil)
	l.must(t, id, fields("name", `"a"`))
	l.record(id.Stream(), domain.Settled{Stamp: domain.Stamp{At: l.now}})
	l.record(id.Stream(), domain.Deleted{Stamp: domain.Stamp{At: l.now}})
	l.must(t, sound, fields("name", `"a"`))
	follow(v, l)
	for _, e := range l.events {
		if want := e.Stream != id.Stream() || e.Revision < 2; v.Believes(e) != want {
			t.Errorf("%s@%d is believed: %t", e.Stream, e.Revision, !want)
		}
	}
}

// Many goroutines may report damage while the log is followed.
func TestQuarantine_whileTheLogIsFollowed(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	var ids []domain.ID
	for range 50 {
		id := l.openQueue(t, org, nil)
		l.enter(t, id, "a", "b")
		ids = append(ids, id)
	}
	path := filepath.Join(t.TempDir(), "views.db")
	v := openViews(t, path)
	var reporting sync.WaitGroup
	for _, id := range ids {
		reporting.Go(func() { v.Quarantine(damaged(id.Stream(), 1)) })
	}
	follow(v, l)
	reporting.Wait()
	v.CaughtUp()
	for _, id := range ids {
		if _, err := v.Get(org, id); !errors.As(err, new(*domain.HistoryError)) {
			t.Errorf("got %v", err)
		}
	}
	save(t, v)
	digest := v.Digest()
	closeViews(t, v)
	v = openViews(t, path)
	defer closeViews(t, v)
	if v.Digest() != digest {
		t.Error("the file says something else")
	}
}

// The participants of a queue that is over are read from the log by a query. When the history
// is damaged, the query finds it and the stream is put into quarantine. A store that fails or
// lags behind does not count as damage.
func TestQueue_aDamagedHistoryOfAQueueThatIsOverIsQuarantined(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		log    func(l *testLog, stream string) *testLog // the log at the time of the query
		fault  error
		late   bool // the second read finds all events
		broken bool
	}{
		"an event changed": {log: func(l *testLog, stream string) *testLog {
			return l.changed(stream, func(r domain.Recorded) *domain.Recorded {
				if r.Revision == 1 {
					r.Data = append(slices.Clone(r.Data), ' ')
				}
				return &r
			})
		}, broken: true},
		"an event missing": {log: func(l *testLog, stream string) *testLog {
			return l.changed(stream, func(r domain.Recorded) *domain.Recorded {
				if r.Revision == 2 {
					return nil
				}
				return &r
			})
		}, broken: true},
		"the end missing": {log: func(l *testLog, stream string) *testLog {
			return l.changed(stream, func(r domain.Recorded) *domain.Recorded {
				if r.Revision == l.ends[stream]-1 {
					return nil
				}
				return &r
			})
		}, broken: true},
		"all missing": {log: func(l *testLog, stream string) *testLog {
			return l.changed(stream, func(domain.Recorded) *domain.Recorded { return nil })
		}, broken: true},
		"a server that lags behind": {log: func(l *testLog, stream string) *testLog {
			return l.changed(stream, func(domain.Recorded) *domain.Recorded { return nil })
		}, late: true},
		"no answer": {log: func(l *testLog, _ string) *testLog { return l }, fault: domain.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLog()
			org := l.organization(t)
			id := l.closedQueue(t, org, 3)
			from := newReadable(l)
			v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
			defer closeViews(t, v)
			from.log = c.log(l, id.Stream())
			reads := 0
			from.reading = func(context.Context, string) error {
				if reads++; reads == 2 && c.late {
					from.log = l
				}
				return c.fault
			}
			_, err := v.Participants(t.Context(), org, id)
			if broken := errors.As(err, new(*domain.HistoryError)); broken != c.broken || (err == nil) != c.late {
				t.Errorf("got %v", err)
			}
			if n := len(v.Quarantined()); (n == 1) != c.broken {
				t.Errorf("%d are in quarantine", n)
			}
			if _, err := v.Get(org, id); (err != nil) != c.broken {
				t.Errorf("got %v", err)
			}
		})
	}
}

// changed returns the log with the events of a stream changed, or removed where change returns
// nil.
func (l *testLog) changed(stream string, change func(domain.Recorded) *domain.Recorded) *testLog {
	other := newLog()
	for _, r := range l.events {
		if r.Stream == stream {
			if r = change(*r); r == nil {
				continue
			}
		}
		other.events = append(other.events, r)
	}
	return other
}

// A history that was written anew with correct hashes still contradicts the events that the
// views have followed.
func TestQueue_aHistoryThatWasWrittenAnewIsQuarantined(t *testing.T) {
	t.Parallel()
	written := func(consumer string) (l *testLog, org, id domain.ID) {
		l = newLog()
		org = l.organization(t)
		id = l.openQueue(t, org, nil)
		l.enter(t, id, consumer)
		l.must(t, id, domain.Step{To: domain.StatusClosed})
		return l, org, id
	}
	l, org, id := written("a")
	from := newReadable(l)
	v := openParticipants(t, filepath.Join(t.TempDir(), "views.db"), from)
	defer closeViews(t, v)
	from.log, _, _ = written("b")
	if _, err := v.Participants(t.Context(), org, id); !errors.As(err, new(*domain.HistoryError)) {
		t.Errorf("got %v", err)
	}
	if q := v.Quarantined(); len(q) != 1 || q[0].Rule != "what was recorded stays" {
		t.Errorf("in quarantine: %v", q)
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
			hash := l.apiKey(t, org, "key_1", "first", 0)
			id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:00Z"`})
			other := l.create(t, org, domain.KindAuction, nil)
			c.spoil(l, id.Stream())
			c.spoil(l, org.Stream())
			l.record(id.Stream(), domain.Deleted{Stamp: at(l)}) // comes after the damage, so it is ignored
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
					t.Error("a stream in quarantine has a wake")
				}
				if _, ok := v.Organization(org); ok || len(v.Organizations()) != 0 {
					t.Error("an organization in quarantine is served")
				}
				if _, ok := v.Account(org); ok {
					t.Error("an organization in quarantine is served")
				}
				if _, ok := v.Credential(hash); ok {
					t.Error("an API key of an organization in quarantine gives access")
				}
			}
		})
	}
}

// A stream whose first event has the id of another stream's object is put into quarantine, and
// the other stream is served as before.
func TestViews_aStreamWithTheIDOfAnotherIsQuarantined(t *testing.T) {
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
	v := newViews(nil, loaded{indexes: newIndexes(0)}, zerolog.New(&out))
	follow(v, l)
	if s := out.String(); strings.Count(s, "\n") != 1 || !strings.Contains(s, "queue-x") || !strings.Contains(s, "creation") {
		t.Fatalf("logged %s", s)
	}
}
