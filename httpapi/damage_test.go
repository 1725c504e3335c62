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

// newWatchedWorld returns a world in which commands and read models report broken histories
// to each other, as in a node.
func newWatchedWorld(t *testing.T) *world {
	w := newWorld(t)
	w.config.Commands = commands.NewHandler(w.log, w.views, w.config.Clock)
	w.api = New(w.config)
	return w
}

// damage changes a stored event without the read models' knowledge. A nil change removes
// the event.
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

// Reading the events of a damaged stream answers them all, marks the damaged one, and puts
// the stream into quarantine.
func TestEvents_markADamagedEventAndQuarantineItsStream(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		query  string
		lines  bool
		at     domain.Revision // the damaged event
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
			// The stream is put into quarantine by the first reading. The second one reads
			// it in quarantine.
			for range 2 {
				got := w.eventPage(id, c.query).Data
				if c.lines {
					got = w.eventLines(id, c.query)
				}
				marksOnly(t, got, c.marked, c.rule)
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

// marksOnly checks that the event at a revision is marked with a rule, and no other event.
func marksOnly(t *testing.T, events []auditEvent, revision int64, rule string) {
	t.Helper()
	for _, e := range events {
		if (e.Problem != nil) != (e.Revision == revision) || e.Problem != nil && e.Problem.Rule != rule {
			t.Errorf("revision %d: problem %+v", e.Revision, e.Problem)
		}
	}
}

// A missing event is reported at the next event. If events are missing at the beginning or
// the end of a stream, there is no event to mark, so the call is refused.
func TestEvents_ofATruncatedStreamAreRefused(t *testing.T) {
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

// noAnswer is a log whose store does not answer.
type noAnswer struct{}

func (noAnswer) Read(context.Context, string, domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) { yield(nil, domain.ErrUnavailable) }
}

// If the store does not answer, the stream is not put into quarantine.
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

// A client that gives up while the store is read a second time does not put the stream into
// quarantine.
func TestEvents_aClientThatGivesUpQuarantinesNothing(t *testing.T) {
	t.Parallel()
	w := newWatchedWorld(t)
	path, id := aLife(w)
	w.log.damage(domain.ID(id).Stream(), 6, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.undocumented = true // the client is gone, so the answer does not matter
	w.do(http.MethodGet, eventsPath(id), "", func(r *http.Request) { *r = *r.WithContext(ctx) })
	if q := w.views.Quarantined(); len(q) > 0 {
		t.Errorf("in quarantine: %v", q)
	}
	w.do(http.MethodGet, path, "").is(http.StatusOK)
}

// When an organization's own stream is found damaged, its keys are no longer valid.
func TestDamage_ofAnOrganizationInvalidatesItsKeys(t *testing.T) {
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
