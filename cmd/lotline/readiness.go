package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/httpapi"
)

// The parts that /readyz reports.
const (
	partClock       = "clock"
	partEventStore  = "eventStore"
	partProjections = "projections"
	partTimers      = "timers"
	partRestored    = "restored"
	partStreamTimes = "streamTimes" // advisory
)

var errOverdue = errors.New("what was overdue at the start is not done")

// ready returns the checks of /readyz. The node is ready when no check has an error,
// except for advisory checks, which do not count.
func (n *node) ready(ctx context.Context) []httpapi.Check {
	_, store := n.log.Head(ctx)
	if store == nil {
		store = n.handler.Health()
	}
	views := httpapi.Check{Name: partProjections}
	switch {
	case !n.caughtUp.Load():
		p := n.tail.Progress()
		views.Err = errors.New("catching up with the log")
		views.Reason = fmt.Sprintf("catching up with the log, %d %% done", percent(p))
		views.Detail = catchingUp{p.Events, percent(p), p.UpTo}
	case !n.tail.Connected():
		views.Err = errors.New("the log is not followed")
		views.Reason = views.Err.Error()
	}
	timers := errOverdue
	if n.scheduler.CaughtUp() {
		timers = nil
	}
	checks := []httpapi.Check{
		{Name: partClock, Err: n.log.clock.Err(), Reason: clockReason},
		{Name: partEventStore, Err: store, Reason: "it does not answer, or the last write to it failed"},
		views,
		{Name: partTimers, Err: timers, Reason: errOverdue.Error()},
		n.ahead.check(),
	}
	if n.log.restored != nil {
		checks = append(checks, httpapi.Check{Name: partRestored, Err: n.log.restored, Advisory: true})
	}
	if n.sink != nil {
		s := n.sink.State()
		// Advisory: all nodes share the broker, so no other node could do better.
		checks = append(checks, httpapi.Check{
			Name: "bus", Err: s.Err, Reason: "it does not take what is sent to it", Detail: sending{s.Sending, s.Messages, s.UpTo}, Advisory: true,
		})
	}
	return checks
}

// catchingUp is the detail of /readyz that tells how far the read models are.
type catchingUp struct {
	Events  int64     `json:"events"`
	Percent int       `json:"percent"`
	UpTo    time.Time `json:"upTo,omitzero"`
}

func percent(p eventstore.Progress) int { return int(100 * p.Share) }

// sending is the detail of /readyz about the broker. Only one node sends at a time.
type sending struct {
	Sending  bool      `json:"sending"`
	Messages uint64    `json:"messages"`
	UpTo     time.Time `json:"upTo,omitzero"`
}
