package httpapi

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// The headers that web pages of other origins may send and read, in addition to those
// that the Fetch standard always allows. Every origin is allowed: the API uses no cookies,
// so a page can call it only with a key that the page itself has.
var (
	anyOrigin      = []string{"*"}
	exposedHeaders = []string{"Retry-After, X-Opens-At, X-Position, ETag, X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset"}
	allowedHeaders = []string{"Authorization, X-Publishable-Key, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Position, X-Request-Id"}
	preflightAge   = []string{"7200"} // seconds; browsers keep a preflight answer no longer than that
)

// allowOrigin allows the web page that sent the request to read the answer.
func (x *exchange) allowOrigin(r *http.Request) {
	if _, ok := r.Header["Origin"]; ok {
		h := x.Header()
		h["Access-Control-Allow-Origin"] = anyOrigin
		h["Access-Control-Expose-Headers"] = exposedHeaders
	}
}

// preflight answers a browser's preflight request: web pages may call the methods of m.
// Browsers send no credentials with it, so it requires none.
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
