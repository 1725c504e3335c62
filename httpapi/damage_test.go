package httpapi

import (
	"context"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

const brokenText = "Distribution history is inconsistent"

// newWatchedWorld is a world whose commands and read models know of each other, as
// those of a node do.
func newWatchedWorld(t *testing.T) *world {
	w := newWorld(t)
	w.config.Commands = commands.NewHandler(w.log, w.views, w.config.Clock)
	w.api = New(w.config)
	return w
}

// damage changes a stored event by hand, behind the read models' back. nil takes it
// away.
func (l *memoryLog) damage(stream string, at domain.Revision, change func(r *domain.Recorded)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	events := slices.Clone(l.streams[stream])
	if change == nil {
		events = slices.Delete(events, int(at), int(at)+1)
	} else {
		changed := *events[at]
		change(&changed)
		events[at] = &changed
	}
	l.streams[stream] = events
}

func rigged(r *domain.Recorded) { r.Data = []byte(strings.Replace(string(r.Data), `"`, `"rigged `, 1)) }

// Whoever reads the events reads the evidence, and finds the damage.
func TestEvents_findTheDamageAndTellEverybody(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query  string
		lines  bool
		at     domain.Revision // that is damaged
		change func(r *domain.Recorded)
		marked int64
		rule   string
	}{
		"the first event":             {at: 0, change: rigged, marked: 0, rule: "each event's hash covers it and the event before"},
		"one in the middle":           {at: 2, change: rigged, marked: 2, rule: "each event's hash covers it and the event before"},
		"one in the middle, as lines": {at: 2, lines: true, change: rigged, marked: 2, rule: "each event's hash covers it and the event before"},
		"the last event":              {at: 6, change: rigged, marked: 6, rule: "each event's hash covers it and the event before"},
		"the first of a page":         {query: "?after=1", at: 2, change: rigged, marked: 2, rule: "each event's hash covers it and the event before"},
		"an event that cannot be read": {at: 3, change: func(r *domain.Recorded) {
			r.Event, r.Undecoded = nil, domain.ErrUnavailable
		}, marked: 3, rule: "every event can be read"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatchedWorld(t)
			path, id := aLife(w)
			w.log.damage(domain.ID(id).Stream(), c.at, c.change)
			w.do(http.MethodGet, path, "").is(http.StatusOK)
			w.do(http.MethodGet, eventsPath(id)+c.query, "", key(otherKey)).refuses(http.StatusNotFound, "Distribution not found")
			for range 2 { // before and behind the quarantine
				got := w.eventPage(id, c.query).Data
				if c.lines {
					got = w.eventLines(id, c.query)
				}
				for _, e := range got {
					if (e.Problem != nil) != (e.Revision == c.marked) || e.Problem != nil && e.Problem.Rule != c.rule {
						t.Errorf("revision %d: problem %+v", e.Revision, e.Problem)
					}
				}
			}
			if q := w.views.Quarantined(); len(q) != 1 || q[0].Stream != domain.ID(id).Stream() || int64(q[0].Revision) != c.marked || q[0].Rule != c.rule {
				t.Errorf("in quarantine: %v", q)
			}
			w.do(http.MethodGet, path, "").refuses(http.StatusInternalServerError, brokenText)
			w.do(http.MethodPut, path, `{"name":"x"}`).refuses(http.StatusInternalServerError, brokenText)
			w.do(http.MethodGet, path, "", key(otherKey)).refuses(http.StatusNotFound, "Queue not found")
			w.do(http.MethodPut, path, `{"name":"x"}`, key(otherKey)).refuses(http.StatusNotFound, "Queue not found")
		})
	}
}

// An event that is missing is told at the one behind it; where the beginning or the
// end is missing there is nothing to tell it at.
func TestEvents_ofAStreamThatWasCutAreRefused(t *testing.T) {
	t.Parallel()
	missing := func(at ...domain.Revision) func(l *memoryLog, stream string) {
		return func(l *memoryLog, stream string) {
			for _, at := range at {
				l.damage(stream, at, nil)
			}
		}
	}
	for name, c := range map[string]struct {
		cut    func(l *memoryLog, stream string)
		status int
		at     domain.Revision
	}{
		"in the middle": {missing(2), http.StatusOK, 3},
		"its beginning": {missing(0), http.StatusInternalServerError, 1},
		"its end":       {missing(6), http.StatusInternalServerError, 6},
		"all of it":     {missing(6, 5, 4, 3, 2, 1, 0), http.StatusInternalServerError, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWatchedWorld(t)
			path, id := aLife(w)
			if n := len(w.log.streams[domain.ID(id).Stream()]); n != 7 {
				t.Fatalf("%d events", n)
			}
			c.cut(w.log, domain.ID(id).Stream())
			for range 2 {
				a := w.do(http.MethodGet, eventsPath(id), "").is(c.status)
				if c.status != http.StatusOK {
					a.refuses(c.status, brokenText)
				}
			}
			if q := w.views.Quarantined(); len(q) != 1 || q[0].Revision != c.at {
				t.Errorf("in quarantine: %v", q)
			}
			w.do(http.MethodGet, path, "").refuses(http.StatusInternalServerError, brokenText)
			w.do(http.MethodGet, eventsPath(id), "", key(otherKey)).refuses(http.StatusNotFound, "Distribution not found")
		})
	}
}

// noAnswer is a log on a store that does not answer.
type noAnswer struct{}

func (noAnswer) Read(context.Context, string, domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) { yield(nil, domain.ErrUnavailable) }
}

// A store that does not answer is no damage.
func TestEvents_aFaultOfTheStoreIsNotDamage(t *testing.T) {
	t.Parallel()
	w := newWatchedWorld(t)
	path, id := aLife(w)
	w.config.Histories = noAnswer{}
	w.api = New(w.config)
	w.do(http.MethodGet, eventsPath(id), "").refuses(http.StatusServiceUnavailable, "Event store unavailable")
	if q := w.views.Quarantined(); len(q) > 0 {
		t.Errorf("in quarantine: %v", q)
	}
	w.do(http.MethodGet, path, "").is(http.StatusOK)
}

// Whoever gives up while the store is asked again has found nothing.
func TestEvents_thatNobodyWaitsForAreNotFoundDamaged(t *testing.T) {
	t.Parallel()
	w := newWatchedWorld(t)
	path, id := aLife(w)
	w.log.damage(domain.ID(id).Stream(), 6, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.undocumented = true // nobody reads the answer
	w.do(http.MethodGet, eventsPath(id), "", func(r *http.Request) { *r = *r.WithContext(ctx) })
	if q := w.views.Quarantined(); len(q) > 0 {
		t.Errorf("in quarantine: %v", q)
	}
	w.do(http.MethodGet, path, "").is(http.StatusOK)
}

// What is known of a damaged organization ends its keys, whoever finds it.
func TestDamage_ofAnOrganizationEndsItsKeys(t *testing.T) {
	t.Parallel()
	w := newWatchedWorld(t)
	w.log.damage(w.mine.Stream(), 0, rigged)
	w.do(http.MethodGet, organizationAt, "").is(http.StatusOK)
	w.do(http.MethodPut, organizationAt, `{"name":"x"}`).refuses(http.StatusInternalServerError, brokenText)
	for _, at := range []string{organizationAt, keysAt, "/api/v1/queues"} {
		w.do(http.MethodGet, at, "").refuses(http.StatusUnauthorized, "Authentication required")
	}
	w.do(http.MethodGet, organizationAt, "", key(otherKey)).is(http.StatusOK)
}
