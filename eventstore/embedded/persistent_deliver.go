package embedded

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/maphash"
	"slices"
	"time"

	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/google/uuid"
)

// dispatch sends waiting messages to the consumers with room for them, replayed ones
// first.
func (g *group) dispatch(now time.Time) {
	free := 0
	for _, c := range g.consumers {
		free += max(c.free(), 0)
	}
	for _, l := range []*lane{&g.parked, &g.source} {
		var given []*message
		l.waiting.Scan(func(_ int64, m *message) bool {
			if free == 0 {
				return false
			}
			if c := g.choose(m); c != nil {
				g.send(c, m, now)
				given = append(given, m)
				free--
			}
			return true
		})
		for _, m := range given {
			l.removeWaiting(m)
		}
	}
}

func (g *group) send(c *consumer, m *message, now time.Time) {
	if g.settings.MessageTimeout > 0 {
		m.deadline = now.Add(milliseconds(g.settings.MessageTimeout))
		if g.nextTimeout.IsZero() {
			g.nextTimeout = m.deadline
		}
	}
	m.sentAt = now
	c.inFlight = append(c.inFlight, m)
	c.bytes += m.size()
	c.out <- m.delivery
	c.total++
	g.total++
}

// choose returns the consumer for a message, or nil if the message has to wait.
func (g *group) choose(m *message) *consumer {
	switch g.settings.ConsumerStrategy {
	case strategyPinned:
		return g.pinned(m)
	case strategyDispatchToSingle:
		g.nextConsumer = 0
	}
	for i := range g.consumers {
		if c := g.consumers[(g.nextConsumer+i)%len(g.consumers)]; c.free() > 0 {
			g.nextConsumer = (g.nextConsumer + i + 1) % len(g.consumers)
			return c
		}
	}
	return nil
}

// pinned returns the consumer that gets all events of a message's stream, or nil if it has
// no room. When another consumer joins or leaves, most streams keep theirs.
func (g *group) pinned(m *message) *consumer {
	stream := m.stream
	if m.target != nil {
		stream = m.target.stream
	}
	var chosen *consumer
	var highest uint64
	for _, c := range g.consumers {
		if hash := maphash.String(g.seed, c.id.String()+stream); chosen == nil || hash > highest {
			chosen, highest = c, hash
		}
	}
	if chosen == nil || chosen.free() <= 0 {
		return nil
	}
	return chosen
}

// finish marks messages as finished: they will not be delivered again.
func (g *group) finish(messages ...*message) {
	for _, m := range messages {
		m.lane.unfinished.Delete(m.place)
		if m.lane == &g.source {
			g.finishedSince++
		}
	}
}

func (g *group) ack(c *consumer, ids []uuid.UUID) {
	for _, id := range ids {
		if m := c.settle(id); m != nil {
			g.finish(m)
		}
	}
}

func (g *group) nack(c *consumer, ids []uuid.UUID, action persistentpb.ReadReq_Nack_Action, reason string) {
	var refused []*message
	for _, id := range ids {
		if m := c.settle(id); m != nil {
			refused = append(refused, m)
		}
	}
	switch action {
	case persistentpb.ReadReq_Nack_Park:
		g.park(refused, "Client explicitly NAK'ed message.\n"+reason)
	case persistentpb.ReadReq_Nack_Skip:
		g.finish(refused...)
	case persistentpb.ReadReq_Nack_Stop:
		for _, m := range refused {
			m.lane.addWaiting(m)
		}
		g.drop(c, droppedStatus(g.settings))
	default:
		g.retry(refused)
	}
}

// retry delivers messages again, or parks those that had all their retries.
func (g *group) retry(messages []*message) {
	var spent []*message
	for _, m := range messages {
		if m.retries >= g.settings.MaxRetryCount {
			spent = append(spent, m)
			continue
		}
		m.retries++
		m.lane.addWaiting(m)
	}
	g.park(spent, fmt.Sprintf("Reached retry count of %d", g.settings.MaxRetryCount))
}

// park moves messages to the group's stream of parked events, until an operator replays
// them.
func (g *group) park(messages []*message, reason string) {
	if len(messages) == 0 {
		return
	}
	links := make([]proposed, len(messages))
	for i, m := range messages {
		link := m.data
		if event, _ := m.pair(); event != nil {
			link = fmt.Appendf(nil, "%d@%s", event.revision, event.stream)
		}
		// A string and a number can always be encoded.
		why, _ := json.Marshal(struct { //nolint:errchkjson // see above
			Reason   string `json:"reason"`
			Original int64  `json:"subscriptionEventNumber"`
		}{reason, m.revision})
		links[i] = proposed{id: uuid.New(), kind: linkType, data: link, metadata: why}
	}
	if _, err := g.store.append(context.Background(), g.settings.parkedStream(), expectAny, links); err != nil {
		g.log.Error().Err(err).Msg("persistent subscription cannot park")
		for _, m := range messages {
			m.lane.addWaiting(m)
		}
		return
	}
	g.finish(messages...)
}

// expire takes back the messages whose consumers timed out.
func (g *group) expire(now time.Time) {
	if g.nextTimeout.IsZero() || now.Before(g.nextTimeout) {
		return
	}
	g.nextTimeout = time.Time{}
	for _, c := range g.consumers {
		var late []*message
		c.inFlight = slices.DeleteFunc(c.inFlight, func(m *message) bool {
			if !now.Before(m.deadline) {
				late = append(late, m)
				c.bytes -= m.size()
				c.lateBytes += m.size()
				return true
			}
			if g.nextTimeout.IsZero() || m.deadline.Before(g.nextTimeout) {
				g.nextTimeout = m.deadline
			}
			return false
		})
		g.retry(late)
	}
}
