package domain_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// TestLaws sends random commands to distributions of each kind, with a clock that
// jumps. After each command it checks the laws that always hold.
func TestLaws(t *testing.T) {
	t.Parallel()
	for _, k := range domain.Kinds() {
		t.Run(string(k), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { live(t, k) })
		})
	}
}

func FuzzLaws(f *testing.F) {
	f.Fuzz(rapid.MakeFuzz(func(t *rapid.T) { live(t, rapid.SampledFrom(domain.Kinds()).Draw(t, "kind")) }))
}

// TestLaws_organization sends random commands to an organization, likewise.
func TestLaws_organization(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := domain.NewHistory(orgID.Stream())
		l := &life{t: t, kind: domain.KindOrganization, h: h, told: h.Fork(), clock: at("08:00")}
		l.carry(domain.CreateOrganization{ID: orgID, Name: "Acme", TimeZone: "Europe/Berlin", CurrencyCode: "EUR"})
		for range rapid.IntRange(0, 25).Draw(t, "commands") {
			l.clock = l.clock.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 60_000, 600_000, 3_600_000, -1, -7_200_000}).Draw(t, "jump")) * time.Millisecond)
			l.carry(randomOrganizationCommand(t))
		}
		if got := domaintest.Fold(t, domain.KindOrganization, l.log); !reflect.DeepEqual(got.Aggregate, l.h.Aggregate) || got.Changed != l.h.Changed {
			t.Fatalf("replayed\n%+v, live\n%+v", got.Aggregate, l.h.Aggregate)
		}
	})
}

// keysLast checks that a key which has ended does not change and never works again, and
// that no key works after its expiry.
func (l *life) keysLast(now domain.Instant, was, is *domain.Organization, e domain.Event) {
	for id, before := range was.Keys {
		after := is.Keys[id]
		ended := before.RevokedAt != 0 || before.Expired
		if ended && (after != before || after.Works(0)) {
			l.t.Fatalf("%s: %T changed a key that has ended from %+v to %+v", now, e, before, after)
		}
		if after.Works(now) && after.ExpiresAt != 0 && after.ExpiresAt <= now {
			l.t.Fatalf("%s: %+v works", now, after)
		}
	}
}

func randomOrganizationCommand(t *rapid.T) domain.Command {
	id := domain.ID(rapid.SampledFrom([]string{"key_1", "key_2", "key_3", "key_4", "key_5"}).Draw(t, "key"))
	switch rapid.IntRange(0, 5).Draw(t, "command") {
	case 0:
		return domain.RevokeKey{KeyID: id, EvenLast: rapid.Bool().Draw(t, "even last")}
	case 1:
		return domain.Advance{}
	case 2:
		f := domain.Fields{}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"name", "timeZone", "currencyCode", "id"}), 0, 3, rapid.ID).Draw(t, "fields") {
			f[name] = json.RawMessage(rapid.SampledFrom(someValues[name]).Draw(t, name))
		}
		return domain.Update{Fields: f}
	}
	f := fields(`{"level": "secret"}`)
	if id > "key_3" {
		f = fields(`{"level": "publishable"}`)
	}
	f["expiresAt"] = json.RawMessage(expand(rapid.SampledFrom(someTimes).Draw(t, "expiresAt")))
	return domain.CreateKey{KeyID: id, Fields: f, Random: string(id)}
}

// live takes a distribution through a random life.
func live(t *rapid.T, k domain.Kind) {
	h := domain.NewHistory(string(k) + "-1")
	l := &life{t: t, kind: k, h: h, told: h.Fork(), clock: at("08:00")}
	l.carry(randomCreate(t, k))
	for range rapid.IntRange(0, 25).Draw(t, "commands") {
		l.clock = l.clock.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 1, 60_000, 600_000, 3_600_000, 3_600_000, 20_000_000, -1, -60_000, -7_200_000}).Draw(t, "jump")) * time.Millisecond)
		l.carry(randomCommand(t, k))
	}
	l.replay()
}

// life is a distribution, what happened to it, and what its clock shows.
type life struct {
	t     *rapid.T
	kind  domain.Kind
	h     *domain.History
	log   []domain.Event
	told  *domain.History // knows what happened from the events alone
	clock domain.Instant
}

func (l *life) distribution() domain.Distribution { return l.h.Aggregate.(domain.Distribution) }

func (l *life) carry(cmd domain.Command) {
	t := l.t
	now := l.h.At(l.clock)
	l.advance(now)
	l.pure(now, cmd)

	fork := l.h.Fork()
	events, err := domaintest.Carry(l.h, now, cmd)
	var refusal *domain.Error
	if err != nil && !errors.As(err, &refusal) {
		t.Fatalf("%s: %T is a fault: %v", now, cmd, err)
	}
	if err != nil && !domaintest.SameState(fork, l.h) {
		t.Fatalf("%s: a refusal left\n%+v, and found\n%+v", now, l.h.Aggregate, fork.Aggregate)
	}
	if !domaintest.SameState(fork, l.told) {
		t.Fatalf("%s: %T changed a fork to\n%+v, from\n%+v", now, cmd, fork.Aggregate, l.told.Aggregate)
	}
	l.append(now, events)
	l.settled(now)

	if again, err := domaintest.Carry(l.h.Fork(), now, cmd); len(again) > 0 {
		t.Fatalf("%s: %T a second time led to %s, %v", now, cmd, domaintest.Show(again), err)
	}
	if l.kind.Distribution() {
		l.putItself(now)
		l.readOnly()
	}
}

// advance does what is due at now, all at once and in two parts, and compares the
// events. Automatic admissions are not compared: each is dated when it is decided, so
// the two ways differ.
func (l *life) advance(now domain.Instant) {
	stop := domain.Instant(rapid.Int64Range(0, int64(max(0, now-l.h.At(0)))).Draw(l.t, "stop")) + l.h.At(0)
	inTwo := l.h.Fork()
	parts, err1 := domaintest.Advance(inTwo, stop)
	rest, err2 := domaintest.Advance(inTwo, now)
	events, err := domaintest.Advance(l.h, now)
	if err != nil || err1 != nil || err2 != nil {
		l.t.Fatalf("advance: %v, %v, %v", err, err1, err2)
	}
	if parts = append(parts, rest...); !slices.ContainsFunc(slices.Concat(parts, events), automatic) {
		domaintest.Same(l.t, parts, events)
	}
	l.append(now, events)
	l.settled(now)
}

func automatic(e domain.Event) bool {
	a, ok := e.(domain.ConsumerAdmitted)
	return ok && !a.ByHand
}

// settled checks that nothing is due at now or before.
func (l *life) settled(now domain.Instant) {
	for _, when := range []domain.Instant{now, l.h.At(0), 0} {
		if more, err := domaintest.Advance(l.h.Fork(), when); len(more) > 0 || err != nil {
			l.t.Fatalf("%s: still due at %s: %s, %v", now, when, domaintest.Show(more), err)
		}
	}
	wake := l.h.Aggregate.Wake()
	if wake != 0 && wake <= now {
		l.t.Fatalf("%s: wakes at %s", now, wake)
	}
	// Nothing is due before the wake, and something is due at the wake.
	late := wake - 1
	if wake == 0 {
		late = now.Add(10_000 * time.Hour)
	}
	if more, err := domaintest.Advance(l.h.Fork(), late); len(more) > 0 || err != nil {
		l.t.Fatalf("%s: wakes at %s, but at %s: %s, %v", now, wake, late, domaintest.Show(more), err)
	}
	if wake != 0 {
		if more, err := domaintest.Advance(l.h.Fork(), wake); len(more) == 0 || err != nil || more[0].When() != max(wake, l.h.At(0)) {
			l.t.Fatalf("%s: at %s: %s, %v", now, wake, domaintest.Show(more), err)
		}
	}
}

// pure checks that Decide changes nothing and gives the same result each time.
func (l *life) pure(now domain.Instant, cmd domain.Command) {
	first, err1 := l.h.Aggregate.Decide(now, cmd)
	second, err2 := l.h.Aggregate.Decide(now, cmd)
	domaintest.Same(l.t, second, first)
	if fmt.Sprint(err1) != fmt.Sprint(err2) {
		l.t.Fatalf("%T is answered %v, then %v", cmd, err1, err2)
	}
	if !domaintest.SameState(l.h, l.told) {
		l.t.Fatalf("deciding %T left\n%+v, and found\n%+v", cmd, l.h.Aggregate, l.told.Aggregate)
	}
}

// append adds events to the log, and checks each against the state before it.
func (l *life) append(now domain.Instant, events []domain.Event) {
	for _, e := range events {
		was, is, latest := l.told.Fork().Aggregate, l.told.Aggregate, l.told.At(0)
		if e.When() < latest || e.When() > now {
			l.t.Fatalf("%s: %T at %s, after %s", now, e, e.When(), latest)
		}
		if err := is.Evolve(e); err != nil {
			l.t.Fatalf("%T: %v", e, err)
		}
		l.told.Head.Revision++
		if domain.ChangesObject(e) {
			l.told.Changed = l.told.Head.Revision
		}
		// This holds even between the events of one append, because a node may find the
		// object in this state.
		latest, wake := l.told.At(0), is.Wake()
		if due, err := is.Decide(latest, domain.Advance{}); err != nil || (len(due) > 0) != (wake != 0 && wake <= latest) {
			l.t.Fatalf("behind %T of %s it wakes at %s, and due are %s, %v", e, latest, wake, domaintest.Show(due), err)
		}
		switch is := is.(type) {
		case domain.Distribution:
			l.moves(was.(domain.Distribution), is, e)
		case *domain.Organization:
			l.keysLast(latest, was.(*domain.Organization), is, e)
		}
	}
	l.log = append(l.log, events...)
	if !domaintest.SameState(l.h, l.told) {
		l.t.Fatalf("the events tell\n%+v, live is\n%+v", l.told.Aggregate, l.h.Aggregate)
	}
}

// moves checks what an event does to a distribution.
func (l *life) moves(was, d domain.Distribution, e domain.Event) {
	status := was.Shared().Status
	before, after := object(l.t, was), object(l.t, d)
	if is := d.Shared().Status; rank(is) < rank(status) && (status != domain.StatusScheduled || is != domain.StatusDraft) {
		l.t.Fatalf("from %s to %s", status, is)
	} else if rank(is) > rank(status)+1 && status != "" && is != domain.StatusSettled && is != domain.StatusCompleted {
		l.t.Fatalf("from %s straight to %s", status, is)
	}
	if u, ok := e.(domain.Updated); ok {
		for name := range before {
			was, is := before[name], after[name]
			if c, ok := u.Changed[name]; ok {
				was, is = c.Old, c.New
				if bytes.Equal(was, is) {
					l.t.Fatalf("%s: %s changed to itself", name, was)
				}
			} else if name == "updatedAt" {
				continue
			}
			if !bytes.Equal(was, before[name]) || !bytes.Equal(is, after[name]) {
				l.t.Fatalf("%s: the event says %s to %s, shown was %s to %s", name, was, is, before[name], after[name])
			}
		}
	}
}

// putItself checks that a PUT of the object that a GET returned writes nothing.
func (l *life) putItself(now domain.Instant) {
	events, err := domaintest.Carry(l.h.Fork(), now, domain.Update{Fields: object(l.t, l.distribution())})
	over := rank(l.distribution().Shared().Status) > rank(domain.StatusOpen)
	gone := l.distribution().Shared().Status == "" || l.distribution().Shared().Deleted
	if len(events) > 0 || (err != nil) != (over || gone) {
		l.t.Fatalf("a PUT of itself led to %s, %v", domaintest.Show(events), err)
	}
}

// readOnly checks that the object has the fields of its kind, in order.
func (l *life) readOnly() {
	dec := json.NewDecoder(bytes.NewReader(l.distribution().AppendJSON(nil)))
	var names []string
	if _, err := dec.Token(); err != nil {
		l.t.Fatal(err)
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			l.t.Fatal(err)
		}
		names = append(names, name.(string))
	}
	if want := slices.Concat(leading, own[l.kind], trailing); !slices.Equal(names, want) {
		l.t.Fatalf("fields\n got %s\nwant %s", names, want)
	}
}

// replay checks that replaying the log gives the same state, even after the log was
// stored and read.
func (l *life) replay() {
	if got := domaintest.Fold(l.t, l.kind, l.log); !domaintest.SameState(got, l.h) {
		l.t.Fatalf("replayed\n%+v, live\n%+v", got.Aggregate, l.h.Aggregate)
	}
	for _, escape := range []bool{false, true} {
		read := domaintest.Fold(l.t, l.kind, stored(l.t, l.log, escape))
		got, want := object(l.t, read.Aggregate.(domain.Distribution)), object(l.t, l.distribution())
		// The strings in metadata may be escaped differently.
		for _, o := range []domain.Fields{got, want} {
			var v any
			if err := json.Unmarshal(o["metadata"], &v); err != nil {
				l.t.Fatal(err)
			}
			o["metadata"] = fmt.Append(nil, v)
		}
		if !reflect.DeepEqual(got, want) {
			l.t.Fatalf("stored\n%s, live\n%s", got, want)
		}
	}
}

// object are the fields that an admin sees.
func object(t *rapid.T, d domain.Distribution) domain.Fields {
	var f domain.Fields
	if err := json.Unmarshal(d.AppendJSON(nil), &f); err != nil {
		t.Fatalf("%s: %v", d.AppendJSON(nil), err)
	}
	return f
}

// The fields of the kinds, as an admin sees them.
var (
	leading = []string{
		"id", "type", "organizationId", "sequenceId", "name", "timeZone", "status", "openAt", "closeAt", "encryptionSeed", "metadata",
	}
	own = map[domain.Kind][]string{
		domain.KindQueue: {"maxCapacity", "admissionRate", "sessionDurationSeconds"},
		domain.KindDraw: {
			"drawAt", "winnerCount", "maxEntries", "claimWindowSeconds", "backfill", "entropySource", "seedCommitment", "entriesRoot", "entryCount",
		},
		domain.KindAuction: {
			"settleAt", "startingBid", "minimumIncrement", "reservePrice", "buyNowPrice", "currencyCode", "winnerCount", "auctionType",
			"autoExtendSeconds", "maxExtensions", "startPrice", "floorPrice", "priceDropAmount", "priceDropIntervalSeconds",
		},
	}
	trailing = []string{"createdAt", "updatedAt"}
)

var (
	someTimes = []string{
		`null`, `"@07:00"`, `"@09:00"`, `"@10:00"`, `"@11:00"`, `"@13:00"`, `"2026-12-15T12:00:00"`, `"2026-12-15T13:30:00.5+02:00"`, `"2026-12-16T00:00:00Z"`, `"soon"`,
	}
	someAmounts = []string{`null`, `1`, `5`, `5.5`, `"10.00"`, `100`, `0.001`, `1e3`}
	someCounts  = []string{`null`, `1`, `2`, `60`, `2147483647`, `0`, `"1"`}
	someValues  = map[string][]string{
		"sequenceId":     {`"drop-1"`, `"drop-1"`, `"drop-2"`, `null`},
		"name":           {`null`, `""`, `"a"`, `"<b> & \u2028 \"é\""`, `7`},
		"timeZone":       {`"UTC"`, `"Europe/Berlin"`, `"Asia/Tokyo"`, `"Mars"`, `null`},
		"encryptionSeed": {`"made"`, `"made"`, `"<seed>"`, `""`},
		"metadata":       {`null`, `{}`, `{"a": "<&>", "b": [1.0, 1e2, null]}`, `{"b": [1.0, 1e2, null], "a": "\u003c&>"}`, `[]`},
		"openAt":         someTimes, "closeAt": someTimes, "drawAt": someTimes, "settleAt": someTimes,
		"backfill":      {`true`, `false`, `null`},
		"entropySource": {`null`, `"beacon"`, `"drand <1>"`, `""`},
		"currencyCode":  {`"USD"`, `"JPY"`, `"KWD"`, `"XXX"`, `null`},
		"auctionType":   {`"english"`, `"dutch"`, `"sealed"`},
		"status":        {`"DRAFT"`, `"OPEN"`},
		"id":            {`"x"`}, "type": {`"queue"`, `"draw"`}, "entryCount": {`0`, `1`}, "bogus": {`1`},
		"startingBid": someAmounts, "minimumIncrement": someAmounts, "reservePrice": someAmounts, "buyNowPrice": someAmounts,
		"startPrice": someAmounts, "floorPrice": someAmounts, "priceDropAmount": someAmounts,
	}
)

// randomFields gives a few fields values that are often, but not always, right.
func randomFields(t *rapid.T, k domain.Kind) domain.Fields {
	names := slices.Concat([]string{"openAt", "openAt", "closeAt", "closeAt"}, leading[3:], own[k]) // the schedule more often
	if rapid.IntRange(0, 9).Draw(t, "odd") == 0 {
		names = append(names, "id", "type", "bogus")
	}
	f := domain.Fields{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 3, rapid.ID).Draw(t, "fields") {
		values := someValues[name]
		if values == nil {
			values = someCounts
		}
		f[name] = json.RawMessage(expand(rapid.SampledFrom(values).Draw(t, name)))
	}
	return f
}

func randomCreate(t *rapid.T, k domain.Kind) domain.Command {
	c := create(k, `{}`)
	if k == domain.KindAuction && rapid.Bool().Draw(t, "dutch") {
		maps.Copy(c.Fields, fields(`{"auctionType": "dutch", "startPrice": 100, "priceDropAmount": 1, "priceDropIntervalSeconds": 1}`))
	}
	if rapid.Bool().Draw(t, "planned") {
		maps.Copy(c.Fields, fields(`{"openAt": "@09:00", "closeAt": "@11:00"}`))
	}
	maps.Copy(c.Fields, randomFields(t, k))
	return c
}

func randomCommand(t *rapid.T, k domain.Kind) domain.Command {
	switch rapid.IntRange(0, 15).Draw(t, "command") {
	case 0:
		return randomCreate(t, k)
	case 1:
		return domain.Delete{}
	case 2, 3, 4:
		return domain.Step{To: rapid.SampledFrom(slices.Concat(domain.Statuses(), []domain.Status{domain.StatusOpen, domain.StatusOpen, domain.StatusClosed})).Draw(t, "to")}
	case 5:
		return supply(rapid.SampledFrom([]string{"beef", "dead", ""}).Draw(t, "value"))
	case 6:
		return domain.Advance{}
	case 7, 8, 9, 10, 11:
		return randomParticipation(t)
	}
	return domain.Update{Fields: randomFields(t, k)}
}

// randomParticipation is a command that a consumer gives, or an admin gives about a
// consumer. An admission by count is not among them, because its repeat admits other
// consumers: see TestQueue_doesWhatThePlainModelDoes.
func randomParticipation(t *rapid.T) domain.Command {
	id := rapid.SampledFrom([]string{"a", "b", "c", "d", "e", "f", ""}).Draw(t, "consumer")
	switch rapid.IntRange(0, 8).Draw(t, "participation") {
	case 0:
		return domain.Leave{ConsumerID: id}
	case 1:
		return domain.Admit{ConsumerID: id}
	case 2:
		return domain.Complete{ConsumerID: id}
	case 3:
		return domain.Deny{ConsumerID: id, Reason: rapid.SampledFrom([]domain.DenyReason{domain.DenyAdmin, domain.DenyQueueClosed}).Draw(t, "reason")}
	}
	return domain.Enter{ConsumerID: id}
}
