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
	// compareTimeout is how long one comparison may take.
	compareTimeout = 10 * time.Second
	// compareEvery is between comparisons of a clock that is wrong, and retryPause
	// between those that fail.
	compareEvery = 5 * time.Second
	retryPause   = time.Second
	// compareAttempts is how often an append is tried that another node's overtakes.
	compareAttempts = 10
	// kept is how many comparisons the store shows.
	keptComparisons = 100
	// abandonAfter is how long an append is waited for to come back.
	abandonAfter = time.Minute
	// resolution is how finely a store may record when an event came.
	resolution = time.Millisecond
	// furthest keeps sums of differences from overflowing.
	maxDifference = 50 * 365 * 24 * time.Hour
)

// Store is the event store as this package needs it. *eventstore.Log is one.
type Store interface {
	Newest(ctx context.Context, stream string) (*domain.Recorded, error)
	KeepNewest(ctx context.Context, stream string, n uint64) error
	Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error)
	Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error)
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// bounds are the least and the most that a difference can be.
type bounds struct{ least, most time.Duration }

// certain is the difference that there is at least, to either side.
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

// between is a-b, not more than furthest.
func between(a, b time.Time) time.Duration { return min(max(a.Sub(b), -maxDifference), maxDifference) }

// jump is by how much more time has passed by the clock than by the monotonic one.
func jump(from, to moment) time.Duration {
	return between(to.wall, from.wall) - (to.elapsed - from.elapsed)
}

// possible is by how much the clock can be ahead now. When it jumped, either it was
// set by as much, or the machine slept, of which the monotonic clock knows nothing.
func (c *Clock) possibleOffset(now moment) (ahead bounds, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.possibleOffsetLocked(now), c.known && now.elapsed-c.at.elapsed <= validFor
}

func (c *Clock) possibleOffsetLocked(now moment) bounds {
	by := jump(c.at, now)
	return bounds{c.offset.least + min(by, 0), c.offset.most + max(by, 0)}
}

// learn takes a measurement: the store recorded an event at a time that lies between
// two moments here.
func (c *Clock) learn(sent, answered moment, recorded time.Time) {
	// A jump meanwhile makes the measurement as much less exact.
	slack := jump(sent, answered).Abs()
	ahead := bounds{between(sent.wall, recorded) - resolution - slack, between(answered.wall, recorded) + slack}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known {
		if answered.elapsed < c.at.elapsed {
			return // a later one was quicker to come
		}
		// What cannot be true any more, because a clock drifted or the store's was set,
		// is forgotten.
		if both, possible := c.possibleOffsetLocked(answered).and(ahead); possible {
			ahead = both
		}
	}
	c.known, c.offset, c.at = true, ahead, answered
}

// measurement is an append that is under way, or that was not followed yet.
type measurement struct {
	event    [16]byte // zero for none
	sent     moment
	answered moment    // zero before the answer
	recorded time.Time // zero before the event was followed
}

// Appending says that an append with this event is about to be sent. One append at a
// time is measured. An event that may have been sent before must not be told of.
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

// Appended says how the append ended.
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

// Recorded says when the store recorded an event that was followed.
func (c *Clock) Recorded(event [16]byte, at time.Time) {
	c.progress(event, func(m *measurement) bool {
		m.recorded = at
		return true
	})
}

// progress adds to the measurement of an event, which is over when nothing is missing
// or it is of no use any more.
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

// Recheck compares the clock when there is a reason to: it is not known how it is, or
// it may be wrong.
func (c *Clock) Recheck(ctx context.Context) {
	if c.reference.Load() == nil {
		return
	}
	// What fails is tried again, and until then the clock is as it was.
	_ = c.compare(ctx, func() bool {
		now := c.now()
		ahead, _ := c.possibleOffset(now)
		_, lasting := c.possibleOffset(moment{now.wall.Add(renewBefore), now.elapsed + renewBefore})
		return isUnknown(c.Usable()) || !lasting || !ahead.within(maxSilent) && now.elapsed-c.tried >= compareEvery
	})
}

// compare compares the clock with the store's if that is wanted, once nobody else
// does.
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

// uncompared does not wrap err: what is not known is not the outcome of what the
// time was asked for.
func uncompared(err error) error {
	return fmt.Errorf("%w: the clock was not compared with the store's: %s", domain.ErrUnavailable, err.Error())
}

// probe measures by an append of its own.
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

// newestHead is where the stream of comparisons ends.
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
