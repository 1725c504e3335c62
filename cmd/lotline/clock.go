package main

import (
	"context"
	"errors"
	"time"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

func isWrong(err error) bool {
	_, wrong := errors.AsType[*walltime.WrongError](err)
	return wrong
}

// awaitClock returns when nothing may be wrong with a clock any more, or why it does
// not wait for that.
type awaitClock func(ctx context.Context, c *walltime.Clock) error

// mustBeRight does not wait.
func mustBeRight(ctx context.Context, c *walltime.Clock) error {
	_, err := c.Now(ctx)
	if isWrong(err) {
		return configError{err}
	}
	return err
}

// clockPause is between looks at a clock that is wrong.
const clockPause = 100 * time.Millisecond

// untilRight waits for as long as it takes: a machine that has no clock of its own
// starts in 1970, until the network tells it the time.
func untilRight(ctx context.Context, c *walltime.Clock) error {
	for {
		_, err := c.Now(ctx)
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
