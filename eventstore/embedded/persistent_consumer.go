package embedded

import (
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/tidwall/btree"
)

const (
	// slotsLimit is the largest buffer size, in events, that a consumer may ask for.
	slotsLimit = 4096

	// flightBytes limits the size of a consumer's in-flight events. A consumer at the
	// limit gets no more. One with nothing in flight gets an event of any size.
	flightBytes = 8 << 20

	// eventOverhead is the approximate memory of an event without its contents.
	eventOverhead = 512
)

// delivery is an event on its way to a consumer. The consumer acknowledges it by the id
// of the event that was read. For a link that is the link's own id, not its target's.
type delivery struct {
	*resolved
	retries int32
}

// message is an event that a group has read and not finished.
type message struct {
	delivery

	lane     *lane
	place    int64     // the revision or position in the lane
	sentAt   time.Time // when it was sent to a consumer
	deadline time.Time // when the consumer that has it times out; zero for never
}

func (m *message) size() int {
	size := eventOverhead + m.resolved.size()
	if m.target != nil {
		size += eventOverhead
	}
	return size
}

// lane is a sequence of events that a group works through: a stream by revision, or the
// whole log by position.
type lane struct {
	next       int64                      // the first place that was not read yet
	unfinished btree.Map[int64, *message] // messages that were read and are not finished
	waiting    btree.Map[int64, *message] // those of them that no consumer has
	bytes      int                        // size of the waiting messages
}

// firstUnfinished returns the first place that is not finished. It never passes a message
// that a consumer has neither acknowledged nor refused.
func (l *lane) firstUnfinished() int64 {
	if first, _, found := l.unfinished.Min(); found {
		return first
	}
	return l.next
}

func (l *lane) addWaiting(m *message) {
	m.deadline = time.Time{}
	l.waiting.Set(m.place, m)
	l.bytes += m.size()
}

func (l *lane) removeWaiting(m *message) {
	l.waiting.Delete(m.place)
	l.bytes -= m.size()
}

// consumer is one call of Read. The channels connect the call with the group. The fields
// after them belong to the group's goroutine.
type consumer struct {
	id      uuid.UUID
	from    string
	name    string // of its connection, given by its client
	slots   int
	out     chan delivery
	dropped chan error

	inFlight  []*message
	bytes     int // size of the in-flight messages
	lateBytes int // size of the messages that timed out and may still be in out
	total     int64
	measured  int64 // total at the last measurement
	timings   timings
}

func newConsumer(from string, slots int) *consumer {
	return &consumer{id: uuid.New(), from: from, slots: slots, out: make(chan delivery, slots), dropped: make(chan error, 1)}
}

// free returns how many more messages the consumer can be given. Sending that many never
// blocks, even if messages that timed out are still in out.
func (c *consumer) free() int {
	if len(c.out) == 0 {
		c.lateBytes = 0
	}
	if c.bytes+c.lateBytes >= flightBytes {
		return 0
	}
	return min(c.slots-len(c.inFlight), cap(c.out)-len(c.out))
}

// settle removes the in-flight message with an id, which the consumer acknowledged or
// refused, and returns it. It returns nil if there is none, for example after a timeout.
func (c *consumer) settle(id uuid.UUID) *message {
	i := slices.IndexFunc(c.inFlight, func(m *message) bool { return m.id == id })
	if i < 0 {
		return nil
	}
	m := c.inFlight[i]
	c.inFlight = slices.Delete(c.inFlight, i, i+1)
	c.bytes -= m.size()
	c.timings.add(time.Since(m.sentAt))
	return m
}
