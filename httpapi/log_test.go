package httpapi

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// logLines decodes the lines that were logged.
func (w *world) logLines() []map[string]any {
	w.tb.Helper()
	var all []map[string]any
	for line := range strings.Lines(w.logged.String()) {
		var l map[string]any
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			w.tb.Fatalf("%v: %s", err, line)
		}
		all = append(all, l)
	}
	return all
}

func TestLog_hasOneLineForEachRequest(t *testing.T) {
	t.Parallel()
	// Each reading of the clock is 1.5 ms after the one before.
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w := newWorld(t, func(c *Config) {
		c.Clock = func() time.Time { now = now.Add(1500 * time.Microsecond); return now }
	})
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	a := w.do(http.MethodGet, path, "", header("X-Request-Id", "r-1"))
	w.do(http.MethodGet, "/nowhere?q=1", "", header("Authorization"), header("X-Request-Id", "r-2"))
	got := w.logLines()[1:]
	want := []map[string]any{
		{
			"level": "info", "message": "request", "method": "GET", "route": "/api/v1/queues/{id}", "path": path,
			"status": 200.0, "bytes": float64(a.Body.Len()), "duration_ms": 1.5, "request_id": "r-1",
			"organization": string(w.mine), "key": string(w.myKeyID),
		},
		{
			"level": "info", "message": "request", "method": "GET", "route": "", "path": "/nowhere",
			"status": 404.0, "duration_ms": 1.5, "request_id": "r-2",
		},
	}
	delete(got[1], "bytes")
	for i := range want {
		if !maps.Equal(got[i], want[i]) {
			t.Errorf("logged %v\nwant   %v", got[i], want[i])
		}
	}
}

// Keys, tokens and content of a request are not logged, even if the client puts them in the
// wrong place.
func TestLog_containsNothingSecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const token = "eyJhbGciOiJFZERTQSJ9.e30.c2lnbmF0dXJl"
	w.create("queues", `{"sequenceId":"secret-sequence","encryptionSeed":"secret-seed"}`)
	w.do(http.MethodPost, "/api/v1/queues", `{"secret-field":`)
	w.do(http.MethodPost, "/api/v1/queues?key=secret-query", `{"secret-field":1}`, header("Idempotency-Key", "secret-repeat"))
	w.do(http.MethodGet, "/api/v1/queues", "", key(unknownKey))
	w.do(http.MethodGet, "/api/v1/queues", "", key(token))
	w.do(http.MethodGet, "/api/v1/queues", "", header("X-Publishable-Key", myPublic))
	w.do(http.MethodGet, "/api/v1/queues/"+myKey, "")
	w.do(http.MethodGet, "/api/v1/"+token+"/"+unknownKey, "")
	w.do(http.MethodGet, "/api/v1/queues?after="+token, "")
	w.do(myKey, "/api/v1/queues", "")
	w.log.fail(domain.ErrUnavailable)
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"secret-sequence","encryptionSeed":"secret-seed"}`)
	logged := w.logged.String()
	for _, secret := range []string{"secret", myKey[8:], unknownKey[8:], myPublic[8:], token[3:20]} {
		if strings.Contains(logged, secret) {
			t.Errorf("%q is in\n%s", secret, logged)
		}
	}
	if got := strings.Count(logged, "\n"); got != 11 {
		t.Errorf("%d lines for 11 requests", got)
	}
}

func TestLog_cutsLongPaths(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(http.MethodGet, "/"+strings.Repeat("x", 5000), "").is(http.StatusNotFound)
	if n := len(w.logged.String()); n > 500 {
		t.Errorf("a line of %d bytes", n)
	}
}

func TestLog_hasEachFaultOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Commands = failing{err: errors.New("this is why")} })
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("X-Request-Id", "r-1")).is(http.StatusInternalServerError)
	got := w.logLines()
	if len(got) != 1 || got[0]["level"] != "error" || got[0]["error"] != "this is why" || got[0]["request_id"] != "r-1" {
		t.Errorf("logged %v", got)
	}
	names := slices.Sorted(maps.Keys(got[0]))
	if slices.Contains(names, "stack") {
		t.Errorf("logged %v", names)
	}
}
