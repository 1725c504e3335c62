package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// office stands for the read model and the command handler: it keeps queues that
// open at their wakes, and notes what is asked of it. In a synctest bubble its
// time is the bubble's.
type office struct {
	mu     sync.Mutex // guards the fields below
	wakes  map[string]domain.Instant
	asked  []string // what was asked, with the time since the start
	fail   func(stream string) error
	raced  bool
	next   domain.Instant // the wake behind the one that is carried out
	slow   time.Duration
	under  int
	most   int
	begins time.Time

	rearmed chan struct{}
}

func newOffice() *office {
	return &office{wakes: map[string]domain.Instant{}, fail: func(string) error { return nil }, begins: time.Now(), rearmed: make(chan struct{})}
}

func (o *office) in(d time.Duration) domain.Instant { return domain.InstantOf(o.begins.Add(d)) }

func (o *office) set(stream string, at domain.Instant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.wakes[stream] = at
}

func (o *office) Wakes(yield func(string, domain.Instant) bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, stream := range slices.SortedFunc(maps.Keys(o.wakes), func(a, b string) int { return int(o.wakes[a] - o.wakes[b]) }) {
		if !yield(stream, o.wakes[stream]) {
			return
		}
	}
}

func (o *office) Wake(stream string) domain.Instant {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.wakes[stream]
}

func (o *office) Rearmed() <-chan struct{} { return o.rearmed }

func (o *office) Earlier() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Collect(maps.Keys(o.wakes))
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
	delete(o.wakes, r.Stream)
	q := &domain.Queue{}
	if at := o.next; at != 0 {
		q.Status, q.OpenAt, o.next = domain.StatusScheduled, at, 0
	}
	return commands.Result{History: &domain.History{Aggregate: q}, Raced: o.raced}, nil
}

func (o *office) Load(_ context.Context, stream string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, fmt.Sprintf("load %s at %s", stream, time.Since(o.begins)))
	return nil
}

func (o *office) notes() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

// bubble runs a scheduler in fake time until test returns.
func bubble(t *testing.T, test func(o *office, s *Scheduler, updates chan *message.Message)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		o := newOffice()
		s := New(o, o, time.Now, zerolog.Nop())
		test(o, s, make(chan *message.Message))
	})
}

// running starts s and returns what stops it.
func running(s *Scheduler, updates chan *message.Message) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	s.Begin()
	done.Go(func() { s.Run(ctx, updates) })
	return func() {
		cancel()
		done.Wait()
	}
}

func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a synctest bubble
	synctest.Wait()
}

func updateOf(t *testing.T, stream string, times ...domain.Instant) *message.Message {
	t.Helper()
	id, err := domain.StreamID(stream)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]domain.Change{}
	for i, at := range times {
		raw, err := json.Marshal(at)
		if err != nil {
			t.Fatal(err)
		}
		changed[fmt.Sprint(i)] = domain.Change{Old: []byte("null"), New: raw}
	}
	data, err := json.Marshal(domain.TimingChanged{DistributionID: id, Changed: changed})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(domain.NewCloudEvent("1", domain.TopicDistributionUpdated, id, domain.InstantOf(time.Now()), data))
	if err != nil {
		t.Fatal(err)
	}
	return message.NewMessage("1", payload)
}

const (
	a = "queue-01h455vb4pex5vsknk084sn02a"
	b = "queue-01h455vb4pex5vsknk084sn02b"
	c = "queue-01h455vb4pex5vsknk084sn02c"
)

func TestScheduler_advancesOnTimeAndLoadsAhead(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(20*time.Second))
		o.set(b, o.in(2*time.Second))
		defer running(s, updates)()
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
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.slow = time.Second
		o.set(a, o.in(-time.Hour))
		o.set(b, o.in(-2*time.Hour))
		o.set(c, o.in(10*time.Second))
		if s.CaughtUp() {
			t.Error("caught up before it began")
		}
		defer running(s, updates)()
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
		bubble(t, func(o *office, s *Scheduler, _ chan *message.Message) {
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

func TestScheduler_aMessageMovesAWake(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(time.Hour))
		defer running(s, updates)()
		pass(time.Second)
		o.set(a, o.in(3*time.Second))
		o.set(b, o.in(4*time.Second))
		for _, stream := range []string{a, b} {
			m := updateOf(t, stream)
			updates <- m
			<-m.Acked()
		}
		pass(5 * time.Second)
		if got := o.notes(); !slices.Contains(got, "advance "+a+" at 3s") || !slices.Contains(got, "advance "+b+" at 4s") {
			t.Errorf("got %v", got)
		}
	})
}

// The message about a creation may come before the read model knows that the
// distribution is scheduled.
func TestScheduler_aMessageThatIsAheadOfTheReadModelIsKeptPromptly(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		defer running(s, updates)()
		pass(time.Second)
		for _, m := range []*message.Message{updateOf(t, a, o.in(20*time.Second), o.in(10*time.Second)), updateOf(t, b, 0)} {
			updates <- m
			<-m.Acked()
		}
		pass(10 * time.Second)
		if got := o.notes(); !slices.Equal(got, []string{"load " + a + " at 5s", "advance " + a + " at 10s"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_hasCaughtUpWhenSomebodyElseDidWhatWasOverdue(t *testing.T) {
	t.Parallel()
	for name, next := range map[string]domain.Instant{"and it is over": 0, "and it goes on": domain.InstantOf(time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC))} {
		bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
			o.set(a, o.in(-time.Hour))
			o.fail = func(string) error { return domain.ErrUnavailable }
			defer running(s, updates)()
			pass(time.Millisecond)
			o.set(a, next)
			m := updateOf(t, a)
			updates <- m
			<-m.Acked()
			synctest.Wait()
			if !s.CaughtUp() {
				t.Errorf("%s: not caught up", name)
			}
		})
	}
}

func TestScheduler_sweepsAheadOnlyToTheNextButOne(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(45*time.Second))
		o.set(b, o.in(75*time.Second))
		defer running(s, updates)()
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

func TestScheduler_aMessageCanTakeAWakeAway(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(20*time.Second))
		defer running(s, updates)()
		pass(time.Second)
		o.set(a, 0)
		m := updateOf(t, a)
		updates <- m
		<-m.Acked()
		pass(25 * time.Second)
		if got := o.notes(); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	})
}

func TestScheduler_anUnreadableMessageIsDropped(t *testing.T) {
	t.Parallel()
	bubble(t, func(_ *office, s *Scheduler, updates chan *message.Message) {
		defer running(s, updates)()
		m := message.NewMessage("1", []byte("{"))
		updates <- m
		<-m.Acked()
	})
}

func TestScheduler_aSweepFindsWhatNoMessageTold(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		defer running(s, updates)()
		pass(time.Second)
		o.set(a, o.in(2*time.Second))
		pass(sweepEvery)
		if got := o.notes(); !slices.Equal(got, []string{"advance " + a + " at 30s"}) {
			t.Errorf("got %v", got)
		}
	})
}

// What organizations do is in no message; the read model says that there is
// something to look for.
func TestScheduler_anOrganizationsWakeIsKeptPromptly(t *testing.T) {
	t.Parallel()
	const stream = "organization-01h455vb4pex5vsknk084sn02q"
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		defer running(s, updates)()
		pass(time.Second)
		o.set(stream, o.in(3*time.Second))
		select {
		case o.rearmed <- struct{}{}:
		case <-time.After(time.Millisecond):
			t.Error("nobody listens")
		}
		pass(4 * time.Second)
		if got, want := o.notes(), []string{"load " + stream + " at 1s", "advance " + stream + " at 3s"}; !slices.Equal(got, want) {
			t.Errorf("asked for %v, want %v", got, want)
		}
	})
}

func TestScheduler_triesAgainWhatFailed(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(-time.Second))
		o.fail = func(string) error { return domain.ErrUnavailable }
		defer running(s, updates)()
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
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(-time.Second))
		o.fail = func(stream string) error { return fmt.Errorf("wrapped: %w", &domain.HistoryError{Stream: stream}) }
		defer running(s, updates)()
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
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.set(a, o.in(time.Second))
		o.raced, o.next = true, o.in(10*time.Second)
		defer running(s, updates)()
		pass(2 * time.Second)
		o.mu.Lock()
		o.raced, o.next = false, o.in(20*time.Second)
		o.mu.Unlock()
		pass(20 * time.Second)
		var advances []string
		for _, note := range o.notes() {
			if note[0] == 'a' {
				advances = append(advances, note)
			}
		}
		want := []string{"advance " + a + " at 1s", "advance " + a + " at 10.25s", "advance " + a + " at 20s"}
		if !slices.Equal(advances, want) {
			t.Errorf("got %v", advances)
		}
	})
}

func TestScheduler_boundsWhatIsUnderWay(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.slow = time.Second
		const n = 1000
		for i := range n {
			o.set(fmt.Sprintf("queue-%026d", i), o.in(-time.Hour))
		}
		defer running(s, updates)()
		pass(time.Minute)
		if got := o.notes(); len(got) != n || o.most != atOnce {
			t.Errorf("%d were asked, %d at once", len(got), o.most)
		}
	})
}

func TestScheduler_stopsWhenItIsAsked(t *testing.T) {
	t.Parallel()
	bubble(t, func(o *office, s *Scheduler, updates chan *message.Message) {
		o.slow = time.Minute
		o.fail = func(string) error { return errors.New("stopped") }
		o.set(a, o.in(0))
		stop := running(s, updates)
		synctest.Wait()
		stop()
		if o.under != 0 {
			t.Error("it did not wait for what was under way")
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
