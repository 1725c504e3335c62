package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// What web pages of other origins may send and read beside what the Fetch standard
// allows everywhere. There are no cookies, so any origin will do: who calls is
// known by the keys that the page itself has.
var (
	anyOrigin      = []string{"*"}
	exposedHeaders = []string{"Retry-After, X-Opens-At, X-Position, ETag, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}
	allowedHeaders = []string{"Authorization, X-Publishable-Key, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Position, X-Request-Id"}
	preflightAge   = []string{"7200"} // seconds; browsers remember it no longer
)

// allowOrigin lets the page that called read the answer.
func (x *exchange) allowOrigin(r *http.Request) {
	if _, ok := r.Header["Origin"]; ok {
		h := x.Header()
		h["Access-Control-Allow-Origin"] = anyOrigin
		h["Access-Control-Expose-Headers"] = exposedHeaders
	}
}

// preflight tells browsers that the methods of m may be called. It is asked
// without credentials.
func preflight(m methods) handler {
	allow := []string{strings.Join(slices.Sorted(maps.Keys(m)), ", ")}
	return func(x *exchange, r *http.Request) error {
		x.allowOrigin(r)
		h := x.Header()
		h["Access-Control-Allow-Methods"] = allow
		h["Access-Control-Allow-Headers"] = allowedHeaders
		h["Access-Control-Max-Age"] = preflightAge
		x.empty(http.StatusNoContent)
		return nil
	}
}
