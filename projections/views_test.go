package projections

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// drawLog draws a log with events of every kind, also ones that the rules do not allow.
func drawLog(t *rapid.T, l *testLog) {
	pick := func(label string, n int) int { return rapid.IntRange(0, n-1).Draw(t, label) }
	var orgs, keys, ids []domain.ID
	for range rapid.IntRange(1, 60).Draw(t, "steps") {
		switch op := pick("op", 12); {
		case op == 0 || len(orgs) == 0:
			id := l.id("org")
			orgs = append(orgs, id)
			l.try(id.Stream(), domain.CreateOrganization{ID: id, Name: "Org", TimeZone: "UTC", CurrencyCode: "JPY"})
		case op == 1:
			keys = append(keys, l.id("key"))
			f := fields("level", `"secret"`, "expiresAt", drawTime(t, l)).Fields
			l.try(orgs[pick("org", len(orgs))].Stream(), domain.CreateKey{
				KeyID: keys[len(keys)-1], Fields: f, Random: string(rune('a' + pick("random", 4))),
			})
		case op == 2 && len(keys) > 0:
			l.try(orgs[pick("org", len(orgs))].Stream(), domain.RevokeKey{KeyID: keys[pick("key", len(keys))], EvenLast: true})
		case op <= 5 || len(ids) == 0:
			ids = append(ids, drawDistribution(t, l, orgs[pick("org", len(orgs))]))
		case op == 6:
			l.now = l.now.Add(1000 * 1000 * 1000)
			for _, id := range slices.Concat(orgs, ids) {
				l.try(id.Stream(), domain.Advance{})
			}
			l.try(orgs[pick("org", len(orgs))].Stream(), fields("name", `"renamed"`))
			l.try(domain.SigningStream, domain.MakeSigningKey{Secret: [32]byte{byte(len(l.events))}, OnlyFirst: pick("only first", 2) == 0})
		case op == 7:
			l.try(ids[pick("id", len(ids))].Stream(), domain.Delete{})
		case op == 8:
			to := rapid.SampledFrom(domain.Statuses()).Draw(t, "to")
			l.try(ids[pick("id", len(ids))].Stream(), domain.Step{To: to})
		case op == 9:
			l.record(rapid.SampledFrom([]string{"claim-x", "elsewhere-1", "$settings", "seal-check"}).Draw(t, "foreign"), domain.Deleted{})
		case op == 10 && pick("break", 3) == 0:
			breakStream(t, l, ids[pick("id", len(ids))].Stream())
		default:
			drawUpdate(t, l, ids[pick("id", len(ids))])
		}
	}
}

func drawName(t *rapid.T) string {
	return rapid.SampledFrom([]string{"null", `"b"`, `"B<&>"`, `"aä"`, `"AÄ"`, `""`, `"ab c\u2028"`}).Draw(t, "name")
}

func drawTime(t *rapid.T, l *testLog) string {
	s := rapid.IntRange(-1, 4).Draw(t, "seconds")
	if s < 0 {
		return "null"
	}
	return instant(l.now + domain.Instant(s)*1000)
}

func drawDistribution(t *rapid.T, l *testLog, org domain.ID) domain.ID {
	k := rapid.SampledFrom(domain.Kinds()).Draw(t, "kind")
	id := l.id(k.IDPrefix())
	f := fields("sequenceId", rapid.SampledFrom([]string{`"s"`, `"t"`}).Draw(t, "sequence"),
		"name", drawName(t), "openAt", drawTime(t, l), "metadata", `{"<a>":["&\u2028",1.50]}`).Fields
	end := json.RawMessage(instant(l.now + 5000))
	switch k {
	case domain.KindDraw:
		f["drawAt"], f["winnerCount"] = end, json.RawMessage("3")
	case domain.KindAuction:
		f["settleAt"], f["startingBid"] = end, json.RawMessage("100")
	case domain.KindQueue, domain.KindOrganization, domain.KindClaim, domain.KindSeal, domain.KindSink, domain.KindSigning, domain.KindClock:
		f["closeAt"], f["admissionRate"] = end, json.RawMessage("60")
	}
	c := domain.Create{
		ID: id, OrganizationID: org, Fields: f,
		Defaults: domain.Defaults{TimeZone: "Europe/Berlin", CurrencyCode: "USD"}, Seed: "seed of " + string(id),
	}
	if rapid.Bool().Draw(t, "later") {
		l.now++
	}
	if err := l.send(id.Stream(), c); err != nil {
		t.Fatal(err)
	}
	return id
}

func drawUpdate(t *rapid.T, l *testLog, id domain.ID) {
	l.try(id.Stream(), fields("name", drawName(t)))
	l.try(id.Stream(), fields("openAt", drawTime(t, l)))
	l.try(id.Stream(), fields("metadata", rapid.SampledFrom([]string{"null", `{"x":"<>"}`}).Draw(t, "metadata")))
}

// breakStream appends an event that no correct engine writes.
func breakStream(t *rapid.T, l *testLog, stream string) {
	switch rapid.IntRange(0, 3).Draw(t, "how") {
	case 0:
		l.record(stream, domain.Settled{Stamp: domain.Stamp{At: 946_684_800_000}})
	case 1:
		r := l.record(stream, domain.Updated{Stamp: domain.Stamp{At: l.now.Add(1e15)}})
		r.RawMetadata = bytes.Replace(r.RawMetadata, []byte(`"commandId":"`), []byte(`"commandId":"x`), 1)
	case 2:
		r := l.record(stream, domain.Opened{Stamp: domain.Stamp{At: l.now}})
		r.Event, r.Undecoded = nil, errors.New("unknown type")
	case 3:
		r := l.record(stream, domain.Opened{Stamp: domain.Stamp{At: l.now}})
		r.Revision++
	}
}

// Views that have handled the same events are equal, whatever saves, restarts and repeated
// events there were.
func TestViews_laws(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		l := newLog()
		drawLog(t, l)
		at := filepath.Join(directory, "live")
		if err := os.RemoveAll(at); err != nil {
			t.Fatal(err)
		}
		live := openViews(t, at)
		for i, e := range l.events {
			live.Follow(e)
			switch rapid.IntRange(0, 29).Draw(t, "then") {
			case 0:
				save(t, live)
			case 1: // delivered again
				before := live.Digest()
				live.Follow(l.events[rapid.IntRange(0, i).Draw(t, "again")])
				if live.Digest() != before {
					t.Fatal("an event that was handled before changed something")
				}
			case 2: // stopped in good order
				save(t, live)
				before, position := live.Digest(), live.Position()
				closeViews(t, live)
				live = openViews(t, at)
				if live.Digest() != before || live.Position() != position {
					t.Fatal("the file differs from the views that wrote it")
				}
				for _, e := range l.events[:i+1] {
					live.Follow(e) // the last one may have been held back
				}
			case 3: // killed: the states that were not saved are followed again
				closeViews(t, live)
				live = openViews(t, at)
				for _, e := range l.events[:i+1] {
					live.Follow(e)
				}
			}
		}
		defer closeViews(t, live)

		rebuilt := emptyViews()
		for _, e := range l.events {
			rebuilt.Follow(e)
		}
		if live.Position() != rebuilt.Position() {
			t.Fatalf("at %v, rebuilt at %v", live.Position(), rebuilt.Position())
		}
		if live.Digest() != rebuilt.Digest() {
			t.Fatal("a rebuild differs from the live views")
		}
	})
}

// A queue that is created with an opening time is scheduled in the same append, so it is never
// visible as a draft.
func TestViews_showTogetherWhatWasAppendedTogether(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	v := emptyViews()
	follow(v, l)
	before := v.Position()
	id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2198-01-01T00:00:00Z"`})
	appended := l.events[len(l.events)-2:]
	for range 2 { // it may come again
		v.Follow(appended[0])
		if _, err := v.Get(org, id); !errors.Is(err, ErrNotFound) || v.Position() != before {
			t.Fatalf("the first of two events is visible: %v", err)
		}
	}
	v.Passed(appended[0].Position)
	if _, err := v.Get(org, id); !errors.Is(err, ErrNotFound) || v.reached(appended[0].Position) {
		t.Fatalf("the first of two events is visible, or its position is reached: %v", err)
	}
	v.Follow(appended[1])
	row, err := v.Get(org, id)
	if err != nil || row.Changed != 1 || row.Distribution.Shared().Status != domain.StatusScheduled || v.Position() != appended[1].Position {
		t.Fatalf("%+v, %v", row, err)
	}
}

// Another program, or a crash, may leave an append incomplete. It becomes visible when it is
// known that no more of its events come.
func TestViews_anIncompleteAppendBecomesVisible(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]func(*Views, *testLog, domain.Position){
		"before another stream's event": func(v *Views, l *testLog, _ domain.Position) { v.Follow(l.record("elsewhere-1", domain.Deleted{})) },
		"before a later position": func(v *Views, _ *testLog, p domain.Position) {
			v.Passed(domain.Position{Commit: p.Commit + 1, Prepare: p.Prepare + 1})
		},
		"when the log ends there": func(v *Views, _ *testLog, p domain.Position) {
			v.Passed(p)
			v.CaughtUp()
			v.CaughtUp()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLog()
			org := l.organization(t)
			id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2198-01-01T00:00:00Z"`})
			last := len(l.events) - 1
			v := emptyViews()
			for _, e := range l.events[:last] {
				v.Follow(e)
			}
			after(v, l, l.events[last-1].Position)
			if row, err := v.Get(org, id); err != nil || row.Changed != 0 || !v.reached(l.events[last-1].Position) {
				t.Errorf("%+v, %v", row, err)
			}
			if wake := v.wake(id.Stream()).At; wake == 0 || wake > l.now {
				t.Errorf("its wake is at %s", wake)
			}
		})
	}
}

// Events about participants may come in thousands. They become visible as soon as no more
// events are at hand, and a visible state does not change.
func TestFollow_participantsBecomeVisibleWhenNoMoreEventsAreAtHand(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.busyQueue(t, org)
	other := l.create(t, org, domain.KindQueue, nil)
	l.must(t, id, domain.Enter{ConsumerID: "last"})
	v := emptyViews()
	type seen struct {
		state *state
		tally domain.Tally
		at    int
	}
	var visible []seen
	held := 0
	for i, r := range l.events {
		v.Follow(r)
		current := v.indexes.slotOf(id.Stream()).current
		if v.Position() != r.Position {
			held++
		}
		if held%7 == 3 || r.Stream == other.Stream() || i == len(l.events)-1 {
			v.Passed(r.Position)
			if current = v.indexes.slotOf(id.Stream()).current; !current.partial() && v.Position() != r.Position {
				t.Fatalf("%s@%d is not visible", r.Stream, r.Revision)
			}
		}
		if q, ok := current.distribution().(*domain.Queue); ok && (len(visible) == 0 || visible[len(visible)-1].state != current) {
			visible = append(visible, seen{current, q.Tally, i})
		}
	}
	if held < 100 || len(visible) < 30 {
		t.Fatalf("held back %d times, %d states were visible", held, len(visible))
	}
	for _, s := range visible {
		want := domain.NewHistory(id.Stream())
		for _, r := range l.events[:s.at+1] {
			if r.Stream == want.Stream && want.Head.Revision < s.state.history.Head.Revision {
				if err := want.Apply(r); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !domaintest.SameState(s.state.history, want) || s.state.distribution().(*domain.Queue).Tally != s.tally {
			t.Fatalf("the visible state after event %d has changed", s.at)
		}
	}
	// A queue with an endless run of events becomes visible after maxHeld events.
	v = emptyViews()
	for _, r := range l.events[:maxHeld+10] {
		v.Follow(r)
	}
	if d := v.indexes.slotOf(id.Stream()).current.distribution(); d == nil || d.Entries() < maxHeld-5 {
		t.Errorf("the visible state is %+v", d)
	}
}

// All queries may run while the log is followed and the file is written.
func TestViews_concurrency(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	hash := l.apiKey(t, org, "key_1", "first", 0)
	var ids []domain.ID
	for range 40 {
		l.now++
		ids = append(ids, l.create(t, org, domain.KindQueue, map[string]string{"name": `"a"`}))
	}
	for i, id := range ids {
		l.must(t, id, fields("name", `"b"`, "openAt", `"2100-01-01T00:00:00Z"`))
		if i%3 == 0 {
			l.must(t, id, domain.Delete{})
		}
	}
	v := openViews(t, filepath.Join(t.TempDir(), "views.db"))
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := v.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				for _, id := range ids {
					if row, err := v.Get(org, id); err == nil {
						row.JSON()
					}
				}
				for _, by := range sorts {
					if _, err := v.List(ListQuery{Organization: org, SortBy: by, Descending: true, Limit: 5, Search: "b"}); err != nil {
						t.Error(err)
					}
				}
				v.Credential(hash)
				v.Account(org)
				v.Organizations()
				v.Quarantined()
				v.Wakes(func(w domain.Wake) bool { return w.At > 0 })
				v.NewWakes()
				v.Digest()
			}
		})
	}
	go func() {
		for _, e := range l.events {
			v.Follow(e)
		}
	}()
	if err := v.WaitFor(t.Context(), l.events[len(l.events)-1].Position); err != nil {
		t.Error(err)
	}
	cancel()
	wg.Wait()
	closeViews(t, v)
}
