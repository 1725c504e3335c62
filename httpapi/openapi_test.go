package httpapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/gorilla/mux"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/apitest"
)

// theDocument returns the OpenAPI document in the form of the validator.
func theDocument(tb testing.TB) map[string]any {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(openAPIJSON().body))
	if err != nil {
		tb.Fatal(err)
	}
	return v.(map[string]any)
}

// testdata has the schema that the OpenAPI Initiative publishes for 3.1. It does not check
// the schemas within a document, so the test compiles those.
func TestDocument_isOpenAPI31(t *testing.T) {
	t.Parallel()
	file, err := os.Open("testdata/openapi-3.1.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	standard, err := jsonschema.UnmarshalJSON(file)
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	const id = "https://spec.openapis.org/oas/3.1/schema/2022-10-07"
	if err := compiler.AddResource(id, standard); err != nil {
		t.Fatal(err)
	}
	schema, err := compiler.Compile(id)
	if err != nil {
		t.Fatal(err)
	}
	document := theDocument(t)
	if err := schema.Validate(document); err != nil {
		t.Error(err)
	}
	for name := range document["components"].(map[string]any)["schemas"].(map[string]any) {
		if err := contract().Validate("/components/schemas/"+name, nil); err != nil && !strings.Contains(err.Error(), "validation failed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	document["info"].(map[string]any)["title"] = 7
	if schema.Validate(document) == nil {
		t.Error("the standard's schema lets anything through")
	}
}

// Every reference has a target, names are unique, and every component is referred to.
func TestDocument_isConsistent(t *testing.T) {
	t.Parallel()
	document := theDocument(t)
	used := map[string]bool{}
	operations := map[string]bool{}
	tags := map[any]bool{}
	for _, tag := range document["tags"].([]any) {
		tags[tag.(map[string]any)["name"]] = true
	}
	eachNode(document, "", func(at string, node map[string]any) {
		if ref, ok := node["$ref"].(string); ok {
			used[ref] = true
			if contract().Look(strings.TrimPrefix(ref, "#")) == nil {
				t.Errorf("%s leads to %s, which is not there", at, ref)
			}
		}
		id, ok := node["operationId"].(string)
		if !ok {
			return
		}
		if operations[id] {
			t.Errorf("%s: there is another %s", at, id)
		}
		operations[id] = true
		for _, tag := range node["tags"].([]any) {
			if !tags[tag] {
				t.Errorf("%s: %s is not among the tags", at, tag)
			}
		}
		if node["summary"] == nil || node["responses"] == nil {
			t.Errorf("%s says too little", at)
		}
	})
	for section, members := range document["components"].(map[string]any) {
		for name := range members.(map[string]any) {
			if ref := "#/components/" + section + "/" + name; !used[ref] && section != "securitySchemes" {
				t.Errorf("nothing leads to %s", ref)
			}
		}
	}
}

// eachNode visits every object of a document, except those in examples.
func eachNode(node any, at string, visit func(at string, node map[string]any)) {
	switch node := node.(type) {
	case map[string]any:
		visit(at, node)
		for name, v := range node {
			if name != "example" && name != "examples" {
				eachNode(v, at+"/"+strings.NewReplacer("~", "~0", "/", "~1").Replace(name), visit)
			}
		}
	case []any:
		for i, v := range node {
			eachNode(v, fmt.Sprintf("%s/%d", at, i), visit)
		}
	}
}

func TestDocument_hasEveryRouteAndNoOther(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *Config) { c.Metrics = http.NotFoundHandler() })
	routes := map[string]string{}
	err := newServer(w.config).router.Walk(func(route *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		template, err := route.GetPathTemplate()
		if err != nil {
			return err
		}
		if ofTheConsole(template) {
			return nil
		}
		path := strings.ReplaceAll(template, "{id}", "x")
		routes[template] = w.do("NONE", path, "").is(http.StatusMethodNotAllowed).Header().Get("Allow")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]string{}
	for template, item := range theDocument(t)["paths"].(map[string]any) {
		var methods []string
		for _, operation := range item.(map[string]any) {
			o, _ := operation.(map[string]any)
			if strings.Contains(asJSON(t, o["security"]), "publishableKey") {
				methods = append(methods, http.MethodOptions) // for preflight requests of web pages
			}
		}
		for _, method := range []string{http.MethodDelete, http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch} {
			if item.(map[string]any)[strings.ToLower(method)] != nil {
				methods = append(methods, method)
			}
			if method == http.MethodGet && slices.Contains(methods, method) {
				methods = append(methods, http.MethodHead)
			}
		}
		slices.Sort(methods)
		described[template] = strings.Join(methods, ", ")
	}
	if !maps.Equal(routes, described) {
		t.Errorf("the router has %s\nthe document   %s", asJSON(t, routes), asJSON(t, described))
	}
}

// The document has every refusal with its text, its code and its status, and no other.
func TestDocument_hasEveryRefusalAndNoOther(t *testing.T) {
	t.Parallel()
	document := theDocument(t)
	refusals := map[string]string{} // text of each refusal, by its reference
	texts := map[domain.Code]bool{}
	for name, schema := range document["components"].(map[string]any)["schemas"].(map[string]any) {
		properties, _ := schema.(map[string]any)["properties"].(map[string]any)
		constant, _ := properties["error"].(map[string]any)
		text, ok := constant["const"].(string)
		if !ok {
			continue
		}
		refusals["#/components/schemas/"+name] = text
		texts[domain.Code(text)] = true
		code := properties["code"].(map[string]any)["const"]
		if code != domain.Code(text).Identifier() && (code != outcomeUnknown || text != string(domain.EventStoreUnavailable)) {
			t.Errorf("%s: code %s", name, code)
		}
		if _, ok := answers[domain.Code(text)]; !ok {
			t.Errorf("%s: nothing is refused with %q", name, text)
		}
	}
	for code := range answers {
		if !texts[code] {
			t.Errorf("%q is not in the document", code)
		}
	}
	// Every response lists a refusal only under the refusal's own status.
	seen := map[string]bool{}
	check := func(at, status string, response any) {
		eachNode(response, at, func(at string, node map[string]any) {
			ref, _ := node["$ref"].(string)
			if text, ok := refusals[ref]; ok {
				seen[text] = true
				if want := fmt.Sprint(answers[domain.Code(text)].status); status != want {
					t.Errorf("%s: %q with %s, not with %s", at, text, status, want)
				}
			}
		})
	}
	eachNode(document["paths"], "", func(at string, node map[string]any) {
		responses, _ := node["responses"].(map[string]any)
		for status, response := range responses {
			if ref, ok := response.(map[string]any)["$ref"].(string); ok {
				response = contract().Look(strings.TrimPrefix(ref, "#"))
			}
			check(at, status, response)
		}
	})
	for name, status := range map[string]string{"NotFoundAnswer": "404", "MethodNotAllowedAnswer": "405"} {
		check(name, status, contract().Look("/components/responses/"+name))
	}
	for _, text := range refusals {
		if !seen[text] {
			t.Errorf("no operation answers %q", text)
		}
	}
}

func TestDocument_examplesMatchTheirSchemas(t *testing.T) {
	t.Parallel()
	seen := 0
	check := func(at string, example any) {
		seen++
		if err := contract().Validate(at, example); err != nil {
			t.Errorf("the example of %s: %v", at, err)
		}
	}
	eachNode(theDocument(t), "", func(at string, node map[string]any) {
		switch examples := node["examples"].(type) {
		case []any: // of a schema
			for _, e := range examples {
				check(at, e)
			}
		case map[string]any: // of a media type
			for _, e := range examples {
				check(at+"/schema", e.(map[string]any)["value"])
			}
		}
		if example, ok := node["example"]; ok { // of a parameter or header
			check(at+"/schema", example)
		}
	})
	if seen < 60 {
		t.Errorf("%d examples only", seen)
	}
	// For schemas without an example the page generates one.
	page := &pageWriter{node{openAPIRoot()}}
	made := 0
	eachNode(theDocument(t), "", func(at string, node map[string]any) {
		content, _ := node["content"].(map[string]any)
		media, ok := content[mediaJSON].(map[string]any)
		at += "/content/application~1json/schema"
		if !ok || media["examples"] != nil {
			return
		}
		keys := strings.Split(strings.TrimPrefix(at, "/"), "/")
		for i, key := range keys {
			keys[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(key)
		}
		schema := page.root.at(keys...)
		if len(page.refusals(schema)) > 0 {
			return
		}
		made++
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(page.example(schema)))
		if err != nil {
			t.Fatal(err)
		}
		check(at, v)
	})
	if made < 10 {
		t.Errorf("%d examples were made", made)
	}
}

// The document matches an object exactly: a field that is removed or added is a difference,
// in answers and in requests.
func TestContract_aMissingFieldIsCaught(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	fields := func(p string, options ...option) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+myKey)
		for _, o := range options {
			o(r)
		}
		a := w.do(http.MethodGet, p, "", options...).is(http.StatusOK)
		x := apitest.Exchange{Request: r, Status: a.Code, Header: a.Header(), Answer: a.Body.Bytes()}
		if err := contract().Check(x); err != nil {
			t.Fatal(err)
		}
		whole := a.object()
		for field := range whole {
			less := maps.Clone(whole)
			delete(less, field)
			x.Answer = []byte(asJSON(t, less) + "\n")
			if contract().Check(x) == nil {
				t.Errorf("%s: %s is not missed", p, field)
			}
		}
		more := maps.Clone(whole)
		more["colour"] = "red"
		x.Answer = []byte(asJSON(t, more) + "\n")
		if contract().Check(x) == nil {
			t.Errorf("%s: a field that is not described passes", p)
		}
	}
	fields(organizationAt)
	fields(keysAt)
	fields(keysAt + "/" + string(w.myKeyID))
	for _, c := range kindCases {
		path, id := w.create(c.collection, c.body)
		fields(eventsPath(id))
		fields(eventsPath(id), accepting(mediaLines)) // one line
		for _, p := range []string{path, strings.Replace(path, c.collection, "distributions", 1)} {
			fields(p)
			fields(p, publishable(myPublic))
		}

		// A request without a required field must be a difference if it was accepted.
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/"+c.collection, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+myKey)
		r.Header.Set("Content-Type", "application/json")
		a := w.do(http.MethodPost, "/api/v1/"+c.collection, c.body)
		x := apitest.Exchange{Request: r, Sent: []byte(c.body), Status: a.Code, Header: a.Header(), Answer: a.Body.Bytes()}
		if err := contract().Check(x); err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(c.body), &fields); err != nil {
			t.Fatal(err)
		}
		for _, field := range contract().Look("/components/schemas/" + domain.Kind(c.kind).Title() + "Create/required").([]any) {
			less := maps.Clone(fields)
			delete(less, field.(string))
			x.Sent = []byte(asJSON(t, less))
			if contract().Check(x) == nil {
				t.Errorf("%s: %s is not missed", c.collection, field)
			}
		}
	}
}

// Other differences between an exchange and the document.
func TestContract_catches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := w.create("queues", `{"sequenceId":"s"}`)
	const list = "/api/v1/queues"
	events := eventsPath(id)
	for name, c := range map[string]struct {
		method, path string
		change       func(*apitest.Exchange)
	}{
		"another status":           {http.MethodGet, path, func(x *apitest.Exchange) { x.Status = http.StatusAccepted }},
		"a header too many":        {http.MethodGet, path, func(x *apitest.Exchange) { x.Header.Set("X-Colour", "red") }},
		"a header too few":         {http.MethodGet, path, func(x *apitest.Exchange) { x.Header.Del("Etag") }},
		"a header with nonsense":   {http.MethodGet, path, func(x *apitest.Exchange) { x.Header.Set("Etag", "3") }},
		"another media type":       {http.MethodGet, path, func(x *apitest.Exchange) { x.Header.Set("Content-Type", "text/plain") }},
		"no body":                  {http.MethodGet, path, func(x *apitest.Exchange) { x.Answer = nil }},
		"no JSON":                  {http.MethodGet, path, func(x *apitest.Exchange) { x.Answer = []byte("{") }},
		"a time in another form":   {http.MethodGet, path, func(x *apitest.Exchange) { x.Answer = bytes.ReplaceAll(x.Answer, []byte(".000Z"), []byte("Z")) }},
		"a body for HEAD":          {http.MethodHead, path, func(x *apitest.Exchange) { x.Answer = []byte("{}") }},
		"no credentials":           {http.MethodGet, path, func(x *apitest.Exchange) { x.Request.Header.Del("Authorization") }},
		"a header of the request":  {http.MethodGet, path, func(x *apitest.Exchange) { x.Request.Header.Set("X-Position", "?") }},
		"a body that nobody asked": {http.MethodGet, path, func(x *apitest.Exchange) { x.Sent = []byte("{}") }},
		"an id of another kind": {http.MethodGet, path, func(x *apitest.Exchange) {
			x.Request.URL.Path = strings.Replace(x.Request.URL.Path, "queue_", "draw_", 1)
		}},
		"a parameter nobody knows":  {http.MethodGet, list, func(x *apitest.Exchange) { x.Request.URL.RawQuery = "colour=red" }},
		"a parameter out of range":  {http.MethodGet, list, func(x *apitest.Exchange) { x.Request.URL.RawQuery = "first=101" }},
		"a parameter given twice":   {http.MethodGet, list, func(x *apitest.Exchange) { x.Request.URL.RawQuery = "first=1&first=2" }},
		"one of several":            {http.MethodGet, list, func(x *apitest.Exchange) { x.Request.URL.RawQuery = "status=OPEN&status=NO" }},
		"a path that is not there":  {http.MethodGet, list, func(x *apitest.Exchange) { x.Request.URL.Path = "/api/v1/queue" }},
		"a line that has no end":    {http.MethodGet, events, func(x *apitest.Exchange) { x.Answer = bytes.TrimSpace(x.Answer) }},
		"a second line":             {http.MethodGet, events, func(x *apitest.Exchange) { x.Answer = append(x.Answer, "{}\n"...) }},
		"an empty line":             {http.MethodGet, events, func(x *apitest.Exchange) { x.Answer = append(x.Answer, '\n') }},
		"a preflight with a body":   {http.MethodOptions, path, func(x *apitest.Exchange) { x.Answer = []byte("{}") }},
		"a preflight without use":   {http.MethodOptions, path, func(x *apitest.Exchange) { x.Header.Del("Access-Control-Allow-Methods") }},
		"a method it does not have": {http.MethodGet, list, func(x *apitest.Exchange) { x.Request.Method = http.MethodPatch }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := http.NewRequestWithContext(t.Context(), c.method, c.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Authorization", "Bearer "+myKey)
			a := w.do(c.method, c.path, "", header("Accept", "*/*", mediaLines))
			x := apitest.Exchange{Request: r, Status: a.Code, Header: a.Header().Clone(), Answer: a.Body.Bytes()}
			if err := contract().Check(x); err != nil {
				t.Fatal(err)
			}
			c.change(&x)
			err = contract().Check(x)
			if err == nil {
				t.Error("it passes")
			}
		})
	}
}

// A refusal must have exactly the text that the document has for it.
func TestContract_catchesOtherTexts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, accept := range []string{"application/json", "application/problem+json"} {
		const path = "/api/v1/queues/queue_01h455vb4pex5vsknk084sn02q"
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		a := w.do(http.MethodGet, path, "", header("Accept", accept)).is(http.StatusNotFound)
		for _, change := range [][2]string{{"", ""}, {"Queue not found", "Queue is missing"}, {"QUEUE_NOT", "DRAW_NOT"}, {"requestId", "request"}} {
			x := apitest.Exchange{Request: r, Status: a.Code, Header: a.Header(), Answer: bytes.ReplaceAll(a.Body.Bytes(), []byte(change[0]), []byte(change[1]))}
			if change[0] == "" {
				x.Answer = a.Body.Bytes()
			}
			if err := contract().Check(x); (err == nil) != (change[0] == "") {
				t.Errorf("%s: %s: %v", accept, x.Answer, err)
			}
		}
	}
}

func TestOpenAPI_isServedToAnybody(t *testing.T) {
	t.Parallel()
	// The documents are served even before the node has a log.
	w := newWorld(t, func(c *Config) { c.CaughtUp = func() bool { return false } })
	without := header("Authorization")
	for path, contentType := range map[string]string{
		"/openapi.yaml":  "application/yaml",
		"/openapi.json":  "application/json; charset=utf-8",
		"/asyncapi.yaml": "application/vnd.aai.asyncapi+yaml;version=3.0.0",
		"/docs":          "text/html; charset=utf-8",
	} {
		a := w.do(http.MethodGet, path, "", without, header("Accept", "text/html")).is(http.StatusOK)
		tag := a.Header().Get("Etag")
		if a.Header().Get("Content-Type") != contentType || a.Header().Get("Cache-Control") != "no-cache" || len(tag) < 10 {
			t.Errorf("%s: %v", path, a.Header())
		}
		head := w.do(http.MethodHead, path, "", without).is(http.StatusOK)
		if head.Header().Get("Content-Length") != fmt.Sprint(a.Body.Len()) || head.Header().Get("Etag") != tag {
			t.Errorf("HEAD %s: %v", path, head.Header())
		}
		again := w.do(http.MethodGet, path, "", without, header("If-None-Match", `"x", `+tag)).is(http.StatusNotModified)
		if again.Header().Get("Etag") != tag || again.Header().Get("Cache-Control") != "no-cache" {
			t.Errorf("%s again: %v", path, again.Header())
		}
		w.do(http.MethodGet, path, "", without, header("If-None-Match", `"x"`)).is(http.StatusOK)
	}
}

// The JSON and the YAML document have the same content in the same order.
func TestOpenAPI_jsonIsTheYAML(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	if got := w.do(http.MethodGet, "/openapi.yaml", "").Body.Bytes(); !bytes.Equal(got, openAPISource) {
		t.Error("the YAML is not the source")
	}
	fromYAML := map[string]any{}
	if err := openAPIRoot().Decode(&fromYAML); err != nil {
		t.Fatal(err)
	}
	text := w.do(http.MethodGet, "/openapi.json", "").Body.Bytes()
	var fromJSON map[string]any
	if err := json.Unmarshal(text, &fromJSON); err != nil {
		t.Fatal(err)
	}
	if y, j := asJSON(t, fromYAML), asJSON(t, fromJSON); y != j {
		t.Errorf("they differ at %d", mismatch(y, j))
	}
	last := -1
	for _, path := range []string{`"openapi":`, `"info":`, `"/api/v1/queues":`, `"/api/v1/draws":`, `"/docs":`, `"components":`} {
		at := bytes.Index(text, []byte(path))
		if at <= last {
			t.Errorf("%s is out of order", path)
		}
		last = at
	}
}

func mismatch(a, b string) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// The page has no scripts and loads nothing, and its links have targets in it.
func TestDocs_areSelfContained(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodGet, "/docs", "", header("Authorization"))
	page := a.Body.String()
	if m := regexp.MustCompile(`(?i)<script|<link|<img|<iframe|\son[a-z]+=|style=|@import|url\(|javascript:`).FindString(page); m != "" {
		t.Errorf("the page has %q", m)
	}
	style := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindStringSubmatch(page)
	if style == nil {
		t.Fatal("no style")
	}
	sum := sha256.Sum256([]byte(style[1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	if got := a.Header().Get("Content-Security-Policy"); got != want {
		t.Errorf("policy %q\nwant   %q", got, want)
	}
	ids := map[string]bool{}
	for _, m := range regexp.MustCompile(` id="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if ids[m[1]] {
			t.Errorf("two places are called %s", m[1])
		}
		ids[m[1]] = true
	}
	for _, m := range regexp.MustCompile(`href="([^"]*)"`).FindAllStringSubmatch(page, -1) {
		if anchor, ok := strings.CutPrefix(m[1], "#"); ok && !ids[anchor] || !ok && !slices.Contains([]string{"/openapi.yaml", "/openapi.json", "/asyncapi.yaml"}, m[1]) {
			t.Errorf("a link to %s", m[1])
		}
	}
	for _, unready := range []string{"{{", "<no value>", "ZgotmplZ", "<!-- raw HTML omitted -->", "%!"} {
		if strings.Contains(page, unready) {
			t.Errorf("the page has %q", unready)
		}
	}
}

// The page has every operation, parameter, field, status and refusal of the document.
func TestDocs_containTheWholeDocument(t *testing.T) {
	t.Parallel()
	page := newWorld(t).do(http.MethodGet, "/docs", "").Body.String()
	tells := func(what string) {
		t.Helper()
		if !strings.Contains(page, what) {
			t.Errorf("the page does not have %s", what)
		}
	}
	eachNode(theDocument(t), "", func(_ string, node map[string]any) {
		if id, ok := node["operationId"].(string); ok {
			tells(`<article id="` + id + `">`)
		}
		if name, ok := node["name"].(string); ok && node["in"] != nil && node["type"] == nil {
			tells("<code>" + name + "</code> <small>")
		}
		if title, ok := node["title"].(string); ok && node["type"] != nil {
			tells(`<article id="schema-` + title + `">`)
			properties, _ := node["properties"].(map[string]any)
			for name := range properties {
				tells("<code>" + name + "</code>")
			}
		}
	})
	for code := range answers {
		if code == methodNotAllowed {
			continue // no operation gives this refusal
		}
		tells("<td>" + string(code) + "</td><td><code>" + code.Identifier())
	}
}

// A request that the engine refuses for its form alone is refused by the document too. A
// request that the engine accepts is allowed by the document, which do checks.
func TestDocument_refusesWhatTheEngineRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	type field struct {
		name      string
		good, bad []string
	}
	times := []string{`"2026-12-15T09:00:00"`, `"2026-12-15t09:00:00.123456z"`, `"2026-12-15T09:00:00-11:30"`}
	noTimes := []string{`7`, `""`, `"soon"`, `"2026-12-15"`, `"2026-13-15T09:00:00Z"`, `"2026-12-32T09:00:00Z"`, `"2026-12-15T24:00:00Z"`, `"2026-12-15T09:00:00+24:00"`}
	counts, noCounts := []string{`1`, `2147483647`}, []string{`0`, `-1`, `2147483648`, `1.5`, `"1"`, `true`, `[]`}
	seconds, noSeconds := []string{`1`, `31536000`}, []string{`0`, `31536001`, `"60"`}
	amounts := []string{`100.5`, `"100.50"`, `0.01`, `999999999999.99`, `"100.500000"`}
	noAmounts := []string{`0`, `-1`, `1000000000000`, `"1e3"`, `"1."`, `".5"`, `"01"`, `""`, `true`, `"1.00001"`}
	common := []field{
		{"sequenceId", []string{long(128)}, []string{`""`, long(129), `"a b"`, `"ü"`, `7`, `null`}},
		{"name", []string{`""`, long(200), `"Ünï 😀"`, `null`}, []string{long(201), `"a\u0000b"`, `"\u007f"`, `7`}},
		{"timeZone", []string{`"Etc/GMT+5"`, `"America/Port-au-Prince"`, `null`}, []string{`""`, `"../zone"`, `7`}},
		{"openAt", append(times, `null`), noTimes},
		{"encryptionSeed", []string{`"x"`, long(256), `null`}, []string{`""`, long(257), `"\n"`, `{}`}},
		{"metadata", []string{`{}`, `{"a":[{}]}`, `null`}, []string{`[]`, `"{}"`, `7`}},
		{"colour", nil, []string{`1`, `null`}},
		{"status", nil, []string{`"OPEN"`}},
	}
	for collection, c := range map[string]struct {
		schema, rest string
		own          []field
	}{
		"queues": {"QueueCreate", `{"sequenceId":"s"`, []field{
			{"closeAt", append(times, `null`), noTimes},
			{"maxCapacity", append(counts, `null`), noCounts},
			{"admissionRate", append(counts, `null`), noCounts},
			{"sessionDurationSeconds", append(seconds, `null`), noSeconds},
		}},
		"draws": {"DrawCreate", `{"sequenceId":"s","drawAt":"2027-01-01T00:00:00Z","winnerCount":1`, []field{
			{"drawAt", []string{`"2027-01-01T00:00:00"`}, append(noTimes, `null`)},
			{"winnerCount", counts, append(noCounts, `null`)},
			{"maxEntries", append(counts, `null`), noCounts},
			{"claimWindowSeconds", append(seconds, `null`), noSeconds},
			{"backfill", []string{`true`, `false`, `null`}, []string{`"true"`, `0`}},
			{"entropySource", []string{`"x"`, long(256), `null`}, []string{`""`, long(257), `7`}},
			{"seedCommitment", nil, []string{`"x"`}},
		}},
		"auctions": {"AuctionCreate", `{"sequenceId":"s","settleAt":"2027-01-01T00:00:00Z"`, []field{
			{"settleAt", []string{`"2027-01-01T00:00:00"`}, append(noTimes, `null`)},
			{"startingBid", append(amounts, `null`), noAmounts},
			{"minimumIncrement", append(amounts, `null`), noAmounts},
			{"reservePrice", append(amounts, `null`), noAmounts},
			{"buyNowPrice", append(amounts, `null`), noAmounts},
			{"currencyCode", []string{`"EUR"`, `null`}, []string{`"eur"`, `"EURO"`, `7`}},
			{"winnerCount", append(counts, `null`), noCounts},
			{"auctionType", []string{`"english"`, `null`}, []string{`"English"`, `"dutch"`, `""`}},
			{"autoExtendSeconds", append(seconds, `null`), noSeconds},
			{"maxExtensions", append(counts, `null`), noCounts},
			{"startPrice", []string{`null`}, append(noAmounts, `1`)},
			{"priceDropIntervalSeconds", []string{`null`}, append(noSeconds, `1`)},
		}},
		"keys": {"KeyCreate", `{"level":"secret"`, []field{
			{"level", []string{`"publishable"`}, []string{`"root"`, `"Secret"`, `""`, `7`, `null`}},
			{"mode", []string{`"live"`, `"test"`, `null`}, []string{`"prod"`, `"LIVE"`, `""`, `{}`}},
			{"expiresAt", append(times, `null`), noTimes},
			{"key", nil, []string{`"sk_live_mine"`, `null`}},
		}},
	} {
		fields := slices.Clone(common)
		if collection == "keys" {
			fields = slices.DeleteFunc(fields, func(f field) bool { return f.name != "name" && f.name != "colour" })
		}
		for _, f := range append(fields, c.own...) {
			// The body has the value under test in place of the default one.
			rest := regexp.MustCompile(`"`+f.name+`":("[^"]*"|\d+),?`).ReplaceAllString(c.rest, "")
			send := func(value string, status int) {
				t.Helper()
				body := strings.NewReplacer("{,", "{", ",,", ",").Replace(rest + `,"` + f.name + `":` + value + "}")
				w.do(http.MethodPost, "/api/v1/"+collection, body).is(status)
				v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				if err := contract().Validate("/components/schemas/"+c.schema, v); (err == nil) != (status == http.StatusCreated) {
					t.Errorf("%s: %d, but the document says %v", body, status, err)
				}
			}
			for _, value := range f.good {
				send(value, http.StatusCreated)
			}
			for _, value := range f.bad {
				send(value, http.StatusBadRequest)
			}
		}
	}
}
