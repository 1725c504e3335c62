package embedded

import (
	"container/list"
	"math"

	"github.com/google/uuid"
)

// noRevision is the revision of a stream without events.
const noRevision = -1

// head is where a stream stands.
type head struct {
	id     int64 // 0 as long as the file does not know the stream
	name   string
	last   int64
	limits limits
}

// firstShown is the lowest revision that readers are shown.
func (h *head) firstShown() int64 {
	first := h.limits.before
	if h.limits.maxCount > 0 {
		first = max(first, h.last-h.limits.maxCount+1)
	}
	return first
}

// oldestShown is the earliest time of creation that readers are shown, in ticks.
func (h *head) oldestShown(now int64) int64 {
	const ticksPerSecond = 10_000_000
	if h.limits.maxAge == 0 || h.limits.maxAge > now/ticksPerSecond {
		return math.MinInt64
	}
	return now - h.limits.maxAge*ticksPerSecond
}

// headCache keeps the heads of the streams used last, so that an append to one
// of them need not look anything up. It is owned by the committer.
type headCache struct {
	limit int
	order *list.List // of *head, the one used last in front
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

// place is where an event went.
type place struct {
	stream   int64
	revision int64
	position int64
}

// recentIDs remembers the events that were appended without an exact expected
// revision, so that an append sent again soon is recognised. Those with one are
// recognised by what stands in the stream. It is owned by the committer.
type recentIDs struct {
	places map[uuid.UUID]place
	ring   []uuid.UUID // the ids in places, oldest at next once it is full
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

// forget takes back ids whose events were not committed. Their slots in the ring
// stay and are reused in turn.
func (r *recentIDs) forget(ids []uuid.UUID) {
	for _, id := range ids {
		delete(r.places, id)
	}
}
