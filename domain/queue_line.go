package domain

import (
	"fmt"
	"iter"
	"slices"
	"time"
)

// line holds every entry that was ever made in a queue: one record for each entry, in
// the order of entering. It also holds the sessions that have an expiry time. The live
// records are the entries of the consumers who wait. The zero value is empty.
type line struct {
	book[queueEntry]
	sessions ends // may hold sessions that ended early, but not on top of the heap
}

// queueEntry is the state of one entry.
type queueEntry struct {
	enteredAt Instant
	session   *session // nil when the consumer was never admitted
	status    Standing
	reason    denial
}

func (e queueEntry) live() bool { return e.status == StandingQueued }

// session begins when a consumer is admitted. It is never changed.
type session struct {
	admittedAt Instant
	expiresAt  Instant // 0: no limit
	endedAt    Instant // 0 while it lasts
	event      [16]byte
}

type entry = record[queueEntry]

func (l *line) fork() line { return line{l.book.fork(), l.sessions} }

// begin adds a session that expires at endsAt.
func (l *line) begin(endsAt Instant, number int64) { l.sessions.add(endsAt, number) }

// settle drops the sessions that have ended from the top of the heap.
func (l *line) settle() {
	l.sessions.drop(func(number int64) bool { return l.at(number).state.status != StandingAdmitted })
}

// ended yields the entries whose sessions end at t or before, in order.
func (l *line) ended(t Instant) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for number := range l.sessions.until(t) {
			if e := l.at(number); e.state.status == StandingAdmitted && !yield(e) {
				return
			}
		}
	}
}

// enter makes an entry for a consumer who has none, or whose last entry ended by leaving
// or expiring. For every other consumer it does nothing.
func (q *Queue) enter(now Instant, c Enter) ([]Event, error) {
	if !VisibleASCII(c.ConsumerID, MaxConsumerID) {
		return nil, &Error{Code: ValidationFailed, Details: []Detail{{"consumerId", "must have 1 to 128 visible ASCII characters"}}}
	}
	if !q.standing(q.line.latest(c.ConsumerID)).outside() {
		return nil, nil
	}
	switch {
	case q.Status.over():
		return nil, Refuse(TooLate(KindQueue), "")
	case q.Status == StatusDraft:
		return nil, Refuse(NotOpenYet(KindQueue), "")
	case q.Status == StatusScheduled:
		return nil, &Error{Code: NotOpenYet(KindQueue), OpensAt: q.OpenAt, RetryAfter: q.OpenAt.Time().Sub(now.Time())}
	case q.MaxCapacity != 0 && q.Tally.Waiting >= int64(q.MaxCapacity):
		return nil, &Error{Code: Full(KindQueue), RetryAfter: q.retryAfter()}
	}
	return []Event{ConsumerEntered{Stamp{now}, Participant{c.ConsumerID, q.line.count + 1}}}, nil
}

// retryAfter is how long it takes until a full queue may have room, in whole seconds.
func (q *Queue) retryAfter() time.Duration {
	if q.AdmissionRate == 0 {
		return 30 * time.Second
	}
	return time.Duration((60+q.AdmissionRate-1)/q.AdmissionRate) * time.Second
}

// standing is the status of an entry. The entry is nil for a consumer who never
// entered. When the queue is COMPLETED, an entry that is still QUEUED counts as DENIED.
func (q *Queue) standing(e *entry) Standing {
	switch {
	case e == nil:
		return StandingNone
	case e.state.status == StandingQueued && q.Status == StatusCompleted:
		return StandingDenied
	}
	return e.state.status
}

// find returns a consumer's latest entry and its status. It refuses a consumer who
// never entered.
func (q *Queue) find(consumer string) (*entry, Standing, error) {
	e := q.line.latest(consumer)
	if e == nil {
		return nil, StandingNone, Refuse(NotIn(KindQueue), "")
	}
	return e, q.standing(e), nil
}

func notPossible(s Standing) error { return Refuse(NotPossible, "the consumer is %s", s) }

func participant(e *entry) Participant { return Participant{e.consumer, e.number} }

func (q *Queue) leave(now Instant, c Leave) ([]Event, error) {
	e, is, err := q.find(c.ConsumerID)
	switch {
	case err != nil:
		return nil, err
	case is == StandingLeft:
		return nil, nil
	case is.final():
		return nil, notPossible(is)
	}
	return []Event{ConsumerLeft{Stamp{now}, participant(e), is}}, nil
}

func (q *Queue) admitByHand(now Instant, c Admit) ([]Event, error) {
	if c.ConsumerID != "" {
		e, is, err := q.find(c.ConsumerID)
		switch {
		case err != nil:
			return nil, err
		case is == StandingAdmitted:
			return nil, nil
		case is != StandingQueued:
			return nil, notPossible(is)
		}
		return []Event{q.admission(now, e, true)}, nil
	}
	if c.Count < 1 || c.Count > MaxAdmit {
		return nil, &Error{Code: ValidationFailed, Details: []Detail{{"count", fmt.Sprintf("must be from 1 to %d", MaxAdmit)}}}
	}
	if q.Status != StatusOpen && q.Status != StatusClosed {
		return nil, Refuse(NotPossible, "the queue is %s", q.Status)
	}
	return q.admissions(now, c.Count, true), nil
}

func (q *Queue) complete(now Instant, c Complete) ([]Event, error) {
	e, is, err := q.find(c.ConsumerID)
	switch {
	case err != nil:
		return nil, err
	case is == StandingCompleted:
		return nil, nil
	case is != StandingAdmitted:
		return nil, notPossible(is)
	}
	return []Event{ConsumerCompleted{Stamp{now}, participant(e)}}, nil
}

func (q *Queue) deny(now Instant, c Deny) ([]Event, error) {
	if !slices.Contains(DenyReasons(), c.Reason) {
		return nil, &Error{Code: ValidationFailed, Details: []Detail{{"reason", errDenyReason.Error()}}}
	}
	e, is, err := q.find(c.ConsumerID)
	switch {
	case err != nil:
		return nil, err
	case is == StandingDenied:
		return nil, nil
	case is.final():
		return nil, notPossible(is)
	}
	return []Event{ConsumerDenied{Stamp{now}, participant(e), is, c.Reason}}, nil
}

// admission is the event that begins a session at t.
func (q *Queue) admission(t Instant, e *entry, byHand bool) Event {
	return ConsumerAdmitted{Stamp{t}, participant(e), q.sessionEnd(t), byHand}
}

func (q *Queue) sessionEnd(t Instant) Instant {
	if q.SessionDurationSeconds == 0 {
		return 0
	}
	return t.Add(time.Duration(q.SessionDurationSeconds) * time.Second)
}

// admissions are the events that admit the next n consumers who wait.
func (q *Queue) admissions(t Instant, n int64, byHand bool) (events []Event) {
	for e := range q.line.live() {
		if int64(len(events)) >= n {
			break
		}
		events = append(events, q.admission(t, e, byHand))
	}
	return events
}

// checkSessions refuses an event that skips the end of a session. Sessions end one after
// another, each at its own time, and before every other event of that time.
func (q *Queue) checkSessions(e Event) error {
	number, ends := q.line.sessions.next()
	x, isEnd := e.(ConsumerExpired)
	switch {
	case isEnd && (ends == 0 || x.Entry != number || x.At != q.dated(ends).At):
		return ruleError(ruleSession, "entry %d expired at %s, and the next session to end is that of entry %d at %s", x.Entry, x.At, number, ends)
	case !isEnd && reached(ends, e.When()):
		return ruleError(ruleSession, "%T at %s, after the end of the session of entry %d at %s", e, e.When(), number, ends)
	}
	return nil
}

// beforeClose refuses an event of an open queue when the queue is not open at the time
// of the event. At the very time of the close, sessions can still expire.
func (q *Queue) beforeClose(e Event) error {
	until := q.CloseAt
	if _, isEnd := e.(ConsumerExpired); isEnd {
		until++
	}
	if q.Status != StatusOpen || q.CloseAt != 0 && e.When() >= until {
		return ruleError(ruleLine, "%T at %s in status %s", e, e.When(), q.Status)
	}
	return nil
}

func (q *Queue) applyEntered(e ConsumerEntered) error {
	if err := q.beforeClose(e); err != nil {
		return err
	}
	last := q.standing(q.line.latest(e.ConsumerID))
	switch {
	case !VisibleASCII(e.ConsumerID, MaxConsumerID) || e.Entry != q.line.count+1:
		return ruleError(ruleLine, "entry %d of %q follows %d", e.Entry, e.ConsumerID, q.line.count)
	case !last.outside():
		return ruleError(ruleLine, "%s entered again, being %s", e.ConsumerID, last)
	case q.MaxCapacity != 0 && q.Tally.Waiting >= int64(q.MaxCapacity):
		return ruleError(ruleCapacity, "%d wait, of %d", q.Tally.Waiting, q.MaxCapacity)
	}
	if q.tickets == nil {
		q.tickets = new(tickets)
	}
	q.line.add(e.ConsumerID, queueEntry{enteredAt: e.At, status: StandingQueued})
	q.Tally.Waiting++
	q.Latest = e.At
	return nil
}

func (q *Queue) applyAdmitted(e ConsumerAdmitted) error {
	was, err := q.of(e, e.Participant, StandingQueued)
	if err != nil {
		return err
	}
	if e.ExpiresAt != q.sessionEnd(e.At) {
		return ruleError(ruleSession, "it ends at %s, not at %s", e.ExpiresAt, q.sessionEnd(e.At))
	}
	if !e.ByHand {
		if err := q.inTurn(e); err != nil {
			return err
		}
		q.Pace.spend(q.AdmissionRate, e.At, 1)
	}
	now := *was
	now.state.status, now.state.session = StandingAdmitted, &session{admittedAt: e.At, expiresAt: e.ExpiresAt}
	q.become(&now, StandingQueued)
	if e.ExpiresAt != 0 {
		q.line.begin(e.ExpiresAt, e.Entry)
	}
	q.Latest = e.At
	return nil
}

// inTurn refuses an automatic admission that comes too early, or that admits another
// consumer than the one who has waited longest.
func (q *Queue) inTurn(e ConsumerAdmitted) error {
	if err := q.beforeClose(e); err != nil {
		return err
	}
	if before := q.line.rank(e.Entry); before > 0 {
		return ruleError(ruleTurn, "%d entered before entry %d", before, e.Entry)
	}
	if next := q.nextAdmission(); next == 0 || e.At < next || q.Pace.credit(q.AdmissionRate, e.At) < admissionCost {
		return ruleError(rulePace, "at %s, and not before %s", e.At, next)
	}
	return nil
}

// of returns the entry that an event is about. It refuses an entry that is not its
// consumer's latest, or whose status is not from.
func (q *Queue) of(e Event, p Participant, from Standing) (*entry, error) {
	if q.Status != StatusClosed {
		if err := q.beforeClose(e); err != nil {
			return nil, err
		}
	}
	latest := q.line.latest(p.ConsumerID)
	if latest == nil || latest.number != p.Entry || latest.state.status != from || from.final() {
		return nil, ruleError(ruleLine, "%T of entry %d from %s", e, p.Entry, from)
	}
	return latest, nil
}

// finish ends an entry.
func (q *Queue) finish(e Event, p Participant, from, to Standing, reason DenyReason) error {
	was, err := q.of(e, p, from)
	if err != nil {
		return err
	}
	now := *was
	now.state.status, now.state.reason = to, denialOf(reason)
	if was.state.session != nil {
		over := *was.state.session
		over.endedAt = e.When()
		now.state.session = &over
	}
	q.become(&now, from)
	q.Latest = e.When()
	return nil
}

// become replaces an entry and counts its new status.
func (q *Queue) become(e *entry, was Standing) {
	q.line.put(e)
	q.line.settle()
	*q.Tally.of(was)--
	*q.Tally.of(e.state.status)++
}

// identify implements granter. A session is identified by the id of the event that
// began it.
func (q *Queue) identify(e Event, id [16]byte) {
	admitted, ok := e.(ConsumerAdmitted)
	if !ok {
		return
	}
	r := *q.line.at(admitted.Entry)
	s := *r.state.session
	s.event = id
	r.state.session = &s
	q.line.put(&r)
}
