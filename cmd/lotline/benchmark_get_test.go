package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/gorilla/mux"

	"github.com/lotline/lotline/httpapi"
)

// discard is an http.ResponseWriter that drops the answer.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// bare returns a router with as many routes as the node has. It answers every request
// with the same bytes. As in the node's router, the first route is a queue's.
func bare(b *testing.B, e *engine, body []byte) http.Handler {
	b.Helper()
	const first = "/api/v1/queues/{id}"
	var document struct{ Paths map[string]json.RawMessage }
	if err := json.Unmarshal(e.must(200, "GET", "/openapi.json", "", "").body, &document); err != nil {
		b.Fatal(err)
	}
	templates := []string{first, "/console", "/console/", "/console/{file}"}
	for template := range document.Paths {
		if !slices.Contains(templates, template) {
			templates = append(templates, template)
		}
	}
	router := mux.NewRouter()
	router.SkipClean(true)
	for _, template := range templates {
		router.HandleFunc(template, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			if _, err := w.Write(body); err != nil {
				b.Error(err)
			}
		})
	}
	return router
}

// BenchmarkGet compares a GET to a complete node, with authentication, rate limit,
// request log and metrics, with a GET to a bare router: first by calling the handlers,
// then over a connection. The two take turns, so that other load on the machine slows
// both. of-bare is the node's rate as a part of the router's.
func BenchmarkGet(b *testing.B) {
	logger, flush := newLogger("json", io.Discard)
	b.Cleanup(func() {
		if err := flush(); err != nil {
			b.Error(err)
		}
	})
	c := newClusterStore(b)
	c.logger = logger
	c.options.limits = httpapi.Limits{Secret: 1_000_000_000, Public: 1_000_000_000}
	n := c.startNode(b)
	e := n.engine(b)
	path := e.must(201, "POST", "/api/v1/queues", clusterKey,
		`{"sequenceId":"spring","name":"Spring sale","openAt":"2199-05-01T00:00:00Z","maxCapacity":10000,"admissionRate":600}`).header.Get("Location")
	body := e.must(200, "GET", path, clusterKey, "").body
	handlers := [2]http.Handler{bare(b, e, body), n.api}

	b.Run("handler", func(b *testing.B) {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, path, http.NoBody)
		r.Header.Set("Authorization", "Bearer "+clusterKey)
		takeTurns(b, func(i int) { handlers[i].ServeHTTP(&discard{http.Header{}}, r) })
	})
	b.Run("connection", func(b *testing.B) {
		server := httptest.NewUnstartedServer(nil)
		server.Config = newHTTPServer(handlers[0])
		server.Start()
		b.Cleanup(server.Close)
		urls := [2]string{server.URL + path, n.url + path}
		var clients [2]*http.Client
		for i := range clients {
			clients[i] = newCaller(b).unchecked().Client
		}
		takeTurns(b, func(i int) {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, urls[i], http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+clusterKey)
			a, err := clients[i].Do(r)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, a.Body); err != nil || n != int64(len(body)) {
				b.Fatal(n, err)
			}
			a.Body.Close()
		})
	})
}

// takeTurns measures do(1) against do(0).
func takeTurns(b *testing.B, do func(i int)) {
	b.Helper()
	const atOnce = 50
	var took [2]time.Duration
	rounds := 0
	for b.Loop() {
		rounds++
		for i := range took {
			start := time.Now()
			for range atOnce {
				do(i)
			}
			took[i] += time.Since(start)
		}
	}
	each := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(rounds*atOnce) }
	b.ReportMetric(0, "ns/op") // hides a figure that would mix both
	b.ReportMetric(each(took[0]), "bare-ns")
	b.ReportMetric(each(took[1]), "api-ns")
	target(b, float64(took[0])/float64(took[1]), "of-bare", 0.7)
}
