package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// maxRefusal is larger than any refusal, in bytes, whatever the request was.
const maxRefusal = 24 << 10

// manyMembers returns a body of n unknown fields.
func manyMembers(n int, value string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%x":%s`, i, value)
	}
	return "{" + b.String()[1:] + "}"
}

// The number of details in a refusal does not grow with the request.
func TestFlood_aRefusalNamesFiftyDetailsAndCountsTheRest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	draw, _ := w.create("draws", kindCases[1].body)
	query := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "&%x", i)
		}
		return "?" + b.String()[1:]
	}
	for name, c := range map[string]struct {
		method, path, body string
		more               int
	}{
		"a creation":                {http.MethodPost, queues, manyMembers(1000, "1"), 951}, // one more, because sequenceId is missing
		"another":                   {http.MethodPost, auctions, manyMembers(1000, "1"), 952},
		"a change":                  {http.MethodPut, path, manyMembers(1000, "1"), 950},
		"a key":                     {http.MethodPost, keysAt, manyMembers(1000, "1"), 951},
		"the organization":          {http.MethodPut, organizationAt, manyMembers(1000, "1"), 950},
		"an admission":              {http.MethodPost, path + "/admit", manyMembers(1000, "1"), 951},
		"a consumer's session":      {http.MethodPost, "/api/v1/auth/consumer", manyMembers(1000, "1"), 951},
		"entropy":                   {http.MethodPut, draw + "/entropy", manyMembers(1000, "1"), 951},
		"a step":                    {http.MethodPost, path + "/open", manyMembers(400, "1"), 350},
		"a list":                    {http.MethodGet, queues + query(5000), "", 4950},
		"a list of keys":            {http.MethodGet, keysAt + query(5000), "", 4950},
		"a history":                 {http.MethodGet, eventsPath(path[len(queues)+1:]) + query(5000), "", 4950},
		"a query that nobody needs": {http.MethodGet, path + query(5000), "", 4950},
		"one more than fifty":       {http.MethodPut, path, manyMembers(51, "1"), 1},
		"fifty":                     {http.MethodPut, path, manyMembers(50, "1"), 0},
	} {
		w.writes(0, func() {
			a := w.do(c.method, c.path, c.body).refuses(http.StatusBadRequest, "Validation failed")
			f := a.failure()
			want := ""
			if c.more > 0 {
				want = fmt.Sprintf("%d more are wrong", c.more)
			}
			if len(f.Details) != 50 || f.Message != want {
				t.Errorf("%s: %d details, %q, want %q", name, len(f.Details), f.Message, want)
			}
			fields := make([]string, len(f.Details))
			for i, d := range f.Details {
				fields[i] = d.Field
			}
			if unknown := slices.DeleteFunc(fields, func(f string) bool { return len(f) > 4 }); !slices.IsSorted(unknown) {
				t.Errorf("%s: in no order: %q", name, fields)
			}
		})
	}
}

// The texts that a refusal repeats from the request do not grow with it either.
func TestFlood_aRefusalIsShortWhateverItRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	long := strings.Repeat("x", 900_000)
	wide := strings.Repeat("é", 100_000)
	inQuery := url.QueryEscape(strings.Repeat("\x01", 15_000))
	for name, c := range map[string]struct {
		method, path, body string
		options            []option
	}{
		"a long name":                     {http.MethodPut, path, `{"` + long + `":1}`, nil},
		"a long name with an escape":      {http.MethodPut, path, `{"\u0001` + long + `":1}`, nil},
		"a name of escapes":               {http.MethodPut, path, `{"` + strings.Repeat(`\u0001`, 100_000) + `":1}`, nil},
		"a name that cannot be cut there": {http.MethodPut, path, `{"a` + wide + `":1}`, nil},
		"many long names":                 {http.MethodPut, path, strings.ReplaceAll(manyMembers(60, "1"), `":`, strings.Repeat("x", 10_000)+`":`), nil},
		"a long name twice":               {http.MethodPut, path, `{"` + long[:400_000] + `":1,"` + long[:400_000] + `":1}`, nil},
		"a long name twice within":        {http.MethodPut, path, `{"metadata":{"` + long[:400_000] + `":1,"` + long[:400_000] + `":1}}`, nil},
		"a long value":                    {http.MethodPut, path, `{"name":"` + long + `","timeZone":"` + long[:9000] + `","openAt":"` + long[:9000] + `"}`, nil},
		"a long number":                   {http.MethodPut, path, `{"maxCapacity":` + strings.Repeat("9", 900_000) + `}`, nil},
		"a long price":                    {http.MethodPost, auctions, `{"sequenceId":"s","settleAt":"2026-06-01T00:00:00Z","startingBid":0.` + strings.Repeat("9", 900_000) + `}`, nil},
		"a long amount of metadata":       {http.MethodPut, path, `{"metadata":{"a":"` + long + `"}}`, nil},
		"a name in a query":               {http.MethodGet, queues + "?" + strings.Repeat("x", 60_000), "", nil},
		"a name of escapes in a query":    {http.MethodGet, queues + "?" + inQuery, "", nil},
		"a query that cannot be read":     {http.MethodGet, queues + "?" + strings.Repeat("%zz", 20_000), "", nil},
		"values in a query":               {http.MethodGet, queues + "?search=" + strings.Repeat("x", 60_000) + "&sortBy=" + inQuery, "", nil},
		"a cursor":                        {http.MethodGet, queues + "?after=" + strings.Repeat("x", 60_000), "", nil},
		"a precondition":                  {http.MethodPut, path, `{}`, []option{header("If-Match", strings.Repeat(`"1",`, 15_000)+"x")}},
		"an idempotency key":              {http.MethodPost, queues, `{}`, []option{header("Idempotency-Key", long[:60_000])}},
		"a request id":                    {http.MethodPut, path, `{"x":1}`, []option{header("X-Request-Id", long[:60_000])}},
		"a position":                      {http.MethodGet, path, "", []option{header("X-Position", long[:60_000])}},
		"a consumer":                      {http.MethodGet, path + "/status", "", []option{acting(long[:60_000])}},
		"a key":                           {http.MethodGet, path, "", []option{key(long[:60_000])}},
		"what is accepted":                {http.MethodGet, path, "", []option{header("Accept", strings.Repeat("text/x;q=1,", 6_000))}},
		"a media type":                    {http.MethodPut, path, `{}`, []option{header("Content-Type", "text/plain;x="+long[:60_000])}},
	} {
		w.undocumented = name == "a consumer"
		a := w.do(c.method, c.path, c.body, c.options...)
		if a.Code/100 != 4 || a.Body.Len() > maxRefusal {
			t.Errorf("%s: %d with %d bytes", name, a.Code, a.Body.Len())
		}
		for _, d := range a.failure().Details {
			if len(d.Field) > maxEchoed+len("…") {
				t.Errorf("%s: %d bytes are repeated", name, len(d.Field))
			}
		}
	}
	const cut = 127 // the 128th byte is the first of a letter of two bytes
	a := w.do(http.MethodPut, path, `{"a`+wide+`":1}`)
	if got, want := a.failure().Details[0].Field, "a"+strings.Repeat("é", cut/2)+"…"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The time that a refusal takes grows in proportion to the request, and not to its square.
func TestFlood_theTimeIsProportionalToTheRequest(t *testing.T) {
	w := newWorld(t)
	w.undocumented = true // checking the answers takes longer than making them
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	put := func(body string) func() { return func() { w.do(http.MethodPut, path, body) } }
	with := func(name string, values ...string) func() {
		return func() { w.do(http.MethodPut, path, `{"x":1}`, header(name, values...)) }
	}
	get := func(query string) func() { return func() { w.do(http.MethodGet, queues+"?"+query, "") } }
	for name, request := range map[string]func(n int) func(){
		"unknown members":         func(n int) func() { return put(manyMembers(12*n, "1")) },
		"unknown members of many": func(n int) func() { return put(manyMembers(12*n, `{"a":[]}`)) },
		"members of metadata":     func(n int) func() { return put(`{"metadata":` + manyMembers(12*n, "1") + `}`) },
		"objects in a list":       func(n int) func() { return put(`{"x":[` + strings.Repeat("{},", 40*n) + `{}]}`) },
		"objects with names":      func(n int) func() { return put(`{"x":[` + strings.Repeat(`{"a":1},`, 12*n) + `{}]}`) },
		"where the engine sets":   func(n int) func() { return put(`{"type":[` + strings.Repeat("[],", 40*n) + `{}]}`) },
		"levels": func(n int) func() {
			return put(`{"metadata":` + strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) + `}`)
		},
		"too many levels":      func(n int) func() { return put(`{"metadata":` + strings.Repeat(`{"a":`, 15*n)) },
		"escapes":              func(n int) func() { return put(`{"name":"` + strings.Repeat(`\ud800`, 15*n) + `"}`) },
		"a price":              func(n int) func() { return put(`{"maxCapacity":1` + strings.Repeat("0", 100*n) + `}`) },
		"parameters":           func(n int) func() { return get(strings.Repeat("a&", n/2) + "b") },
		"parameters of names":  func(n int) func() { return get(strings.ReplaceAll(strings.Trim(manyMembers(n, ""), "{}"), ",", "&")) },
		"the same status":      func(n int) func() { return get(strings.Repeat("status=OPEN&", n/2) + "x") },
		"entity tags":          func(n int) func() { return with("If-Match", strings.Repeat(`"1",`, n)) },
		"weak entity tags":     func(n int) func() { return with("If-None-Match", strings.Repeat(`W/"1",`, n)) },
		"commas":               func(n int) func() { return with("If-Match", strings.Repeat(`,`, 6*n)) },
		"lines of entity tags": func(n int) func() { return with("If-Match", slices.Repeat([]string{`"1"`}, n)...) },
		"what is accepted":     func(n int) func() { return with("Accept", strings.Repeat(`text/x;q=1,`, n)+"*/*") },
		"parameters of a type": func(n int) func() { return with("Accept", "text/x"+strings.Repeat(`;q=1`, n)+",*/*") },
		"hops":                 func(n int) func() { return with("X-Forwarded-For", strings.Repeat(`10.0.0.1,`, n)) },
	} {
		const small, times = 600, 8
		// It is measured in processor time, so that other work on the machine does not
		// count, and the least of several is without a collection of garbage.
		took := func(f func()) time.Duration {
			least := time.Hour
			for range 7 {
				began := processorTime(t)
				f()
				least = min(least, processorTime(t)-began)
			}
			return least
		}
		one, many := took(request(small)), took(request(small*times))
		if many > 4*times*one+10*time.Millisecond {
			t.Errorf("%s: %s, and %s for %d times as many", name, one, many, times)
		}
	}
}

// A repeated status counts once, so it costs one comparison for every row.
func TestList_aRepeatedStatusCountsOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.create("queues", `{"sequenceId":"s"}`)
	q := listRequest{}
	for range 1000 {
		for _, s := range []string{"OPEN", "DRAFT"} {
			if err := q.readStatus(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.Equal(q.Status, []domain.Status{domain.StatusOpen, domain.StatusDraft}) {
		t.Errorf("%d are kept", len(q.Status))
	}
	a := w.do(http.MethodGet, queues+"?"+strings.Repeat("status=DRAFT&", 1000)+"first=1", "").is(http.StatusOK)
	if got := a.page().ids; len(got) != 1 {
		t.Errorf("%d queues", len(got))
	}
}

// processorTime returns the CPU time that the process has used. No other test uses CPU time
// meanwhile, because parallel tests wait until a sequential test has ended.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
