package scheduler

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeNode takes the place of the read models and the command handler. It has queues that
// open at their wakes, and notes the calls of the handler. In a synctest bubble it uses the
// bubble's time.
type fakeNode struct {
	mu          sync.Mutex             // guards the fields below
	wakes       map[string]domain.Wake // as the read models have them
	told        map[string]domain.Wake // those that NewWakes has not returned yet; nil before its first call
	woken       chan struct{}
	calls       []string // the calls, each with the time since the start
	fail        func(stream string) error
	raced       bool
	wrote       bool           // with raced: the other node did not carry out the wake
	next        domain.Instant // the wake after the one that is carried out
	notFollowed bool           // the read models do not follow the events of Advance
	slow        time.Duration
	running     int
	mostRunning int
	began       time.Time
}

func newFakeNode() *fakeNode {
	return &fakeNode{wakes: map[string]domain.Wake{}, woken: make(chan struct{}, 1), fail: func(string) error { return nil }, began: time.Now()}
}

func (n *fakeNode) in(d time.Duration) domain.Instant { return domain.InstantOf(n.began.Add(d)) }

// set makes the read models follow one more event of a stream, after which its wake is at.
func (n *fakeNode) set(stream string, at domain.Instant) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tell(domain.Wake{Stream: stream, Revision: n.wakes[stream].Revision + 1, At: at})
}

// tell makes the read models have a wake. The caller holds mu.
func (n *fakeNode) tell(w domain.Wake) {
	n.wakes[w.Stream] = w
	if n.told == nil {
		return
	}
	n.told[w.Stream] = w
	select {
	case n.woken <- struct{}{}:
	default:
	}
}

// setUntold does what set does, but NewWakes does not return the wake.
func (n *fakeNode) setUntold(stream string, at domain.Instant) {
	n.set(stream, at)
	n.NewWakes()
}

func (n *fakeNode) Wakes(yield func(domain.Wake) bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	byTime := func(a, b domain.Wake) int { return int(a.At - b.At) }
	for _, w := range slices.SortedFunc(maps.Values(n.wakes), byTime) {
		if w.At != 0 && !yield(w) {
			return
		}
	}
}

func (n *fakeNode) Woken() <-chan struct{} { return n.woken }

func (n *fakeNode) NewWakes() []domain.Wake {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := n.told
	n.told = map[string]domain.Wake{}
	return slices.Collect(maps.Values(told))
}

func (n *fakeNode) Handle(_ context.Context, r commands.Request) (commands.Result, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := r.Command.(domain.Advance); !ok || r.Caller.Actor != domain.ActorClock {
		return commands.Result{}, fmt.Errorf("called with %+v", r)
	}
	n.calls = append(n.calls, fmt.Sprintf("advance %s at %s", r.Stream, time.Since(n.began)))
	n.running++
	n.mostRunning = max(n.mostRunning, n.running)
	if n.slow > 0 {
		n.mu.Unlock()
		time.Sleep(n.slow) //nolint:forbidigo // in a synctest bubble
		n.mu.Lock()
	}
	n.running--
	if err := n.fail(r.Stream); err != nil {
		return commands.Result{}, err
	}
	q, at := &domain.Queue{}, n.next
	if at != 0 {
		q.Status, q.OpenAt, n.next = domain.StatusScheduled, at, 0
	}
	w := domain.Wake{Stream: r.Stream, Revision: n.wakes[r.Stream].Revision + 1, At: at}
	if !n.notFollowed {
		n.tell(w)
	}
	return commands.Result{History: &domain.History{Aggregate: q, Head: domain.Head{Revision: w.Revision}}, Raced: n.raced, Written: n.wrote || !n.raced}, nil
}

func (n *fakeNode) Load(_ context.Context, stream string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls = append(n.calls, fmt.Sprintf("load %s at %s", stream, time.Since(n.began)))
	return nil
}

// advances returns the noted calls of Advance.
func advances(n *fakeNode) []string {
	return slices.DeleteFunc(n.noted(), func(note string) bool { return note[0] != 'a' })
}

func (n *fakeNode) noted() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.calls)
}

// bubble runs test in fake time with a scheduler.
func bubble(t *testing.T, test func(n *fakeNode, s *Scheduler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := newFakeNode()
		s := New(n, n, time.Now, zerolog.Nop())
		test(n, s)
	})
}

// running starts s and returns a function that stops it.
func running(s *Scheduler) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	s.Begin()
	done.Go(func() { s.Run(ctx) })
	return func() {
		cancel()
		done.Wait()
	}
}

func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a synctest bubble
	synctest.Wait()
}

const (
	a = "queue-01h455vb4pex5vsknk084sn02a"
	b = "queue-01h455vb4pex5vsknk084sn02b"
	c = "queue-01h455vb4pex5vsknk084sn02c"
)

func TestScheduler_advancesOnTimeAndLoadsAhead(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(20*time.Second))
		n.set(b, n.in(2*time.Second))
		defer running(s)()
		pass(time.Minute)
		want := []string{
			"load " + b + " at 0s", "advance " + b + " at 2s",
			"load " + a + " at 15s", "advance " + a + " at 20s",
		}
		if got := n.noted(); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_overdueWakesComeFirstAndThenItHasCaughtUp(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.slow = time.Second
		n.set(a, n.in(-time.Hour))
		n.set(b, n.in(-2*time.Hour))
		n.set(c, n.in(10*time.Second))
		if s.CaughtUp() {
			t.Error("caught up before it began")
		}
		defer running(s)()
		synctest.Wait()
		if got, want := n.noted(), []string{"advance " + b + " at 0s", "advance " + a + " at 0s"}; len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
			t.Errorf("got %v", got)
		}
		if s.CaughtUp() {
			t.Error("caught up while both are in flight")
		}
		pass(2 * time.Second)
		if !s.CaughtUp() {
			t.Error("not caught up")
		}
	})
}

func TestScheduler_knowsOverdueWakesBeforeItRuns(t *testing.T) {
	t.Parallel()
	for name, overdue := range map[string]bool{"one stream": true, "no stream": false} {
		bubble(t, func(n *fakeNode, s *Scheduler) {
			n.set(a, n.in(time.Second))
			if overdue {
				n.set(b, n.in(-time.Second))
			}
			s.Begin()
			if s.CaughtUp() == overdue {
				t.Errorf("%s is overdue, caught up %t", name, s.CaughtUp())
			}
		})
	}
}

func TestScheduler_anEventMovesAWake(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(time.Hour))
		n.set(c, n.in(20*time.Second))
		defer running(s)()
		pass(time.Second)
		n.set(a, n.in(3*time.Second))
		n.set(b, n.in(4*time.Second))
		n.set(c, n.in(40*time.Second))
		pass(time.Minute)
		for _, want := range []string{"advance " + a + " at 3s", "advance " + b + " at 4s", "advance " + c + " at 40s"} {
			if got := n.noted(); !slices.Contains(got, want) {
				t.Errorf("got %v, want %s", got, want)
			}
		}
	})
}

func TestScheduler_hasCaughtUpWhenAnotherNodeDidTheOverdueWakes(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]domain.Instant{"and it is over": 0, "and it goes on": domain.InstantOf(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))} {
		bubble(t, func(n *fakeNode, s *Scheduler) {
			n.set(a, n.in(-time.Hour))
			n.fail = func(string) error { return domain.ErrUnavailable }
			defer running(s)()
			pass(time.Millisecond)
			n.set(a, next)
			synctest.Wait()
			if !s.CaughtUp() {
				t.Errorf("%s: not caught up", name)
			}
		})
	}
}

func TestScheduler_holdsNoWakesBeyondTheHorizon(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(45*time.Second))
		n.set(b, n.in(75*time.Second))
		defer running(s)()
		synctest.Wait()
		s.mu.Lock()
		held := len(s.due.heap)
		s.mu.Unlock()
		if held != 1 {
			t.Errorf("%d wakes are held", held)
		}
		pass(80 * time.Second)
		if got := n.noted(); !slices.Contains(got, "advance "+a+" at 45s") || !slices.Contains(got, "advance "+b+" at 1m15s") {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_anEventCanTakeAWakeAway(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Duration{"for good": 0, "beyond the horizon": time.Hour} {
		bubble(t, func(n *fakeNode, s *Scheduler) {
			n.set(a, n.in(20*time.Second))
			defer running(s)()
			pass(time.Second)
			var later domain.Instant
			if at != 0 {
				later = n.in(at)
			}
			n.set(a, later)
			pass(10 * time.Minute)
			if got := n.noted(); len(got) != 0 || len(s.timers) != 0 {
				t.Errorf("%s: got %v, and holds %d timers", name, got, len(s.timers))
			}
		})
	}
}

func TestScheduler_aSweepFindsAWakeThatWasNotTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		defer running(s)()
		pass(time.Second)
		n.setUntold(a, n.in(2*time.Second))
		pass(sweepEvery)
		if got := n.noted(); !slices.Equal(got, []string{"advance " + a + " at 30s"}) {
			t.Errorf("got %v", got)
		}
	})
}

// Read models that are behind tell a wake that the scheduler's own Advance has carried out
// already. It changes nothing.
func TestScheduler_aReadModelThatIsBehindMovesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.notFollowed, n.next = true, n.in(10*time.Second)
		n.set(a, n.in(time.Second))
		defer running(s)()
		pass(2 * time.Second)
		n.mu.Lock()
		was := n.wakes[a]
		n.tell(was) // it is from an older event than the one of Advance
		n.mu.Unlock()
		pass(time.Second)
		if got := advances(n); !slices.Equal(got, []string{"advance " + a + " at 1s"}) {
			t.Errorf("got %v", got)
		}
		n.mu.Lock()
		n.tell(domain.Wake{Stream: a, Revision: was.Revision + 1, At: n.in(10 * time.Second)})
		n.tell(domain.Wake{Stream: a, Revision: was.Revision + 2, At: n.in(5 * time.Second)})
		n.mu.Unlock()
		pass(10 * time.Second)
		if got := advances(n); !slices.Equal(got, []string{"advance " + a + " at 1s", "advance " + a + " at 5s"}) {
			t.Errorf("got %v", got)
		}
	})
}

// At most one Advance of a stream is in flight, however often a wake is told.
func TestScheduler_oneAdvanceOfAStreamIsInFlight(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.slow = 50 * time.Second
		n.set(a, n.in(0))
		defer running(s)()
		pass(time.Second)
		n.set(a, n.in(2*time.Second))
		pass(45 * time.Second) // there is a sweep in this time
		if got := advances(n); len(got) != 1 {
			t.Errorf("got %v", got)
		}
		pass(time.Minute)
	})
}

// When only a part of an outcome is in the log, the scheduler waits for a moment before it
// finishes the outcome, because the writer may still do so.
func TestScheduler_anUnfinishedOutcomeIsFinishedWhenItsWriterDoesNot(t *testing.T) {
	t.Parallel()
	for name, finished := range map[string]bool{"the writer finishes it": true, "the writer has died": false} {
		bubble(t, func(n *fakeNode, s *Scheduler) {
			defer running(s)()
			pass(time.Second)
			n.mu.Lock()
			n.tell(domain.Wake{Stream: a, Revision: 1, At: n.in(time.Second), Unfinished: true})
			n.mu.Unlock()
			want := []string{"advance " + a + " at 1.25s"}
			if finished {
				pass(10 * time.Millisecond)
				n.set(a, 0)
				want = nil
			}
			pass(time.Second)
			if got := n.noted(); !slices.Equal(got, want) {
				t.Errorf("%s: got %v", name, got)
			}
		})
	}
}

func TestScheduler_repeatsAnAdvanceThatFailed(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(-time.Second))
		n.fail = func(string) error { return domain.ErrUnavailable }
		defer running(s)()
		pass(2500 * time.Millisecond)
		if got := n.noted(); len(got) != 3 || s.CaughtUp() {
			t.Errorf("got %v", got)
		}
		n.mu.Lock()
		n.fail = func(string) error { return nil }
		n.mu.Unlock()
		pass(time.Second)
		if !s.CaughtUp() {
			t.Error("not caught up")
		}
	})
}

func TestScheduler_aQuarantinedStreamIsLeftAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(-time.Second))
		n.fail = func(stream string) error { return fmt.Errorf("wrapped: %w", &domain.HistoryError{Stream: stream}) }
		defer running(s)()
		pass(10 * time.Second)
		if got := n.noted(); len(got) != 1 {
			t.Errorf("got %v", got)
		}
		if !s.CaughtUp() {
			t.Error("it keeps the node from being caught up")
		}
	})
}

func TestScheduler_comesLaterWhereAnotherNodeIsQuicker(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(time.Second))
		n.raced, n.next = true, n.in(10*time.Second)
		defer running(s)()
		pass(2 * time.Second)
		n.mu.Lock()
		n.raced, n.next = false, n.in(20*time.Second)
		n.mu.Unlock()
		pass(20 * time.Second)
		want := []string{"advance " + a + " at 1s", "advance " + a + " at 10.25s", "advance " + a + " at 20s"}
		if got := advances(n); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

// Another node that wrote to the stream was quicker only if it carried out the wake.
func TestScheduler_comesOnTimeWhereAnotherNodeOnlyWrites(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.set(a, n.in(time.Second))
		n.raced, n.wrote, n.next = true, true, n.in(10*time.Second)
		defer running(s)()
		pass(20 * time.Second)
		if got := advances(n); !slices.Equal(got, []string{"advance " + a + " at 1s", "advance " + a + " at 10s"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_boundsTheCommandsInFlight(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.slow = time.Second
		const streams = 1000
		for i := range streams {
			n.set(fmt.Sprintf("queue-%026d", i), n.in(-time.Hour))
		}
		defer running(s)()
		pass(time.Minute)
		if got := n.noted(); len(got) != streams || n.mostRunning != maxConcurrent {
			t.Errorf("%d calls, %d at once", len(got), n.mostRunning)
		}
	})
}

func TestScheduler_stopsAfterTheCommandsInFlight(t *testing.T) {
	t.Parallel()
	bubble(t, func(n *fakeNode, s *Scheduler) {
		n.slow = time.Minute
		n.fail = func(string) error { return errors.New("stopped") }
		n.set(a, n.in(0))
		stop := running(s)
		synctest.Wait()
		stop()
		if n.running != 0 {
			t.Error("it did not wait for the command in flight")
		}
	})
}

// Whatever wakes the read models tell and Advance leads to, in any order, the scheduler holds
// for each stream its newest wake, if that is within the horizon.
func TestScheduler_theArmedWakeIsTheNewest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := newFakeNode()
		now := n.began
		clock := func() time.Time { return now }
		s := New(n, n, clock, zerolog.Nop())
		s.Begin()
		streams := []string{a, b, c}
		followed := map[string]domain.Wake{} // the wakes that the read models have
		newest := map[string]domain.Wake{}   // the newer one of that and the wake after the scheduler's Advance
		history := map[string][]domain.Wake{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			stream := rapid.SampledFrom(streams).Draw(t, "stream")
			log := history[stream]
			event := func() domain.Wake {
				var at domain.Instant
				if ms := rapid.SampledFrom([]int{-1, 0, 1, 40, 30_000, 59_000, 61_000, 3_600_000}).Draw(t, "wake in"); ms >= 0 {
					at = domain.InstantOf(now).Add(time.Duration(ms) * time.Millisecond)
				}
				w := domain.Wake{Stream: stream, Revision: domain.Revision(len(log)), At: at}
				log = append(log, w)
				history[stream] = log
				return w
			}
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0: // another node appends
				event()
			case 1: // the read models follow some events
				from := int(followed[stream].Revision)
				if len(log) == 0 {
					continue
				}
				w := log[rapid.IntRange(from, len(log)-1).Draw(t, "followed")]
				followed[stream] = w
				n.mu.Lock()
				n.tell(w)
				n.mu.Unlock()
				s.learnNewWakes()
			case 2: // Advance is sent to the first stream that is due
				s.mu.Lock()
				first, wait := s.due.first(domain.InstantOf(now))
				if wait > 0 {
					s.mu.Unlock()
					continue
				}
				s.due.remove(first)
				s.timers[first].advancing = true
				s.mu.Unlock()
				stream, log = first, history[first]
				w := event()
				n.mu.Lock()
				n.notFollowed, n.next = true, w.At
				n.wakes[stream] = domain.Wake{Stream: stream, Revision: w.Revision - 1}
				n.mu.Unlock()
				s.advance(context.Background(), stream)
				n.mu.Lock()
				n.wakes[stream] = followed[stream]
				n.mu.Unlock()
				newest[stream] = w
			case 3:
				now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 100, 30_000}).Draw(t, "pass")) * time.Millisecond)
			case 4:
				s.sweep()
			}
			if w := followed[stream]; len(log) > 0 && w.Revision >= newest[stream].Revision && w.Stream != "" {
				newest[stream] = w
			}
		}
		s.sweep()
		for _, stream := range streams {
			want := newest[stream].At
			if s.beyondHorizon(want) {
				want = 0
			}
			var got domain.Instant
			if armed, ok := s.due.byStream[stream]; ok {
				got = armed.at
			}
			if got != want {
				t.Fatalf("%s is armed at %s, and the newest wake is %+v; the read models have %+v", stream, got, newest[stream], followed[stream])
			}
		}
	})
}

func BenchmarkScheduler_arm(bm *testing.B) {
	for _, wakes := range []int{10_000, 100_000} {
		bm.Run(fmt.Sprintf("wakes=%d", wakes), func(bm *testing.B) {
			n := newFakeNode()
			for i := range wakes {
				n.set(fmt.Sprintf("queue-%026d", i), n.in(time.Duration(i)*time.Millisecond))
			}
			for bm.Loop() {
				New(n, n, time.Now, zerolog.Nop()).sweep()
			}
		})
	}
}
