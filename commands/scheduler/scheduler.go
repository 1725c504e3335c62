// Package scheduler makes timers prompt: it knows when each stream has something to do
// next and sends it Advance at that time.
//
// The read models tell it of the wake of every stream that had an event, whichever node
// wrote the event and whatever it is. A wake comes with the revision that it follows
// from, and the newer one counts: the scheduler knows what its own Advance has led to
// before the read models do. Sweeps load what comes within the next minute, so the
// scheduler holds that much and no more.
//
// It must not decide anything: Advance is harmless early, late or twice, and
// every command does what is due before it does its own work. So a timer that is
// lost costs promptness until the next sweep, and nothing else.
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
	// horizon is how far ahead wakes are held. It is more than there is between two
	// sweeps, so that a sweep may be late.
	horizon = 2 * sweepEvery
	// loadAhead is how long before its wake a stream is brought into memory.
	loadAhead = 5 * time.Second
	// atOnce bounds the commands under way.
	maxConcurrent = 64
	// raceDelay is how much later a stream's wakes come after another node was
	// quicker, so that nodes do not fight over a quiet stream. An unfinished outcome
	// waits as long for the writer that is about to finish it.
	raceDelay = 250 * time.Millisecond
	// retryDelay is how long a wake waits that could not be carried out.
	retryDelay = time.Second
)

// Deadlines are the read models: they say when streams have something to do.
type Deadlines interface {
	// Wakes yields the wake of every stream that has one, the earliest first.
	Wakes(yield func(domain.Wake) bool)
	// Woken tells that NewWakes has something to return: the wakes, 0 as well, of the
	// streams that had events since it was called last. The first call begins to keep
	// them and returns none.
	Woken() <-chan struct{}
	NewWakes() []domain.Wake
}

// Commands carries out what the scheduler asks for.
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
	pause     func() error // why nothing may be done now, or nil

	slots  chan struct{} // one for each command under way
	wakeUp chan struct{} // tells Run that the earliest wake may be another

	mu      sync.Mutex // guards the fields below
	timers  map[string]*timer
	due     timeQueue           // when each stream is sent Advance
	loads   timeQueue           // when each stream is loaded, loadAhead before that
	raced   map[string]bool     // streams whose last wake another node carried out first
	overdue map[string]struct{} // what was due at Begin and is not done; nil before
	started domain.Instant      // when that was
}

// timer is what the scheduler knows of a stream that wakes within the horizon, or of
// whose last wake it knows before the read models do.
type timer struct {
	domain.Wake      // the newest that is known
	advancing   bool // Advance is under way
	loaded      bool // the stream is in memory, or on its way there
}

// New returns a scheduler that does nothing until Begin and Run.
func New(deadlines Deadlines, c Commands, clock func() time.Time, log zerolog.Logger) *Scheduler {
	return &Scheduler{
		deadlines: deadlines, commands: c, clock: clock, log: log, pause: func() error { return nil },
		slots: make(chan struct{}, maxConcurrent), wakeUp: make(chan struct{}, 1),
		timers: map[string]*timer{}, due: newTimeQueue(), loads: newTimeQueue(), raced: map[string]bool{},
	}
}

// PauseWhile has the scheduler send nothing while why returns a reason. It is called
// before Begin.
func (s *Scheduler) PauseWhile(why func() error) { s.pause = why }

// Begin notes what is overdue, so that CaughtUp tells of it from then on. The read
// models have to be caught up.
func (s *Scheduler) Begin() {
	s.deadlines.NewWakes() // are kept from now on, and the sweep has those before
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

// Run keeps time until ctx ends, and returns when the commands under way have
// their answers. Begin comes before.
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
				// What was loaded was what a wrong clock called soon.
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

// CaughtUp reports whether all that was overdue at Begin has been done.
func (s *Scheduler) CaughtUp() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.overdue != nil && len(s.overdue) == 0
}

// sweep loads the wakes that come before the sweep after the next.
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
			// The read models have not come to it yet, and its time may be near by now.
			s.arm(t, 0)
		}
	}
}

// learnNew takes the wakes of the streams that had events.
func (s *Scheduler) learnNewWakes() {
	told := s.deadlines.NewWakes()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range told {
		s.learn(w)
	}
}

// beyond reports whether a wake is so far ahead that a sweep will load it in time.
func (s *Scheduler) beyondHorizon(at domain.Instant) bool {
	return at > domain.InstantOf(s.clock()).Add(horizon)
}

// learn takes a stream's wake from the read models, unless a newer one is known. The
// caller holds mu.
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
		// The read models hold it.
		delete(s.timers, w.Stream)
	}
}

// settle drops what a stream's newest wake has made untrue: that it is overdue since the
// start, or that another node is quicker with it. The caller holds mu.
func (s *Scheduler) dropOutdated(t *timer) {
	if t.At == 0 || t.At > s.started {
		// Whoever did it: what was due at the start is done.
		delete(s.overdue, t.Stream)
	}
	if t.At == 0 {
		delete(s.raced, t.Stream)
	}
}

// arm has a stream sent Advance at its wake, though not before earliest, and reports
// whether that is within the horizon. The caller holds mu.
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

// dispatch starts what is due and loads what is due soon, as far as there are
// slots, and returns how long there is nothing more to start. A command that ends
// frees its slot and tells Run.
func (s *Scheduler) dispatch(ctx context.Context, working *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		now := domain.InstantOf(s.clock())
		work := s.advance
		stream, wait := s.due.first(now)
		if wait > 0 {
			// Loading counts only while nothing is due.
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

// load brings a stream into memory. When it cannot be loaded now, it is tried
// again when it is due.
func (s *Scheduler) load(ctx context.Context, stream string) {
	if err := s.commands.Load(ctx, stream); err != nil {
		s.log.Debug().Err(err).Str("stream", stream).Msg("not loaded ahead of its time")
	}
}

// advance sends Advance to a stream and sets its next wake.
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
	newer := false // than what the read models have told
	if _, broken := errors.AsType[*domain.HistoryError](err); broken {
		// There is nothing to wake for until somebody mends it. The command handler
		// has put the stream into quarantine and logged that.
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
			// The other node carried the wake out: it left nothing to do.
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
