// Package relay publishes what is appended to the log on a message bus
// (Watermill): every event of a distribution on its kind's topic, and a message
// of its own on distribution.updated whenever the schedule is set or changes.
//
// The log is the truth and the bus a hint: messages come in the order of the log,
// and whoever needs all of them reads the log.
package relay

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
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
			messages, err := Messages(e)
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
func (r *Relay) publish(ctx context.Context, m Message) {
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

// Message is what is published, and where.
type Message struct {
	Topic   string
	Event   domain.CloudEvent
	Payload []byte // the event in JSON
}

// WithoutData is the message for a bus that does not take it as large as it is.
func (m Message) WithoutData() Message {
	m.Event.Data = nil
	m.encode()
	return m
}

func (m *Message) encode() {
	m.Payload = m.Event.AppendJSON(make([]byte, 0, 320+len(m.Event.Data)))
}

// Messages are what an event of a distribution is published as: itself, and what
// is derived from it. The id of a derived message is the UUIDv5 of the event's id
// and the message's type.
func Messages(r *domain.Recorded) ([]Message, error) {
	subject, err := domain.StreamID(r.Stream)
	if err != nil {
		return nil, err
	}
	id := uuid.UUID(r.ID)
	at := r.Event.When()
	kind := string(domain.StreamKind(r.Stream))
	out := []Message{{Topic: kind, Event: domain.NewCloudEvent(id.String(), r.Type, subject, at, r.Data)}}
	if timing, ok := domain.TimingOf(subject, r.Event); ok {
		data, err := json.Marshal(timing)
		if err != nil {
			return nil, fmt.Errorf("encode a timing change of %s: %w", subject, err)
		}
		derived := uuid.NewSHA1(id, []byte(domain.TopicDistributionUpdated))
		out = append(out, Message{
			Topic: domain.TopicDistributionUpdated,
			Event: domain.NewCloudEvent(derived.String(), domain.TopicDistributionUpdated, subject, at, data),
		})
	}
	for i := range out {
		out[i].encode()
	}
	return out, nil
}
