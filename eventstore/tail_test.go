package eventstore

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// collector is a follower that a test can wait for.
type collector struct {
	from domain.Position
	got  chan *domain.Recorded
}

func newCollector(from domain.Position) *collector {
	return &collector{from, make(chan *domain.Recorded, 10_000)}
}

func (c *collector) Position() domain.Position { return c.from }

func (c *collector) Follow(r *domain.Recorded) {
	if c.from.Before(r.Position) {
		c.from = r.Position
		c.got <- r
	}
}

func (c *collector) Passed(domain.Position) {}

func (c *collector) CaughtUp() {}

func (c *collector) take(t *testing.T, n int) []string {
	t.Helper()
	var out []string
	for range n {
		select {
		case r := <-c.got:
			out = append(out, r.Stream+" "+r.Type)
		case <-t.Context().Done():
			t.Fatalf("only %v came", out)
		}
	}
	return out
}

// follow starts a tail and stops it when the test ends.
func follow(t *testing.T, l *Log, followers ...Follower) *Tail {
	t.Helper()
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	tail := NewTail(l, append(domain.Kinds(), domain.KindOrganization), head, zerolog.Nop(), followers...)
	run(t, tail)
	return tail
}

func run(t *testing.T, tail *Tail) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { tail.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func appendTo(t *testing.T, l *Log, stream string, head domain.Head, events ...domain.Event) (domain.Head, domain.Position) {
	t.Helper()
	head, position, err := l.Append(t.Context(), stream, head, encode(t, l, stream, events...))
	if err != nil {
		t.Fatal(err)
	}
	return head, position
}

const otherStream = "queue-01h455vb4pex5vsknk084sn02z"

func TestTail_deliversExistingEventsAndThenNewOnes(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	head, position := appendTo(t, l, stream, domain.EmptyHead(), queueCreated())
	appendTo(t, l, otherStream, domain.EmptyHead(), queueCreated())
	// Streams that are neither distributions nor organizations are not followed.
	appendTo(t, l, domain.ClaimStream("x"), domain.EmptyHead(), domain.Claimed{ID: "queue_1"})
	all, later := newCollector(domain.Position{}), newCollector(position)
	tail := follow(t, l, all, later)
	<-tail.CaughtUp()
	<-tail.Live()
	if !tail.Connected() {
		t.Error("live, but not connected")
	}
	appendTo(t, l, stream, head, deleted())
	want := []string{stream + " queue.created", otherStream + " queue.created", stream + " queue.deleted"}
	if got := all.take(t, 3); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := later.take(t, 2); !slices.Equal(got, want[1:]) {
		t.Errorf("from the first event's position: got %v", got)
	}
}

func at(n uint64) domain.Position { return domain.Position{Commit: n, Prepare: n} }

func recordedAt(n uint64) *domain.Recorded {
	return &domain.Recorded{Position: at(n), RecordedAt: time.Unix(int64(n), 0)}
}

func allReachedHead(t *Tail) bool {
	select {
	case <-t.CaughtUp():
		return true
	default:
		return false
	}
}

func TestTail_hasCaughtUpByPositionToo(t *testing.T) {
	t.Parallel()
	for name, step := range map[string]func(subscriber, uint64){
		"an event":     func(s subscriber, n uint64) { s.event(recordedAt(n)) },
		"a checkpoint": func(s subscriber, n uint64) { s.passed(at(n)) },
	} {
		tail := NewTail(nil, nil, at(7), zerolog.Nop(), newCollector(at(0)), newCollector(at(7)), newCollector(at(3)))
		for _, c := range tail.catchUps {
			if allReachedHead(tail) {
				t.Errorf("%s: caught up, though one follower is behind", name)
			}
			_, c.stop = context.WithCancel(t.Context())
			step(c, 6)
			if allReachedHead(tail) {
				t.Errorf("%s before the head", name)
			}
			step(c, 7)
			step(c, 8)
		}
		if !allReachedHead(tail) || tail.Connected() {
			t.Errorf("%s at the head: caught up %t, connected %t", name, allReachedHead(tail), tail.Connected())
		}
		step(tail, 6)
		if tail.Connected() {
			t.Errorf("%s: connected before the head", name)
		}
		step(tail, 7)
		if !tail.Connected() {
			t.Errorf("%s: not connected at the head", name)
		}
	}
	if tail := NewTail(nil, nil, at(0), zerolog.Nop(), newCollector(at(0))); !allReachedHead(tail) {
		t.Error("an empty log: not caught up")
	}
}

// Followers may have caught up before the live subscription has. A start that did not
// wait for the live subscription would log that it is ready while /readyz denies it.
func TestTail_isLiveOnceItsOwnSubscriptionIsAtTheEnd(t *testing.T) {
	t.Parallel()
	isLive := func(tail *Tail) bool {
		select {
		case <-tail.Live():
			return true
		default:
			return false
		}
	}
	for name, comes := range map[string]func(*Tail){
		"the server says so": (*Tail).caughtUp,
		"by position":        func(tail *Tail) { tail.passed(at(9)) },
	} {
		tail := NewTail(nil, nil, at(9), zerolog.Nop(), newCollector(at(1)))
		tail.reachedHead()
		if !allReachedHead(tail) || isLive(tail) || tail.Connected() {
			t.Errorf("%s: before it comes: caught up %t, live %t, connected %t", name, allReachedHead(tail), isLive(tail), tail.Connected())
		}
		comes(tail)
		if !isLive(tail) || !tail.Connected() {
			t.Errorf("%s: live %t, connected %t", name, isLive(tail), tail.Connected())
		}
		tail.dropped()
		comes(tail)
		if !isLive(tail) || !tail.Connected() {
			t.Errorf("%s, after a drop: live %t, connected %t", name, isLive(tail), tail.Connected())
		}
	}
}

// A follower moves to the live subscription at the same position, so that it neither
// misses an event nor gets one from both subscriptions.
func TestTail_handsOverWithoutGapOrRepeat(t *testing.T) {
	t.Parallel()
	behind, live := &recorder{from: at(0)}, &recorder{from: at(4)}
	tail := NewTail(nil, nil, at(4), zerolog.Nop(), behind, live)
	c := tail.catchUps[0]
	stopped := false
	c.stop = func() { stopped = true }
	tail.event(recordedAt(6)) // the live subscription is ahead
	for n := uint64(1); n <= 5; n++ {
		c.event(recordedAt(n))
	}
	c.caughtUp()
	if !allReachedHead(tail) || stopped {
		t.Errorf("caught up %t, handed over %t, though event 6 is missing", allReachedHead(tail), stopped)
	}
	if c.resumeFrom() != at(5) {
		t.Errorf("after a drop it would go on behind %v", c.resumeFrom())
	}
	c.event(recordedAt(6))
	if !stopped {
		t.Error("not handed over at the same place")
	}
	c.event(recordedAt(7)) // was already received
	c.passed(at(8))
	c.caughtUp()
	tail.caughtUp()
	tail.event(recordedAt(7))
	tail.passed(at(8))
	tail.event(recordedAt(9))
	if want := []uint64{1, 2, 3, 4, 5, 6, 7, 9}; !slices.Equal(behind.followed, want) || !slices.Equal(behind.seen, []uint64{8}) {
		t.Errorf("the follower that was behind got %v and was told %v as passed", behind.followed, behind.seen)
	}
	if !slices.Equal(behind.ends, []int{5, 6}) || !slices.Equal(live.ends, []int{1}) {
		t.Errorf("caught up after %v and %v events", behind.ends, live.ends)
	}
	if want := []uint64{6, 7, 9}; !slices.Equal(live.followed, want) {
		t.Errorf("the live follower got %v", live.followed)
	}
}

// recorder is a follower that records all its calls.
type recorder struct {
	from           domain.Position
	followed, seen []uint64
	ends           []int // the number of events before each CaughtUp
}

func (f *recorder) Position() domain.Position { return f.from }
func (f *recorder) CaughtUp()                 { f.ends = append(f.ends, len(f.followed)) }
func (f *recorder) Follow(r *domain.Recorded) { f.followed = append(f.followed, r.Position.Commit) }
func (f *recorder) Passed(p domain.Position)  { f.seen = append(f.seen, p.Commit) }

func TestTail_progressIsThatOfTheFollowerFurthestBehind(t *testing.T) {
	t.Parallel()
	tail := NewTail(nil, nil, at(1000), zerolog.Nop(), newCollector(at(0)), newCollector(at(500)))
	if p := tail.Progress(); p != (Progress{}) {
		t.Errorf("at the start: %+v", p)
	}
	last, ahead := tail.catchUps[0], tail.catchUps[1]
	last.event(recordedAt(20))
	if p := tail.Progress(); p != (Progress{}) {
		t.Errorf("before the other's first event: %+v", p)
	}
	ahead.event(recordedAt(900))
	slices.Reverse(tail.catchUps)
	if p := tail.Progress(); p.Share != 0.02 {
		t.Errorf("the first of them decides: %+v", p)
	}
	first := Progress{1, time.Unix(20, 0), 0.02}
	for n := uint64(21); n < 20+progressEvery; n++ {
		if p := tail.Progress(); p != first {
			t.Fatalf("at %d: got %+v, want %+v", n, p, first)
		}
		last.event(recordedAt(n))
	}
	last.event(recordedAt(500))
	if p, want := tail.Progress(), (Progress{1 + progressEvery, time.Unix(500, 0), 0.5}); p != want {
		t.Errorf("got %+v, want %+v", p, want)
	}
	if p := NewTail(nil, nil, at(7), zerolog.Nop(), newCollector(at(7))).Progress(); p.Share != 1 {
		t.Errorf("without a follower that is behind: %+v", p)
	}
}

// While one follower catches up slowly, the others get new events, and it catches up
// although the log keeps growing.
func TestTail_catchesUpBesideTheLiveSubscription(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	head := domain.EmptyHead()
	var position domain.Position
	grow := func(n int) {
		for range n {
			head, position = appendTo(t, l, stream, head, queueCreated(), deleted())
		}
	}
	grow(50)
	slow := &gate{newCollector(domain.Position{}), make(chan struct{})}
	live := newCollector(position)
	tail := NewTail(l, domain.Kinds(), position, zerolog.Nop(), slow, live)
	run(t, tail)
	grow(50)
	live.take(t, 100)
	if allReachedHead(tail) {
		t.Error("the slow follower has caught up")
	}
	close(slow.open)
	grow(50)
	live.take(t, 100)
	<-tail.CaughtUp()
	if got := len(slow.take(t, 300)); got != 300 {
		t.Errorf("%d events", got)
	}
	// In the end there is only one subscription.
	for handedOver := false; !handedOver; {
		grow(1)
		slow.take(t, 2)
		tail.mu.Lock()
		handedOver = len(tail.followers) == 2
		tail.mu.Unlock()
	}
	grow(1)
	slow.take(t, 2)
}

// gate is a follower that blocks until it is opened.
type gate struct {
	*collector
	open chan struct{}
}

func (g *gate) Follow(r *domain.Recorded) {
	<-g.open
	g.collector.Follow(r)
}

func TestTail_goesOnWhereItWasAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	l := s.log(testKeyring(t, 1))
	c := newCollector(domain.Position{})
	tail := follow(t, l, c)
	<-tail.CaughtUp()
	var want []string
	head := domain.EmptyHead()
	for range 4 {
		head, _ = appendTo(t, l, stream, head, queueCreated(), deleted())
		want = append(want, stream+" queue.created", stream+" queue.deleted")
		if got := c.take(t, 2); !slices.Equal(got, want[len(want)-2:]) {
			t.Fatalf("got %v", got)
		}
		s.stop()
		s.start()
	}
}

// named is a follower that appends its name to a list at each event.
type named struct {
	*collector
	name  string
	order *[]string
}

func (n named) Follow(r *domain.Recorded) {
	*n.order = append(*n.order, n.name)
	n.collector.Follow(r)
}

// A follower that was behind at the start gets its old place in the order: other
// followers may rely on it to have an event before they do.
func TestTail_handsEventsToItsFollowersInTheirOrder(t *testing.T) {
	t.Parallel()
	var order []string
	follower := func(name string, at domain.Position) Follower { return named{newCollector(at), name, &order} }
	tail := NewTail(nil, nil, at(4), zerolog.Nop(), follower("a", at(2)), follower("b", at(4)), follower("c", at(1)), follower("d", at(4)))
	for _, c := range []int{1, 0} {
		catchUp := tail.catchUps[c]
		catchUp.stop = func() {}
		catchUp.caughtUp()
		catchUp.passed(at(4))
	}
	tail.event(recordedAt(5))
	if got := strings.Join(order, ""); got != "abcd" {
		t.Errorf("handed to %s", got)
	}
}
