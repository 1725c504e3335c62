// Package walltime tells whether a node may decide by its clock.
//
// The decisions of a node count at the time of its clock, for all nodes and for ever. So
// the node asks a Clock for the time, and gets an error when the time cannot be right. The
// package must not correct a time: a node with a wrong clock decides nothing.
//
// The event store's clock counts as right, because all nodes share it. The store records
// the time of each event. That time is after the append was sent and before it returned, so
// each append bounds the difference between the two clocks. While nothing is wrong, the
// appends of the node's commands are measurements enough. When somebody sets the clock, it
// moves by another amount than the monotonic clock. The Clock notices this and appends an
// event of its own to measure the difference. It does the same before the first decision.
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
	// maxSilent is how much the clock may differ from the store's before Err says so.
	maxSilent = 2 * time.Second
	// maxOffset is the difference above which nothing is decided.
	maxOffset = 30 * time.Second
	// validFor is how long a measurement is valid. Clocks of computers drift by less than
	// 2 seconds in an hour.
	validFor = time.Hour
	// renewBefore is how long before its end a measurement is renewed, so that no command
	// has to wait for it.
	renewBefore = time.Minute
	// watchEvery is how often Run checks the clock.
	watchEvery = time.Second
)

// WrongError says what is wrong with the clock. It counts as domain.ErrUnavailable, because
// nothing is written with a wrong clock.
type WrongError struct{ Reason string }

func (e *WrongError) Error() string { return e.Reason }

// Is makes errors.Is report that the error is domain.ErrUnavailable.
func (e *WrongError) Is(target error) bool { return target == domain.ErrUnavailable }

// unknownError says that the clock has to be compared before it may be used.
type unknownError struct{}

func (unknownError) Error() string { return "the clock is yet to be compared with the event store's" }

// Is makes errors.Is report that the error is domain.ErrUnavailable.
func (unknownError) Is(target error) bool { return target == domain.ErrUnavailable }

// Clock is a node's clock. Safe for concurrent use.
type Clock struct {
	read func() time.Time

	// reference is nil when there is nothing to compare with, because the store is in this
	// process and uses the same clock.
	reference atomic.Pointer[reference]

	comparing chan struct{} // full while a comparison is in progress, which alone uses the next two fields
	tried     time.Duration // when the last comparison ended
	failed    error         // why it failed, or nil

	mu       sync.Mutex // guards the fields below
	known    bool       // whether the next two are set
	offset   bounds     // by how much the clock was ahead of the store's
	at       moment     // when offset was measured
	measured measurement
}

// reference is the store to compare with, and the monotonic clock of this node.
type reference struct {
	Store
	elapsed func() time.Duration
}

// moment is a moment by both clocks of the node.
type moment struct {
	wall    time.Time
	elapsed time.Duration // by the monotonic clock, which nobody sets
}

// New returns a Clock that reads the time with read.
func New(read func() time.Time) *Clock {
	return &Clock{read: read, comparing: make(chan struct{}, 1)}
}

// Compare makes the Clock compare itself with the store's from now on. elapsed returns the
// time since some fixed moment by the monotonic clock.
func (c *Clock) Compare(store Store, elapsed func() time.Duration) {
	c.reference.Store(&reference{store, elapsed})
}

// now reads both clocks. It drops the monotonic part of the time, because time.Time.Sub
// would use it instead of the wall clock.
func (c *Clock) now() moment {
	now := moment{wall: c.read().Round(0)}
	if e := c.reference.Load(); e != nil {
		now.elapsed = e.elapsed()
	}
	return now
}

// Now returns the time to decide at. If the clock has to be compared first, Now waits for
// that. Errors: *WrongError when the clock is wrong, another domain.ErrUnavailable when it
// could not be compared.
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

// Usable returns why nothing may be decided now, or nil. It does not wait.
func (c *Clock) Usable() error {
	_, err := c.check()
	return err
}

// check reads the clock once, judges that time and returns it.
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

// Err returns what is wrong with the clock, or nil. A clock that differs from the store's by
// 2 to 30 seconds is wrong, although the node decides by it. Err does not wait.
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

// Offset returns how far the clock is ahead of the store's. It is negative when the clock
// is behind. The measurements only give bounds, so Offset returns the smallest difference
// that is possible, and 0 when the clock may be right.
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

// Run checks the clock every second until ctx ends. It compares the clock when it was set,
// and every 5 seconds while it is wrong. It logs when the clock becomes wrong and when it
// is right again.
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
