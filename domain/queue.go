package domain

import (
	"iter"
	"slices"
)

// QueueSettings are a queue's own fields.
type QueueSettings struct {
	MaxCapacity            Count `json:"maxCapacity"`            // consumers waiting at once; null: no bound
	AdmissionRate          Count `json:"admissionRate"`          // a minute; null: only by hand
	SessionDurationSeconds Count `json:"sessionDurationSeconds"` // null: no limit
}

// Queue gives access first come, first served. Its zero value is a queue that
// has not been created. Not safe for concurrent use.
//
// Its JSON holds everything except the entries. A queue that is restored from JSON does
// not know its participants, unless it never had any. Such a queue may be shown, but it
// decides nothing, refuses events about participants, and does not wake for the end of
// their sessions.
type Queue struct {
	Lifecycle
	QueueSettings
	Tally Tally `json:"tally"`
	Pace  Pace  `json:"pace"`

	line    line
	tickets *tickets
}

// Kind is KindQueue.
func (q *Queue) Kind() Kind { return KindQueue }

func (q *Queue) fields() []field {
	return q.allFields(
		field{"maxCapacity", count(&q.MaxCapacity), nullable},
		field{"admissionRate", count(&q.AdmissionRate), nullable},
		field{"sessionDurationSeconds", seconds(&q.SessionDurationSeconds), nullable},
	)
}

func (q *Queue) preset(Defaults) {}

func (q *Queue) check(wrong *clashes) { q.checkOrder(wrong, "", 0) }

func (q *Queue) created(s Stamp, _ Create) Event {
	return &QueueCreated{s, q.Identity, q.Common, q.QueueSettings}
}

// publicStatus implements Distribution. A COMPLETED queue has the public status CLOSED.
func (q *Queue) publicStatus() Status {
	if q.Status == StatusCompleted {
		return StatusClosed
	}
	return q.Lifecycle.publicStatus()
}

// Entries implements Distribution.
func (q *Queue) Entries() int64 { return q.Tally.Entries() }

// ParticipantsDone implements Distribution.
func (q *Queue) ParticipantsDone() bool { return q.Deleted || q.Status == StatusCompleted }

// AppendJSON appends the queue as an admin sees it.
func (q *Queue) AppendJSON(dst []byte) []byte { return appendFields(dst, q.fields()) }

// AppendPublicJSON appends the queue as everybody may see it.
func (q *Queue) AppendPublicJSON(dst []byte) []byte {
	return appendFields(dst, q.publicFields(q,
		field{"capacity", count(&q.MaxCapacity), 0},
		field{"consumerCount", readOnly(Count(q.Counts().Waiting).appendCardinal), computed},
	))
}

// Counts returns the number of entries in each status. When the queue is COMPLETED,
// entries that still wait count as denied.
func (q *Queue) Counts() Tally {
	t := q.Tally
	if q.Status == StatusCompleted {
		t.Denied, t.Waiting = t.Denied+t.Waiting, 0
	}
	return t
}

// Secrets names the queue's secrets.
func (q *Queue) Secrets() []SecretField { return q.secrets() }

// Fork returns a copy that can evolve without changing q.
func (q *Queue) Fork() Aggregate {
	c := *q
	c.line = q.line.fork()
	return &c
}

// KnowsParticipants implements Distribution.
func (q *Queue) KnowsParticipants() bool { return q.line.count == q.Tally.Entries() }

// ForgetParticipants implements Distribution.
func (q *Queue) ForgetParticipants() { q.line, q.tickets = line{}, nil }

// Participants implements Distribution.
func (q *Queue) Participants() iter.Seq[Participation] {
	return func(yield func(Participation) bool) {
		for e := range q.line.all() {
			if q.line.latest(e.consumer) != e {
				continue
			}
			if p, _ := q.Place(e.consumer); !yield(&p) {
				return
			}
		}
	}
}

// Decide implements Aggregate.
func (q *Queue) Decide(now Instant, cmd Command) ([]Event, error) {
	if q.Status != "" && !q.Deleted {
		switch c := cmd.(type) {
		case Advance:
			return q.due(now), nil
		case Enter:
			return q.enter(now, c)
		case Leave:
			return q.leave(now, c)
		case Admit:
			return q.admitByHand(now, c)
		case Complete:
			return q.complete(now, c)
		case Deny:
			return q.deny(now, c)
		}
	}
	return q.decide(now, cmd, q)
}

// atOnce is the largest number of events that one Advance returns, so that an append
// has room for them and for others.
const atOnce = 250

func (q *Queue) due(now Instant) []Event {
	switch q.Status {
	case StatusOpen:
		until := now
		if q.CloseAt != 0 {
			until = min(until, q.CloseAt)
		}
		if expired := q.expirations(until); len(expired) > 0 {
			return expired
		}
		if reached(q.CloseAt, now) {
			return []Event{Closed{q.dated(q.CloseAt)}}
		}
		// Late admissions do not get an earlier time: each is dated when it is decided.
		if next := q.nextAdmission(); next != 0 && next <= now {
			return q.admissions(now, min(q.Pace.credit(q.AdmissionRate, now)/admissionCost, atOnce), false)
		}
		return nil
	case StatusClosed:
		if q.Tally.Admitted == 0 {
			return []Event{Completed{q.dated(q.Latest)}}
		}
		return q.expirations(now)
	case StatusDraft, StatusScheduled, StatusDrawn, StatusCompleted, StatusSettled:
	}
	return q.Lifecycle.due(now)
}

// expirations returns the ends of the sessions that are over at t, in order.
func (q *Queue) expirations(t Instant) (events []Event) {
	for e := range q.line.ended(t) {
		events = append(events, ConsumerExpired{q.dated(e.state.session.expiresAt), participant(e)})
		if len(events) == atOnce {
			break
		}
	}
	return events
}

// nextAdmission is when the next automatic admission is due, or 0. It is never before
// the latest event.
func (q *Queue) nextAdmission() Instant {
	if q.Tally.Waiting == 0 || q.AdmissionRate == 0 {
		return 0
	}
	return max(q.Pace.next(q.AdmissionRate, q.Latest), q.Latest)
}

// Wake implements Aggregate.
func (q *Queue) Wake() Instant {
	switch {
	case q.Deleted:
		return 0
	case q.Status == StatusOpen:
		_, ends := q.line.sessions.next()
		return earlier(q.CloseAt, earlier(ends, q.nextAdmission()))
	case q.Status == StatusClosed && q.Tally.Admitted == 0:
		return q.Latest
	case q.Status == StatusClosed:
		_, ends := q.line.sessions.next()
		return ends
	}
	return q.wake()
}

// Evolve implements Aggregate.
func (q *Queue) Evolve(e Event) error {
	if err := q.checkNext(e); err != nil {
		return err
	}
	if err := q.checkSessions(e); err != nil {
		return err
	}
	switch e := e.(type) {
	case *QueueCreated:
		q.QueueSettings = e.QueueSettings
		return q.begin(e, e.Identity, e.Common, KindQueue)
	case ConsumerEntered:
		return q.applyEntered(e)
	case ConsumerAdmitted:
		return q.applyAdmitted(e)
	case ConsumerCompleted:
		return q.finish(e, e.Participant, StandingAdmitted, StandingCompleted, "")
	case ConsumerExpired:
		return q.finish(e, e.Participant, StandingAdmitted, StandingExpired, "")
	case ConsumerLeft:
		return q.finish(e, e.Participant, e.From, StandingLeft, "")
	case ConsumerDenied:
		if !slices.Contains(DenyReasons(), e.Reason) {
			return ruleError(ruleLine, "denied for %q", e.Reason)
		}
		return q.finish(e, e.Participant, e.From, StandingDenied, e.Reason)
	case Updated:
		before := q.AdmissionRate
		if err := q.evolve(e, q); err != nil {
			return err
		}
		if q.Status == StatusOpen && q.AdmissionRate != before {
			q.Pace.change(before, q.AdmissionRate, e.At)
		}
		return nil
	case Opened:
		q.Pace = Pace{Since: e.At}
	case Closed:
		if q.CloseAt == 0 {
			return ruleError(ruleDue, "closed without closeAt")
		}
		return q.move(e, StatusClosed, q.CloseAt, StatusOpen)
	case Completed:
		if q.Tally.Admitted > 0 {
			return ruleError(ruleUnfinished, "%d are", q.Tally.Admitted)
		}
		return q.move(e, StatusCompleted, 0, StatusClosed)
	}
	return q.evolve(e, q)
}
