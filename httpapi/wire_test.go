package httpapi

import (
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
)

// newWire returns a world whose requests go over a real connection to an HTTP server.
func newWire(tb testing.TB) *world {
	tb.Helper()
	w := newWorld(tb)
	server := httptest.NewServer(w.api)
	tb.Cleanup(server.Close)
	client := server.Client()
	tb.Cleanup(client.CloseIdleConnections)
	w.api = http.HandlerFunc(func(to http.ResponseWriter, r *http.Request) {
		sent := r.Clone(r.Context())
		sent.URL.Scheme, sent.URL.Host = "http", server.Listener.Addr().String()
		sent.RequestURI, sent.Host = "", ""
		answer, err := client.Do(sent)
		if err != nil {
			tb.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
			return
		}
		defer answer.Body.Close()
		maps.Copy(to.Header(), answer.Header)
		to.WriteHeader(answer.StatusCode)
		if _, err := io.Copy(to, answer.Body); err != nil {
			tb.Errorf("%s %s: %v", r.Method, r.URL.Path, err)
		}
	})
	return w
}

// writes checks that f writes n events.
func (w *world) writes(events int, f func()) {
	w.tb.Helper()
	before := w.log.written()
	f()
	if got := w.log.written() - before; got != events {
		w.tb.Errorf("%d events were written, want %d", got, events)
	}
}

func (l *memoryLog) written() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int(l.count)
}
