// Package walltime tells whether a node's clock may be decided by.
//
// What a node decides counts at the time that its clock shows, for all nodes and for
// ever. So whoever decides asks a Clock for the time, and gets a reason instead when
// the time cannot be right. The package must not correct a time: a node with a wrong
// clock waits.
package walltime

import (
	"context"
	"fmt"
	"time"

	"github.com/lotline/lotline/domain"
)

// WrongError says what is wrong with the clock. Nothing was written because of it, so
// it is a domain.ErrUnavailable.
type WrongError struct{ Reason string }

func (e *WrongError) Error() string { return e.Reason }

// Is reports whether the error is of the kind target.
func (e *WrongError) Is(target error) bool { return target == domain.ErrUnavailable }

// Clock is a node's clock. Safe for concurrent use.
type Clock struct{ read func() time.Time }

// New returns the clock that read reads.
func New(read func() time.Time) *Clock { return &Clock{read: read} }

// Now is the time to decide at, or why nothing may be decided now.
func (c *Clock) Now(context.Context) (time.Time, error) {
	now := c.read()
	if err := recordable(now); err != nil {
		return time.Time{}, err
	}
	return now, nil
}

// Err is what is wrong with the clock, or nil. It answers at once.
func (c *Clock) Err() error { return recordable(c.read()) }

// recordable refuses times that an event cannot hold.
func recordable(now time.Time) error {
	if domain.InstantOf(now).Recordable() {
		return nil
	}
	return &WrongError{fmt.Sprintf("the clock shows %s, and only the years 2000 to 2199 can be recorded", now.UTC().Format(time.RFC3339))}
}
