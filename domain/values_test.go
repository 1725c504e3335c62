package domain_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestParseAmount(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]domain.Amount{
		"1": 10_000, "100.5": 1_005_000, "0.01": 100, "0.0001": 1, "1.0": 10_000, "1.2300": 12_300, "0.1000000000000": 1_000,
		"999999999999": 9_999_999_999_990_000, "999999999999.9999": 9_999_999_999_999_999,
	} {
		if got, err := domain.ParseAmount(in); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", in, got, err, want)
		}
	}
	const form = "must be a positive decimal number without an exponent"
	for in, want := range map[string]string{
		"": form, "-1": form, "+1": form, "-0": form, "01": form, "00": form, "00.5": form, ".5": form, "5.": form, "1e2": form, "1E2": form, "1e-2": form,
		"1.5e1": form, "0x10": form, "1_000": form, "1,000": form, "1,5": form, " 1": form, "1 ": form, "1\n": form, "NaN": form, "Inf": form, "١": form, "1.2.3": form,
		"1234567890123": "must have at most 12 digits before the point", strings.Repeat("9", 400): "must have at most 12 digits before the point",
		"1.00001": "is finer than the currency's minor unit", "0.00001": "is finer than the currency's minor unit",
		"0": "must be greater than zero", "0.0": "must be greater than zero", "0.0000000": "must be greater than zero",
	} {
		if got, err := domain.ParseAmount(in); got != 0 || err == nil || err.Error() != want {
			t.Errorf("%q is %d, %v; want %q", in, got, err, want)
		}
	}
}

func TestAmount_json(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]domain.Amount{`100.5`: 1_005_000, `1`: 10_000, `0.0001`: 1, `999999999999.9999`: 9_999_999_999_999_999, `null`: 0} {
		var got domain.Amount = 7
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %d, %v", text, got, err)
		}
		if out, err := json.Marshal(want); err != nil || string(out) != text {
			t.Errorf("%d is written as %s, %v", want, out, err)
		}
	}
	var got domain.Amount
	if err := json.Unmarshal([]byte(`"100.50"`), &got); err != nil || got != 1_005_000 || got.String() != "100.5" {
		t.Errorf("a string is read as %s, %v", got, err)
	}
	for _, text := range []string{`"`, `""`, `"null"`, `"1`, `1"`, `[]`, `true`} {
		got := domain.Amount(7)
		if err := got.UnmarshalJSON([]byte(text)); err == nil || got != 7 {
			t.Errorf("%s is read as %d", text, got)
		}
	}
}

func TestCurrency(t *testing.T) {
	t.Parallel()
	for c, want := range map[domain.Currency]domain.Amount{
		"USD": 100, "EUR": 100, "CHF": 100, "ZWG": 100, "JPY": 10_000, "KRW": 10_000, "KWD": 10, "BHD": 10, "CLF": 1, "UYW": 1,
	} {
		if !c.Known() || c.MinorUnit() != want {
			t.Errorf("%s: known %t, minor unit %d, want %d", c, c.Known(), c.MinorUnit(), want)
		}
	}
	for _, c := range []domain.Currency{"", "usd", "USDT", "XXX", "XTS", "XAU", "DEM", "HRK", "US", "ABC", " USD"} {
		if c.Known() {
			t.Errorf("%q is known", c)
		}
	}
}

func TestCount_json(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]domain.Count{`1`: 1, `2147483647`: 2147483647, `null`: 0} {
		got := domain.Count(7)
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %d, %v", text, got, err)
		}
		if out, err := json.Marshal(want); err != nil || string(out) != text {
			t.Errorf("%d is written as %s, %v", want, out, err)
		}
	}
	for _, text := range []string{`1.5`, `1e3`, `"1"`, `true`, `99999999999999999999`} {
		if err := json.Unmarshal([]byte(text), new(domain.Count)); err == nil {
			t.Errorf("%s is read", text)
		}
	}
}

// TestFields_bounds gives one field at a time and says whether it is accepted, or
// what it is told.
func TestFields_bounds(t *testing.T) {
	t.Parallel()
	const (
		number  = "must be a whole number from 1 to 2147483647"
		seconds = "must be a whole number from 1 to 31536000"
		token   = "must be 1 to 128 visible ASCII characters"
		name    = "must have 0 to 200 characters"
		control = "must not have control characters"
		str     = "must be a string"
		object  = "must be a JSON object"
	)
	quote := func(s string) string { return `"` + s + `"` }
	member := func(size int) string { return `{"k":"` + strings.Repeat("x", size-len(`{"k":""}`)) + `"}` }
	for _, c := range []struct{ field, value, want string }{
		{"maxCapacity", "1", ""},
		{"maxCapacity", "2147483647", ""},
		{"maxCapacity", "2147483648", number},
		{"maxCapacity", "0", number},
		{"maxCapacity", "-0", number},
		{"maxCapacity", "-1", number},
		{"maxCapacity", "1.0", number},
		{"maxCapacity", "1e1", number},
		{"maxCapacity", `"1"`, number},
		{"maxCapacity", "99999999999999999999", number},
		{"maxCapacity", "{}", number},
		{"sessionDurationSeconds", "31536000", ""},
		{"sessionDurationSeconds", "31536001", seconds},

		{"sequenceId", quote(strings.Repeat("~", 128)), ""},
		{"sequenceId", quote("!"), ""},
		{"sequenceId", quote(strings.Repeat("~", 129)), token},
		{"sequenceId", quote(""), token},
		{"sequenceId", quote("a b"), token},
		{"sequenceId", quote("a\u007f"), token},
		{"sequenceId", quote("é"), token},
		{"sequenceId", quote(`a\n`), token},
		{"sequenceId", "1", str},

		{"name", quote(strings.Repeat("é", 200)), ""},
		{"name", quote(strings.Repeat("é", 201)), name},
		{"name", quote(strings.Repeat("😀", 200)), ""},
		{"name", quote(`a\u0000`), control},
		{"name", quote(`a\tb`), control},
		{"name", quote("a\u007f"), control},
		{"name", quote(`😀\"\\/`), ""},
		{"name", "[]", str},
		{"name", "true", str},

		{"encryptionSeed", quote("x"), ""},
		{"encryptionSeed", quote(strings.Repeat("é", 256)), ""},
		{"encryptionSeed", quote(strings.Repeat("é", 257)), "must have 1 to 256 characters"},
		{"encryptionSeed", quote(""), "must have 1 to 256 characters"},
		{"encryptionSeed", "7", str},

		{"timeZone", quote("America/Argentina/Buenos_Aires"), ""},
		{"timeZone", quote("Local"), "must be an IANA time zone such as Europe/Berlin"},
		{"timeZone", "1", str},
		{"openAt", "1", str},
		{"closeAt", quote("2026-03-29T02:30:00"), ""},

		{"metadata", "{}", ""},
		{"metadata", `{"a": {"b": [null, 1e400]}}`, ""},
		{"metadata", member(16 << 10), ""},
		{"metadata", member(16<<10 + 1), "must be at most 16384 bytes of JSON"},
		{"metadata", "{" + strings.Repeat(" ", 16<<10) + "}", ""},
		{"metadata", "[]", object},
		{"metadata", quote("{}"), object},
		{"metadata", "7", object},
		{"metadata", "{\"a\":\"\xff\"}", object},
		{"metadata", `{"a":`, object},
		{"metadata", ``, object},
	} {
		cmd := create(domain.KindQueue, `{}`)
		cmd.Fields[c.field] = json.RawMessage(c.value)
		events, err := domain.NewDistribution(domain.KindQueue).Decide(at("08:00"), cmd)
		var want error
		if c.want != "" {
			want = &domain.Error{Code: domain.ValidationFailed, Details: []domain.Detail{problem(c.field, c.want)}}
		}
		if fmt.Sprint(err) != fmt.Sprint(want) || len(events) != 1 && want == nil {
			t.Errorf("%s %.40s: got %v, want %v", c.field, c.value, err, want)
		}
	}
}

func TestFields_localTimeInAGapOrTwice(t *testing.T) {
	t.Parallel()
	run(t, map[string]domaintest.Scenario{
		"says that the clocks skip it, or show it twice": {
			Kind: domain.KindQueue, Now: at("08:00"),
			When:    create(domain.KindQueue, `{"timeZone": "Europe/Berlin", "openAt": "2026-03-29T02:30:00", "closeAt": "2026-10-25T02:30:00"}`),
			Refused: domain.ValidationFailed, Details: []domain.Detail{
				problem("openAt", "does not exist in Europe/Berlin: the clocks are put forward over it; give an offset"),
				problem("closeAt", "happens twice in Europe/Berlin: the clocks are put back through it; give an offset"),
			},
		},
	})
}

// Vectors of the TypeID specification.
func TestID_vectors(t *testing.T) {
	t.Parallel()
	for uuid, want := range map[string]string{
		"00000000-0000-0000-0000-000000000000": "00000000000000000000000000",
		"00000000-0000-0000-0000-000000000001": "00000000000000000000000001",
		"00000000-0000-0000-0000-00000000000a": "0000000000000000000000000a",
		"00000000-0000-0000-0000-000000000010": "0000000000000000000000000g",
		"00000000-0000-0000-0000-000000000020": "00000000000000000000000010",
		"ffffffff-ffff-ffff-ffff-ffffffffffff": "7zzzzzzzzzzzzzzzzzzzzzzzzz",
		"0110c853-1d09-52d8-d73e-1194e95b5f19": "0123456789abcdefghjkmnpqrs",
		"01890a5d-ac96-774b-bcce-b302099a8057": "01h455vb4pex5vsknk084sn02q",
	} {
		var raw [16]byte
		if _, err := hex.Decode(raw[:], []byte(strings.ReplaceAll(uuid, "-", ""))); err != nil {
			t.Fatal(err)
		}
		if got := domain.Base32(raw); got != want {
			t.Errorf("%s is %s, want %s", uuid, got, want)
		}
		id := domain.NewID("queue", raw)
		if got, ok := domain.ParseID("queue", string(id)); id != domain.ID("queue_"+want) || !ok || got != id {
			t.Errorf("%s is read as %s, %t", id, got, ok)
		}
	}
}

func TestParseID_refuses(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"", "queue", "queue_", "_" + uuid32, uuid32, "draw_" + uuid32, "QUEUE_" + uuid32, "queue-" + uuid32, "queue_" + uuid32[1:], "queue_" + uuid32 + "0",
		"queue_8" + uuid32[1:], "queue_" + strings.ToUpper(uuid32), "queue_" + uuid32[:25] + "i", "queue_" + uuid32[:25] + "l", "queue_" + uuid32[:25] + "o",
		"queue_" + uuid32[:25] + "u", "queue_" + uuid32[:25] + "\n", "queue_/" + uuid32[1:], " queue_" + uuid32, "queue__" + uuid32[1:], "queue_" + uuid32[:24] + "é",
	} {
		if id, ok := domain.ParseID("queue", s); ok || id != "" {
			t.Errorf("%q is read as %s", s, id)
		}
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()
	for id, want := range map[domain.ID]string{
		"queue_" + uuid32: "queue-" + uuid32, "draw_" + uuid32: "draw-" + uuid32,
		"auction_" + uuid32: "auction-" + uuid32, "org_" + uuid32: "organization-" + uuid32,
	} {
		if got := id.Stream(); got != want {
			t.Errorf("%s is in %s, want %s", id, got, want)
		}
		if got, err := domain.StreamID(want); err != nil || got != id {
			t.Errorf("%s is of %s, %v", want, got, err)
		}
		if got := domain.StreamKind(want); got != id.Kind() {
			t.Errorf("%s is of kind %q, the id of %q", want, got, id.Kind())
		}
	}
	for _, s := range []string{
		"", "queue", "queue-", "queue_" + uuid32, "org-" + uuid32, "lottery-" + uuid32, "$ce-queue", "queue-x", "queue-8" + uuid32[1:], "queue--" + uuid32[1:],
		"claim-" + uuid32, "seal-" + uuid32, "sink-" + uuid32, "Queue-" + uuid32,
	} {
		if got, err := domain.StreamID(s); err == nil || got != "" {
			t.Errorf("%q is of %s", s, got)
		}
	}
	for s, want := range map[string]domain.Kind{
		"queue-1": domain.KindQueue, "draw-a-b": domain.KindDraw, "auction-": domain.KindAuction, "organization-1": domain.KindOrganization,
		domain.ClaimStream("c-1"): domain.KindClaim, domain.SealStream: domain.KindSeal, domain.ClockStream: domain.KindClock,
		"queue": "", "": "", "-": "", "$ce-queue": "", "org-1": "", "queues-1": "", "-queue": "", "sinks-bus": "",
	} {
		if got := domain.StreamKind(s); got != want {
			t.Errorf("%q is of kind %q, want %q", s, got, want)
		}
	}
	for id, want := range map[domain.ID]domain.Kind{"bid_" + uuid32: "", "evt_" + uuid32: "", "": "", "organization_" + uuid32: ""} {
		if got := id.Kind(); got != want {
			t.Errorf("%q is of kind %q", id, got)
		}
	}
	for _, k := range domain.StreamKinds() {
		if got, want := k.Distribution(), slices.Contains(domain.Kinds(), k); got != want {
			t.Errorf("%s is a distribution: %t", k, got)
		}
	}
	if got := domain.KindAuction.Title() + domain.Kind("").Title(); got != "AuctionDistribution" {
		t.Errorf("titles are %s", got)
	}
}

func TestHashes(t *testing.T) {
	t.Parallel()
	for want, parts := range map[string][][]byte{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855": {},
		"af5570f5a1810b7af78caf4bc70a660f0df51e42baf91d4de5b2328de0e83dfc": {nil},
		"6aa98e17c109dd8e2ae23a478ceb48e193c730289ba48d741388a3cc8b38ef4f": {[]byte("a"), nil},
		"601d5476e2ccfe2c87a2bba7a322659734a05749d5b5aa781f513e4912db0d5f": {[]byte("ab"), []byte("c")},
	} {
		if got := domain.HashParts(parts...); hex.EncodeToString(got[:]) != want {
			t.Errorf("%q hash to %x, want %s", parts, got, want)
		}
	}
	id := [16]byte{0x01, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b, 0xbc, 0xce, 0xb3, 0x02, 0x09, 0x9a, 0x80, 0x57}
	metadata := []byte(`{"schemaVersion":1}`)
	first := domain.EventHash(id, "queue.created", "queue-"+uuid32, 0, []byte(`{"at":1}`), metadata, "")
	second := domain.EventHash(id, "queue.opened", "queue-"+uuid32, 1, []byte(`{"at":2}`), metadata, first)
	if first != "54gkn8REyWcFQEG2c_OBk50Dcb2fiqJYvK3BIcTDsgw" || second != "AK5AYR5eaf_DN41qGHVfTPrSMWsB3jrCNVXei3i7LaI" {
		t.Errorf("hashes are %s and %s", first, second)
	}
	stored := domain.WithHash(metadata, first)
	if want := `{"schemaVersion":1,"hash":"` + first + `"}`; string(stored) != want {
		t.Errorf("stored as %s, want %s", stored, want)
	}
	split, hash, ok := domain.SplitHash(stored)
	if string(split) != string(metadata) || hash != first || !ok {
		t.Errorf("split into %s, %s, %t", split, hash, ok)
	}
	for _, s := range []string{
		"", "{}", `{"schemaVersion":1}`, string(stored) + " ", strings.TrimSuffix(string(stored), "}") + "]", strings.Replace(string(stored), first, first[1:], 1),
		`{"hash":"` + first + `"}`, `,"hash":"` + first + `"}`, `{"schemaVersion":1, "hash":"` + first + `"}`, `{"hash":"` + first + `","schemaVersion":1}`,
	} {
		if m, h, ok := domain.SplitHash([]byte(s)); ok || m != nil || h != "" {
			t.Errorf("%s is split into %s, %s", s, m, h)
		}
	}
}

func TestSecret_json(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]domain.Secret{`""`: {}, `"abc"`: {Sealed: "abc"}, `"abd"`: {Sealed: "abd", Plain: "x"}} {
		if got, err := json.Marshal(s); err != nil || string(got) != want {
			t.Errorf("%+v is written as %s, %v", s, got, err)
		}
	}
	if got, err := json.Marshal(domain.Secret{Plain: "hidden"}); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("unsealed it is written as %s, %v", got, err)
	}
	if got, err := json.Marshal(created(domain.KindDraw, "08:00", nil)); err == nil {
		t.Errorf("an event with an unsealed secret is written as %s", got)
	}
	s := domain.Secret{Plain: "old", Sealed: "old"}
	if err := json.Unmarshal([]byte(`"new"`), &s); err != nil || s != (domain.Secret{Sealed: "new"}) {
		t.Errorf("is read as %+v, %v", s, err)
	}
	if err := json.Unmarshal([]byte(`1`), &s); err == nil {
		t.Error("a number is read as a secret")
	}
}

func TestPosition_before(t *testing.T) {
	t.Parallel()
	order := []domain.Position{{}, {0, 1}, {1, 0}, {1, 2}, {2, 1}}
	for i, p := range order {
		for j, q := range order {
			if p.Before(q) != (i < j) {
				t.Errorf("%v before %v: %t", p, q, p.Before(q))
			}
		}
	}
}

func TestProposed_size(t *testing.T) {
	t.Parallel()
	p := domain.Proposed{Type: "queue.created", Data: make([]byte, 1000), Metadata: make([]byte, 100)}
	if got := p.Size(); got < 1113 || got > 2000 {
		t.Errorf("size is %d", got)
	}
}

func TestError(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"Queue not found":                                  domain.Refuse(domain.NotFound(domain.KindQueue), ""),
		"Invalid status transition: it is OPEN":            domain.Refuse(domain.InvalidTransition, "it is %s", domain.StatusOpen),
		"Validation failed: a is bad; b is worse":          &domain.Error{Code: domain.ValidationFailed, Details: []domain.Detail{problem("a", "is bad"), problem("b", "is worse")}},
		"Validation failed: two things: a is bad; b is so": &domain.Error{Code: domain.ValidationFailed, Message: "two things", Details: []domain.Detail{problem("a", "is bad"), problem("b", "is so")}},
	} {
		if err.Error() != want {
			t.Errorf("says %q, want %q", err, want)
		}
	}
	for code, want := range map[domain.Code]string{
		domain.UpdateClosed: "CANNOT_UPDATE_CLOSED_DISTRIBUTION", domain.NotFound(domain.KindDraw): "DRAW_NOT_FOUND", domain.NotFound(""): "DISTRIBUTION_NOT_FOUND",
	} {
		if got := code.Identifier(); got != want {
			t.Errorf("%s is %s, want %s", code, got, want)
		}
	}
}

func TestVisibleASCII(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{"!": true, "~~~": true, "": false, "~~~~": false, " ": false, "a b": false, "\x7f": false, "é": false, "\x1f": false} {
		if got := domain.VisibleASCII(s, 3); got != want {
			t.Errorf("%q: %t", s, got)
		}
	}
}

// docs/integrity.md shows this example, for readers who check with a program of their
// own.
func TestIntegrity_theDocumentedExample(t *testing.T) {
	t.Parallel()
	id := [16]byte{15: 1}
	got := domain.EventHash(id, "queue.opened", "queue-x", 7, []byte(`{"at":"2026-12-15T09:00:00.000Z"}`), []byte(`{"schemaVersion":1}`), "abc")
	page, err := os.ReadFile("../docs/integrity.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "has the hash `"+got+"`") {
		t.Errorf("the page does not show %s", got)
	}
}

// Half of a surrogate pair would be stored as another character.
func TestText_refusesHalfACharacter(t *testing.T) {
	t.Parallel()
	for value, good := range map[string]bool{
		`"a\ud800b"`: false, `"\ud800"`: false, `"\udc00\ud800"`: false, `"\ud800\n"`: false, `"\ud83d\ude00\ude00"`: false,
		`"\uD83D\uDE00"`: true, `"\ufffd"`: true, `"\\ud800"`: true, `"\u00e9"`: true, `"😀"`: true,
	} {
		for _, field := range []string{"name", "encryptionSeed"} {
			c := create(domain.KindQueue, `{}`)
			c.Fields[field] = json.RawMessage(value)
			_, err := domaintest.Carry(domain.NewHistory(c.ID.Stream()), at("08:00"), c)
			if (err == nil) != good {
				t.Errorf("%s %s: %v", field, value, err)
			}
		}
	}
}
