package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

func TestLive_answersAlways(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	without := header("Authorization")
	if a := w.do(http.MethodGet, "/livez", "", without).is(http.StatusOK); a.Body.String() != `{"status":"live"}` {
		t.Errorf("got %s", a.Body)
	}
	w.do(http.MethodHead, "/livez", "", without, header("Accept", "text/plain")).is(http.StatusOK)
}

func TestReady_tellsEachCallerItsDetails(t *testing.T) {
	t.Parallel()
	var checks []Check
	w := newWorld(t, func(c *Config) {
		c.Ready = func(ctx context.Context) []Check {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the checks may take for ever")
			}
			return checks
		}
		c.Metrics = http.NotFoundHandler()
	})
	operators := Operations(w.config)
	for _, c := range []struct {
		checks                       []Check
		status                       int
		everybody, secret, operators string
	}{
		{
			[]Check{{Name: "timers", Reason: "late"}, {Name: "eventStore", Detail: 1}},
			http.StatusOK,
			`{"status":"ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"timers":{"ok":true}}}`,
			`{"status":"ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"timers":{"ok":true}}}`,
			`{"status":"ready","checks":{"eventStore":{"ok":true,"detail":1},"histories":{"ok":true},"timers":{"ok":true}}}`,
		},
		{
			[]Check{{Name: "eventStore"}, {Name: "projections", Err: errors.New("behind 10.0.0.7"), Reason: "behind", Detail: map[string]int{"events": 7}}},
			http.StatusServiceUnavailable,
			`{"status":"not ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"projections":{"ok":false,"reason":"behind"}}}`,
			`{"status":"not ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"projections":{"ok":false,"reason":"behind","error":"behind 10.0.0.7"}}}`,
			`{"status":"not ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"projections":{"ok":false,"reason":"behind","error":"behind 10.0.0.7","detail":{"events":7}}}}`,
		},
		{ // A part without a reason of its own gets the default reason.
			[]Check{{Name: "bus", Err: errors.New("away"), Advisory: true}, {Name: "eventStore"}},
			http.StatusOK,
			`{"status":"ready","checks":{"bus":{"ok":false,"reason":"it is not as it should be"},"eventStore":{"ok":true},"histories":{"ok":true}}}`,
			`{"status":"ready","checks":{"bus":{"ok":false,"reason":"it is not as it should be","error":"away"},"eventStore":{"ok":true},"histories":{"ok":true}}}`,
			`{"status":"ready","checks":{"bus":{"ok":false,"reason":"it is not as it should be","error":"away"},"eventStore":{"ok":true},"histories":{"ok":true}}}`,
		},
	} {
		checks = c.checks
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			for _, to := range []struct {
				want string
				with option
			}{{c.everybody, header("Authorization")}, {c.secret, key(myKey)}} {
				if a := w.do(method, "/readyz", "", to.with).is(c.status); method == http.MethodGet && a.Body.String() != to.want {
					t.Errorf("got  %s\nwant %s", a.Body, to.want)
				}
			}
			if status, text := ask(t, operators, method, "/readyz"); status != c.status || method == http.MethodGet && text != c.operators {
				t.Errorf("operators got  %d %s\nwant %s", status, text, c.operators)
			}
		}
	}
	if strings.Contains(w.logged.String(), `"level":"error"`) {
		t.Errorf("not being ready is logged as a fault: %s", w.logged)
	}
}

// ask sends a request without a key to a handler, and does not check the answer against the
// document.
func ask(t *testing.T, h http.Handler, method, path string) (status int, text string) {
	t.Helper()
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), method, path, http.NoBody))
	return answer.Code, answer.Body.String()
}

// A node with a stream in quarantine is still ready. Only the stream's own organization and
// operators see its name.
func TestReady_namesAStreamInQuarantineToItsOwnerAndOperatorsOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", `{"sequenceId":"s"}`)
	stream := domain.ID(id).Stream()
	w.log.corrupt(stream)
	w.key(w.other, domain.PublishableKey, otherPublic)
	token := w.session("c")
	const (
		starts  = `{"status":"ready","checks":{"eventStore":{"ok":true},"histories":{"ok":false,"reason":"streams are in quarantine"`
		ends    = `}}}`
		counted = starts + `,"count":1` + ends
	)
	named := starts + `,"quarantined":[{"stream":"` + stream +
		`","revision":1,"type":"queue.completed","rule":"the status moves forward, one step at a time"}],"count":1` + ends
	for name, c := range map[string]struct {
		options []option
		want    string
	}{
		"nobody":                       {[]option{header("Authorization")}, starts + ends},
		"its organization":             {[]option{key(myKey)}, named},
		"another organization":         {[]option{key(otherKey)}, counted},
		"its publishable key":          {[]option{publishable(myPublic)}, starts + ends},
		"its publishable key, for one": {[]option{key(myPublic)}, starts + ends},
		"a consumer of it":             {[]option{as(token)}, starts + ends},
		"an unknown key":               {[]option{key(unknownKey)}, starts + ends},
		"a revoked key":                {[]option{key(myRevoked)}, starts + ends},
		"something else":               {[]option{header("Authorization", "Bearer x y")}, starts + ends},
	} {
		if a := w.do(http.MethodGet, "/readyz", "", c.options...).is(http.StatusOK); a.Body.String() != c.want {
			t.Errorf("%s got %s\nwant %s", name, a.Body, c.want)
		}
	}
	w.config.Metrics = http.NotFoundHandler()
	if status, text := ask(t, Operations(w.config), http.MethodGet, "/readyz"); status != http.StatusOK || text != named {
		t.Errorf("operators got %d %s", status, text)
	}
	// While the node catches up, it does not know which keys are valid.
	w.config.CaughtUp = func() bool { return false }
	w.api = New(w.config)
	if a := w.do(http.MethodGet, "/readyz", "").is(http.StatusOK); a.Body.String() != starts+ends {
		t.Errorf("while it catches up: %s", a.Body)
	}
}

func TestReady_listsABoundedNumberOfStreams(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 120 {
		_, id := w.create("queues", `{"sequenceId":"s"}`)
		w.log.corrupt(domain.ID(id).Stream())
	}
	histories := func(text string) (count float64, named int) {
		t.Helper()
		var a struct {
			Checks map[string]struct {
				Count       float64
				Quarantined []any
			}
		}
		if err := json.Unmarshal([]byte(text), &a); err != nil {
			t.Fatal(err)
		}
		return a.Checks["histories"].Count, len(a.Checks["histories"].Quarantined)
	}
	w.config.Metrics = http.NotFoundHandler()
	_, text := ask(t, Operations(w.config), http.MethodGet, "/readyz")
	for _, text := range []string{text, w.do(http.MethodGet, "/readyz", "").Body.String()} {
		if count, named := histories(text); count != 120 || named != 100 {
			t.Errorf("%v, %d named", count, named)
		}
	}
}

// /readyz does not allow trying more keys than other calls, and it answers even for a key
// that is invalid or over its limit.
func TestReady_keysAreCountedAndNeverRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limits(2, 2))
	w.config.Ready = func(context.Context) []Check {
		return []Check{{Name: "eventStore", Err: errors.New("10.0.0.7 is away"), Advisory: true}}
	}
	w.api = New(w.config)
	remaining := func(o ...option) (left string, detailed bool) {
		t.Helper()
		a := w.do(http.MethodGet, "/readyz", "", o...).is(http.StatusOK)
		if got := a.Header().Get("Retry-After"); got != "" {
			t.Errorf("Retry-After %s", got)
		}
		return a.Header().Get("X-RateLimit-Remaining"), strings.Contains(a.Body.String(), "10.0.0.7")
	}
	for i, want := range []string{"1", "0", "0"} {
		if left, detailed := remaining(key(unknownKey), from("203.0.113.7:1")); left != want || detailed {
			t.Errorf("wrong key %d: %q left, detailed: %t", i, left, detailed)
		}
		if left, detailed := remaining(key(myKey), from("203.0.113.7:1")); left != want || detailed != (i < 2) {
			t.Errorf("right key %d: %q left, detailed: %t", i, left, detailed)
		}
		if left, _ := remaining(header("Authorization"), from("203.0.113.7:1")); left != "" {
			t.Errorf("a probe without a key is counted: %q", left)
		}
	}
	// The requests with an invalid key were counted.
	w.do(http.MethodGet, queues, "", key(unknownKey), from("203.0.113.7:1")).is(http.StatusTooManyRequests)
	w.do(http.MethodGet, queues, "").is(http.StatusTooManyRequests)
}

// The operators' listener serves metrics and readiness, and nothing else.
func TestOperations_servesMetricsAndReadiness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("figures 1\n")) })
	h := Operations(w.config)
	for path, want := range map[string]int{
		"/metrics": http.StatusOK, "/readyz": http.StatusOK,
		"/%6Detrics": http.StatusNotFound, "/livez": http.StatusNotFound, "/docs": http.StatusNotFound, "/console": http.StatusNotFound, queues: http.StatusNotFound, "/": http.StatusNotFound,
	} {
		if status, text := ask(t, h, http.MethodGet, path); status != want {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if status, _ := ask(t, h, http.MethodPost, "/readyz"); status != http.StatusMethodNotAllowed {
		t.Errorf("POST: %d", status)
	}
}

// A distribution that the read models do not have yet must not be answered as missing.
func TestNothingIsServedBeforeTheNodeHasCaughtUp(t *testing.T) {
	t.Parallel()
	caughtUp := false
	w := newWorld(t, func(c *Config) { c.CaughtUp = func() bool { return caughtUp } })
	for method, body := range map[string]string{http.MethodGet: "", http.MethodPost: `{"sequenceId":"s"}`} {
		w.do(method, "/api/v1/queues", body).refuses(http.StatusServiceUnavailable, "Read model is behind")
	}
	w.do(http.MethodGet, "/livez", "").is(http.StatusOK)
	caughtUp = true
	w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK)
}

// A node without a log answers the calls that need none, and refuses all others because the
// read models are behind.
func TestStarting_answersTheProbesAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Ready = func(context.Context) []Check {
		return []Check{{Name: "eventStore", Err: errors.New("no answer from 10.0.0.7"), Reason: "it has not answered yet"}}
	}
	w.config.Views, w.config.Commands, w.config.Histories, w.config.CaughtUp = nil, nil, nil, nil
	w.config.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		_, _ = w.Write([]byte("figures 1\n"))
	})
	w.api = Starting(w.config)
	for _, path := range []string{"/livez", "/metrics", "/openapi.yaml", "/docs", "/console"} {
		w.do(http.MethodGet, path, "", header("Authorization")).is(http.StatusOK)
	}
	// The answer is the same with and without a key, because keys cannot be checked yet.
	w.do(http.MethodGet, "/readyz", "").is(http.StatusServiceUnavailable)
	a := w.do(http.MethodGet, "/readyz", "", header("Authorization")).is(http.StatusServiceUnavailable)
	want := `{"status":"not ready","checks":{"eventStore":{"ok":false,"reason":"it has not answered yet"},` +
		`"histories":{"ok":false,"reason":"nothing is known of them yet"}}}`
	if a.Body.String() != want {
		t.Errorf("got  %s\nwant %s", a.Body, want)
	}
	for method, body := range map[string]string{http.MethodGet: "", http.MethodPost: `{"sequenceId":"s"}`} {
		w.do(method, "/api/v1/queues", body).refuses(http.StatusServiceUnavailable, "Read model is behind")
	}
}
