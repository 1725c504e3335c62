package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// A check that is content with everything shows nothing. Each of these is what clients
// recorded of an honest queue, and its history, with one mistake in one of them.
func TestCrowd_findsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	honest := runCrowd(t, newCluster(t, 1), 1, false)
	mustHold(t, honest)
	for name, c := range map[string]struct {
		plant func(*crowdEvidence)
		found []string // one of them at least does not hold
	}{
		"somebody is admitted twice": {func(e *crowdEvidence) {
			i := e.index((*crowdEvent).automatic)
			again := *e.events[i]
			e.events = slices.Insert(e.events, i, &again)
		}, []string{claimLife}},
		"an acknowledged entry is lost": {func(e *crowdEvidence) {
			lost := e.events[e.caused[e.call(e.entered).id][0]].Data
			e.events = slices.DeleteFunc(e.events, func(o *crowdEvent) bool {
				return o.Data.ConsumerID == lost.ConsumerID && o.Data.Entry == lost.Entry
			})
		}, []string{claimExplained}},
		"an entry is another's": {func(e *crowdEvidence) {
			taken := e.events[e.caused[e.call(e.entered).id][0]].Data
			for _, o := range e.events {
				if o.Data.ConsumerID == taken.ConsumerID && o.Data.Entry == taken.Entry {
					o.Data.ConsumerID = "thief"
				}
			}
		}, []string{claimAsked}},
		"two change places": {func(e *crowdEvidence) {
			i := e.pair(func(a, b *crowdEvent) bool {
				return a.Type == "queue.consumer.entered" && b.Type == a.Type && a.Data.ConsumerID != b.Data.ConsumerID
			})
			a, b := e.events[i], e.events[i+1]
			a.Data.ConsumerID, b.Data.ConsumerID = b.Data.ConsumerID, a.Data.ConsumerID
			a.Cause, b.Cause = b.Cause, a.Cause
		}, []string{claimExplained}},
		"somebody is admitted out of turn": {func(e *crowdEvidence) {
			i := e.index(func(o *crowdEvent) bool { return o.automatic() && len(e.states[o.Revision-1].line) > 1 })
			before := e.states[i-1]
			for consumer, entry := range before.latest {
				if entry.number == before.line[1] {
					e.events[i].Data.ConsumerID, e.events[i].Data.Entry = consumer, entry.number
				}
			}
		}, []string{claimTurn}},
		"admission by hand is recorded as automatic": {func(e *crowdEvidence) {
			e.events[e.index(func(o *crowdEvent) bool {
				return o.Data.ByHand && len(e.states[o.Revision-1].line) > 1 && o.Data.Entry != e.states[o.Revision-1].line[0]
			})].Data.ByHand = false
		}, []string{claimTurn}},
		"more are admitted than the rate allows": {func(e *crowdEvidence) {
			e.neverChanged().AdmissionRate = 1
		}, []string{claimPace}},
		"more wait than there is room for": {func(e *crowdEvidence) {
			e.neverChanged().MaxCapacity = 1
		}, []string{claimCapacity}},
		"an empty queue is said to be full": {func(e *crowdEvidence) {
			at := e.calls[0].called
			e.calls = append(e.calls, &crowdCall{
				id: "planted", op: crowdEnter, consumer: "refused", called: at, returned: at,
				status: http.StatusTooManyRequests, code: domain.Full(domain.KindQueue).Identifier(),
			})
		}, []string{claimExplained}},
		"who left still takes a place": {func(e *crowdEvidence) {
			// The consumer is told to be where it was, after it was told that it had left.
			left := e.call(func(c *crowdCall) bool { return c.op == crowdLeave && len(e.caused[c.id]) > 0 })
			enter := e.call(func(c *crowdCall) bool { return e.entered(c) && c.consumer == left.consumer })
			again := *enter
			again.id, again.op, again.called, again.returned = "planted", crowdStatus, left.returned.Add(1), left.returned.Add(1)
			e.calls = append(e.calls, &again)
		}, []string{claimExplained}},
		"who entered is unknown": {func(e *crowdEvidence) {
			enter := e.call(e.entered)
			at := enter.returned.Add(time.Microsecond)
			e.calls = append(e.calls, &crowdCall{
				id: "planted", op: crowdStatus, consumer: enter.consumer, called: at, returned: at,
				status: http.StatusNotFound, code: domain.NotIn(domain.KindQueue).Identifier(),
			})
		}, []string{claimExplained}},
		"a session does not end": {func(e *crowdEvidence) {
			i := e.index(func(o *crowdEvent) bool { return o.Type == "queue.consumer.expired" })
			e.events = slices.Delete(e.events, i, i+1)
		}, []string{claimSession}},
		"a session ends too early": {func(e *crowdEvidence) {
			e.events[e.index((*crowdEvent).automatic)].More.ExpiresAt++
		}, []string{claimSession}},
		"a token outlives its session": {func(e *crowdEvidence) {
			shown := &e.call(func(c *crowdCall) bool { return len(c.shown) == 1 && c.shown[0].Token != "" }).shown[0]
			parts := strings.Split(shown.Token, ".")
			claims := claimsOf(shown.Token)
			claims.Expires++
			text, _ := json.Marshal(claims)
			parts[1] = base64.RawURLEncoding.EncodeToString(text)
			shown.Token = strings.Join(parts, ".")
		}, []string{claimToken}},
		"a token counts after its end": {func(e *crowdEvidence) {
			c := e.call(func(c *crowdCall) bool { return c.valid })
			c.called = claimsOf(c.token).end().Time()
			c.returned = c.called
		}, []string{claimToken, claimExplained}},
		"a read has something recorded": {func(e *crowdEvidence) {
			read := e.call(func(c *crowdCall) bool { return c.op == crowdStatus })
			e.events[e.index((*crowdEvent).automatic)].Cause.RequestID = read.id
		}, []string{claimRefusal}},
		"a refused request is carried out": {func(e *crowdEvidence) {
			c := e.call(e.entered)
			c.status, c.code, c.shown = http.StatusTooManyRequests, domain.Full(domain.KindQueue).Identifier(), nil
		}, []string{claimRefusal}},
		"nobody asked for an entry": {func(e *crowdEvidence) {
			e.events[e.index(func(o *crowdEvent) bool { return o.Type == "queue.consumer.entered" })].Cause.RequestID = ""
		}, []string{claimAsked}},
		"a repeat is carried out again": {func(e *crowdEvidence) {
			for _, c := range e.calls {
				if e.entered(c) {
					c.key = "planted"
				}
			}
		}, []string{claimRepeat}},
		"a position is wrong": {func(e *crowdEvidence) {
			*e.call(func(c *crowdCall) bool { return e.entered(c) && c.shown[0].Position != nil }).shown[0].Position += 1000
		}, []string{claimExplained}},
		"a ticket changes": {func(e *crowdEvidence) {
			one := e.call(func(c *crowdCall) bool { return c.op == crowdStatus && c.status == http.StatusOK })
			other := e.call(func(c *crowdCall) bool { return e.entered(c) && c.consumer != one.consumer })
			one.shown[0].Ticket, other.shown[0].Ticket = "AAAAAAAA", "AAAAAAAA"
		}, []string{claimTicket}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := honest.clone()
			e.judge() // for what plants look up
			c.plant(e)
			e.relink()
			verdicts := e.judge()
			if !slices.ContainsFunc(c.found, func(claim string) bool { return verdicts.of(claim).Broken > 0 }) {
				t.Errorf("not found by %q", c.found)
			}
		})
	}
}

// clone is a copy that a mistake can be planted in.
func (c *crowdEvidence) clone() *crowdEvidence {
	e := &crowdEvidence{}
	same := map[*crowdCall]*crowdCall{}
	for _, call := range c.calls {
		one := *call
		one.shown = slices.Clone(call.shown)
		for i, s := range one.shown {
			if s.Position != nil {
				position := *s.Position
				one.shown[i].Position = &position
			}
		}
		same[call] = &one
		e.calls = append(e.calls, &one)
	}
	for _, call := range e.calls {
		call.named = same[call.named]
	}
	for _, event := range c.events {
		one := *event
		e.events = append(e.events, &one)
	}
	return e
}

// relink makes a history whole again, so that it is not found by that alone.
func (c *crowdEvidence) relink() {
	before := ""
	for i, e := range c.events {
		e.Revision = int64(i)
		e.benchEvent.Metadata.PrevHash, e.benchEvent.Metadata.Hash = before, strconv.Itoa(i)
		before = strconv.Itoa(i)
	}
}

// neverChanged makes the queue one whose fields stay what they were when it was made,
// and returns these.
func (c *crowdEvidence) neverChanged() *crowdData {
	for _, e := range c.events {
		e.More.Changed = nil
	}
	return &c.events[0].More
}

func (e *crowdEvent) automatic() bool { return e.Type == "queue.consumer.admitted" && e.due() }

// entered reports whether a call made an entry and was told so.
func (c *crowdEvidence) entered(call *crowdCall) bool {
	return call.op == crowdEnter && call.status == http.StatusOK && len(c.caused[call.id]) > 0
}

// index is where the first event is of which something holds.
func (c *crowdEvidence) index(holds func(*crowdEvent) bool) int {
	return c.pair(func(e, _ *crowdEvent) bool { return holds(e) })
}

// pair is where the first event is of which something holds, with the one after it.
func (c *crowdEvidence) pair(hold func(a, b *crowdEvent) bool) int {
	for i := range c.events[1:] {
		if hold(c.events[i], c.events[i+1]) {
			return i
		}
	}
	panic("the history has no such event")
}

// call is the first of which something holds.
func (c *crowdEvidence) call(holds func(*crowdCall) bool) *crowdCall {
	if i := slices.IndexFunc(c.calls, holds); i >= 0 {
		return c.calls[i]
	}
	panic("there is no such call")
}
