package domain_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestOrganization(t *testing.T) {
	t.Parallel()
	const k = domain.KindOrganization
	make1 := domain.CreateOrganization{ID: orgID, Name: "Acme", TimeZone: "Europe/Berlin", CurrencyCode: "EUR"}
	made := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "Acme", TimeZone: "Europe/Berlin", CurrencyCode: "EUR"}
	key := domain.CreateKey{KeyID: "key_1", Level: domain.SecretKey, Name: "ci", Hint: "sk_live_ab", Hash: "aa"}
	keyed := domain.KeyCreated{Stamp: stamp("08:10"), KeyID: "key_1", Level: domain.SecretKey, Name: "ci", Hint: "sk_live_ab", Hash: "aa"}
	revoked := domain.KeyRevoked{Stamp: stamp("08:20"), KeyID: "key_1"}
	run(t, map[string]domaintest.Scenario{
		"is created":                    {Kind: k, Now: at("08:00"), When: make1, Then: list(made)},
		"is created once":               {Kind: k, Given: list(made), Now: at("08:10"), When: make1},
		"has nothing due":               {Kind: k, Given: list(made), Now: at("23:00")},
		"has nothing due before it is":  {Kind: k, Now: at("23:00")},
		"gets a key":                    {Kind: k, Given: list(made), Now: at("08:10"), When: key, Then: list(keyed)},
		"gets the same key once":        {Kind: k, Given: list(made, keyed), Now: at("08:10"), When: key},
		"gets a revoked key back never": {Kind: k, Given: list(made, keyed, revoked), Now: at("08:30"), When: key},
		"gets a second key":             {Kind: k, Given: list(made, keyed), Now: at("08:15"), When: domain.CreateKey{KeyID: "key_2", Hash: "bb"}, Then: list(domain.KeyCreated{Stamp: stamp("08:15"), KeyID: "key_2", Hash: "bb"})},
		"revokes a key":                 {Kind: k, Given: list(made, keyed), Now: at("08:20"), When: domain.RevokeKey{KeyID: "key_1"}, Then: list(revoked)},
		"revokes a key once":            {Kind: k, Given: list(made, keyed, revoked), Now: at("08:30"), When: domain.RevokeKey{KeyID: "key_1"}},
		"has no clock that runs back":   {Kind: k, Given: list(made, keyed), Now: at("07:00"), When: domain.RevokeKey{KeyID: "key_1"}, Then: list(domain.KeyRevoked{Stamp: stamp("08:10"), KeyID: "key_1"})},
		"does not know the key":         {Kind: k, Given: list(made), Now: at("08:30"), When: domain.RevokeKey{KeyID: "key_1"}, Refused: domain.KeyNotFound},
		"is not there for a key":        {Kind: k, Now: at("08:30"), When: key, Refused: domain.OrganizationNotFound},
		"is not there for a revocation": {Kind: k, Now: at("08:30"), When: domain.RevokeKey{KeyID: "key_1"}, Refused: domain.OrganizationNotFound},
		"takes no command of a queue":   {Kind: k, Given: list(made), Now: at("08:30"), When: domain.Delete{}, Refused: domain.InvalidTransition},
		"lists everything that is wrong": {
			Kind: k, Now: at("08:00"), When: domain.CreateOrganization{ID: orgID, TimeZone: "Mars", CurrencyCode: "XXX"},
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("name", "must have 1 to 200 characters"), problem("timeZone", "must be an IANA time zone such as Europe/Berlin"),
				problem("currencyCode", "must be an ISO 4217 code such as USD"),
			},
		},
		"has a name of 200 characters at most": {
			Kind: k, Now: at("08:00"), When: domain.CreateOrganization{ID: orgID, Name: strings.Repeat("é", 201), TimeZone: "UTC", CurrencyCode: "USD"},
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("name", "must have 1 to 200 characters")},
		},
	})

	o := domaintest.Fold(t, k, list(made, keyed, revoked)).Aggregate.(*domain.Organization)
	want := &domain.Organization{
		ID: orgID, Name: "Acme", TimeZone: "Europe/Berlin", CurrencyCode: "EUR", CreatedAt: at("08:00"), Latest: at("08:20"),
		Keys: map[domain.ID]domain.Key{"key_1": {
			ID: "key_1", Level: domain.SecretKey, Name: "ci", Hint: "sk_live_ab", Hash: "aa", CreatedAt: at("08:10"), RevokedAt: at("08:20"),
		}},
	}
	if !reflect.DeepEqual(o, want) || o.Wake() != 0 {
		t.Errorf("is %+v, want %+v", o, want)
	}
	fork := o.Fork()
	if err := fork.Evolve(domain.KeyCreated{Stamp: stamp("09:00"), KeyID: "key_2"}); err != nil || !reflect.DeepEqual(o, want) {
		t.Errorf("a fork changed it: %+v, %v", o, err)
	}
}

func TestOrganization_keys(t *testing.T) {
	t.Parallel()
	o := domaintest.Fold(t, domain.KindOrganization, list(
		domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID},
		domain.KeyCreated{Stamp: stamp("08:00"), KeyID: "key_1", Level: domain.SecretKey},
		domain.KeyCreated{Stamp: stamp("08:00"), KeyID: "key_2", Level: domain.PublishableKey},
		domain.KeyCreated{Stamp: stamp("08:00"), KeyID: "key_3", Level: domain.PublishableKey},
		domain.KeyRevoked{Stamp: stamp("08:10"), KeyID: "key_1"},
		domain.KeyRevoked{Stamp: stamp("08:10"), KeyID: "key_2"},
	)).Aggregate.(*domain.Organization)
	if o.HasKey(domain.SecretKey) || !o.HasKey(domain.PublishableKey) {
		t.Error("a revoked key counts, or another does not")
	}
	var ids []domain.ID
	for _, k := range o.SortedKeys() {
		ids = append(ids, k.ID)
	}
	if got := fmt.Sprint(ids); got != "[key_1 key_2 key_3]" {
		t.Errorf("keys are %s", got)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	const k = domain.KindClaim
	claimed := domain.Claimed{Stamp: stamp("08:00"), ID: idOf(domain.KindQueue)}
	run(t, map[string]domaintest.Scenario{
		"the first claim is made":    {Kind: k, Now: at("08:00"), When: domain.Claim{ID: idOf(domain.KindQueue)}, Then: list(claimed)},
		"the first claim stands":     {Kind: k, Given: list(claimed), Now: at("08:10"), When: domain.Claim{ID: idOf(domain.KindDraw)}},
		"nothing is due before it":   {Kind: k, Now: at("08:10")},
		"nothing is due after it":    {Kind: k, Given: list(claimed), Now: at("08:10")},
		"another command is refused": {Kind: k, Given: list(claimed), Now: at("08:10"), When: domain.Delete{}, Refused: domain.InvalidTransition},
	})
	c := domaintest.Fold(t, k, list(claimed)).Aggregate.(*domain.Claims)
	if c.Made != idOf(domain.KindQueue) || c.Wake() != 0 || !reflect.DeepEqual(c.Fork(), c) {
		t.Errorf("is %+v", c)
	}
}

func TestTimingOf(t *testing.T) {
	t.Parallel()
	show := func(id domain.ID, e domain.Event) string {
		timing, ok := domain.TimingOf(id, e)
		out, err := json.Marshal(timing)
		if err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("%t %s", ok, out)
	}
	const null = `{"old":null,"new":"@`
	for _, c := range []struct {
		kind  domain.Kind
		event domain.Event
		want  string
	}{
		{domain.KindQueue, created(domain.KindQueue, "08:00", nil), `false {"distributionId":"queue_X","distributionType":"queue","changed":{},"cause":"create"}`},
		{
			domain.KindQueue, created(domain.KindQueue, "08:00", times("09:00", "11:00")),
			`true {"distributionId":"queue_X","distributionType":"queue","changed":{"closeAt":` + null + `11:00"},"openAt":` + null + `09:00"}},"cause":"create"}`,
		},
		{
			domain.KindDraw, created(domain.KindDraw, "08:00", times("09:00", "11:00")),
			`true {"distributionId":"draw_X","distributionType":"draw","changed":{"closeAt":` + null + `11:00"},"drawAt":` + null + `12:00"},"openAt":` + null + `09:00"}},"cause":"create"}`,
		},
		{
			domain.KindAuction, created(domain.KindAuction, "08:00", times("", "")),
			`true {"distributionId":"auction_X","distributionType":"auction","changed":{"settleAt":` + null + `12:00"}},"cause":"create"}`,
		},
		{
			domain.KindDraw, updated("08:10", domain.CauseUpdate, `name null "x"`, `openAt "@09:00" null`, `closeAt null "@11:00"`, `drawAt "@12:00" "@13:00"`),
			`true {"distributionId":"draw_X","distributionType":"draw","changed":{"closeAt":` + null + `11:00"},"drawAt":{"old":"@12:00","new":"@13:00"},"openAt":{"old":"@09:00","new":null}},"cause":"update"}`,
		},
		{
			domain.KindAuction, updated("08:10", domain.CauseHand, `settleAt "@12:00" "@08:10"`),
			`true {"distributionId":"auction_X","distributionType":"auction","changed":{"settleAt":{"old":"@12:00","new":"@08:10"}},"cause":"hand"}`,
		},
		{domain.KindQueue, updated("08:10", domain.CauseUpdate, `name null "x"`), `false {"distributionId":"queue_X","distributionType":"queue","changed":{},"cause":"update"}`},
		{domain.KindQueue, opened("09:00"), `false {"distributionId":"queue_X","distributionType":"queue","changed":{},"cause":""}`},
	} {
		if got, want := show(idOf(c.kind), c.event), expand(strings.ReplaceAll(c.want, "_X", "_"+uuid32)); got != want {
			t.Errorf("%T\n got %s\nwant %s", c.event, got, want)
		}
	}
}

func TestCloudEvent(t *testing.T) {
	t.Parallel()
	got, err := json.Marshal(domain.NewCloudEvent("evt_1", "queue.opened", idOf(domain.KindQueue), at("09:00"), json.RawMessage(`{"a":1}`)))
	want := expand(`{"specversion":"1.0","id":"evt_1","source":"lotline","type":"queue.opened","subject":"queue_` + uuid32 +
		`","time":"@09:00","datacontenttype":"application/json","data":{"a":1}}`)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
}
