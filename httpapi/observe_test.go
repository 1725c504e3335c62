package httpapi

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/lotline/lotline/commands"
)

// witness is an observer that records its calls. It marks the context of each request.
type witness struct {
	mu   sync.Mutex // guards seen
	seen []string
}

type markKey struct{}

func (*witness) Received(r *http.Request) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), markKey{}, r.Method))
}

func (w *witness) Finished(r *http.Request, a Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, fmt.Sprint(r.Context().Value(markKey{}), " ", a.Route, " ", a.Status, " ", a.Took, " ", a.RequestID))
}

// marked is a command handler that fails a command without the mark in its context.
type marked struct {
	tb testing.TB
	Commands
}

func (m marked) Create(ctx context.Context, c commands.Creation) (commands.Result, error) {
	if ctx.Value(markKey{}) != http.MethodPost {
		m.tb.Error("the command has another context than the request")
	}
	return m.Commands.Create(ctx, c)
}

func TestObserver_isNotifiedOfEveryRequest(t *testing.T) {
	t.Parallel()
	seen := &witness{}
	// Each reading of the clock is 1.5 ms after the one before.
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := newWorld(t, func(c *Config) {
		c.Observer, c.Commands = seen, marked{t, c.Commands}
		c.Clock = func() time.Time { now = now.Add(1500 * time.Microsecond); return now }
	})
	path, _ := w.create("queues", `{"sequenceId":"s"}`, header("X-Request-Id", "r-1"))
	w.do(http.MethodGet, path, "", header("X-Request-Id", "r-2"))
	w.do(http.MethodGet, "/nowhere", "", header("X-Request-Id", "r-3"))
	w.do(http.MethodPatch, path, "", header("X-Request-Id", "r-4"))
	w.config.CaughtUp = func() bool { panic("at the disco") }
	w.api = New(w.config)
	w.do(http.MethodGet, path, "", header("X-Request-Id", "r-5"))
	want := []string{
		"POST /api/v1/queues 201 1.5ms r-1",
		"GET /api/v1/queues/{id} 200 1.5ms r-2",
		"GET  404 1.5ms r-3",
		"PATCH /api/v1/queues/{id} 405 1.5ms r-4",
		"GET /api/v1/queues/{id} 500 1.5ms r-5",
	}
	if !slices.Equal(seen.seen, want) {
		t.Errorf("notified of\n%q\nwant\n%q", seen.seen, want)
	}
}

func TestMetrics_areServedIfConfigured(t *testing.T) {
	t.Parallel()
	newWorld(t).do(http.MethodGet, "/metrics", "", header("Authorization")).is(http.StatusNotFound)
	w := newWorld(t, func(c *Config) {
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
			_, _ = io.WriteString(w, "some 1\n")
		})
	})
	if a := w.do(http.MethodGet, "/metrics", "", header("Authorization")).is(http.StatusOK); a.Body.String() != "some 1\n" {
		t.Errorf("got %q", a.Body)
	}
	w.do(http.MethodPost, "/metrics", "", header("Authorization")).is(http.StatusMethodNotAllowed)
}
