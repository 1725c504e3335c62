package queuemodel

import "slices"

// Refusal is why a queue refuses a request: the title of the error. It is empty when
// the queue does not refuse.
type Refusal string

// The refusals.
const (
	RefusedClosed       Refusal = "Queue is closed"
	RefusedFull         Refusal = "Queue is full"
	RefusedNotEntered   Refusal = "Consumer not in queue"
	RefusedNotPossible  Refusal = "Not possible in this state"
	RefusedUpdateClosed Refusal = "Cannot update closed distribution"
	RefusedStep         Refusal = "Invalid status transition"
)

// Action is the kind of a request to a queue.
type Action int

// The actions.
const (
	Enter Action = iota
	Leave
	Complete
	Deny
	Admit     // one consumer
	AdmitNext // the first Count consumers in line
	Update
	Close
)

// Request is a request to a queue.
type Request struct {
	Action   Action
	Consumer string
	Count    int64            // of AdmitNext
	Reason   string           // of Deny
	Changes  map[string]int64 // of Update: the new values by field; 0 for null
}

// saved returns the credit that the queue has at a time. An admission costs 60,000. In
// each millisecond the credit grows by the rate, until the bucket is full. After a minute
// any bucket is full.
func (q *Queue) saved(now Time) int64 {
	credit := q.credit
	if q.Rate == 0 {
		return credit
	}
	for t := q.creditAt; t < now && t < q.creditAt+60_000; t++ {
		credit = min(credit+q.Rate, bucket(q.Rate))
	}
	return credit
}

// admission is the credit that one automatic admission costs.
const admission = 60_000

// bucket is the most credit that a rate can save: for one second or for one
// admission, whichever is more.
func bucket(rate int64) int64 { return max(admission, rate*1000) }

// minGap is the shortest time in milliseconds between automatic admissions at different
// times.
const minGap = 50

// Due returns the next event that is due at now without a request, and false if no event
// is due.
func (q *Queue) Due(now Time) (Event, bool) {
	until := now
	if q.Status == StatusOpen && q.CloseAt != 0 {
		until = min(until, q.CloseAt)
	}
	var over *Entry // the entry whose session ended first
	for i := range q.entries {
		e := &q.entries[i]
		if e.Standing == Admitted && e.ExpiresAt != 0 && e.ExpiresAt <= until && (over == nil || e.ExpiresAt < over.ExpiresAt) {
			over = e
		}
	}
	if over != nil {
		return Event{Type: ConsumerExpired, At: max(over.ExpiresAt, q.Latest), Consumer: over.Consumer, Entry: over.Number}, true
	}
	switch q.Status {
	case StatusOpen:
		if q.CloseAt != 0 && q.CloseAt <= now {
			return Event{Type: QueueClosed, At: max(q.CloseAt, q.Latest)}, true
		}
		tooSoon := q.lastAdmission != 0 && q.lastAdmission != now && now < q.lastAdmission+minGap
		if q.Rate == 0 || q.saved(now) < admission || tooSoon {
			return Event{}, false
		}
		if first, ok := q.First(); ok {
			return q.admit(first, now, false), true
		}
	case StatusClosed:
		if q.Count(Admitted) == 0 {
			return Event{Type: QueueCompleted, At: q.Latest}, true
		}
	case StatusCompleted:
	}
	return Event{}, false
}

// Advance applies all events that are due at now and returns them.
func (q *Queue) Advance(now Time) (all []Event) {
	for e, ok := q.Due(now); ok; e, ok = q.Due(now) {
		q.Apply(e)
		all = append(all, e)
	}
	return all
}

// Count returns how many entries have a standing.
func (q *Queue) Count(s Standing) (n int64) {
	for i := range q.entries {
		if q.entries[i].Standing == s {
			n++
		}
	}
	return n
}

// admit returns the event that admits an entry.
func (q *Queue) admit(e Entry, now Time, byHand bool) Event {
	return Event{Type: ConsumerAdmitted, At: now, Consumer: e.Consumer, Entry: e.Number, ExpiresAt: q.sessionEnd(now), ByHand: byHand}
}

// sessionEnd returns the end of a session that begins at a time. It is 0 for a session
// without end.
func (q *Queue) sessionEnd(begins Time) Time {
	if q.Session == 0 {
		return 0
	}
	return begins + Time(q.Session)*1000
}

// Decide returns the events that a request leads to at a time at which no event is
// due, or why the queue refuses it. It leads to no events when there is nothing to
// change. Decide does not apply the events.
func (q *Queue) Decide(now Time, r Request) ([]Event, Refusal) {
	switch r.Action {
	case Enter:
		switch {
		case !q.MayEnter(r.Consumer):
			return nil, ""
		case q.Status != StatusOpen:
			return nil, RefusedClosed
		case q.Full():
			return nil, RefusedFull
		}
		return []Event{{Type: ConsumerEntered, At: now, Consumer: r.Consumer, Entry: int64(len(q.entries)) + 1}}, ""
	case AdmitNext:
		if q.Status == StatusCompleted {
			return nil, RefusedNotPossible
		}
		var all []Event
		for e := range q.Line() {
			if int64(len(all)) == r.Count {
				break
			}
			all = append(all, q.admit(e, now, true))
		}
		return all, ""
	case Update:
		if q.Status != StatusOpen {
			return nil, RefusedUpdateClosed
		}
		return q.change(now, r.Changes, false), ""
	case Close:
		if q.Status != StatusOpen {
			return nil, RefusedStep
		}
		return q.change(now, map[string]int64{FieldCloseAt: int64(now)}, true), ""
	case Leave:
		return q.decideFor(r.Consumer, Left, Event{Type: ConsumerLeft, At: now}, Queued, Admitted)
	case Complete:
		return q.decideFor(r.Consumer, Completed, Event{Type: ConsumerCompleted, At: now}, Admitted)
	case Deny:
		return q.decideFor(r.Consumer, Denied, Event{Type: ConsumerDenied, At: now, Reason: r.Reason}, Queued, Admitted)
	case Admit:
		return q.decideFor(r.Consumer, Admitted, Event{Type: ConsumerAdmitted, At: now, ExpiresAt: q.sessionEnd(now), ByHand: true}, Queued)
	}
	panic("there is no such action")
}

// decideFor returns the event e for a consumer's newest entry. The event moves the
// entry from one of the standings in from to the standing to. There is no event if the
// entry has the standing to already. The request is refused if the entry has any other
// standing.
func (q *Queue) decideFor(consumer string, to Standing, e Event, from ...Standing) ([]Event, Refusal) {
	entry, ok := q.Newest(consumer)
	is := q.Standing(consumer)
	switch {
	case !ok:
		return nil, RefusedNotEntered
	case is == to:
		return nil, ""
	}
	if !slices.Contains(from, is) {
		return nil, RefusedNotPossible
	}
	e.Consumer, e.Entry = consumer, entry.Number
	if e.Type == ConsumerLeft || e.Type == ConsumerDenied {
		e.From = is
	}
	return []Event{e}, ""
}

// change returns an update without the fields that already have their new value. It
// returns no event if no field is left.
func (q *Queue) change(now Time, changes map[string]int64, byHand bool) []Event {
	e := Event{Type: QueueUpdated, At: now, Changes: map[string]int64{}, ByHand: byHand}
	for field, to := range changes {
		if q.Field(field) != to {
			e.Changes[field] = to
		}
	}
	if len(e.Changes) == 0 {
		return nil
	}
	return []Event{e}
}

// Field returns the value of a field, 0 for null.
func (s Settings) Field(name string) int64 {
	switch name {
	case FieldCapacity:
		return s.Capacity
	case FieldRate:
		return s.Rate
	case FieldSession:
		return s.Session
	case FieldCloseAt:
		return int64(s.CloseAt)
	}
	panic("there is no such field: " + name)
}
