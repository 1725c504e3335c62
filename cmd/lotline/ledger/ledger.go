// Package ledger compares the requests and answers of clients with the events in the
// log: every acknowledged change is in the log once, no refused change is in the log,
// every event has a request, and no event ever changes.
//
// It is for tests only. A test runs the engines, sends the requests, and adds every
// request to the ledger. The ledger reads the log itself. From an engine it requests only
// objects, to compare them with the log. It must not rely on an engine for anything else.
package ledger

import (
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// Ledger has the requests of clients and the events of one log.
type Ledger struct {
	// Wrong is the difference between the engine's clock and the true time.
	Wrong time.Duration
	// Patience is the longest time that the engine may take to show what the log has.
	Patience time.Duration

	t      testing.TB
	socket string
	keys   *eventstore.Keyring

	events   []string // the Line of each event, as it was first read
	last     esdb.Position
	streams  map[string]*Stream
	commands map[string]place    // the last event of each command
	caused   map[string][]effect // by X-Request-Id

	mu       sync.Mutex // guards requests
	requests []*Request
}

// New returns a ledger for the log of the store that listens on a socket. The keys
// decrypt its events. The ledger reports what is wrong as errors of the test.
func New(t testing.TB, socket string, keys *eventstore.Keyring) *Ledger {
	return &Ledger{
		t: t, socket: socket, keys: keys, Patience: 30 * time.Second,
		streams: map[string]*Stream{}, commands: map[string]place{}, caused: map[string][]effect{},
	}
}

// Add adds a request. The caller must add it before sending it.
func (l *Ledger) Add(r *Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests = append(l.requests, r)
}

// Requests returns all requests that were added.
func (l *Ledger) Requests() []*Request { return l.requests }

// Events returns the number of events that were read so far.
func (l *Ledger) Events() int { return len(l.events) }

// Caused reports whether an attempt of a request caused an event.
func (l *Ledger) Caused(r *Request, attempt int) bool { return len(l.caused[r.AttemptID(attempt)]) > 0 }

// Distributions returns the streams of distributions, by name.
func (l *Ledger) Distributions() map[string]*Stream {
	all := map[string]*Stream{}
	for stream, s := range l.streams {
		if domain.StreamKind(stream).Distribution() {
			all[stream] = s
		}
	}
	return all
}

// dueBy reports whether any distribution has a step that is due before a time. It knows
// the events that were read so far.
func (l *Ledger) dueBy(t domain.Instant) bool {
	for _, s := range l.Distributions() {
		if at := s.history.Aggregate.Wake(); at != 0 && at < t {
			return true
		}
	}
	return false
}

// UntilQuiet waits until no step is due within the next minute.
func (l *Ledger) UntilQuiet() {
	l.t.Helper()
	l.within(30*time.Second, "nothing is due", func() bool {
		l.ReadLog()
		return !l.dueBy(domain.InstantOf(time.Now().Add(l.Wrong + time.Minute)))
	})
}

// within waits until a condition holds. The test fails when that takes too long.
func (l *Ledger) within(patience time.Duration, what string, reached func() bool) {
	l.t.Helper()
	deadline := time.Now().Add(patience)
	for !reached() {
		if time.Now().After(deadline) {
			l.t.Fatalf("not within %s: %s", patience, what)
		}
		select {
		case <-l.t.Context().Done():
			l.t.Fatal(l.t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Engine answers with objects.
type Engine interface {
	// Object returns the answer to a GET of a path.
	Object(path string) Reply
}

// Check reads the new events of the log and compares them with the requests. It waits
// until the engine answers with the latest state of every object that has new events.
func (l *Ledger) Check(e Engine) {
	l.t.Helper()
	for _, stream := range l.ReadLog() {
		l.CheckObject(e, stream)
	}
	l.checkRequests()
}

// checkRequests compares the requests and their answers with the events that were
// read.
func (l *Ledger) checkRequests() {
	l.t.Helper()
	byClient, asked := map[string]uint64{}, map[string]bool{}
	for _, r := range l.requests {
		l.checkRequest(r, byClient)
		for attempt := 1; attempt <= r.Attempts; attempt++ {
			asked[r.AttemptID(attempt)] = true
		}
	}
	for id, effects := range l.caused {
		if !asked[id] {
			l.t.Errorf("nobody asked %s, which caused %v", id, effects)
		}
	}
}

// CheckObject requests a distribution from the engine until the answer is the latest state
// in the log. Every earlier answer must be an earlier state in the log.
func (l *Ledger) CheckObject(e Engine, stream string) {
	l.t.Helper()
	id, err := domain.StreamID(stream)
	if err != nil {
		l.t.Fatal(err)
	}
	path := "/api/v1/distributions/" + string(id)
	l.within(l.Patience, "the engine shows "+path+" as the log has it", func() bool {
		a := e.Object(path)
		s := l.streams[stream]
		revision := revisionOf(a.ETag)
		if (a.Status == 404 && !s.Deleted()) || revision >= len(s.Rows) {
			// The stream may have new events.
			l.ReadLog()
		}
		switch {
		case a.Status == 404:
			return s.Deleted()
		case a.Status != 200:
			l.t.Fatalf("GET %s: %d %s", path, a.Status, a.Body)
		case revision >= len(s.Rows):
			l.t.Fatalf("GET %s shows revision %d, the log has %d", path, revision, len(s.Rows))
		case a.Body != s.Rows[revision]:
			l.t.Fatalf("GET %s shows\n%s\nand the log says\n%s", path, a.Body, s.Rows[revision])
		}
		return revision == len(s.Rows)-1 && !s.Deleted()
	})
}

func revisionOf(etag string) int {
	n, err := strconv.Atoi(strings.Trim(etag, `"`))
	if err != nil {
		return -1
	}
	return n
}

// checkRequest compares a request and its answers with the events that it caused.
// byClient has the position of each client's latest event.
func (l *Ledger) checkRequest(d *Request, byClient map[string]uint64) {
	l.t.Helper()
	var made, claims []effect
	from := 0 // the number of the attempt that caused the events in made, 0 for none
	for attempt := 1; attempt <= d.Attempts; attempt++ {
		for _, c := range l.caused[d.AttemptID(attempt)] {
			switch {
			case domain.StreamKind(c.stream) == domain.KindClaim:
				claims = append(claims, c)
			case from != 0 && from != attempt:
				l.t.Errorf("done by attempt %d and by attempt %d: %s", from, attempt, d)
			default:
				from = attempt
				made = append(made, c)
			}
		}
	}
	done := 0
	for _, c := range made {
		if eventName(c.eventType) == d.Effect {
			done++
		}
		if c.position <= byClient[d.Client] {
			l.t.Errorf("at %d, before what its client did first: %s", c.position, d)
		}
		byClient[d.Client] = c.position
	}
	for _, no := range d.Denied {
		if from == no.Attempt && !strings.Contains(no.Body, "OUTCOME_UNKNOWN") {
			l.t.Errorf("caused %v, and %s was told in attempt %d", made, no.Body, no.Attempt)
		}
	}
	keyedCreation := d.Effect == "created" && d.Key != ""
	if done > 1 || len(claims) > 1 || (len(claims) > 0 && !keyedCreation) || (done == 0) != (len(made) == 0) {
		l.t.Errorf("caused %v and %v: %s", made, claims, d)
	}
	r := d.Reply
	switch {
	case r == nil:
	case r.Status >= 500:
		l.t.Errorf("a fault: %s", d)
	case r.Status >= 400:
		// Without a key, an earlier attempt that was carried out may be the reason for
		// the refusal. With a key, the engine would have repeated its answer.
		if len(claims) > 0 || (done > 0 && (r.Attempt == 1 || from == r.Attempt || d.Key != "")) {
			l.t.Errorf("refused, and yet caused %v and %v: %s", made, claims, d)
		}
		if r.Replayed {
			l.t.Errorf("a refusal is not remembered: %s", d)
		}
	default:
		if done != 1 || (keyedCreation && len(claims) != 1) {
			l.t.Errorf("acknowledged, and the log has %v and %v: %s", made, claims, d)
			return
		}
		if r.Replayed != (d.Key != "" && from < r.Attempt) {
			l.t.Errorf("done by attempt %d: %s", from, d)
		}
		l.checkReply(d, r, made)
		for _, again := range d.Again {
			if again.Status != r.Status || again.Replayed != (d.Key != "") {
				l.t.Errorf("repeated, it is answered otherwise: %s", d)
			}
			if d.Effect == "created" && (again.Body != r.Body || again.ETag != r.ETag || again.Location != r.Location) {
				l.t.Errorf("repeated, it is another: %s", d)
			}
			l.checkReply(d, &again, made)
		}
	}
}

// checkReply compares an acknowledgement with the log at the revision that it names.
func (l *Ledger) checkReply(d *Request, r *Reply, made []effect) {
	l.t.Helper()
	s, revision := l.streams[made[0].stream], revisionOf(r.ETag)
	if d.IfMatch != "" && revisionOf(d.IfMatch)+1 != int(made[0].revision) {
		l.t.Errorf("carried out at %d: %s", made[0].revision, d)
	}
	id, _ := domain.StreamID(made[0].stream)
	if d.Effect == "created" && filepath.Base(r.Location) != string(id) || d.Effect != "created" && !strings.Contains(d.Path, string(id)) {
		l.t.Errorf("it stands in %s: %s", made[0].stream, d)
	}
	if r.Status == 204 {
		return
	}
	if revision < int(made[len(made)-1].revision) || revision >= len(s.Rows) || s.Rows[revision] != r.Body {
		l.t.Errorf("%s is not in the log, which has %d revisions: %s", r.ETag, len(s.Rows), d)
	}
}

// CheckUnchanged reads the whole log again and checks that no event has changed since the
// ledger first read it.
func (l *Ledger) CheckUnchanged() {
	l.t.Helper()
	l.ReadLog()
	c := l.dial()
	defer l.close(c)
	again := l.readAll(c, esdb.Position{})
	if len(again) < len(l.events) {
		l.t.Fatalf("%d events are gone", len(l.events)-len(again))
	}
	for i, was := range l.events {
		if is := Line(again[i]); is != was {
			l.t.Errorf("was\n%s\nand is\n%s", was, is)
		}
	}
}
