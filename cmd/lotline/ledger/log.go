package ledger

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// Dial connects the official client to the store that listens on a socket.
func Dial(socket string) (*esdb.Client, error) {
	config, err := esdb.ParseConnectionString("esdb://localhost?tls=false")
	if err != nil {
		return nil, err
	}
	config.Address = "unix:" + socket
	config.Logger = esdb.NoopLogging()
	return esdb.NewClient(config)
}

// Line returns all that is stored of an event as one text, for comparison.
func Line(e *esdb.RecordedEvent) string {
	return fmt.Sprint(e.EventNumber, " ", e.EventType, " ", e.EventID, " ", e.Position, " ", e.CreatedDate, " ", string(e.Data), " ", string(e.UserMetadata))
}

// Stream has the events of a stream that were read so far.
type Stream struct {
	// Rows has the distribution after each event, as JSON. It is empty for other streams.
	Rows []string

	events  uint64
	hash    string          // of the last event
	at      string          // when the last event happened
	history *domain.History // nil for a stream without rules
}

// Deleted reports whether the distribution is deleted.
func (s *Stream) Deleted() bool {
	return s.history.Aggregate.(domain.Distribution).Shared().Deleted
}

// place is the stream and the revision of an event.
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

// ReadLog reads and checks the events that were appended to the log since the last call.
// It returns the streams of the distributions that have new events.
func (l *Ledger) ReadLog() (changed []string) {
	l.t.Helper()
	c := l.dial()
	defer l.close(c)
	return l.takeAll(l.readAll(c, l.last))
}

func (l *Ledger) dial() *esdb.Client {
	l.t.Helper()
	c, err := Dial(l.socket)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *Ledger) close(c io.Closer) {
	l.t.Helper()
	if err := c.Close(); err != nil {
		l.t.Error(err)
	}
}

// takeAll adds events to the ledger. If the ledger has events already, the first one must
// be its last event, unchanged. takeAll then brings the histories of the events' streams
// up to date.
func (l *Ledger) takeAll(events []*esdb.RecordedEvent) (changed []string) {
	l.t.Helper()
	touched := map[string]bool{}
	for i, e := range events {
		if i == 0 && len(l.events) > 0 {
			if last := l.events[len(l.events)-1]; Line(e) != last {
				l.t.Fatalf("the log went on from\n%s\nwhich is now\n%s", last, Line(e))
			}
			continue
		}
		l.take(e)
		touched[e.StreamID] = true
	}
	stored, err := eventstore.ConnectSocket(l.socket, l.keys)
	if err != nil {
		l.t.Fatal(err)
	}
	defer l.close(stored)
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

func (l *Ledger) readAll(c *esdb.Client, from esdb.Position) []*esdb.RecordedEvent {
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

// requested has the names of the events that only a request can cause.
var requested = []string{"created", "updated", "deleted", "entropy.supplied"}

// take adds an event to the ledger. It checks that the event follows the previous event of
// the log and the previous event of its stream.
func (l *Ledger) take(e *esdb.RecordedEvent) {
	l.t.Helper()
	if len(l.events) > 0 && e.Position.Commit <= l.last.Commit {
		l.t.Errorf("%s@%d: position %d follows %d", e.StreamID, e.EventNumber, e.Position.Commit, l.last.Commit)
	}
	l.last = e.Position
	l.events = append(l.events, Line(e))
	if k := domain.StreamKind(e.StreamID); k == domain.KindClock || strings.HasPrefix(e.StreamID, "$$") {
		// Nodes compare their clocks by such events, and the store keeps few of them.
		return
	}
	s, ok := l.streams[e.StreamID]
	if !ok {
		s = &Stream{}
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

// fold replays the new events of a stream by the rules of package domain.
func (l *Ledger) fold(log *eventstore.Log, stream string) {
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
			s.Rows = append(s.Rows, string(d.AppendJSON(nil)))
		}
	}
	// The stream may have more events than the log had when it was read.
	if end, events := s.history.Head, domain.Revision(s.events); end.Revision+1 < events || (end.Revision+1 == events && end.Hash != s.hash) {
		l.t.Errorf("%s, read alone, ends otherwise at %d than in the log at %d", stream, end.Revision, events-1)
	}
}

// inTime checks that a step of the lifecycle that was due came before any other event,
// and that the step's event has the time at which the step was due.
func (l *Ledger) inTime(s *Stream, r *domain.Recorded) {
	l.t.Helper()
	if len(s.Rows) == 0 || r.Undecoded != nil {
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
	if err := json.Unmarshal([]byte(s.Rows[len(s.Rows)-1]), &was); err != nil {
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
	// A closed draw may have to wait for its entropy.
	if waits := was.Status == "CLOSED" && was.EntropySource != nil; due != "" && due <= at && !waits {
		l.t.Errorf("%s@%d: %s at %s, though it was %s until %s", r.Stream, r.Revision, r.Type, at, was.Status, due)
	}
}

// eventName returns the type of an event without its kind.
func eventName(eventType string) string {
	_, name, _ := strings.Cut(eventType, ".")
	return name
}
