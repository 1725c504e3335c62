package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/httpapi"
	"github.com/lotline/lotline/projections"
)

// clockReason is what everybody is told of a clock that is wrong.
const clockReason = "the clock is wrong"

func isWrong(err error) bool {
	_, wrong := errors.AsType[*walltime.WrongError](err)
	return wrong
}

// awaitClock returns when nothing may be wrong with a clock any more, or why it does
// not wait for that.
type clockPolicy func(ctx context.Context, c *walltime.Clock) error

// mustBeRight does not wait.
func requireRightClock(ctx context.Context, c *walltime.Clock) error {
	_, err := c.Now(ctx)
	if isWrong(err) {
		return configError{err}
	}
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

// clockPause is between looks at a clock that is wrong.
const clockPause = 100 * time.Millisecond

// untilRight waits for as long as it takes: a machine that has no clock of its own
// starts in 1970, until the network tells it the time.
func waitForRightClock(ctx context.Context, c *walltime.Clock) error {
	for {
		c.Recheck(ctx)
		err := requireRightClock(ctx, c)
		if !isWrong(err) {
			return err
		}
		select {
		case <-time.After(clockPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// clockedLog takes no appends while the clock is wrong, for those who put a time into
// what they append without asking for it.
type clockedLog struct {
	*eventstore.Log
	clock *walltime.Clock
}

func (l clockedLog) Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	if _, err := l.clock.Now(ctx); err != nil {
		return domain.Head{}, domain.Position{}, err
	}
	return l.Log.Append(ctx, stream, head, events)
}

// aheadStreams finds the streams whose time is ahead of the clock: what a node wrote
// whose clock was wrong. Nothing in them is due before the clock has come there.
type aheadStreams struct {
	views *projections.Views

	mu    sync.Mutex // guards the fields below; held while looking
	at    time.Time  // when it was looked
	found []projections.StreamTime
}

const (
	// aheadTolerated is what clocks of nodes may differ by.
	aheadTolerated = 2 * time.Second
	// aheadEvery is how often all streams are looked through, at most.
	aheadEvery = time.Second
	// maxAhead is how many streams are named.
	maxAhead = 100
)

func (a *aheadStreams) look() []projections.StreamTime {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); now.Sub(a.at) >= aheadEvery {
		a.at, a.found = now, a.views.LaterThan(domain.InstantOf(clock()).Add(aheadTolerated))
	}
	return a.found
}

// streamTimes is how many streams are ahead of the clock, and which.
type streamTimes struct {
	Count   int                      `json:"count"`
	Streams []projections.StreamTime `json:"streams"`
}

// check does not make the node not ready: no other one could serve these streams
// better.
func (a *aheadStreams) check() httpapi.Check {
	c := httpapi.Check{Name: partStreamTimes, Advisory: true, Reason: "streams hold times that are ahead of the clock"}
	if found := a.look(); len(found) > 0 {
		c.Err = fmt.Errorf("the number of streams that hold a time ahead of the clock is %d", len(found))
		c.Detail = streamTimes{len(found), found[:min(len(found), maxAhead)]}
	}
	return c
}
