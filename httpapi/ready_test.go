package httpapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

func TestLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	without := header("Authorization")
	if a := w.do(http.MethodGet, "/livez", "", without).is(http.StatusOK); a.Body.String() != `{"status":"live"}` {
		t.Errorf("got %s", a.Body)
	}
	w.do(http.MethodHead, "/livez", "", without, header("Accept", "text/plain")).is(http.StatusOK)
}

func TestReady(t *testing.T) {
	t.Parallel()
	var checks []Check
	w := newWorld(t, func(c *Config) {
		c.Ready = func(ctx context.Context) []Check {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("the checks may take for ever")
			}
			return checks
		}
	})
	without := header("Authorization")
	for _, c := range []struct {
		checks []Check
		status int
		body   string
	}{
		{
			[]Check{{Name: "timers"}, {Name: "eventStore"}},
			http.StatusOK,
			`{"status":"ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"timers":{"ok":true}}}`,
		},
		{
			[]Check{{Name: "eventStore"}, {Name: "projections", Err: errors.New("behind"), Detail: map[string]int{"events": 7}}},
			http.StatusServiceUnavailable,
			`{"status":"not ready","checks":{"eventStore":{"ok":true},"histories":{"ok":true},"projections":{"ok":false,"error":"behind","detail":{"events":7}}}}`,
		},
		{
			[]Check{{Name: "bus", Err: errors.New("away"), Advisory: true}, {Name: "eventStore"}},
			http.StatusOK,
			`{"status":"ready","checks":{"bus":{"ok":false,"error":"away"},"eventStore":{"ok":true},"histories":{"ok":true}}}`,
		},
	} {
		checks = c.checks
		if a := w.do(http.MethodGet, "/readyz", "", without).is(c.status); a.Body.String() != c.body {
			t.Errorf("got %s\nwant %s", a.Body, c.body)
		}
		w.do(http.MethodHead, "/readyz", "", without).is(c.status)
	}
	if strings.Contains(w.logged.String(), `"level":"error"`) {
		t.Errorf("not being ready is logged as a fault: %s", w.logged)
	}
}

// A stream in quarantine is named; the node serves everything else.
func TestReadyWithAHistoryInQuarantine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, id := w.create("queues", `{"sequenceId":"s"}`)
	stream := strings.Replace(id, "_", "-", 1)
	w.log.corrupt(stream)
	a := w.do(http.MethodGet, "/readyz", "", header("Authorization")).is(http.StatusOK)
	want := `{"status":"ready","checks":{"eventStore":{"ok":true},"histories":{"ok":false,"quarantined":[{"stream":"` + stream +
		`","revision":1,"type":"queue.completed","rule":"the status moves forward, one step at a time"}],"count":1}}}`
	if a.Body.String() != want {
		t.Errorf("got  %s\nwant %s", a.Body, want)
	}
}

func TestReadyNamesABoundedNumber(t *testing.T) {
	t.Parallel()
	state := historyState(make([]domain.HistoryError, 250))
	if state.OK || state.Count != 250 || len(state.Quarantined) != 100 {
		t.Errorf("%t, %d, %d named", state.OK, state.Count, len(state.Quarantined))
	}
}

// What the read models do not know yet is not told as not existing.
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

// A node that has no log yet answers what needs none, and says so of all else.
func TestStarting_answersTheProbesAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Ready = func(context.Context) []Check {
		return []Check{{Name: "eventStore", Err: errors.New("it has not answered yet")}}
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
	a := w.do(http.MethodGet, "/readyz", "", header("Authorization")).is(http.StatusServiceUnavailable)
	want := `{"status":"not ready","checks":{"eventStore":{"ok":false,"error":"it has not answered yet"},` +
		`"histories":{"ok":false,"error":"nothing is known of them yet"}}}`
	if a.Body.String() != want {
		t.Errorf("got  %s\nwant %s", a.Body, want)
	}
	for method, body := range map[string]string{http.MethodGet: "", http.MethodPost: `{"sequenceId":"s"}`} {
		w.do(method, "/api/v1/queues", body).refuses(http.StatusServiceUnavailable, "Read model is behind")
	}
}
