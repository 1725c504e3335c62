package httpapi

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"
)

var fromAPage = header("Origin", "https://shop.example")

func crossOrigin(h http.Header) []string {
	var names []string
	for name := range h {
		if strings.HasPrefix(name, "Access-Control-") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func TestCORS_anyPageMayMakeThePublicCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits.Public = 5 })
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	tag := w.do(http.MethodGet, path, "", publishable(myPublic)).Header().Get("Etag")
	for name, a := range map[string]*reply{
		"an answer":       w.do(http.MethodGet, path, "", publishable(myPublic), fromAPage).is(http.StatusOK),
		"not modified":    w.do(http.MethodGet, path, "", publishable(myPublic), fromAPage, header("If-None-Match", tag)).is(http.StatusNotModified),
		"not found":       w.do(http.MethodGet, path+"0", "", publishable(myPublic), fromAPage).is(http.StatusNotFound),
		"unauthenticated": w.do(http.MethodGet, path, "", publishable("x"), fromAPage).is(http.StatusUnauthorized),
		"limited":         w.do(http.MethodGet, path, "", publishable(myPublic), fromAPage).is(http.StatusTooManyRequests),
	} {
		h := a.Header()
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: %v", name, h)
		}
		exposed := strings.Split(h.Get("Access-Control-Expose-Headers"), ", ")
		for _, want := range []string{"Retry-After", "X-Opens-At", "X-Position", "ETag", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"} {
			if !slices.Contains(exposed, want) {
				t.Errorf("%s: %s is not among %q", name, want, exposed)
			}
		}
	}
	if got := crossOrigin(w.do(http.MethodGet, path, "").is(http.StatusOK).Header()); got != nil {
		t.Errorf("without an origin: %q", got)
	}
}

// A browser sends a preflight request without credentials. It is answered even if the rate
// limit is used up.
func TestCORS_aPreflightRequestNeedsNoCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Limits.Public = 1 })
	path, _ := w.create("draws", kindCases[1].body)
	without := func(r *http.Request) { r.Header.Del("Authorization") }
	for range 3 {
		a := w.do(http.MethodOptions, path, "", without, fromAPage,
			header("Access-Control-Request-Method", "GET"), header("Access-Control-Request-Headers", "x-publishable-key")).is(http.StatusNoContent)
		h := a.Header()
		if h.Get("Access-Control-Allow-Origin") != "*" || h.Get("Access-Control-Allow-Methods") != "GET" || h.Get("Access-Control-Max-Age") == "" {
			t.Errorf("got %v", h)
		}
		for _, want := range []string{"Authorization", "Content-Type", "X-Publishable-Key", "Idempotency-Key", "X-Position", "X-Request-Id"} {
			if !slices.Contains(strings.Split(h.Get("Access-Control-Allow-Headers"), ", "), want) {
				t.Errorf("%s may not be sent: %v", want, h)
			}
		}
	}
}

// Web pages may not make calls that require a secret key, also on paths that have public
// calls.
func TestCORS_doesNotAllowCallsThatRequireASecretKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	for _, a := range []*reply{
		w.do(http.MethodGet, "/api/v1/queues", "", fromAPage).is(http.StatusOK),
		w.do(http.MethodPut, path, `{}`, fromAPage).is(http.StatusOK),
		w.do(http.MethodPut, path, `{}`, fromAPage, key("")).is(http.StatusUnauthorized),
		w.do(http.MethodPost, path+"/open", "", fromAPage).is(http.StatusOK),
		w.do(http.MethodGet, "/livez", "", fromAPage).is(http.StatusOK),
		w.do(http.MethodGet, "/nowhere", "", fromAPage).is(http.StatusNotFound),
	} {
		if got := crossOrigin(a.Header()); got != nil {
			t.Errorf("%s: %q", a.what, got)
		}
	}
	// Every other path refuses a preflight request.
	public := 0
	err := newServer(w.config).router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		a := w.do(http.MethodOptions, strings.ReplaceAll(template, "{id}", "x"), "", fromAPage, header("Access-Control-Request-Method", "POST"))
		if a.Code == http.StatusNoContent {
			public++
			return nil
		}
		if got := crossOrigin(a.refuses(http.StatusMethodNotAllowed, "Method not allowed").Header()); got != nil {
			t.Errorf("%s: %q", a.what, got)
		}
		return nil
	})
	if err != nil || public != 8 {
		t.Errorf("%d public paths, %v", public, err)
	}
}
