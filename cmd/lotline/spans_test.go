package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// spanCollector receives spans over OTLP.
type spanCollector struct {
	*httptest.Server
	mu       sync.Mutex // guards the fields below
	services map[string]bool
	spans    []*trace.Span
}

func newSpanCollector(t *testing.T) *spanCollector {
	t.Helper()
	c := &spanCollector{services: map[string]bool{}}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		var sent collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(text, &sent)
		}
		if err != nil || r.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", r.URL, err)
		}
		c.take(&sent)
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	t.Cleanup(c.Close)
	return c
}

func (c *spanCollector) take(sent *collector.ExportTraceServiceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range sent.GetResourceSpans() {
		c.services[attributeOf(of.GetResource().GetAttributes(), "service.name")] = true
		for _, scope := range of.GetScopeSpans() {
			c.spans = append(c.spans, scope.GetSpans()...)
		}
	}
}

func attributeOf[A interface {
	GetKey() string
	GetValue() V
}, V fmt.Stringer](all []A, key string) string {
	for _, a := range all {
		if a.GetKey() == key {
			_, value, _ := strings.Cut(a.GetValue().String(), ":")
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// tree returns the spans of each trace by their path: the names from the root to the span.
func (c *spanCollector) tree(t *testing.T) map[string]map[string][]*trace.Span {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := map[string]*trace.Span{}
	for _, s := range c.spans {
		byID[string(s.GetSpanId())] = s
	}
	all := map[string]map[string][]*trace.Span{}
	for _, s := range c.spans {
		id, path := hex.EncodeToString(s.GetTraceId()), s.GetName()
		for above := byID[string(s.GetParentSpanId())]; above != nil; above = byID[string(above.GetParentSpanId())] {
			path = above.GetName() + " > " + path
		}
		if all[id] == nil {
			all[id] = map[string][]*trace.Span{}
		}
		all[id][path] = append(all[id][path], s)
	}
	return all
}

const (
	sampledTrace   = "0af7651916cd43dd8448eb211c80319c"
	unsampledTrace = "1af7651916cd43dd8448eb211c80319c"
	callersSpan    = "b7ad6b7169203331"
)

// The engine sends its last spans when it stops. In this test it sends none before.
func TestSpans_leadFromTheRequestToTheReadModels(t *testing.T) {
	t.Parallel()
	c := newSpanCollector(t)
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir, "LOTLINE_OTLP_ENDPOINT="+c.URL, "OTEL_BSP_SCHEDULE_DELAY=3600000")
	key := e.secretKey()
	path := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(300)),
		"traceparent", "00-"+sampledTrace+"-"+callersSpan+"-01", "X-Request-Id", "r-1").header.Get("Location")
	quiet := e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","drawAt":%q,"winnerCount":1}`, in(3_600_000)),
		"traceparent", "00-"+unsampledTrace+"-"+callersSpan+"-00").header.Get("Location")
	e.must(400, "PUT", path, key, `{"maxCapacity":0}`)
	e.must(200, "GET", "/readyz", "", "")
	eventually(t, "it opened", func() bool { return e.must(200, "GET", path, key, "").object(t)["status"] == "OPEN" })
	client := officialClient(t, dir)
	events := eventsOf(t, client, filepath.Base(path))
	checkChain(t, events)
	if m := string(events[0].UserMetadata); !strings.Contains(m, `"traceparent":"00-`+sampledTrace+"-") {
		t.Errorf("the event has the metadata %s", m)
	}
	if m := string(eventsOf(t, client, filepath.Base(quiet))[0].UserMetadata); strings.Contains(m, "traceparent") {
		t.Errorf("the event of what is not sampled has the metadata %s", m)
	}
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit %d: %s", code, e.stderr)
	}
	if !c.services["lotline"] || len(c.services) != 1 {
		t.Errorf("spans are from %v", c.services)
	}
	tree := c.tree(t)
	if spans := tree[unsampledTrace]; spans != nil {
		t.Errorf("the caller did not want to sample %v", spans)
	}
	ours := tree[sampledTrace]
	const post = "POST /api/v1/queues"
	for path, attributes := range map[string]map[string]string{
		post:                     {"http.route": "/api/v1/queues", "http.request.method": "POST", "http.response.status_code": "201", "lotline.request_id": "r-1"},
		post + " > Create queue": {"lotline.kind": "queue", "lotline.command": "Create", "lotline.outcome": "accepted"},
		post + " > Create queue > append queue": {
			"lotline.kind": "queue", "lotline.append.events": "2", "lotline.append.commands": "1", "lotline.append.attempt": "1", "lotline.outcome": "written",
		},
		post + " > Create queue > project queue.created":   {"lotline.kind": "queue", "lotline.event.type": "queue.created"},
		post + " > Create queue > project queue.scheduled": {"lotline.kind": "queue", "lotline.event.type": "queue.scheduled"},
	} {
		if len(ours[path]) != 1 {
			t.Errorf("%d spans %s", len(ours[path]), path)
			continue
		}
		s := ours[path][0]
		for name, want := range attributes {
			if got := attributeOf(s.GetAttributes(), name); got != want {
				t.Errorf("%s has %s %q, want %q", path, name, got, want)
			}
		}
		if s.GetStartTimeUnixNano() > s.GetEndTimeUnixNano() || s.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR {
			t.Errorf("%s: %v", path, s)
		}
	}
	if len(ours) != 5 {
		t.Errorf("the request's trace has %d different spans", len(ours))
	}
	if s := ours[post]; len(s) == 1 && hex.EncodeToString(s[0].GetParentSpanId()) != callersSpan {
		t.Errorf("the request is below %x", s[0].GetParentSpanId())
	}
	// A timer's step is a trace of its own. Probes have no trace.
	found := map[string]int{}
	for id, paths := range tree {
		for path, spans := range paths {
			if id != sampledTrace {
				found[path] += len(spans)
			}
			if strings.Contains(path, "readyz") {
				t.Errorf("a probe left the span %s", path)
			}
		}
	}
	for path, n := range map[string]int{
		"Advance queue > append queue": 1, "Advance queue > project queue.opened": 1, "PUT /api/v1/queues/{id} > Update queue": 1,
		"CreateKey organization > append organization": 2,
	} {
		if found[path] != n {
			t.Errorf("%d spans %s, want %d, of %v", found[path], path, n, found)
		}
	}
}

// A collector that accepts connections and does not answer delays the engine's end by a
// few seconds. It delays no request.
func TestSpans_aCollectorThatHangsDelaysNoRequest(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	c := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-ended }))
	t.Cleanup(c.Close)
	t.Cleanup(func() { close(ended) })
	e := testBinary(t).serve(t, dataDirectory(t), "LOTLINE_OTLP_ENDPOINT="+c.URL, "OTEL_BSP_SCHEDULE_DELAY=10")
	key := e.secretKey()
	for range 20 {
		e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`)
	}
	started := time.Now()
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, e.stderr)
	}
	if took := time.Since(started); took > 3*spansTimeout {
		t.Errorf("it took %s to end", took)
	}
	if !strings.Contains(e.stderr.String(), `"message":"the last spans were not sent"`) {
		t.Errorf("logged %s", e.stderr)
	}
}

// Without a collector no spans are made and no traceparent is stored.
func TestSpans_costNothingWithoutACollector(t *testing.T) {
	t.Parallel()
	var none spans
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/queues", http.NoBody)
	r.Header.Set("Traceparent", "00-"+sampledTrace+"-"+callersSpan+"-01")
	if got := none.received(r); got != r {
		t.Error("the request is another one")
	}
	if ctx, traceparent := none.begun(t.Context(), "queue", nil); ctx != t.Context() || traceparent != "" {
		t.Error("the command is marked")
	}
}
