package httpapi

import (
	"net/http"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// logRequest writes one line about a request to the log. Its level is error if the engine
// is at fault, and info otherwise. It leaves out headers, query and body, because these
// contain keys and tokens.
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
		// Only a refused request can have a method or path of the client's own making.
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

// maxLogged is how many bytes of a client's own text are logged.
const maxLogged = 200

// credentials are the prefixes of keys and tokens.
var credentials = []string{"sk_live_", "sk_test_", "pk_live_", "pk_test_", "eyJ"}

// loggable cuts a client's own text to maxLogged bytes. It also cuts the text where a
// credential begins, which a client may have put in the wrong place.
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
