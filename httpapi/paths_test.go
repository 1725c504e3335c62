package httpapi

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// A proxy that blocks a path compares the path as it is sent. So a path is served under one
// spelling only.
func TestPaths_areServedUnderOneSpelling(t *testing.T) {
	t.Parallel()
	s := newRawServer(t)
	s.config.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("figures 1\n")) })
	server := httptest.NewServer(New(s.config))
	t.Cleanup(server.Close)
	s.address = server.Listener.Addr().String()
	path, id := s.create("queues", `{"sequenceId":"s"}`)
	get := func(target string) rawAnswer {
		c := s.dial()
		c.send("GET %s HTTP/1.1\r\n%sConnection: close\r\n\r\n", target, asMe)
		return c.answer(http.MethodGet)
	}
	for _, target := range []string{"/metrics", "/readyz", "/livez", "/docs", "/console", "/console/", "/console/main.js", path, path + "?", queues + "?first=1", "http://x" + path, "http://x/metrics"} {
		if a := get(target); a.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", target, a.StatusCode, a.text)
		}
	}
	for _, target := range []string{
		"/%6Detrics", "/%6detrics", "/metric%73", "/%2Fmetrics", "/%2fmetrics", "/metrics%2F", "/metrics%2f", "/metrics%3B", "/%2e/metrics", "/x/%2e%2e/metrics",
		"//metrics", "///metrics", "/./metrics", "/x/../metrics", "/metrics/", "/metrics/.", "/metrics;a=b", "/metrics;", "/;/metrics", "/Metrics", "/METRICS",
		"/metrics%20", "/metrics%00", "/metrics%09", "/metrics%3F", "/metrics%23", "/metrics%5C", "/%C2%ADmetrics", "/metrics#x", `/\metrics`, "/metr%69cs?",
		"/%72eadyz", "/ready%7A", "/live%7a", "/doc%73", "/openapi%2Ejson", "/.well-known/jwks%2ejson", "/%2Ewell-known/jwks.json",
		"/%63onsole", "/console%2F", "/console%2Fmain.js", "/console/main%2Ejs", "/console/%6Dain.js", "/console/./main.js", "/console//main.js", "/console/../console/main.js", "/console/Main.js", "/console/main.js/",
		"/api%2Fv1/queues", "/api%2fv1%2fqueues", "/api/v1%2Fqueues", "/api/v1/%71ueues", "/%61pi/v1/queues", "//api/v1/queues", "/api//v1/queues", "/api/v1/queues/", "/api/v1/./queues", "/API/v1/queues", "/api/v1/Queues",
		queues + "/%71" + id[1:], queues + "/queue%5F" + id[6:], queues + "/" + strings.ToUpper(id), queues + "//" + id, path + "/", path + "%2F", path + "%20", path + ";x", path + "%3Bx",
		"http:/metrics", "http:metrics", "http://x/%6Detrics", "http://x//metrics", "http://x",
	} {
		if a := get(target); a.StatusCode != http.StatusNotFound && a.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: %d %.100s", target, a.StatusCode, a.text)
		}
	}
	// A refused request is not carried out.
	s.writes(0, func() {
		for _, step := range []string{"%2Fopen", "%2fopen", "/%6Fpen", "/ope%6e", "/open%2F", "//open", "/./open", "/open/", "/Open", "/x/../open", "/open;x", "/open%3Fx"} {
			c := s.dial()
			c.send("POST %s%s HTTP/1.1\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n", path, step, asMe)
			if a := c.answer(http.MethodPost); a.StatusCode != http.StatusNotFound {
				t.Errorf("%s: %d %s", step, a.StatusCode, a.text)
			}
		}
	})
}

// An encoded path is unknown, also for the log and for the rate limits.
func TestPaths_anEncodedOneIsUnknown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	for _, p := range []string{path + "%2Fopen", "/%6Detrics"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodHead} {
			a := w.do(method, p, "", header("Authorization")).is(http.StatusNotFound)
			if method != http.MethodHead {
				a.refuses(http.StatusNotFound, "Not found")
			}
		}
	}
	if strings.Contains(w.logged.String(), `"route":"/api/v1/queues/{id}/open"`) {
		t.Errorf("logged %s", w.logged)
	}
	// The same holds while a node starts.
	w.config.Views = nil
	w.api, w.undocumented = Starting(w.config), true
	w.do(http.MethodGet, "/%6Civez", "").refuses(http.StatusServiceUnavailable, "Read model is behind")
}

// The check of a path without % allocates no memory.
func TestPaths_checkingAPlainOneAllocatesNothing(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, queues+"/queue_01h455vb4pex5vsknk084sn02q", http.NoBody)
	if got := testing.AllocsPerRun(100, func() {
		if !isLiteral(r.URL) || hasAmbiguousLength(r) {
			t.Error("it is refused")
		}
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}
