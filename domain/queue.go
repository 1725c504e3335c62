package domain

import (
	"fmt"
	"iter"
	"slices"
	"time"
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
// Its JSON has everything but who entered. What was restored from it does not know
// them, unless nobody did: it may be shown, but nothing may be decided on it, it
// refuses what participants do, and does not wake for the end of their sessions.
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

func (q *Queue) entered() bool { return q.Tally.Entries() > 0 }

// AppendJSON appends the queue as an admin sees it.
func (q *Queue) AppendJSON(dst []byte) []byte { return appendFields(dst, q.fields()) }

// AppendPublicJSON appends the queue as everybody may see it.
func (q *Queue) AppendPublicJSON(dst []byte) []byte {
	return appendFields(dst, q.publicFields(
		field{"capacity", count(&q.MaxCapacity), 0},
		field{"consumerCount", shown(Count(q.Counts().Waiting).appendCardinal), computed},
	))
}

// Counts are the queue's entries as their consumers are told where these stand:
// who still waits at the end of the queue is denied thereby.
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

// KnowsParticipants reports whether the queue knows everybody who ever entered.
func (q *Queue) KnowsParticipants() bool { return q.line.count == q.Tally.Entries() }

// ForgetParticipants drops all who ever entered, once nothing more can happen to
// them.
func (q *Queue) ForgetParticipants() { q.line, q.tickets = line{}, nil }

// Participants yields everybody who ever entered, by their latest entries, in the
// order of these.
func (q *Queue) Participants() iter.Seq[Participation] {
	return func(yield func(Participation) bool) {
		for e := range q.line.all() {
			if q.line.latest(e.consumer) != e {
				continue
			}
			if p, _ := q.Participation(e.consumer); !yield(p) {
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

// enter makes an entry for who has none, or whose last one ended by leaving or
// expiring. Everybody else stays where they are.
func (q *Queue) enter(now Instant, c Enter) ([]Event, error) {
	if !VisibleASCII(c.ConsumerID, maxConsumerID) {
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
		return nil, &Error{Code: QueueFull, RetryAfter: q.retryAfter()}
	}
	return []Event{ConsumerEntered{Stamp{now}, Participant{c.ConsumerID, q.line.count + 1}}}, nil
}

// retryAfter is when somebody may have been admitted from a full queue, in whole
// seconds.
func (q *Queue) retryAfter() time.Duration {
	if q.AdmissionRate == 0 {
		return 30 * time.Second
	}
	return time.Duration((60+q.AdmissionRate-1)/q.AdmissionRate) * time.Second
}

// standing is what became of an entry, which is nil for who never entered. Who still
// waits when the queue is COMPLETED is DENIED by that.
func (q *Queue) standing(e *entry) Standing {
	switch {
	case e == nil:
		return StandingNone
	case e.status == StandingQueued && q.Status == StatusCompleted:
		return StandingDenied
	}
	return e.status
}

// find returns the latest entry of who entered, and what became of it.
func (q *Queue) find(consumer string) (*entry, Standing, error) {
	e := q.line.latest(consumer)
	if e == nil {
		return nil, StandingNone, Refuse(ConsumerNotInQueue, "")
	}
	return e, q.standing(e), nil
}

func notPossible(s Standing) error { return Refuse(NotPossible, "the consumer is %s", s) }

func (e *entry) participant() Participant { return Participant{e.consumer, e.number} }

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
	return []Event{ConsumerLeft{Stamp{now}, e.participant(), is}}, nil
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
	return []Event{ConsumerCompleted{Stamp{now}, e.participant()}}, nil
}

func (q *Queue) deny(now Instant, c Deny) ([]Event, error) {
	if !slices.Contains(DenyReasons(), c.Reason) {
		return nil, &Error{Code: ValidationFailed, Details: []Detail{{"reason", "must be ORDER_LIMIT_EXCEEDED, FRAUD_DETECTED or ADMIN_ACTION"}}}
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
	return []Event{ConsumerDenied{Stamp{now}, e.participant(), is, c.Reason}}, nil
}

// admission begins a session at t.
func (q *Queue) admission(t Instant, e *entry, byHand bool) Event {
	return ConsumerAdmitted{Stamp{t}, e.participant(), q.sessionEnd(t), byHand}
}

func (q *Queue) sessionEnd(t Instant) Instant {
	if q.SessionDurationSeconds == 0 {
		return 0
	}
	return t.Add(time.Duration(q.SessionDurationSeconds) * time.Second)
}

// admissions admits the next n who wait.
func (q *Queue) admissions(t Instant, n int64, byHand bool) (events []Event) {
	for e := range q.line.queued() {
		if int64(len(events)) >= n {
			break
		}
		events = append(events, q.admission(t, e, byHand))
	}
	return events
}

// atOnce is how many events one Advance gives, so that an append has room for them
// beside others.
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
		// Admissions are not caught up: they happen when they happen.
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

// expirations ends the sessions that are over at t, in order.
func (q *Queue) expirations(t Instant) (events []Event) {
	for e := range q.line.ended(t) {
		events = append(events, ConsumerExpired{q.dated(e.session.expiresAt), e.participant()})
		if len(events) == atOnce {
			break
		}
	}
	return events
}

// nextAdmission is when somebody is to be admitted automatically, which is not
// before the latest event, or 0.
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
		_, ends := q.line.nextEnd()
		return earlier(q.CloseAt, earlier(ends, q.nextAdmission()))
	case q.Status == StatusClosed && q.Tally.Admitted == 0:
		return q.Latest
	case q.Status == StatusClosed:
		_, ends := q.line.nextEnd()
		return ends
	}
	return q.wake()
}

// Evolve implements Aggregate.
func (q *Queue) Evolve(e Event) error {
	if err := q.admit(e); err != nil {
		return err
	}
	if err := q.inTime(e); err != nil {
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

// inTime refuses what passes over a session that is over. Sessions end one after
// another, each on its own time, and whatever else is recorded then comes behind.
func (q *Queue) inTime(e Event) error {
	number, ends := q.line.nextEnd()
	x, isEnd := e.(ConsumerExpired)
	switch {
	case isEnd && (ends == 0 || x.Entry != number || x.At != q.dated(ends).At):
		return ruleError(ruleSession, "entry %d expired at %s, and the next session to end is that of entry %d at %s", x.Entry, x.At, number, ends)
	case !isEnd && reached(ends, e.When()):
		return ruleError(ruleSession, "%T at %s, after the end of the session of entry %d at %s", e, e.When(), number, ends)
	}
	return nil
}

// beforeClose refuses what ends with the close. Sessions that are over just then
// are ended before it.
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
	case !VisibleASCII(e.ConsumerID, maxConsumerID) || e.Entry != q.line.count+1:
		return ruleError(ruleLine, "entry %d of %q follows %d", e.Entry, e.ConsumerID, q.line.count)
	case !last.outside():
		return ruleError(ruleLine, "%s entered again, being %s", e.ConsumerID, last)
	case q.MaxCapacity != 0 && q.Tally.Waiting >= int64(q.MaxCapacity):
		return ruleError(ruleCapacity, "%d wait, of %d", q.Tally.Waiting, q.MaxCapacity)
	}
	if q.tickets == nil {
		q.tickets = new(tickets)
	}
	q.line.add(e.ConsumerID, e.At)
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
	now.status, now.session = StandingAdmitted, &session{admittedAt: e.At, expiresAt: e.ExpiresAt}
	q.become(&now, StandingQueued)
	if e.ExpiresAt != 0 {
		q.line.begin(e.ExpiresAt, e.Entry)
	}
	q.Latest = e.At
	return nil
}

// inTurn refuses an automatic admission before its time, or of who is not the
// first.
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

// of is the entry that an event is about, which has to be a consumer's latest and
// stand where the event says.
func (q *Queue) of(e Event, p Participant, from Standing) (*entry, error) {
	if q.Status != StatusClosed {
		if err := q.beforeClose(e); err != nil {
			return nil, err
		}
	}
	latest := q.line.latest(p.ConsumerID)
	if latest == nil || latest.number != p.Entry || latest.status != from || from.final() {
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
	now.status, now.reason = to, denialOf(reason)
	if was.session != nil {
		over := *was.session
		over.endedAt = e.When()
		now.session = &over
	}
	q.become(&now, from)
	q.Latest = e.When()
	return nil
}

// become puts an entry in the place of the one that it was.
func (q *Queue) become(e *entry, was Standing) {
	q.line.put(e)
	q.line.settle()
	*q.Tally.of(was)--
	*q.Tally.of(e.status)++
}

// identify says which event admitted an entry.
func (q *Queue) identify(number int64, event [16]byte) {
	e := *q.line.at(number)
	s := *e.session
	s.event = event
	e.session = &s
	q.line.put(&e)
}
