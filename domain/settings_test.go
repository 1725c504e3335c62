package domain_test

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestCreation_everyField(t *testing.T) {
	t.Parallel()
	common := domain.Common{
		SequenceID: "drop-7", Name: new("Überraschung <1>"), TimeZone: "Europe/Berlin", OpenAt: at("09:00"), CloseAt: at("11:00"),
		EncryptionSeed: domain.Secret{Plain: "given"}, Metadata: json.RawMessage(`{"a":[1,2.50,"<x>"]}`),
	}
	const shared = `"sequenceId": "drop-7", "name": "Überraschung <1>", "timeZone": "Europe/Berlin", "openAt": "2026-12-15T10:00:00",
		"closeAt": "2026-12-15T13:00:00+02:00", "encryptionSeed": "given", "metadata": { "a" : [1, 2.50, "<x>"] }`
	identity := func(k domain.Kind) domain.Identity { return domain.Identity{ID: idOf(k), OrganizationID: orgID} }
	draw := created(domain.KindDraw, "08:00", nil).(*domain.DrawCreated)
	run(t, map[string]domaintest.Scenario{
		"of a queue": {
			Kind: domain.KindQueue, Now: at("08:00"),
			When: createOnly(domain.KindQueue, `{`+shared+`, "maxCapacity": 2147483647, "admissionRate": 100, "sessionDurationSeconds": 31536000}`),
			Then: list(&domain.QueueCreated{
				Stamp: stamp("08:00"), Identity: identity(domain.KindQueue), Common: common,
				QueueSettings: domain.QueueSettings{MaxCapacity: 2147483647, AdmissionRate: 100, SessionDurationSeconds: 31536000},
			}, scheduled("08:00")),
		},
		"of a draw": {
			Kind: domain.KindDraw, Now: at("08:00"),
			When: createOnly(domain.KindDraw, `{`+shared+`, "drawAt": "@12:00", "winnerCount": 3, "maxEntries": 9, "claimWindowSeconds": 60, "backfill": false, "entropySource": "drand quicknet round 7"}`),
			Then: list(&domain.DrawCreated{
				Stamp: stamp("08:00"), Identity: identity(domain.KindDraw), Common: common,
				DrawSettings: domain.DrawSettings{
					DrawAt: at("12:00"), WinnerCount: 3, MaxEntries: 9, ClaimWindowSeconds: 60, EntropySource: new("drand quicknet round 7"),
				},
				SeedCommitment: draw.SeedCommitment, Secret: draw.Secret,
			}, scheduled("08:00")),
		},
		"of an English auction": {
			Kind: domain.KindAuction, Now: at("08:00"),
			When: createOnly(domain.KindAuction, `{`+shared+`, "settleAt": "@12:00", "startingBid": 10, "minimumIncrement": "0.5", "reservePrice": 20.05, "buyNowPrice": "20.05",
				"currencyCode": "EUR", "winnerCount": 4, "auctionType": "english", "autoExtendSeconds": 30, "maxExtensions": 5}`),
			Then: list(&domain.AuctionCreated{
				Stamp: stamp("08:00"), Identity: identity(domain.KindAuction), Common: common,
				AuctionSettings: domain.AuctionSettings{
					SettleAt: at("12:00"), StartingBid: 100_000, MinimumIncrement: 5_000, ReservePrice: 200_500, BuyNowPrice: 200_500,
					CurrencyCode: "EUR", WinnerCount: 4, AuctionType: domain.English, AutoExtendSeconds: 30, MaxExtensions: 5,
				},
			}, scheduled("08:00")),
		},
		"of a Dutch auction": {
			Kind: domain.KindAuction, Now: at("08:00"),
			When: createOnly(domain.KindAuction, `{`+shared+`, "settleAt": "@12:00", "auctionType": "dutch", "startPrice": 100, "floorPrice": 10, "priceDropAmount": 0.01, "priceDropIntervalSeconds": 1}`),
			Then: list(&domain.AuctionCreated{
				Stamp: stamp("08:00"), Identity: identity(domain.KindAuction), Common: common,
				AuctionSettings: domain.AuctionSettings{
					SettleAt: at("12:00"), CurrencyCode: "USD", WinnerCount: 1, AuctionType: domain.Dutch,
					StartPrice: 1_000_000, FloorPrice: 100_000, PriceDropAmount: 100, PriceDropIntervalSeconds: 1,
				},
			}, scheduled("08:00")),
		},
	})
}

func TestCreation_defaults(t *testing.T) {
	t.Parallel()
	berlin := domain.Defaults{TimeZone: "Europe/Berlin", CurrencyCode: "JPY"}
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		inBerlin := create(k, `{"closeAt": "2026-12-15T12:00:00"}`)
		inBerlin.Defaults = berlin
		there := created(k, "08:00", func(c *domain.Common) { c.TimeZone = "Europe/Berlin"; c.CloseAt = at("11:00") })
		if a, ok := there.(*domain.AuctionCreated); ok {
			a.CurrencyCode = "JPY"
		}
		nulls := `{"name": null, "timeZone": null, "openAt": null, "closeAt": null, "encryptionSeed": null, "metadata": null`
		switch k {
		case domain.KindQueue:
			nulls += `, "maxCapacity": null, "admissionRate": null, "sessionDurationSeconds": null}`
		case domain.KindDraw:
			nulls += `, "maxEntries": null, "claimWindowSeconds": null, "backfill": null, "entropySource": null}`
		case domain.KindAuction:
			nulls += `, "startingBid": null, "minimumIncrement": null, "reservePrice": null, "buyNowPrice": null, "currencyCode": null, "winnerCount": null,
				"auctionType": null, "autoExtendSeconds": null, "maxExtensions": null, "startPrice": null, "floorPrice": null, "priceDropAmount": null, "priceDropIntervalSeconds": null}`
		case domain.KindOrganization, domain.KindClaim, domain.KindSeal, domain.KindSink, domain.KindSigning, domain.KindClock:
		}
		return map[string]domaintest.Scenario{
			"are the organization's": {Kind: k, Now: at("08:00"), When: inBerlin, Then: list(there)},
			"replace null":           {Kind: k, Now: at("08:00"), When: create(k, nulls), Then: list(created(k, "08:00", nil))},
		}
	})
}

func TestCreation_readOnlyFields(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		names := []string{"id", "type", "organizationId", "status"}
		if k == domain.KindDraw {
			names = append(names, "seedCommitment", "entriesRoot", "entryCount")
		}
		names = append(names, "createdAt", "updatedAt")
		body := domain.Fields{}
		var details []domain.Detail
		for _, name := range names {
			body[name] = json.RawMessage(`null`)
			details = append(details, problem(name, "is set by the engine"))
		}
		c := create(k, `{}`)
		maps.Copy(c.Fields, body)
		return map[string]domaintest.Scenario{
			"are refused": {Kind: k, Now: at("08:00"), When: c, Refused: domain.ValidationFailed, Details: details},
		}
	})
}

func TestCreation_listsEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	run(t, map[string]domaintest.Scenario{
		"nothing given for a queue": {
			Kind: domain.KindQueue, Now: at("08:00"), When: createOnly(domain.KindQueue, `{}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("sequenceId", "is required")},
		},
		"nothing given for a draw": {
			Kind: domain.KindDraw, Now: at("08:00"), When: createOnly(domain.KindDraw, `{}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("sequenceId", "is required"), problem("drawAt", "is required"), problem("winnerCount", "is required"),
			},
		},
		"nothing given for an auction": {
			Kind: domain.KindAuction, Now: at("08:00"), When: createOnly(domain.KindAuction, `{}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("sequenceId", "is required"), problem("settleAt", "is required")},
		},
		"unknown fields first, by name, then the others in the order of the contract": {
			Kind: domain.KindQueue, Now: at("08:00"),
			When: createOnly(domain.KindQueue, `{"zeta": 1, "alpha": 2, "status": "OPEN", "sequenceId": "", "name": 7, "timeZone": "Mars/Olympus", "openAt": "soon",
				"encryptionSeed": "", "metadata": [], "maxCapacity": 0, "admissionRate": "1", "sessionDurationSeconds": 31536001}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("alpha", "is not a field of this object"),
				problem("zeta", "is not a field of this object"),
				problem("sequenceId", "must be 1 to 128 visible ASCII characters"),
				problem("name", "must be a string"),
				problem("timeZone", "must be an IANA time zone such as Europe/Berlin"),
				problem("status", "is set by the engine"),
				problem("openAt", "must be an RFC 3339 time such as 2026-12-15T09:00:00Z"),
				problem("encryptionSeed", "must have 1 to 256 characters"),
				problem("metadata", "must be a JSON object"),
				problem("maxCapacity", "must be a whole number from 1 to 2147483647"),
				problem("admissionRate", "must be a whole number from 1 to 2147483647"),
				problem("sessionDurationSeconds", "must be a whole number from 1 to 31536000"),
			},
		},
		"what cannot be read and what does not fit together": {
			Kind: domain.KindQueue, Now: at("08:00"), When: create(domain.KindQueue, `{"maxCapacity": 0, "openAt": "@09:00", "closeAt": "@08:00"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("maxCapacity", "must be a whole number from 1 to 2147483647"), problem("closeAt", "must be after openAt"),
			},
		},
		"nothing is said of the order of a time that cannot be read": {
			Kind: domain.KindDraw, Now: at("08:00"), When: create(domain.KindDraw, `{"openAt": "soon", "closeAt": "@13:00", "drawAt": "later"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("openAt", "must be an RFC 3339 time such as 2026-12-15T09:00:00Z"),
				problem("drawAt", "must be an RFC 3339 time such as 2026-12-15T09:00:00Z"),
			},
		},
		"nothing is said of amounts whose currency is unknown": {
			Kind: domain.KindAuction, Now: at("08:00"), When: create(domain.KindAuction, `{"currencyCode": "XXX", "startingBid": 1.001, "name": 1}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("name", "must be a string"), problem("currencyCode", "must be an ISO 4217 code such as USD"),
			},
		},
		"a draw's own fields": {
			Kind: domain.KindDraw, Now: at("08:00"),
			When:    create(domain.KindDraw, `{"winnerCount": 1.0, "maxEntries": 1e3, "claimWindowSeconds": -1, "backfill": "true", "entropySource": ""}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("winnerCount", "must be a whole number from 1 to 2147483647"),
				problem("maxEntries", "must be a whole number from 1 to 2147483647"),
				problem("claimWindowSeconds", "must be a whole number from 1 to 31536000"),
				problem("backfill", "must be true or false"),
				problem("entropySource", "must have 1 to 256 characters"),
			},
		},
		"words that are not strings": {
			Kind: domain.KindAuction, Now: at("08:00"), When: create(domain.KindAuction, `{"currencyCode": 7, "auctionType": []}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("currencyCode", "must be a string"), problem("auctionType", "must be a string")},
		},
		"an auction's own fields": {
			Kind: domain.KindAuction, Now: at("08:00"),
			When: create(domain.KindAuction, `{"startingBid": 0, "minimumIncrement": -1, "reservePrice": 1e2, "buyNowPrice": "1,5", "currencyCode": "usd",
				"auctionType": "sealed", "autoExtendSeconds": 0, "maxExtensions": true, "startPrice": 1234567890123, "floorPrice": [], "priceDropAmount": 0.00001}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("startingBid", "must be greater than zero"),
				problem("minimumIncrement", "must be a positive decimal number without an exponent"),
				problem("reservePrice", "must be a positive decimal number without an exponent"),
				problem("buyNowPrice", "must be a positive decimal number without an exponent"),
				problem("currencyCode", "must be an ISO 4217 code such as USD"),
				problem("auctionType", "must be one of [english dutch]"),
				problem("autoExtendSeconds", "must be a whole number from 1 to 31536000"),
				problem("maxExtensions", "must be a whole number from 1 to 2147483647"),
				problem("startPrice", "must have at most 12 digits before the point"),
				problem("floorPrice", "must be a positive decimal number without an exponent"),
				problem("priceDropAmount", "is finer than the currency's minor unit"),
			},
		},
	})
}

func TestUpdate_writesWhatChanges(t *testing.T) {
	t.Parallel()
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		given := list(created(k, "08:00", func(c *domain.Common) {
			c.Name, c.CloseAt, c.Metadata = new("old"), at("11:00"), json.RawMessage(`{"a":1,"b":"<"}`)
		}))
		nothing := func(body string) domaintest.Scenario {
			return domaintest.Scenario{Kind: k, Given: given, Now: at("08:10"), When: update(body)}
		}
		s := map[string]domaintest.Scenario{
			"no field is no change":            nothing(`{}`),
			"the same values are no change":    nothing(`{"name": "old", "closeAt": "@11:00", "timeZone": "UTC", "metadata": {"a":1,"b":"<"}}`),
			"the same time in another offset":  nothing(`{"closeAt": "2026-12-15T12:00:00.0009+01:00"}`),
			"the same metadata in another way": nothing(`{"metadata": {"b" : "\u003c", "a": 1 }}`),
			"the same name, escaped":           nothing(`{"name": "\u006fld"}`),
			"a new zone moves no instant": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"timeZone": "Asia/Tokyo"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `timeZone "UTC" "Asia/Tokyo"`)),
			},
			"a local time is read in the zone that comes with it": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"timeZone": "Asia/Tokyo", "closeAt": "2026-12-15T20:30:00"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `timeZone "UTC" "Asia/Tokyo"`, `closeAt "@11:00" "@11:30"`)),
			},
			"a local time is read in the present zone": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"closeAt": "2026-12-15T11:30:00"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `closeAt "@11:00" "@11:30"`)),
			},
			"name and metadata are cleared by null": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"name": null, "metadata": null}`),
				Then: list(updated("08:10", domain.CauseUpdate, `name "old" null`, `metadata {"a":1,"b":"<"} null`)),
			},
			"metadata is replaced as a whole": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"metadata": {}}`),
				Then: list(updated("08:10", domain.CauseUpdate, `metadata {"a":1,"b":"<"} {}`)),
			},
			"an empty name is a name": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"name": ""}`),
				Then: list(updated("08:10", domain.CauseUpdate, `name "old" ""`)),
			},
			"only what differs is written": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"name": "new", "closeAt": "@11:00"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `name "old" "new"`)),
			},
			"zone, and what is never null": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"timeZone": null, "sequenceId": null, "encryptionSeed": null}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{
					problem("sequenceId", "may not be null"), problem("timeZone", "may not be null"), problem("encryptionSeed", "may not be null"),
				},
			},
			"everything wrong is listed": {
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"type": 7, "x": 1, "name": 7, "sequenceId": "other", "openAt": "@11:00"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{
					problem("x", "is not a field of this object"), problem("type", "cannot be changed"), problem("sequenceId", "cannot be changed"),
					problem("name", "must be a string"), problem("openAt", "must be before closeAt"),
				},
			},
			"a time that cannot be read is not measured by what it was": {
				Kind: k, Given: list(created(k, "08:00", times("09:00", "")), scheduled("08:00")), Now: at("08:10"),
				When:    update(`{"openAt": "x", "closeAt": "@08:30"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem("openAt", "must be an RFC 3339 time such as 2026-12-15T09:00:00Z")},
			},
		}
		for status, frozen := range map[domain.Status]bool{domain.StatusClosed: true, domain.StatusCompleted: true, domain.StatusSettled: true} {
			if given, ok := reach(k, status); ok && frozen {
				now := given[len(given)-1].When()
				for name, body := range map[string]string{"a change": `{"name": "x"}`, "no change": `{}`, "an unknown field": `{"x": 1}`} {
					s[name+" in "+string(status)] = domaintest.Scenario{Kind: k, Given: given, Now: now, When: update(body), Refused: domain.UpdateClosed}
				}
			}
		}
		open, _ := reach(k, domain.StatusOpen)
		s["what is wrong is told before what is frozen"] = domaintest.Scenario{
			Kind: k, Given: open, Now: at("10:00"), When: update(`{"openAt": "@10:30", "name": 7}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{problem("name", "must be a string")},
		}
		return s
	})
}

func TestUpdate_readOnlyFields(t *testing.T) {
	t.Parallel()
	same := map[string]string{
		"organizationId": `"` + string(orgID) + `"`, "sequenceId": `"drop-1"`, "encryptionSeed": `"made"`,
		"status": `"DRAFT"`, "createdAt": `"2026-12-15T08:00:00.000Z"`, "updatedAt": `"2026-12-15T08:00:00.000Z"`,
	}
	other := map[string]string{
		"id": `"queue_00000000000000000000000000"`, "type": `"raffle"`, "organizationId": `"org_00000000000000000000000000"`, "sequenceId": `"drop-2"`,
		"encryptionSeed": `"other"`, "status": `"OPEN"`, "createdAt": `"2026-12-15T08:00:00.001Z"`, "updatedAt": `null`,
	}
	forKinds(t, func(k domain.Kind) map[string]domaintest.Scenario {
		same, other := maps.Clone(same), maps.Clone(other)
		same["id"], same["type"] = `"`+string(idOf(k))+`"`, `"`+string(k)+`"`
		if k == domain.KindDraw {
			d := created(k, "08:00", nil).(*domain.DrawCreated)
			same["seedCommitment"], same["entriesRoot"], same["entryCount"] = `"`+d.SeedCommitment+`"`, `null`, `0`
			other["seedCommitment"], other["entriesRoot"], other["entryCount"] = `""`, `""`, `1`
		}
		given := list(created(k, "08:00", nil))
		s := map[string]domaintest.Scenario{}
		for _, name := range slices.Collect(maps.Keys(same)) {
			s[name+" as it is"] = domaintest.Scenario{
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"` + name + `": ` + same[name] + `, "name": "x"}`),
				Then: list(updated("08:10", domain.CauseUpdate, `name null "x"`)),
			}
			s[name+" other than it is"] = domaintest.Scenario{
				Kind: k, Given: given, Now: at("08:10"), When: update(`{"` + name + `": ` + other[name] + `, "name": "x"}`),
				Refused: domain.ValidationFailed, Details: []domain.Detail{problem(name, "cannot be changed")},
			}
		}
		return s
	})
}

// TestUpdate_everyField changes each field of each kind in the statuses in which a
// PUT is allowed at all.
func TestUpdate_everyField(t *testing.T) {
	t.Parallel()
	type change struct {
		name, before, after string
		nullable, frozen    bool // frozen: once OPEN
	}
	common := []change{
		{"name", `"a"`, `"b"`, true, false},
		{"timeZone", `"UTC"`, `"Asia/Tokyo"`, false, false},
		{"metadata", `{"a":1}`, `{"a":2}`, true, false},
	}
	own := map[domain.Kind][]change{
		domain.KindQueue: {
			{"maxCapacity", `5`, `1`, true, false},
			{"admissionRate", `5`, `1`, true, false},
			{"sessionDurationSeconds", `5`, `1`, true, false},
		},
		domain.KindDraw: {
			{"winnerCount", `2`, `1`, false, false},
			{"maxEntries", `5`, `1`, true, false},
			{"claimWindowSeconds", `5`, `1`, true, false},
			{"backfill", `true`, `false`, false, false},
			{"entropySource", `"beacon"`, `"other"`, true, true},
		},
		domain.KindAuction: {
			{"startingBid", `5`, `1.5`, true, false},
			{"minimumIncrement", `5`, `1.5`, true, false},
			{"reservePrice", `5`, `5.5`, true, false},
			{"buyNowPrice", `6`, `5.5`, true, false},
			{"currencyCode", `"USD"`, `"EUR"`, false, true},
			{"winnerCount", `1`, `2`, false, false},
			{"autoExtendSeconds", `5`, `1`, true, false},
			{"maxExtensions", `5`, `1`, true, false},
		},
		"dutch": {
			{"startPrice", `9`, `8.5`, false, true},
			{"floorPrice", `5`, `4.5`, true, true},
			{"priceDropAmount", `5`, `1.5`, false, true},
			{"priceDropIntervalSeconds", `5`, `1`, false, true},
		},
	}
	for form, own := range own {
		k, body := form, map[string]string{}
		if form == "dutch" {
			k, body["auctionType"] = domain.KindAuction, `"dutch"`
		}
		changes := slices.Concat(common, own)
		for _, c := range changes {
			body[c.name] = c.before
		}
		members := []string{}
		for name, value := range body {
			members = append(members, `"`+name+`": `+value)
		}
		c := create(k, "{"+strings.Join(members, ",")+"}")
		draft := domaintest.Play(t, k, domaintest.Asked{Now: at("08:00"), Command: c})
		c.Fields = maps.Clone(c.Fields)
		maps.Copy(c.Fields, fields(`{"openAt": "@09:00"}`))
		open := domaintest.Play(t, k, domaintest.Asked{Now: at("08:00"), Command: c}, domaintest.Asked{Now: at("09:00")})
		s := map[string]domaintest.Scenario{}
		for _, c := range changes {
			for state, given := range map[string][]domain.Event{"DRAFT": draft, "SCHEDULED": open[:2], "OPEN": open} {
				change := domaintest.Scenario{
					Kind: k, Given: given, Now: given[len(given)-1].When(), When: update(`{"` + c.name + `": ` + c.after + `}`),
				}
				clearing := change
				clearing.When = update(`{"` + c.name + `": null}`)
				event := func(is string) domain.Event {
					u := updated("08:00", domain.CauseUpdate, c.name+" "+c.before+" "+is).(domain.Updated)
					u.At = change.Now
					return u
				}
				if state == "OPEN" && c.frozen {
					change.Refused, change.Details = domain.UpdateOpen, []domain.Detail{problem(c.name, "is frozen once open")}
					clearing.Refused, clearing.Details = change.Refused, change.Details
				} else {
					change.Then, clearing.Then = list(event(c.after)), list(event("null"))
				}
				if !c.nullable {
					clearing.Then, clearing.Refused = nil, domain.ValidationFailed
					clearing.Details = []domain.Detail{problem(c.name, "may not be null")}
					if c.frozen && form == "dutch" {
						clearing.Details[0].Message = "is required with auctionType dutch"
						if state == "OPEN" {
							clearing.Refused, clearing.Details = domain.UpdateOpen, change.Details
						}
					}
				}
				s[c.name+" changed in "+state] = change
				s[c.name+" cleared in "+state] = clearing
			}
		}
		t.Run(string(form), func(t *testing.T) {
			t.Parallel()
			run(t, s)
		})
	}
}
