package walltime

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

const (
	// compareTimeout bounds one comparison.
	compareTimeout = 10 * time.Second
	// compareEvery is the time between two comparisons while the clock is wrong, and
	// retryPause the time after a comparison that failed.
	compareEvery = 5 * time.Second
	retryPause   = time.Second
	// compareAttempts is how often one comparison appends when other nodes are quicker.
	compareAttempts = 10
	// keptComparisons is how many of the events that comparisons append are kept in the
	// stream.
	keptComparisons = 100
	// abandonAfter is how long a measurement waits for its append to return and its event
	// to be followed.
	abandonAfter = time.Minute
	// resolution is how exactly a store records the time of an event.
	resolution = time.Millisecond
	// maxDifference limits the differences between times, so that sums of them do not
	// overflow.
	maxDifference = 50 * 365 * 24 * time.Hour
)

// Store is the part of the event store that this package uses. *eventstore.Log implements
// it.
type Store interface {
	Newest(ctx context.Context, stream string) (*domain.Recorded, error)
	KeepNewest(ctx context.Context, stream string, n uint64) error
	Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error)
	Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error)
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// bounds are the lower and the upper bound of a difference.
type bounds struct{ least, most time.Duration }

// atLeast is the smallest difference within the bounds, by its absolute value.
func (b bounds) atLeast() time.Duration {
	switch {
	case b.least > 0:
		return b.least
	case b.most < 0:
		return b.most
	}
	return 0
}

func (b bounds) within(d time.Duration) bool { return b.least >= -d && b.most <= d }

func (b bounds) and(other bounds) (both bounds, possible bool) {
	both = bounds{max(b.least, other.least), min(b.most, other.most)}
	return both, both.least <= both.most
}

// between is a-b, limited to maxDifference.
func between(a, b time.Time) time.Duration { return min(max(a.Sub(b), -maxDifference), maxDifference) }

// jump is how much more time has passed by the wall clock than by the monotonic clock.
func jump(from, to moment) time.Duration {
	return between(to.wall, from.wall) - (to.elapsed - from.elapsed)
}

// possibleOffset returns the bounds of how much the clock is ahead of the store's now, and
// whether they are known. A jump since the last measurement widens the bounds: either the
// clock was set, or the machine slept, which the monotonic clock does not count.
func (c *Clock) possibleOffset(now moment) (ahead bounds, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.possibleOffsetLocked(now), c.known && now.elapsed-c.at.elapsed <= validFor
}

func (c *Clock) possibleOffsetLocked(now moment) bounds {
	by := jump(c.at, now)
	return bounds{c.offset.least + min(by, 0), c.offset.most + max(by, 0)}
}

// learn takes a measurement: the store recorded an event at the time recorded, which was
// between the moments sent and answered here.
func (c *Clock) learn(sent, answered moment, recorded time.Time) {
	// A jump between the two moments makes the measurement less exact by as much.
	slack := jump(sent, answered).Abs()
	ahead := bounds{between(sent.wall, recorded) - resolution - slack, between(answered.wall, recorded) + slack}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		if answered.elapsed < c.at.elapsed {
			return // a later measurement was learned before
		}
		// When the two measurements contradict each other, a clock drifted or the store's
		// was set, so the older one is dropped.
		if both, possible := c.possibleOffsetLocked(answered).and(ahead); possible {
			ahead = both
		}
	}
	c.known, c.offset, c.at = true, ahead, answered
}

// measurement is an append that has not returned or whose event was not followed yet.
type measurement struct {
	event    [16]byte // zero for none
	sent     moment
	answered moment    // when the append returned; zero before
	recorded time.Time // the store's time of the event; zero before it was followed
}

// Appending says that an append with this event is about to be sent. The caller must not
// call it for an event that may have been sent before. The Clock measures one append at a
// time and ignores the others.
func (c *Clock) Appending(event [16]byte) {
	if c.reference.Load() == nil {
		return
	}
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.measured.event == ([16]byte{}) || now.elapsed-c.measured.sent.elapsed > abandonAfter {
		c.measured = measurement{event: event, sent: now}
	}
}

// Appended says that the append with this event returned err.
func (c *Clock) Appended(event [16]byte, err error) {
	if c.reference.Load() == nil {
		return
	}
	now := c.now()
	c.progress(event, func(m *measurement) bool {
		m.answered = now
		return err == nil
	})
}

// Recorded says at which time the store recorded an event that the node follows.
func (c *Clock) Recorded(event [16]byte, at time.Time) {
	c.progress(event, func(m *measurement) bool {
		m.recorded = at
		return true
	})
}

// progress adds a part to the measurement of an event. The measurement ends when it has all
// parts, which are then learned, or when add returns false because the measurement is
// useless.
func (c *Clock) progress(event [16]byte, add func(*measurement) (useful bool)) {
	c.mu.Lock()
	if c.measured.event != event {
		c.mu.Unlock()
		return
	}
	useful := add(&c.measured)
	m := c.measured
	complete := !m.recorded.IsZero() && !m.answered.wall.IsZero()
	if !useful || complete {
		c.measured = measurement{}
	}
	c.mu.Unlock()
	if useful && complete {
		c.learn(m.sent, m.answered, m.recorded)
	}
}

// Recheck compares the clock with the store's when the offset is unknown, or will be within
// a minute. While the clock may differ by more than 2 seconds, it does so every 5 seconds.
func (c *Clock) Recheck(ctx context.Context) {
	if c.reference.Load() == nil {
		return
	}
	// A comparison that fails is repeated later. Until then the last measurement holds.
	_ = c.compare(ctx, func() bool {
		now := c.now()
		ahead, _ := c.possibleOffset(now)
		_, lasting := c.possibleOffset(moment{now.wall.Add(renewBefore), now.elapsed + renewBefore})
		return isUnknown(c.Usable()) || !lasting || !ahead.within(maxSilent) && now.elapsed-c.tried >= compareEvery
	})
}

// compare compares the clock with the store's if wanted reports true. It waits for a
// comparison that is in progress, and calls wanted after it. Within retryPause after a
// failure it returns the same error again.
func (c *Clock) compare(ctx context.Context, wanted func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	select {
	case c.comparing <- struct{}{}:
	case <-ctx.Done():
		return uncompared(ctx.Err())
	}
	defer func() { <-c.comparing }()
	if !wanted() {
		return nil
	}
	if c.failed != nil && c.now().elapsed-c.tried < retryPause {
		return c.failed
	}
	c.failed = nil
	if err := c.probe(ctx); err != nil {
		c.failed = uncompared(err)
	}
	c.tried = c.now().elapsed
	return c.failed
}

// uncompared does not wrap err. It may be a domain.ErrOutcomeUnknown of the comparison's
// append, and the command that asks for the time has written nothing.
func uncompared(err error) error {
	return fmt.Errorf("%w: the clock was not compared with the store's: %s", domain.ErrUnavailable, err.Error())
}

// probe appends an event to measure the offset.
func (c *Clock) probe(ctx context.Context) error {
	const stream = domain.ClockStream
	store := c.reference.Load()
	for range compareAttempts {
		head, err := newestHead(ctx, store)
		if err != nil {
			return err
		}
		id := uuid.New()
		proposed, err := store.Encode(stream, domain.ClockCompared{Stamp: domain.Stamp{At: domain.InstantOf(c.read())}}, domain.Metadata{
			CommandID: id.String(), CorrelationID: id.String(), CausationID: id.String(), Actor: domain.ActorClock,
		})
		if err != nil {
			return err
		}
		proposed.ID = id
		sent := c.now()
		_, _, err = store.Append(ctx, stream, head, []domain.Proposed{proposed})
		answered := c.now()
		if errors.Is(err, domain.ErrWrongRevision) {
			continue // another node was quicker
		}
		if err != nil {
			return err
		}
		for r, err := range store.Read(ctx, stream, head.Revision) {
			if err != nil {
				return err
			}
			if r.ID == id {
				c.learn(sent, answered, r.RecordedAt)
				return nil
			}
		}
		return fmt.Errorf("the event that was appended to %s is not there", stream)
	}
	return fmt.Errorf("other nodes overtook each of %d appends to %s", compareAttempts, stream)
}

// newestHead returns the head of the stream of comparisons. The first time it tells the
// store to keep only the newest keptComparisons events.
func newestHead(ctx context.Context, store Store) (domain.Head, error) {
	newest, err := store.Newest(ctx, domain.ClockStream)
	if err != nil {
		return domain.Head{}, err
	}
	if newest == nil {
		return domain.EmptyHead(), store.KeepNewest(ctx, domain.ClockStream, keptComparisons)
	}
	_, hash, _ := domain.SplitHash(newest.RawMetadata)
	return domain.Head{Revision: newest.Revision, Hash: hash}, nil
}
