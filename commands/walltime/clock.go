// Package walltime tells whether a node's clock may be decided by.
//
// What a node decides counts at the time that its clock shows, for all nodes and for
// ever. So whoever decides asks a Clock for the time, and gets a reason instead when
// the time cannot be right. The package must not correct a time: a node with a wrong
// clock waits.
//
// Right is what the event store's clock shows, which all nodes share. The store
// records when an event came. That was after the append was sent and before it was
// answered, which bounds by how much the clock is ahead of the store's or behind it.
// Every append is such a measurement, and nothing else is sent while all is well. A
// clock that is set between two of them is noticed because the time that has passed
// is another one by the clock than it is by the monotonic clock. Then, and before the
// first decision, the Clock appends an event of its own.
package walltime

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

const (
	// tolerated is by how much the clock may differ from the store's without a word.
	maxSilent = 2 * time.Second
	// refused is the difference beyond which nothing is decided.
	maxOffset = 30 * time.Second
	// trusted is how long a comparison says something about the clock. Clocks of
	// computers drift by less than 2 seconds in an hour.
	validFor = time.Hour
	// renewBefore is how long before its end a comparison is renewed, so that nobody
	// has to wait for that.
	renewBefore = time.Minute
	// watchEvery is how often Run looks at the clock.
	watchEvery = time.Second
)

// WrongError says what is wrong with the clock. Nothing was written because of it, so
// it is a domain.ErrUnavailable.
type WrongError struct{ Reason string }

func (e *WrongError) Error() string { return e.Reason }

// Is reports whether the error is of the kind target.
func (e *WrongError) Is(target error) bool { return target == domain.ErrUnavailable }

// unknownError says that the clock has to be compared first.
type unknownError struct{}

func (unknownError) Error() string { return "the clock is yet to be compared with the event store's" }

// Is reports whether the error is of the kind target.
func (unknownError) Is(target error) bool { return target == domain.ErrUnavailable }

// Clock is a node's clock. Safe for concurrent use.
type Clock struct {
	read func() time.Time

	// elsewhere is nil while there is nothing to compare with: a store in this process
	// has this very clock.
	reference atomic.Pointer[reference]

	comparing chan struct{} // taken by the comparison under way, which alone uses the next two
	tried     time.Duration // when the last one ended
	failed    error         // why it failed, or nil

	mu       sync.Mutex // guards the fields below
	known    bool       // whether the next two are set
	offset   bounds     // of how much the clock was ahead of the store's
	at       moment     // when it was
	measured measurement
}

// elsewhere is the store to compare with, and what this node measures by meanwhile.
type reference struct {
	Store
	elapsed func() time.Duration
}

// moment is one moment by both clocks of the node.
type moment struct {
	wall    time.Time
	elapsed time.Duration // by the monotonic clock, which nobody sets
}

// New returns the clock that read reads.
func New(read func() time.Time) *Clock {
	return &Clock{read: read, comparing: make(chan struct{}, 1)}
}

// Compare has the clock compared with the store's from now on. elapsed is the time
// since any one moment by the monotonic clock.
func (c *Clock) Compare(store Store, elapsed func() time.Duration) {
	c.reference.Store(&reference{store, elapsed})
}

// now does without the monotonic part of a time, by which times would be subtracted.
func (c *Clock) now() moment {
	now := moment{wall: c.read().Round(0)}
	if e := c.reference.Load(); e != nil {
		now.elapsed = e.elapsed()
	}
	return now
}

// Now is the time to decide at, or why nothing may be decided now: *WrongError, or
// another domain.ErrUnavailable when the clock could not be compared.
func (c *Clock) Now(ctx context.Context) (time.Time, error) {
	now, err := c.check()
	if isUnknown(err) {
		if err := c.compare(ctx, func() bool { return isUnknown(c.Usable()) }); err != nil {
			return time.Time{}, err
		}
		now, err = c.check()
	}
	return now, err
}

func isUnknown(err error) bool {
	_, unknown := errors.AsType[unknownError](err)
	return unknown
}

// Usable returns why nothing may be decided now, or nil. It answers at once.
func (c *Clock) Usable() error {
	_, err := c.check()
	return err
}

// check judges the very time that it returns.
func (c *Clock) check() (time.Time, error) {
	now := c.now()
	if !domain.InstantOf(now.wall).Recordable() {
		return time.Time{}, &WrongError{fmt.Sprintf("the clock shows %s, and only the years 2000 to 2199 can be recorded", now.wall.UTC().Format(time.RFC3339))}
	}
	if c.reference.Load() == nil {
		return now.wall, nil
	}
	ahead, known := c.possibleOffset(now)
	switch {
	case known && ahead.atLeast().Abs() > maxOffset:
		return time.Time{}, differs(ahead.atLeast())
	case !known || !ahead.within(maxOffset):
		return time.Time{}, unknownError{}
	}
	return now.wall, nil
}

// Err is what is wrong with the clock, or nil. A clock that differs a little from the
// store's is wrong, but may be decided by. Err answers at once.
func (c *Clock) Err() error {
	if err := c.Usable(); err != nil {
		return err
	}
	if off := c.Offset(); off.Abs() > maxSilent {
		return differs(off)
	}
	return nil
}

func differs(ahead time.Duration) error {
	how := "ahead of"
	if ahead < 0 {
		how = "behind"
	}
	return &WrongError{fmt.Sprintf("the clock is %s %s the event store's", ahead.Abs().Round(100*time.Millisecond), how)}
}

// Offset is by how much the clock is ahead of the store's for certain; negative when
// it is behind, and 0 when it may be right.
func (c *Clock) Offset() time.Duration {
	ahead, _ := c.possibleOffset(c.now())
	return ahead.atLeast()
}

// Compared reports whether the clock has been compared with the store's at all.
func (c *Clock) Compared() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.known
}

// Run watches the clock until ctx ends: it compares a clock that was set, and one
// that is wrong again and again, until it is right.
func (c *Clock) Run(ctx context.Context, logger zerolog.Logger) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	wrong := false
	for ctx.Err() == nil {
		c.Recheck(ctx)
		err := c.Err()
		switch _, is := errors.AsType[*WrongError](err); {
		case is && !wrong:
			logger.Error().Err(err).Msg("the clock is wrong")
			wrong = true
		case err == nil && wrong:
			logger.Info().Msg("the clock is right again")
			wrong = false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}
