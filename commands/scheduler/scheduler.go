// Package scheduler makes timers prompt: it knows when each stream has something to do
// next and sends it Advance at that time.
//
// A stream's wake is the time of its next timer. After every event of a stream, from
// whatever node, the read models tell the scheduler the stream's wake. A wake has the
// revision of the event that it follows from, and the wake with the higher revision
// counts, because the scheduler learns the result of its own Advance before the read
// models do. Every 30 seconds a sweep loads the wakes of the next minute. The scheduler
// holds no later ones.
//
// The scheduler must not decide anything. Advance does no harm when it comes early, late
// or twice, and every command does what is due before its own work. So a timer that is
// lost is late until the next sweep, and nothing else happens.
package scheduler

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

const (
	// sweepEvery is how often all wakes are loaded again.
	sweepEvery = 30 * time.Second
	// horizon is how far ahead wakes are held. It is longer than the time between two
	// sweeps, so that a sweep may be late.
	horizon = 2 * sweepEvery
	// loadAhead is how long before its wake a stream is brought into memory.
	loadAhead = 5 * time.Second
	// maxConcurrent bounds the commands in flight.
	maxConcurrent = 64
	// raceDelay is how much later the scheduler sends Advance to a stream whose last wake
	// another node carried out first, so that the nodes do not compete for it. It waits as
	// long for another writer to finish an outcome of which only a part is in the log.
	raceDelay = 250 * time.Millisecond
	// retryDelay is how long a wake waits after its Advance failed.
	retryDelay = time.Second
)

// Deadlines are the part of the read models that this package uses.
type Deadlines interface {
	// Wakes yields the wake of every stream that has one, the earliest first.
	Wakes(yield func(domain.Wake) bool)
	// NewWakes returns the wakes of the streams that had events since the last call. A
	// stream that has no wake any more is among them, with the time 0. The first call
	// returns none: the read models keep new wakes from then on.
	NewWakes() []domain.Wake
	// Woken receives a value when NewWakes has something to return.
	Woken() <-chan struct{}
}

// Commands is the part of the command handler that this package uses.
type Commands interface {
	Handle(ctx context.Context, r commands.Request) (commands.Result, error)
	Load(ctx context.Context, stream string) error
}

// Scheduler sends Advance to streams when they have something to do.
type Scheduler struct {
	deadlines Deadlines
	commands  Commands
	clock     func() time.Time
	log       zerolog.Logger
	pause     func() error // returns why nothing may be sent now, or nil

	slots  chan struct{} // holds one value for each command in flight
	wakeUp chan struct{} // tells Run that a slot is free or the first wake may have changed

	mu      sync.Mutex // guards the fields below
	timers  map[string]*timer
	due     schedule            // when each stream is sent Advance
	loads   schedule            // when each stream is loaded, loadAhead before it is due
	raced   map[string]bool     // the streams whose last wake another node carried out first
	overdue map[string]struct{} // the streams that were due at Begin and are still; nil before Begin
	started domain.Instant      // the time of Begin
}

// timer is what the scheduler knows of a stream. It has a timer for each stream whose wake
// is within the horizon, and for each stream whose newest wake the read models do not have
// yet.
type timer struct {
	domain.Wake      // the newest one that the scheduler knows
	advancing   bool // an Advance is in flight
	loaded      bool // the stream is in memory or being loaded
}

// New returns a scheduler that does nothing before Begin and Run are called.
func New(deadlines Deadlines, c Commands, clock func() time.Time, log zerolog.Logger) *Scheduler {
	return &Scheduler{
		deadlines: deadlines, commands: c, clock: clock, log: log, pause: func() error { return nil },
		slots: make(chan struct{}, maxConcurrent), wakeUp: make(chan struct{}, 1),
		timers: map[string]*timer{}, due: newSchedule(), loads: newSchedule(), raced: map[string]bool{},
	}
}

// PauseWhile makes the scheduler send nothing while why returns an error. It must be called
// before Begin.
func (s *Scheduler) PauseWhile(why func() error) { s.pause = why }

// Begin notes which streams are overdue, for CaughtUp. The read models must have caught
// up before.
func (s *Scheduler) Begin() {
	s.deadlines.NewWakes() // from now on the read models keep new wakes; the sweep loads the older ones
	s.sweep()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overdue, s.started = map[string]struct{}{}, domain.InstantOf(s.clock())
	for stream, t := range s.timers {
		if t.At <= s.started {
			s.overdue[stream] = struct{}{}
		}
	}
}

// Run sends Advance to each stream at its wake, until ctx ends. It returns when the
// commands in flight have their results. Begin must be called before.
func (s *Scheduler) Run(ctx context.Context) {
	var working sync.WaitGroup
	defer working.Wait()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	next := time.NewTimer(0)
	defer next.Stop()
	paused := false
	for {
		if s.pause() != nil {
			paused = true
			next.Reset(retryDelay)
		} else {
			if paused {
				// The last sweep used the time of the wrong clock.
				s.sweep()
				paused = false
			}
			next.Reset(s.dispatch(ctx, &working))
		}
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		case <-s.wakeUp:
		case <-s.deadlines.Woken():
			s.learnNewWakes()
		case <-sweep.C:
			s.sweep()
		}
	}
}

// CaughtUp reports whether no stream that was overdue at Begin is still overdue. Before
// Begin it reports false.
func (s *Scheduler) CaughtUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overdue != nil && len(s.overdue) == 0
}

// sweep loads the wakes within the horizon.
func (s *Scheduler) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deadlines.Wakes(func(w domain.Wake) bool {
		if s.beyondHorizon(w.At) {
			return false
		}
		s.learn(w)
		return true
	})
	for stream, t := range s.timers {
		if _, armed := s.due.byStream[stream]; !armed && !t.advancing {
			// The read models do not have this wake yet, and it may be within the horizon
			// by now.
			s.arm(t, 0)
		}
	}
}

// learnNewWakes learns the wakes of the streams that had events.
func (s *Scheduler) learnNewWakes() {
	told := s.deadlines.NewWakes()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range told {
		s.learn(w)
	}
}

// beyondHorizon reports whether a wake is so far ahead that a later sweep loads it in
// time.
func (s *Scheduler) beyondHorizon(at domain.Instant) bool {
	return at > domain.InstantOf(s.clock()).Add(horizon)
}

// learn takes a stream's wake from the read models, unless the scheduler knows a newer
// one. The caller holds mu.
func (s *Scheduler) learn(w domain.Wake) {
	t, ok := s.timers[w.Stream]
	switch {
	case !ok:
		t = &timer{}
		s.timers[w.Stream] = t
	case w.Revision < t.Revision, w == t.Wake:
		return
	}
	t.Wake = w
	if s.dropOutdated(t); !t.advancing && !s.arm(t, 0) {
		// A sweep finds the wake in the read models.
		delete(s.timers, w.Stream)
	}
}

// dropOutdated removes a stream from overdue if its newest wake is after the start, or if
// it has no wake. It removes a stream without a wake from raced as well. The caller holds
// mu.
func (s *Scheduler) dropOutdated(t *timer) {
	if t.At == 0 || t.At > s.started {
		// The wake that was overdue has been carried out, here or by another node.
		delete(s.overdue, t.Stream)
	}
	if t.At == 0 {
		delete(s.raced, t.Stream)
	}
}

// arm schedules the Advance of a stream for its wake, but not before earliest. It reports
// whether the wake is within the horizon; otherwise it schedules nothing. The caller holds
// mu.
func (s *Scheduler) arm(t *timer, earliest domain.Instant) bool {
	if t.At == 0 || s.beyondHorizon(t.At) {
		s.due.remove(t.Stream)
		s.loads.remove(t.Stream)
		return false
	}
	at := t.At
	switch {
	case t.Unfinished:
		at = max(at, domain.InstantOf(s.clock())).Add(raceDelay)
	case s.raced[t.Stream]:
		at = at.Add(raceDelay)
	}
	at = max(at, earliest)
	s.due.set(t.Stream, at)
	if !t.loaded && !t.Unfinished {
		s.loads.set(t.Stream, at.Add(-loadAhead))
	}
	return true
}

// dispatch sends Advance to the streams that are due and loads those that are due soon,
// while there are free slots. It returns how long Run may wait before the next one. A
// command that ends frees its slot and tells Run.
func (s *Scheduler) dispatch(ctx context.Context, working *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		now := domain.InstantOf(s.clock())
		work := s.advance
		stream, wait := s.due.first(now)
		if wait > 0 {
			// Streams are loaded only while none is due.
			ahead, waitAhead := s.loads.first(now)
			if waitAhead > 0 {
				return min(wait, waitAhead)
			}
			stream, work = ahead, s.load
		}
		select {
		case s.slots <- struct{}{}:
		default:
			return sweepEvery
		}
		t := s.timers[stream]
		if wait <= 0 {
			s.due.remove(stream)
			t.advancing = true
		}
		s.loads.remove(stream)
		t.loaded = true
		working.Go(func() {
			work(ctx, stream)
			<-s.slots
			select {
			case s.wakeUp <- struct{}{}:
			default:
			}
		})
	}
}

// load brings a stream into memory. If that fails, the stream's Advance loads it.
func (s *Scheduler) load(ctx context.Context, stream string) {
	if err := s.commands.Load(ctx, stream); err != nil {
		s.log.Debug().Err(err).Str("stream", stream).Msg("not loaded ahead of its time")
	}
}

// advance sends Advance to a stream and schedules its next wake.
func (s *Scheduler) advance(ctx context.Context, stream string) {
	result, err := s.commands.Handle(ctx, commands.Request{
		Stream: stream, Command: domain.Advance{}, Caller: commands.Caller{Actor: domain.ActorClock},
	})
	if ctx.Err() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.timers[stream]
	t.advancing = false
	var earliest domain.Instant
	newer := false // the result has a newer wake than the read models have told
	if _, broken := errors.AsType[*domain.HistoryError](err); broken {
		// The command handler has put the stream into quarantine and logged that. Until
		// somebody repairs it, the stream takes no commands.
		delete(s.overdue, stream)
		delete(s.timers, stream)
		return
	}
	if err != nil {
		s.log.Warn().Err(err).Str("stream", stream).Msg("a timer is tried again")
		earliest = domain.InstantOf(s.clock().Add(retryDelay))
	} else {
		delete(s.overdue, stream)
		if result.Raced && !result.Written {
			// The other node carried out the wake, and there was nothing left to do.
			s.raced[stream] = true
		} else {
			delete(s.raced, stream)
		}
		if h := result.History; h.Head.Revision > t.Revision {
			newer = true
			t.Wake = domain.Wake{Stream: stream, Revision: h.Head.Revision, At: h.Aggregate.Wake()}
			s.dropOutdated(t)
		}
	}
	if !s.arm(t, earliest) && !newer {
		delete(s.timers, stream)
	}
}
