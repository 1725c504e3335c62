package domain_test

import (
	"strings"

	"github.com/lotline/lotline/domain"
)

// queueOf is a queue from 09:00 to 11:00, opened, of which a capacity, a rate and
// the seconds of a session may be 0 for none.
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

// admitted is an automatic admission; byHand is the other. A session without an
// end ends "never".
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

// brokenLines are histories of queues whose last event breaks a rule about those
// who take part.
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
