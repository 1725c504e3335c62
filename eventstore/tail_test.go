package eventstore

import (
	"context"
	"slices"
	"sync"
	"testing"

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

// follow runs a tail until the test ends.
func follow(t *testing.T, l *Log, followers ...Follower) *Tail {
	t.Helper()
	tail := NewTail(l, append(domain.Kinds(), domain.KindOrganization), domain.Position{}, zerolog.Nop(), followers...)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { tail.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return tail
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

func TestTail_deliversWhatIsThereAndThenWhatComes(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	head, position := appendTo(t, l, stream, domain.EmptyHead(), queueCreated())
	appendTo(t, l, otherStream, domain.EmptyHead(), queueCreated())
	// What is neither a distribution nor an organization is not followed.
	appendTo(t, l, domain.ClaimStream("x"), domain.EmptyHead(), domain.Claimed{ID: "queue_1"})
	all, later := newCollector(domain.Position{}), newCollector(position)
	tail := follow(t, l, all, later)
	<-tail.CaughtUp()
	if !tail.Connected() {
		t.Error("caught up and not connected")
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

func TestTail_hasCaughtUpByPositionToo(t *testing.T) {
	t.Parallel()
	at := func(n uint64) domain.Position { return domain.Position{Commit: n, Prepare: n} }
	for name, step := range map[string]func(*Tail, uint64){
		"an event":     func(t *Tail, n uint64) { t.event(&domain.Recorded{Position: at(n)}) },
		"a checkpoint": func(t *Tail, n uint64) { t.passed(at(n)) },
	} {
		tail := NewTail(nil, nil, at(7), zerolog.Nop(), newCollector(domain.Position{}))
		step(tail, 6)
		if tail.isLevel {
			t.Errorf("%s before the head", name)
		}
		step(tail, 7)
		if !tail.isLevel || !tail.Connected() {
			t.Errorf("%s at the head", name)
		}
	}
}

func TestTail_goesOnWhereItWasAfterTheServerWasAway(t *testing.T) {
	t.Parallel()
	if !alone(t) {
		return
	}
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
