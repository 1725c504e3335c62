package httpapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// logRequest writes the one line that a request leaves in the log: at info, or
// at error with the error when we are to blame. It holds neither headers nor
// query nor body, because these carry keys and tokens.
func (s *server) logRequest(x *exchange, r *http.Request, took time.Duration) {
	level := zerolog.InfoLevel
	if x.fault != nil {
		level = zerolog.ErrorLevel
	}
	e := s.Log.WithLevel(level)
	if !e.Enabled() {
		return
	}
	method, path := r.Method, r.URL.Path
	if x.status >= http.StatusBadRequest {
		// Only then may they be of the client's making.
		method, path = loggable(method), loggable(path)
	}
	e = e.Str("method", method).
		Str("route", x.template).
		Str("path", path).
		Int("status", x.status).
		Int("bytes", x.bytes).
		Float64("duration_ms", float64(took.Microseconds())/1000).
		Str("request_id", x.requestID)
	if x.organization != nil {
		e = e.Str("organization", string(x.organization.ID)).Str("key", string(x.keyID))
	}
	if x.fault != nil {
		e = e.Err(x.fault)
	}
	if x.stack != nil {
		e = e.Bytes("stack", x.stack)
	}
	e.Msg("request")
}

// maxLogged is how much of what a client calls something is logged.
const maxLogged = 200

// credentials are how keys and tokens begin.
var credentials = []string{"sk_live_", "sk_test_", "pk_live_", "pk_test_", "eyJ"}

// loggable cuts what a client made up where it becomes too long, or where a
// credential begins that was put into the wrong place.
func loggable(s string) string {
	end := min(len(s), maxLogged)
	for _, c := range credentials {
		if i := strings.Index(s[:end], c); i >= 0 {
			end = i
		}
	}
	if end < len(s) {
		return s[:end] + "…"
	}
	return s
}
