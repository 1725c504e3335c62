// Package relay publishes what is appended to the log on a message bus
// (Watermill): every event of a distribution on its kind's topic, and a message
// of its own on distribution.updated whenever the schedule is set or changes.
//
// The log is the truth and the bus a hint: messages come in the order of the log,
// and whoever needs all of them reads the log.
package relay

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// queued is how many events may wait for the bus. What comes on top is dropped:
// the bus is a hint, and what follows the log must not wait for it.
const queued = 65_536

// Views are the read models, as far as this package needs them. They follow the log
// before the relay does.
type Views interface {
	// Believes reports whether an event may be taken for a fact, as far as the read
	// models have followed its stream.
	Believes(r *domain.Recorded) bool
}

// Relay is a follower of the log. Its methods are for one goroutine, but for Run,
// which is for another, and for Waiting and Dropped.
type Relay struct {
	publisher message.Publisher
	views     Views
	log       zerolog.Logger
	position  domain.Position
	dropped   int          // since the last event that found room
	drops     atomic.Int64 // all of them
	events    chan *domain.Recorded
}

// New returns a relay that publishes what stands behind after in the log, except for
// events that views do not believe.
func New(publisher message.Publisher, views Views, after domain.Position, log zerolog.Logger) *Relay {
	return &Relay{
		publisher: publisher, views: views, log: log, position: after, events: make(chan *domain.Recorded, queued),
	}
}

// Position is the last event taken.
func (r *Relay) Position() domain.Position { return r.position }

// Follow takes an event to be published.
func (r *Relay) Follow(e *domain.Recorded) {
	if !r.position.Before(e.Position) {
		return
	}
	r.position = e.Position
	if !domain.StreamKind(e.Stream).Distribution() || e.Event == nil {
		return
	}
	select {
	case r.events <- e:
		if r.dropped > 0 {
			r.log.Warn().Int("events", r.dropped).Msg("the message bus did not keep up")
			r.dropped = 0
		}
	default:
		r.dropped++
		r.drops.Add(1)
	}
}

// Waiting is how many events wait for the bus.
func (r *Relay) Waiting() int { return len(r.events) }

// Dropped is how many events the bus was too slow for.
func (r *Relay) Dropped() int64 { return r.drops.Load() }

// Passed does nothing: where there are no events there is nothing to publish.
func (r *Relay) Passed(domain.Position) {}

// CaughtUp does nothing: the relay publishes what comes.
func (r *Relay) CaughtUp() {}

// Run publishes until ctx ends.
func (r *Relay) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.events:
			if !r.views.Believes(e) {
				continue // its stream is in quarantine, which is logged there
			}
			messages, err := domain.Messages(e)
			if err != nil {
				r.log.Error().Err(err).Str("stream", e.Stream).Int64("revision", int64(e.Revision)).Msg("an event was not relayed")
				continue
			}
			for _, m := range messages {
				r.publish(ctx, m)
			}
		}
	}
}

const (
	retrySoon = 100 * time.Millisecond
	retryLate = 5 * time.Second
)

// publish tries until it succeeds, so that order is kept.
func (r *Relay) publish(ctx context.Context, m domain.Message) {
	for wait := retrySoon; ; wait = min(2*wait, retryLate) {
		err := r.publisher.Publish(m.Topic, message.NewMessage(m.Event.ID, m.Payload))
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Warn().Err(err).Str("topic", m.Topic).Msg("a message is published again")
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
