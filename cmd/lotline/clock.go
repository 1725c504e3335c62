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

// clockReason is all that /readyz tells the public about a wrong clock.
const clockReason = "the clock is wrong"

func isWrong(err error) bool {
	_, wrong := errors.AsType[*walltime.WrongError](err)
	return wrong
}

// clockPolicy decides what a start does while the clock is wrong: it waits, or it returns
// an error. It returns nil once the clock may be right.
type clockPolicy func(ctx context.Context, c *walltime.Clock) error

// requireRightClock returns an error if the clock is wrong. It does not wait.
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

// clockPause is the pause between checks of a wrong clock.
const clockPause = 100 * time.Millisecond

// waitForRightClock waits until the clock may be right, without a time limit. A machine
// without a battery for its clock starts in 1970 and has to wait for network time.
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

// clockedLog refuses appends while the clock is wrong. It is for writers that put times
// into events without checking the clock themselves.
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

// aheadStreams finds streams with a time that is ahead of the clock. A node whose clock
// was wrong has written them. Nothing in such a stream becomes due before the clock has
// reached that time.
type aheadStreams struct {
	views *projections.Views

	mu    sync.Mutex // guards the fields below; held during a search
	at    time.Time  // when the last search was made
	found []projections.StreamTime
}

const (
	// aheadTolerated is by how much the clocks of nodes may differ.
	aheadTolerated = 2 * time.Second
	// aheadEvery is the shortest time between two searches through all streams.
	aheadEvery = time.Second
	// maxAhead is how many streams /readyz names at most.
	maxAhead = 100
)

// find returns the streams that the last search found. It searches again if the last
// search was aheadEvery ago or longer.
func (a *aheadStreams) find() []projections.StreamTime {
	a.mu.Lock()
	defer a.mu.Unlock()
	if now := time.Now(); now.Sub(a.at) >= aheadEvery {
		a.at, a.found = now, a.views.LaterThan(domain.InstantOf(clock()).Add(aheadTolerated))
	}
	return a.found
}

// streamTimes is the detail of /readyz about streams that are ahead of the clock.
type streamTimes struct {
	Count   int                      `json:"count"`
	Streams []projections.StreamTime `json:"streams"`
}

// check returns the check of /readyz. It is advisory: no other node could serve these
// streams better.
func (a *aheadStreams) check() httpapi.Check {
	c := httpapi.Check{Name: partStreamTimes, Advisory: true, Reason: "streams hold times that are ahead of the clock"}
	if found := a.find(); len(found) > 0 {
		c.Err = fmt.Errorf("the number of streams that hold a time ahead of the clock is %d", len(found))
		c.Detail = streamTimes{len(found), found[:min(len(found), maxAhead)]}
	}
	return c
}
