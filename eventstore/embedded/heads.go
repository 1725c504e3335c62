package embedded

import (
	"container/list"
	"math"

	"github.com/google/uuid"
)

// noRevision is the revision of a stream without events.
const noRevision = -1

// head is the state of a stream: its newest revision and its limits.
type head struct {
	id     int64 // 0 if the stream is not in the file yet
	name   string
	last   int64
	limits limits
}

// firstVisible returns the lowest revision that readers can see.
func (h *head) firstVisible() int64 {
	first := h.limits.before
	if h.limits.maxCount > 0 {
		first = max(first, h.last-h.limits.maxCount+1)
	}
	return first
}

// oldestVisible returns the earliest creation time, in ticks, that an event must have for
// readers to see it.
func (h *head) oldestVisible(now int64) int64 {
	const ticksPerSecond = 10_000_000
	if h.limits.maxAge == 0 || h.limits.maxAge > now/ticksPerSecond {
		return math.MinInt64
	}
	return now - h.limits.maxAge*ticksPerSecond
}

// headCache keeps the heads of the most recently used streams, so that appends to them
// need no lookup. Only the committer uses it.
type headCache struct {
	limit int
	order *list.List // of *head, the most recently used first
	byKey map[string]*list.Element
}

func newHeadCache(limit int) *headCache {
	return &headCache{limit: limit, order: list.New(), byKey: make(map[string]*list.Element)}
}

func (c *headCache) get(name string) (*head, bool) {
	element, found := c.byKey[name]
	if !found {
		return nil, false
	}
	c.order.MoveToFront(element)
	return element.Value.(*head), true
}

func (c *headCache) put(h *head) {
	c.byKey[h.name] = c.order.PushFront(h)
	if c.order.Len() > c.limit {
		oldest := c.order.Back()
		c.order.Remove(oldest)
		delete(c.byKey, oldest.Value.(*head).name)
	}
}

func (c *headCache) drop(name string) {
	if element, found := c.byKey[name]; found {
		c.order.Remove(element)
		delete(c.byKey, name)
	}
}

// place says where an event was written.
type place struct {
	stream   int64
	revision int64
	position int64
}

// recentIDs remembers the ids of events that were appended without an exact expected
// revision, so that a repeated append is recognised. For an append with an exact revision
// the events in the stream show whether it is a repeat. Only the committer uses it.
type recentIDs struct {
	places map[uuid.UUID]place
	ring   []uuid.UUID // the ids in places; once it is full, the oldest is at next
	next   int
	limit  int
}

func newRecentIDs(limit int) *recentIDs {
	return &recentIDs{places: make(map[uuid.UUID]place), limit: limit}
}

func (r *recentIDs) add(id uuid.UUID, at place) {
	if _, known := r.places[id]; !known {
		if len(r.ring) < r.limit {
			r.ring = append(r.ring, id)
		} else {
			delete(r.places, r.ring[r.next])
			r.ring[r.next] = id
			r.next = (r.next + 1) % r.limit
		}
	}
	r.places[id] = at
}

// forget removes the ids of events that were not committed. Their slots in the ring are
// reused in turn.
func (r *recentIDs) forget(ids []uuid.UUID) {
	for _, id := range ids {
		delete(r.places, id)
	}
}
