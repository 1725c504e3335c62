// Package scheduler makes timers prompt: it knows when each distribution and each
// organization has something to do next and sends it Advance at that time.
//
// It must not decide anything: Advance is harmless early, late or twice, and
// every command does what is due before it does its own work. So a timer that is
// lost costs promptness until the next sweep, and nothing else.
package scheduler

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

const (
	// sweepEvery is how often all wakes are loaded again.
	sweepEvery = 30 * time.Second
	// loadAhead is how long before its wake a stream is brought into memory.
	loadAhead = 5 * time.Second
	// atOnce bounds the commands under way.
	atOnce = 64
	// raceDelay is how much later a stream's wakes come after another node was
	// quicker, so that nodes do not fight over a quiet stream.
	raceDelay = 250 * time.Millisecond
	// retryDelay is how long a wake waits that could not be carried out.
	retryDelay = time.Second
)

// Deadlines says when distributions and organizations have something to do.
type Deadlines interface {
	// Wakes yields each stream's next wake, the earliest first.
	Wakes(yield func(stream string, at domain.Instant) bool)
	// Wake is a stream's next wake, or 0 for never.
	Wake(stream string) domain.Instant
	// Rearmed tells that there are streams in Earlier: those that wake earlier than
	// before without a message that says so. They are given once.
	Rearmed() <-chan struct{}
	Earlier() []string
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

	slots   chan struct{} // one for each command under way
	changed chan struct{} // tells Run that the earliest wake may be another

	mu      sync.Mutex // guards the fields below
	due     queue
	ahead   queue               // the same wakes, loadAhead earlier, until they were loaded
	raced   map[string]bool     // streams whose last wake another node carried out
	overdue map[string]struct{} // what was due at Begin and is not done; nil before
	started domain.Instant      // when that was
}

// New returns a scheduler that does nothing until Begin and Run.
func New(deadlines Deadlines, c Commands, clock func() time.Time, log zerolog.Logger) *Scheduler {
	return &Scheduler{
		deadlines: deadlines, commands: c, clock: clock, log: log, pause: func() error { return nil },
		slots: make(chan struct{}, atOnce), changed: make(chan struct{}, 1),
		due: newQueue(), ahead: newQueue(), raced: map[string]bool{},
	}
}

// PauseWhile has the scheduler send nothing while why returns a reason. It is called
// before Begin.
func (s *Scheduler) PauseWhile(why func() error) { s.pause = why }

// Begin notes what is overdue, so that CaughtUp tells of it from then on. The read
// model has to be caught up.
func (s *Scheduler) Begin() {
	s.sweep()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.overdue, s.started = map[string]struct{}{}, domain.InstantOf(s.clock())
	for stream, w := range s.due.at {
		if w.at <= s.started {
			s.overdue[stream] = struct{}{}
		}
	}
}

// Run keeps time until ctx ends, and returns when the commands under way have
// their answers. Begin comes before; updates are the messages on
// domain.TopicDistributionUpdated since then.
func (s *Scheduler) Run(ctx context.Context, updates <-chan *message.Message) {
	var working sync.WaitGroup
	defer working.Wait()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	paused := false
	for {
		if s.pause() != nil {
			paused = true
			timer.Reset(retryDelay)
		} else {
			if paused {
				// What was loaded was what a wrong clock called soon.
				s.sweep()
				paused = false
			}
			timer.Reset(s.dispatch(ctx, &working))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-s.changed:
		case <-sweep.C:
			s.sweep()
		case <-s.deadlines.Rearmed():
			s.rearm()
		case m, ok := <-updates:
			if !ok {
				updates = nil
				continue
			}
			s.update(m)
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
	horizon := domain.InstantOf(s.clock()).Add(2 * sweepEvery)
	s.deadlines.Wakes(func(stream string, at domain.Instant) bool {
		if at > horizon {
			return false
		}
		s.arm(stream, at)
		return true
	})
}

// rearm takes up the wakes that have come to be earlier.
func (s *Scheduler) rearm() {
	for _, stream := range s.deadlines.Earlier() {
		at := s.deadlines.Wake(stream)
		s.mu.Lock()
		s.arm(stream, at)
		s.mu.Unlock()
	}
}

// update takes a message about a changed schedule. It is a hint to look at the
// read model, which may not know yet what follows from the change: so the times
// in the message count as well. To come early does no harm. A message that
// cannot be read is logged and dropped, because one that is refused comes again
// at once.
func (s *Scheduler) update(m *message.Message) {
	defer m.Ack()
	var event struct {
		Data domain.TimingChanged `json:"data"`
	}
	if err := json.Unmarshal(m.Payload, &event); err != nil {
		s.log.Error().Err(err).Str("message", m.UUID).Msg("unreadable message")
		return
	}
	stream := event.Data.DistributionID.Stream()
	at := s.deadlines.Wake(stream)
	for _, change := range event.Data.Changed {
		var t domain.Instant
		if err := json.Unmarshal(change.New, &t); err != nil {
			s.log.Error().Err(err).Str("message", m.UUID).Msg("unreadable message")
			continue
		}
		if at == 0 || (t != 0 && t < at) {
			at = t
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arm(stream, at)
}

// arm sets a stream's wake. The caller holds mu.
func (s *Scheduler) arm(stream string, at domain.Instant) {
	if at == 0 || at > s.started {
		// Whoever did it: what was due at the start is done.
		delete(s.overdue, stream)
	}
	if at == 0 {
		s.due.remove(stream)
		s.ahead.remove(stream)
		delete(s.raced, stream)
		return
	}
	if s.raced[stream] {
		at = at.Add(raceDelay)
	}
	if s.due.set(stream, at) {
		s.ahead.set(stream, at.Add(-loadAhead))
	}
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
			ahead, waitAhead := s.ahead.first(now)
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
		if wait <= 0 {
			s.due.remove(stream)
		}
		s.ahead.remove(stream)
		working.Go(func() {
			work(ctx, stream)
			<-s.slots
			select {
			case s.changed <- struct{}{}:
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
	var broken *domain.HistoryError
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.As(err, &broken):
		// Quarantined: there is nothing to wake for until somebody mends it.
		s.log.Error().Err(err).Msg("a stream cannot be advanced")
	case err != nil:
		s.log.Warn().Err(err).Str("stream", stream).Msg("a timer is tried again")
		s.due.set(stream, domain.InstantOf(s.clock().Add(retryDelay)))
		return
	default:
		if result.Raced {
			s.raced[stream] = true
		} else {
			delete(s.raced, stream)
		}
		s.arm(stream, result.History.Aggregate.Wake())
	}
	delete(s.overdue, stream)
}

// wake is one stream's next wake.
type wake struct {
	stream string
	at     domain.Instant
	index  int // in the heap
}

// queue holds the latest wake of each stream, the earliest first.
type queue struct {
	at   map[string]*wake
	heap wakeHeap
}

func newQueue() queue { return queue{at: map[string]*wake{}} }

// first returns the earliest wake's stream and how long it is until then, not
// more than sweepEvery.
func (q *queue) first(now domain.Instant) (stream string, wait time.Duration) {
	if len(q.heap) == 0 {
		return "", sweepEvery
	}
	w := q.heap[0]
	return w.stream, min(w.at.Time().Sub(now.Time()), sweepEvery)
}

// set reports whether the stream's wake is another one than before.
func (q *queue) set(stream string, at domain.Instant) bool {
	w, ok := q.at[stream]
	if !ok {
		w = &wake{stream: stream, at: at}
		q.at[stream] = w
		heap.Push(&q.heap, w)
		return true
	}
	if w.at == at {
		return false
	}
	w.at = at
	heap.Fix(&q.heap, w.index)
	return true
}

func (q *queue) remove(stream string) {
	if w, ok := q.at[stream]; ok {
		delete(q.at, stream)
		heap.Remove(&q.heap, w.index)
	}
}

// wakeHeap implements heap.Interface. Streams of one moment are in the order of
// their names, that is, of their creation.
type wakeHeap []*wake

func (h wakeHeap) Len() int { return len(h) }

func (h wakeHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].stream < h[j].stream
}

func (h wakeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *wakeHeap) Push(x any) {
	w := x.(*wake)
	w.index = len(*h)
	*h = append(*h, w)
}

func (h *wakeHeap) Pop() any {
	old := *h
	w := old[len(old)-1]
	*h = old[:len(old)-1]
	return w
}
