package domain_test

import (
	"cmp"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestDraw_entropy(t *testing.T) {
	t.Parallel()
	const k = domain.KindDraw
	named := func(c domain.Event) domain.Event {
		c.(*domain.DrawCreated).EntropySource = new("beacon")
		return c
	}
	draft := list(named(created(k, "08:00", times("", "11:00"))))
	planned := list(named(created(k, "08:00", times("09:00", "11:00"))), scheduled("08:00"))
	waiting := list(planned, opened("09:00"), closed(k, "11:00"))
	supplied := func(clock string) domain.Event {
		return domain.EntropySupplied{Stamp: stamp(clock), Value: "beef"}
	}
	beef := supply("beef")
	without, _ := reach(k, domain.StatusClosed)
	done, _ := reach(k, domain.StatusCompleted)
	run(t, map[string]domaintest.Scenario{
		"a source can be named until the opening": {
			Kind: k, Given: list(created(k, "08:00", times("09:00", "11:00")), scheduled("08:00")), Now: at("08:59"), When: update(`{"entropySource": "beacon"}`),
			Then: list(updated("08:59", domain.CauseUpdate, `entropySource null "beacon"`)),
		},
		"a source cannot be named once open": {
			Kind: k, Given: without[:3], Now: at("09:00"), When: update(`{"entropySource": "beacon"}`),
			Refused: domain.UpdateOpen, Details: []domain.Detail{problem("entropySource", "is frozen once open")},
		},
		"a source can be dropped before the opening": {
			Kind: k, Given: planned, Now: at("08:30"), When: update(`{"entropySource": null}`),
			Then: list(updated("08:30", domain.CauseUpdate, `entropySource "beacon" null`)),
		},
		"drawAt passes without it":            {Kind: k, Given: waiting, Now: at("18:00")},
		"the draw by hand is refused without": {Kind: k, Given: waiting, Now: at("11:30"), When: domain.Step{To: domain.StatusDrawn}, Refused: domain.InvalidTransition},
		"it comes before drawAt, and the draw waits for drawAt": {
			Kind: k, Given: waiting, Now: at("11:30"), When: beef, Then: list(supplied("11:30")),
		},
		"it came before drawAt, and the draw is at drawAt": {
			Kind: k, Given: list(waiting, supplied("11:30")), Now: at("18:00"), Then: list(drawn("12:00", "beef"), completed("12:00")),
		},
		"it came before drawAt, and the draw is by hand": {
			Kind: k, Given: list(waiting, supplied("11:30")), Now: at("11:40"), When: domain.Step{To: domain.StatusDrawn},
			Then: list(updated("11:40", domain.CauseHand, `drawAt "@12:00" "@11:40"`), drawn("11:40", "beef"), completed("11:40")),
		},
		"it comes after drawAt, and the draw follows at once": {
			Kind: k, Given: waiting, Now: at("12:30"), When: beef, Then: list(supplied("12:30"), drawn("12:30", "beef"), completed("12:30")),
		},
		"the same again is nothing": {
			Kind: k, Given: list(waiting, supplied("11:30")), Now: at("11:40"), When: beef,
		},
		"the same again after the draw is nothing": {
			Kind: k, Given: list(waiting, supplied("11:30"), drawn("12:00", "beef"), completed("12:00")), Now: at("12:40"), When: beef,
		},
		"another value is refused": {
			Kind: k, Given: list(waiting, supplied("11:30")), Now: at("11:40"), When: supply("dead"),
			Refused: domain.InvalidTransition,
		},
		"too early in DRAFT":     {Kind: k, Given: draft, Now: at("08:10"), When: beef, Refused: domain.InvalidTransition},
		"too early in SCHEDULED": {Kind: k, Given: planned, Now: at("08:10"), When: beef, Refused: domain.InvalidTransition},
		"too early in OPEN":      {Kind: k, Given: list(planned, opened("09:00")), Now: at("09:10"), When: beef, Refused: domain.InvalidTransition},
		"no source was named":    {Kind: k, Given: without, Now: at("11:30"), When: beef, Refused: domain.InvalidTransition},
		"all is over":            {Kind: k, Given: done, Now: at("12:30"), When: beef, Refused: domain.InvalidTransition},
		"an empty value": {
			Kind: k, Given: waiting, Now: at("11:30"), When: supply(""),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("value", "must have 1 to 256 characters")},
		},
		"a value that is too long": {
			Kind: k, Given: waiting, Now: at("11:30"), When: supply(strings.Repeat("é", 257)),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("value", "must have 1 to 256 characters")},
		},
		"a value with control characters": {
			Kind: k, Given: waiting, Now: at("11:30"), When: supply(`a\tb`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("value", "must not have control characters")},
		},
		"half a character": {
			Kind: k, Given: waiting, Now: at("11:30"), When: supply(`\ud800`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("value", "must be Unicode: half of a surrogate pair is no character")},
		},
		"no value, and what is none": {
			Kind: k, Given: waiting, Now: at("11:30"), When: domain.SupplyEntropy{Fields: fields(`{"value": null, "x": 1}`)},
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("x", "is not a field of this object"), problem("value", "is required")},
		},
	})
}

func TestDraw_wakeAwaitsEntropy(t *testing.T) {
	t.Parallel()
	const k = domain.KindDraw
	made := created(k, "08:00", times("09:00", "11:00")).(*domain.DrawCreated)
	made.EntropySource = new("beacon")
	d := domaintest.Fold(t, k, list(made, scheduled("08:00"), opened("09:00"), closed(k, "11:00"))).Aggregate
	if got := d.Wake(); got != 0 {
		t.Errorf("awaiting entropy it wakes at %s", got)
	}
	if err := d.Evolve(domain.EntropySupplied{Stamp: stamp("11:10"), Value: "beef"}); err != nil {
		t.Fatal(err)
	}
	if got := d.Wake(); got != at("12:00") {
		t.Errorf("with the entropy it wakes at %s", got)
	}
}

func TestDraw_withoutTheSecretIsAFault(t *testing.T) {
	t.Parallel()
	const k = domain.KindDraw
	for name, spoil := range map[string]func(*domain.DrawCreated, *domain.DrawClosed){
		"secret that is not hex": func(c *domain.DrawCreated, _ *domain.DrawClosed) { c.Secret.Plain = "zz" },
		"secret not opened":      func(c *domain.DrawCreated, _ *domain.DrawClosed) { c.Secret.Plain = "" },
		"root that is not hex":   func(_ *domain.DrawCreated, c *domain.DrawClosed) { c.EntriesRoot = "zz" },
	} {
		made, shut := created(k, "08:00", times("09:00", "11:00")).(*domain.DrawCreated), closed(k, "11:00").(domain.DrawClosed)
		spoil(made, &shut)
		h := domaintest.Fold(t, k, list(made, scheduled("08:00"), opened("09:00"), shut))
		events, err := domaintest.Advance(h, at("12:00"))
		if _, refused := err.(*domain.Error); err == nil || refused || len(events) > 0 { //nolint:errorlint // exactly this type
			t.Errorf("%s: %s, %v", name, domaintest.Show(events), err)
		}
	}
}

func TestAuction_types(t *testing.T) {
	t.Parallel()
	const k = domain.KindAuction
	english := []string{"startingBid", "minimumIncrement", "reservePrice", "buyNowPrice", "autoExtendSeconds", "maxExtensions"}
	dutch := []string{"startPrice", "floorPrice", "priceDropAmount", "priceDropIntervalSeconds"}
	const whole = `"auctionType": "dutch", "startPrice": 100, "floorPrice": 10, "priceDropAmount": 5, "priceDropIntervalSeconds": 60`
	s := map[string]domaintest.Scenario{}
	for _, name := range english {
		s[name+" in a Dutch auction"] = domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: create(k, `{`+whole+`, "`+name+`": 5}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "does not go with auctionType dutch")},
		}
	}
	for _, name := range dutch {
		s[name+" in an English auction"] = domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: create(k, `{"`+name+`": 5}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "does not go with auctionType english")},
		}
		missing := create(k, `{`+whole+`}`)
		delete(missing.Fields, name)
		refused := domaintest.Scenario{
			Kind: k, Now: at("08:00"), When: missing,
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "is required with auctionType dutch")},
		}
		if name != "floorPrice" {
			s[name+" missing"] = refused
		}
	}
	given := list(created(k, "08:00", nil))
	s["every foreign field at once"] = domaintest.Scenario{
		Kind: k, Given: given, Now: at("08:10"), When: update(`{"auctionType": "dutch", "startingBid": 5, "maxExtensions": 1}`),
		Refused: domain.ValidationFailed, Details: []domain.Detail{
			problem("startingBid", "does not go with auctionType dutch"), problem("maxExtensions", "does not go with auctionType dutch"),
			problem("startPrice", "is required with auctionType dutch"), problem("priceDropAmount", "is required with auctionType dutch"),
			problem("priceDropIntervalSeconds", "is required with auctionType dutch"),
		},
	}
	s["an English auction becomes a Dutch one before it opens"] = domaintest.Scenario{
		Kind: k, Given: given, Now: at("08:10"), When: update(`{` + whole + `}`),
		Then: list(updated("08:10", domain.CauseUpdate, `auctionType "english" "dutch"`, `startPrice null 100`, `floorPrice null 10`,
			`priceDropAmount null 5`, `priceDropIntervalSeconds null 60`)),
	}
	open, _ := reach(k, domain.StatusOpen)
	s["but not once open"] = domaintest.Scenario{
		Kind: k, Given: open, Now: at("10:00"), When: update(`{` + whole + `}`),
		Refused: domain.UpdateOpen, Details: []domain.Detail{
			problem("auctionType", "is frozen once open"), problem("startPrice", "is frozen once open"), problem("floorPrice", "is frozen once open"),
			problem("priceDropAmount", "is frozen once open"), problem("priceDropIntervalSeconds", "is frozen once open"),
		},
	}
	run(t, s)
}

func TestAuction_prices(t *testing.T) {
	t.Parallel()
	const k = domain.KindAuction
	refused := func(body string, details ...domain.Detail) domaintest.Scenario {
		return domaintest.Scenario{Kind: k, Now: at("08:00"), When: create(k, body), Refused: domain.ValidationFailed, Details: details}
	}
	accepted := func(body string, set func(*domain.AuctionSettings)) domaintest.Scenario {
		made := created(k, "08:00", nil).(*domain.AuctionCreated)
		set(&made.AuctionSettings)
		return domaintest.Scenario{Kind: k, Now: at("08:00"), When: create(k, body), Then: list(made)}
	}
	finer := func(name, currency string) domain.Detail {
		return problem(name, "is finer than the minor unit of "+currency)
	}
	dutch := func(start, floor string) string {
		return `{"auctionType": "dutch", "priceDropAmount": 1, "priceDropIntervalSeconds": 1, "startPrice": ` + start + `, "floorPrice": ` + floor + `}`
	}
	run(t, map[string]domaintest.Scenario{
		"reserve below the starting bid": refused(`{"startingBid": 10, "reservePrice": 9.99}`, problem("reservePrice", "must not be below startingBid")),
		"buy-now below the reserve":      refused(`{"reservePrice": 10, "buyNowPrice": 9.99}`, problem("buyNowPrice", "must not be below reservePrice")),
		"buy-now below the starting bid": refused(`{"startingBid": 10, "buyNowPrice": 9.99}`, problem("buyNowPrice", "must not be below startingBid")),
		"all three out of order": refused(`{"startingBid": 10, "reservePrice": 9, "buyNowPrice": 8}`,
			problem("reservePrice", "must not be below startingBid"), problem("buyNowPrice", "must not be below reservePrice")),
		"start below the floor": refused(dutch("9.99", "10"), problem("startPrice", "must not be below floorPrice")),
		"equal prices are in order": accepted(`{"startingBid": 10, "reservePrice": 10, "buyNowPrice": "10.00"}`, func(s *domain.AuctionSettings) {
			s.StartingBid, s.ReservePrice, s.BuyNowPrice = 100_000, 100_000, 100_000
		}),
		"the increment has no order": accepted(`{"startingBid": 10, "minimumIncrement": 1000}`, func(s *domain.AuctionSettings) {
			s.StartingBid, s.MinimumIncrement = 100_000, 10_000_000
		}),
		"a cent is enough for dollars":             accepted(`{"startingBid": 0.01}`, func(s *domain.AuctionSettings) { s.StartingBid = 100 }),
		"less than a cent is not":                  refused(`{"startingBid": 0.001}`, finer("startingBid", "USD")),
		"zeros behind the minor unit are no finer": accepted(`{"startingBid": 1.2300000}`, func(s *domain.AuctionSettings) { s.StartingBid = 12_300 }),
		"yen have no decimals":                     refused(`{"currencyCode": "JPY", "startingBid": 100.5, "minimumIncrement": 1.01}`, finer("startingBid", "JPY"), finer("minimumIncrement", "JPY")),
		"dinars have three": accepted(`{"currencyCode": "KWD", "startingBid": 1.005}`, func(s *domain.AuctionSettings) {
			s.CurrencyCode, s.StartingBid = "KWD", 10_050
		}),
		"but not four": refused(`{"currencyCode": "KWD", "startingBid": 1.0005}`, finer("startingBid", "KWD")),
		"twelve digits before the point": accepted(`{"startingBid": 999999999999.99}`, func(s *domain.AuctionSettings) {
			s.StartingBid = 9_999_999_999_999_900
		}),
		"a currency whose minor unit is too coarse for what stands": {
			Kind: k, Given: domaintest.Play(t, k, domaintest.Asked{Now: at("08:00"), Command: create(k, `{"startingBid": 1.5}`)}),
			Now: at("08:10"), When: update(`{"currencyCode": "JPY"}`), Refused: domain.ValidationFailed, Details: []domain.Detail{finer("startingBid", "JPY")},
		},
		"an update that breaks the order is told of what it changes": {
			Kind: k, Given: domaintest.Play(t, k, domaintest.Asked{Now: at("08:00"), Command: create(k, `{"reservePrice": 5}`)}),
			Now: at("08:10"), When: update(`{"startingBid": 6, "reservePrice": 5}`), Refused: domain.ValidationFailed,
			Details: []domain.Detail{problem("startingBid", "must not be above reservePrice")},
		},
		"an update of both that breaks the order": {
			Kind: k, Given: domaintest.Play(t, k, domaintest.Asked{Now: at("08:00"), Command: create(k, `{"reservePrice": 5}`)}),
			Now: at("08:10"), When: update(`{"startingBid": 6, "reservePrice": 4}`), Refused: domain.ValidationFailed,
			Details: []domain.Detail{problem("reservePrice", "must not be below startingBid")},
		},
	})
}

func TestAppendJSON_asTheContractHasIt(t *testing.T) {
	t.Parallel()
	want := map[domain.Kind]string{
		domain.KindQueue: `{"id":"queue_01h455vb4pex5vsknk084sn02q","type":"queue","organizationId":"org_01h455vb4pex5vsknk084sn02q","sequenceId":"drop-1",` +
			`"name":null,"timeZone":"UTC","status":"DRAFT","openAt":null,"closeAt":null,"encryptionSeed":"made","metadata":null,` +
			`"maxCapacity":null,"admissionRate":null,"sessionDurationSeconds":null,"createdAt":"@08:00","updatedAt":"@08:00"}`,
		domain.KindDraw: `{"id":"draw_01h455vb4pex5vsknk084sn02q","type":"draw","organizationId":"org_01h455vb4pex5vsknk084sn02q","sequenceId":"drop-1",` +
			`"name":null,"timeZone":"UTC","status":"COMPLETED","openAt":"@09:00","closeAt":"@11:00","encryptionSeed":"made","metadata":null,` +
			`"drawAt":"@12:00","winnerCount":2,"maxEntries":null,"claimWindowSeconds":null,"backfill":true,"entropySource":null,` +
			`"seedCommitment":"` + created(domain.KindDraw, "08:00", nil).(*domain.DrawCreated).SeedCommitment + `","entriesRoot":"` + emptyRoot + `","entryCount":0,` +
			`"createdAt":"@08:00","updatedAt":"@12:00"}`,
		domain.KindAuction: `{"id":"auction_01h455vb4pex5vsknk084sn02q","type":"auction","organizationId":"org_01h455vb4pex5vsknk084sn02q","sequenceId":"drop-1",` +
			`"name":"<b>\"x\"\u2028</b>","timeZone":"UTC","status":"DRAFT","openAt":null,"closeAt":null,"encryptionSeed":"made","metadata":{"k":"<"},` +
			`"settleAt":"@12:00","startingBid":10.5,"minimumIncrement":null,"reservePrice":null,"buyNowPrice":null,"currencyCode":"USD","winnerCount":1,` +
			`"auctionType":"english","autoExtendSeconds":null,"maxExtensions":null,"startPrice":null,"floorPrice":null,"priceDropAmount":null,` +
			`"priceDropIntervalSeconds":null,"createdAt":"@08:00","updatedAt":"@08:00"}`,
	}
	completedDraw, _ := reach(domain.KindDraw, domain.StatusCompleted)
	auction := create(domain.KindAuction, `{"name": "<b>\"x\"\u2028</b>", "metadata": {"k": "<"}, "startingBid": "10.50"}`)
	for k, events := range map[domain.Kind][]domain.Event{
		domain.KindQueue:   list(created(domain.KindQueue, "08:00", nil)),
		domain.KindDraw:    completedDraw,
		domain.KindAuction: domaintest.Play(t, domain.KindAuction, domaintest.Asked{Now: at("08:00"), Command: auction}),
	} {
		d := domaintest.Fold(t, k, events).Aggregate.(domain.Distribution)
		if got := string(d.AppendJSON([]byte("…"))); got != "…"+expand(want[k]) {
			t.Errorf("%s\n got %s\nwant …%s", k, got, expand(want[k]))
		}
	}
}

func TestAppendPublicJSON_asTheContractHasIt(t *testing.T) {
	t.Parallel()
	at8 := func(k domain.Kind, body string) []domain.Event {
		return domaintest.Play(t, k, domaintest.Asked{Now: at("08:00"), Command: create(k, body)})
	}
	const (
		shared  = `"name": "Spring", "openAt": "@09:00", "closeAt": "@11:00", "metadata": {"internal": 1}, "encryptionSeed": "hidden"`
		seen    = `"name":"Spring","sequenceId":"drop-1","openAt":"@09:00","closeAt":"@11:00","timeZone":"UTC","status":"PENDING"`
		nothing = `"name":null,"sequenceId":"drop-1","openAt":null,"closeAt":null,"timeZone":"UTC","status":"PENDING"`
	)
	for _, c := range []struct {
		kind       domain.Kind
		body, want string
	}{
		{domain.KindQueue, `{` + shared + `, "maxCapacity": 7}`, seen + `,"capacity":7,"consumerCount":0}`},
		{domain.KindQueue, `{}`, nothing + `,"capacity":null,"consumerCount":0}`},
		{domain.KindDraw, `{` + shared + `, "maxEntries": 7}`, seen + `,"drawAt":"@12:00","capacity":7,"winnerCount":2,"entrantCount":0}`},
		{
			domain.KindAuction, `{` + shared + `, "startingBid": "1.50", "minimumIncrement": 0.5, "reservePrice": 90, "buyNowPrice": 99, "winnerCount": 2}`,
			seen + `,"settleAt":"@12:00","startingPrice":1.5,"reserveMet":false,"minimumBidIncrement":0.5,"winnerCount":2,"currentHighBid":null,"currencyCode":"USD"}`,
		},
		{
			domain.KindAuction, `{"auctionType": "dutch", "startPrice": 100, "floorPrice": 10, "priceDropAmount": 1, "priceDropIntervalSeconds": 1}`,
			nothing + `,"settleAt":"@12:00","startingPrice":100,"reserveMet":false,"minimumBidIncrement":null,"winnerCount":1,"currentHighBid":null,"currencyCode":"USD"}`,
		},
	} {
		d := domaintest.Fold(t, c.kind, at8(c.kind, c.body)).Aggregate.(domain.Distribution)
		want := expand(`…{"id":"` + string(idOf(c.kind)) + `",` + c.want)
		if got := string(d.AppendPublicJSON([]byte("…"))); got != want {
			t.Errorf("%s %s\n got %s\nwant %s", c.kind, c.body, got, want)
		}
	}
}

func TestAppendPublicJSON_status(t *testing.T) {
	t.Parallel()
	shown := map[domain.Status]string{domain.StatusDraft: "PENDING", domain.StatusScheduled: "PENDING"}
	ends := map[domain.Kind]string{domain.KindQueue: "CLOSED", domain.KindDraw: "DRAWN"}
	for _, k := range domain.Kinds() {
		for _, s := range domain.Statuses() {
			events, ok := reach(k, s)
			if !ok {
				continue
			}
			want := cmp.Or(shown[s], string(s))
			if s == domain.StatusCompleted {
				want = ends[k]
			}
			got := string(domaintest.Fold(t, k, events).Aggregate.(domain.Distribution).AppendPublicJSON(nil))
			if !strings.Contains(got, `"status":"`+want+`"`) {
				t.Errorf("a %s that is %s is shown as %s", k, s, got)
			}
		}
	}
}
