package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"hash/maphash"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// group is one persistent subscription. Its goroutine owns its state; other goroutines
// run functions in it by do.
type group struct {
	settings groupSettings
	matching *filter
	store    *store
	log      zerolog.Logger
	// failure is why the group can never work.
	failure error

	calls      chan func()
	quit       chan error
	stopped    chan struct{} // closed when run has ended
	stopReason error         // why run ended, once stopped is closed

	// Only run uses the fields below.

	consumers    []*consumer
	nextConsumer int          // index of the next consumer, for RoundRobin
	seed         maphash.Seed // assigns streams to consumers, for Pinned

	source      lane
	mayHaveMore bool // source may have events that were not read yet
	parked      lane
	// replayEnd is the revision below which parked events are to be replayed.
	replayEnd int64
	// hiddenBelow is the revision below which parked events are hidden, because they are
	// finished.
	hiddenBelow int64

	readAgainAt   time.Time // when to read again after a failed read
	nextTimeout   time.Time // no message times out before it; zero if none is in flight with a timeout
	checkpointed  int64     // the place in the newest checkpoint
	checkpointAt  time.Time // when that was written
	finishedSince int32     // how many messages were finished since then

	total, measured int64
	measuredAt      time.Time
}

// startGroup starts the group with the given settings, from its checkpoint in the log. If
// that cannot be read, all calls to the group fail with the reason.
func startGroup(s *store, settings groupSettings, log zerolog.Logger) *group {
	now := time.Now()
	g := &group{
		settings: settings, store: s,
		log:   log.With().Str("stream", settings.Stream).Str("group", settings.Group).Logger(),
		calls: make(chan func()), quit: make(chan error), stopped: make(chan struct{}),
		mayHaveMore: true, seed: maphash.MakeSeed(), checkpointAt: now, measuredAt: now,
	}
	if err := g.load(context.Background()); err != nil {
		g.failure = failedStatus(settings, err)
		g.log.Error().Err(err).Msg("persistent subscription cannot be started")
	}
	go g.run()
	return g
}

func (g *group) load(ctx context.Context) (err error) {
	if g.matching, err = g.settings.Filter.compile(); err != nil {
		return err
	}
	checkpoint, err := g.store.newest(ctx, g.settings.checkpointStream())
	if err != nil {
		return err
	}
	if checkpoint != nil {
		var text string
		if err := json.Unmarshal(checkpoint.data, &text); err != nil {
			return err
		}
		if g.checkpointed, err = g.settings.parse(text); err != nil {
			return err
		}
	} else if err := g.writeStart(ctx); err != nil {
		return err
	}
	g.source.next = after(g.checkpointed)

	h, err := g.store.state(ctx, g.settings.parkedStream())
	if err != nil {
		return err
	}
	g.parked.next = min(h.firstVisible(), after(h.last))
	g.hiddenBelow = g.parked.next
	return nil
}

// writeStart writes the first checkpoint of a new group, so that a group that starts at
// the end has a place to return to before it gets its first event.
func (g *group) writeStart(ctx context.Context) error {
	start := g.settings.StartFrom
	if start == startFromEnd {
		last, err := g.store.lastPosition(ctx)
		if !g.settings.ofAll() {
			var h head
			h, err = g.store.state(ctx, g.settings.Stream)
			last = h.last
		}
		if err != nil {
			return err
		}
		start = after(last)
	}
	return g.writeCheckpoint(start - 1)
}

// stop disconnects the consumers with err, writes the checkpoint and ends the group's
// goroutine. It must be called only once.
func (g *group) stop(err error) {
	g.quit <- err
	<-g.stopped
}

// do runs f in the group's goroutine.
func (g *group) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case g.calls <- func() { f(); close(done) }:
		<-done
		return nil
	case <-g.stopped:
		return g.stopReason
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *group) run() {
	followed := g.settings.Stream
	if g.settings.ofAll() {
		followed = ""
	}
	watcher, unwatch := g.store.hub.watch(followed)
	defer unwatch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	ready := make(chan struct{})
	close(ready)
	for {
		var more <-chan struct{}
		if g.failure == nil && g.work() {
			more = ready
		}
		timer.Reset(g.maxWait())
		select {
		case call := <-g.calls:
			call()
		case <-watcher.signal:
			g.mayHaveMore = true
		case <-timer.C:
		case <-more:
		case err := <-g.quit:
			g.end(err)
			return
		}
	}
}

func (g *group) end(err error) {
	for len(g.consumers) > 0 {
		g.drop(g.consumers[0], err)
	}
	if g.failure == nil {
		g.checkpoint(time.Now())
		g.truncateParked(g.parked.firstUnfinished())
	}
	g.stopReason = err
	close(g.stopped)
}

// work does all that can be done now, but reads only one page. It reports whether there
// is more to read at once.
func (g *group) work() (more bool) {
	now := time.Now()
	g.expire(now)
	if g.canRead(now) {
		if err := g.read(context.Background()); err != nil {
			g.log.Error().Err(err).Msg("persistent subscription cannot read")
			g.readAgainAt = now.Add(readPause)
		}
	}
	g.dispatch(now)
	if g.checkpointDue(now) {
		g.checkpoint(now)
	}
	if g.parked.unfinished.Len() == 0 {
		g.truncateParked(g.parked.next)
	}
	return g.canRead(now)
}

// maxWait returns how long the group can wait if nothing happens.
func (g *group) maxWait() time.Duration {
	wait := time.Hour
	if !g.nextTimeout.IsZero() {
		wait = min(wait, time.Until(g.nextTimeout))
	}
	if pause := time.Until(g.readAgainAt); pause > 0 {
		wait = min(wait, pause)
	}
	if g.finishedSince > 0 && g.finishedSince >= g.settings.MinCheckpointCount {
		wait = min(wait, time.Until(g.checkpointAt.Add(milliseconds(g.settings.CheckpointAfter))))
	}
	return max(wait, 0)
}

func milliseconds(count int32) time.Duration {
	return time.Duration(count) * time.Millisecond
}

func (g *group) join(ctx context.Context, c *consumer) error {
	var refusal error
	err := g.do(ctx, func() {
		limit := int(g.settings.MaxSubscriberCount)
		switch {
		case g.failure != nil:
			refusal = g.failure
		case limit > 0 && len(g.consumers) >= limit:
			refusal = fullStatus(g.settings)
		default:
			g.consumers = append(g.consumers, c)
		}
	})
	return errors.Join(err, refusal)
}

// leave disconnects a consumer and gives its in-flight messages back. The consumer may
// have been dropped already.
func (g *group) leave(c *consumer) {
	// A stopped group has already dropped all its consumers.
	_ = g.do(context.Background(), func() { g.remove(c) })
}

// drop disconnects a consumer and sends it the reason. It does nothing if the consumer was
// dropped already: a consumer that has not received the reason yet can give cause for
// another one, and nobody would receive that.
func (g *group) drop(c *consumer, err error) {
	if !slices.Contains(g.consumers, c) {
		return
	}
	g.remove(c)
	c.dropped <- err
}

func (g *group) remove(c *consumer) {
	for _, m := range c.inFlight {
		m.lane.addWaiting(m)
	}
	c.inFlight, c.bytes = nil, 0
	g.consumers = slices.DeleteFunc(g.consumers, func(other *consumer) bool { return other == c })
	g.nextConsumer = 0
}
