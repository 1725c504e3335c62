// Package sink sends what happens to distributions to a message broker outside the
// system: every message that the relay makes of an event, in the order of the log, at
// least once, from one node at a time.
//
// A stream of the log, sink-<name>, records which node holds the lease to send and up to
// which position everything is sent (domain.Leased). Nodes append to it at the expected
// revision, so a node that lost its lease learns that at its next write. A holder must
// renew its lease every second while it sends, and nobody writes while there is nothing
// to send. A node takes over when it sees unsent events and the lease has not changed for
// some seconds. Each node measures that by its own clock, so the clocks of the nodes need
// not agree.
package sink

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/backoff"
)

// Log is the part of the event log that a sink uses. *eventstore.Log implements it.
type Log interface {
	Between(ctx context.Context, after, until domain.Position, kinds []domain.Kind) iter.Seq2[*domain.Recorded, error]
	Newest(ctx context.Context, stream string) (*domain.Recorded, error)
	KeepNewest(ctx context.Context, stream string, n uint64) error
	Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error)
	Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error)
}

// Bus is the broker that a sink sends to. One goroutine calls it.
type Bus interface {
	// Ready returns nil if messages can be published now, and otherwise the reason why
	// not. It must not block for long.
	Ready(ctx context.Context) error
	// Publish returns nil once the broker has stored the messages. After an error the
	// broker may or may not have stored them. The error is ErrTooLarge if the broker does
	// not take a message of that size. Publish must return within PublishTimeout.
	Publish(topic string, messages ...*message.Message) error
}

// Views are the read models.
type Views interface {
	// WaitFor waits until the read models have followed the log up to p. It returns an
	// error if ctx ends first.
	WaitFor(ctx context.Context, p domain.Position) error
	// Believes reports whether the read models accepted an event as part of a consistent
	// history. They must have followed the log up to the event: call WaitFor first.
	Believes(r *domain.Recorded) bool
}

// ErrTooLarge says that a message is too large for the broker.
var ErrTooLarge = errors.New("the message is too large for the bus")

// errBus marks failures of the bus, in contrast to failures of the log.
var errBus = errors.New("the bus does not take a message")

// PublishTimeout is how long a bus may take for a message. The lease may run out while a
// message is in flight. The timeout is short enough for Publish to return before another
// node takes over.
const PublishTimeout = 2 * time.Second

const (
	writeEvery     = time.Second     // between writes of the lease, while there are events to send
	leaseLasts     = 2 * time.Second // counted from the start of the write
	takeOverAfter  = 5 * time.Second // without a change of the lease; longer than leaseLasts and PublishTimeout together
	checkEvery     = time.Second
	firstPause     = 100 * time.Millisecond
	longestPause   = 5 * time.Second
	giveBackWithin = 2 * time.Second
)

// Sink is a follower of the log. Run is for one goroutine; any goroutine may call the
// other methods.
type Sink struct {
	stream string
	node   string
	log    Log
	bus    Bus
	views  Views
	now    func() time.Time
	logger zerolog.Logger
	window *window

	// owned by Run
	lease     lease
	lastWrite time.Time // when this node last began to write the lease, successfully or not

	mu    sync.Mutex      // guards the fields below
	sent  domain.Position // up to here everything is sent, as far as this node knows; only Run changes it
	state State
}

// State describes how the sink is doing on this node.
type State struct {
	Err      error     // why sending fails; nil if it works or nothing had to be sent
	Sending  bool      // this node holds the lease
	Messages uint64    // sent by this node since its start
	UpTo     time.Time // when the last event sent by this node was recorded
	// Oldest is when the oldest unsent event was recorded, as far as this node knows and
	// among the newest few thousand events. It is zero if there is none.
	Oldest time.Time
}

// New returns a sink called name. It sends nothing until Run. head is the present end of
// the log. A sink that has never sent starts at the beginning of the log. It leaves out
// events for which views.Believes is false. now measures durations, so its times must
// have a monotonic reading, as those of time.Now have.
func New(name string, log Log, bus Bus, views Views, head domain.Position, now func() time.Time, logger zerolog.Logger) *Sink {
	return &Sink{
		stream: domain.SinkStream(name), node: uuid.NewString(), log: log, bus: bus, views: views, now: now,
		logger: logger.With().Str("sink", name).Logger(), window: newWindow(head), lease: lease{head: domain.EmptyHead()},
	}
}

// State returns the present state.
func (s *Sink) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Oldest = s.window.oldest(s.sent)
	return state
}

// Position is the position of the last event that Follow took.
func (s *Sink) Position() domain.Position { return s.window.newest() }

// Follow takes an event that this node or another one has to send. It never waits.
func (s *Sink) Follow(e *domain.Recorded) {
	if domain.StreamKind(e.Stream).Distribution() {
		s.window.add(e)
	}
}

// Passed does nothing: the sink sends events only.
func (s *Sink) Passed(domain.Position) {}

// CaughtUp does nothing: the sink reads events that it missed from the log.
func (s *Sink) CaughtUp() {}

// Run sends while this node holds the lease and watches the lease otherwise, until ctx
// ends. Then it gives the lease back.
func (s *Sink) Run(ctx context.Context) {
	pauses := backoff.Backoff{First: firstPause, Limit: longestPause}
	for ctx.Err() == nil {
		before := s.sent
		err := s.round(ctx)
		if ctx.Err() != nil {
			break
		}
		s.setState(err)
		if err == nil || s.sent != before {
			pauses.Reset()
		}
		if err == nil {
			s.waitForWork(ctx)
			continue
		}
		if errors.Is(err, errBus) {
			// Another node may reach the bus, and may take the lease in the meantime.
			pauses.Raise(2 * checkEvery)
		}
		pause := pauses.Next()
		s.logger.Warn().Err(err).Dur("again_in", pause).Msg("the sink does not send")
		backoff.Sleep(ctx, pause)
	}
	if s.holdsLease() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), giveBackWithin)
		defer cancel()
		if err := s.writeLease(ctx, ""); err != nil {
			s.logger.Warn().Err(err).Msg("the sink's lease is not given back")
		}
	}
}

// waitForWork waits until there may be something to do.
func (s *Sink) waitForWork(ctx context.Context) {
	news := s.window.news
	if s.lease.holder != "" && !s.holdsLease() {
		// While another node sends, its lease is checked once per checkEvery, not at each
		// event.
		news = nil
	}
	wait(ctx, news, checkEvery)
}

// wait returns when news receives a value, after pause, or when ctx ends. It reports
// whether news received a value. news may be nil.
func wait(ctx context.Context, news <-chan struct{}, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-news:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

func (s *Sink) setState(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Err, s.state.Sending = err, s.holdsLease()
}

// hasUnsent reports whether events may be unsent.
func (s *Sink) hasUnsent() bool { return s.sent.Before(s.window.newest()) }

// round sends all unsent events if this node holds the lease or may take it.
func (s *Sink) round(ctx context.Context) error {
	if err := s.bus.Ready(ctx); err != nil {
		return err
	}
	if !s.hasUnsent() {
		s.lease.unchangedSince = s.now()
		return nil
	}
	if err := s.readLease(ctx); err != nil {
		return err
	}
	if !s.hasUnsent() || !s.mayTakeLease() {
		return nil
	}
	// The unsent part of the log may hold no event of a distribution. Without this check
	// every node that starts would then take the lease for nothing.
	if found, err := s.findsUnsent(ctx); err != nil || !found {
		return err
	}
	err := s.keepLease(ctx)
	if err == nil {
		s.setState(nil)
		err = s.sendAll(ctx)
	}
	if errors.Is(err, errBus) {
		s.waitToWrite(ctx, nil)
		err = errors.Join(err, s.writeLease(ctx, ""))
	}
	return err
}

// markSent records that everything up to p is sent.
func (s *Sink) markSent(p domain.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent.Before(p) {
		s.sent = p
	}
}

// findsUnsent looks for an unsent event of a distribution.
func (s *Sink) findsUnsent(ctx context.Context) (bool, error) {
	for _, err := range s.unsentEvents(ctx) {
		return err == nil, err
	}
	return false, nil
}

// unsentEvents yields unsent events, oldest first. If the window reaches back far enough,
// it yields a chunk of events from there. Otherwise it reads the log, up to the newest
// event that this node has seen. After each chunk from the log it pauses for half the time
// that the chunk took, so that a long catch-up leaves the node time for other work.
func (s *Sink) unsentEvents(ctx context.Context) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if events, ok := s.window.after(s.sent); ok {
			for _, e := range events {
				if !yield(e, nil) {
					return
				}
			}
			return
		}
		until := s.window.newest()
		read, began := 0, s.now()
		for e, err := range s.log.Between(ctx, s.sent, until, domain.Kinds()) {
			if !yield(e, err) || err != nil {
				return
			}
			if read++; read%chunk == 0 {
				backoff.Sleep(ctx, s.now().Sub(began)/2)
				began = s.now()
			}
		}
		if until == s.window.logEnd {
			// The log ended here when the sink was made, perhaps with an event that is not
			// of a distribution. Such an event is not yielded, so sendAll cannot mark it as
			// sent.
			s.markSent(until)
		} else if s.sent.Before(until) {
			yield(nil, fmt.Errorf("%w: the store says that the log ends before position %d", domain.ErrUnavailable, until.Commit))
		}
	}
}

// sendAll sends until everything is sent and the log says so.
func (s *Sink) sendAll(ctx context.Context) error {
	for {
		for s.hasUnsent() {
			for e, err := range s.unsentEvents(ctx) {
				if err == nil {
					err = s.send(ctx, e)
				}
				if err != nil {
					return err
				}
				s.markSent(e.Position)
			}
		}
		if s.sent == s.lease.position || ctx.Err() != nil {
			return nil
		}
		if !s.waitToWrite(ctx, s.window.news) {
			return s.writeLease(ctx, s.node)
		}
	}
}

// send publishes an event's messages, one after another.
func (s *Sink) send(ctx context.Context, e *domain.Recorded) error {
	// Wait for the read models: until they have followed the event it is not known
	// whether its history is consistent.
	if err := s.views.WaitFor(ctx, e.Position); err != nil {
		return err
	}
	if e.Event == nil || !s.views.Believes(e) {
		s.logger.Error().Err(e.Undecoded).Str("stream", e.Stream).Int64("revision", int64(e.Revision)).
			Msg("an event was not sent: its stream is in quarantine")
		return nil
	}
	messages, err := domain.Messages(e)
	if err != nil {
		s.logger.Error().Err(err).Str("stream", e.Stream).Int64("revision", int64(e.Revision)).Msg("an event was not sent")
		return nil
	}
	for _, m := range messages {
		if err := s.keepLease(ctx); err != nil {
			return err
		}
		err := s.publish(m)
		if errors.Is(err, ErrTooLarge) {
			s.logger.Error().Err(err).Str("stream", e.Stream).Int64("revision", int64(e.Revision)).Msg("an event is sent without its data")
			err = s.publish(m.WithoutData())
		}
		if err != nil {
			return fmt.Errorf("%w about %s@%d: %w", errBus, e.Stream, e.Revision, err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Messages += uint64(len(messages))
	s.state.UpTo = e.RecordedAt
	return nil
}

func (s *Sink) publish(m domain.Message) error {
	return s.bus.Publish(m.Topic, message.NewMessage(m.Event.ID, m.Payload))
}
