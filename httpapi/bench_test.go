package httpapi

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/rs/zerolog"
)

// discard is an answer that nobody reads.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(b []byte) (int, error) { return len(b), nil }
func (d *discard) WriteHeader(int)             {}

// bare has the same routes as the API, and answers the same bytes to everything.
func bare(tb testing.TB, api *server, body []byte) http.Handler {
	tb.Helper()
	router := mux.NewRouter()
	router.SkipClean(true)
	err := api.router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		router.HandleFunc(template, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json; charset=utf-8")
			if _, err := w.Write(body); err != nil {
				tb.Error(err)
			}
		})
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	return router
}

// BenchmarkGet compares the whole way of a GET, with authentication, rate limit and
// request log, to a router that does nothing else: first the handlers alone, then over a
// connection. Both take turns, so that what else the machine does hits both, and
// of-bare is the rate that is reached.
func BenchmarkGet(b *testing.B) {
	w := newWorld(b, func(c *Config) {
		c.Clock, c.Log = time.Now, zerolog.New(io.Discard)
		c.Limits = Limits{Secret: 1_000_000_000, Public: 1_000_000_000}
	})
	api := newServer(w.config)
	w.api = api
	path, _ := w.create("queues", `{"sequenceId":"spring","name":"Spring sale","openAt":"2026-05-01T00:00:00Z","maxCapacity":10000,"admissionRate":600}`)
	body := w.do(http.MethodGet, path, "").Body.Bytes()
	handlers := [2]http.Handler{bare(b, api, body), api}

	b.Run("handler", func(b *testing.B) {
		r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, path, http.NoBody)
		r.Header.Set("Authorization", "Bearer "+myKey)
		takeTurns(b, func(i int) { handlers[i].ServeHTTP(&discard{http.Header{}}, r) })
	})
	b.Run("connection", func(b *testing.B) {
		var clients [2]*http.Client
		var urls [2]string
		for i, h := range handlers {
			server := httptest.NewServer(h)
			b.Cleanup(server.Close)
			clients[i], urls[i] = server.Client(), server.URL+path
			b.Cleanup(clients[i].CloseIdleConnections)
		}
		takeTurns(b, func(i int) {
			r, err := http.NewRequestWithContext(b.Context(), http.MethodGet, urls[i], http.NoBody)
			if err != nil {
				b.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+myKey)
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
	b.ReportMetric(0, "ns/op") // of both together: says nothing
	b.ReportMetric(each(took[0]), "bare-ns")
	b.ReportMetric(each(took[1]), "api-ns")
	b.ReportMetric(float64(took[0])/float64(took[1]), "of-bare")
}
