package domain_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// queueOf is a queue that opened at 09:00 and closes at 11:00. The capacity, the rate
// and the length of a session in seconds may be 0 for none.
func queueOf(capacity, rate, session domain.Count) []domain.Event {
	c := created(domain.KindQueue, "08:00", times("09:00", "11:00"))
	c.(*domain.QueueCreated).QueueSettings = domain.QueueSettings{MaxCapacity: capacity, AdmissionRate: rate, SessionDurationSeconds: session}
	return list(c, scheduled("08:00"), opened("09:00"))
}

func who(consumer string, entry int64) domain.Participant {
	return domain.Participant{ConsumerID: consumer, Entry: entry}
}

func entered(clock, consumer string, entry int64) domain.Event {
	return domain.ConsumerEntered{Stamp: stamp(clock), Participant: who(consumer, entry)}
}

// admitted is an automatic admission, byHand is an admission by hand. The end of a
// session without an end is "never".
func admitted(clock, consumer string, entry int64, ends string) domain.Event {
	a := domain.ConsumerAdmitted{Stamp: stamp(clock), Participant: who(consumer, entry)}
	if ends != "never" {
		a.ExpiresAt = at(ends)
	}
	return a
}

func byHand(clock, consumer string, entry int64, ends string) domain.Event {
	a := admitted(clock, consumer, entry, ends).(domain.ConsumerAdmitted)
	a.ByHand = true
	return a
}

func finished(clock, consumer string, entry int64) domain.Event {
	return domain.ConsumerCompleted{Stamp: stamp(clock), Participant: who(consumer, entry)}
}

func expired(clock, consumer string, entry int64) domain.Event {
	return domain.ConsumerExpired{Stamp: stamp(clock), Participant: who(consumer, entry)}
}

func left(clock, consumer string, entry int64, from domain.Standing) domain.Event {
	return domain.ConsumerLeft{Stamp: stamp(clock), Participant: who(consumer, entry), From: from}
}

func denied(clock, consumer string, entry int64, from domain.Standing, reason domain.DenyReason) domain.Event {
	return domain.ConsumerDenied{Stamp: stamp(clock), Participant: who(consumer, entry), From: from, Reason: reason}
}

// brokenLines are histories of queues whose last event breaks a rule about
// participants.
func brokenLines() map[string]broken {
	const queued, isAdmitted = domain.StandingQueued, domain.StandingAdmitted
	all := map[string]broken{}
	add := func(name, rule string, events ...any) { all[name] = broken{rule: rule, events: list(events...)} }
	open := queueOf(2, 60, 600) // one a second, the first at 09:00:01
	one := list(open, entered("09:00", "a", 1))
	two := list(one, entered("09:00", "b", 2))
	inside := list(two, admitted("09:00:01", "a", 1, "09:10:01"))
	late := list(queueOf(2, 60, 7200), entered("09:00", "a", 1), entered("09:00", "b", 2), admitted("09:00:01", "a", 1, "11:00:01"))
	shut := list(late, closed(domain.KindQueue, "11:00"))
	endless := list(queueOf(0, 60, 0), entered("09:00", "a", 1), admitted("09:00:01", "a", 1, "never"))

	add("lets enter before the opening", ruleLine, open[:2], entered("08:30", "a", 1))
	add("lets enter at the close", ruleLine, open, entered("11:00", "a", 1))
	add("lets enter once closed", ruleLine, list(endless, closed(domain.KindQueue, "11:00")), entered("11:00", "b", 2))
	add("leaves an entry's number out", ruleLine, one, entered("09:00", "b", 3))
	add("gives an entry's number twice", ruleLine, one, entered("09:00", "b", 1))
	add("lets enter twice", ruleLine, one, entered("09:00", "a", 2))
	add("lets enter who is admitted", ruleLine, inside, entered("09:01", "a", 3))
	add("lets enter who has finished", ruleLine, inside, finished("09:00:01", "a", 1), entered("09:00:01", "a", 3))
	add("lets enter who was denied", ruleLine, one, denied("09:00", "a", 1, queued, domain.DenyFraud), entered("09:00", "a", 2))
	add("lets enter nobody", ruleLine, open, entered("09:00", "", 1))
	add("lets enter whose id is too long", ruleLine, open, entered("09:00", strings.Repeat("a", 129), 1))
	add("lets more enter than there is room for", ruleCapacity, two, entered("09:00", "c", 3))
	add("lets a place that is taken be taken", ruleCapacity, two, left("09:00", "b", 2, queued), entered("09:00", "c", 3), entered("09:00", "b", 4))

	add("admits who never entered", ruleLine, one, admitted("09:00:01", "b", 2, "09:10:01"))
	add("admits by an entry of somebody else", ruleLine, two, admitted("09:00:01", "a", 2, "09:10:01"))
	add("admits by an entry that is over", ruleLine, one, left("09:00", "a", 1, queued), entered("09:00", "a", 2), admitted("09:00:01", "a", 1, "09:10:01"))
	add("admits twice", ruleLine, inside, admitted("09:00:02", "a", 1, "09:10:02"))
	add("admits by hand twice", ruleLine, inside, byHand("09:00:02", "a", 1, "09:10:02"))
	add("admits who has left", ruleLine, one, left("09:00", "a", 1, queued), admitted("09:00:01", "a", 1, "09:10:01"))
	add("admits out of turn", ruleTurn, two, admitted("09:00:01", "b", 2, "09:10:01"))
	add("admits before the rate allows", rulePace, two, admitted("09:00:00.999", "a", 1, "09:10:00.999"))
	add("admits the second before the rate allows", rulePace, inside, admitted("09:00:01.999", "b", 2, "09:10:01.999"))
	add("admits two at once at a slow rate", rulePace, inside, admitted("09:00:01", "b", 2, "09:10:01"))
	add("admits two within the gap", rulePace, list(queueOf(0, 6000, 600), entered("09:00", "a", 1), entered("09:00", "b", 2)),
		admitted("09:00:00.010", "a", 1, "09:10:00.010"), admitted("09:00:00.059", "b", 2, "09:10:00.059"))
	add("admits without a rate", rulePace, queueOf(0, 0, 600), entered("09:00", "a", 1), admitted("10:00", "a", 1, "10:10"))
	add("admits at the close", ruleLine, two, admitted("11:00", "a", 1, "11:10"))
	add("admits once closed", ruleLine, shut, admitted("11:00", "b", 2, "13:00"))
	add("gives a session too much time", ruleSession, two, admitted("09:00:01", "a", 1, "09:10:01.001"))
	add("gives a session no time", ruleSession, two, admitted("09:00:01", "a", 1, "never"))
	add("ends a session that has no end", ruleSession, endless, expired("10:00", "a", 1))
	add("ends a session early", ruleSession, inside, expired("09:10:00.999", "a", 1))
	add("ends a session late", ruleSession, inside, expired("09:10:01.001", "a", 1))
	add("ends a session before one that was over earlier", ruleSession, inside, admitted("09:00:02", "b", 2, "09:10:02"), expired("09:10:02", "b", 2))
	add("goes on without ending a session", ruleSession, inside, entered("09:10:01", "c", 3))
	add("is closed without ending a session", ruleSession, inside, closed(domain.KindQueue, "11:00"))
	add("lets a session outlive its end by finishing", ruleSession, inside, finished("09:10:01", "a", 1))
	add("lets a session outlive its end by leaving", ruleSession, inside, left("09:10:01", "a", 1, isAdmitted))
	add("lets a session outlive its end by a denial", ruleSession, inside, denied("09:10:01", "a", 1, isAdmitted, domain.DenyAdmin))

	add("lets finish who waits", ruleLine, one, finished("09:00", "a", 1))
	add("lets finish twice", ruleLine, inside, finished("09:00:01", "a", 1), finished("09:00:01", "a", 1))
	add("lets expire who waits", ruleSession, one, expired("10:59", "a", 1))
	add("lets leave from where nobody stood", ruleLine, one, left("09:00", "a", 1, isAdmitted))
	add("lets leave from the end", ruleLine, inside, finished("09:00:01", "a", 1), left("09:00:01", "a", 1, domain.StandingCompleted))
	add("lets leave twice", ruleLine, one, left("09:00", "a", 1, queued), left("09:00", "a", 1, queued))
	add("lets leave who was never there", ruleLine, one, left("09:00", "b", 2, queued))
	add("denies from where nobody stood", ruleLine, one, denied("09:00", "a", 1, isAdmitted, domain.DenyFraud))
	add("denies without a reason", ruleLine, one, denied("09:00", "a", 1, queued, ""))
	add("denies by hand for the close", ruleLine, one, denied("09:00", "a", 1, queued, domain.DenyQueueClosed))
	add("lets leave at the close", ruleLine, late, left("11:00", "b", 2, queued))
	add("lets finish after the close that was not made", ruleLine, late, finished("11:00", "a", 1))
	add("admits by hand after the close that was not made", ruleLine, late, byHand("11:00", "b", 2, "13:00"))
	add("ends a session after the close that was not made", ruleLine, late, expired("11:00:01", "a", 1))
	add("lets leave once completed", ruleLine, one, closed(domain.KindQueue, "11:00"), completed("11:00"), left("11:00", "a", 1, queued))
	add("is completed while a session lasts", ruleUnfinished, shut, completed("11:00"))
	return all
}

const queue = domain.KindQueue

// stands has a history for each standing of consumer "a", in a queue without a rate.
// With closedToo the queue is CLOSED, otherwise OPEN. An endless session of consumer
// "z" keeps it from being COMPLETED.
func stands(closedToo bool) map[domain.Standing][]domain.Event {
	const queued, inside = domain.StandingQueued, domain.StandingAdmitted
	in := list(queueOf(0, 0, 0), entered("09:00", "z", 1), byHand("09:00", "z", 1, "never"))
	one := list(in, entered("09:00", "a", 2))
	admittedA := list(one, byHand("09:00:10", "a", 2, "never"))
	timed := list(in, updated("09:00", domain.CauseUpdate, `sessionDurationSeconds null 5`), entered("09:00", "a", 2), byHand("09:00:10", "a", 2, "09:00:15"), expired("09:00:15", "a", 2))
	all := map[domain.Standing][]domain.Event{
		domain.StandingNone:      in,
		domain.StandingQueued:    one,
		domain.StandingAdmitted:  admittedA,
		domain.StandingCompleted: list(admittedA, finished("09:00:20", "a", 2)),
		domain.StandingExpired:   timed,
		domain.StandingDenied:    list(one, denied("09:00:20", "a", 2, queued, domain.DenyFraud)),
		domain.StandingLeft:      list(admittedA, left("09:00:20", "a", 2, inside)),
	}
	if closedToo {
		for s := range all {
			all[s] = list(all[s], closed(queue, "11:00"))
		}
	}
	return all
}

// TestQueue_whatAConsumerMayDo tries every command about a consumer, for every standing
// of the consumer, in an OPEN, a CLOSED and a COMPLETED queue.
func TestQueue_whatAConsumerMayDo(t *testing.T) {
	t.Parallel()
	const (
		none, queued, inside = domain.StandingNone, domain.StandingQueued, domain.StandingAdmitted
		done, over, no, gone = domain.StandingCompleted, domain.StandingExpired, domain.StandingDenied, domain.StandingLeft
	)
	enter, leave, admit := domain.Enter{ConsumerID: "a"}, domain.Leave{ConsumerID: "a"}, domain.Admit{ConsumerID: "a"}
	complete, deny := domain.Complete{ConsumerID: "a"}, domain.Deny{ConsumerID: "a", Reason: domain.DenyOrderLimit}
	type row map[domain.Standing]any // an event, a refusal, or nothing
	unknown, wrong := domain.NotIn(domain.KindQueue), domain.NotPossible
	tooLate := domain.TooLate(queue)
	rows := func(clock string) map[domain.Command]row {
		return map[domain.Command]row{
			leave: {
				none: unknown, queued: left(clock, "a", 2, queued), inside: left(clock, "a", 2, inside), done: wrong, over: wrong, no: wrong,
			},
			admit:    {none: unknown, queued: byHand(clock, "a", 2, "never"), done: wrong, over: wrong, no: wrong, gone: wrong},
			complete: {none: unknown, queued: wrong, inside: finished(clock, "a", 2), over: wrong, no: wrong, gone: wrong},
			deny: {
				none: unknown, queued: denied(clock, "a", 2, queued, domain.DenyOrderLimit), inside: denied(clock, "a", 2, inside, domain.DenyOrderLimit),
				done: wrong, over: wrong, gone: wrong,
			},
		}
	}
	check := func(status string, given map[domain.Standing][]domain.Event, clock string, rows map[domain.Command]row) {
		for cmd, row := range rows {
			for from, history := range given {
				s := domaintest.Scenario{Kind: queue, Given: history, Now: at(clock), When: cmd}
				switch want := row[from].(type) {
				case domain.Event:
					s.Then = list(want)
				case domain.Code:
					s.Refused = want
				}
				t.Run(fmt.Sprintf("%s/%T from %q", status, cmd, from), func(t *testing.T) {
					t.Parallel()
					s.Run(t)
					if s.Refused != "" || len(s.Then) == 0 {
						return
					}
					t.Run("and again", func(t *testing.T) {
						t.Parallel()
						domaintest.Scenario{Kind: queue, Given: list(history, s.Then), Now: at(clock), When: cmd}.Run(t)
					})
				})
			}
		}
	}
	open := rows("10:00")
	open[enter] = row{none: entered("10:00", "a", 2), over: entered("10:00", "a", 3), gone: entered("10:00", "a", 3)}
	check("OPEN", stands(false), "10:00", open)
	shut := rows("12:00")
	shut[enter] = row{none: tooLate, over: tooLate, gone: tooLate}
	check("CLOSED", stands(true), "12:00", shut)

	ended := map[domain.Standing][]domain.Event{}
	for s, history := range stands(true) {
		if s != inside { // nobody is at the end
			ended[s] = list(history, finished("12:00", "z", 1), completed("12:00"))
		}
	}
	check("COMPLETED", ended, "13:00", map[domain.Command]row{
		enter:    {none: tooLate, over: tooLate, gone: tooLate}, // who waited is DENIED, as it is
		leave:    {none: unknown, queued: wrong, done: wrong, over: wrong, no: wrong},
		admit:    {none: unknown, queued: wrong, done: wrong, over: wrong, no: wrong, gone: wrong},
		complete: {none: unknown, queued: wrong, over: wrong, no: wrong, gone: wrong},
		deny:     {none: unknown, done: wrong, over: wrong, gone: wrong},
	})
}

func TestQueue_enter(t *testing.T) {
	t.Parallel()
	const queued = domain.StandingQueued
	enter := domain.Enter{ConsumerID: "a"}
	ids := domain.Detail{Field: "consumerId", Message: "must have 1 to 128 visible ASCII characters"}
	full := list(queueOf(1, 0, 0), entered("09:00", "b", 1))
	draft := list(created(queue, "08:00", nil))
	run(t, map[string]domaintest.Scenario{
		"is too early in DRAFT":     {Kind: queue, Given: draft, Now: at("08:30"), When: enter, Refused: domain.NotOpenYet(queue)},
		"is too early in SCHEDULED": {Kind: queue, Given: queueOf(0, 0, 0)[:2], Now: at("08:59:59.999"), When: enter, Refused: domain.NotOpenYet(queue)},
		"is in time at the opening": {Kind: queue, Given: queueOf(0, 0, 0)[:2], Now: at("09:00"), When: enter, Then: list(opened("09:00"), entered("09:00", "a", 1))},
		"is in time a millisecond before the close": {
			Kind: queue, Given: queueOf(0, 0, 0), Now: at("10:59:59.999"), When: enter, Then: list(entered("10:59:59.999", "a", 1)),
		},
		"is too late at the very millisecond of the close": {
			Kind: queue, Given: queueOf(0, 0, 0), Now: at("11:00"), When: enter,
			Then: list(closed(queue, "11:00"), completed("11:00")), Refused: domain.TooLate(queue),
		},
		"is refused when full":                      {Kind: queue, Given: full, Now: at("09:10"), When: enter, Refused: domain.Full(domain.KindQueue)},
		"is as it is for who waits in a full queue": {Kind: queue, Given: full, Now: at("09:10"), When: domain.Enter{ConsumerID: "b"}},
		"finds the place of who left": {
			Kind: queue, Given: list(full, left("09:05", "b", 1, queued)), Now: at("09:10"), When: enter, Then: list(entered("09:10", "a", 2)),
		},
		"finds the place of who was denied": {
			Kind: queue, Given: list(full, denied("09:05", "b", 1, queued, domain.DenyAdmin)), Now: at("09:10"), When: enter, Then: list(entered("09:10", "a", 2)),
		},
		"finds the place of who was admitted": {
			Kind: queue, Given: list(full, byHand("09:05", "b", 1, "never")), Now: at("09:10"), When: enter, Then: list(entered("09:10", "a", 2)),
		},
		"is refused after the capacity was lowered, and nobody is removed": {
			Kind:  queue,
			Given: list(queueOf(3, 0, 0), entered("09:00", "b", 1), entered("09:00", "c", 2), updated("09:01", domain.CauseUpdate, `maxCapacity 3 1`), left("09:02", "b", 1, queued)),
			Now:   at("09:10"), When: enter, Refused: domain.Full(domain.KindQueue),
		},
		"is possible again after the capacity was lifted": {
			Kind: queue, Given: list(full, updated("09:01", domain.CauseUpdate, `maxCapacity 1 null`)), Now: at("09:10"), When: enter, Then: list(entered("09:10", "a", 2)),
		},
		"with no id": {Kind: queue, Given: queueOf(0, 0, 0), Now: at("09:10"), When: domain.Enter{}, Refused: domain.ValidationFailed, Details: []domain.Detail{ids}},
		"with an id that is too long": {
			Kind: queue, Given: queueOf(0, 0, 0), Now: at("09:10"), When: domain.Enter{ConsumerID: strings.Repeat("a", 129)},
			Refused: domain.ValidationFailed, Details: []domain.Detail{ids},
		},
		"in a deleted queue": {Kind: queue, Given: list(draft, deleted("08:10")), Now: at("08:30"), When: enter, Refused: domain.NotFound(queue)},
		"in no queue":        {Kind: queue, Now: at("08:30"), When: enter, Refused: domain.NotFound(queue)},
		"in a draw":          {Kind: domain.KindDraw, Given: list(created(domain.KindDraw, "08:00", nil)), Now: at("08:30"), When: enter, Refused: domain.InvalidTransition},
	})
}

// refusal is how a command is refused.
func refusal(t *testing.T, given []domain.Event, now string, cmd domain.Command) *domain.Error {
	t.Helper()
	_, err := domaintest.Fold(t, queue, given).Decide(at(now), cmd)
	refused, ok := errors.AsType[*domain.Error](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	return refused
}

func TestQueue_refusalsSayWhenToComeAgain(t *testing.T) {
	t.Parallel()
	enter := domain.Enter{ConsumerID: "a"}
	if r := refusal(t, queueOf(0, 0, 0)[:2], "08:58:59.500", enter); r.OpensAt != at("09:00") || r.RetryAfter != 60500*time.Millisecond {
		t.Errorf("before the opening it says %s, %s", r.OpensAt, r.RetryAfter)
	}
	if r := refusal(t, list(created(queue, "08:00", nil)), "08:30", enter); r.OpensAt != 0 || r.RetryAfter != 0 {
		t.Errorf("without an opening it says %s, %s", r.OpensAt, r.RetryAfter)
	}
	for rate, seconds := range map[domain.Count]int{
		0: 30, 1: 60, 7: 9, 29: 3, 30: 2, 31: 2, 59: 2, 60: 1, 61: 1, 100: 1, 1<<31 - 1: 1,
	} {
		if r := refusal(t, list(queueOf(1, rate, 0), entered("09:00", "b", 1)), "09:00", enter); r.RetryAfter != time.Duration(seconds)*time.Second {
			t.Errorf("full at a rate of %d it says %s", rate, r.RetryAfter)
		}
	}
}

func TestQueue_admitByHand(t *testing.T) {
	t.Parallel()
	three := list(queueOf(0, 0, 600), entered("09:00", "a", 1), entered("09:00", "b", 2), entered("09:00", "c", 3))
	lasting := list(queueOf(0, 0, 0), entered("09:00", "a", 1), entered("09:00", "b", 2), byHand("09:00", "a", 1, "never"), closed(queue, "11:00"))
	counts := domain.Detail{Field: "count", Message: "must be from 1 to 1000"}
	run(t, map[string]domaintest.Scenario{
		"the next ones": {
			Kind: queue, Given: three, Now: at("09:10"), When: domain.Admit{Count: 2},
			Then: list(byHand("09:10", "a", 1, "09:20"), byHand("09:10", "b", 2, "09:20")),
		},
		"all when they are fewer": {
			Kind: queue, Given: three, Now: at("09:10"), When: domain.Admit{Count: 1000},
			Then: list(byHand("09:10", "a", 1, "09:20"), byHand("09:10", "b", 2, "09:20"), byHand("09:10", "c", 3, "09:20")),
		},
		"nobody when nobody waits": {Kind: queue, Given: queueOf(0, 0, 0), Now: at("09:10"), When: domain.Admit{Count: 1}},
		"out of turn":              {Kind: queue, Given: three, Now: at("09:10"), When: domain.Admit{ConsumerID: "c"}, Then: list(byHand("09:10", "c", 3, "09:20"))},
		"while CLOSED": {
			Kind: queue, Given: lasting, Now: at("11:10"), When: domain.Admit{Count: 5}, Then: list(byHand("11:10", "b", 2, "never")),
		},
		"not in DRAFT":     {Kind: queue, Given: list(created(queue, "08:00", nil)), Now: at("08:10"), When: domain.Admit{Count: 1}, Refused: domain.NotPossible},
		"not in SCHEDULED": {Kind: queue, Given: queueOf(0, 0, 0)[:2], Now: at("08:10"), When: domain.Admit{Count: 1}, Refused: domain.NotPossible},
		"not in COMPLETED": {
			Kind: queue, Given: list(lasting, finished("11:10", "a", 1), completed("11:10")), Now: at("11:20"), When: domain.Admit{Count: 1}, Refused: domain.NotPossible,
		},
		"none":     {Kind: queue, Given: three, Now: at("09:10"), When: domain.Admit{}, Refused: domain.ValidationFailed, Details: []domain.Detail{counts}},
		"too many": {Kind: queue, Given: three, Now: at("09:10"), When: domain.Admit{Count: 1001}, Refused: domain.ValidationFailed, Details: []domain.Detail{counts}},
		"neither counts nor slows automatic ones": {
			Kind: queue, Given: list(queueOf(0, 60, 0), entered("09:00", "a", 1), entered("09:00", "b", 2), entered("09:00", "c", 3), byHand("09:00:00.900", "a", 1, "never")),
			Now: at("09:00:01"), Then: list(admitted("09:00:01", "b", 2, "never")),
		},
	})
}

func TestQueue_denyWithoutAReason(t *testing.T) {
	t.Parallel()
	waiting := list(queueOf(0, 0, 0), entered("09:00", "a", 1))
	detail := []domain.Detail{problem("reason", "must be ORDER_LIMIT_EXCEEDED, FRAUD_DETECTED or ADMIN_ACTION")}
	for _, reason := range []domain.DenyReason{"", domain.DenyQueueClosed, "RUDE"} {
		domaintest.Scenario{
			Kind: queue, Given: waiting, Now: at("09:10"), When: domain.Deny{ConsumerID: "a", Reason: reason}, Refused: domain.ValidationFailed, Details: detail,
		}.Run(t)
	}
}

// waiting lets consumers "1", "2" and so on enter at the opening.
func waiting(n int) (events []domain.Event) {
	for i := 1; i <= n; i++ {
		events = append(events, entered("09:00", fmt.Sprint(i), int64(i)))
	}
	return events
}

func TestQueue_admission(t *testing.T) {
	t.Parallel()
	auto := func(clock string, entry int) domain.Event {
		return admitted(clock, fmt.Sprint(entry), int64(entry), "never")
	}
	run(t, map[string]domaintest.Scenario{
		"100 a minute is one every 600 ms": {Kind: queue, Given: list(queueOf(0, 100, 0), waiting(3)), Now: at("09:00:00.599")},
		"the first one is 600 ms after the opening": {
			Kind: queue, Given: list(queueOf(0, 100, 0), waiting(3)), Now: at("09:00:00.600"), Then: list(auto("09:00:00.600", 1)),
		},
		"the second is 600 ms later": {
			Kind: queue, Given: list(queueOf(0, 100, 0), waiting(3), auto("09:00:00.600", 1)), Now: at("09:00:01.200"), Then: list(auto("09:00:01.200", 2)),
		},
		"a timer that is late makes up for it": {
			Kind: queue, Given: list(queueOf(0, 100, 0), waiting(3), auto("09:00:00.700", 1)), Now: at("09:00:01.200"), Then: list(auto("09:00:01.200", 2)),
		},
		"a fast rate admits several at one wake": {
			Kind: queue, Given: list(queueOf(0, 3000, 0), waiting(9), auto("09:00:00.020", 1)), Now: at("09:00:00.070"),
			Then: list(auto("09:00:00.070", 2), auto("09:00:00.070", 3)),
		},
		"who comes while nobody waits is admitted at once": {
			Kind: queue, Given: queueOf(0, 1, 0), Now: at("10:00"), When: domain.Enter{ConsumerID: "1"}, Then: list(entered("10:00", "1", 1), auto("10:00", 1)),
		},
		"one second's worth is saved up": {
			Kind: queue, Given: list(queueOf(0, 120, 0), entered("10:00", "1", 1), auto("10:00", 1), entered("10:00", "2", 2), auto("10:00", 2)),
			Now: at("10:00"), When: domain.Enter{ConsumerID: "3"}, Then: list(entered("10:00", "3", 3)),
		},
		"admissions are not caught up after an outage": {
			Kind: queue, Given: list(queueOf(0, 180, 0), waiting(9)), Now: at("10:00"),
			Then: list(auto("10:00", 1), auto("10:00", 2), auto("10:00", 3)),
		},
		"nobody is admitted at the close": {
			Kind: queue, Given: list(queueOf(0, 60, 0), waiting(1)), Now: at("11:00"), Then: list(closed(queue, "11:00"), completed("11:00")),
		},
		"without a rate nobody is": {Kind: queue, Given: list(queueOf(0, 0, 0), waiting(9)), Now: at("10:59")},
		"who leaves is passed over, and blocks nobody": {
			Kind: queue, Given: list(queueOf(0, 60, 0), waiting(2)), Now: at("09:00:01"), When: domain.Leave{ConsumerID: "2"},
			Then: list(auto("09:00:01", 1), left("09:00:01", "2", 2, domain.StandingQueued)),
		},
		"who leaves while being admitted was admitted": {
			Kind: queue, Given: list(queueOf(0, 60, 0), waiting(1)), Now: at("09:00:01"), When: domain.Leave{ConsumerID: "1"},
			Then: list(auto("09:00:01", 1), left("09:00:01", "1", 1, domain.StandingAdmitted)),
		},
		"a changed rate counts from its event": {
			Kind: queue, Given: list(queueOf(0, 1, 0), waiting(9)), Now: at("09:00:30"), When: update(`{"admissionRate": 60}`),
			Then: list(updated("09:00:30", domain.CauseUpdate, `admissionRate 1 60`)),
		},
		"what was earned before it is kept": { // half an admission, and half a second at 60 a minute
			Kind: queue, Given: list(queueOf(0, 1, 0), waiting(9), updated("09:00:30", domain.CauseUpdate, `admissionRate 1 60`)), Now: at("09:00:30.500"),
			Then: list(auto("09:00:30.500", 1)),
		},
		"what was saved for a fast rate is not for a slow one": {
			Kind: queue, Given: list(queueOf(0, 6000, 0), updated("09:10", domain.CauseUpdate, `admissionRate 6000 60`), entered("09:10", "1", 1), auto("09:10", 1)),
			Now: at("09:10"), When: domain.Enter{ConsumerID: "2"}, Then: list(entered("09:10", "2", 2)),
		},
		"a rate that comes later starts with nothing": {
			Kind: queue, Given: list(queueOf(0, 0, 0), waiting(9), updated("09:10", domain.CauseUpdate, `admissionRate null 60`)), Now: at("09:10:00.999"),
		},
		"what was saved is lost without a rate": {
			Kind: queue, Given: list(queueOf(0, 60, 0), updated("09:10", domain.CauseUpdate, `admissionRate 60 null`), updated("09:11", domain.CauseUpdate, `admissionRate null 60`)),
			Now: at("09:11"), When: domain.Enter{ConsumerID: "1"}, Then: list(entered("09:11", "1", 1)),
		},
		"a close that is moved lets admission go on": {
			Kind: queue, Given: list(queueOf(0, 1, 0), waiting(1), updated("09:00:30", domain.CauseUpdate, `closeAt "@11:00" "@12:00"`)), Now: at("11:30"),
			Then: list(auto("11:30", 1)),
		},
		"a close that is moved to now ends it": {
			Kind: queue, Given: list(queueOf(0, 1, 0), waiting(2)), Now: at("09:00:30"), When: domain.Step{To: domain.StatusClosed},
			Then: list(domain.Updated{Stamp: stamp("09:00:30"), Cause: domain.CauseHand, Changed: map[string]domain.Change{
				"closeAt": {Old: []byte(`"2026-12-15T11:00:00.000Z"`), New: []byte(`"2026-12-15T09:00:30.000Z"`)},
			}}, closed(queue, "09:00:30"), completed("09:00:30")),
		},
	})
}

// TestQueue_manyAdmissionsComeInParts: an append has room for a limited number of
// events.
func TestQueue_manyAdmissionsComeInParts(t *testing.T) {
	t.Parallel()
	h := domaintest.Fold(t, queue, list(queueOf(0, 1<<31-1, 0), waiting(2500)))
	parts, all := 0, 0
	for events, err := range h.Advance(at("09:10")) {
		if err != nil || len(events) > 1000 {
			t.Fatalf("%d at once, %v", len(events), err)
		}
		parts, all = parts+1, all+len(events)
	}
	if q := h.Aggregate.(*domain.Queue); all != 2500 || parts < 3 || q.Tally.Waiting != 0 || q.Wake() != at("11:00") {
		t.Errorf("%d in %d parts, %+v", all, parts, q.Tally)
	}
}

func TestQueue_sessions(t *testing.T) {
	t.Parallel()
	in := list(queueOf(0, 0, 60), entered("09:00", "a", 1), entered("09:00", "b", 2), byHand("09:00:10", "b", 2, "09:01:10"), byHand("09:00:20", "a", 1, "09:01:20"))
	longer := list(in, updated("09:00:30", domain.CauseUpdate, `sessionDurationSeconds 60 3600`), entered("09:00:30", "c", 3))
	late := list(queueOf(0, 0, 7200), entered("09:00", "a", 1), entered("09:00", "b", 2), byHand("10:00", "a", 1, "12:00"))
	run(t, map[string]domaintest.Scenario{
		"last until their end":                  {Kind: queue, Given: in, Now: at("09:01:09.999")},
		"end at their end":                      {Kind: queue, Given: in, Now: at("09:01:10"), Then: list(expired("09:01:10", "b", 2))},
		"are caught up in order, on their time": {Kind: queue, Given: in, Now: at("10:00"), Then: list(expired("09:01:10", "b", 2), expired("09:01:20", "a", 1))},
		"come before the close that is due as well": {
			Kind: queue, Given: in, Now: at("12:00"),
			Then: list(expired("09:01:10", "b", 2), expired("09:01:20", "a", 1), closed(queue, "11:00"), completed("11:00")),
		},
		"cannot be finished at their end": {
			Kind: queue, Given: in, Now: at("09:01:10"), When: domain.Complete{ConsumerID: "b"}, Then: list(expired("09:01:10", "b", 2)), Refused: domain.NotPossible,
		},
		"can be finished a millisecond before": {
			Kind: queue, Given: in, Now: at("09:01:09.999"), When: domain.Complete{ConsumerID: "b"}, Then: list(finished("09:01:09.999", "b", 2)),
		},
		"last as long as was said when they began": {
			Kind: queue, Given: longer, Now: at("09:01:00"), When: domain.Admit{ConsumerID: "c"}, Then: list(byHand("09:01:00", "c", 3, "10:01:00")),
		},
		"whose end is over are outside, and may enter again": {
			Kind: queue, Given: in, Now: at("09:01:10"), When: domain.Enter{ConsumerID: "b"}, Then: list(expired("09:01:10", "b", 2), entered("09:01:10", "b", 3)),
		},
		"that end after the close come behind it": {
			Kind: queue, Given: late, Now: at("13:00"), Then: list(closed(queue, "11:00"), expired("12:00", "a", 1), completed("12:00")),
		},
		"outlast the close": {Kind: queue, Given: late, Now: at("11:59:59.999"), Then: list(closed(queue, "11:00"))},
		"that are the last end the queue, and who waits is thereby denied": {
			Kind: queue, Given: list(late, closed(queue, "11:00")), Now: at("13:00"), Then: list(expired("12:00", "a", 1), completed("12:00")),
		},
		"that are finished end the queue": {
			Kind: queue, Given: list(late, closed(queue, "11:00")), Now: at("11:30"), When: domain.Complete{ConsumerID: "a"},
			Then: list(finished("11:30", "a", 1), completed("11:30")),
		},
		"that end with the close come first": {
			Kind: queue, Given: list(queueOf(0, 0, 3600), entered("09:00", "a", 1), byHand("10:00", "a", 1, "11:00")), Now: at("11:00"),
			Then: list(expired("11:00", "a", 1), closed(queue, "11:00"), completed("11:00")),
		},
	})
}

func TestQueue_whoStillWaitsAtTheEndIsDenied(t *testing.T) {
	t.Parallel()
	h := domaintest.Fold(t, queue, list(queueOf(0, 0, 0), waiting(3)))
	due, err := domaintest.Advance(h, at("11:00"))
	if err != nil {
		t.Fatal(err)
	}
	domaintest.Same(t, due, list(closed(queue, "11:00"), completed("11:00")))
	q := h.Aggregate.(*domain.Queue)
	for each := range q.Participants() {
		p := each.(*domain.QueuePlace)
		if p.Standing != domain.StandingDenied || p.DenyReason != domain.DenyQueueClosed || p.Position != -1 || p.PollAfter != -1 || p.EstimatedWait != -1 {
			t.Errorf("%+v", p)
		}
	}
	if shown := string(q.AppendPublicJSON(nil)); !strings.Contains(shown, `"consumerCount":0`) || !strings.Contains(shown, `"status":"CLOSED"`) {
		t.Errorf("everybody sees %s", shown)
	}
	if !q.KnowsParticipants() {
		t.Error("has forgotten somebody")
	}
	q.ForgetParticipants()
	if _, ok := q.Place("1"); ok || q.KnowsParticipants() {
		t.Error("still knows somebody")
	}
}

// TestQueue_longLines compares long queues and their forks with a plain list. There are
// thousands of entries, and many consumers leave and enter again.
func TestQueue_longLines(t *testing.T) {
	t.Parallel()
	type plain struct {
		h    *domain.History
		line []string // who waits
	}
	random := rand.New(rand.NewPCG(1, 2))
	all := []*plain{{h: domaintest.Fold(t, queue, queueOf(0, 0, 0))}}
	carry := func(p *plain, cmd domain.Command) {
		if _, err := p.h.Decide(at("09:10"), cmd); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 9_000 {
		p := all[random.IntN(len(all))]
		switch n := random.IntN(10); {
		case n < 3 && len(p.line) > 0:
			at := random.IntN(len(p.line))
			carry(p, domain.Leave{ConsumerID: p.line[at]})
			p.line = slices.Delete(slices.Clone(p.line), at, at+1)
		case n == 3:
			carry(p, domain.Admit{Count: 1})
			p.line = p.line[min(1, len(p.line)):]
		default:
			who := fmt.Sprint("c", random.IntN(6_000))
			if part, ok := p.h.Aggregate.(*domain.Queue).Place(who); ok && part.Standing != domain.StandingLeft {
				continue
			}
			carry(p, domain.Enter{ConsumerID: who})
			p.line = append(slices.Clone(p.line), who)
		}
		if i%3_000 == 2_000 {
			all = append(all, &plain{p.h.Fork(), p.line})
		}
	}
	for _, p := range all {
		q := p.h.Aggregate.(*domain.Queue)
		if q.Tally.Waiting != int64(len(p.line)) || len(p.line) < 500 {
			t.Errorf("%d wait, want %d", q.Tally.Waiting, len(p.line))
		}
		for i, who := range p.line {
			if part, ok := q.Place(who); !ok || part.Position != int64(i+1) {
				t.Fatalf("%s is at %d, want %d", who, part.Position, i+1)
			}
		}
		next := ""
		for part := range q.Participants() {
			if part.(*domain.QueuePlace).Position == 1 {
				next = part.Consumer()
			}
		}
		if next != p.line[0] {
			t.Errorf("%s is next, want %s", next, p.line[0])
		}
	}
}
