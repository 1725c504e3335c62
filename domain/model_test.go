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
	"github.com/lotline/lotline/domain/queuemodel"
)

// modelOf is the plain model of a queue that opened at 09:00 and closes at 11:00.
func modelOf(capacity, rate, session domain.Count) *queuemodel.Queue {
	m := &queuemodel.Queue{}
	m.Apply(queuemodel.Event{Type: queuemodel.QueueCreated, Settings: queuemodel.Settings{
		Capacity: int64(capacity), Rate: int64(rate), Session: int64(session), CloseAt: queuemodel.Time(at("11:00")),
	}})
	m.Apply(queuemodel.Event{Type: queuemodel.QueueOpened, At: queuemodel.Time(at("09:00"))})
	return m
}

// asked translates a command into a request to the model. It returns false for a
// command that asks for nothing.
func asked(cmd domain.Command) (queuemodel.Request, bool) {
	switch c := cmd.(type) {
	case domain.Enter:
		return queuemodel.Request{Action: queuemodel.Enter, Consumer: c.ConsumerID}, true
	case domain.Leave:
		return queuemodel.Request{Action: queuemodel.Leave, Consumer: c.ConsumerID}, true
	case domain.Complete:
		return queuemodel.Request{Action: queuemodel.Complete, Consumer: c.ConsumerID}, true
	case domain.Deny:
		return queuemodel.Request{Action: queuemodel.Deny, Consumer: c.ConsumerID, Reason: string(c.Reason)}, true
	case domain.Admit:
		if c.ConsumerID == "" {
			return queuemodel.Request{Action: queuemodel.AdmitNext, Count: c.Count}, true
		}
		return queuemodel.Request{Action: queuemodel.Admit, Consumer: c.ConsumerID}, true
	case domain.Step:
		return queuemodel.Request{Action: queuemodel.Close}, true
	case domain.Update:
		r := queuemodel.Request{Action: queuemodel.Update, Changes: map[string]int64{}}
		for field, raw := range c.Fields {
			r.Changes[field] = fieldValue(field, raw)
		}
		return r, true
	}
	return queuemodel.Request{}, false
}

// fieldValue translates the value that an update gives to a field for the model.
func fieldValue(field string, raw []byte) int64 {
	if field == queuemodel.FieldCloseAt {
		to, err := domain.ParseInstant(string(raw[1:len(raw)-1]), "")
		if err != nil {
			panic(err)
		}
		return int64(to)
	}
	to, _ := strconv.ParseInt(string(raw), 10, 64)
	return to
}

// fieldJSON is the inverse of fieldValue.
func fieldJSON(field string, value int64) []byte {
	switch {
	case value == 0:
		return []byte("null")
	case field == queuemodel.FieldCloseAt:
		return []byte(strconv.Quote(domain.Instant(value).String()))
	}
	return strconv.AppendInt(nil, value, 10)
}

// eventsOf translates the model's events into events of the domain. before has the
// settings of the queue before the first of them.
func eventsOf(before queuemodel.Settings, all []queuemodel.Event) (events []domain.Event) {
	for _, e := range all {
		events = append(events, eventOf(before, e))
	}
	return events
}

func eventOf(before queuemodel.Settings, e queuemodel.Event) domain.Event {
	at, p := domain.Stamp{At: domain.Instant(e.At)}, who(e.Consumer, e.Entry)
	switch e.Type {
	case queuemodel.QueueClosed:
		return domain.Closed{Stamp: at}
	case queuemodel.QueueCompleted:
		return domain.Completed{Stamp: at}
	case queuemodel.QueueUpdated:
		u := domain.Updated{Stamp: at, Changed: map[string]domain.Change{}, Cause: domain.CauseUpdate}
		if e.ByHand {
			u.Cause = domain.CauseHand
		}
		for field, to := range e.Changes {
			u.Changed[field] = domain.Change{Old: fieldJSON(field, before.Field(field)), New: fieldJSON(field, to)}
		}
		return u
	case queuemodel.ConsumerEntered:
		return domain.ConsumerEntered{Stamp: at, Participant: p}
	case queuemodel.ConsumerAdmitted:
		return domain.ConsumerAdmitted{Stamp: at, Participant: p, ExpiresAt: domain.Instant(e.ExpiresAt), ByHand: e.ByHand}
	case queuemodel.ConsumerCompleted:
		return domain.ConsumerCompleted{Stamp: at, Participant: p}
	case queuemodel.ConsumerExpired:
		return domain.ConsumerExpired{Stamp: at, Participant: p}
	case queuemodel.ConsumerLeft:
		return domain.ConsumerLeft{Stamp: at, Participant: p, From: standingOf(e.From)}
	case queuemodel.ConsumerDenied:
		return domain.ConsumerDenied{Stamp: at, Participant: p, From: standingOf(e.From), Reason: domain.DenyReason(e.Reason)}
	}
	panic(e.Type)
}

// standingOf translates a standing of the model.
func standingOf(s queuemodel.Standing) (is domain.Standing) {
	if err := is.UnmarshalJSON([]byte(strconv.Quote(string(s)))); err != nil {
		panic(err)
	}
	return is
}

// trace is a queue and its model. Both get the same commands.
type trace struct {
	t     *rapid.T
	h     *domain.History
	m     *queuemodel.Queue
	log   []domain.Event
	clock domain.Instant
}

func (p *trace) fork(h *domain.History) *trace {
	return &trace{p.t, h, p.m.Clone(), slices.Clone(p.log), p.clock}
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
	if now != max(p.clock, domain.Instant(p.m.Latest)) {
		t.Fatalf("at %s it counts as %s", p.clock, now)
	}
	due, err := domaintest.Advance(p.h, now)
	if err != nil {
		t.Fatal(err)
	}
	domaintest.Same(t, due, eventsOf(p.m.Settings, p.m.Advance(queuemodel.Time(now))))
	events, err := domaintest.Carry(p.h, now, cmd)
	want, code := p.predict(now, cmd)
	domaintest.Same(t, events, want)
	refusal, _ := errors.AsType[*domain.Error](err)
	if (refusal == nil) != (err == nil) || (refusal == nil) != (code == "") || refusal != nil && refusal.Code != code {
		t.Fatalf("%s: %T is answered %v, want %q", now, cmd, err, code)
	}
	p.log = slices.Concat(p.log, due, events)
	p.shows()
	p.wakes(now)
}

// predict carries out a command on the model. It returns the events that the command
// must lead to, followed by the events that are due because of them, or the code of the
// refusal.
func (p *trace) predict(now domain.Instant, cmd domain.Command) ([]domain.Event, domain.Code) {
	r, ok := asked(cmd)
	if !ok {
		return nil, ""
	}
	all, refusal := p.m.Decide(queuemodel.Time(now), r)
	events := eventsOf(p.m.Settings, all)
	for _, e := range all {
		p.m.Apply(e)
	}
	if len(all) > 0 {
		events = append(events, eventsOf(p.m.Settings, p.m.Advance(queuemodel.Time(now)))...)
	}
	return events, domain.Code(refusal)
}

func (p *trace) command() domain.Command {
	t := p.t
	one := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", "g", "h"}).Draw(t, "who")
	switch rapid.IntRange(0, 17).Draw(t, "command") {
	case 0:
		return domain.Leave{ConsumerID: one}
	case 1:
		return domain.Complete{ConsumerID: one}
	case 2:
		return domain.Deny{ConsumerID: one, Reason: rapid.SampledFrom(domain.DenyReasons()).Draw(t, "reason")}
	case 3:
		return domain.Admit{Count: rapid.Int64Range(1, 3).Draw(t, "count")}
	case 4:
		if rapid.IntRange(0, 9).Draw(t, "close") == 0 {
			return domain.Step{To: domain.StatusClosed}
		}
		return domain.Admit{ConsumerID: one}
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

// shows checks that the queue gives the same state of every consumer as the model.
func (p *trace) shows() {
	t, q := p.t, p.queue()
	tickets := map[string]bool{}
	for i, e := range p.m.Entries() {
		if newest, _ := p.m.Index(e.Consumer); newest != i {
			continue
		}
		got, ok := q.Place(e.Consumer)
		place, _ := p.m.Place(e.Consumer)
		want := domain.QueuePlace{
			QueueID: idOf(domain.KindQueue), ConsumerID: e.Consumer, Standing: standingOf(place.Standing),
			Position: place.Position, EstimatedWait: place.EstimatedWait,
			EnteredAt: domain.Instant(place.EnteredAt), AdmittedAt: domain.Instant(place.AdmittedAt), ExpiresAt: domain.Instant(place.ExpiresAt),
			CompletedAt: domain.Instant(place.CompletedAt), DenyReason: domain.DenyReason(place.Reason), Ticket: got.Ticket, PollAfter: got.PollAfter,
		}
		if !ok || got != want {
			t.Fatalf("%s is shown as\n%+v, %t; want\n%+v", e.Consumer, got, ok, want)
		}
		number, ok := domain.EntryOfTicket(got.Ticket, "made", idOf(domain.KindQueue))
		if !ok || number != e.Number || tickets[got.Ticket] {
			t.Fatalf("entry %d has the ticket %s, which is of %d", e.Number, got.Ticket, number)
		}
		tickets[got.Ticket] = true
	}
	// Entries that the completion of the queue denied still count as waiting.
	want := domain.Tally{
		Waiting: p.m.Waiting(), Admitted: p.m.Count(queuemodel.Admitted),
		Completed: p.m.Count(queuemodel.Completed), Expired: p.m.Count(queuemodel.Expired),
		Denied: p.m.Count(queuemodel.Denied), Left: p.m.Count(queuemodel.Left),
	}
	if q.Tally != want || !q.KnowsParticipants() {
		t.Fatalf("counted %+v, want %+v", q.Tally, want)
	}
	if _, ok := q.Participation("nobody"); ok {
		t.Fatal("who never entered takes part")
	}
}

// wakes checks that nothing is due before the wake, and something is due at the wake.
func (p *trace) wakes(now domain.Instant) {
	wake, m := p.queue().Wake(), p.m.Clone()
	if wake != 0 && wake <= now {
		p.t.Fatalf("%s: wakes at %s", now, wake)
	}
	late := wake - 1
	if wake == 0 {
		late = now.Add(10_000 * time.Hour)
	}
	if due := m.Advance(queuemodel.Time(max(now, late))); len(due) > 0 {
		p.t.Fatalf("%s: wakes at %s, but there is %s", now, wake, domaintest.Show(eventsOf(m.Settings, due)))
	}
	if wake != 0 && len(m.Advance(queuemodel.Time(wake))) == 0 {
		p.t.Fatalf("%s: wakes at %s for nothing", now, wake)
	}
}

// paced checks that no entry in the log is admitted twice, that the automatic
// admissions keep to the rates in force, and that they are at least 50 ms apart unless
// they are at the same time.
func (p *trace) paced(rate int64) {
	pace := &queuemodel.Pace{}
	pace.Rate(queuemodel.Time(at("09:00")), rate)
	var before domain.Instant // the automatic admission before
	twice := map[int64]bool{}
	for _, e := range p.log {
		switch e := e.(type) {
		case domain.Updated:
			if c, ok := e.Changed["admissionRate"]; ok {
				pace.Rate(queuemodel.Time(e.At), fieldValue("admissionRate", c.New))
			}
		case domain.ConsumerAdmitted:
			if twice[e.Entry] {
				p.t.Fatalf("entry %d is admitted twice", e.Entry)
			}
			twice[e.Entry] = true
			if e.ByHand {
				continue
			}
			if before != 0 && before != e.At && e.At < before+50 {
				p.t.Fatalf("admits at %s and at %s", before, e.At)
			}
			before = e.At
			window, minute := pace.Admit(queuemodel.Time(e.At))
			for _, w := range []queuemodel.Window{window, minute} {
				if !w.Kept() {
					p.t.Fatalf("%d are admitted from %s to %s, where %d can be", w.Count, domain.Instant(w.From), e.At, w.Most)
				}
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
	p := &trace{t: t, h: domaintest.Fold(t, domain.KindQueue, log), log: log, clock: at("09:00"), m: modelOf(capacity, rate, session)}
	all := []*trace{p}
	for range rapid.IntRange(0, 60).Draw(t, "commands") {
		i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
		if len(all) < 3 && rapid.IntRange(0, 20).Draw(t, "fork") == 0 {
			// The original and the fork both continue.
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

// TestQueue_doesWhatThePlainModelDoes sends random commands to queues and their forks.
// It compares every event, refusal, position, ticket and wake with the model's.
// Replaying the log gives the same state, even after the log was stored and read.
func TestQueue_doesWhatThePlainModelDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, playQueue)
}

func FuzzQueue(f *testing.F) { f.Fuzz(rapid.MakeFuzz(playQueue)) }

// TestQueue_plantedFaultsAreRefused puts a fault at each suitable place of random logs.
// Replaying such a log must fail at that place or later.
func TestQueue_plantedFaultsAreRefused(t *testing.T) {
	t.Parallel()
	planted := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		log := queueOf(2, 60, 2)
		p := &trace{t: t, h: domaintest.Fold(t, domain.KindQueue, log), log: log, clock: at("09:00"), m: modelOf(2, 60, 2)}
		for range rapid.IntRange(0, 40).Draw(t, "commands") {
			p.step()
		}
		end, err := domaintest.Advance(p.h, domain.Instant(max(p.m.CloseAt, p.m.Latest)).Add(time.Hour))
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

// faults returns logs that begin with before and have a fault in the place of e.
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
		// The fault is planted only if the pace decided the time of the admission. The
		// time may also come from the entry of a consumer.
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
		// Every later event has a time at or after the end of the session, so one of
		// them is refused. The last is the end of the queue.
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

// refusedAt returns the index of the first event that the rules refuse, or -1.
func refusedAt(log []domain.Event) int {
	q := domain.NewAggregate(domain.KindQueue)
	for i, e := range log {
		if q.Evolve(e) != nil {
			return i
		}
	}
	return -1
}
