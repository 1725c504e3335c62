package crowd

import (
	"net/http"
	"slices"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/queuemodel"
)

// The claims that this package checks in addition to those of package claims.
const (
	Capacity  = "a consumer enters only when fewer consumers wait than the capacity allows"
	Pace      = "in any time there are no more automatic admissions than its rates allow, plus those of one second"
	Session   = "a session ends when it is due, and its end is recorded before any later event"
	Explained = "every answer is right for the queue at some time between call and return"
	Refusal   = "a read or a refused request changes nothing"
	Repeat    = "a repeated request is carried out once"
	Token     = "an admission token belongs to its session and never outlives it"
	Ticket    = "every entry has one ticket, which no other entry has"
)

// Claims returns all claims that Judge checks.
func Claims() []string {
	return []string{
		claims.Whole, claims.Once, claims.Asked, claims.Turn, claims.Life, claims.Rate,
		Capacity, Pace, Session, Explained, Refusal, Repeat, Token, Ticket,
	}
}

// Evidence has the recorded calls of the clients of one queue, and the queue's history.
type Evidence struct {
	Calls  []*Call
	Events []*claims.Event

	states     []state          // the queue after each event
	caused     map[string][]int // by request id: the indexes of the events that it caused
	acks       map[int][]ack    // by node; allNodes has the acks of all nodes
	admissions map[int64]string // the id of the event that admitted each entry
	tickets    map[int64]string // the ticket of each entry
	owners     map[string]int64 // the entry of each ticket
}

// ack has the time at which a client received an acknowledgement, and the index of the
// newest event that was acknowledged by then.
type ack struct {
	at       time.Time
	revision int
}

const allNodes = -1

// Judge checks all claims.
func (e *Evidence) Judge() *claims.Verdicts {
	v := &claims.Verdicts{}
	e.states, e.caused, e.acks = nil, map[string][]int{}, map[int][]ack{}
	e.admissions, e.tickets, e.owners = map[int64]string{}, map[int64]string{}, map[string]int64{}
	e.replay(v)
	e.attribute(v)
	for _, c := range e.Calls {
		if !c.saysNothing() {
			e.explain(c, v)
		}
	}
	return v
}

// replay fills in the states, and checks the claims that it can check without the answers
// to calls.
func (e *Evidence) replay(v *claims.Verdicts) {
	h, pace := &claims.History{}, &queuemodel.Pace{}
	for _, event := range e.Events {
		checkSessions(&h.Queue, event, v)
		before := h.Queue.Settings
		h.Take(event, v)
		if h.Queue.Rate != before.Rate {
			pace.Rate(queuemodel.Time(event.Data.At), h.Queue.Rate)
		}
		if event.Automatic() {
			window, minute := pace.Admit(queuemodel.Time(event.Data.At))
			v.Of(Pace).Hold(window.Kept(), "%d from %s to %s, where %d may be", window.Count, domain.Instant(window.From), event.Data.At, window.Most)
			v.Of(claims.Rate).Hold(minute.Kept(), "%d from %s to %s, where %d may be", minute.Count, domain.Instant(minute.From), event.Data.At, minute.Most)
		}
		if event.Type == queuemodel.ConsumerAdmitted {
			e.admissions[event.Data.Entry] = event.ID
		}
		e.states = append(e.states, state{h.Queue.Clone(), event.RecordedAt})
	}
}

// checkSessions checks an event against the queue before it: the sessions, the
// capacity, and whether the queue admits and closes when it may.
func checkSessions(q *queuemodel.Queue, e *claims.Event, v *claims.Verdicts) {
	at := queuemodel.Time(e.Data.At)
	if e.Type != queuemodel.ConsumerExpired {
		for _, entry := range q.Entries() {
			if entry.Standing == queuemodel.Admitted && entry.ExpiresAt != 0 {
				v.Of(Session).Hold(at < entry.ExpiresAt, "%s at %s, and the session of %s ended at %s",
					e.Type, e.Data.At, entry.Consumer, domain.Instant(entry.ExpiresAt))
			}
		}
	}
	switch e.Type {
	case queuemodel.QueueClosed:
		v.Of(claims.Asked).Hold(q.CloseAt != 0 && at >= q.CloseAt, "closed at %s, due %s", e.Data.At, domain.Instant(q.CloseAt))
	case queuemodel.ConsumerEntered:
		v.Of(Capacity).Hold(q.Status == queuemodel.StatusOpen && !q.Full(),
			"%s entered with %d waiting, of %d, the queue being %s", e.Data.ConsumerID, q.Waiting(), q.Capacity, q.Status)
	case queuemodel.ConsumerAdmitted:
		var want domain.Instant
		if q.Session != 0 {
			want = e.Data.At.Add(time.Duration(q.Session) * time.Second)
		}
		v.Of(Session).Hold(e.Data.ExpiresAt == want, "%s is admitted until %s, not %s", e.Data.ConsumerID, e.Data.ExpiresAt, want)
		if e.Automatic() {
			v.Of(Pace).Hold(q.Rate > 0 && q.Status == queuemodel.StatusOpen && (q.CloseAt == 0 || at < q.CloseAt),
				"an automatic admission at %s with the rate %d, the queue being %s until %s", e.Data.At, q.Rate, q.Status, domain.Instant(q.CloseAt))
		}
	case queuemodel.ConsumerExpired:
		was, _ := q.Newest(e.Data.ConsumerID)
		v.Of(Session).Hold(was.ExpiresAt != 0 && at >= was.ExpiresAt, "%s expired at %s, due %s", e.Data.ConsumerID, e.Data.At, domain.Instant(was.ExpiresAt))
	}
}

// byClock reports whether the engine records an event because it is due, and not because
// of a request. The engine may record such an event together with the events of any later
// request.
func byClock(e *claims.Event) bool {
	switch e.Type {
	case "queue.scheduled", queuemodel.QueueOpened, queuemodel.QueueClosed, queuemodel.QueueCompleted, queuemodel.ConsumerExpired:
		return true
	}
	return e.Automatic()
}

// askedFor reports whether the call can have caused an event.
func (c *Call) askedFor(e *claims.Event) bool {
	same := c.Consumer == e.Data.ConsumerID
	switch e.Type {
	case queuemodel.ConsumerEntered:
		return same && c.Op == Enter
	case queuemodel.ConsumerLeft:
		return same && c.Op == Leave
	case queuemodel.ConsumerAdmitted:
		return e.Data.ByHand && (same && c.Op == Admit || c.Op == AdmitNext)
	case queuemodel.ConsumerCompleted:
		return same && c.Op == Complete
	case queuemodel.ConsumerDenied:
		return same && c.Op == Deny
	case queuemodel.QueueUpdated:
		return c.Op == Update
	}
	return false
}

// attribute finds the call that caused each event.
func (e *Evidence) attribute(v *claims.Verdicts) {
	calls := map[string]*Call{}
	for _, c := range e.Calls {
		calls[c.ID] = c
	}
	for i, event := range e.Events {
		c := calls[event.Metadata.RequestID]
		if event.Type == queuemodel.QueueCreated || byClock(event) && (c == nil || !c.Op.Reads()) {
			continue
		}
		v.Of(claims.Asked).Hold(c != nil && c.askedFor(event), "%s for %s at revision %d, by %v", event.Type, event.Data.ConsumerID, i, c)
		if c != nil {
			e.caused[c.ID] = append(e.caused[c.ID], i)
		}
	}
	carriedOut := map[string]*Call{} // by Idempotency-Key
	for _, c := range e.Calls {
		made := e.caused[c.ID]
		if !c.outcomeUnknown() && (c.Op.Reads() || c.Status >= http.StatusBadRequest || c.Replayed) {
			v.Of(Refusal).Hold(len(made) == 0, "%s, and it caused %v", c, made)
		}
		if len(made) == 0 {
			continue
		}
		v.Of(claims.Once).Hold(len(made) == 1 || c.Op == AdmitNext, "%s, and it caused %v", c, made)
		if c.Key != "" {
			other := carriedOut[c.Key]
			v.Of(Repeat).Hold(other == nil, "%s, and before it %v", c, other)
			carriedOut[c.Key] = c
		}
		if c.Status != 0 && c.Status < 300 {
			a := ack{c.Returned, made[len(made)-1]}
			e.acks[c.Node] = append(e.acks[c.Node], a)
			e.acks[allNodes] = append(e.acks[allNodes], a)
		}
	}
	for _, c := range e.Calls {
		if c.Replayed {
			v.Of(Repeat).Hold(carriedOut[c.Key] != nil, "nothing was carried out that this repeats: %s", c)
		}
	}
	for _, acks := range e.acks {
		slices.SortFunc(acks, func(a, b ack) int { return a.at.Compare(b.at) })
		for i := 1; i < len(acks); i++ {
			acks[i].revision = max(acks[i].revision, acks[i-1].revision)
		}
	}
}

// known returns the index of the newest event that a node had acknowledged before a time.
// For allNodes it returns the newest event that any node had acknowledged.
func (e *Evidence) known(node int, before time.Time) int {
	acks := e.acks[node]
	i, _ := slices.BinarySearchFunc(acks, before, func(a ack, t time.Time) int { return a.at.Compare(t) })
	if i == 0 {
		return 0
	}
	return acks[i-1].revision
}
