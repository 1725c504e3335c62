package httpapi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lotline/lotline/domain"
)

// A bad request is refused with everything that is wrong with it, and writes nothing.
func TestBadInput_isRefusedAndWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	path, _ := w.create("auctions", `{"sequenceId":"s","settleAt":"2026-06-01T00:00:00Z","timeZone":"Europe/Berlin"}`)
	w.create("auctions", kindCases[2].body)
	const malformed = "Invalid JSON"
	member := func(name, value string) string { return `{"` + name + `":` + value + `}` }
	// asCreation adds the fields that a creation requires, so that nothing else is wrong.
	asCreation := func(body string) string {
		body = `{"sequenceId":"s",` + body[1:]
		if !strings.Contains(body, "settleAt") {
			body = `{"settleAt":"2026-06-01T00:00:00Z",` + body[1:]
		}
		return strings.Replace(body, `"auctionType":null`, `"auctionType":0`, 1)
	}
	for name, c := range map[string]struct {
		body   string
		status int      // 0 means 400
		text   string   // "" means "Validation failed" for the fields
		fields []string // the wrong fields, in order
	}{
		"malformed JSON":       {body: `{"name":"x"`, text: malformed},
		"another value":        {body: `"name"`, text: malformed},
		"NaN":                  {body: member("startingBid", "NaN"), text: malformed},
		"minus infinity":       {body: member("winnerCount", "-Infinity"), text: malformed},
		"a leading zero":       {body: member("winnerCount", "01"), text: malformed},
		"invalid UTF-8":        {body: "{\"name\":\"\xc3\x28\"}", text: malformed},
		"a surrogate in UTF-8": {body: "{\"name\":\"\xed\xa0\x80\"}", text: malformed},
		"an overlong slash":    {body: "{\"name\":\"\xc0\xaf\"}", text: malformed},
		"NUL as a byte":        {body: "{\"name\":\"a\x00b\"}", text: malformed},
		"NUL outside a string": {body: "{\"name\":\"a\"}\x00", text: malformed},
		"nesting without end":  {body: member("metadata", strings.Repeat(`{"a":`, 100_000)), text: malformed},
		"nesting too deep":     {body: member("metadata", strings.Repeat("[", 20_000)+strings.Repeat("]", 20_000)), text: malformed},
		"a field twice":        {body: `{"name":"a","name":"b"}`, text: malformed},
		"a name twice within":  {body: `{"metadata":{"a":1,"a":1}}`, text: malformed},
		"1 MiB and one byte":   {body: `{"name":"` + strings.Repeat("x", maxBody+1-len(`{"name":""}`)) + `"}`, status: 413, text: "Content too large"},

		"NUL as an escape":             {body: member("name", `"a\u0000b"`), fields: []string{"name"}},
		"half a character":             {body: member("name", `"\ud800"`), fields: []string{"name"}},
		"a control character":          {body: member("name", `"a\u001bb"`), fields: []string{"name"}},
		"unknown fields":               {body: `{"zebra":1,"apple":null,"":0,"Name":"x"}`, fields: []string{"", "Name", "apple", "zebra"}},
		"wrong types":                  {body: `{"name":{},"timeZone":1,"openAt":true,"metadata":[],"settleAt":0,"startingBid":[],"currencyCode":{},"winnerCount":"2","auctionType":null}`, fields: []string{"name", "timeZone", "openAt", "metadata", "settleAt", "startingBid", "currencyCode", "winnerCount", "auctionType"}},
		"huge numbers":                 {body: `{"startingBid":1e400,"winnerCount":1` + strings.Repeat("0", 400) + `,"maxExtensions":1e400}`, fields: []string{"startingBid", "winnerCount", "maxExtensions"}},
		"NaN in a string":              {body: member("startingBid", `"NaN"`), fields: []string{"startingBid"}},
		"a day that does not exist":    {body: member("openAt", `"2026-02-30T00:00:00Z"`), fields: []string{"openAt"}},
		"an hour that does not exist":  {body: member("openAt", `"2026-02-28T24:00:00Z"`), fields: []string{"openAt"}},
		"an unknown zone":              {body: member("timeZone", `"Mars/Olympus_Mons"`), fields: []string{"timeZone"}},
		"a path for a zone":            {body: member("timeZone", `"../../etc/passwd"`), fields: []string{"timeZone"}},
		"the machine's zone":           {body: member("timeZone", `"Local"`), fields: []string{"timeZone"}},
		"a time in a gap":              {body: member("openAt", `"2026-03-29T02:30:00"`), fields: []string{"openAt"}},
		"a time that happens twice":    {body: member("openAt", `"2026-10-25T02:30:00"`), fields: []string{"openAt"}},
		"close before open":            {body: `{"openAt":"2026-05-02T00:00:00Z","closeAt":"2026-05-01T00:00:00Z"}`, fields: []string{"closeAt"}},
		"close when it opens":          {body: `{"openAt":"2026-05-01T00:00:00Z","closeAt":"2026-05-01T02:00:00+02:00"}`, fields: []string{"closeAt"}},
		"settle before close":          {body: `{"settleAt":"2026-06-02T00:00:00Z","closeAt":"2026-07-01T00:00:00Z"}`, fields: []string{"settleAt"}},
		"the reserve below the start":  {body: `{"startingBid":2,"reservePrice":1}`, fields: []string{"reservePrice"}},
		"dutch fields where english":   {body: `{"startPrice":9,"floorPrice":1}`, fields: []string{"startPrice", "floorPrice"}},
		"finer than the currency":      {body: `{"currencyCode":"JPY","startingBid":1.5,"reservePrice":"2.01"}`, fields: []string{"startingBid", "reservePrice"}},
		"several, each in its own way": {body: `{"x":1,"name":7,"openAt":"soon","startingBid":-1,"winnerCount":0,"status":"OPEN"}`, fields: []string{"x", "name", "status", "openAt", "startingBid", "winnerCount"}},
	} {
		w.tb = t
		t.Run(name, func(t *testing.T) {
			w.tb = t
			for method, path := range map[string]string{http.MethodPut: path, http.MethodPost: "/api/v1/auctions"} {
				body := c.body
				if c.fields != nil && method == http.MethodPost {
					body = asCreation(body)
				}
				var a *reply
				w.writes(0, func() { a = w.do(method, path, body) })
				if c.fields != nil {
					a.blames(c.fields...)
					continue
				}
				a.refuses(max(c.status, http.StatusBadRequest), c.text)
				if c.text == malformed && !strings.HasPrefix(a.failure().Message, "at byte ") {
					t.Errorf("%s: the message does not say where: %s", a.what, a.Body)
				}
			}
		})
	}
}

// If two fields contradict each other, the refusal names the field that the PUT changes,
// also if the client sends the whole object back.
func TestBadInput_aConflictIsReportedForTheChangedField(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	paths := map[string]string{}
	for _, c := range kindCases {
		paths[c.kind], _ = w.create(c.collection, scheduleOf(c.kind, withOpening))
	}
	priced, _ := w.create("auctions", scheduleOf("auction", `,"startingBid":2,"reservePrice":3,"buyNowPrice":4`))
	const early, late = "2026-04-01T00:00:00.000Z", "2026-06-01T00:00:00.000Z"
	for _, c := range []struct {
		path, field, value string // JSON
		other              string
	}{
		{paths["queue"], "openAt", `"` + closing + `"`, "closeAt"},
		{paths["queue"], "closeAt", `"` + opening + `"`, "openAt"},
		{paths["draw"], "closeAt", `"` + late + `"`, "drawAt"},
		{paths["draw"], "drawAt", `"` + opening + `"`, "closeAt"},
		{paths["auction"], "closeAt", `"` + late + `"`, "settleAt"},
		{paths["auction"], "settleAt", `"` + opening + `"`, "closeAt"},
		{priced, "startingBid", "5", "reservePrice"},
		{priced, "reservePrice", "1", "startingBid"},
		{priced, "reservePrice", "9", "buyNowPrice"},
		{priced, "buyNowPrice", "1", "reservePrice"},
	} {
		object := w.do(http.MethodGet, c.path, "").object()
		object[c.field] = json.RawMessage(c.value)
		for _, body := range []string{`{"` + c.field + `":` + c.value + `}`, asJSON(t, object)} {
			var a *reply
			w.writes(0, func() { a = w.do(http.MethodPut, c.path, body) })
			for i, d := range a.refuses(http.StatusBadRequest, "Validation failed").failure().Details {
				if d.Field != c.field || i == 0 && !strings.HasSuffix(d.Message, " "+c.other) {
					t.Errorf("%s: %s", a.what, a.Body)
				}
			}
		}
	}
	// If a PUT changes both fields, the refusal names the second one of the schedule.
	w.do(http.MethodPut, paths["draw"], `{"closeAt":"`+late+`","drawAt":"`+early+`"}`).blames("drawAt", "drawAt")
}

// A cursor or position that the client changed is refused.
func TestBadInput_aChangedTokenIsRefused(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	cursor := w.cursor("/api/v1/queues")
	path, _ := w.create("queues", kindCases[0].body)
	position := w.do(http.MethodPut, path, `{"name":"x"}`).Header().Get("X-Position")
	w.do(http.MethodGet, path, "", header("X-Position", position)).is(http.StatusOK)
	w.do(http.MethodGet, "/api/v1/queues?after="+cursor, "").is(http.StatusOK)
	w.writes(0, func() {
		w.do(http.MethodGet, "/api/v1/queues?after="+cursor[:9]+"%0D%0A"+cursor[9:], "").blames("after")
		for _, change := range map[string]func(string) string{
			"cut":         func(s string) string { return s[:len(s)-1] },
			"longer":      func(s string) string { return s + "A" },
			"padded":      func(s string) string { return s + "=" },
			"another bit": func(s string) string { return string(s[0]^1) + s[1:] },
			"in capitals": strings.ToUpper,
			"twice":       func(s string) string { return s + s },
			"nothing":     func(string) string { return "" },
			"a number":    func(string) string { return "1" },
		} {
			w.do(http.MethodGet, path, "", header("X-Position", change(position))).blames("X-Position")
			w.do(http.MethodGet, "/api/v1/queues", "", header("X-Position", change(position))).blames("X-Position")
			w.do(http.MethodGet, "/api/v1/queues?after="+change(cursor), "").blames("after")
			w.do(http.MethodGet, "/api/v1/queues?before="+change(cursor), "").blames("before")
		}
	})
}

// edges are values of one field around its bounds. Each value is sent in a request of its own.
type edges struct {
	collection, field string
	good              []string // accepted JSON values; " -> " separates the answered value, if it differs
	bad               []string
	unset             string // the value that null means in a creation; "" if null is refused
	clears            bool   // whether PUT accepts null
}

// fixed are the fields that are set by the creation and never change. dutch are the fields
// that only a dutch auction has.
var (
	fixed = []string{"sequenceId", "encryptionSeed"}
	dutch = []string{"startPrice", "floorPrice", "priceDropAmount", "priceDropIntervalSeconds"}
)

// someValue stands for a value that the engine generates.
const someValue = "some"

func fieldEdges() []edges {
	quoted := func(s string, n int) string { return `"` + strings.Repeat(s, n) + `"` }
	notText := []string{"7", "true", "[]", "{}"}
	join := func(parts ...[]string) (all []string) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	// number has the edges of a whole number from 1 to highest.
	number := func(collection, field, highest, over, unset string, clears bool) edges {
		return edges{
			collection, field,
			[]string{"1", highest},
			[]string{"0", over, "-1", "1.0", "1.5", "1e2", `"1"`, `""`, "true", "[]", "{}", "9223372036854775808"},
			unset, clears,
		}
	}
	count := func(collection, field, unset string, clears bool) edges {
		return number(collection, field, "2147483647", "2147483648", unset, clears)
	}
	seconds := func(collection, field, unset string, clears bool) edges {
		return number(collection, field, "31536000", "31536001", unset, clears)
	}
	moment := func(collection, field, unset string, clears bool) edges {
		highest := `"2199-12-31T23:59:59.999Z"`
		if field == "openAt" {
			highest = `"2199-12-31T23:59:59.998Z"` // settleAt must be later still
		}
		return edges{
			collection, field,
			[]string{
				`"2000-01-01T00:00:00Z" -> "2000-01-01T00:00:00.000Z"`, highest,
				`"2026-12-15t09:00:00.1239+01:00" -> "2026-12-15T08:00:00.123Z"`,
				`"2026-12-15T09:00:00" -> "2026-12-15T08:00:00.000Z"`, // Berlin is one hour ahead of UTC
				`"2024-02-29T00:00:00Z" -> "2024-02-29T00:00:00.000Z"`,
			},
			join(notText, []string{
				`""`, `"1999-12-31T23:59:59.999Z"`, `"2200-01-01T00:00:00Z"`, `"2026-02-29T00:00:00Z"`, `"2026-13-01T00:00:00Z"`,
				`"2026-12-15"`, `"09:00:00"`, `"2026-12-15T09:00Z"`, `"2026-12-15 09:00:00Z"`, `"2026-12-15T09:00:60Z"`,
				`"2026-12-15T09:00:00+24:00"`, `"2026-03-29T02:00:00"`, `"2026-10-25T02:59:59"`, `"now"`, `"1765785600"`,
			}),
			unset, clears,
		}
	}
	money := func(field, unset string, clears bool) edges {
		return edges{
			"auctions", field,
			[]string{"0.01", "999999999999.99", `"100.50" -> 100.5`, "1.00 -> 1", "7"},
			[]string{"0", "0.00", "-1", "0.001", "0.009", "1000000000000", "1e2", `""`, `"1,5"`, `"abc"`, `" 1"`, "true", "[]", "{}", `"0x10"`, `"1_0"`, "1.00000000000001"},
			unset, clears,
		}
	}
	all := []edges{
		count("queues", "maxCapacity", "null", true), count("queues", "admissionRate", "null", true), seconds("queues", "sessionDurationSeconds", "null", true),
		moment("draws", "drawAt", "", false), count("draws", "winnerCount", "", false), count("draws", "maxEntries", "null", true),
		seconds("draws", "claimWindowSeconds", "null", true),
		{"draws", "backfill", []string{"true", "false"}, []string{`"true"`, "0", "1", `""`, "[]", "{}"}, "true", false},
		{"draws", "entropySource", []string{quoted("é", 1), quoted("é", 256)}, join(notText, []string{`""`, quoted("é", 257), `"a\u0000"`}), "null", true},
		moment("auctions", "settleAt", "", false),
		money("startingBid", "null", true), money("minimumIncrement", "null", true), money("reservePrice", "null", true), money("buyNowPrice", "null", true),
		{"auctions", "currencyCode", []string{`"JPY"`, `"BHD"`}, join(notText, []string{`""`, `"usd"`, `"XXX"`, `"EURO"`}), `"EUR"`, false},
		count("auctions", "winnerCount", "1", false),
		{"auctions", "auctionType", []string{`"english"`}, join(notText, []string{`""`, `"English"`, `"sealed"`}), `"english"`, false},
		seconds("auctions", "autoExtendSeconds", "null", true), count("auctions", "maxExtensions", "null", true),
		money("startPrice", "", false), money("floorPrice", "null", true), money("priceDropAmount", "", false),
		seconds("auctions", "priceDropIntervalSeconds", "", false),
	}
	for _, c := range kindCases {
		all = append(
			all,
			edges{c.collection, "sequenceId", []string{`"!"`, quoted("~", 128)}, join(notText, []string{`""`, quoted("~", 129), `"a b"`, `"é"`, `"a\u0000"`, `"\u007f"`}), "", false},
			edges{c.collection, "encryptionSeed", []string{`" "`, quoted("é", 256)}, join(notText, []string{`""`, quoted("é", 257), `"a\nb"`}), someValue, false},
			edges{c.collection, "name", []string{`""`, quoted("é", 200), quoted("😀", 200)}, join(notText, []string{quoted("é", 201), `"a\nb"`, `"\u007f"`}), "null", true},
			edges{c.collection, "timeZone", []string{`"UTC"`, `"America/Argentina/Buenos_Aires"`}, join(notText, []string{`""`, `"utc+1"`, `"Europe/berlin"`, `"/etc/localtime"`}), `"Europe/Berlin"`, false},
			moment(c.collection, "openAt", "null", true),
			moment(c.collection, "closeAt", "null", true),
			edges{c.collection, "metadata", []string{"{}", ofSize(16 << 10)}, []string{ofSize(16<<10 + 1), "[]", `"{}"`, `""`, "7", "true"}, "null", true},
		)
	}
	return all
}

// ofSize returns a JSON object of n bytes.
func ofSize(n int) string { return `{"k":"` + strings.Repeat("x", n-len(`{"k":""}`)) + `"}` }

// least returns the fields that a creation in the edges' collection requires. For a field of
// dutch auctions, these include the fields that make the auction a dutch one.
func least(e edges) map[string]string {
	rest := map[string]map[string]string{
		"queues":   {"sequenceId": `"s"`},
		"draws":    {"sequenceId": `"s"`, "drawAt": `"2199-12-31T23:59:59.999Z"`, "winnerCount": "1"},
		"auctions": {"sequenceId": `"s"`, "settleAt": `"2199-12-31T23:59:59.999Z"`},
	}[e.collection]
	if slices.Contains(dutch, e.field) {
		maps.Copy(rest, map[string]string{
			"auctionType": `"dutch"`, "startPrice": "999999999999.99", "priceDropAmount": "1", "priceDropIntervalSeconds": "1",
		})
	}
	return rest
}

func TestFieldEdges_areAcceptedAndValuesBeyondThemRefused(t *testing.T) {
	t.Parallel()
	for _, e := range fieldEdges() {
		t.Run(e.collection+" "+e.field, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			least, isFixed := least(e), slices.Contains(fixed, e.field)
			with := func(value string) string {
				others := maps.Clone(least)
				delete(others, e.field)
				parts := []string{fmt.Sprintf("%q:%s", e.field, value)}
				for name, v := range others {
					parts = append(parts, fmt.Sprintf("%q:%s", name, v))
				}
				return "{" + strings.Join(parts, ",") + "}"
			}
			alone := func(value string) string { return fmt.Sprintf("{%q:%s}", e.field, value) }
			comesOut := func(a *reply, want string) {
				t.Helper()
				var o map[string]json.RawMessage
				if err := json.Unmarshal(a.Body.Bytes(), &o); err != nil || string(o[e.field]) != want && (want != someValue || len(o[e.field]) < 28) {
					t.Errorf("%.200s: it is %s, want %s", a.what, o[e.field], want)
				}
			}
			keepsFixed := func(path, in, out string) {
				t.Helper()
				w.writes(0, func() {
					comesOut(w.do(http.MethodPut, path, alone(in)).is(http.StatusOK), out)
					w.do(http.MethodPut, path, alone(`"another"`)).blames(e.field)
				})
			}
			post := "/api/v1/" + e.collection
			// The PUTs are sent to a draft.
			draft, _ := w.create(e.collection, with(cmp.Or(least[e.field], strings.SplitN(e.good[0], " -> ", 2)[0])))
			if e.field == "openAt" {
				draft, _ = w.create(e.collection, strings.Replace(with("null"), `"openAt":null,`, "", 1))
			}
			for _, good := range e.good {
				in, out, changed := strings.Cut(good, " -> ")
				if !changed {
					out = in
				}
				one := w.do(http.MethodPost, post, with(in)).is(http.StatusCreated)
				comesOut(one, out)
				switch {
				case e.field == "openAt": // setting it would open the draft
				case isFixed:
					keepsFixed(one.Header().Get("Location"), in, out)
				default:
					comesOut(w.do(http.MethodPut, draft, alone(in)).is(http.StatusOK), out)
				}
			}
			w.writes(0, func() {
				for _, bad := range e.bad {
					w.do(http.MethodPost, post, with(bad)).blames(e.field)
					w.do(http.MethodPut, draft, alone(bad)).blames(e.field)
				}
				if e.unset == "" {
					w.do(http.MethodPost, post, with("null")).blames(e.field)
				}
				if !e.clears {
					w.do(http.MethodPut, draft, alone("null")).blames(e.field)
				}
			})
			if e.unset != "" {
				comesOut(w.do(http.MethodPost, post, with("null")).is(http.StatusCreated), e.unset)
			}
			if e.clears {
				comesOut(w.do(http.MethodPut, draft, alone("null")).is(http.StatusOK), "null")
			}
		})
	}
}

// A bad request about participants is refused with everything that is wrong with it, and
// writes nothing.
func TestBadInput_ofParticipantCallsIsRefused(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	path := w.openQueue()
	w.enter(path, "c", "d")
	const malformed, nothing = "Invalid JSON", "Validation failed"
	long := strings.Repeat("x", 129)
	for name, c := range map[string]struct {
		call, body string
		text       string
		fields     []string
	}{
		"no body":                    {"admit", "", malformed, nil},
		"no object":                  {"complete", `["c"]`, malformed, nil},
		"half an object":             {"deny", `{"consumerId":"c"`, malformed, nil},
		"a field twice":              {"admit", `{"count":1,"count":2}`, malformed, nil},
		"nobody and no number":       {"admit", `{}`, nothing, []string{"count"}},
		"both":                       {"admit", `{"consumerId":"c","count":1}`, nothing, []string{"count"}},
		"both, and both wrong":       {"admit", `{"consumerId":7,"count":0,"x":1}`, nothing, []string{"consumerId", "count", "count", "x"}},
		"none":                       {"admit", `{"count":0}`, nothing, []string{"count"}},
		"fewer than none":            {"admit", `{"count":-1}`, nothing, []string{"count"}},
		"too many":                   {"admit", `{"count":1001}`, nothing, []string{"count"}},
		"a half":                     {"admit", `{"count":1.5}`, nothing, []string{"count"}},
		"a whole as a fraction":      {"admit", `{"count":1.0}`, nothing, []string{"count"}},
		"a number in a string":       {"admit", `{"count":"1"}`, nothing, []string{"count"}},
		"an exponent":                {"admit", `{"count":1e2}`, nothing, []string{"count"}},
		"a huge number":              {"admit", `{"count":9223372036854775808}`, nothing, []string{"count"}},
		"a null":                     {"admit", `{"count":null}`, nothing, []string{"count"}},
		"a list":                     {"admit", `{"count":[1]}`, nothing, []string{"count"}},
		"nobody":                     {"complete", `{}`, nothing, []string{"consumerId"}},
		"an empty id":                {"complete", `{"consumerId":""}`, nothing, []string{"consumerId"}},
		"an id of null":              {"complete", `{"consumerId":null}`, nothing, []string{"consumerId"}},
		"an id of a number":          {"admit", `{"consumerId":1}`, nothing, []string{"consumerId"}},
		"a long id":                  {"admit", `{"consumerId":"` + long + `"}`, nothing, []string{"consumerId"}},
		"an id with a blank":         {"complete", `{"consumerId":"a b"}`, nothing, []string{"consumerId"}},
		"an id beyond ASCII":         {"complete", `{"consumerId":"ü"}`, nothing, []string{"consumerId"}},
		"no reason":                  {"deny", `{"consumerId":"c"}`, nothing, []string{"reason"}},
		"another reason":             {"deny", `{"consumerId":"c","reason":"BORED"}`, nothing, []string{"reason"}},
		"a reason in lower case":     {"deny", `{"consumerId":"c","reason":"fraud_detected"}`, nothing, []string{"reason"}},
		"the end's own reason":       {"deny", `{"consumerId":"c","reason":"QUEUE_CLOSED"}`, nothing, []string{"reason"}},
		"a reason of null":           {"deny", `{"consumerId":"c","reason":null}`, nothing, []string{"reason"}},
		"all of a denial":            {"deny", `{"z":1,"reason":{},"consumerId":[],"a":2}`, nothing, []string{"consumerId", "reason", "a", "z"}},
		"names in other cases":       {"complete", `{"ConsumerId":"c"}`, nothing, []string{"consumerId", "ConsumerId"}},
		"all of a validation":        {"validate", `{"token":7}`, nothing, []string{"consumerId", "token"}},
		"a token of null":            {"validate", `{"consumerId":"c","token":null}`, nothing, []string{"token"}},
		"an entry with fields":       {"enter", `{"position":1,"consumerId":"c"}`, nothing, []string{"consumerId", "position"}},
		"a leaving with fields":      {"leave", `{"consumerId":"c"}`, nothing, []string{"consumerId"}},
		"an entry that is no object": {"enter", `"c"`, malformed, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w.tb = t
			var o []option
			if c.call == "enter" || c.call == "leave" {
				o = append(o, acting("e"))
			}
			w.writes(0, func() {
				a := w.do(http.MethodPost, path+"/"+c.call, c.body, o...)
				if c.fields == nil {
					a.refuses(http.StatusBadRequest, c.text)
					return
				}
				a.blames(c.fields...)
				// The OpenAPI document must refuse the request too.
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(c.body))
				if err != nil {
					t.Fatal(err)
				}
				schema := "/components/schemas/" + map[string]string{"admit": "Admit", "complete": "Complete", "deny": "Deny", "validate": "Validate", "enter": "Nothing", "leave": "Nothing"}[c.call]
				// A schema accepts 1.0 and 1e0 as whole numbers, but the engine does not.
				if contract().Validate(schema, v) == nil && name != "a whole as a fraction" && name != "an exponent" {
					t.Error("the document lets it through")
				}
			})
		})
	}
	w.tb = t
	a := w.do(http.MethodPost, path+"/admit", `{"count":1001}`)
	if got, want := a.failure().Details[0].Message, fmt.Sprintf("must be a whole number from 1 to %d", domain.MaxAdmit); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	w.writes(0, func() {
		for _, q := range []string{"?x=1", "?consumerId=c"} {
			w.do(http.MethodPost, path+"/enter"+q, "", acting("e")).is(http.StatusBadRequest)
			w.do(http.MethodGet, path+"/status"+q, "", acting("e")).is(http.StatusBadRequest)
			w.do(http.MethodPost, path+"/admit"+q, `{"count":1}`).is(http.StatusBadRequest)
		}
		w.do(http.MethodPost, path+"/admit", `{"count":1}`, header("Idempotency-Key", "a b")).blames("Idempotency-Key")
		w.do(http.MethodPost, path+"/admit", `{"count":1}`, header("Content-Type", "text/plain")).refuses(http.StatusUnsupportedMediaType, "Unsupported media type")
		w.do(http.MethodPost, path+"/deny", ofLength(maxBody+1)).refuses(http.StatusRequestEntityTooLarge, "Content too large")
	})
}

// The contract promises this order, because the meaning of fields may depend on headers.
func TestBadInput_aWrongHeaderIsReportedBeforeWrongFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodPost, "/api/v1/queues", `{"name":1}`, header("Idempotency-Key", "two words")).blames("Idempotency-Key")
	w.do(http.MethodPost, "/api/v1/queues", `{`, header("Idempotency-Key", "two words")).blames("Idempotency-Key")
	w.do(http.MethodPut, path, `{"name":1}`, header("If-Match", "3")).blames("If-Match")
}

// There are edges for every field that a request may set according to the document, and for
// no other field.
func TestFieldEdges_coverEveryField(t *testing.T) {
	t.Parallel()
	tried := map[string][]string{}
	for _, e := range fieldEdges() {
		tried[e.collection] = append(tried[e.collection], e.field)
	}
	for _, c := range kindCases {
		given := properties(t, domain.Kind(c.kind).Title()+"Create")
		slices.Sort(tried[c.collection])
		if !slices.Equal(tried[c.collection], given) {
			t.Errorf("%s: tried are %s\nthe document has %s", c.collection, tried[c.collection], given)
		}
	}
}

// properties returns the names of a schema's fields in the document, sorted.
func properties(t *testing.T, schema string) []string {
	t.Helper()
	all, ok := contract().Look("/components/schemas/" + schema + "/properties").(map[string]any)
	if !ok {
		t.Fatalf("the document has no %s", schema)
	}
	return slices.Sorted(maps.Keys(all))
}

// A request may not set a field that the engine sets. A PUT may only send it back
// unchanged.
func TestFieldsOfTheEngine_cannotBeSet(t *testing.T) {
	t.Parallel()
	for _, c := range kindCases {
		w := newWorld(t)
		title := domain.Kind(c.kind).Title()
		path, _ := w.create(c.collection, c.body)
		object := w.do(http.MethodGet, path, "").object()
		given := properties(t, title+"Create")
		set := 0
		for _, field := range properties(t, title) {
			if slices.Contains(given, field) {
				continue
			}
			set++
			post := func(value any) *reply {
				return w.do(http.MethodPost, "/api/v1/"+c.collection, fmt.Sprintf(`{%q:%s,%s`, field, asJSON(t, value), c.body[1:]))
			}
			put := func(value any) *reply {
				return w.do(http.MethodPut, path, fmt.Sprintf(`{%q:%s}`, field, asJSON(t, value)))
			}
			w.writes(0, func() {
				post(object[field]).blames(field)
				put(object[field]).is(http.StatusOK)
				post("another").blames(field)
				put("another").blames(field)
				post(nil).blames(field)
				if object[field] != nil {
					put(nil).blames(field)
				}
			})
		}
		if set < 6 {
			t.Errorf("%s: %d fields only", c.collection, set)
		}
	}
}
