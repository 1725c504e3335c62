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

// office stands for the read models and the command handler: it keeps queues that
// open at their wakes, and notes what is asked of it. In a synctest bubble its
// time is the bubble's.
type office struct {
	mu     sync.Mutex             // guards the fields below
	wakes  map[string]domain.Wake // as the read models have them
	told   map[string]domain.Wake // of these, what NewWakes has not returned; nil before it is called
	woken  chan struct{}
	asked  []string // what was asked, with the time since the start
	fail   func(stream string) error
	raced  bool
	wrote  bool           // raced, but not to the wake
	next   domain.Instant // the wake behind the one that is carried out
	unseen bool           // the read models do not follow what is carried out
	slow   time.Duration
	under  int
	most   int
	begins time.Time
}

func newOffice() *office {
	return &office{wakes: map[string]domain.Wake{}, woken: make(chan struct{}, 1), fail: func(string) error { return nil }, begins: time.Now()}
}

func (o *office) in(d time.Duration) domain.Instant { return domain.InstantOf(o.begins.Add(d)) }

// set has the read models know of one more event of a stream, which leaves a wake.
func (o *office) set(stream string, at domain.Instant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.tell(domain.Wake{Stream: stream, Revision: o.wakes[stream].Revision + 1, At: at})
}

// tell has the read models know of a wake. The caller holds mu.
func (o *office) tell(w domain.Wake) {
	o.wakes[w.Stream] = w
	if o.told == nil {
		return
	}
	o.told[w.Stream] = w
	select {
	case o.woken <- struct{}{}:
	default:
	}
}

// setUntold is a change of which the read models do not tell.
func (o *office) setUntold(stream string, at domain.Instant) {
	o.set(stream, at)
	o.NewWakes()
}

func (o *office) Wakes(yield func(domain.Wake) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	byTime := func(a, b domain.Wake) int { return int(a.At - b.At) }
	for _, w := range slices.SortedFunc(maps.Values(o.wakes), byTime) {
		if w.At != 0 && !yield(w) {
			return
		}
	}
}

func (o *office) Woken() <-chan struct{} { return o.woken }

func (o *office) NewWakes() []domain.Wake {
	o.mu.Lock()
	defer o.mu.Unlock()
	told := o.told
	o.told = map[string]domain.Wake{}
	return slices.Collect(maps.Values(told))
}

func (o *office) Handle(_ context.Context, r commands.Request) (commands.Result, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := r.Command.(domain.Advance); !ok || r.Caller.Actor != domain.ActorClock {
		return commands.Result{}, fmt.Errorf("asked for %+v", r)
	}
	o.asked = append(o.asked, fmt.Sprintf("advance %s at %s", r.Stream, time.Since(o.begins)))
	o.under++
	o.most = max(o.most, o.under)
	if o.slow > 0 {
		o.mu.Unlock()
		time.Sleep(o.slow) //nolint:forbidigo // in a synctest bubble
		o.mu.Lock()
	}
	o.under--
	if err := o.fail(r.Stream); err != nil {
		return commands.Result{}, err
	}
	q, at := &domain.Queue{}, o.next
	if at != 0 {
		q.Status, q.OpenAt, o.next = domain.StatusScheduled, at, 0
	}
	w := domain.Wake{Stream: r.Stream, Revision: o.wakes[r.Stream].Revision + 1, At: at}
	if !o.unseen {
		o.tell(w)
	}
	return commands.Result{History: &domain.History{Aggregate: q, Head: domain.Head{Revision: w.Revision}}, Raced: o.raced, Written: o.wrote || !o.raced}, nil
}

func (o *office) Load(_ context.Context, stream string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, fmt.Sprintf("load %s at %s", stream, time.Since(o.begins)))
	return nil
}

// advances are the notes of Advance.
func advances(o *office) []string {
	return slices.DeleteFunc(o.notes(), func(note string) bool { return note[0] != 'a' })
}

func (o *office) notes() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

// bubble runs a scheduler in fake time until test returns.
func bubble(t *testing.T, test func(o *office, s *Scheduler)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := newOffice()
		s := New(o, o, time.Now, zerolog.Nop())
		test(o, s)
	})
}

// running starts s and returns what stops it.
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
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(20*time.Second))
		o.set(b, o.in(2*time.Second))
		defer running(s)()
		pass(time.Minute)
		want := []string{
			"load " + b + " at 0s", "advance " + b + " at 2s",
			"load " + a + " at 15s", "advance " + a + " at 20s",
		}
		if got := o.notes(); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_whatIsOverdueAtTheStartComesFirstAndThenItIsCaughtUp(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.slow = time.Second
		o.set(a, o.in(-time.Hour))
		o.set(b, o.in(-2*time.Hour))
		o.set(c, o.in(10*time.Second))
		if s.CaughtUp() {
			t.Error("caught up before it began")
		}
		defer running(s)()
		synctest.Wait()
		if got, want := o.notes(), []string{"advance " + b + " at 0s", "advance " + a + " at 0s"}; len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
			t.Errorf("got %v", got)
		}
		if s.CaughtUp() {
			t.Error("caught up while both are under way")
		}
		pass(2 * time.Second)
		if !s.CaughtUp() {
			t.Error("not caught up")
		}
	})
}

func TestScheduler_knowsWhatIsOverdueBeforeItRuns(t *testing.T) {
	t.Parallel()
	for name, overdue := range map[string]bool{"something": true, "nothing": false} {
		bubble(t, func(o *office, s *Scheduler) {
			o.set(a, o.in(time.Second))
			if overdue {
				o.set(b, o.in(-time.Second))
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
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(time.Hour))
		o.set(c, o.in(20*time.Second))
		defer running(s)()
		pass(time.Second)
		o.set(a, o.in(3*time.Second))
		o.set(b, o.in(4*time.Second))
		o.set(c, o.in(40*time.Second))
		pass(time.Minute)
		for _, want := range []string{"advance " + a + " at 3s", "advance " + b + " at 4s", "advance " + c + " at 40s"} {
			if got := o.notes(); !slices.Contains(got, want) {
				t.Errorf("got %v, want %s", got, want)
			}
		}
	})
}

func TestScheduler_hasCaughtUpWhenSomebodyElseDidWhatWasOverdue(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]domain.Instant{"and it is over": 0, "and it goes on": domain.InstantOf(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))} {
		bubble(t, func(o *office, s *Scheduler) {
			o.set(a, o.in(-time.Hour))
			o.fail = func(string) error { return domain.ErrUnavailable }
			defer running(s)()
			pass(time.Millisecond)
			o.set(a, next)
			synctest.Wait()
			if !s.CaughtUp() {
				t.Errorf("%s: not caught up", name)
			}
		})
	}
}

func TestScheduler_sweepsAheadOnlyToTheNextButOne(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(45*time.Second))
		o.set(b, o.in(75*time.Second))
		defer running(s)()
		synctest.Wait()
		s.mu.Lock()
		held := len(s.due.heap)
		s.mu.Unlock()
		if held != 1 {
			t.Errorf("%d wakes are held", held)
		}
		pass(80 * time.Second)
		if got := o.notes(); !slices.Contains(got, "advance "+a+" at 45s") || !slices.Contains(got, "advance "+b+" at 1m15s") {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_anEventCanTakeAWakeAway(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]time.Duration{"for good": 0, "beyond the horizon": time.Hour} {
		bubble(t, func(o *office, s *Scheduler) {
			o.set(a, o.in(20*time.Second))
			defer running(s)()
			pass(time.Second)
			var later domain.Instant
			if at != 0 {
				later = o.in(at)
			}
			o.set(a, later)
			pass(10 * time.Minute)
			if got := o.notes(); len(got) != 0 || len(s.timers) != 0 {
				t.Errorf("%s: got %v, and holds %d timers", name, got, len(s.timers))
			}
		})
	}
}

func TestScheduler_aSweepFindsWhatNobodyTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		defer running(s)()
		pass(time.Second)
		o.setUntold(a, o.in(2*time.Second))
		pass(sweepEvery)
		if got := o.notes(); !slices.Equal(got, []string{"advance " + a + " at 30s"}) {
			t.Errorf("got %v", got)
		}
	})
}

// Read models that are behind tell of a wake that the scheduler's own Advance has
// carried out already.
func TestScheduler_aReadModelThatIsBehindMovesNothing(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.unseen, o.next = true, o.in(10*time.Second)
		o.set(a, o.in(time.Second))
		defer running(s)()
		pass(2 * time.Second)
		o.mu.Lock()
		was := o.wakes[a]
		o.tell(was) // an older event than the Advance has led to
		o.mu.Unlock()
		pass(time.Second)
		if got := advances(o); !slices.Equal(got, []string{"advance " + a + " at 1s"}) {
			t.Errorf("got %v", got)
		}
		o.mu.Lock()
		o.tell(domain.Wake{Stream: a, Revision: was.Revision + 1, At: o.in(10 * time.Second)})
		o.tell(domain.Wake{Stream: a, Revision: was.Revision + 2, At: o.in(5 * time.Second)})
		o.mu.Unlock()
		pass(10 * time.Second)
		if got := advances(o); !slices.Equal(got, []string{"advance " + a + " at 1s", "advance " + a + " at 5s"}) {
			t.Errorf("got %v", got)
		}
	})
}

// One Advance of a stream is under way at a time, however often it is told of a wake.
func TestScheduler_oneAdvanceOfAStreamIsUnderWay(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.slow = 50 * time.Second
		o.set(a, o.in(0))
		defer running(s)()
		pass(time.Second)
		o.set(a, o.in(2*time.Second))
		pass(45 * time.Second) // a sweep among them
		if got := advances(o); len(got) != 1 {
			t.Errorf("got %v", got)
		}
		pass(time.Minute)
	})
}

// An outcome in parts, whose writer may have died between two of them, is left to the
// writer for a moment.
func TestScheduler_anUnfinishedOutcomeIsFinishedWhenItsWriterDoesNot(t *testing.T) {
	t.Parallel()
	for name, finished := range map[string]bool{"the writer finishes it": true, "the writer has died": false} {
		bubble(t, func(o *office, s *Scheduler) {
			defer running(s)()
			pass(time.Second)
			o.mu.Lock()
			o.tell(domain.Wake{Stream: a, Revision: 1, At: o.in(time.Second), Unfinished: true})
			o.mu.Unlock()
			want := []string{"advance " + a + " at 1.25s"}
			if finished {
				pass(10 * time.Millisecond)
				o.set(a, 0)
				want = nil
			}
			pass(time.Second)
			if got := o.notes(); !slices.Equal(got, want) {
				t.Errorf("%s: got %v", name, got)
			}
		})
	}
}

func TestScheduler_triesAgainWhatFailed(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(-time.Second))
		o.fail = func(string) error { return domain.ErrUnavailable }
		defer running(s)()
		pass(2500 * time.Millisecond)
		if got := o.notes(); len(got) != 3 || s.CaughtUp() {
			t.Errorf("got %v", got)
		}
		o.mu.Lock()
		o.fail = func(string) error { return nil }
		o.mu.Unlock()
		pass(time.Second)
		if !s.CaughtUp() {
			t.Error("not caught up")
		}
	})
}

func TestScheduler_aQuarantinedStreamIsLeftAlone(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(-time.Second))
		o.fail = func(stream string) error { return fmt.Errorf("wrapped: %w", &domain.HistoryError{Stream: stream}) }
		defer running(s)()
		pass(10 * time.Second)
		if got := o.notes(); len(got) != 1 {
			t.Errorf("got %v", got)
		}
		if !s.CaughtUp() {
			t.Error("it keeps the node from being ready")
		}
	})
}

func TestScheduler_comesLaterWhereAnotherNodeIsQuicker(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(time.Second))
		o.raced, o.next = true, o.in(10*time.Second)
		defer running(s)()
		pass(2 * time.Second)
		o.mu.Lock()
		o.raced, o.next = false, o.in(20*time.Second)
		o.mu.Unlock()
		pass(20 * time.Second)
		want := []string{"advance " + a + " at 1s", "advance " + a + " at 10.25s", "advance " + a + " at 20s"}
		if got := advances(o); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
	})
}

// What another node wrote may be anything. Only when it carried the wake out, it is
// quicker.
func TestScheduler_comesOnTimeWhereAnotherNodeOnlyWrites(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.set(a, o.in(time.Second))
		o.raced, o.wrote, o.next = true, true, o.in(10*time.Second)
		defer running(s)()
		pass(20 * time.Second)
		if got := advances(o); !slices.Equal(got, []string{"advance " + a + " at 1s", "advance " + a + " at 10s"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_boundsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.slow = time.Second
		const n = 1000
		for i := range n {
			o.set(fmt.Sprintf("queue-%026d", i), o.in(-time.Hour))
		}
		defer running(s)()
		pass(time.Minute)
		if got := o.notes(); len(got) != n || o.most != atOnce {
			t.Errorf("%d were asked, %d at once", len(got), o.most)
		}
	})
}

func TestScheduler_stopsWhenItIsAsked(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler) {
		o.slow = time.Minute
		o.fail = func(string) error { return errors.New("stopped") }
		o.set(a, o.in(0))
		stop := running(s)
		synctest.Wait()
		stop()
		if o.under != 0 {
			t.Error("it did not wait for what was under way")
		}
	})
}

// Whatever it is told and in whatever order, by the read models and by its own Advance,
// what it holds is the newest wake of each stream that comes within the horizon.
func TestScheduler_theArmedWakeIsTheNewest(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		o := newOffice()
		now := o.begins
		clock := func() time.Time { return now }
		s := New(o, o, clock, zerolog.Nop())
		s.Begin()
		streams := []string{a, b, c}
		shown := map[string]domain.Wake{}  // as the read models have it
		newest := map[string]domain.Wake{} // of that and of what the scheduler's Advance has led to
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
			case 0: // somebody appends
				event()
			case 1: // the read models show some of it
				from := int(shown[stream].Revision)
				if len(log) == 0 {
					continue
				}
				w := log[rapid.IntRange(from, len(log)-1).Draw(t, "shown")]
				shown[stream] = w
				o.mu.Lock()
				o.tell(w)
				o.mu.Unlock()
				s.learnNew()
			case 2: // Advance is sent to what is due
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
				o.mu.Lock()
				o.unseen, o.next = true, w.At
				o.wakes[stream] = domain.Wake{Stream: stream, Revision: w.Revision - 1}
				o.mu.Unlock()
				s.advance(context.Background(), stream)
				o.mu.Lock()
				o.wakes[stream] = shown[stream]
				o.mu.Unlock()
				newest[stream] = w
			case 3:
				now = now.Add(time.Duration(rapid.SampledFrom([]int{1, 100, 30_000}).Draw(t, "pass")) * time.Millisecond)
			case 4:
				s.sweep()
			}
			if w := shown[stream]; len(log) > 0 && w.Revision >= newest[stream].Revision && w.Stream != "" {
				newest[stream] = w
			}
		}
		s.sweep()
		for _, stream := range streams {
			want := newest[stream].At
			if s.beyond(want) {
				want = 0
			}
			var got domain.Instant
			if armed, ok := s.due.at[stream]; ok {
				got = armed.at
			}
			if got != want {
				t.Fatalf("%s is armed at %s, and the newest wake is %+v; the read models have %+v", stream, got, newest[stream], shown[stream])
			}
		}
	})
}

func BenchmarkScheduler_arm(bm *testing.B) {
	for _, n := range []int{10_000, 100_000} {
		bm.Run(fmt.Sprintf("wakes=%d", n), func(bm *testing.B) {
			o := newOffice()
			for i := range n {
				o.set(fmt.Sprintf("queue-%026d", i), o.in(time.Duration(i)*time.Millisecond))
			}
			for bm.Loop() {
				New(o, o, time.Now, zerolog.Nop()).sweep()
			}
		})
	}
}
