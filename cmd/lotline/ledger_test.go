package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// deed is one thing that a client wants done, however often it asks for it.
type deed struct {
	client             string
	id                 string // each attempt's X-Request-Id is this and the attempt's number
	method, path, body string
	key, ifMatch       string // headers; "" for none
	effect             string // the end of the type of the one event that it makes

	attempts int
	// reply is the answer that the client went by: the first that was none of the
	// denied, which say that the engine could not do it now.
	reply  *reply
	denied []reply
	// again are the answers to attempts after that.
	again []reply
}

type reply struct {
	attempt        int
	status         int
	etag, location string
	replayed       bool
	retryAfter     string
	position       string
	body           string
}

func (d *deed) requestID(attempt int) string { return d.id + "/" + strconv.Itoa(attempt) }

func (d *deed) String() string {
	s := fmt.Sprintf("%s %s %s key %q if-match %s %s", d.id, d.method, d.path, d.key, d.ifMatch, d.body)
	if d.reply != nil {
		s += fmt.Sprintf(" -> %+v, then %+v", *d.reply, d.again)
	}
	return s
}

// newHTTPClient is one for many requests at once, of which some are held to the document.
func newHTTPClient(t testing.TB) *http.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: &held{t: t, RoundTripper: transport, oneIn: 4}}
}

// send makes another attempt.
func (d *deed) send(c *http.Client, e *engine) (*reply, error) {
	d.attempts++
	return d.attempt(d.attempts, c, e)
}

func (d *deed) attempt(n int, c *http.Client, e *engine) (*reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, d.method, e.url+d.path, strings.NewReader(d.body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+testSecretKey)
	req.Header.Set("X-Request-Id", d.requestID(n))
	if d.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if d.key != "" {
		req.Header.Set("Idempotency-Key", d.key)
	}
	if d.ifMatch != "" {
		req.Header.Set("If-Match", d.ifMatch)
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	return &reply{
		n, resp.StatusCode, resp.Header.Get("ETag"), resp.Header.Get("Location"),
		resp.Header.Get("Idempotent-Replayed") == "true", resp.Header.Get("Retry-After"), resp.Header.Get("X-Position"), string(got),
	}, nil
}

// ledger compares what clients were told with what the log holds. It has its own
// idea of both and asks the engine for nothing but the objects as they are.
type ledger struct {
	t    testing.TB
	dir  string // where the log is
	keys *eventstore.Keyring
	// wrong is by how much the engine's clock is.
	wrong time.Duration
	// patience is how long the engine may take to show what the log has.
	patience time.Duration

	events   []string // all that is stored, as it was when it was first seen
	last     esdb.Position
	streams  map[string]*storedStream
	commands map[string]place    // where each command's latest event is
	caused   map[string][]effect // by X-Request-Id

	mu    sync.Mutex // guards deeds
	deeds []*deed
}

type place struct {
	stream   string
	revision uint64
}

// effect is an event that a request caused.
type effect struct {
	place
	eventType string
	position  uint64
}

// storedStream is a stream as far as it was read.
type storedStream struct {
	events  uint64
	hash    string          // of the last event
	at      string          // when it happened
	history *domain.History // nil for one without rules
	rows    []string        // a distribution as it was at each revision
}

const (
	testMasterKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	testSecretKey = "sk_live_0123456789abcdef"
)

// newLedger is one for the log in a data directory, under testMasterKey.
func newLedger(t testing.TB, dir string) *ledger {
	t.Helper()
	master, _ := decodeMasterKey(testMasterKey)
	keys, err := eventstore.NewKeyring(master)
	if err != nil {
		t.Fatal(err)
	}
	return &ledger{
		t: t, dir: dir, keys: keys, patience: patience,
		streams: map[string]*storedStream{}, commands: map[string]place{}, caused: map[string][]effect{},
	}
}

// dueBy reports whether something is due by a time, as far as the log was read.
func (l *ledger) dueBy(t domain.Instant) bool {
	for _, s := range l.distributions() {
		if at := s.history.Aggregate.Wake(); at != 0 && at < t {
			return true
		}
	}
	return false
}

// distributions are the streams that hold one.
func (l *ledger) distributions() map[string]*storedStream {
	all := map[string]*storedStream{}
	for stream, s := range l.streams {
		if domain.StreamKind(stream).Distribution() {
			all[stream] = s
		}
	}
	return all
}

func (s *storedStream) deleted() bool {
	return s.history.Aggregate.(domain.Distribution).Shared().Deleted
}

// untilQuiet returns when nothing is due within the next minute.
func (l *ledger) untilQuiet() {
	l.t.Helper()
	eventually(l.t, "nothing is due", func() bool {
		l.readLog()
		return !l.dueBy(domain.InstantOf(time.Now().Add(l.wrong + time.Minute)))
	})
}

func (l *ledger) add(d *deed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deeds = append(l.deeds, d)
}

// check reads what came to the log, and compares everything. It returns when the
// engine shows every object as the log has it.
func (l *ledger) check(e *engine) {
	l.t.Helper()
	for _, stream := range l.readLog() {
		l.checkObject(e, stream)
	}
	l.checkDeeds()
}

// checkDeeds compares what clients asked and were told with what the log holds,
// as far as it was read.
func (l *ledger) checkDeeds() {
	l.t.Helper()
	byClient, asked := map[string]uint64{}, map[string]bool{}
	for _, d := range l.deeds {
		l.checkDeed(d, byClient)
		for attempt := 1; attempt <= d.attempts; attempt++ {
			asked[d.requestID(attempt)] = true
		}
	}
	for id, effects := range l.caused {
		if !asked[id] {
			l.t.Errorf("nobody asked %s, which caused %v", id, effects)
		}
	}
}

// readLog reads on in the log with the official client, and takes it in. It
// returns the distributions that have something new.
func (l *ledger) readLog() (changed []string) {
	l.t.Helper()
	c := dialSocket(l.t, l.dir)
	defer c.Close()
	return l.takeAll(l.readAll(c, l.last))
}

// takeAll takes what was read from the last event on, that included, and folds
// the streams that have something new by the rules.
func (l *ledger) takeAll(events []*esdb.RecordedEvent) (changed []string) {
	l.t.Helper()
	touched := map[string]bool{}
	for i, e := range events {
		if i == 0 && len(l.events) > 0 {
			if line := lines([]*esdb.RecordedEvent{e})[0]; line != l.events[len(l.events)-1] {
				l.t.Fatalf("the log went on from\n%s\nwhich is now\n%s", l.events[len(l.events)-1], line)
			}
			continue
		}
		l.take(e)
		touched[e.StreamID] = true
	}
	stored, err := eventstore.ConnectSocket(filepath.Join(l.dir, socketFile), l.keys)
	if err != nil {
		l.t.Fatal(err)
	}
	defer stored.Close()
	for _, stream := range slices.Sorted(maps.Keys(touched)) {
		if s := l.streams[stream]; s != nil && s.history != nil {
			l.fold(stored, stream)
		}
		if domain.StreamKind(stream).Distribution() {
			changed = append(changed, stream)
		}
	}
	return changed
}

func (l *ledger) readAll(c *esdb.Client, from esdb.Position) []*esdb.RecordedEvent {
	l.t.Helper()
	read, err := c.ReadAll(l.t.Context(), esdb.ReadAllOptions{Direction: esdb.Forwards, From: from}, math.MaxInt64)
	if err != nil {
		l.t.Fatal(err)
	}
	defer read.Close()
	var all []*esdb.RecordedEvent
	for {
		e, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			l.t.Fatal(err)
		}
		all = append(all, e.Event)
	}
}

// requested are the ends of the types of those events that never come of
// themselves.
var requested = []string{"created", "updated", "deleted", "entropy.supplied"}

// take checks that an event continues the log and its stream, and notes what it
// says.
func (l *ledger) take(e *esdb.RecordedEvent) {
	l.t.Helper()
	if len(l.events) > 0 && e.Position.Commit <= l.last.Commit {
		l.t.Errorf("%s@%d: position %d follows %d", e.StreamID, e.EventNumber, e.Position.Commit, l.last.Commit)
	}
	l.last = e.Position
	l.events = append(l.events, lines([]*esdb.RecordedEvent{e})[0])
	if k := domain.StreamKind(e.StreamID); k == domain.KindClock || strings.HasPrefix(e.StreamID, "$$") {
		return // what nodes compare their clocks by, and how much of that the store keeps
	}
	s, ok := l.streams[e.StreamID]
	if !ok {
		s = &storedStream{}
		if k := domain.StreamKind(e.StreamID); k != domain.KindSeal && k != domain.KindSink {
			s.history = domain.NewHistory(e.StreamID)
		}
		l.streams[e.StreamID] = s
	}
	if e.EventNumber != s.events {
		l.t.Errorf("%s@%d follows %d", e.StreamID, e.EventNumber, s.events)
	}
	s.events++
	metadata, hash, ok := domain.SplitHash(e.UserMetadata)
	if !ok || hash != domain.EventHash(e.EventID, e.EventType, e.StreamID, domain.Revision(e.EventNumber), e.Data, metadata, s.hash) {
		l.t.Errorf("%s@%d: the chain is broken", e.StreamID, e.EventNumber)
	}
	s.hash = hash
	var said struct {
		At        string `json:"at"`
		CommandID string `json:"commandId"`
		RequestID string `json:"requestId"`
	}
	if err := errors.Join(json.Unmarshal(e.Data, &said), json.Unmarshal(e.UserMetadata, &said)); err != nil {
		l.t.Fatal(err)
	}
	if said.At < s.at {
		l.t.Errorf("%s@%d: at %s follows %s", e.StreamID, e.EventNumber, said.At, s.at)
	}
	s.at = said.At
	here := place{e.StreamID, e.EventNumber}
	if before, ok := l.commands[said.CommandID]; ok && (before.stream != here.stream || before.revision+1 != here.revision) {
		l.t.Errorf("command %s is at %v and at %v", said.CommandID, before, here)
	}
	l.commands[said.CommandID] = here
	switch {
	case said.RequestID != "":
		l.caused[said.RequestID] = append(l.caused[said.RequestID], effect{here, e.EventType, e.Position.Commit})
	case domain.StreamKind(e.StreamID).Distribution() && slices.Contains(requested, eventName(e.EventType)):
		l.t.Errorf("%s@%d: nobody asked for %s", e.StreamID, e.EventNumber, e.EventType)
	}
}

// fold brings a stream's history to its end by the rules.
func (l *ledger) fold(log *eventstore.Log, stream string) {
	l.t.Helper()
	s := l.streams[stream]
	for r, err := range log.Read(l.t.Context(), stream, s.history.Head.Revision) {
		if err == nil {
			l.inTime(s, r)
			err = s.history.Apply(r)
		}
		if err != nil {
			l.t.Fatal(err)
		}
		if d, ok := s.history.Aggregate.(domain.Distribution); ok {
			s.rows = append(s.rows, string(d.AppendJSON(nil)))
		}
	}
	// The stream may have gone on since the log was read.
	if end, events := s.history.Head, domain.Revision(s.events); end.Revision+1 < events || (end.Revision+1 == events && end.Hash != s.hash) {
		l.t.Errorf("%s, read alone, ends otherwise at %d than in the log at %d", stream, end.Revision, events-1)
	}
}

// inTime checks that what was due happened first, and is dated when it was due.
func (l *ledger) inTime(s *storedStream, r *domain.Recorded) {
	l.t.Helper()
	if len(s.rows) == 0 || r.Undecoded != nil {
		return
	}
	var was struct {
		Status        string  `json:"status"`
		OpenAt        *string `json:"openAt"`
		CloseAt       *string `json:"closeAt"`
		DrawAt        *string `json:"drawAt"`
		SettleAt      *string `json:"settleAt"`
		UpdatedAt     string  `json:"updatedAt"`
		EntropySource *string `json:"entropySource"`
	}
	if err := json.Unmarshal([]byte(s.rows[len(s.rows)-1]), &was); err != nil {
		l.t.Fatal(err)
	}
	due, step := "", ""
	soonest := func(times ...*string) {
		for _, at := range times {
			if at != nil && (due == "" || *at < due) {
				due = *at
			}
		}
	}
	switch was.Status {
	case "SCHEDULED":
		soonest(was.OpenAt)
		step = "opened"
	case "OPEN":
		soonest(was.CloseAt, was.DrawAt, was.SettleAt)
		step = "closed"
	case "CLOSED":
		soonest(was.DrawAt, was.SettleAt)
		switch {
		case was.SettleAt != nil:
			step = "settled"
		case was.DrawAt != nil:
			step = "drawn"
		default:
			due, step = was.UpdatedAt, "completed"
		}
	case "DRAWN":
		due, step = was.UpdatedAt, "completed"
	}
	at, name := r.Event.When().String(), eventName(r.Type)
	if name == step {
		if want := max(due, was.UpdatedAt); at != want {
			l.t.Errorf("%s@%d: %s is dated %s, due %s", r.Stream, r.Revision, r.Type, at, want)
		}
		return
	}
	// A draw that waits for its entropy is late for good reason.
	if waits := was.Status == "CLOSED" && was.EntropySource != nil; due != "" && due <= at && !waits {
		l.t.Errorf("%s@%d: %s at %s, though it was %s until %s", r.Stream, r.Revision, r.Type, at, was.Status, due)
	}
}

// eventName is an event's type without its kind.
func eventName(eventType string) string {
	_, name, _ := strings.Cut(eventType, ".")
	return name
}

// checkObject compares what the engine shows with what the log says.
func (l *ledger) checkObject(e *engine, stream string) {
	l.t.Helper()
	id, err := domain.StreamID(stream)
	if err != nil {
		l.t.Fatal(err)
	}
	path := "/api/v1/distributions/" + string(id)
	within(l.t, l.patience, "the engine shows "+path+" as the log has it", func() bool {
		a := e.call("GET", path, testSecretKey, "")
		s := l.streams[stream]
		revision := revisionOf(a.header.Get("ETag"))
		if (a.status == 404 && !s.deleted()) || revision >= len(s.rows) {
			// It may have gone on since the log was read.
			l.readLog()
		}
		switch {
		case a.status == 404:
			return s.deleted()
		case a.status != 200:
			l.t.Fatalf("GET %s: %d %s", path, a.status, a.body)
		case revision >= len(s.rows):
			l.t.Fatalf("GET %s shows revision %d, the log has %d", path, revision, len(s.rows))
		case string(a.body) != s.rows[revision]:
			l.t.Fatalf("GET %s shows\n%s\nand the log says\n%s", path, a.body, s.rows[revision])
		}
		return revision == len(s.rows)-1 && !s.deleted()
	})
}

func revisionOf(etag string) int {
	n, err := strconv.Atoi(strings.Trim(etag, `"`))
	if err != nil {
		return -1
	}
	return n
}

// checkDeed compares what a client was told of one deed with what the log holds
// of it. byClient is where each client's latest event is.
func (l *ledger) checkDeed(d *deed, byClient map[string]uint64) {
	l.t.Helper()
	var made, claims []effect
	from := 0 // the attempt that they are from
	for attempt := 1; attempt <= d.attempts; attempt++ {
		for _, c := range l.caused[d.requestID(attempt)] {
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
		if eventName(c.eventType) == d.effect {
			done++
		}
		if c.position <= byClient[d.client] {
			l.t.Errorf("at %d, before what its client did first: %s", c.position, d)
		}
		byClient[d.client] = c.position
	}
	for _, no := range d.denied {
		if from == no.attempt && !strings.Contains(no.body, "OUTCOME_UNKNOWN") {
			l.t.Errorf("caused %v, and %s was told in attempt %d", made, no.body, no.attempt)
		}
	}
	keyedCreation := d.effect == "created" && d.key != ""
	if done > 1 || len(claims) > 1 || (len(claims) > 0 && !keyedCreation) || (done == 0) != (len(made) == 0) {
		l.t.Errorf("caused %v and %v: %s", made, claims, d)
	}
	r := d.reply
	switch {
	case r == nil:
	case r.status >= 500:
		l.t.Errorf("a fault: %s", d)
	case r.status >= 400:
		// What an earlier attempt did without a key may be why the later one is
		// refused; with one it would have been remembered.
		if len(claims) > 0 || (done > 0 && (r.attempt == 1 || from == r.attempt || d.key != "")) {
			l.t.Errorf("refused, and yet caused %v and %v: %s", made, claims, d)
		}
		if r.replayed {
			l.t.Errorf("a refusal is not remembered: %s", d)
		}
	default:
		if done != 1 || (keyedCreation && len(claims) != 1) {
			l.t.Errorf("acknowledged, and the log has %v and %v: %s", made, claims, d)
			return
		}
		if r.replayed != (d.key != "" && from < r.attempt) {
			l.t.Errorf("done by attempt %d: %s", from, d)
		}
		l.checkReply(d, r, made)
		for _, again := range d.again {
			if again.status != r.status || again.replayed != (d.key != "") {
				l.t.Errorf("repeated, it is answered otherwise: %s", d)
			}
			if d.effect == "created" && (again.body != r.body || again.etag != r.etag || again.location != r.location) {
				l.t.Errorf("repeated, it is another: %s", d)
			}
			l.checkReply(d, &again, made)
		}
	}
}

// checkReply compares an answer with what the log has at the revision that it
// names.
func (l *ledger) checkReply(d *deed, r *reply, made []effect) {
	l.t.Helper()
	s, revision := l.streams[made[0].stream], revisionOf(r.etag)
	if d.ifMatch != "" && revisionOf(d.ifMatch)+1 != int(made[0].revision) {
		l.t.Errorf("carried out at %d: %s", made[0].revision, d)
	}
	id, _ := domain.StreamID(made[0].stream)
	if d.effect == "created" && filepath.Base(r.location) != string(id) || d.effect != "created" && !strings.Contains(d.path, string(id)) {
		l.t.Errorf("it stands in %s: %s", made[0].stream, d)
	}
	if r.status == 204 {
		return
	}
	if revision < int(made[len(made)-1].revision) || revision >= len(s.rows) || s.rows[revision] != r.body {
		l.t.Errorf("%s is not in the log, which has %d revisions: %s", r.etag, len(s.rows), d)
	}
}

// checkUnchanged reads the whole log again: what was once in it is in it still, as
// it was.
func (l *ledger) checkUnchanged() {
	l.t.Helper()
	l.readLog()
	c := dialSocket(l.t, l.dir)
	defer c.Close()
	again := lines(l.readAll(c, esdb.Position{}))
	if len(again) < len(l.events) {
		l.t.Fatalf("%d events are gone", len(l.events)-len(again))
	}
	for i, was := range l.events {
		if again[i] != was {
			l.t.Errorf("was\n%s\nand is\n%s", was, again[i])
		}
	}
}
