package eventstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/backoff"
)

// Follower follows the log. Tail calls it from one goroutine at a time, event by event in
// the order of the log. Its methods must return quickly.
type Follower interface {
	// Position is the position of the last event that the follower handled. Tail delivers
	// the events after it.
	Position() domain.Position
	// Follow handles the next event. After a reconnection an event may be delivered
	// again; it is then at or before Position.
	Follow(r *domain.Recorded)
	// Passed says that the log has no further events for this follower up to p. A new
	// subscription must start after Position, not after p.
	Passed(p domain.Position)
	// CaughtUp says that the server reported the end of the log. Servers that report it
	// do so once after each connection.
	CaughtUp()
}

// Tail holds the process's one live subscription to the log. It decodes each event once
// and delivers it to all followers. A follower that is behind at the start has its own
// subscription until it has caught up, so it delays no other follower. A dropped
// subscription is resumed after the last delivered event.
type Tail struct {
	log    *Log
	kinds  []domain.Kind
	head   domain.Position
	logger zerolog.Logger

	connected      atomic.Bool
	live           chan struct{} // closed when the live subscription reaches the end of the log for the first time
	wasLive        sync.Once     // guards the closing of live
	allReachedHead chan struct{} // closed when every follower has reached head
	catchUps       []*catchUp

	mu        sync.Mutex        // held while an event is delivered; guards the fields below
	followers []orderedFollower // of the live subscription, in the order given to NewTail
	behind    int               // number of followers that have not reached head
	reached   domain.Position   // of the last event delivered to the followers above
}

// orderedFollower is a follower with its index in the order given to NewTail.
type orderedFollower struct {
	Follower
	index int
}

// NewTail returns a tail of the streams of some kinds. It delivers nothing until Run.
// head is the present end of the log: the tail has caught up once all followers have
// reached it. Each event goes to the followers of the live subscription in the given
// order.
func NewTail(log *Log, kinds []domain.Kind, head domain.Position, logger zerolog.Logger, followers ...Follower) *Tail {
	t := &Tail{log: log, kinds: kinds, head: head, logger: logger, live: make(chan struct{}), allReachedHead: make(chan struct{}), reached: head}
	for i, f := range followers {
		f := orderedFollower{f, i}
		if at := f.Position(); at.Before(head) {
			t.catchUps = append(t.catchUps, &catchUp{tail: t, follower: f, started: at, reached: at, readUpTo: at})
			t.behind++
		} else {
			t.followers = append(t.followers, f)
		}
	}
	if t.behind == 0 {
		close(t.allReachedHead)
	}
	return t
}

// CaughtUp returns a channel that is closed once every follower has all events up to the
// head that NewTail was given.
func (t *Tail) CaughtUp() <-chan struct{} { return t.allReachedHead }

// Live returns a channel that is closed when the live subscription reaches the end of the
// log for the first time. If the server does not report the end, the channel is closed
// once the subscription has read up to the head that NewTail was given.
func (t *Tail) Live() <-chan struct{} { return t.live }

// Connected reports whether the live subscription is connected and has reached the end of
// the log since it was connected.
func (t *Tail) Connected() bool { return t.connected.Load() }

// Progress describes the catch-up of the follower that is furthest behind.
type Progress struct {
	Events int64     // delivered so far
	UpTo   time.Time // when the last of them was recorded; zero before the first event
	// Share is how much of the follower's backlog was delivered, from 0 to 1. The backlog
	// is what the follower lacked when the tail was made. Share is an estimate from log
	// positions, whose scale depends on the store.
	Share float64
}

// Progress returns the progress of the catch-up.
func (t *Tail) Progress() Progress {
	least := Progress{Share: 1}
	for _, c := range t.catchUps {
		if p := c.progress.Load(); p == nil {
			return Progress{}
		} else if p.Share < least.Share || least.UpTo.IsZero() {
			least = *p
		}
	}
	return least
}

const (
	firstPause   = 100 * time.Millisecond // after a subscription dropped
	longestPause = 5 * time.Second
)

// Run delivers until ctx ends.
func (t *Tail) Run(ctx context.Context) {
	var catchingUp sync.WaitGroup
	for _, c := range t.catchUps {
		catchingUp.Go(func() { c.run(ctx) })
	}
	t.keepSubscribed(ctx, t)
	catchingUp.Wait()
}

// resumable is a subscriber that can continue after a drop.
type resumable interface {
	subscriber
	resumeFrom() domain.Position
	// dropped is called after each drop. It reports whether the subscription had reached
	// the end of the log.
	dropped() (wasLive bool)
}

// keepSubscribed subscribes, and resubscribes after each drop, until ctx ends.
func (t *Tail) keepSubscribed(ctx context.Context, to resumable) {
	pauses := backoff.Backoff{First: firstPause, Limit: longestPause}
	for {
		before := to.resumeFrom()
		err := t.log.subscribe(ctx, before, t.kinds, to)
		wasLive := to.dropped()
		if ctx.Err() != nil {
			return
		}
		if wasLive || to.resumeFrom() != before {
			pauses.Reset()
		}
		pause := pauses.Next()
		t.logger.Warn().Err(err).Dur("again_in", pause).Msg("the log is not followed")
		if !backoff.Sleep(ctx, pause) {
			return
		}
	}
}

func (t *Tail) resumeFrom() domain.Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reached
}

func (t *Tail) dropped() (wasLive bool) { return t.connected.Swap(false) }

func (t *Tail) event(r *domain.Recorded) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.followers {
		f.Follow(r)
	}
	t.reached = r.Position
	t.advanced(r.Position)
}

func (t *Tail) passed(p domain.Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.followers {
		f.Passed(p)
	}
	t.advanced(p)
}

// advanced compares p with head to find out whether the subscription is at the end of the
// log: older servers do not report that.
func (t *Tail) advanced(p domain.Position) {
	if !p.Before(t.head) {
		t.markConnected()
	}
}

func (t *Tail) caughtUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.followers {
		f.CaughtUp()
	}
	t.markConnected()
}

func (t *Tail) markConnected() {
	t.connected.Store(true)
	t.wasLive.Do(func() { close(t.live) })
}

// join moves f to the live subscription, unless that has delivered events that f lacks. f
// has all events up to p. join reports whether it moved f.
func (t *Tail) join(f orderedFollower, p domain.Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.Before(t.reached) {
		return false
	}
	t.followers = append(t.followers, f)
	slices.SortFunc(t.followers, func(a, b orderedFollower) int { return a.index - b.index })
	return true
}

// reachedHead counts one more follower that has all events up to head.
func (t *Tail) reachedHead() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.behind--; t.behind == 0 {
		close(t.allReachedHead)
	}
}

// catchUp is the subscription of a follower that is behind. Its methods are for one
// goroutine.
type catchUp struct {
	tail        *Tail
	follower    orderedFollower
	started     domain.Position // where the follower was when the tail was made
	reached     domain.Position // of the last event delivered
	readUpTo    domain.Position // up to here the follower has all events
	reachedHead bool            // the follower has all events up to the tail's head
	toldEnd     bool            // the follower was told that the log ends
	joined      bool            // the follower has moved to the live subscription
	stop        context.CancelFunc
	events      int64
	progress    atomic.Pointer[Progress] // nil before the first event
}

// run returns when the follower has moved to the live subscription, or when ctx ends.
func (c *catchUp) run(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	defer c.stop()
	c.tail.keepSubscribed(ctx, c)
}

func (c *catchUp) resumeFrom() domain.Position { return c.reached }
func (c *catchUp) dropped() (wasLive bool)     { return c.reachedHead }

func (c *catchUp) event(r *domain.Recorded) {
	if c.joined {
		return
	}
	c.follower.Follow(r)
	c.reached = r.Position
	c.events++
	if c.events%progressEvery == 1 {
		c.progress.Store(&Progress{c.events, r.RecordedAt, share(r.Position, c.started, c.tail.head)})
	}
	c.advanced(r.Position)
}

// progressEvery is the number of events between updates of the progress.
const progressEvery = 256

// share returns the part of the way between two positions that lies before at.
func share(at, from, to domain.Position) float64 {
	if !at.Before(to) {
		return 1
	}
	return float64(at.Commit-from.Commit) / float64(to.Commit-from.Commit)
}

func (c *catchUp) passed(p domain.Position) {
	if c.joined {
		return
	}
	c.follower.Passed(p)
	c.advanced(p)
}

func (c *catchUp) advanced(p domain.Position) {
	c.readUpTo = p
	if !p.Before(c.tail.head) {
		c.markReachedHead()
	}
	c.join()
}

func (c *catchUp) caughtUp() {
	if c.joined {
		return
	}
	c.follower.CaughtUp()
	c.toldEnd = true
	c.markReachedHead()
	c.join()
}

// join moves the follower to the live subscription if it can. It waits until the catch-up
// has called CaughtUp on the follower: the live subscription may have reported the end
// before, and does not report it again.
func (c *catchUp) join() {
	if c.toldEnd && c.tail.join(c.follower, c.readUpTo) {
		c.joined = true
		c.stop()
	}
}

// markReachedHead records once that the follower has all events up to the tail's head.
func (c *catchUp) markReachedHead() {
	if !c.reachedHead {
		c.reachedHead = true
		c.tail.reachedHead()
	}
}
