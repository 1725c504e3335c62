package eventstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// Follower is what follows the log. It is called by one goroutine, event by
// event in the order of the log, and must not take long.
type Follower interface {
	// Position is the last event handled; what follows it is delivered.
	Position() domain.Position
	// Follow takes the next event. After a reconnection or beside a slower
	// follower an event may come again; it is at or before Position then.
	Follow(r *domain.Recorded)
	// Passed says that up to p there was nothing else to follow. It is no place
	// to resume from.
	Passed(p domain.Position)
}

// Tail has the process's one live subscription to the log and hands each event,
// decoded once, to all followers. A subscription that drops is taken up again
// behind the last event handled.
type Tail struct {
	log       *Log
	kinds     []domain.Kind
	followers []Follower
	head      domain.Position
	logger    zerolog.Logger

	reached   domain.Position // the last event handed on; owned by Run
	connected atomic.Bool
	level     chan struct{} // closed when the followers have caught up for the first time
	isLevel   bool          // owned by Run
}

// NewTail returns a tail of the streams of some kinds, which delivers nothing
// until Run. It has caught up when it has reached head, where the log ends now.
func NewTail(log *Log, kinds []domain.Kind, head domain.Position, logger zerolog.Logger, followers ...Follower) *Tail {
	return &Tail{log: log, kinds: kinds, followers: followers, head: head, logger: logger, level: make(chan struct{})}
}

// CaughtUp is closed when all that stood before head has been handed on.
func (t *Tail) CaughtUp() <-chan struct{} { return t.level }

// Connected reports whether the subscription stands.
func (t *Tail) Connected() bool { return t.connected.Load() }

const (
	resubscribeSoon = 100 * time.Millisecond
	resubscribeLate = 5 * time.Second
)

// Run delivers until ctx ends.
func (t *Tail) Run(ctx context.Context) {
	t.reached = t.followers[0].Position()
	for _, f := range t.followers[1:] {
		if p := f.Position(); p.Before(t.reached) {
			t.reached = p
		}
	}
	wait := resubscribeSoon
	for {
		before := t.reached
		err := t.log.subscribe(ctx, t.reached, t.kinds, t)
		t.connected.Store(false)
		if ctx.Err() != nil {
			return
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
		if t.reached != before {
			wait = resubscribeSoon
		}
	}
}

func (t *Tail) event(r *domain.Recorded) {
	for _, f := range t.followers {
		f.Follow(r)
	}
	t.reached = r.Position
	t.advanced(r.Position)
}

func (t *Tail) passed(p domain.Position) {
	for _, f := range t.followers {
		f.Passed(p)
	}
	t.advanced(p)
}

// advanced finds out by position whether the followers have caught up: older
// servers do not say so.
func (t *Tail) advanced(p domain.Position) {
	if !p.Before(t.head) {
		t.caughtUp()
	}
}

func (t *Tail) caughtUp() {
	t.connected.Store(true)
	if !t.isLevel {
		t.isLevel = true
		close(t.level)
	}
}
