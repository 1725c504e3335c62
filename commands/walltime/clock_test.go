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

// fakeStore is a store whose clock is right, and the two clocks of a node. Time passes only
// when the test says so, and in the store's calls.
type fakeStore struct {
	true  time.Time
	wrong time.Duration // by how much the node's clock is ahead
	slept time.Duration // how long the machine slept, which the monotonic clock does not count
	began time.Time

	// before is how long an append takes until its event is recorded, after is how long it
	// takes from then on until it returns.
	before, after time.Duration
	fail          error
	overtaken     int // how many appends lose a race
	events        []*domain.Recorded
	appends       int
	asked         int // how often Newest was called
	kept          uint64
	recording     func() // called when an event is recorded
}

func newFakeStore() (*fakeStore, *Clock) {
	s := &fakeStore{true: time.Date(2026, 12, 15, 9, 0, 0, 0, time.UTC), recording: func() {}}
	s.began = s.true
	c := New(func() time.Time { return s.true.Add(s.wrong) })
	c.Compare(s, func() time.Duration { return s.true.Sub(s.began) - s.slept })
	return s, c
}

func (s *fakeStore) pass(d time.Duration) { s.true = s.true.Add(d) }

func (s *fakeStore) sleep(d time.Duration) {
	s.pass(d)
	s.slept += d
}

func (s *fakeStore) Newest(context.Context, string) (*domain.Recorded, error) {
	s.asked++
	if s.fail != nil || len(s.events) == 0 {
		return nil, s.fail
	}
	return s.events[len(s.events)-1], nil
}

func (s *fakeStore) KeepNewest(_ context.Context, _ string, n uint64) error {
	s.kept = n
	return s.fail
}

func (s *fakeStore) Encode(_ string, e domain.Event, _ domain.Metadata) (domain.Proposed, error) {
	data, err := e.When().MarshalJSON()
	return domain.Proposed{Data: data, Metadata: []byte(`{"a":1}`)}, err
}

func (s *fakeStore) Append(_ context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	s.appends++
	if stream != domain.ClockStream {
		return domain.Head{}, domain.Position{}, fmt.Errorf("appended to %s", stream)
	}
	s.pass(s.before)
	if s.fail != nil {
		return domain.Head{}, domain.Position{}, s.fail
	}
	id := events[0].ID
	if s.overtaken > 0 {
		s.overtaken--
		id = uuid.New()
	}
	last := domain.NoStream
	if len(s.events) > 0 {
		last = s.events[len(s.events)-1].Revision
	}
	if head.Revision != last {
		return domain.Head{}, domain.Position{}, fmt.Errorf("at %d, not %d", last, head.Revision)
	}
	s.events = append(s.events, &domain.Recorded{
		ID: id, Revision: last + 1, RecordedAt: s.true.Truncate(time.Millisecond), RawMetadata: domain.WithHash([]byte(`{"a":1}`), "h"),
	})
	s.recording()
	s.pass(s.after)
	if id != uuid.UUID(events[0].ID) {
		return domain.Head{}, domain.Position{}, domain.ErrWrongRevision
	}
	return domain.Head{}, domain.Position{}, nil
}

func (s *fakeStore) Read(_ context.Context, _ string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if s.fail != nil {
			yield(nil, s.fail)
			return
		}
		for _, r := range s.events {
			if r.Revision > after && !yield(r, nil) {
				return
			}
		}
	}
}

// append does what the node's handler does for an append.
func (s *fakeStore) append(c *Clock, followedFirst bool) {
	id := uuid.New()
	c.Appending(id)
	s.pass(s.before)
	at := s.true.Truncate(time.Millisecond)
	if followedFirst {
		c.Recorded(id, at)
	}
	s.pass(s.after)
	c.Appended(id, nil)
	if !followedFirst {
		s.pass(time.Second)
		c.Recorded(id, at)
	}
}

func wrong(err error) bool {
	_, is := errors.AsType[*WrongError](err)
	return is && errors.Is(err, domain.ErrUnavailable)
}

// decides checks that the clock may be decided by.
func (s *fakeStore) decides(t *testing.T, c *Clock) {
	t.Helper()
	now, err := c.Now(t.Context())
	if err != nil || !now.Equal(s.true.Add(s.wrong)) {
		t.Errorf("at %s, wrong by %s: %s, %v", s.true, s.wrong, now, err)
	}
}

// refuses checks that the clock is wrong for a reason.
func (s *fakeStore) refuses(t *testing.T, c *Clock, reason string) {
	t.Helper()
	if _, err := c.Now(t.Context()); !wrong(err) || !strings.Contains(err.Error(), reason) {
		t.Errorf("wrong by %s: %v, want %s", s.wrong, err, reason)
	}
	if err := c.Usable(); !wrong(err) {
		t.Errorf("wrong by %s, it is usable: %v", s.wrong, err)
	}
}

// The first decision waits for a comparison. After that, while the clock is right, the
// appends of the node's commands are enough and the clock appends nothing.
func TestClock_isComparedOnceWhenAllIsWell(t *testing.T) {
	t.Parallel()
	s, c := newFakeStore()
	s.before, s.after = 3*time.Millisecond, 2*time.Millisecond
	if err := c.Err(); err == nil || wrong(err) {
		t.Errorf("before the first comparison: %v", err)
	}
	s.decides(t, c)
	for range 100 {
		s.pass(time.Minute)
		s.append(c, true)
		s.decides(t, c)
		c.Recheck(t.Context())
		if err := c.Err(); err != nil || c.Offset() != 0 {
			t.Fatalf("off by %s, %v", c.Offset(), err)
		}
	}
	if s.appends != 1 || s.kept != keptComparisons {
		t.Errorf("%d appends, %d are kept", s.appends, s.kept)
	}
	// After an hour without appends the clock is compared again, before a decision has to
	// wait for it.
	s.pass(validFor - renewBefore - time.Second)
	c.Recheck(t.Context())
	if s.appends != 1 {
		t.Errorf("before an hour is over %d appends", s.appends)
	}
	s.pass(2 * time.Second)
	c.Recheck(t.Context())
	s.pass(renewBefore)
	if err := c.Usable(); err != nil || s.appends != 2 {
		t.Errorf("after an hour %d appends, %v", s.appends, err)
	}
	s.pass(2 * validFor)
	s.decides(t, c)
	if s.appends != 3 {
		t.Errorf("after a long time %d appends", s.appends)
	}
}

// After a clock was set, it is compared before the next decision.
func TestClock_aClockThatIsSetDecidesNothing(t *testing.T) {
	t.Parallel()
	for _, by := range []time.Duration{time.Hour, -time.Hour, 31 * time.Second, -31 * time.Second, 160 * 365 * 24 * time.Hour} {
		s, c := newFakeStore()
		s.before, s.after = 3*time.Millisecond, 2*time.Millisecond
		s.decides(t, c)
		s.pass(time.Second)
		s.wrong = by
		side := map[bool]string{true: "ahead of", false: "behind"}[by > 0]
		s.refuses(t, c, side+" the event store's")
		if err := c.Err(); !wrong(err) || c.Offset() == 0 {
			t.Errorf("%v, off by %s", err, c.Offset())
		}
		appends := s.appends
		s.refuses(t, c, side)
		if s.appends != appends {
			t.Error("each request compares it again")
		}
		// Right again, it goes on.
		s.pass(time.Second)
		s.wrong = 0
		s.decides(t, c)
		if err := c.Err(); err != nil {
			t.Error(err)
		}
	}
	// The clock is wrong from the start.
	s, c := newFakeStore()
	s.wrong = time.Hour
	s.refuses(t, c, "the clock is 1h0m0s ahead of the event store's")
	// The clock was right and the store's was wrong, and the store's is corrected.
	s, c = newFakeStore()
	s.wrong = 50 * time.Second
	s.refuses(t, c, "50s")
	s.true, s.began, s.wrong = s.true.Add(s.wrong), s.began.Add(s.wrong), 0
	s.pass(compareEvery)
	c.Recheck(t.Context())
	s.decides(t, c)
}

// With a difference of 2 to 30 seconds, Err reports it and decisions go on.
func TestClock_aSmallDifferenceIsOnlyReported(t *testing.T) {
	t.Parallel()
	for by, told := range map[time.Duration]bool{
		time.Second: false, -1900 * time.Millisecond: false, 2100 * time.Millisecond: true, -5 * time.Second: true, 29 * time.Second: true, -29 * time.Second: true,
	} {
		s, c := newFakeStore()
		s.decides(t, c)
		s.wrong = by
		s.pass(time.Minute)
		s.decides(t, c)
		c.Recheck(t.Context())
		if err := c.Err(); wrong(err) != told || !told && err != nil {
			t.Errorf("off by %s: %v", by, err)
		}
		s.decides(t, c)
		// An append tells as much as a comparison.
		s.wrong = 0
		s.pass(time.Second)
		s.append(c, false)
		if err := c.Err(); err != nil {
			t.Errorf("right again: %v", err)
		}
	}
}

// The clock of a machine that slept is right, although it jumped.
func TestClock_aMachineThatSleptGoesOn(t *testing.T) {
	t.Parallel()
	s, c := newFakeStore()
	s.decides(t, c)
	s.sleep(8 * time.Hour)
	if err := c.Usable(); err == nil || wrong(err) {
		t.Errorf("before it is compared: %v", err)
	}
	s.decides(t, c)
	if s.appends != 2 || c.Err() != nil {
		t.Errorf("%d appends, %v", s.appends, c.Err())
	}
}

// When the store fails, the clock does not count as wrong, and the store is not asked more
// than once a second.
func TestClock_aStoreThatIsAwayIsNotFlooded(t *testing.T) {
	t.Parallel()
	s, c := newFakeStore()
	s.fail = fmt.Errorf("away: %w", domain.ErrOutcomeUnknown)
	for range 100 {
		_, err := c.Now(t.Context())
		if !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) || wrong(err) {
			t.Fatal(err)
		}
		s.pass(50 * time.Millisecond)
		c.Recheck(t.Context())
	}
	if s.asked > 6 {
		t.Errorf("in 5 seconds it is asked %d times", s.asked)
	}
	s.fail = nil
	s.pass(retryPause)
	s.overtaken = 3
	s.decides(t, c)
	// While the store is away, a clock whose offset is known may still be used.
	s.fail = domain.ErrUnavailable
	s.decides(t, c)
	s.wrong = time.Hour
	if _, err := c.Now(t.Context()); err == nil || wrong(err) {
		t.Errorf("it jumped and cannot be compared: %v", err)
	}
}

// Under load, appends take seconds, return late, fail or never return. That causes no false
// alarm.
func TestClock_slowAppendsAreNoAlarm(t *testing.T) {
	t.Parallel()
	s, c := newFakeStore()
	s.before, s.after = 4*time.Second, 5*time.Second
	for range 20 {
		s.append(c, false)
		s.decides(t, c)
		if err := c.Err(); err != nil || c.Offset() != 0 {
			t.Fatalf("%v, off by %s", err, c.Offset())
		}
	}
	if s.appends > 1 {
		t.Errorf("%d comparisons", s.appends)
	}
	lost, failed := uuid.New(), uuid.New()
	c.Appending(failed)
	c.Appended(failed, domain.ErrOutcomeUnknown)
	c.Recorded(failed, s.true.Add(-time.Hour))
	if err := c.Err(); err != nil {
		t.Errorf("after an append that failed: %v", err)
	}
	c.Appending(lost)
	c.Appended(lost, nil)
	s.pass(abandonAfter + time.Second)
	s.append(c, true)
	c.Recorded(lost, s.true.Add(-time.Hour))
	if err := c.Err(); err != nil || c.Offset() != 0 {
		t.Errorf("%v, off by %s", err, c.Offset())
	}
}

// An exact measurement is not replaced by a rough one, nor a newer one by an older one.
func TestClock_theBestOfAllMeasurementsCounts(t *testing.T) {
	t.Parallel()
	s, c := newFakeStore()
	s.decides(t, c)
	before := uuid.New()
	c.Appending(before)
	recorded := s.true
	s.pass(time.Millisecond)
	c.Appended(before, nil)
	s.wrong = 10 * time.Second
	s.pass(compareEvery)
	c.Recheck(t.Context())
	s.before, s.after = 4*time.Second, 5*time.Second
	c.Recorded(before, recorded)
	for range 3 {
		if err := c.Err(); !wrong(err) || !strings.Contains(err.Error(), "10s ahead") {
			t.Errorf("it is %v", err)
		}
		s.append(c, true)
	}
}

// Whatever happens to the clock and however long the store takes: a clock that is called
// wrong is wrong, and nothing is decided at a time that is off by more than the limit.
func TestClock_laws(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s, c := newFakeStore()
		duration := func(most time.Duration, name string) time.Duration {
			return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, name))
		}
		// A measurement is exact to the millisecond.
		const exact = 2 * time.Millisecond
		set := func() {
			by := rapid.SampledFrom([]time.Duration{0, time.Second, 2 * time.Second, 10 * time.Second, 30 * time.Second, 33 * time.Second, time.Hour, 24 * time.Hour}).Draw(t, "by")
			s.wrong = by + duration(3*time.Second, "and") - 1500*time.Millisecond
			if rapid.Bool().Draw(t, "behind") {
				s.wrong = -s.wrong
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"pass": func(*rapid.T) { s.pass(duration(20*time.Minute, "pass")) },
			// Run checks the clock every second. So the machine does not sleep and set
			// its clock between two checks, which could look as if neither had happened.
			"sleep": func(t *rapid.T) {
				measure := func() { _ = c.compare(t.Context(), func() bool { return true }) }
				measure()
				s.sleep(duration(20*time.Hour, "sleep"))
				measure()
			},
			"set": func(*rapid.T) { set() },
			"load": func(*rapid.T) {
				s.before, s.after = duration(5*time.Second, "before"), duration(4*time.Second, "after")
			},
			"set while it is compared": func(t *rapid.T) {
				s.recording = func() {
					set()
					s.recording = func() {}
				}
				c.Recheck(t.Context())
				s.recording = func() {}
			},
			"append":  func(*rapid.T) { s.append(c, rapid.Bool().Draw(t, "followed first")) },
			"recheck": func(t *rapid.T) { c.Recheck(t.Context()) },
			"decide": func(t *rapid.T) {
				now, err := c.Now(t.Context())
				if err != nil {
					return
				}
				if off := now.Sub(s.true); off.Abs() > maxOffset+exact {
					t.Fatalf("decided %s off", off)
				}
			},
			"": func(t *rapid.T) {
				off := c.Offset()
				if off > 0 && s.wrong < off-exact || off < 0 && s.wrong > off+exact {
					t.Fatalf("it is off by %s, and is called %s off", s.wrong, off)
				}
				if err := c.Err(); wrong(err) && s.wrong.Abs() < maxSilent-exact {
					t.Fatalf("it is off by %s: %v", s.wrong, err)
				}
			},
		})
		// In the end the store is quick and the clock is right, so decisions go on.
		s.before, s.after, s.wrong = time.Millisecond, time.Millisecond, 0
		s.pass(compareEvery)
		c.Recheck(t.Context())
		if _, err := c.Now(t.Context()); err != nil || c.Err() != nil {
			t.Fatalf("right again: %v, %v", err, c.Err())
		}
	})
}

// Run notices that the clock was set, and that it is right again, and logs each once.
func TestClock_runTellsOfAWrongClockOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w, began := &bubbled{fakeStore: &fakeStore{recording: func() {}}}, time.Now()
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

// bubbled is a fakeStore that uses the time of a synctest bubble.
type bubbled struct {
	*fakeStore
	wrong, appends atomic.Int64
}

func (b *bubbled) Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	b.appends.Add(1)
	b.fakeStore.true = time.Now()
	return b.fakeStore.Append(ctx, stream, head, events)
}
