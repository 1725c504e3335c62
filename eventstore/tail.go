package eventstore

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// Follower is what follows the log. It is called by one goroutine at a time, event
// by event in the order of the log, and must not take long.
type Follower interface {
	// Position is the last event handled; what follows it is delivered.
	Position() domain.Position
	// Follow takes the next event. After a reconnection an event may come again;
	// it is at or before Position then.
	Follow(r *domain.Recorded)
	// Passed says that up to p there was nothing else to follow. It is no place
	// to resume from.
	Passed(p domain.Position)
	// CaughtUp says that the log ended behind the last event when the server was
	// asked. It comes once after each connection, from servers that say so.
	CaughtUp()
}

// Tail has the process's one live subscription to the log and hands each event,
// decoded once, to all followers. A follower that is behind at the start has a
// subscription of its own until it is level, and holds nobody up. A subscription
// that drops is taken up again behind the last event handled.
type Tail struct {
	log    *Log
	kinds  []domain.Kind
	head   domain.Position
	logger zerolog.Logger

	connected atomic.Bool
	live      chan struct{} // closed when the live subscription has come to the log's end for the first time
	wasLive   sync.Once     // closes live
	level     chan struct{} // closed when no follower is behind any more
	catchUps  []*catchUp

	mu        sync.Mutex // held while an event is handed on, and guards the fields below
	followers []placed   // those that are level, each in its place
	behind    int        // how many are not
	reached   domain.Position
}

// placed is a follower with its place among all of them.
type placed struct {
	Follower
	place int
}

// NewTail returns a tail of the streams of some kinds, which delivers nothing
// until Run. An event is handed to the followers in their order, as far as they are
// level. It has caught up when all followers have reached head, where the log
// ends now.
func NewTail(log *Log, kinds []domain.Kind, head domain.Position, logger zerolog.Logger, followers ...Follower) *Tail {
	t := &Tail{log: log, kinds: kinds, head: head, logger: logger, live: make(chan struct{}), level: make(chan struct{}), reached: head}
	for i, f := range followers {
		f := placed{f, i}
		if at := f.Position(); at.Before(head) {
			t.catchUps = append(t.catchUps, &catchUp{tail: t, follower: f, started: at, reached: at, at: at})
			t.behind++
		} else {
			t.followers = append(t.followers, f)
		}
	}
	if t.behind == 0 {
		close(t.level)
	}
	return t
}

// CaughtUp is closed when all that stood before head has been handed on.
func (t *Tail) CaughtUp() <-chan struct{} { return t.level }

// Live is closed when the live subscription has come to the log's end for the first
// time. Servers that do not say where the log ends close it with the next event.
func (t *Tail) Live() <-chan struct{} { return t.live }

// Connected reports whether the live subscription stands.
func (t *Tail) Connected() bool { return t.connected.Load() }

// Progress is how far catching up has come, with the follower that is furthest
// behind.
type Progress struct {
	Events int64     // handed on so far
	UpTo   time.Time // when the last of them was recorded; the zero time before the first
	// Share is how much of what it missed it has, from 0 to 1: an estimate, made
	// from positions whose scale is the store's own business.
	Share float64
}

// Progress returns how far catching up has come.
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
	resubscribeSoon = 100 * time.Millisecond
	resubscribeLate = 5 * time.Second
)

// Run delivers until ctx ends.
func (t *Tail) Run(ctx context.Context) {
	var catchingUp sync.WaitGroup
	for _, c := range t.catchUps {
		catchingUp.Go(func() { c.run(ctx) })
	}
	t.keep(ctx, t)
	catchingUp.Wait()
}

// resumable is a subscriber that knows where to go on after a drop.
type resumable interface {
	subscriber
	place() domain.Position
	// dropped reports whether the subscription had come to the log's end.
	dropped() (wasLive bool)
}

// keep subscribes, and subscribes again after each drop, until ctx ends.
func (t *Tail) keep(ctx context.Context, to resumable) {
	wait := resubscribeSoon
	for {
		before := to.place()
		err := t.log.subscribe(ctx, before, t.kinds, to)
		wasLive := to.dropped()
		if ctx.Err() != nil {
			return
		}
		if wasLive || to.place() != before {
			wait = resubscribeSoon
		}
		t.logger.Warn().Err(err).Dur("again_in", wait).Msg("the log is not followed")
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		wait = min(2*wait, resubscribeLate)
	}
}

func (t *Tail) place() domain.Position {
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

// advanced finds out by position whether the subscription is at the log's end:
// older servers do not say so.
func (t *Tail) advanced(p domain.Position) {
	if !p.Before(t.head) {
		t.connect()
	}
}

func (t *Tail) caughtUp() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.followers {
		f.CaughtUp()
	}
	t.connect()
}

func (t *Tail) connect() {
	t.connected.Store(true)
	t.wasLive.Do(func() { close(t.live) })
}

// join hands f over to the live subscription, if p, up to which f has all, is not
// before the place where that is.
func (t *Tail) join(f placed, p domain.Position) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.Before(t.reached) {
		return false
	}
	t.followers = append(t.followers, f)
	slices.SortFunc(t.followers, func(a, b placed) int { return a.place - b.place })
	return true
}

// levelled says that one more follower has all that stood before head.
func (t *Tail) levelled() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.behind--; t.behind == 0 {
		close(t.level)
	}
}

// catchUp is the subscription of a follower that is behind. Its methods are for
// one goroutine.
type catchUp struct {
	tail     *Tail
	follower placed
	started  domain.Position
	reached  domain.Position // the last event handed on
	at       domain.Position // up to where there is nothing else
	level    bool
	ended    bool // the server said that the log ends
	joined   bool // the follower belongs to the live subscription
	stop     context.CancelFunc
	events   int64
	progress atomic.Pointer[Progress] // nil before the first event
}

// run ends when the follower is level, or when ctx does.
func (c *catchUp) run(ctx context.Context) {
	ctx, c.stop = context.WithCancel(ctx)
	defer c.stop()
	c.tail.keep(ctx, c)
}

func (c *catchUp) place() domain.Position  { return c.reached }
func (c *catchUp) dropped() (wasLive bool) { return c.level }

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

// progressEvery is after how many events progress is written down.
const progressEvery = 256

// share is how much of the way from a position to another lies behind at.
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
	c.at = p
	if !p.Before(c.tail.head) {
		c.hasAll()
	}
	c.join()
}

func (c *catchUp) caughtUp() {
	if c.joined {
		return
	}
	c.follower.CaughtUp()
	c.ended = true
	c.hasAll()
	c.join()
}

// join hands the follower over once it was told that the log ends: the live
// subscription may have been told so before.
func (c *catchUp) join() {
	if c.ended && c.tail.join(c.follower, c.at) {
		c.joined = true
		c.stop()
	}
}

// hasAll says once that the follower has all that stood before head.
func (c *catchUp) hasAll() {
	if !c.level {
		c.level = true
		c.tail.levelled()
	}
}
