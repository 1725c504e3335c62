package domain_test

import (
	"crypto/sha256"
	"encoding/hex"
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
	key := createKey("key_1", `{"level": "publishable", "name": "ci"}`)
	keyed := keyCreated("08:10", "key_1", domain.PublishableKey)
	keyed.Name = "ci"
	revoked := domain.KeyRevoked{Stamp: stamp("08:20"), KeyID: "key_1"}
	run(t, map[string]domaintest.Scenario{
		"is created":                    {Kind: k, Now: at("08:00"), When: make1, Then: list(made)},
		"is created once":               {Kind: k, Given: list(made), Now: at("08:10"), When: make1},
		"has nothing due":               {Kind: k, Given: list(made), Now: at("23:00")},
		"has nothing due before it is":  {Kind: k, Now: at("23:00")},
		"gets a key":                    {Kind: k, Given: list(made), Now: at("08:10"), When: key, Then: list(keyed)},
		"gets the same key once":        {Kind: k, Given: list(made, keyed), Now: at("08:10"), When: key},
		"gets a revoked key back never": {Kind: k, Given: list(made, keyed, revoked), Now: at("08:30"), When: key},
		"gets a second key":             {Kind: k, Given: list(made, keyed), Now: at("08:15"), When: createKey("key_2", `{"level": "secret"}`), Then: list(keyCreated("08:15", "key_2", domain.SecretKey))},
		"revokes a key":                 {Kind: k, Given: list(made, keyed), Now: at("08:20"), When: domain.RevokeKey{KeyID: "key_1"}, Then: list(revoked)},
		"revokes a key once":            {Kind: k, Given: list(made, keyed, revoked), Now: at("08:30"), When: domain.RevokeKey{KeyID: "key_1"}, Refused: domain.KeyNotFound},
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
		ID: orgID, Name: "Acme", TimeZone: "Europe/Berlin", CurrencyCode: "EUR", CreatedAt: at("08:00"), UpdatedAt: at("08:00"), Latest: at("08:20"),
		Keys: map[domain.ID]domain.Key{"key_1": {
			ID: "key_1", Level: domain.PublishableKey, Name: "ci", Hint: keyed.Hint, Hash: keyed.Hash, CreatedAt: at("08:10"), RevokedAt: at("08:20"),
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
		domain.KeyCreated{Stamp: stamp("08:00"), KeyID: "key_4", Level: domain.SecretKey, ExpiresAt: at("08:05")},
		domain.KeyExpired{Stamp: stamp("08:05"), KeyID: "key_4"},
		domain.KeyRevoked{Stamp: stamp("08:10"), KeyID: "key_1"},
		domain.KeyRevoked{Stamp: stamp("08:10"), KeyID: "key_2"},
	)).Aggregate.(*domain.Organization)
	if o.HasKey(domain.SecretKey) || !o.HasKey(domain.PublishableKey) {
		t.Error("a revoked or expired key counts, or another does not")
	}
	var ids []domain.ID
	for _, k := range o.SortedKeys() {
		ids = append(ids, k.ID)
	}
	if got := fmt.Sprint(ids); got != "[key_1 key_2 key_3 key_4]" {
		t.Errorf("keys are %s", got)
	}
}

// createKey asks for the key whose random part is its id.
func createKey(id domain.ID, body string) domain.CreateKey {
	return domain.CreateKey{KeyID: id, Fields: fields(body), Random: string(id)}
}

// keyCreated is what createKey leads to for a live key.
func keyCreated(clock string, id domain.ID, level domain.KeyLevel) domain.KeyCreated {
	text := level.Prefix() + "live_" + string(id)
	hash := sha256.Sum256([]byte(text))
	return domain.KeyCreated{Stamp: stamp(clock), KeyID: id, Level: level, Hint: text[:12], Hash: hex.EncodeToString(hash[:])}
}

func TestOrganization_keysAreAskedForByFields(t *testing.T) {
	t.Parallel()
	const k = domain.KindOrganization
	made := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "Acme", TimeZone: "Europe/Berlin", CurrencyCode: "EUR"}
	test := keyCreated("08:10", "key_1", domain.SecretKey)
	text := "sk_test_key_1"
	hash := sha256.Sum256([]byte(text))
	test.Hint, test.Hash = "sk_test_key_", hex.EncodeToString(hash[:])
	ending := keyCreated("08:10", "key_1", domain.SecretKey)
	ending.ExpiresAt = at("09:00")
	named := keyCreated("08:10", "key_1", domain.SecretKey)
	named.Name = strings.Repeat("é", 200)
	const future = "must be in the future"
	s := map[string]domaintest.Scenario{}
	for claim, c := range map[string]struct {
		body    string
		then    domain.KeyCreated
		details []domain.Detail
	}{
		"a level is enough":            {`{"level": "secret"}`, keyCreated("08:10", "key_1", domain.SecretKey), nil},
		"null is left out":             {`{"level": "secret", "mode": null, "name": null, "expiresAt": null}`, keyCreated("08:10", "key_1", domain.SecretKey), nil},
		"the mode is in the key":       {`{"level": "secret", "mode": "test"}`, test, nil},
		"a name may be long":           {`{"level": "secret", "name": "` + strings.Repeat("é", 200) + `"}`, named, nil},
		"it may end":                   {`{"level": "secret", "expiresAt": "@09:00"}`, ending, nil},
		"a local time is the zone's":   {`{"level": "secret", "expiresAt": "2026-12-15T10:00:00"}`, ending, nil},
		"not without a level":          {`{}`, domain.KeyCreated{}, []domain.Detail{problem("level", "is required")}},
		"not past its end":             {`{"level": "secret", "expiresAt": "@08:10"}`, domain.KeyCreated{}, []domain.Detail{problem("expiresAt", future)}},
		"a millisecond is time enough": {`{"level": "secret", "expiresAt": "2026-12-15T08:10:00.001Z"}`, func() domain.KeyCreated { k := ending; k.ExpiresAt = at("08:10") + 1; return k }(), nil},
		"all that is wrong is told": {
			`{"level": "admin", "mode": "beta", "name": "` + strings.Repeat("n", 201) + `", "expiresAt": "@08:00", "id": "key_2", "hash": "x"}`,
			domain.KeyCreated{},
			[]domain.Detail{
				problem("hash", "is not a field of this object"), problem("id", "is not a field of this object"),
				problem("level", "must be one of [secret publishable]"), problem("mode", "must be one of [live test]"),
				problem("name", "must have 0 to 200 characters"), problem("expiresAt", future),
			},
		},
	} {
		one := domaintest.Scenario{Kind: k, Given: list(made), Now: at("08:10"), When: createKey("key_1", c.body), Details: c.details}
		if one.Then = list(c.then); c.details != nil {
			one.Then, one.Refused = nil, domain.ValidationFailed
		}
		s[claim] = one
	}
	run(t, s)
}

func TestOrganization_keysExpire(t *testing.T) {
	t.Parallel()
	const k = domain.KindOrganization
	made := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "Acme", TimeZone: "UTC", CurrencyCode: "EUR"}
	ends := func(id domain.ID, when string) domain.KeyCreated {
		e := keyCreated("08:10", id, domain.SecretKey)
		e.ExpiresAt = at(when)
		return e
	}
	expired := func(when string, id domain.ID) domain.Event { return domain.KeyExpired{Stamp: stamp(when), KeyID: id} }
	lasting := keyCreated("08:10", "key_9", domain.SecretKey)
	given := list(made, ends("key_1", "09:00"), ends("key_2", "09:00"), ends("key_3", "08:30"), lasting)
	run(t, map[string]domaintest.Scenario{
		"not before its time":             {Kind: k, Given: given, Now: at("08:29")},
		"at its time":                     {Kind: k, Given: given, Now: at("08:30"), Then: list(expired("08:30", "key_3"))},
		"late, dated when they were due":  {Kind: k, Given: given, Now: at("23:00"), Then: list(expired("08:30", "key_3"), expired("09:00", "key_1"), expired("09:00", "key_2"))},
		"never before what precedes them": {Kind: k, Given: list(given, updated("10:00", domain.CauseUpdate, `name "Acme" "A"`)), Now: at("10:00"), Then: list(expired("10:00", "key_3"), expired("10:00", "key_1"), expired("10:00", "key_2"))},
		"before what is asked for": {
			Kind: k, Given: given, Now: at("08:40"), When: createKey("key_4", `{"level": "publishable"}`),
			Then: list(expired("08:30", "key_3"), keyCreated("08:40", "key_4", domain.PublishableKey)),
		},
		"even when that is refused": {
			Kind: k, Given: given, Now: at("08:40"), When: domain.RevokeKey{KeyID: "key_3"},
			Then: list(expired("08:30", "key_3")), Refused: domain.KeyNotFound,
		},
		"not when they are revoked": {Kind: k, Given: list(given, domain.KeyRevoked{Stamp: stamp("08:20"), KeyID: "key_3"}), Now: at("08:40")},
		"once":                      {Kind: k, Given: list(given, expired("08:30", "key_3")), Now: at("08:40")},
	})
	o := domaintest.Fold(t, k, list(given, expired("08:30", "key_3"), domain.KeyRevoked{Stamp: stamp("08:40"), KeyID: "key_1"})).Aggregate.(*domain.Organization)
	if o.Wake() != at("09:00") {
		t.Errorf("wakes at %s", o.Wake())
	}
	for when, works := range map[string]string{"08:20": "[key_2 key_9]", "08:59": "[key_2 key_9]", "09:00": "[key_9]", "23:00": "[key_9]"} {
		var ids []domain.ID
		for _, key := range o.SortedKeys() {
			if key.Works(at(when)) {
				ids = append(ids, key.ID)
			}
		}
		if got := fmt.Sprint(ids); got != works {
			t.Errorf("at %s work %s, want %s", when, got, works)
		}
	}
}

func TestOrganization_keepsASecretKeyThatWorks(t *testing.T) {
	t.Parallel()
	const k = domain.KindOrganization
	ending := keyCreated("08:00", "key_2", domain.SecretKey)
	ending.ExpiresAt = at("09:00")
	given := list(domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID},
		keyCreated("08:00", "key_1", domain.SecretKey), ending, keyCreated("08:00", "key_3", domain.PublishableKey))
	revoked := func(when string, id domain.ID) domain.Event { return domain.KeyRevoked{Stamp: stamp(when), KeyID: id} }
	expired := domain.KeyExpired{Stamp: stamp("09:00"), KeyID: "key_2"}
	run(t, map[string]domaintest.Scenario{
		"one of two is revoked":                     {Kind: k, Given: given, Now: at("08:10"), When: domain.RevokeKey{KeyID: "key_1"}, Then: list(revoked("08:10", "key_1"))},
		"then the other is not":                     {Kind: k, Given: list(given, revoked("08:10", "key_1")), Now: at("08:20"), When: domain.RevokeKey{KeyID: "key_2"}, Refused: domain.NotPossible},
		"nor when the other expired":                {Kind: k, Given: given, Now: at("09:00"), When: domain.RevokeKey{KeyID: "key_1"}, Then: list(expired), Refused: domain.NotPossible},
		"unless it is to be":                        {Kind: k, Given: given, Now: at("09:10"), When: domain.RevokeKey{KeyID: "key_1", EvenLast: true}, Then: list(expired, revoked("09:10", "key_1"))},
		"of publishable keys no one has to be left": {Kind: k, Given: given, Now: at("08:10"), When: domain.RevokeKey{KeyID: "key_3"}, Then: list(revoked("08:10", "key_3"))},
	})
}

func TestOrganization_update(t *testing.T) {
	t.Parallel()
	const k = domain.KindOrganization
	made := domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "Acme", TimeZone: "UTC", CurrencyCode: "EUR"}
	renamed := updated("08:10", domain.CauseUpdate, `name "Acme" "Beta"`)
	given := list(made, keyCreated("08:05", "key_1", domain.SecretKey))
	shown := domaintest.Fold(t, k, list(given, renamed)).Aggregate.(*domain.Organization).AppendJSON(nil)
	want := expand(`{"id":"` + string(orgID) + `","name":"Beta","timeZone":"UTC","currencyCode":"EUR","createdAt":"@08:00","updatedAt":"@08:10"}`)
	if string(shown) != want {
		t.Errorf("is shown as %s, want %s", shown, want)
	}
	run(t, map[string]domaintest.Scenario{
		"changes one field":             {Kind: k, Given: given, Now: at("08:10"), When: update(`{"name": "Beta"}`), Then: list(renamed)},
		"changes all three":             {Kind: k, Given: given, Now: at("08:10"), When: update(`{"name": "Beta", "timeZone": "Asia/Tokyo", "currencyCode": "JPY"}`), Then: list(updated("08:10", domain.CauseUpdate, `name "Acme" "Beta"`, `timeZone "UTC" "Asia/Tokyo"`, `currencyCode "EUR" "JPY"`))},
		"writes nothing for nothing":    {Kind: k, Given: given, Now: at("08:10"), When: update(`{}`)},
		"writes nothing for what it is": {Kind: k, Given: list(given, renamed), Now: at("08:20"), When: domain.Update{Fields: fields(string(shown))}},
		"is not there":                  {Kind: k, Now: at("08:10"), When: update(`{"name": "Beta"}`), Refused: domain.OrganizationNotFound},
		"tells of everything that is wrong": {
			Kind: k, Given: given, Now: at("08:10"), Refused: domain.ValidationFailed,
			When: update(`{"id": "org_2", "name": "", "timeZone": "Mars", "currencyCode": null, "createdAt": "@07:00", "keys": {}, "latest": 1}`),
			Details: []domain.Detail{
				problem("keys", "is not a field of this object"), problem("latest", "is not a field of this object"), problem("id", "cannot be changed"),
				problem("name", "must have 1 to 200 characters"), problem("timeZone", "must be an IANA time zone such as Europe/Berlin"),
				problem("currencyCode", "may not be null"), problem("createdAt", "cannot be changed"),
			},
		},
	})
}

// What happens to keys does not change the organization itself, so a client that
// read it before may still change it.
func TestOrganization_isTheSameWithAnotherKey(t *testing.T) {
	t.Parallel()
	ending := keyCreated("08:10", "key_1", domain.SecretKey)
	ending.ExpiresAt = at("09:00")
	h := domain.NewHistory(orgID.Stream())
	changed := []domain.Revision{0, 0, 0, 0, 0, 5}
	for i, r := range record(h.Stream, list(
		domain.OrganizationCreated{Stamp: stamp("08:00"), ID: orgID, Name: "Acme", TimeZone: "UTC", CurrencyCode: "EUR"},
		ending, keyCreated("08:10", "key_2", domain.SecretKey), domain.KeyRevoked{Stamp: stamp("08:20"), KeyID: "key_2"},
		domain.KeyExpired{Stamp: stamp("09:00"), KeyID: "key_1"}, updated("09:10", domain.CauseUpdate, `name "Acme" "Beta"`),
	)) {
		if err := h.Apply(r); err != nil {
			t.Fatal(err)
		}
		o := h.Aggregate.(*domain.Organization)
		if h.Changed != changed[i] || (o.UpdatedAt == at("08:00")) != (changed[i] == 0) {
			t.Errorf("behind %T it last changed at %d, %s", r.Event, h.Changed, o.UpdatedAt)
		}
	}
}

func TestKey_asTheContractHasIt(t *testing.T) {
	t.Parallel()
	for want, key := range map[string]domain.Key{
		`{"id":"key_1","level":"secret","mode":"test","name":null,"hint":"sk_test_ABCD","createdAt":"@08:00","expiresAt":null,"revokedAt":null}`: {
			ID: "key_1", Level: domain.SecretKey, Hint: "sk_test_ABCD", Hash: "aa", CreatedAt: at("08:00"),
		},
		`{"id":"key_2","level":"publishable","mode":"live","name":"<ci>","hint":"pk_live_test","createdAt":"@08:00","expiresAt":"@09:00","revokedAt":"@08:30"}`: {
			ID: "key_2", Level: domain.PublishableKey, Name: "<ci>", Hint: "pk_live_test", Hash: "aa", CreatedAt: at("08:00"), ExpiresAt: at("09:00"), RevokedAt: at("08:30"),
		},
	} {
		if got := string(key.AppendJSON([]byte("…"))); got != "…"+expand(want) {
			t.Errorf("\n got %s\nwant …%s", got, expand(want))
		}
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
	e := domain.NewCloudEvent("evt_1", "queue.opened", idOf(domain.KindQueue), at("09:00"), json.RawMessage(`{"a":1}`))
	got, err := json.Marshal(e)
	want := expand(`{"specversion":"1.0","id":"evt_1","source":"lotline","type":"queue.opened","subject":"queue_` + uuid32 +
		`","time":"@09:00","datacontenttype":"application/json","data":{"a":1}}`)
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v\nwant %s", got, err, want)
	}
	if got := e.AppendJSON(nil); string(got) != want {
		t.Errorf("appended is %s\nwant %s", got, want)
	}
	e.Data = nil
	if got, want := e.AppendJSON(nil), strings.Replace(want, `,"data":{"a":1}`, "", 1); string(got) != want {
		t.Errorf("without data it is %s\nwant %s", got, want)
	}
}
