// Package relay publishes appended events on a message bus (Watermill). Every event of a
// distribution becomes a message on the topic of the distribution's kind. An event that
// sets or changes the schedule also becomes a message on the topic distribution.updated.
//
// The log is the record, the bus only a notification: messages arrive in the order of the
// log, but some may be missing. A consumer that needs all events reads the log.
package relay

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/backoff"
)

// queued is how many events may wait for the bus. Further events are dropped: followers
// of the log must not wait for the bus.
const queued = 65_536

// Views are the read models. They must get each event before the relay does, because the
// relay asks them about it.
type Views interface {
	// Believes reports whether the read models accepted an event as part of a consistent
	// history.
	Believes(r *domain.Recorded) bool
}

// Relay is a follower of the log. Run is for one goroutine, Waiting and Dropped are for
// any, and all other methods are for the goroutine of the tail.
type Relay struct {
	publisher message.Publisher
	views     Views
	log       zerolog.Logger
	position  domain.Position
	dropped   int          // events dropped since the last one that found room
	drops     atomic.Int64 // events dropped in total
	events    chan *domain.Recorded
}

// New returns a relay that publishes the events after a log position, except for those
// for which views.Believes is false.
func New(publisher message.Publisher, views Views, after domain.Position, log zerolog.Logger) *Relay {
	return &Relay{
		publisher: publisher, views: views, log: log, position: after, events: make(chan *domain.Recorded, queued),
	}
}

// Position is the position of the last event that Follow took.
func (r *Relay) Position() domain.Position { return r.position }

// Follow queues an event for publishing. It never waits.
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

// Waiting returns how many events wait for the bus.
func (r *Relay) Waiting() int { return len(r.events) }

// Dropped returns how many events were dropped because the bus was too slow.
func (r *Relay) Dropped() int64 { return r.drops.Load() }

// Passed does nothing: the relay publishes events only.
func (r *Relay) Passed(domain.Position) {}

// CaughtUp does nothing: the relay publishes each event as it comes.
func (r *Relay) CaughtUp() {}

// Run publishes until ctx ends.
func (r *Relay) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.events:
			if !r.views.Believes(e) {
				continue // its stream is in quarantine, which the read models have logged
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
	firstPause   = 100 * time.Millisecond // after a message was not published
	longestPause = 5 * time.Second
)

// publish publishes a message. It tries again until it succeeds, so that messages keep
// their order. It gives up when ctx ends.
func (r *Relay) publish(ctx context.Context, m domain.Message) {
	pauses := backoff.Backoff{First: firstPause, Limit: longestPause}
	for {
		err := r.publisher.Publish(m.Topic, message.NewMessage(m.Event.ID, m.Payload))
		if err == nil || ctx.Err() != nil {
			return
		}
		r.log.Warn().Err(err).Str("topic", m.Topic).Msg("a message is published again")
		if !backoff.Sleep(ctx, pauses.Next()) {
			return
		}
	}
}
