package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// Every refusal code that package domain or this package declares has an answer.
func TestRefusals_allHaveAnAnswer(t *testing.T) {
	t.Parallel()
	declared := 0
	for _, pattern := range []string{"../domain/*.go", "*.go"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, name := range files {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok || len(spec.Values) == 0 || !isCode(spec.Type) {
					return true
				}
				text, err := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
				if err != nil {
					t.Fatal(err)
				}
				declared++
				if answers[domain.Code(text)].status < 400 {
					t.Errorf("%s: no answer to %q", name, text)
				}
				return true
			})
		}
	}
	if declared < 15 {
		t.Errorf("found %d codes only", declared)
	}
	for _, k := range domain.Kinds() {
		if answers[domain.NotFound(k)].status != http.StatusNotFound {
			t.Errorf("no answer to %q", domain.NotFound(k))
		}
	}
}

func isCode(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name == "Code"
	case *ast.SelectorExpr:
		return e.Sel.Name == "Code"
	}
	return false
}

// failing is a command handler that returns the same error for every command, or panics.
type failing struct {
	err   error
	panic any
}

func (f failing) Handle(context.Context, commands.Request) (commands.Result, error) {
	if f.panic != nil {
		panic(f.panic)
	}
	return commands.Result{}, f.err
}

func (f failing) Create(context.Context, commands.Creation) (commands.Result, error) {
	return f.Handle(context.Background(), commands.Request{})
}

func (f failing) CreateKey(context.Context, commands.KeyCreation) (commands.IssuedKey, error) {
	r, err := f.Handle(context.Background(), commands.Request{})
	return commands.IssuedKey{Result: r}, err
}

func (f failing) Now(context.Context) (time.Time, error) { return time.Time{}, f.err }

func TestFaults_areLoggedAndAnsweredWithoutTheirCause(t *testing.T) {
	t.Parallel()
	const store = "Event store unavailable"
	for name, c := range map[string]struct {
		err    error
		status int
		text   string
		code   string
		retry  string
	}{
		"store away":          {fmt.Errorf("append: %w", domain.ErrUnavailable), 503, store, "EVENT_STORE_UNAVAILABLE", "1"},
		"closing":             {commands.ErrClosed, 503, store, "EVENT_STORE_UNAVAILABLE", "1"},
		"doubt":               {fmt.Errorf("append: %w", domain.ErrOutcomeUnknown), 503, store, "OUTCOME_UNKNOWN", "1"},
		"doubt, then away":    {fmt.Errorf("%w: %w", domain.ErrOutcomeUnknown, domain.ErrUnavailable), 503, store, "OUTCOME_UNKNOWN", "1"},
		"never sent in time":  {fmt.Errorf("%w: %w", domain.ErrUnavailable, context.DeadlineExceeded), 503, store, "EVENT_STORE_UNAVAILABLE", "1"},
		"out of time":         {context.DeadlineExceeded, 503, store, "OUTCOME_UNKNOWN", "1"},
		"behind":              {projections.ErrBehind, 503, "Read model is behind", "READ_MODEL_IS_BEHIND", "1"},
		"history":             {fmt.Errorf("load: %w", &domain.HistoryError{Stream: "s", Rule: "r"}), 500, "Distribution history is inconsistent", "DISTRIBUTION_HISTORY_IS_INCONSISTENT", ""},
		"anything":            {errors.New("sk_live_hidden is what went wrong"), 500, "Internal error", "INTERNAL_ERROR", ""},
		"unknown refusal":     {domain.Refuse("Never heard of", ""), 500, "Internal error", "INTERNAL_ERROR", ""},
		"lost race":           {domain.Refuse(domain.ChangedByAnother, ""), 409, "Distribution was changed by another request", "DISTRIBUTION_WAS_CHANGED_BY_ANOTHER_REQUEST", ""},
		"wrapped refusal":     {fmt.Errorf("so: %w", domain.Refuse(domain.IdempotencyReused, "")), 422, "Idempotency key reused", "IDEMPOTENCY_KEY_REUSED", ""},
		"no organization":     {domain.Refuse(domain.OrganizationNotFound, ""), 404, "Organization not found", "ORGANIZATION_NOT_FOUND", ""},
		"precondition failed": {domain.Refuse(domain.PreconditionFailed, ""), 412, "Precondition failed", "PRECONDITION_FAILED", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(config *Config) { config.Commands = failing{err: c.err} })
			// A creation never returns these errors.
			w.undocumented = c.status == http.StatusNotFound || c.status == http.StatusPreconditionFailed
			a := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).is(c.status)
			f := a.failure()
			if f.Error != c.text || f.Code != c.code || a.Header().Get("Retry-After") != c.retry {
				t.Errorf("got %s %v", a.Body, a.Header())
			}
			if strings.Contains(a.Body.String(), "hidden") {
				t.Errorf("the answer is %s", a.Body)
			}
			line := w.logged.String()
			if fault := strings.Contains(line, `"level":"error"`); fault != (c.status >= 500) || strings.Count(line, "\n") != 1 {
				t.Errorf("logged %s", line)
			}
			if c.status >= 500 && (!strings.Contains(line, c.err.Error()) || !strings.Contains(line, f.RequestID)) {
				t.Errorf("logged %s", line)
			}
		})
	}
}

// The log line must say which store and which stream the command waited for.
func TestFaults_anUnknownOutcomeNamesTheStoreAndTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := w.create("queues", `{"sequenceId":"s"}`)
	release := w.log.silent()
	defer release()
	a := w.do(http.MethodPut, path, `{"name":"x"}`).is(http.StatusServiceUnavailable)
	if a.failure().Code != outcomeUnknown {
		t.Errorf("the answer is %s", a.Body)
	}
	want := "a command for " + strings.Replace(id, "_", "-", 1) + ": the store did not answer within 5s"
	if line := w.logged.String(); !strings.Contains(line, want) {
		t.Errorf("logged %s", line)
	}
}

// A read writes nothing, so its outcome is never unknown, however it fails.
func TestFaults_aReadNeverHasAnUnknownOutcome(t *testing.T) {
	t.Parallel()
	for _, err := range []error{
		context.DeadlineExceeded,
		fmt.Errorf("read: %w: %w", domain.ErrUnavailable, context.DeadlineExceeded),
		domain.ErrUnavailable,
	} {
		w := newWorld(t)
		_, id := w.create("queues", kindCases[0].body)
		w.config.Histories = &longHistory{err: err}
		w.api = New(w.config)
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			a := w.do(method, eventsPath(id), "").is(http.StatusServiceUnavailable)
			if a.Header().Get("Retry-After") != "1" {
				t.Errorf("%v: %v", err, a.Header())
			}
		}
		a := w.do(http.MethodGet, eventsPath(id), "").refuses(http.StatusServiceUnavailable, "Event store unavailable")
		if m := a.failure().Message; m != "" {
			t.Errorf("%v: it says %q", err, m)
		}
		w.config.Views = behind{w.views}
		w.api = New(w.config)
		w.do(http.MethodGet, eventsPath(id), "", header("X-Position", w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).Header().Get("X-Position"))).
			refuses(http.StatusServiceUnavailable, "Read model is behind")
	}
}

// behind are read models that never reach a position in time.
type behind struct{ *projections.Views }

func (behind) WaitFor(context.Context, domain.Position) error { return projections.ErrBehind }

func TestPanic_isAnsweredAsAnInternalError(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Commands = failing{panic: "oh"} })
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).refuses(http.StatusInternalServerError, "Internal error")
	line := w.logged.String()
	if strings.Count(line, "\n") != 1 || !strings.Contains(line, "panic: oh") || !strings.Contains(line, "failing.Handle") {
		t.Errorf("logged %s", line)
	}
}

// If the handler panics in the middle of an answer, the connection is aborted, so that the
// client does not take the answer for complete.
func TestPanic_inTheMiddleOfAnAnswerAbortsTheConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) {
		c.Ready = func(context.Context) []Check { panic(http.ErrAbortHandler) }
	})
	defer func() {
		if p := recover(); p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it the same way
			t.Errorf("panicked with %v", p)
		}
		if line := w.logged.String(); strings.Contains(line, `"level":"error"`) {
			t.Errorf("logged %s", line)
		}
	}()
	w.do(http.MethodGet, "/readyz", "")
}

// A client that gives up causes no fault in the log.
func TestFaults_aClientThatGivesUpIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Commands = failing{err: context.Canceled} })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, func(r *http.Request) { *r = *r.WithContext(ctx) }).is(http.StatusServiceUnavailable)
	if line := w.logged.String(); !strings.Contains(line, `"level":"info"`) {
		t.Errorf("logged %s", line)
	}
}

func TestError_bodyHasItsFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodPost, "/api/v1/queues", `{"a<b":1}`, header("X-Request-Id", "r-1"))
	const want = `{"error":"Validation failed","details":[{"field":"a<b","message":"is not a field of this object"},` +
		`{"field":"sequenceId","message":"is required"}],"code":"VALIDATION_FAILED","requestId":"r-1"}`
	if a.is(http.StatusBadRequest).Body.String() != want {
		t.Errorf("got  %s\nwant %s", a.Body, want)
	}
	if got := a.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
		t.Errorf("Content-Type %q", got)
	}
}

func TestProblem_isAnsweredToAClientThatAsksForIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for accept, wanted := range map[string]bool{
		"application/problem+json":                       true,
		"application/json, application/problem+json":     true,
		"text/html, Application/Problem+JSON;q=0.1, */*": true,
		"application/json":                               false,
		"application/json, application/problem+json;q=0": false,
		"application/*":                                  false,
		"*/*":                                            false,
	} {
		a := w.do(http.MethodGet, "/api/v1/queues/nonsense", "", header("Accept", accept)).refuses(http.StatusNotFound, "Queue not found")
		want := "application/json; charset=utf-8"
		if wanted {
			want = "application/problem+json"
		}
		if got := a.Header().Get("Content-Type"); got != want {
			t.Errorf("%q: Content-Type %q", accept, got)
		}
	}
	a := w.do(http.MethodPost, "/api/v1/queues", `{`, header("Accept", "application/problem+json"), header("X-Request-Id", "r-1"))
	var got, want any
	if err := json.Unmarshal(a.Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	const problem = `{"type":"urn:lotline:problem:invalid-json","title":"Invalid JSON","status":400,"detail":"at byte 1: unexpected end of JSON input",
		"instance":"/api/v1/queues","error":"Invalid JSON","message":"at byte 1: unexpected end of JSON input","code":"INVALID_JSON","requestId":"r-1"}`
	if err := json.Unmarshal([]byte(problem), &want); err != nil {
		t.Fatal(err)
	}
	if asJSON(t, got) != asJSON(t, want) {
		t.Errorf("got  %s\nwant %s", a.Body, problem)
	}
}

func TestAccept_mustAllowJSON(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for accept, ok := range map[string]bool{
		"":                                   true,
		"text/html":                          false,
		"application/xml;q=0.9, text/*":      false,
		"application/json;q=0":               false,
		"application/json;q=x":               false,
		"*/*;q=0.1, application/*;q=0":       false,
		"application/json;q=0, */*":          true, // answered as a problem
		"application/json":                   true,
		"application/json; charset=utf-8":    true,
		"text/html, application/json;q=0.01": true,
		"application/*":                      true,
		"text/html,*/*;q=0.8":                true,
		"application/problem+json":           true,
	} {
		a := w.do(http.MethodGet, "/api/v1/queues", "", header("Accept", accept))
		if ok {
			a.is(http.StatusOK)
			continue
		}
		a.refuses(http.StatusNotAcceptable, "Not acceptable")
	}
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodDelete, path, "", header("Accept", "text/html")).is(http.StatusNotAcceptable)
	w.do(http.MethodGet, path, "").is(http.StatusOK)
}

func TestUnknownMethodsAndPaths_areRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for path, allow := range map[string]string{
		"/api/v1/queues":               "GET, HEAD, POST",
		"/api/v1/draws/x":              "DELETE, GET, HEAD, OPTIONS, PUT",
		"/api/v1/auctions/x/settle":    "POST",
		"/api/v1/draws/x/entropy":      "PUT",
		"/api/v1/distributions":        "GET, HEAD",
		"/api/v1/keys":                 "GET, HEAD, POST",
		"/api/v1/keys/x":               "DELETE, GET, HEAD",
		"/api/v1/organization":         "GET, HEAD, PUT",
		"/api/v1/distributions/x":      "GET, HEAD, OPTIONS",
		"/livez":                       "GET, HEAD",
		"/readyz":                      "GET, HEAD",
		"/api/v1/queues/x/open":        "POST",
		"/api/v1/auctions/x/close":     "POST",
		"/api/v1/draws/x/draw":         "POST",
		"/api/v1/queues/x%2Fy/settle2": "",
	} {
		a := w.do(http.MethodPatch, path, "")
		if allow == "" {
			a.refuses(http.StatusNotFound, "Not found")
			continue
		}
		a.refuses(http.StatusMethodNotAllowed, "Method not allowed")
		if got := a.Header().Get("Allow"); got != allow {
			t.Errorf("%s: Allow %q, want %q", path, got, allow)
		}
	}
	for _, path := range []string{
		"/", "/api", "/api/v1", "/api/v1/queues/", "/api//v1/queues", "/api/v1/queues/x/draw", "/api/v1/auctions/x/draw",
		"/api/v1/draws/x/settle", "/api/v1/distributions/x/open", "/api/v1/queues/../queues", "/API/v1/queues", "/livez/",
	} {
		w.do(http.MethodPost, path, "").refuses(http.StatusNotFound, "Not found")
	}
	w.do(http.MethodOptions, "*", "").refuses(http.StatusNotFound, "Not found")
}

func TestAnswer_hasItsHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	for _, a := range []*reply{
		w.do(http.MethodGet, path, "").is(http.StatusOK),
		w.do(http.MethodHead, path, "").is(http.StatusOK),
		w.do(http.MethodGet, path, "", header("If-None-Match", "*")).is(http.StatusNotModified),
		w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK),
		w.do(http.MethodGet, "/nowhere", "").is(http.StatusNotFound),
		w.do(http.MethodHead, "/nowhere", "").is(http.StatusNotFound),
		w.do(http.MethodPost, "/livez", "").is(http.StatusMethodNotAllowed),
		w.do(http.MethodGet, path, "", key("")).is(http.StatusUnauthorized),
		w.do(http.MethodGet, "/livez", "").is(http.StatusOK),
		w.do(http.MethodGet, "/readyz", "").is(http.StatusOK),
		w.do(http.MethodDelete, path, "").is(http.StatusNoContent),
	} {
		h := a.Header()
		if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" || h.Get("X-Request-Id") == "" {
			t.Errorf("%s: %v", a.what, h)
		}
		empty := a.Code == http.StatusNoContent || a.Code == http.StatusNotModified
		if strings.HasPrefix(a.what, http.MethodHead) || empty {
			if a.Body.Len() != 0 {
				t.Errorf("%s: a body of %d bytes", a.what, a.Body.Len())
			}
		}
		if got := h.Get("Content-Type"); !empty && got != "application/json; charset=utf-8" {
			t.Errorf("%s: Content-Type %q", a.what, got)
		}
	}
}

func TestRequestID_isTheClientsOrANewOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for id, kept := range map[string]bool{
		"abc-!~":                 true,
		strings.Repeat("a", 128): true,
		strings.Repeat("a", 129): false,
		"":                       false,
		"with blank":             false,
		"tab\t":                  false,
		"ümlaut":                 false,
	} {
		got := w.do(http.MethodGet, "/livez", "", header("X-Request-Id", id)).Header().Get("X-Request-Id")
		if (got == id) != kept || got == "" {
			t.Errorf("%q became %q", id, got)
		}
	}
	a := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("X-Request-Id", "mine"))
	stream := strings.Replace(a.id(), "_", "-", 1)
	for r, err := range w.log.Read(t.Context(), stream, domain.NoStream) {
		if err != nil || r.Metadata.RequestID != "mine" || r.Metadata.Actor != string(w.myKeyID) {
			t.Errorf("the event has %+v, %v", r.Metadata, err)
		}
	}
}

func TestQuery_unknownParametersAreRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodGet, path+"?asOf=2026-01-01T00:00:00Z", "").blames("asOf")
	w.do(http.MethodPost, "/api/v1/queues?b=1&a=2", `{"sequenceId":"s"}`).blames("a", "b")
	w.do(http.MethodDelete, path+"?force=true", "").blames("force")
	w.do(http.MethodDelete, "/api/v1/keys/x?force=true", "").blames("force")
	w.do(http.MethodPut, "/api/v1/organization?force=true", `{}`).blames("force")
	w.do(http.MethodGet, path+"?a=%zz", "").blames("query")
}
