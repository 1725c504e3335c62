package domain_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// model is what a queue has to do, written down as plainly as possible: a list of
// entries that is walked from the front each time.
type model struct {
	status                  domain.Status
	closeAt, latest         domain.Instant
	capacity, rate, session int64
	spots                   []spot
	credit                  int64 // 60,000 for an admission
	earned, last            domain.Instant
	lastEntered             int64
}

// spot is one entry.
type spot struct {
	who                                  string
	number                               int64
	is                                   domain.Standing
	enteredAt, admittedAt, ends, endedAt domain.Instant
	why                                  domain.DenyReason
}

func (m *model) clone() *model {
	c := *m
	c.spots = slices.Clone(m.spots)
	return &c
}

func (m *model) newest(who string) *spot {
	var found *spot
	for i := range m.spots {
		if m.spots[i].who == who {
			found = &m.spots[i]
		}
	}
	return found
}

func (m *model) count(is domain.Standing) (n int64) {
	for _, s := range m.spots {
		if s.is == is {
			n++
		}
	}
	return n
}

// bucket is what can be saved up: one second's worth, or one admission.
func bucket(rate int64) int64 { return max(60_000, rate*1000) }

// saved is the credit at now: it grows millisecond by millisecond, up to a minute,
// when any bucket is full.
func (m *model) saved(now domain.Instant) int64 {
	credit := m.credit
	for t := m.earned; t < now && t < m.earned+60_000; t++ {
		credit = min(credit+m.rate, bucket(m.rate))
	}
	return credit
}

// advance does what is due.
func (m *model) advance(now domain.Instant) (events []domain.Event) {
	for {
		e := m.next(now)
		if e == nil {
			return events
		}
		m.latest = e.When()
		events = append(events, e)
	}
}

func (m *model) next(now domain.Instant) domain.Event {
	until := now
	if m.status == domain.StatusOpen {
		until = min(until, m.closeAt)
	}
	var over *spot
	for i := range m.spots {
		s := &m.spots[i]
		if s.is == domain.StandingAdmitted && s.ends != 0 && s.ends <= until && (over == nil || s.ends < over.ends) {
			over = s
		}
	}
	if over != nil {
		over.is = domain.StandingExpired
		return domain.ConsumerExpired{Stamp: domain.Stamp{At: max(over.ends, m.latest)}, Participant: who(over.who, over.number)}
	}
	switch m.status {
	case domain.StatusOpen:
		if m.closeAt <= now {
			m.status = domain.StatusClosed
			return domain.Closed{Stamp: domain.Stamp{At: max(m.closeAt, m.latest)}}
		}
		credit := m.saved(now)
		if m.rate == 0 || credit < 60_000 || m.last != 0 && m.last != now && now < m.last+50 {
			return nil
		}
		for i := range m.spots {
			if s := &m.spots[i]; s.is == domain.StandingQueued {
				m.credit, m.earned, m.last = credit-60_000, now, now
				return m.admit(s, now, false)
			}
		}
	case domain.StatusClosed:
		if m.count(domain.StandingAdmitted) == 0 {
			m.status = domain.StatusCompleted
			for i := range m.spots {
				if s := &m.spots[i]; s.is == domain.StandingQueued {
					s.is, s.why = domain.StandingDenied, domain.DenyQueueClosed
				}
			}
			return domain.Completed{Stamp: domain.Stamp{At: m.latest}}
		}
	case domain.StatusDraft, domain.StatusScheduled, domain.StatusDrawn, domain.StatusCompleted, domain.StatusSettled:
	}
	return nil
}

func (m *model) admit(s *spot, now domain.Instant, hand bool) domain.Event {
	s.is, s.admittedAt = domain.StandingAdmitted, now
	if m.session != 0 {
		s.ends = now.Add(time.Duration(m.session) * time.Second)
	}
	return domain.ConsumerAdmitted{Stamp: domain.Stamp{At: now}, Participant: who(s.who, s.number), ExpiresAt: s.ends, ByHand: hand}
}

// do carries a command out at a time at which nothing is due.
func (m *model) do(now domain.Instant, cmd domain.Command) (events []domain.Event, refused domain.Code) {
	at := domain.Stamp{At: now}
	switch c := cmd.(type) {
	case domain.Enter:
		if s := m.newest(c.ConsumerID); s != nil && s.is != domain.StandingLeft && s.is != domain.StandingExpired {
			return nil, ""
		}
		if m.status != domain.StatusOpen {
			return nil, "Queue is closed"
		}
		if m.capacity != 0 && m.count(domain.StandingQueued) >= m.capacity {
			return nil, "Queue is full"
		}
		m.lastEntered++
		m.spots = append(m.spots, spot{who: c.ConsumerID, number: m.lastEntered, is: domain.StandingQueued, enteredAt: now})
		return list(domain.ConsumerEntered{Stamp: at, Participant: who(c.ConsumerID, m.lastEntered)}), ""
	case domain.Admit:
		if c.ConsumerID == "" {
			if m.status == domain.StatusCompleted {
				return nil, "Not possible in this state"
			}
			for i := range m.spots {
				if s := &m.spots[i]; s.is == domain.StandingQueued && int64(len(events)) < c.Count {
					events = append(events, m.admit(s, now, true))
				}
			}
			return events, ""
		}
	case domain.Update, domain.Step:
		if m.status != domain.StatusOpen {
			return nil, map[bool]domain.Code{true: "Cannot update closed distribution", false: "Invalid status transition"}[isUpdate(cmd)]
		}
		return m.change(now, cmd), ""
	case domain.Advance:
		return nil, ""
	}
	return m.doWith(now, cmd)
}

func isUpdate(cmd domain.Command) bool { _, ok := cmd.(domain.Update); return ok }

// doWith carries out what is about somebody who entered.
func (m *model) doWith(now domain.Instant, cmd domain.Command) ([]domain.Event, domain.Code) {
	const queued, inside = domain.StandingQueued, domain.StandingAdmitted
	at := domain.Stamp{At: now}
	s := m.newest(cmd.(interface{ Whom() string }).Whom())
	if s == nil {
		return nil, "Consumer not in queue"
	}
	from, p := s.is, who(s.who, s.number)
	step := func(to domain.Standing, from ...domain.Standing) (bool, domain.Code) {
		if s.is == to {
			return false, ""
		}
		if !slices.Contains(from, s.is) {
			return false, "Not possible in this state"
		}
		s.is, s.endedAt = to, now
		return true, ""
	}
	switch c := cmd.(whom).Command.(type) {
	case domain.Leave:
		if ok, code := step(domain.StandingLeft, queued, inside); !ok {
			return nil, code
		}
		return list(domain.ConsumerLeft{Stamp: at, Participant: p, From: from}), ""
	case domain.Complete:
		if ok, code := step(domain.StandingCompleted, inside); !ok {
			return nil, code
		}
		return list(domain.ConsumerCompleted{Stamp: at, Participant: p}), ""
	case domain.Deny:
		if ok, code := step(domain.StandingDenied, queued, inside); !ok {
			return nil, code
		}
		s.why = c.Reason
		return list(domain.ConsumerDenied{Stamp: at, Participant: p, From: from, Reason: c.Reason}), ""
	case domain.Admit:
		if ok, code := step(inside, queued); !ok {
			return nil, code
		}
		s.endedAt = 0
		return list(m.admit(s, now, true)), ""
	}
	panic("nobody does that")
}

// change carries out an update of one field, or the close by hand.
func (m *model) change(now domain.Instant, cmd domain.Command) []domain.Event {
	u := domain.Updated{Stamp: domain.Stamp{At: now}, Changed: map[string]domain.Change{}, Cause: domain.CauseUpdate}
	moveClose := func(to domain.Instant) {
		u.Changed["closeAt"] = domain.Change{Old: []byte(strconv.Quote(m.closeAt.String())), New: []byte(strconv.Quote(to.String()))}
		m.closeAt = to
	}
	if _, ok := cmd.(domain.Step); ok {
		u.Cause = domain.CauseHand
		if m.closeAt != now {
			moveClose(now)
		}
		return list(u)
	}
	text := func(n int64) []byte {
		if n == 0 {
			return []byte("null")
		}
		return strconv.AppendInt(nil, n, 10)
	}
	for name, raw := range cmd.(domain.Update).Fields {
		to, _ := strconv.ParseInt(string(raw), 10, 64)
		var field *int64
		switch name {
		case "maxCapacity":
			field = &m.capacity
		case "admissionRate":
			field = &m.rate
			if to == m.rate {
				break // nothing happens, and the clock may be put back behind it
			}
			m.credit, m.earned = min(m.saved(now), bucket(to)), now
			if to == 0 {
				m.credit = 0
			}
		case "sessionDurationSeconds":
			field = &m.session
		case "closeAt":
			t, err := domain.ParseInstant(string(raw[1:len(raw)-1]), "")
			if err != nil {
				panic(err)
			}
			if t != m.closeAt {
				moveClose(t)
			}
			continue
		}
		if field != nil && *field != to {
			u.Changed[name] = domain.Change{Old: text(*field), New: text(to)}
			*field = to
		}
	}
	if len(u.Changed) == 0 {
		return nil
	}
	return list(u)
}

// whom is a command about one consumer.
type whom struct {
	domain.Command
	who string
}

func (w whom) Whom() string { return w.who }

// trace is a queue and its model, led by the same commands.
type trace struct {
	t     *rapid.T
	h     *domain.History
	m     *model
	log   []domain.Event
	clock domain.Instant
}

func (p *trace) fork(h *domain.History) *trace {
	return &trace{p.t, h, p.m.clone(), slices.Clone(p.log), p.clock}
}

func (p *trace) queue() *domain.Queue { return p.h.Aggregate.(*domain.Queue) }

// step lets time pass and carries out one command.
func (p *trace) step() {
	t := p.t
	switch jump := rapid.IntRange(0, 11).Draw(t, "jump"); {
	case jump < 3:
	case jump == 3 && p.queue().Wake() != 0:
		p.clock = p.queue().Wake()
	case jump == 4 && p.queue().Wake() != 0:
		p.clock = max(p.clock, p.queue().Wake()-1)
	case jump == 11:
		p.clock -= 500
	default:
		p.clock += domain.Instant(rapid.SampledFrom([]int{1, 7, 49, 50, 51, 100, 599, 600, 1000, 1001, 5000, 60_000, 600_000}).Draw(t, "ms"))
	}
	cmd := p.command()
	now := p.h.At(p.clock)
	if now != max(p.clock, p.m.latest) {
		t.Fatalf("at %s it counts as %s", p.clock, now)
	}
	due, err := domaintest.Advance(p.h, now)
	if err != nil {
		t.Fatal(err)
	}
	domaintest.Same(t, due, p.m.advance(now))
	plain := cmd
	if w, ok := cmd.(whom); ok {
		plain = w.Command
	}
	events, err := domaintest.Carry(p.h, now, plain)
	want, code := p.m.do(now, cmd)
	if len(want) > 0 {
		p.m.latest = now
		want = append(want, p.m.advance(now)...)
	}
	domaintest.Same(t, events, want)
	refusal, _ := errors.AsType[*domain.Error](err)
	if (refusal == nil) != (err == nil) || (refusal == nil) != (code == "") || refusal != nil && refusal.Code != code {
		t.Fatalf("%s: %T is answered %v, want %q", now, plain, err, code)
	}
	p.log = slices.Concat(p.log, due, events)
	p.shows()
	p.wakes(now)
}

func (p *trace) command() domain.Command {
	t := p.t
	one := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h"}).Draw(t, "who")
	switch rapid.IntRange(0, 17).Draw(t, "command") {
	case 0:
		return whom{domain.Leave{ConsumerID: one}, one}
	case 1:
		return whom{domain.Complete{ConsumerID: one}, one}
	case 2:
		return whom{domain.Deny{ConsumerID: one, Reason: rapid.SampledFrom(domain.DenyReasons()).Draw(t, "reason")}, one}
	case 3:
		return domain.Admit{Count: rapid.Int64Range(1, 3).Draw(t, "count")}
	case 4:
		if rapid.IntRange(0, 9).Draw(t, "close") == 0 {
			return domain.Step{To: domain.StatusClosed}
		}
		return whom{domain.Admit{ConsumerID: one}, one}
	case 5:
		return update(fmt.Sprintf(`{"admissionRate": %s}`, rapid.SampledFrom(someRates).Draw(t, "rate")))
	case 6:
		return update(fmt.Sprintf(`{"maxCapacity": %s}`, rapid.SampledFrom([]string{"null", "1", "2", "5"}).Draw(t, "capacity")))
	case 7:
		return update(fmt.Sprintf(`{"sessionDurationSeconds": %s}`, rapid.SampledFrom([]string{"null", "1", "2", "60"}).Draw(t, "session")))
	case 8:
		later := p.h.At(p.clock).Add(time.Duration(rapid.IntRange(1, 3_600_000).Draw(t, "close in")) * time.Millisecond)
		return update(fmt.Sprintf(`{"closeAt": %q}`, later))
	case 9, 10:
		return domain.Advance{}
	}
	return domain.Enter{ConsumerID: one}
}

var someRates = []string{"null", "1", "7", "60", "100", "1000", "6000", "60000", "2147483647"}

// shows says that everybody is where the model has them.
func (p *trace) shows() {
	t, q := p.t, p.queue()
	tickets := map[string]bool{}
	position := int64(0)
	for _, s := range p.m.spots {
		if s.is == domain.StandingQueued {
			position++
		}
		if p.m.newest(s.who).number != s.number {
			continue
		}
		got, ok := q.Place(s.who)
		want := domain.QueuePlace{
			QueueID: idOf(domain.KindQueue), ConsumerID: s.who, Standing: s.is, Position: -1, EstimatedWait: -1,
			EnteredAt: s.enteredAt, AdmittedAt: s.admittedAt, ExpiresAt: s.ends, DenyReason: s.why, Ticket: got.Ticket, PollAfter: got.PollAfter,
		}
		switch s.is {
		case domain.StandingQueued:
			want.Position = position
			if p.m.status == domain.StatusOpen && p.m.rate > 0 {
				want.EstimatedWait = (position*60 + p.m.rate - 1) / p.m.rate
			}
		case domain.StandingAdmitted:
			want.Position = 0
			if p.m.rate > 0 {
				want.EstimatedWait = 0
			}
		case domain.StandingCompleted:
			want.CompletedAt = s.endedAt
		case domain.StandingNone, domain.StandingExpired, domain.StandingDenied, domain.StandingLeft:
		}
		if !ok || got != want {
			t.Fatalf("%s is shown as\n%+v, %t; want\n%+v", s.who, got, ok, want)
		}
		number, ok := domain.EntryOfTicket(got.Ticket, "made", idOf(domain.KindQueue))
		if !ok || number != s.number || tickets[got.Ticket] {
			t.Fatalf("entry %d has the ticket %s, which is of %d", s.number, got.Ticket, number)
		}
		tickets[got.Ticket] = true
	}
	closed := int64(0)
	for _, s := range p.m.spots {
		if s.why == domain.DenyQueueClosed {
			closed++
		}
	}
	want := domain.Tally{
		Waiting: p.m.count(domain.StandingQueued) + closed, Admitted: p.m.count(domain.StandingAdmitted),
		Completed: p.m.count(domain.StandingCompleted), Expired: p.m.count(domain.StandingExpired),
		Denied: p.m.count(domain.StandingDenied) - closed, Left: p.m.count(domain.StandingLeft),
	}
	if q.Tally != want || !q.KnowsParticipants() {
		t.Fatalf("counted %+v, want %+v", q.Tally, want)
	}
	if _, ok := q.Participation("nobody"); ok {
		t.Fatal("who never entered takes part")
	}
}

// wakes says that nothing happens before the time to wake, and something does then.
func (p *trace) wakes(now domain.Instant) {
	wake, m := p.queue().Wake(), p.m.clone()
	if wake != 0 && wake <= now {
		p.t.Fatalf("%s: wakes at %s", now, wake)
	}
	late := wake - 1
	if wake == 0 {
		late = now.Add(10_000 * time.Hour)
	}
	if due := m.advance(max(now, late)); len(due) > 0 {
		p.t.Fatalf("%s: wakes at %s, but there is %s", now, wake, domaintest.Show(due))
	}
	if wake != 0 && len(m.advance(wake)) == 0 {
		p.t.Fatalf("%s: wakes at %s for nothing", now, wake)
	}
}

// paced says that the log admits nobody twice, and automatically no more than the
// rates that were in force allow: between any two admissions one bucket and what is
// earned in between, wakes 50 ms apart, and so in any minute at a rate that stays
// the same a sixtieth more than it.
func (p *trace) paced(rate int64) {
	type admission struct {
		at           domain.Instant
		rate, earned int64
		changes      int // of the rate, before
	}
	var all []admission
	now := admission{rate: rate}
	twice := map[int64]bool{}
	for _, e := range p.log {
		now.earned += now.rate * int64(e.When()-now.at)
		now.at = e.When()
		switch e := e.(type) {
		case domain.Updated:
			if c, ok := e.Changed["admissionRate"]; ok {
				now.rate, _ = strconv.ParseInt(string(c.New), 10, 64)
				now.changes++
			}
		case domain.ConsumerAdmitted:
			if twice[e.Entry] {
				p.t.Fatalf("entry %d is admitted twice", e.Entry)
			}
			twice[e.Entry] = true
			if !e.ByHand {
				all = append(all, now)
			}
		}
	}
	for i, from := range all {
		if i > 0 && all[i-1].at != from.at && from.at < all[i-1].at+50 {
			p.t.Fatalf("admits at %s and at %s", all[i-1].at, from.at)
		}
		for j, to := range all[i:] {
			n, most := int64(j+1), bucket(from.rate)+to.earned-from.earned
			if n*60_000 > most {
				p.t.Fatalf("%d are admitted from %s to %s, where %d can be", n, from.at, to.at, most/60_000)
			}
			if to.at-from.at < 60_000 && to.changes == from.changes && n > (from.rate*61+59)/60 {
				p.t.Fatalf("%d are admitted in the minute from %s on at a rate of %d", n, from.at, from.rate)
			}
		}
	}
}

func playQueue(t *rapid.T) {
	number := func(of []string, name string) domain.Count {
		n, _ := strconv.ParseInt(rapid.SampledFrom(of).Draw(t, name), 10, 64)
		return domain.Count(n)
	}
	capacity, session := number([]string{"null", "1", "3"}, "capacity"), number([]string{"null", "1", "10"}, "session")
	rate := number(someRates, "rate")
	log := queueOf(capacity, rate, session)
	p := &trace{t: t, h: domaintest.Fold(t, domain.KindQueue, log), log: log, clock: at("09:00"), m: &model{
		status: domain.StatusOpen, closeAt: at("11:00"), latest: at("09:00"), earned: at("09:00"),
		capacity: int64(capacity), rate: int64(rate), session: int64(session),
	}}
	all := []*trace{p}
	for range rapid.IntRange(0, 60).Draw(t, "commands") {
		i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
		if len(all) < 3 && rapid.IntRange(0, 20).Draw(t, "fork") == 0 {
			// Either may go on as the original.
			fork := all[i].fork(all[i].h.Fork())
			all = append(all, fork)
		}
		all[i].step()
	}
	for _, p := range all {
		p.shows()
		p.paced(int64(rate))
		for _, log := range [][]domain.Event{p.log, stored(t, p.log, false)} {
			if again := domaintest.Fold(t, domain.KindQueue, log); !domaintest.SameState(again, p.h) {
				t.Fatalf("folded again\n got %+v\nwant %+v", again.Aggregate, p.h.Aggregate)
			}
		}
	}
}

// TestQueue_doesWhatThePlainModelDoes leads queues and their forks by random
// commands, and compares every event, refusal, position, ticket and time to wake with
// the model's. Folding the log anew, as it is stored too, gives the same.
func TestQueue_doesWhatThePlainModelDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, playQueue)
}

func FuzzQueue(f *testing.F) { f.Fuzz(rapid.MakeFuzz(playQueue)) }

// TestQueue_plantedFaultsAreRefused plants a fault into each place of random logs
// that has room for it. Whoever folds such a log is told, at that place or behind it.
func TestQueue_plantedFaultsAreRefused(t *testing.T) {
	t.Parallel()
	planted := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		log := queueOf(2, 60, 2)
		p := &trace{t: t, h: domaintest.Fold(t, domain.KindQueue, log), log: log, clock: at("09:00"), m: &model{
			status: domain.StatusOpen, closeAt: at("11:00"), latest: at("09:00"), earned: at("09:00"), capacity: 2, rate: 60, session: 2,
		}}
		for range rapid.IntRange(0, 40).Draw(t, "commands") {
			p.step()
		}
		end, err := domaintest.Advance(p.h, max(p.m.closeAt, p.m.latest).Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		p.log = append(p.log, end...)
		for i, e := range p.log {
			for name, fault := range faults(t, p.log[:i:i], e) {
				if name == "a session that outlives its end" && i == len(p.log)-1 {
					continue // and does so still
				}
				if name == "a lost entry" && !missed(e.(domain.ConsumerEntered).Entry, p.log[i+1:]) {
					continue // no trace of it is left
				}
				planted[name]++
				if refusedAt(slices.Concat(fault, p.log[i+1:])) < 0 {
					t.Fatalf("%s is not found: instead of %s\nthere is%s\nin%s", name, domaintest.Show(list(e)), domaintest.Show(fault[i:]), domaintest.Show(p.log))
				}
			}
		}
	})
	for _, name := range []string{
		"a double admission", "an admission of somebody else", "an admission out of turn", "a pace that is a millisecond fast", "a lost entry", "a place that is taken over",
		"a session that outlives its end", "a session that ends early", "a session that is a millisecond longer", "an end before the last has finished",
	} {
		if planted[name] == 0 {
			t.Errorf("%s was never planted", name)
		}
	}
}

// faults are logs that go wrong where before goes on with e.
func faults(t *rapid.T, before []domain.Event, e domain.Event) map[string][]domain.Event {
	all := map[string][]domain.Event{}
	q := domaintest.Fold(t, domain.KindQueue, before).Aggregate.(*domain.Queue)
	plant := func(name string, events ...domain.Event) { all[name] = slices.Concat(before, events) }
	switch e := e.(type) {
	case domain.ConsumerEntered:
		plant("a lost entry")
		other := e
		for p := range q.Participants() {
			if other.ConsumerID = p.Consumer(); p.(*domain.QueuePlace).Standing == domain.StandingQueued {
				plant("a place that is taken over", other)
			}
		}
	case domain.ConsumerAdmitted:
		plant("a double admission", e, e)
		longer := e
		if longer.ExpiresAt != 0 {
			longer.ExpiresAt++
			plant("a session that is a millisecond longer", longer)
		}
		other := e
		other.ConsumerID += "x"
		plant("an admission of somebody else", other)
		if e.ByHand {
			break
		}
		// Only where the pace, and not who waits since when, decided the time.
		if fast := e; q.Wake() == e.At && e.At > q.Latest {
			fast.At--
			if fast.ExpiresAt != 0 {
				fast.ExpiresAt--
			}
			plant("a pace that is a millisecond fast", fast)
		}
		for p := range q.Participants() {
			p := p.(*domain.QueuePlace)
			if out := e; p.Position > 1 {
				number, _ := domain.EntryOfTicket(p.Ticket, "made", idOf(domain.KindQueue))
				out.Participant = who(p.ConsumerID, number)
				plant("an admission out of turn", out)
			}
		}
	case domain.ConsumerExpired:
		// What follows is at its time or later, the end of the queue at the latest.
		plant("a session that outlives its end")
		early := e
		if early.At--; early.At >= q.Latest {
			plant("a session that ends early", early)
		}
	case domain.Closed:
		if q.Tally.Admitted > 0 {
			plant("an end before the last has finished", e, domain.Completed(e))
		}
	}
	return all
}

// missed reports whether anything in a log depends on an entry.
func missed(entry int64, log []domain.Event) bool {
	return slices.ContainsFunc(log, func(e domain.Event) bool {
		field := reflect.ValueOf(e).FieldByName("Entry")
		return field.IsValid() && field.Int() >= entry
	})
}

// refusedAt is the place of the first event that the rules refuse, or -1.
func refusedAt(log []domain.Event) int {
	q := domain.NewAggregate(domain.KindQueue)
	for i, e := range log {
		if q.Evolve(e) != nil {
			return i
		}
	}
	return -1
}
