package walltime

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a node and a store whose clock is right. Time passes only when the test
// says so, and in the store's calls.
type world struct {
	true  time.Time
	wrong time.Duration // of the node's clock
	slept time.Duration // of which the monotonic clock knows nothing
	began time.Time

	// before and after are how long an append takes until it is recorded, and until it
	// is answered.
	before, after time.Duration
	fail          error
	overtaken     int // how many appends lose a race
	events        []*domain.Recorded
	appends       int
	asked         int // how often it was asked for its newest event
	kept          uint64
	recording     func() // is called when an append is recorded
}

func newWorld() (*world, *Clock) {
	w := &world{true: time.Date(2026, 12, 15, 9, 0, 0, 0, time.UTC), recording: func() {}}
	w.began = w.true
	c := New(func() time.Time { return w.true.Add(w.wrong) })
	c.Compare(w, func() time.Duration { return w.true.Sub(w.began) - w.slept })
	return w, c
}

func (w *world) pass(d time.Duration) { w.true = w.true.Add(d) }

func (w *world) sleep(d time.Duration) {
	w.pass(d)
	w.slept += d
}

func (w *world) Newest(context.Context, string) (*domain.Recorded, error) {
	w.asked++
	if w.fail != nil || len(w.events) == 0 {
		return nil, w.fail
	}
	return w.events[len(w.events)-1], nil
}

func (w *world) KeepNewest(_ context.Context, _ string, n uint64) error {
	w.kept = n
	return w.fail
}

func (w *world) Encode(_ string, e domain.Event, _ domain.Metadata) (domain.Proposed, error) {
	data, err := e.When().MarshalJSON()
	return domain.Proposed{Data: data, Metadata: []byte(`{"a":1}`)}, err
}

func (w *world) Append(_ context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	w.appends++
	if stream != domain.ClockStream {
		return domain.Head{}, domain.Position{}, fmt.Errorf("appended to %s", stream)
	}
	w.pass(w.before)
	if w.fail != nil {
		return domain.Head{}, domain.Position{}, w.fail
	}
	id := events[0].ID
	if w.overtaken > 0 {
		w.overtaken--
		id = uuid.New()
	}
	last := domain.NoStream
	if len(w.events) > 0 {
		last = w.events[len(w.events)-1].Revision
	}
	if head.Revision != last {
		return domain.Head{}, domain.Position{}, fmt.Errorf("at %d, not %d", last, head.Revision)
	}
	w.events = append(w.events, &domain.Recorded{
		ID: id, Revision: last + 1, RecordedAt: w.true.Truncate(time.Millisecond), RawMetadata: domain.WithHash([]byte(`{"a":1}`), "h"),
	})
	w.recording()
	w.pass(w.after)
	if id != uuid.UUID(events[0].ID) {
		return domain.Head{}, domain.Position{}, domain.ErrWrongRevision
	}
	return domain.Head{}, domain.Position{}, nil
}

func (w *world) Read(_ context.Context, _ string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if w.fail != nil {
			yield(nil, w.fail)
			return
		}
		for _, r := range w.events {
			if r.Revision > after && !yield(r, nil) {
				return
			}
		}
	}
}

// append is an append of the node's handler, which takes as long as the store does.
func (w *world) append(c *Clock, followedFirst bool) {
	id := uuid.New()
	c.Appending(id)
	w.pass(w.before)
	at := w.true.Truncate(time.Millisecond)
	if followedFirst {
		c.Recorded(id, at)
	}
	w.pass(w.after)
	c.Appended(id, nil)
	if !followedFirst {
		w.pass(time.Second)
		c.Recorded(id, at)
	}
}

func wrong(err error) bool {
	_, is := errors.AsType[*WrongError](err)
	return is && errors.Is(err, domain.ErrUnavailable)
}

func (w *world) decides(t *testing.T, c *Clock) {
	t.Helper()
	now, err := c.Now(t.Context())
	if err != nil || !now.Equal(w.true.Add(w.wrong)) {
		t.Errorf("at %s, wrong by %s: %s, %v", w.true, w.wrong, now, err)
	}
}

func (w *world) refuses(t *testing.T, c *Clock, reason string) {
	t.Helper()
	if _, err := c.Now(t.Context()); !wrong(err) || !strings.Contains(err.Error(), reason) {
		t.Errorf("wrong by %s: %v, want %s", w.wrong, err, reason)
	}
	if err := c.Usable(); !wrong(err) {
		t.Errorf("wrong by %s, it is usable: %v", w.wrong, err)
	}
}

// The first decision waits for a comparison. Then nothing is appended while the clock
// goes right, and every append of the node counts.
func TestClock_isComparedOnceWhenAllIsWell(t *testing.T) {
	t.Parallel()
	w, c := newWorld()
	w.before, w.after = 3*time.Millisecond, 2*time.Millisecond
	if err := c.Err(); err == nil || wrong(err) {
		t.Errorf("before the first comparison: %v", err)
	}
	w.decides(t, c)
	for range 100 {
		w.pass(time.Minute)
		w.append(c, true)
		w.decides(t, c)
		c.Recheck(t.Context())
		if err := c.Err(); err != nil || c.Offset() != 0 {
			t.Fatalf("off by %s, %v", c.Offset(), err)
		}
	}
	if w.appends != 1 || w.kept != kept {
		t.Errorf("%d appends, %d are kept", w.appends, w.kept)
	}
	// What nobody measured for an hour is measured again, before anybody waits for it.
	w.pass(trusted - renewBefore - time.Second)
	c.Recheck(t.Context())
	if w.appends != 1 {
		t.Errorf("before an hour is over %d appends", w.appends)
	}
	w.pass(2 * time.Second)
	c.Recheck(t.Context())
	w.pass(renewBefore)
	if err := c.Usable(); err != nil || w.appends != 2 {
		t.Errorf("after an hour %d appends, %v", w.appends, err)
	}
	w.pass(2 * trusted)
	w.decides(t, c)
	if w.appends != 3 {
		t.Errorf("after a long time %d appends", w.appends)
	}
}

// A clock that is set is not decided by before it was compared.
func TestClock_aClockThatIsSetDecidesNothing(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{time.Hour, -time.Hour, 31 * time.Second, -31 * time.Second, 160 * 365 * 24 * time.Hour} {
		w, c := newWorld()
		w.before, w.after = 3*time.Millisecond, 2*time.Millisecond
		w.decides(t, c)
		w.pass(time.Second)
		w.wrong = by
		side := map[bool]string{true: "ahead of", false: "behind"}[by > 0]
		w.refuses(t, c, side+" the event store's")
		if err := c.Err(); !wrong(err) || c.Offset() == 0 {
			t.Errorf("%v, off by %s", err, c.Offset())
		}
		appends := w.appends
		w.refuses(t, c, side)
		if w.appends != appends {
			t.Error("each request compares it again")
		}
		// Right again, it goes on.
		w.pass(time.Second)
		w.wrong = 0
		w.decides(t, c)
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	}
	// At the start, when nothing is known yet.
	w, c := newWorld()
	w.wrong = time.Hour
	w.refuses(t, c, "the clock is 1h0m0s ahead of the event store's")
	// Nor when it is the store's clock that is set right.
	w, c = newWorld()
	w.wrong = 50 * time.Second
	w.refuses(t, c, "50s")
	w.true, w.began, w.wrong = w.true.Add(w.wrong), w.began.Add(w.wrong), 0
	w.pass(compareEvery)
	c.Recheck(t.Context())
	w.decides(t, c)
}

// A difference of 2 to 30 seconds is told, but decided by.
func TestClock_aSmallDifferenceIsToldOnly(t *testing.T) {
	t.Parallel()
	for by, told := range map[time.Duration]bool{
		time.Second: false, -1900 * time.Millisecond: false, 2100 * time.Millisecond: true, -5 * time.Second: true, 29 * time.Second: true, -29 * time.Second: true,
	} {
		w, c := newWorld()
		w.decides(t, c)
		w.wrong = by
		w.pass(time.Minute)
		w.decides(t, c)
		c.Recheck(t.Context())
		if err := c.Err(); wrong(err) != told || !told && err != nil {
			t.Errorf("off by %s: %v", by, err)
		}
		w.decides(t, c)
		// An append tells as much as a comparison.
		w.wrong = 0
		w.pass(time.Second)
		w.append(c, false)
		if err := c.Err(); err != nil {
			t.Errorf("right again: %v", err)
		}
	}
}

// A machine that slept has a right clock, though it jumped.
func TestClock_aMachineThatSleptGoesOn(t *testing.T) {
	t.Parallel()
	w, c := newWorld()
	w.decides(t, c)
	w.sleep(8 * time.Hour)
	if err := c.Usable(); err == nil || wrong(err) {
		t.Errorf("before it is compared: %v", err)
	}
	w.decides(t, c)
	if w.appends != 2 || c.Err() != nil {
		t.Errorf("%d appends, %v", w.appends, c.Err())
	}
}

// A store that does not answer says nothing of the clock, and is not pressed.
func TestClock_aStoreThatIsAwayIsNotPressed(t *testing.T) {
	t.Parallel()
	w, c := newWorld()
	w.fail = fmt.Errorf("away: %w", domain.ErrOutcomeUnknown)
	for range 100 {
		_, err := c.Now(t.Context())
		if !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) || wrong(err) {
			t.Fatal(err)
		}
		w.pass(50 * time.Millisecond)
		c.Recheck(t.Context())
	}
	if w.asked > 6 {
		t.Errorf("in 5 seconds it is asked %d times", w.asked)
	}
	w.fail = nil
	w.pass(retryPause)
	w.overtaken = 3
	w.decides(t, c)
	// While it is away, a clock that is known goes on, for those whom the store
	// answers.
	w.fail = domain.ErrUnavailable
	w.decides(t, c)
	w.wrong = time.Hour
	if _, err := c.Now(t.Context()); err == nil || wrong(err) {
		t.Errorf("it jumped and cannot be compared: %v", err)
	}
}

// Appends under load take seconds, come back late, fail or never come back. No alarm
// is false for that.
func TestClock_slowAppendsAreNoAlarm(t *testing.T) {
	t.Parallel()
	w, c := newWorld()
	w.before, w.after = 4*time.Second, 5*time.Second
	for range 20 {
		w.append(c, false)
		w.decides(t, c)
		if err := c.Err(); err != nil || c.Offset() != 0 {
			t.Fatalf("%v, off by %s", err, c.Offset())
		}
	}
	if w.appends > 1 {
		t.Errorf("%d comparisons", w.appends)
	}
	lost, failed := uuid.New(), uuid.New()
	c.Appending(failed)
	c.Appended(failed, domain.ErrOutcomeUnknown)
	c.Recorded(failed, w.true.Add(-time.Hour))
	if err := c.Err(); err != nil {
		t.Errorf("after an append that failed: %v", err)
	}
	c.Appending(lost)
	c.Appended(lost, nil)
	w.pass(abandonAfter + time.Second)
	w.append(c, true)
	c.Recorded(lost, w.true.Add(-time.Hour))
	if err := c.Err(); err != nil || c.Offset() != 0 {
		t.Errorf("%v, off by %s", err, c.Offset())
	}
}

// What is known exactly is not forgotten for what is known roughly, nor what is known
// of now for what is known of before.
func TestClock_theBestOfAllMeasurementsCounts(t *testing.T) {
	t.Parallel()
	w, c := newWorld()
	w.decides(t, c)
	before := uuid.New()
	c.Appending(before)
	recorded := w.true
	w.pass(time.Millisecond)
	c.Appended(before, nil)
	w.wrong = 10 * time.Second
	w.pass(compareEvery)
	c.Recheck(t.Context())
	w.before, w.after = 4*time.Second, 5*time.Second
	c.Recorded(before, recorded)
	for range 3 {
		if err := c.Err(); !wrong(err) || !strings.Contains(err.Error(), "10s ahead") {
			t.Errorf("it is %v", err)
		}
		w.append(c, true)
	}
}

// Whatever happens to the clock, and however long the store takes: what is called
// wrong is wrong, and nothing is decided at a time that is off by more than the limit.
func TestClock_laws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w, c := newWorld()
		duration := func(most time.Duration, name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, name))
		}
		// A measurement is as exact as the clock was read, to the millisecond.
		const exact = 2 * time.Millisecond
		set := func() {
			by := rapid.SampledFrom([]time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second, 30 * time.Second, 33 * time.Second, time.Hour, 24 * time.Hour}).Draw(t, "by")
			w.wrong = by + duration(3*time.Second, "and") - 1500*time.Millisecond
			if rapid.Bool().Draw(t, "behind") {
				w.wrong = -w.wrong
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(*rapid.T) { w.pass(duration(20*time.Minute, "pass")) },
			// Run looks at the clock every second, so between two looks it is not set
			// and asleep as well, which nobody could tell from neither.
			"sleep": func(t *rapid.T) {
				look := func() { _ = c.compare(t.Context(), func() bool { return true }) }
				look()
				w.sleep(duration(20*time.Hour, "sleep"))
				look()
			},
			"set": func(*rapid.T) { set() },
			"load": func(*rapid.T) {
				w.before, w.after = duration(5*time.Second, "before"), duration(4*time.Second, "after")
			},
			"set while it is compared": func(t *rapid.T) {
				w.recording = func() {
					set()
					w.recording = func() {}
				}
				c.Recheck(t.Context())
				w.recording = func() {}
			},
			"append":  func(*rapid.T) { w.append(c, rapid.Bool().Draw(t, "followed first")) },
			"recheck": func(t *rapid.T) { c.Recheck(t.Context()) },
			"decide": func(t *rapid.T) {
				now, err := c.Now(t.Context())
				if err != nil {
					return
				}
				if off := now.Sub(w.true); off.Abs() > refused+exact {
					t.Fatalf("decided %s off", off)
				}
			},
			"": func(t *rapid.T) {
				off := c.Offset()
				if off > 0 && w.wrong < off-exact || off < 0 && w.wrong > off+exact {
					t.Fatalf("it is off by %s, and is called %s off", w.wrong, off)
				}
				if err := c.Err(); wrong(err) && w.wrong.Abs() < tolerated-exact {
					t.Fatalf("it is off by %s: %v", w.wrong, err)
				}
			},
		})
		// In the end the store is quick, and the clock right: it goes on.
		w.before, w.after, w.wrong = time.Millisecond, time.Millisecond, 0
		w.pass(compareEvery)
		c.Recheck(t.Context())
		if _, err := c.Now(t.Context()); err != nil || c.Err() != nil {
			t.Fatalf("right again: %v, %v", err, c.Err())
		}
	})
}

// Run finds out by itself that a clock was set, and that it is right again, and says
// so once.
func TestClock_runTellsOfAWrongClockOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, began := &bubbled{world: &world{recording: func() {}}}, time.Now()
		c := New(func() time.Time { return time.Now().Add(time.Duration(w.wrong.Load())) })
		c.Compare(w, func() time.Duration { return time.Since(began) })
		var lines strings.Builder
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			c.Run(ctx, zerolog.New(&lines))
			close(done)
		}()
		wait := func(d time.Duration) {
			time.Sleep(d) //nolint:forbidigo // synctest
			synctest.Wait()
		}
		wait(time.Minute + time.Millisecond)
		first := w.appends.Load()
		w.wrong.Store(int64(time.Hour))
		wait(time.Minute)
		if n := w.appends.Load() - first; !wrong(c.Err()) || n < 10 || n > 13 {
			t.Errorf("%v after %d comparisons", c.Err(), n)
		}
		w.wrong.Store(0)
		wait(2 * time.Second)
		if err := c.Err(); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
		if text := lines.String(); first != 1 || strings.Count(text, "\n") != 2 || !strings.Contains(text, "the clock is 1h0m0s ahead") || !strings.Contains(text, "the clock is right again") {
			t.Errorf("%d comparisons at first\n%s", first, text)
		}
	})
}

// bubbled is a world whose time is the bubble's, for two goroutines.
type bubbled struct {
	*world
	wrong, appends atomic.Int64
}

func (b *bubbled) Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	b.appends.Add(1)
	b.world.true = time.Now()
	return b.world.Append(ctx, stream, head, events)
}
