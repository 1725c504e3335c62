// Package sink sends what happens to distributions out of the system, to a message
// broker: every message that the relay makes of an event, in the order of the log,
// at least once, from one node at a time.
//
// Who sends, and up to where all is sent, stands in a stream of the log, sink-<name>,
// in one event (domain.Leased). It is written with the expected revision, so a node
// that was overtaken learns of it at its next write, and a node may send for a short
// while only without writing. Nobody writes while there is nothing to send. A node
// that sees something unsent and nothing written for a while takes over. How long
// that is it measures by its own clock, from what it saw itself, so clocks need not
// agree.
package sink

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// Log is what a sink needs of the event log. *eventstore.Log is one.
type Log interface {
	Between(ctx context.Context, after, until domain.Position, kinds []domain.Kind) iter.Seq2[*domain.Recorded, error]
	Newest(ctx context.Context, stream string) (*domain.Recorded, error)
	KeepNewest(ctx context.Context, stream string, n uint64) error
	Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error)
	Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error)
}

// Bus is where a sink sends to. It is called by one goroutine.
type Bus interface {
	// Ready returns why nothing can be published now. It returns soon.
	Ready(ctx context.Context) error
	// Publish returns when the broker has the message, within PublishTimeout, or
	// why it may not have it. ErrTooLarge says that it does not take one as large.
	Publish(topic string, messages ...*message.Message) error
}

// Views are the read models, as far as a sink needs them.
type Views interface {
	// WaitFor returns when the read models have followed the log up to p, or an error
	// when ctx ends first.
	WaitFor(ctx context.Context, p domain.Position) error
	// Believes reports whether an event that they have followed may be taken for a fact.
	Believes(r *domain.Recorded) bool
}

// ErrTooLarge says that a message is too large for the broker.
var ErrTooLarge = errors.New("the message is too large for the bus")

// errBus says that it was the bus that failed, and not the log.
var errBus = errors.New("the bus does not take a message")

// PublishTimeout is how long a bus may take for a message. What is under way when a
// lease may no longer be relied on ends before another node's patience does.
const PublishTimeout = 2 * time.Second

const (
	writeEvery  = time.Second     // at most, and as long as there is something to send
	leaseLasts  = 2 * time.Second // from the beginning of the write
	patience    = 5 * time.Second // longer than leaseLasts and PublishTimeout together
	lookEvery   = time.Second
	retrySoon   = 100 * time.Millisecond
	retryLate   = 5 * time.Second
	leaveWithin = 2 * time.Second
)

// kept is how many of its events a sink's stream shows: the newest counts, the
// others are for people.
const kept = 100

// Sink is a follower of the log. Its methods but Run may be called by any goroutine.
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
	lease lease
	wrote time.Time // when this node last began to write, whatever became of it

	mu    sync.Mutex      // guards the fields below
	sent  domain.Position // up to here all is sent, as far as this node knows; only Run changes it
	state State
}

// lease is what a node knows of the stream's newest event.
type lease struct {
	head     domain.Head
	holder   string
	position domain.Position
	written  time.Time // when this node began to write it, zero when another did
	// untouched is since when the lease has been as it is while something was unsent,
	// as far as this node has seen.
	untouched time.Time
}

// State is how a sink is doing on this node.
type State struct {
	Err      error     // why what is unsent cannot be sent, nil when it can
	Sending  bool      // it is this node that sends
	Messages uint64    // sent by this node since its start
	UpTo     time.Time // when the last event sent by this node was recorded
	// Oldest is when the oldest event was recorded of which this node does not know
	// that it is sent, among the newest few thousand; zero when there is none.
	Oldest time.Time
}

// New returns a sink called name, which sends nothing until Run. head is where the
// log ends now. A sink that has never sent begins with the beginning of the log.
// Events that views do not believe are left out.
// now is for measuring, so its times need a monotonic part, as those of time.Now.
func New(name string, log Log, bus Bus, views Views, head domain.Position, now func() time.Time, logger zerolog.Logger) *Sink {
	return &Sink{
		stream: domain.SinkStream(name), node: uuid.NewString(), log: log, bus: bus, views: views, now: now,
		logger: logger.With().Str("sink", name).Logger(), window: newWindow(head), lease: lease{head: domain.EmptyHead()},
	}
}

// State returns how the sink is doing.
func (s *Sink) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := s.state
	state.Oldest = s.window.oldest(s.sent)
	return state
}

// Position is the last event taken.
func (s *Sink) Position() domain.Position { return s.window.newest() }

// Follow takes an event to be sent by this node or another. It does not wait.
func (s *Sink) Follow(e *domain.Recorded) {
	if domain.StreamKind(e.Stream).Distribution() {
		s.window.add(e)
	}
}

// Passed does nothing: where there are no events there is nothing to send.
func (s *Sink) Passed(domain.Position) {}

// CaughtUp does nothing: what is unsent is found in the log.
func (s *Sink) CaughtUp() {}

// Run sends, or watches another node send, until ctx ends. Then it gives the lease
// back.
func (s *Sink) Run(ctx context.Context) {
	retry := retrySoon
	for ctx.Err() == nil {
		before := s.sent
		err := s.turn(ctx)
		if ctx.Err() != nil {
			break
		}
		s.note(err)
		if err == nil || s.sent != before {
			retry = retrySoon
		}
		if err == nil {
			s.rest(ctx)
			continue
		}
		if errors.Is(err, errBus) {
			// Perhaps another node reaches the bus, which now may take the lease.
			retry = max(retry, 2*lookEvery)
		}
		s.logger.Warn().Err(err).Dur("again_in", retry).Msg("the sink does not send")
		wait(ctx, nil, retry)
		retry = min(2*retry, retryLate)
	}
	if s.mine() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveWithin)
		defer cancel()
		if err := s.write(ctx, ""); err != nil {
			s.logger.Warn().Err(err).Msg("the sink's lease is not given back")
		}
	}
}

// rest waits until there may be something to do.
func (s *Sink) rest(ctx context.Context) {
	news := s.window.news
	if s.lease.holder != "" && !s.mine() {
		// Each event would have it look whether the other one sends.
		news = nil
	}
	wait(ctx, news, lookEvery)
}

// wait returns when there is news, when the time is over, or when ctx ends. It
// reports whether there is news.
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

func (s *Sink) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Err, s.state.Sending = err, s.mine()
}

func (s *Sink) mine() bool { return s.lease.holder == s.node }

// unsent reports whether there may be something to send.
func (s *Sink) unsent() bool { return s.sent.Before(s.window.newest()) }

// turn sends what there is to send, if it is this node's turn.
func (s *Sink) turn(ctx context.Context) error {
	if err := s.bus.Ready(ctx); err != nil {
		return err
	}
	if !s.unsent() {
		s.lease.untouched = s.now()
		return nil
	}
	if err := s.look(ctx); err != nil {
		return err
	}
	if !s.unsent() || !s.free() {
		return nil
	}
	// Or a node would take the lease for nothing whenever it starts.
	if there, err := s.peek(ctx); err != nil || !there {
		return err
	}
	err := s.hold(ctx)
	if err == nil {
		s.note(nil)
		err = s.lead(ctx)
	}
	if errors.Is(err, errBus) {
		s.pace(ctx, nil)
		err = errors.Join(err, s.write(ctx, ""))
	}
	return err
}

// free reports whether this node may take the lease.
func (s *Sink) free() bool {
	return s.lease.holder == "" || s.mine() || s.now().Sub(s.lease.untouched) >= patience
}

// look reads how the lease is.
func (s *Sink) look(ctx context.Context) error {
	r, err := s.log.Newest(ctx, s.stream)
	if err != nil || r == nil || r.Revision == s.lease.head.Revision {
		return err
	}
	e, ok := r.Event.(domain.Leased)
	_, hash, hashed := domain.SplitHash(r.RawMetadata)
	if !ok || !hashed {
		return fmt.Errorf("%s@%d is no lease that this program can read", s.stream, r.Revision)
	}
	s.lease = lease{
		head: domain.Head{Revision: r.Revision, Hash: hash}, holder: e.Holder, position: e.Position, untouched: s.now(),
	}
	s.done(e.Position)
	return nil
}

// done says that up to p all is sent.
func (s *Sink) done(p domain.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent.Before(p) {
		s.sent = p
	}
}

// peek reports whether there is indeed something to send.
func (s *Sink) peek(ctx context.Context) (bool, error) {
	for _, err := range s.behind(ctx) {
		return err == nil, err
	}
	return false, nil
}

// behind yields events that are not sent yet, in order: those of the window if it
// reaches back that far, else those of the log up to what is newest now. Then it rests
// half as long as its caller works, so that a long way leaves the node time.
func (s *Sink) behind(ctx context.Context) iter.Seq2[*domain.Recorded, error] {
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
				wait(ctx, nil, s.now().Sub(began)/2)
				began = s.now()
			}
		}
		if until == s.window.began {
			// No event of a distribution may stand there.
			s.done(until)
		} else if s.sent.Before(until) {
			yield(nil, fmt.Errorf("%w: the log is said to end before %d", domain.ErrUnavailable, until.Commit))
		}
	}
}

// lead sends until all is sent and that is written down.
func (s *Sink) lead(ctx context.Context) error {
	for {
		for s.unsent() {
			for e, err := range s.behind(ctx) {
				if err == nil {
					err = s.send(ctx, e)
				}
				if err != nil {
					return err
				}
				s.done(e.Position)
			}
		}
		if s.sent == s.lease.position || ctx.Err() != nil {
			return nil
		}
		if !s.pace(ctx, s.window.news) {
			return s.write(ctx, s.node)
		}
	}
}

// hold returns when this node has the lease for the next message.
func (s *Sink) hold(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.mine() && s.now().Sub(s.lease.written) < writeEvery {
		return nil
	}
	s.pace(ctx, nil)
	if err := s.write(ctx, s.node); err != nil {
		return err
	}
	if took := s.now().Sub(s.lease.written); took >= leaseLasts {
		return fmt.Errorf("%w: writing to %s took %s, longer than the lease lasts", domain.ErrUnavailable, s.stream, took)
	}
	return nil
}

// pace waits until this node may write again, or for news if any is wanted. It
// reports whether there is news.
func (s *Sink) pace(ctx context.Context, news <-chan struct{}) bool {
	return wait(ctx, news, s.wrote.Add(writeEvery).Sub(s.now()))
}

// write has the log say who holds the lease from now on, and how far all is sent.
func (s *Sink) write(ctx context.Context, holder string) error {
	began := s.now()
	s.wrote = began
	if s.lease.head == domain.EmptyHead() {
		if err := s.log.KeepNewest(ctx, s.stream, kept); err != nil {
			return err
		}
	}
	id := uuid.New()
	proposed, err := s.log.Encode(s.stream, domain.Leased{
		Stamp: domain.Stamp{At: domain.InstantOf(began)}, Holder: holder, Position: s.sent,
	}, domain.Metadata{
		CommandID: id.String(), CorrelationID: id.String(), CausationID: id.String(), Actor: domain.ActorClock,
	})
	if err != nil {
		return err
	}
	proposed.ID = id
	head, _, err := s.log.Append(ctx, s.stream, s.lease.head, []domain.Proposed{proposed})
	if err != nil {
		return err
	}
	if holder != s.lease.holder {
		s.logger.Info().Str("from", s.lease.holder).Str("to", holder).Msg("the sink's lease changes hands")
	}
	s.lease = lease{head: head, holder: holder, position: s.sent, written: began, untouched: began}
	return nil
}

// send sends an event's messages, one after another.
func (s *Sink) send(ctx context.Context, e *domain.Recorded) error {
	// What the read models have not looked at may turn out to be no fact.
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
		if err := s.hold(ctx); err != nil {
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

// What the window holds at most, so that what the bus does not take costs no
// memory: the log has it.
const (
	windowEvents = 4096
	windowBytes  = 4 << 20
)

// chunk is how many events of the window are looked at without its lock, and of the
// log without a rest.
const chunk = 256

// window has the newest events of the log.
type window struct {
	began domain.Position // where the log ended when the window was opened
	news  chan struct{}   // holds something when an event came

	mu     sync.Mutex // guards the fields below
	events []*domain.Recorded
	bytes  int
	floor  domain.Position // all behind it is here
	last   domain.Position
}

func newWindow(at domain.Position) *window {
	return &window{began: at, news: make(chan struct{}, 1), floor: at, last: at}
}

func size(e *domain.Recorded) int { return len(e.Data) + len(e.RawMetadata) }

func (w *window) add(e *domain.Recorded) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last.Before(e.Position) {
		return
	}
	w.last = e.Position
	w.events = append(w.events, e)
	w.bytes += size(e)
	for len(w.events) > windowEvents || w.bytes > windowBytes {
		oldest := w.events[0]
		w.floor = oldest.Position
		w.bytes -= size(oldest)
		w.events[0] = nil
		w.events = w.events[1:]
	}
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *window) newest() domain.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// after returns the first events behind p. It reports false when some of them are
// here no more.
func (w *window) after(p domain.Position) ([]*domain.Recorded, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Before(w.floor) {
		return nil, false
	}
	from := w.find(p)
	return slices.Clone(w.events[from:min(from+chunk, len(w.events))]), true
}

// oldest is when the first event here behind p was recorded, or zero.
func (w *window) oldest(p domain.Position) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from := w.find(p); from < len(w.events) {
		return w.events[from].RecordedAt
	}
	return time.Time{}
}

// find is where the events behind p begin. The lock is held.
func (w *window) find(p domain.Position) int {
	from, _ := slices.BinarySearchFunc(w.events, p, func(e *domain.Recorded, p domain.Position) int {
		if p.Before(e.Position) {
			return 1
		}
		return -1
	})
	return from
}
