package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// cases are the requirements for a store. Each fails its test if the store does not meet
// it.
var cases = map[string]func(testing.TB, store){
	"racing writers":               racingWriters,
	"expected revisions":           expectedRevisions,
	"reads cut short":              readsCutShort,
	"lost responses":               lostResponses,
	"dropped subscriptions":        droppedSubscriptions,
	"slow subscribers":             slowSubscribers,
	"large events":                 largeEvents,
	"deletes":                      deletes,
	"repeated appends":             repeatedAppends,
	"order of the log":             orderOfTheLog,
	"reading what was appended":    readingWhatWasAppended,
	"the bytes that were appended": bytesThatWereAppended,
}

// Writers compete for the next revision of a stream. Each revision has one winner, and
// the stream holds what the winner wrote.
func racingWriters(t testing.TB, s store) {
	writers, wins := 16, 4
	if s.small {
		wins = 2
	}
	ctx, l, stream := s.within(t), s.log(t), newName()
	var mu sync.Mutex
	winners := map[domain.Revision]domain.Proposed{}
	var all sync.WaitGroup
	gate := make(chan struct{})
	for range writers {
		all.Go(func() {
			<-gate
			head := domain.EmptyHead()
			for won := 0; won < wins; {
				e := newEvent("race")
				after, _, err := l.Append(ctx, stream, head, []domain.Proposed{e})
				if err == nil {
					mu.Lock()
					if _, taken := winners[after.Revision]; taken {
						t.Errorf("revision %d was given to two writers", after.Revision)
					}
					winners[after.Revision] = e
					mu.Unlock()
					head = after
					won++
					continue
				}
				if !errors.Is(err, domain.ErrWrongRevision) {
					t.Errorf("append: %v", err)
					return
				}
				before := head
				for r, err := range l.Read(ctx, stream, head.Revision) {
					if err != nil {
						t.Errorf("read: %v", err)
						return
					}
					_, hash, _ := domain.SplitHash(r.RawMetadata)
					head = domain.Head{Revision: r.Revision, Hash: hash}
				}
				if head == before {
					t.Errorf("an append behind revision %d was refused, and the stream ends there", head.Revision)
					return
				}
			}
		})
	}
	close(gate)
	all.Wait()
	if t.Failed() {
		return
	}
	var want []domain.Proposed
	for r := range domain.Revision(len(winners)) {
		want = append(want, winners[r])
	}
	expectIDs(t, readWhole(ctx, t, l, stream), want)
}

// Every kind of expected revision is tried in every state of a stream.
func expectedRevisions(t testing.TB, s store) {
	const refused, either = -1, -2
	ctx, c := s.within(t), s.client(t)
	expectations := []struct {
		name     string
		revision esdb.ExpectedRevision
	}{
		{"no stream", esdb.NoStream{}},
		{"any", esdb.Any{}},
		{"stream exists", esdb.StreamExists{}},
		{"revision 0", esdb.Revision(0)},
		{"revision 1", esdb.Revision(1)},
		{"revision 7", esdb.Revision(7)},
	}
	put := func(stream string, n int) error {
		_, err := c.AppendToStream(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, forClient(newEvents(n))...)
		return err
	}
	for _, state := range []struct {
		name  string
		make  func(stream string) error
		holds int    // number of events that can be read
		want  [6]int // the revision that an append gets, for each expectation
	}{
		{"missing", func(string) error { return nil }, 0, [6]int{0, 0, refused, refused, refused, refused}},
		{"empty", func(stream string) error {
			m := esdb.StreamMetadata{}
			m.SetMaxCount(100)
			_, err := c.SetStreamMetadata(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, m)
			return err
			// Stores may differ in whether a stream with only metadata counts as existing.
			// Lotline does not rely on it.
		}, 0, [6]int{0, 0, either, refused, refused, refused}},
		{"of one event", func(stream string) error { return put(stream, 1) }, 1, [6]int{refused, 1, 1, 1, refused, refused}},
		{"deleted", func(stream string) error {
			if err := put(stream, 2); err != nil {
				return err
			}
			_, err := c.DeleteStream(ctx, stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(1)})
			return err
			// Stores may differ in whether a deleted stream counts as existing. Lotline
			// does not rely on it.
		}, 0, [6]int{2, 2, either, refused, 2, refused}},
		{"tombstoned", func(stream string) error {
			if err := put(stream, 1); err != nil {
				return err
			}
			_, err := c.TombstoneStream(ctx, stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Revision(0)})
			return err
		}, 0, [6]int{refused, refused, refused, refused, refused, refused}},
	} {
		for i, expected := range expectations {
			stream := newName()
			if err := state.make(stream); err != nil {
				t.Fatalf("a stream that is %s: %v", state.name, err)
			}
			result, err := c.AppendToStream(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: expected.revision}, forClient(newEvents(1))...)
			want := state.want[i]
			switch {
			case want == either:
				continue
			case want != refused && err != nil:
				t.Errorf("%s, the stream is %s: refused: %v", expected.name, state.name, err)
				continue
			case want != refused && result.NextExpectedVersion != uint64(want):
				t.Errorf("%s, the stream is %s: the event has revision %d, not %d", expected.name, state.name, result.NextExpectedVersion, want)
			case want == refused && err == nil:
				t.Errorf("%s, the stream is %s: accepted", expected.name, state.name)
			case want == refused:
				code := esdb.ErrorCodeWrongExpectedVersion
				if state.name == "tombstoned" {
					code = esdb.ErrorCodeStreamDeleted
				}
				if e, ok := errors.AsType[*esdb.Error](err); !ok || e.Code() != code {
					t.Errorf("%s, the stream is %s: %v", expected.name, state.name, err)
				}
			}
			holds := state.holds
			if want != refused {
				holds++
			}
			if n := countEvents(ctx, c, stream); n != holds {
				t.Errorf("%s, the stream is %s: it holds %d events then, not %d", expected.name, state.name, n, holds)
			}
		}
	}
}

// countEvents returns how many events of a stream can be read.
func countEvents(ctx context.Context, c *esdb.Client, stream string) int {
	read, err := c.ReadStream(ctx, stream, esdb.ReadStreamOptions{Direction: esdb.Forwards, From: esdb.Start{}}, math.MaxInt64)
	if err != nil {
		return -1
	}
	defer read.Close()
	for n := 0; ; n++ {
		if _, err := read.Recv(); err != nil {
			return n
		}
	}
}

// A read that breaks off at any event ends with an error, so that it is not taken for a
// read of a shorter stream.
func readsCutShort(t testing.TB, s store) {
	const events = 8
	ctx, stream := s.within(t), newName()
	want := newEvents(events)
	if _, _, err := s.log(t).Append(ctx, stream, domain.EmptyHead(), want); err != nil {
		t.Fatal(err)
	}
	// The next read breaks off after the first at events. The reader closes received once
	// it has them, and then the proxy calls breaks.
	var at int
	var received chan struct{}
	var breaks func(*proxy) error
	var m *proxy
	s, m = s.throughProxy(t, faults{read: func(*streamspb.ReadReq) sieve {
		n, at, received, breaks := 0, at, received, breaks
		return func(response *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
			if n == at {
				<-received
				return breaks(m)
			}
			n++
			return send(response)
		}
	}})
	l := s.log(t)
	for name, how := range map[string]func(*proxy) error{
		"the connection breaks":    func(m *proxy) error { m.cut(); return errCut },
		"the store says it closes": func(*proxy) error { return status.Error(codes.Unavailable, "closing") },
		"the store is broken":      func(*proxy) error { return status.Error(codes.Internal, "broken") },
	} {
		breaks = how
		for at = range events {
			received = make(chan struct{})
			n, last := 0, error(nil)
			if at == 0 {
				close(received)
			}
			for r, err := range l.Read(ctx, stream, domain.NoStream) {
				last = err
				if err != nil {
					break
				}
				if r.ID != want[n].ID {
					t.Errorf("%s behind event %d: event %d is another one", name, at, n)
				}
				if n++; n == at {
					close(received)
				}
			}
			if !errors.Is(last, domain.ErrUnavailable) {
				t.Errorf("%s behind event %d: the reader has %d events of %d and the error %v", name, at, n, events, last)
			}
			if n != at {
				// Otherwise the proxy would wait for received for ever.
				t.Fatalf("%s behind event %d: the reader has %d events", name, at, n)
			}
		}
	}
	at = -1
	expectIDs(t, readWhole(ctx, t, l, stream), want)
}

// The store carries out an append, but its response is lost. If the client sends the
// append again at the same revision, the store does not append the events twice.
func lostResponses(t testing.TB, s store) {
	const appends, each = 4, 2
	var lose atomic.Bool
	var m *proxy
	s, m = s.throughProxy(t, faults{append: func(c *appendCall) (*streamspb.AppendResp, error) {
		response, err := c.forward(c)
		if err == nil && lose.Load() {
			m.cut()
			return nil, errCut
		}
		return response, err
	}})
	ctx, l, stream := s.within(t), s.log(t), newName()
	head := domain.EmptyHead()
	var want []domain.Proposed
	var position domain.Position
	for range appends {
		events := newEvents(each)
		want = append(want, events...)
		lose.Store(true)
		if _, _, err := l.Append(ctx, stream, head, events); !errors.Is(err, domain.ErrOutcomeUnknown) {
			t.Errorf("an append without an response: %v", err)
		}
		lose.Store(false)
		var err error
		if head, position, err = l.Append(ctx, stream, head, events); err != nil {
			t.Fatalf("the same append sent again: %v", err)
		}
	}
	got := readWhole(ctx, t, l, stream)
	expectIDs(t, got, want)
	if last := got[len(got)-1]; last.Position != position || last.Revision != head.Revision {
		t.Errorf("the last event is at %v, revision %d, and was acknowledged at %v, %d", last.Position, last.Revision, position, head.Revision)
	}
}

// follower is a follower of the log that records the events of one stream.
type follower struct {
	stream string
	at     domain.Position
	got    chan *domain.Recorded
	then   func() // called after each event
}

func (f *follower) Position() domain.Position { return f.at }

func (f *follower) Follow(r *domain.Recorded) {
	if !f.at.Before(r.Position) {
		return
	}
	f.at = r.Position
	if r.Stream == f.stream {
		f.got <- r
		f.then()
	}
}

func (f *follower) Passed(domain.Position) {}

func (f *follower) CaughtUp() {}

// A subscription that is dropped after every event resumes by itself, after the last
// event.
func droppedSubscriptions(t testing.TB, s store) {
	const events = 8
	stream := newName()
	// Each subscription delivers one event of the stream and is then dropped.
	s, m := s.throughProxy(t, faults{read: func(*streamspb.ReadReq) sieve {
		sent := false
		return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
			if sent {
				return errCut
			}
			sent = string(m.GetEvent().GetEvent().GetStreamIdentifier().GetStreamName()) == stream
			return send(m)
		}
	}})
	ctx, l := s.within(t), s.log(t)
	start, err := l.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := newEvents(events)
	head, _, err := l.Append(ctx, stream, domain.EmptyHead(), want[:events/2])
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{stream: stream, at: start, got: make(chan *domain.Recorded, 10*events), then: m.cut}
	tail := eventstore.NewTail(l, []domain.Kind{domain.KindQueue}, start, zerolog.Nop(), f)
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { tail.Run(ctx) })
	defer running.Wait()
	defer cancel()
	for i, e := range want {
		if i >= events/2 {
			// The connection may be cut during an append as well. The append is repeated
			// until it is acknowledged.
			for {
				after, _, err := l.Append(ctx, stream, head, want[i:i+1])
				if err == nil {
					head = after
					break
				}
				if ctx.Err() != nil || errors.Is(err, domain.ErrWrongRevision) {
					t.Fatalf("append: %v", err)
				}
			}
		}
		select {
		case r := <-f.got:
			if r.ID != e.ID {
				t.Fatalf("revision %d came when it was %d's turn", r.Revision, i)
			}
		case <-ctx.Done():
			t.Fatalf("%d events of %d came", i, events)
		}
	}
	if len(f.got) > 0 {
		t.Errorf("%d events came twice", len(f.got))
	}
}

// A subscriber that does not receive delays no other client, and gets every event in the
// end.
func slowSubscribers(t testing.TB, s store) {
	const events, size = 20, 256 << 10
	ctx, l, stream := s.within(t), s.log(t), newName()
	start, err := l.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := s.client(t)
	standing, err := c.SubscribeToAll(ctx, from(start, stream))
	if err != nil {
		t.Fatal(err)
	}
	defer standing.Close()
	moving, err := c.SubscribeToAll(ctx, from(start, stream))
	if err != nil {
		t.Fatal(err)
	}
	defer moving.Close()
	moved := make(chan error, 1)
	go func() { moved <- receiveAll(moving, events) }()
	head := domain.EmptyHead()
	for range events {
		e := newEvent("large")
		e.Data = slices.Concat([]byte{'"'}, bytes.Repeat([]byte{'x'}, size), []byte{'"'})
		if head, _, err = l.Append(ctx, stream, head, []domain.Proposed{e}); err != nil {
			t.Fatalf("an append beside a subscriber that stands still: %v", err)
		}
	}
	if err := <-moved; err != nil {
		t.Fatalf("a subscriber beside one that stands still: %v", err)
	}
	if err := receiveAll(standing, events); err != nil {
		t.Errorf("a subscriber that stood still: %v", err)
	}
}

// from returns the options of a subscription to streams whose names begin with a prefix.
func from(start domain.Position, prefix string) esdb.SubscribeToAllOptions {
	options := esdb.SubscribeToAllOptions{
		From: esdb.Start{}, MaxSearchWindow: 8, CheckpointInterval: 1,
		Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{prefix}},
	}
	if start != (domain.Position{}) {
		options.From = esdb.Position{Commit: start.Commit, Prepare: start.Prepare}
	}
	return options
}

// receiveAll receives the first n events of a stream.
func receiveAll(from *esdb.Subscription, n int) error {
	for next := uint64(0); next < uint64(n); {
		e := from.Recv()
		if e.SubscriptionDropped != nil {
			return fmt.Errorf("dropped behind %d events of %d: %w", next, n, e.SubscriptionDropped.Error)
		}
		if e.EventAppeared == nil {
			continue
		}
		if r := e.EventAppeared.OriginalEvent().EventNumber; r != next {
			return fmt.Errorf("revision %d came when it was %d's turn", r, next)
		}
		next++
	}
	return nil
}

// An append of 1 MiB is written, a larger one is refused, and a stream of many large
// events can be read in full.
func largeEvents(t testing.TB, s store) {
	const size = 500 << 10
	many := 8
	if s.small {
		many = 2
	}
	// Stores differ a little in what they count besides an event's data.
	const limit, overhead = 1 << 20, 1 << 10
	ctx, l, stream := s.within(t), s.log(t), newName()
	large := func(n int, fill byte) domain.Proposed {
		e := newEvent("")
		e.Data = slices.Concat([]byte{'"'}, bytes.Repeat([]byte{fill}, n-2), []byte{'"'})
		return e
	}
	head, _, err := l.Append(ctx, stream, domain.EmptyHead(), []domain.Proposed{large(limit-overhead, 'x')})
	if err != nil {
		t.Fatalf("an append that is as large as may be: %v", err)
	}
	for name, events := range map[string][]domain.Proposed{
		"one event":   {large(limit+1, 'y')},
		"many events": {large(limit/2, 'y'), large(limit/2, 'y'), large(limit/2, 'y')},
	} {
		_, _, err := l.Append(ctx, stream, head, events)
		if err == nil || errors.Is(err, domain.ErrWrongRevision) {
			t.Errorf("an append of %s beyond 1 MiB: %v", name, err)
		}
		if got := readWhole(ctx, t, l, stream); len(got) != 1 {
			t.Fatalf("an append of %s beyond 1 MiB was refused, and %d events were written", name, len(got)-1)
		}
	}
	want := []domain.Proposed{large(limit-overhead, 'x')}
	for i := range many {
		e := large(size, byte('a'+i))
		want = append(want, e)
		if head, _, err = l.Append(ctx, stream, head, []domain.Proposed{e}); err != nil {
			t.Fatal(err)
		}
	}
	got := readWhole(ctx, t, l, stream)
	if len(got) != len(want) {
		t.Fatalf("the stream holds %d events of %d", len(got), len(want))
	}
	for i, r := range got {
		if !bytes.Equal(r.Data, want[i].Data) {
			t.Errorf("revision %d comes back with %d bytes of %d, or others", i, len(r.Data), len(want[i].Data))
		}
	}
}

// Lotline deletes no streams. If somebody else deletes a stream, Lotline must notice that
// the stream is damaged.
func deletes(t testing.TB, s store) {
	ctx, l, c, stream := s.within(t), s.log(t), s.client(t), newName()
	events := newEvents(3)
	head, _, err := l.Append(ctx, stream, domain.EmptyHead(), events[:2])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DeleteStream(ctx, stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(1)}); err != nil {
		t.Fatal(err)
	}
	if got := readWhole(ctx, t, l, stream); len(got) != 0 {
		t.Errorf("a deleted stream shows %d events", len(got))
	}
	// The store accepts an append that expects no stream, and continues the revisions of
	// the deleted stream. Log notices that and returns an error.
	if _, _, err := l.Append(ctx, stream, domain.EmptyHead(), events[2:]); err == nil {
		t.Error("a deleted stream was begun anew")
	}
	var first error
	for r, err := range l.Read(ctx, stream, domain.NoStream) {
		if err != nil {
			t.Fatal(err)
		}
		if r.Revision != head.Revision+1 {
			t.Errorf("the stream goes on at revision %d", r.Revision)
		}
		first = domain.NewHistory(stream).Apply(r)
		break
	}
	if e, ok := errors.AsType[*domain.HistoryError](first); !ok || e.Rule != "revisions have no gaps" {
		t.Errorf("a stream without its beginning: %v", first)
	}
	if _, err := c.TombstoneStream(ctx, stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}}); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range l.Read(ctx, stream, domain.NoStream) {
		n++
		if _, ok := errors.AsType[*domain.HistoryError](err); !ok {
			t.Errorf("a read of a tombstoned stream: %v", err)
		}
	}
	if n == 0 {
		t.Error("a tombstoned stream is read as one that was never there")
	}
	_, _, err = l.Append(ctx, stream, domain.EmptyHead(), newEvents(1))
	if _, ok := errors.AsType[*domain.HistoryError](err); !ok {
		t.Errorf("an append to a tombstoned stream: %v", err)
	}
}

// A repeated append is recognised by its events' ids at its original revision, and only
// there.
func repeatedAppends(t testing.TB, s store) {
	ctx, c, stream := s.within(t), s.client(t), newName()
	events := forClient(newEvents(3))
	other := forClient(newEvents(1))
	changed := slices.Clone(events)
	for i := range changed {
		changed[i].Data = []byte(`"other"`)
	}
	var first *esdb.WriteResult
	for _, step := range []struct {
		name     string
		expected esdb.ExpectedRevision
		events   []esdb.EventData
		same     bool // recognised as the first append
		refused  bool
		holds    int
	}{
		{name: "the first time", expected: esdb.NoStream{}, events: events, holds: 3},
		{name: "again", expected: esdb.NoStream{}, events: events, same: true, holds: 3},
		{name: "again with other bytes", expected: esdb.NoStream{}, events: changed, same: true, holds: 3},
		{name: "the first two again", expected: esdb.NoStream{}, events: events[:2], holds: 3},
		{name: "the last two again, at their revision", expected: esdb.Revision(0), events: events[1:], holds: 3},
		{name: "another in front", expected: esdb.NoStream{}, events: slices.Concat(other, events[1:]), refused: true, holds: 3},
		{name: "another behind", expected: esdb.NoStream{}, events: slices.Concat(events[:1], other), refused: true, holds: 3},
		{name: "one more behind", expected: esdb.NoStream{}, events: slices.Concat(events, other), refused: true, holds: 3},
		{name: "in another order", expected: esdb.NoStream{}, events: []esdb.EventData{events[1], events[0], events[2]}, refused: true, holds: 3},
		{name: "at a revision in between", expected: esdb.Revision(1), events: events[:1], refused: true, holds: 3},
		{name: "at the stream's end", expected: esdb.Revision(2), events: events, holds: 6},
		{name: "again at what was the end", expected: esdb.Revision(2), events: events, holds: 6},
	} {
		result, err := c.AppendToStream(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: step.expected}, step.events...)
		e, ok := errors.AsType[*esdb.Error](err)
		switch {
		case step.refused && (!ok || e.Code() != esdb.ErrorCodeWrongExpectedVersion):
			t.Errorf("%s: not refused: %v", step.name, err)
		case !step.refused && err != nil:
			t.Errorf("%s: refused: %v", step.name, err)
		case step.same && *result != *first:
			t.Errorf("%s: answered with %v, and the first time with %v", step.name, *result, *first)
		}
		if first == nil {
			if first = result; err != nil {
				return
			}
		}
		if n := countEvents(ctx, c, stream); n != step.holds {
			t.Errorf("%s: the stream holds %d events then, not %d", step.name, n, step.holds)
		}
	}
}

// appended is an append from the view of its writer.
type appended struct {
	begun, ended int64 // times of one clock for all writers
	position     domain.Position
	event        domain.Proposed // the last event of the append
	events       int
}

// reader is a subscription to the log and what it received.
type reader struct {
	*esdb.Subscription

	mu          sync.Mutex // guards the fields below
	events      []*esdb.RecordedEvent
	checkpoints []checkpoint
}

type checkpoint struct {
	position esdb.Position
	behind   int // number of events received before it
}

func (r *reader) run() {
	for {
		e := r.Recv()
		r.mu.Lock()
		switch {
		case e.EventAppeared != nil:
			r.events = append(r.events, e.EventAppeared.OriginalEvent())
		case e.CheckPointReached != nil:
			r.checkpoints = append(r.checkpoints, checkpoint{*e.CheckPointReached, len(r.events)})
		}
		r.mu.Unlock()
		if e.SubscriptionDropped != nil {
			return
		}
	}
}

func (r *reader) has(id uuid.UUID) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.events, func(e *esdb.RecordedEvent) bool { return e.EventID == id })
}

func positionOf(e *esdb.RecordedEvent) domain.Position {
	return domain.Position{Commit: e.Position.Commit, Prepare: e.Position.Prepare}
}

// The log has one order. Every client sees the same order, with every event once. If one
// append ended before another one began, its events come first.
func orderOfTheLog(t testing.TB, s store) {
	writers, streams, rounds := 16, 100, 3
	if s.small {
		streams = 32
	}
	ctx, l, c, prefix := s.within(t), s.log(t), s.client(t), newName()
	start, err := l.Head(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	subscribe := func(at domain.Position) *reader {
		subscription, err := c.SubscribeToAll(ctx, from(at, prefix))
		if err != nil {
			t.Fatal(err)
		}
		r := &reader{Subscription: subscription}
		running.Go(r.run)
		return r
	}
	var clock atomic.Int64
	var mu sync.Mutex
	var all []appended
	half := make(chan struct{})
	var writing sync.WaitGroup
	early := subscribe(start)
	for w := range writers {
		writing.Go(func() {
			heads := map[int]domain.Head{}
			for round := range rounds {
				for n := w; n < streams; n += writers {
					head, known := heads[n]
					if !known {
						head = domain.EmptyHead()
					}
					a := appended{begun: clock.Add(1), events: 1 + round%2}
					events := newEvents(a.events)
					after, position, err := l.Append(ctx, fmt.Sprintf("%s-%d", prefix, n), head, events)
					if err != nil {
						t.Errorf("append: %v", err)
						return
					}
					a.ended, a.position, a.event = clock.Add(1), position, events[len(events)-1]
					heads[n] = after
					mu.Lock()
					if all = append(all, a); len(all) == streams*rounds/2 {
						close(half)
					}
					mu.Unlock()
				}
			}
		})
	}
	select {
	case <-half:
	case <-ctx.Done():
		t.Errorf("the appends do not come to an end")
	}
	mu.Lock()
	middle := all[len(all)/2].position
	mu.Unlock()
	readers := map[string]*reader{"from the start": early, "from the start, later": subscribe(start), "from the middle": subscribe(middle)}
	starts := map[string]domain.Position{"from the start": start, "from the start, later": start, "from the middle": middle}
	writing.Wait()
	defer running.Wait()
	defer func() {
		for _, r := range readers {
			_ = r.Close()
		}
	}()
	if t.Failed() {
		return
	}

	whole := readLog(ctx, t, c, start, prefix)
	where := map[uuid.UUID]domain.Position{}
	last, revisions, total := start, map[string]uint64{}, 0
	for _, e := range whole {
		if !last.Before(positionOf(e)) {
			t.Errorf("position %v follows %v", positionOf(e), last)
		}
		if e.EventNumber != revisions[e.StreamID] {
			t.Errorf("revision %d of %s came when it was %d's turn", e.EventNumber, e.StreamID, revisions[e.StreamID])
		}
		last, where[e.EventID] = positionOf(e), positionOf(e)
		revisions[e.StreamID]++
	}
	slices.SortFunc(all, func(a, b appended) int { return int(a.begun - b.begun) })
	byEnd := slices.SortedFunc(slices.Values(all), func(a, b appended) int { return int(a.ended - b.ended) })
	var over domain.Position // the highest position of the appends that ended before a began
	for _, a := range all {
		total += a.events
		for len(byEnd) > 0 && byEnd[0].ended < a.begun {
			if p := where[byEnd[0].event.ID]; over.Before(p) {
				over = p
			}
			byEnd = byEnd[1:]
		}
		p, there := where[a.event.ID]
		switch {
		case !there:
			t.Errorf("an acknowledged event is not in the log")
		case p != a.position:
			t.Errorf("an event is at %v and was acknowledged at %v", p, a.position)
		}
		if there && p.Before(over) {
			t.Errorf("an event was acknowledged before another was begun, and comes behind it")
		}
	}
	if len(whole) != total {
		t.Errorf("the log holds %d events of %d", len(whole), total)
	}
	for name, r := range readers {
		for !r.has(whole[len(whole)-1].EventID) {
			select {
			case <-ctx.Done():
				t.Errorf("%s: the last event did not come", name)
				return
			case <-time.After(time.Millisecond):
			}
		}
		_ = r.Close()
	}
	running.Wait()
	for name, r := range readers {
		want := slices.DeleteFunc(slices.Clone(whole), func(e *esdb.RecordedEvent) bool { return !starts[name].Before(positionOf(e)) })
		for i, e := range r.events {
			if i == len(want) || e.EventID != want[i].EventID || e.EventNumber != want[i].EventNumber || e.Position != want[i].Position {
				t.Errorf("%s: event %d, %s@%d, is not what a read of the log has there", name, i, e.StreamID, e.EventNumber)
				break
			}
		}
		if len(r.events) < len(want) {
			t.Errorf("%s: %d events came of %d", name, len(r.events), len(want))
		}
		if len(r.checkpoints) == 0 && name != "from the middle" {
			t.Errorf("%s: there was no checkpoint", name)
		}
		for _, p := range r.checkpoints {
			at := domain.Position{Commit: p.position.Commit, Prepare: p.position.Prepare}
			if p.behind < len(want) && !at.Before(positionOf(want[p.behind])) {
				t.Errorf("%s: checkpoint %v came before the event at %v", name, at, positionOf(want[p.behind]))
			}
		}
	}
}

// readLog reads the log from a position to its end, and returns the events of streams
// whose names begin with a prefix.
func readLog(ctx context.Context, t testing.TB, c *esdb.Client, start domain.Position, prefix string) []*esdb.RecordedEvent {
	t.Helper()
	options := esdb.ReadAllOptions{Direction: esdb.Forwards, From: esdb.Start{}}
	if start != (domain.Position{}) {
		options.From = esdb.Position{Commit: start.Commit, Prepare: start.Prepare}
	}
	read, err := c.ReadAll(ctx, options, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var out []*esdb.RecordedEvent
	for {
		e, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("read the log: %v", err)
		}
		if r := e.OriginalEvent(); strings.HasPrefix(r.StreamID, prefix) && start.Before(positionOf(r)) {
			out = append(out, r)
		}
	}
}

// Every read that begins after an append was acknowledged sees its events, on any
// connection.
func readingWhatWasAppended(t testing.TB, s store) {
	streams, each := 4, 16
	if s.small {
		each = 4
	}
	ctx, writer, other := s.within(t), s.log(t), s.log(t)
	var all sync.WaitGroup
	for range streams {
		stream := newName()
		all.Go(func() {
			head := domain.EmptyHead()
			for n := range each {
				after, position, err := writer.Append(ctx, stream, head, newEvents(1))
				if err != nil {
					t.Errorf("append: %v", err)
					return
				}
				for name, l := range map[string]*eventstore.Log{"who wrote it": writer, "somebody else": other} {
					got := 0
					for r, err := range l.Read(ctx, stream, head.Revision) {
						if err != nil || r.Revision != after.Revision || r.Position != position {
							t.Errorf("%s reads %v, %v", name, r, err)
							return
						}
						got++
					}
					if got != 1 {
						t.Errorf("%s does not see event %d, which was acknowledged", name, n)
						return
					}
					if end, err := l.Head(ctx); err != nil || end.Before(position) {
						t.Errorf("%s sees the log end at %v, %v, before %v, which was acknowledged", name, end, err, position)
					}
				}
				head = after
			}
		})
	}
	all.Wait()
}

// Data, metadata, type and id come back byte for byte: the hashes are computed from them.
func bytesThatWereAppended(t testing.TB, s store) {
	ctx, c, stream := s.within(t), s.client(t), newName()
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	events := []esdb.EventData{
		{Data: []byte(`{"b":1, "a" : [ 1.0,1e2 ],"é":"\u00e9"}`), Metadata: []byte("{ \"a\" :\t1,\n\"a\":2}"), ContentType: esdb.ContentTypeJson},
		{Data: []byte(`{}`), ContentType: esdb.ContentTypeJson},
		{Data: every, Metadata: every, ContentType: esdb.ContentTypeBinary},
		{Data: []byte("\xff\x00"), Metadata: []byte("\x00"), ContentType: esdb.ContentTypeBinary},
		{ContentType: esdb.ContentTypeBinary},
	}
	for i := range events {
		events[i].EventID, events[i].EventType = uuid.New(), fmt.Sprintf("storetest.%d.é", i)
	}
	if _, err := c.AppendToStream(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, events...); err != nil {
		t.Fatal(err)
	}
	read, err := c.ReadStream(ctx, stream, esdb.ReadStreamOptions{Direction: esdb.Forwards, From: esdb.Start{}}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	for i, want := range events {
		e, err := read.Recv()
		if err != nil {
			t.Fatal(err)
		}
		got := e.OriginalEvent()
		if got.EventID != want.EventID || got.EventType != want.EventType || got.StreamID != stream {
			t.Errorf("event %d is %s %s of %s", i, got.EventID, got.EventType, got.StreamID)
		}
		if !bytes.Equal(got.Data, want.Data) {
			t.Errorf("event %d has the data %q, not %q", i, got.Data, want.Data)
		}
		if !bytes.Equal(got.UserMetadata, want.Metadata) {
			t.Errorf("event %d has the metadata %q, not %q", i, got.UserMetadata, want.Metadata)
		}
		if json := want.ContentType == esdb.ContentTypeJson; json != (got.ContentType == "application/json") {
			t.Errorf("event %d is %s", i, got.ContentType)
		}
	}
}
