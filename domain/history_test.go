package domain_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// foreign is an event that no aggregate knows.
type foreign struct{ domain.Stamp }

// The rules in words, for the developer who has to find out what is wrong with a
// history.
const (
	ruleCreation   = "a stream begins with its creation, and has no other creation"
	ruleKind       = "an event belongs to its kind"
	ruleTime       = "time does not run backwards"
	ruleDeleted    = "nothing follows the deletion"
	ruleTransition = "the status moves forward, one step at a time"
	ruleDue        = "no step is taken before its time"
	ruleUpdate     = "the old values of an update are the present values"
	ruleFrozen     = "a frozen field does not change"
	ruleDelete     = "an active distribution is not deleted"
	ruleCommitment = "the revealed secret matches its commitment"
	ruleEntries    = "the frozen list holds every entry"
	ruleKeys       = "a key is made once and ends once"
	ruleLine       = "a consumer's standing changes as the queue's rules say"
	ruleTurn       = "nobody is admitted before a consumer who entered earlier and still waits"
	rulePace       = "automatic admission keeps to the rate"
	ruleCapacity   = "no more consumers wait than the capacity in force"
	ruleSession    = "a session ends at the time that its admission set"
	ruleUnfinished = "a queue is completed when nobody admitted is unfinished"
	ruleEntropy    = "entropy is supplied once, while CLOSED, to a draw that names a source"
)

// broken is a history whose last event, and no other, breaks a rule.
type broken struct {
	kind   domain.Kind
	events []domain.Event
	rule   string
}

func brokenHistories() map[string]broken {
	const queue, draw, auction, organization = domain.KindQueue, domain.KindDraw, domain.KindAuction, domain.KindOrganization
	all := map[string]broken{}
	for _, k := range domain.Kinds() {
		k := string(k)
		kind := domain.Kind(k)
		other := map[domain.Kind]domain.Kind{queue: draw, draw: auction, auction: queue}[kind]
		draft := list(created(kind, "08:00", times("", "11:00")))
		planned := list(created(kind, "08:00", times("09:00", "11:00")), scheduled("08:00"))
		open := list(planned, opened("09:00"))
		shut := list(open, closed(kind, "11:00"))
		over := list(shut, end(kind, "12:00"))
		wrongID := created(kind, "08:00", nil)
		switch e := wrongID.(type) {
		case *domain.QueueCreated:
			e.ID = idOf(other)
		case *domain.DrawCreated:
			e.ID = idOf(other)
		case *domain.AuctionCreated:
			e.ID = idOf(other)
		}
		add := func(name, rule string, events ...any) { all[k+": "+name] = broken{kind, list(events...), rule} }

		add("begins with an opening", ruleCreation, opened("09:00"))
		add("is created twice", ruleCreation, draft, created(kind, "08:00", nil))
		add("is created again after the deletion", ruleCreation, draft, deleted("08:10"), created(kind, "08:20", nil))
		add("begins as another kind", ruleKind, created(other, "08:00", nil))
		add("has the id of another kind", ruleKind, wrongID)
		add("has an unknown event", ruleKind, draft, foreign{stamp("08:10")})
		add("has an event of an organization", ruleKind, draft, domain.KeyRevoked{Stamp: stamp("08:10")})
		add("goes back in time", ruleTime, draft, deleted("07:59"))
		add("goes on after the deletion", ruleDeleted, draft, deleted("08:10"), updated("08:20", domain.CauseUpdate, `name null "x"`))
		add("is deleted twice", ruleDeleted, draft, deleted("08:10"), deleted("08:20"))
		add("is deleted while OPEN", ruleDelete, open, deleted("09:10"))
		add("is deleted while CLOSED", ruleDelete, shut, deleted("11:10"))

		add("is scheduled without openAt", ruleDue, draft, scheduled("08:10"))
		add("is scheduled twice", ruleTransition, planned, scheduled("08:10"))
		add("is scheduled once open", ruleTransition, open, scheduled("09:10"))
		add("goes back to DRAFT with openAt", ruleTransition, planned, unscheduled("08:10"))
		add("goes back to DRAFT from DRAFT", ruleTransition, draft, unscheduled("08:10"))
		add("is opened without openAt", ruleDue, draft, opened("08:10"))
		add("skips SCHEDULED", ruleTransition, planned[:1], opened("09:00"))
		add("is opened early", ruleDue, planned, opened("08:59"))
		add("is opened twice", ruleTransition, open, opened("09:10"))
		add("is closed early", ruleDue, open, closed(kind, "10:59"))
		add("is closed before it opened", ruleTransition, planned, closed(kind, "11:00"))
		add("is closed twice", ruleTransition, shut, closed(kind, "11:10"))
		add("opens again", ruleTransition, shut, opened("11:10"))
		add("ends before it was closed", ruleTransition, open, end(kind, "12:00")[:1])
		add("ends twice", ruleTransition, over, over[len(over)-1])

		add("changes an unknown field", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `nme null "x"`))
		add("changes the id", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `id "`+string(idOf(kind))+`" "x"`))
		add("changes sequenceId", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `sequenceId "drop-1" "x"`))
		add("changes encryptionSeed", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `encryptionSeed "made" "x"`))
		add("changes from what was not", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `name "y" "x"`))
		add("changes from what is not JSON", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `name nul "x"`))
		add("changes to what cannot be", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `timeZone "UTC" 7`))
		add("clears what is never null", ruleUpdate, draft, updated("08:10", domain.CauseUpdate, `timeZone "UTC" null`))
		add("changes openAt once open", ruleFrozen, open, updated("09:10", domain.CauseUpdate, `openAt "@09:00" "@10:00"`))
		add("changes openAt by hand once open", ruleFrozen, open, updated("09:10", domain.CauseHand, `openAt "@09:00" "@09:10"`))
		add("clears closeAt once open", ruleFrozen, open, updated("09:10", domain.CauseUpdate, `closeAt "@11:00" null`))
		add("moves closeAt into the past once open", ruleFrozen, open, updated("09:10", domain.CauseUpdate, `closeAt "@11:00" "@09:09"`))
		add("changes the name once closed", ruleFrozen, shut, updated("11:10", domain.CauseUpdate, `name null "x"`))
		add("changes the name by hand", ruleFrozen, draft, updated("08:10", domain.CauseHand, `name null "x"`))
		add("changes closeAt by hand before it opened", ruleFrozen, planned, updated("08:10", domain.CauseHand, `closeAt "@11:00" "@10:00"`))
		add("changes closeAt by hand once closed", ruleFrozen, shut, updated("11:10", domain.CauseHand, `closeAt "@11:00" "@11:10"`))
		add("changes closeAt by hand once over", ruleFrozen, over, updated("12:10", domain.CauseHand, `closeAt "@11:00" "@12:10"`))
	}
	add := func(name, rule string, kind domain.Kind, events ...any) {
		all[string(kind)+": "+name] = broken{kind, list(events...), rule}
	}
	manual := func(k domain.Kind) []domain.Event {
		return list(created(k, "08:00", times("09:00", "")), scheduled("08:00"), opened("09:00"))
	}
	add("is closed without closeAt", ruleDue, queue, manual(queue), closed(queue, "23:00"))
	add("without closeAt is closed before drawAt", ruleDue, draw, manual(draw), closed(draw, "11:59"))
	add("without closeAt is closed before settleAt", ruleDue, auction, manual(auction), closed(auction, "11:59"))

	drawClosed := list(manual(draw), closed(draw, "12:00"))
	early := list(created(draw, "08:00", times("09:00", "11:00")), scheduled("08:00"), opened("09:00"), closed(draw, "11:00"))
	add("is drawn before drawAt", ruleDue, draw, early, drawn("11:59", ""))
	add("is closed like a queue", ruleKind, draw, manual(draw), domain.Closed{Stamp: stamp("12:00")})
	add("is settled", ruleKind, draw, drawClosed, settled("12:00"))
	add("is completed before it is drawn", ruleTransition, draw, drawClosed, completed("12:00"))
	add("freezes entries that nobody made", ruleEntries, draw, manual(draw), domain.DrawClosed{Stamp: stamp("12:00"), EntriesRoot: emptyRoot, EntryCount: 1})
	add("reveals another secret", ruleCommitment, draw, drawClosed, domain.Drawn{Stamp: stamp("12:00"), Secret: strings.Repeat("00", 32)})
	add("reveals what is not hex", ruleCommitment, draw, drawClosed, domain.Drawn{Stamp: stamp("12:00"), Secret: "zz"})
	add("changes entropySource once open", ruleFrozen, draw, manual(draw), updated("09:10", domain.CauseUpdate, `entropySource null "x"`))
	add("changes drawAt by hand before the close", ruleFrozen, draw, manual(draw), updated("09:10", domain.CauseHand, `drawAt "@12:00" "@11:00"`))
	add("changes drawAt once closed", ruleFrozen, draw, early, updated("11:10", domain.CauseUpdate, `drawAt "@12:00" "@13:00"`))
	add("clears drawAt", ruleUpdate, draw, list(created(draw, "08:00", nil)), updated("08:10", domain.CauseUpdate, `drawAt "@12:00" null`))

	beacon := created(draw, "08:00", times("09:00", "11:00")).(*domain.DrawCreated)
	beacon.EntropySource = new("beacon")
	supplied := domain.EntropySupplied{Stamp: stamp("11:10"), Value: "beef"}
	awaiting := list(beacon, scheduled("08:00"), opened("09:00"), closed(draw, "11:00"))
	add("gets entropy without a source", ruleEntropy, draw, early, supplied)
	add("gets entropy while OPEN", ruleEntropy, draw, awaiting[:3], supplied)
	add("gets entropy twice", ruleEntropy, draw, awaiting, supplied, supplied)
	add("is drawn without its entropy", ruleEntropy, draw, awaiting, drawn("12:00", ""))
	add("changes drawAt by hand without its entropy", ruleFrozen, draw, awaiting, updated("11:10", domain.CauseHand, `drawAt "@12:00" "@11:10"`))

	bidding := list(created(auction, "08:00", times("09:00", "11:00")), scheduled("08:00"), opened("09:00"))
	add("is settled before settleAt", ruleDue, auction, bidding, closed(auction, "11:00"), settled("11:59"))
	add("is completed", ruleKind, auction, bidding, closed(auction, "11:00"), completed("11:00"))
	add("is closed like a draw", ruleKind, auction, bidding, closed(draw, "11:00"))
	add("changes auctionType once open", ruleFrozen, auction, bidding, updated("09:10", domain.CauseUpdate, `auctionType "english" "dutch"`))
	add("changes currencyCode once open", ruleFrozen, auction, bidding, updated("09:10", domain.CauseUpdate, `currencyCode "USD" "EUR"`))
	add("is drawn", ruleKind, queue, list(created(queue, "08:00", nil)), drawn("12:00", ""))
	add("is settled", ruleKind, queue, list(created(queue, "08:00", nil)), settled("12:00"))

	org := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "Acme", TimeZone: "UTC", CurrencyCode: "USD"}
	key := domain.KeyCreated{Stamp: stamp("08:10"), KeyID: "key_1", Level: domain.SecretKey, Hash: "aa"}
	revoked := domain.KeyRevoked{Stamp: stamp("08:20"), KeyID: "key_1"}
	add("begins with a key", ruleCreation, organization, key)
	add("is created twice", ruleCreation, organization, org, org)
	add("goes back in time", ruleTime, organization, org, key, domain.KeyRevoked{Stamp: stamp("08:09"), KeyID: "key_1"})
	add("makes a key twice", ruleKeys, organization, org, key, key)
	add("revokes an unknown key", ruleKeys, organization, org, revoked)
	add("revokes a key twice", ruleKeys, organization, org, key, revoked, revoked)
	ending := domain.KeyCreated{Stamp: stamp("08:10"), KeyID: "key_2", Level: domain.SecretKey, Hash: "bb", ExpiresAt: at("09:00")}
	expired := func(when string, id domain.ID) domain.Event { return domain.KeyExpired{Stamp: stamp(when), KeyID: id} }
	add("makes a key that has expired", ruleKeys, organization, org, domain.KeyCreated{Stamp: stamp("08:10"), KeyID: "key_3", ExpiresAt: at("08:10")})
	add("lets an unknown key expire", ruleKeys, organization, org, expired("09:00", "key_2"))
	add("lets a key expire that does not end", ruleKeys, organization, org, key, expired("09:00", "key_1"))
	add("lets a key expire early", ruleDue, organization, org, ending, expired("08:59", "key_2"))
	add("lets a key expire twice", ruleKeys, organization, org, ending, expired("09:00", "key_2"), expired("09:00", "key_2"))
	add("lets a revoked key expire", ruleKeys, organization, org, ending, domain.KeyRevoked{Stamp: stamp("08:20"), KeyID: "key_2"}, expired("09:00", "key_2"))
	add("revokes an expired key", ruleKeys, organization, org, ending, expired("09:00", "key_2"), domain.KeyRevoked{Stamp: stamp("09:10"), KeyID: "key_2"})
	add("is updated before it is created", ruleCreation, organization, updated("08:10", domain.CauseUpdate, `name "Acme" "Beta"`))
	add("changes the id", ruleUpdate, organization, org, updated("08:10", domain.CauseUpdate, `id "`+string(orgID)+`" "x"`))
	add("changes its keys", ruleUpdate, organization, org, updated("08:10", domain.CauseUpdate, `keys {} {}`))
	add("changes from what was not", ruleUpdate, organization, org, updated("08:10", domain.CauseUpdate, `name "Acne" "Beta"`))
	add("changes to what cannot be", ruleUpdate, organization, org, updated("08:10", domain.CauseUpdate, `currencyCode "USD" "XXX"`))
	add("clears what is never null", ruleUpdate, organization, org, updated("08:10", domain.CauseUpdate, `name "Acme" null`))
	add("has an event of a distribution", ruleKind, organization, org, opened("09:00"))

	for name, b := range brokenLines() {
		add(name, b.rule, queue, b.events)
	}

	const signing = domain.KindSigning
	one, two := signer(signingSecret(1)), signer(signingSecret(2))
	ends := func(k domain.SigningKey) domain.Event {
		return domain.SigningKeyRevoked{Stamp: stamp("09:00"), KeyID: k.ID}
	}
	misnamed, another := keyMade(at("08:00"), one), keyMade(at("08:00"), one)
	misnamed.KeyID, another.PublicKey = two.ID, base64url(two.Public())
	add("has a signing key that is not its secret's", ruleCommitment, signing, misnamed)
	add("has a public key that is not its secret's", ruleCommitment, signing, another)
	add("makes a signing key twice", ruleKeys, signing, keyMade(at("08:00"), one), keyMade(at("09:00"), one))
	add("revokes the signing key that signs", ruleKeys, signing, keyMade(at("08:00"), one), ends(one))
	add("revokes an unknown signing key", ruleKeys, signing, keyMade(at("08:00"), one), ends(two))
	add("revokes a signing key twice", ruleKeys, signing, keyMade(at("08:00"), one), keyMade(at("08:10"), two), ends(one), ends(one))
	add("makes a signing key back in time", ruleTime, signing, keyMade(at("08:00"), one), keyMade(at("07:00"), two))
	add("has signing keys that are opened", ruleKind, signing, opened("09:00"))

	claimed := domain.Claimed{Stamp: stamp("08:00"), ID: idOf(queue)}
	add("is claimed twice", ruleCreation, domain.KindClaim, claimed, claimed)
	add("begins with something else", ruleCreation, domain.KindClaim, opened("09:00"))
	return all
}

func TestInvariants(t *testing.T) {
	t.Parallel()
	for name, b := range brokenHistories() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			last := len(b.events) - 1
			err := domaintest.Fold(t, b.kind, b.events[:last]).Aggregate.Evolve(b.events[last])
			var v *domain.RuleError
			if !errors.As(err, &v) || v.Rule != b.rule {
				t.Fatalf("got %v, want %q", err, b.rule)
			}
			if !strings.HasPrefix(v.Error(), b.rule+": ") || v.Detail == "" {
				t.Errorf("says %q", v)
			}
		})
	}
}

// TestInvariants_areAllBroken fails when no history above breaks one of the rules.
func TestInvariants_areAllBroken(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, b := range brokenHistories() {
		seen[b.rule] = true
	}
	source, err := os.ReadFile("rules.go")
	if err != nil {
		t.Fatal(err)
	}
	rules := regexp.MustCompile(`(?m)^\s*(rule\w+)\s*=\s*"(.*)"$`).FindAllSubmatch(source, -1)
	for _, r := range rules {
		if !seen[string(r[2])] {
			t.Errorf("no history breaks %s %q", r[1], r[2])
		}
	}
	if len(rules) != len(seen) {
		t.Errorf("%d rules, of which %d are broken", len(rules), len(seen))
	}
}

func TestInvariants_messageDoesNotDependOnMapOrder(t *testing.T) {
	t.Parallel()
	given, _ := reach(domain.KindQueue, domain.StatusOpen)
	want := ""
	for i := range 50 {
		err := domaintest.Fold(t, domain.KindQueue, given).Aggregate.Evolve(updated("09:10", domain.CauseUpdate,
			`openAt "@09:00" "@10:00"`, `nme null 1`, `name "x" "y"`, `type 1 2`))
		if i == 0 {
			want = fmt.Sprint(err)
		}
		if got := fmt.Sprint(err); got != want {
			t.Fatalf("says %q, then %q", want, got)
		}
	}
}

// record gives events their places, with a hash chain.
func record(stream string, events []domain.Event) []*domain.Recorded {
	var all []*domain.Recorded
	hash := ""
	for i, e := range events {
		r := &domain.Recorded{
			ID: [16]byte{byte(i)}, Type: fmt.Sprintf("%T", e), Stream: stream, Revision: domain.Revision(i), Event: e,
			Data: fmt.Appendf(nil, `{"n":%d}`, i),
		}
		seal(r, hash)
		hash = hashOf(r)
		all = append(all, r)
	}
	return all
}

// seal puts the hash over r and prev into r.
func seal(r *domain.Recorded, prev string) {
	metadata := []byte(`{"schemaVersion":1}`)
	hash := domain.EventHash(r.ID, r.Type, r.Stream, r.Revision, r.Data, metadata, prev)
	r.RawMetadata = domain.WithHash(metadata, hash)
}

func TestHistory_apply(t *testing.T) {
	t.Parallel()
	const stream = "queue-" + uuid32
	events, _ := reach(domain.KindQueue, domain.StatusCompleted)
	h := domain.NewHistory(stream)
	if h.Head != (domain.Head{Revision: domain.NoStream}) || h.Changed != domain.NoStream || h.Stream != stream {
		t.Errorf("begins as %+v", h)
	}
	for _, r := range record(stream, events) {
		if err := h.Apply(r); err != nil {
			t.Fatal(err)
		}
		if want := (domain.Head{Revision: r.Revision, Hash: hashOf(r)}); h.Head != want || h.Changed != r.Revision {
			t.Errorf("head %+v changed %d, want %+v", h.Head, h.Changed, want)
		}
	}
	if got := h.Aggregate.(domain.Distribution).Shared().Status; got != domain.StatusCompleted {
		t.Errorf("ends as %s", got)
	}
}

func TestHistory_applyRefuses(t *testing.T) {
	t.Parallel()
	const (
		stream   = "queue-" + uuid32
		noGap    = "revisions have no gaps"
		chain    = "each event's hash covers it and the event before"
		readable = "every event can be read"
	)
	for name, c := range map[string]struct {
		spoil func(all []*domain.Recorded) // of four events the last
		rule  string
	}{
		"a gap":                {func(all []*domain.Recorded) { all[3].Revision = 4; seal(all[3], hashOf(all[2])) }, noGap},
		"a repetition":         {func(all []*domain.Recorded) { *all[3] = *all[2] }, noGap},
		"another stream":       {func(all []*domain.Recorded) { all[3].Stream = "queue-x"; seal(all[3], hashOf(all[2])) }, noGap},
		"changed data":         {func(all []*domain.Recorded) { all[3].Data = []byte(`{"n":4}`) }, chain},
		"another id":           {func(all []*domain.Recorded) { all[3].ID[15] = 1 }, chain},
		"another type":         {func(all []*domain.Recorded) { all[3].Type = "queue.opened" }, chain},
		"changed metadata":     {func(all []*domain.Recorded) { all[3].RawMetadata[len(`{"schemaVersion":`)] = '2' }, chain},
		"metadata without it":  {func(all []*domain.Recorded) { all[3].RawMetadata = []byte(`{"schemaVersion":1}`) }, chain},
		"no event before":      {func(all []*domain.Recorded) { seal(all[3], "") }, chain},
		"another event before": {func(all []*domain.Recorded) { seal(all[3], hashOf(all[1])) }, chain},
		"what is not decoded": {func(all []*domain.Recorded) {
			all[3].Event, all[3].Undecoded = nil, errors.New("unknown version 9")
		}, readable},
		"what the rules forbid": {func(all []*domain.Recorded) { all[3].Event = opened("09:10") }, ruleTransition},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			events := list(created(domain.KindQueue, "08:00", times("09:00", "11:00")), scheduled("08:00"), opened("09:00"), closed(domain.KindQueue, "11:00"))
			all := record(stream, events)
			c.spoil(all)
			h := domain.NewHistory(stream)
			for _, r := range all[:3] {
				if err := h.Apply(r); err != nil {
					t.Fatal(err)
				}
			}
			err := h.Apply(all[3])
			var broken *domain.HistoryError
			if !errors.As(err, &broken) {
				t.Fatalf("got %v", err)
			}
			want := domain.HistoryError{Stream: stream, Revision: all[3].Revision, Type: all[3].Type, Rule: c.rule, Detail: broken.Detail}
			if *broken != want || broken.Detail == "" {
				t.Errorf("got %+v, want %+v", *broken, want)
			}
			place := fmt.Sprintf("%s@%d (%s) breaks a rule: %s: ", stream, all[3].Revision, all[3].Type, c.rule)
			if !strings.HasPrefix(err.Error(), place) {
				t.Errorf("says %q", err)
			}
		})
	}
}

func TestHistory_at(t *testing.T) {
	t.Parallel()
	org := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID}
	claimed := domain.Claimed{Stamp: stamp("08:00"), ID: idOf(domain.KindQueue)}
	for _, c := range []struct {
		kind        domain.Kind
		events      []domain.Event
		clock, want string
	}{
		{domain.KindQueue, nil, "07:00", "07:00"},
		{domain.KindQueue, list(created(domain.KindQueue, "08:00", nil)), "07:00", "08:00"},
		{domain.KindQueue, list(created(domain.KindQueue, "08:00", nil)), "09:00", "09:00"},
		{domain.KindDraw, list(created(domain.KindDraw, "08:00", nil), deleted("08:30")), "07:00", "08:30"},
		{domain.KindOrganization, list(org), "07:00", "08:00"},
		{domain.KindOrganization, list(org), "09:00", "09:00"},
		{domain.KindClaim, list(claimed), "07:00", "07:00"},
		{domain.KindSigning, list(keyMade(at("08:00"), signer(signingSecret(1)))), "07:00", "08:00"},
	} {
		if got := domaintest.Fold(t, c.kind, c.events).At(at(c.clock)); got != at(c.want) {
			t.Errorf("%s at %s counts as %s, want %s", c.kind, c.clock, got, c.want)
		}
	}
}

func TestHistory_aRefusalLeavesItAsItWas(t *testing.T) {
	t.Parallel()
	for _, k := range domain.Kinds() {
		given, _ := reach(k, domain.StatusOpen)
		h := domaintest.Fold(t, k, given)
		if events, err := domaintest.Carry(h, at("09:10"), domain.Delete{}); events != nil || err == nil {
			t.Errorf("got %s, %v", domaintest.Show(events), err)
		}
		if want := domaintest.Fold(t, k, given); !domaintest.SameState(h, want) {
			t.Errorf("got %+v, want %+v", h, want)
		}
	}
}

func hashOf(r *domain.Recorded) string {
	_, hash, _ := domain.SplitHash(r.RawMetadata)
	return hash
}

func TestHistory_aStreamIsAboutWhatItIsNamedFor(t *testing.T) {
	t.Parallel()
	other := strings.Replace(uuid32, "q", "r", 1)
	org := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "o", TimeZone: "UTC", CurrencyCode: "USD"}
	for name, c := range map[string]struct {
		stream string
		event  domain.Event
	}{
		"a queue":         {"queue-" + other, created(domain.KindQueue, "08:00", times("09:00", "11:00"))},
		"an organization": {"organization-" + other, org},
	} {
		err := domain.NewHistory(c.stream).Apply(record(c.stream, list(c.event))[0])
		broken, ok := errors.AsType[*domain.HistoryError](err)
		if !ok || broken.Rule != "a stream is about what it is named for" || broken.Revision != 0 {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if err := domain.NewHistory("organization-" + uuid32).Apply(record("organization-"+uuid32, list(org))[0]); err != nil {
		t.Error(err)
	}
}

func TestHistory_decidingWhatTheRulesRefuseIsAFault(t *testing.T) {
	t.Parallel()
	h := domain.NewHistory("draw-" + uuid32)
	c := create(domain.KindDraw, `{}`)
	c.ID = idOf(domain.KindQueue)
	_, err := domaintest.Carry(h, at("08:00"), c)
	var v *domain.RuleError
	if !errors.As(err, &v) || v.Rule != ruleKind || !strings.Contains(err.Error(), h.Stream) {
		t.Errorf("got %v", err)
	}
}

func TestEvents_surviveTheirJSON(t *testing.T) {
	t.Parallel()
	for _, k := range domain.Kinds() {
		events := domaintest.Play(t, k,
			domaintest.Asked{Now: at("08:00"), Command: create(k, `{"name": "a<b>&\u2028é", "metadata": {"x": "<&>", "n": 1.50}, "closeAt": "@11:00"}`)},
			domaintest.Asked{Now: at("08:10"), Command: update(`{"name": "c>d", "metadata": {"y": "<"}, "openAt": "@09:00"}`)},
			domaintest.Asked{Now: at("08:20"), Command: update(`{"name": null, "metadata": null}`)},
			domaintest.Asked{Now: at("18:00")},
		)
		want := domaintest.Fold(t, k, events).Aggregate.(domain.Distribution).AppendJSON(nil)
		for _, escape := range []bool{false, true} {
			h := domaintest.Fold(t, k, stored(t, events, escape))
			if got := h.Aggregate.(domain.Distribution).AppendJSON(nil); string(got) != string(want) {
				t.Errorf("escaped %t\n got %s\nwant %s", escape, got, want)
			}
		}
	}
}

// stored returns the events as the log would return them: encoded as JSON with their
// secrets sealed, and decoded again.
func stored(t domaintest.TB, events []domain.Event, escapeHTML bool) []domain.Event {
	t.Helper()
	var all []domain.Event
	for _, e := range events {
		kind, isPointer := reflect.TypeOf(e), false
		if kind.Kind() == reflect.Pointer {
			kind, isPointer = kind.Elem(), true
		}
		fresh := reflect.New(kind)
		var plain []string
		if isPointer {
			fresh.Elem().Set(reflect.ValueOf(e).Elem())
			for _, s := range fresh.Interface().(domain.SecretHolder).Secrets() {
				plain = append(plain, s.Value.Plain)
				s.Value.Sealed = "sealed"
			}
		} else {
			fresh.Elem().Set(reflect.ValueOf(e))
		}
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(escapeHTML)
		if err := enc.Encode(fresh.Interface()); err != nil {
			t.Fatalf("%T: %v", e, err)
		}
		read := reflect.New(kind)
		if err := json.Unmarshal([]byte(b.String()), read.Interface()); err != nil {
			t.Fatalf("%T: %v", e, err)
		}
		if !isPointer {
			all = append(all, read.Elem().Interface().(domain.Event))
			continue
		}
		for i, s := range read.Interface().(domain.SecretHolder).Secrets() {
			if s.Value.Plain != "" || s.Value.Sealed != "sealed" {
				t.Fatalf("%T: %s was read as %+v", e, s.Name, *s.Value)
			}
			*s.Value = domain.Secret{Plain: plain[i]}
		}
		all = append(all, read.Interface().(domain.Event))
	}
	return all
}

func TestSecrets_areNamed(t *testing.T) {
	t.Parallel()
	for want, holder := range map[string]domain.SecretHolder{
		"queue [encryptionSeed]":               &domain.Queue{},
		"draw [encryptionSeed secret]":         &domain.Draw{},
		"auction [encryptionSeed]":             &domain.Auction{},
		"queue created [encryptionSeed]":       &domain.QueueCreated{},
		"draw created [encryptionSeed secret]": &domain.DrawCreated{},
		"auction created [encryptionSeed]":     &domain.AuctionCreated{},
		"seal [value]":                         &domain.SealChecked{},
	} {
		var names []string
		for i, s := range holder.Secrets() {
			names = append(names, s.Name)
			s.Value.Sealed = strconv.Itoa(i)
		}
		for i, s := range holder.Secrets() {
			if s.Value.Sealed != strconv.Itoa(i) {
				t.Errorf("%s: %s does not point into the holder", want, s.Name)
			}
		}
		if !strings.HasSuffix(want, fmt.Sprint(names)) {
			t.Errorf("got %v, want %s", names, want)
		}
	}
}

func TestNewAggregate(t *testing.T) {
	t.Parallel()
	for _, k := range domain.Kinds() {
		d := domain.NewDistribution(k)
		if d.Kind() != k || domain.NewAggregate(k).(domain.Distribution).Kind() != k {
			t.Errorf("%s is %s", k, d.Kind())
		}
	}
	panics := func(f func()) (did bool) {
		defer func() { did = recover() != nil }()
		f()
		return false
	}
	for _, k := range []domain.Kind{domain.KindSeal, domain.KindSink, domain.KindClock, "", "lottery"} {
		if !panics(func() { domain.NewAggregate(k) }) {
			t.Errorf("%q has an aggregate", k)
		}
	}
	for _, k := range []domain.Kind{domain.KindSeal, domain.KindSink, domain.KindOrganization, domain.KindClaim, domain.KindSigning, domain.KindClock, ""} {
		if !panics(func() { domain.NewDistribution(k) }) {
			t.Errorf("%q is a distribution", k)
		}
	}
	if !slices.IsSortedFunc(domain.Statuses(), func(a, b domain.Status) int { return rank(a) - rank(b) }) {
		t.Error("the statuses are not in the order in which they are passed")
	}
}

// rank returns how far along a status is. The ends of a draw and of an auction have the
// highest ranks.
func rank(s domain.Status) int {
	return slices.Index([]domain.Status{
		domain.StatusDraft, domain.StatusScheduled, domain.StatusOpen, domain.StatusClosed, domain.StatusDrawn, domain.StatusCompleted, domain.StatusSettled,
	}, s)
}
