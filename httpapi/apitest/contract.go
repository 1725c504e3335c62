// Package apitest holds an HTTP API to its OpenAPI 3.1 document: tests hand it
// each request with its answer, and it says where the two differ from the
// document.
//
// Schemas are judged by a JSON Schema 2020-12 validator. What is around them is
// judged as narrowly as the document can be read: what it does not describe (a
// status, a header, a query parameter, a field of an answer) is a difference. It
// knows as much of OpenAPI as such a document needs, and fails on the rest.
package apitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Contract is what an OpenAPI document says. Safe for concurrent use.
type Contract struct {
	*document
	paths []path
}

type path struct {
	template string
	segments []string
}

// New reads a document in JSON, whose references all have to lead to places in
// itself.
func New(text []byte) (*Contract, error) {
	d, err := newDocument(text)
	if err != nil {
		return nil, err
	}
	c := &Contract{document: d}
	for template := range object(d.root["paths"]) {
		c.paths = append(c.paths, path{template, strings.Split(template, "/")})
	}
	if len(c.paths) == 0 {
		return nil, errors.New("the document has no paths")
	}
	// A literal segment goes before a parameter.
	slices.SortFunc(c.paths, func(a, b path) int { return -strings.Compare(a.template, b.template) })
	slices.SortStableFunc(c.paths, func(a, b path) int {
		return strings.Count(a.template, "{") - strings.Count(b.template, "{")
	})
	return c, nil
}

// Exchange is a request and its answer.
type Exchange struct {
	Request *http.Request // its body is not read
	Sent    []byte        // the body
	Status  int
	Header  http.Header
	Answer  []byte
}

// Check returns what the document does not describe of an exchange, or nil. The
// document may refuse a request only if the answer does so too, with a 4xx.
func (c *Contract) Check(x Exchange) error {
	item, template, variables := c.find(x.Request.URL)
	if item == nil {
		return c.answer(x, "/components/responses/NotFoundAnswer", http.StatusNotFound)
	}
	method := strings.ToLower(x.Request.Method)
	if method == "head" {
		method = "get"
	}
	at := pointer("/paths", template, method)
	operation, ok := item[method].(map[string]any)
	if !ok && method == "options" && x.Status == http.StatusNoContent {
		return c.answer(x, "/components/responses/PreflightAnswer", http.StatusNoContent)
	}
	if !ok {
		return c.answer(x, "/components/responses/MethodNotAllowedAnswer", http.StatusMethodNotAllowed)
	}
	refused := c.request(x, at, operation, variables)
	if x.Status/100 == 4 {
		refused = nil
	}
	answer := c.answer(x, pointer(at, "responses", strconv.Itoa(x.Status)), x.Status)
	return errors.Join(refused, answer)
}

// find is the path item that a path belongs to, with its template and the
// values of its variables. A path that is encoded without need belongs to none.
func (c *Contract) find(requested *url.URL) (item map[string]any, template string, variables map[string]string) {
	if strings.Contains(requested.RawPath, "%") {
		return nil, "", nil
	}
	segments := strings.Split(requested.EscapedPath(), "/")
next:
	for _, p := range c.paths {
		if len(p.segments) != len(segments) {
			continue
		}
		variables := map[string]string{}
		for i, s := range p.segments {
			if name, ok := strings.CutPrefix(s, "{"); ok && segments[i] != "" {
				value, err := url.PathUnescape(segments[i])
				if err != nil {
					continue next
				}
				variables[strings.TrimSuffix(name, "}")] = value
			} else if s != segments[i] {
				continue next
			}
		}
		return object(object(c.root["paths"])[p.template]), p.template, variables
	}
	return nil, "", nil
}

// request returns why the document refuses a request.
func (c *Contract) request(x Exchange, at string, operation map[string]any, variables map[string]string) error {
	var wrong []error
	known := map[string]bool{}
	query, err := url.ParseQuery(x.Request.URL.RawQuery)
	if err != nil {
		wrong = append(wrong, err)
	}
	itemAt := at[:strings.LastIndex(at, "/")]
	for _, list := range []string{pointer(itemAt, "parameters"), pointer(at, "parameters")} {
		all, _ := c.look(list).([]any)
		for i := range all {
			at, p := c.resolve(pointer(list, strconv.Itoa(i)))
			name, _ := p["name"].(string)
			var values []string
			switch p["in"] {
			case "path":
				values = []string{variables[name]}
			case "query":
				known[name] = true
				values = query[name]
			case "header":
				if lines := x.Request.Header.Values(name); len(lines) > 0 {
					values = []string{strings.Join(lines, ", ")}
				}
			default:
				wrong = append(wrong, fmt.Errorf("%s: a parameter in %v", at, p["in"]))
				continue
			}
			if err := c.text(at, p, values); err != nil {
				wrong = append(wrong, fmt.Errorf("parameter %s: %w", name, err))
			}
		}
	}
	for name := range query {
		if !known[name] {
			wrong = append(wrong, fmt.Errorf("parameter %s is not described", name))
		}
	}
	security, own := operation["security"].([]any)
	if !own {
		security, _ = c.root["security"].([]any)
	}
	if len(security) > 0 && !slices.ContainsFunc(security, func(s any) bool { return c.shown(x.Request, object(s)) }) {
		wrong = append(wrong, errors.New("the credentials are not there"))
	}
	if err := c.sent(x, pointer(at, "requestBody")); err != nil {
		wrong = append(wrong, fmt.Errorf("the request's body: %w", err))
	}
	return errors.Join(wrong...)
}

// shown reports whether a request has all the credentials of a security
// requirement. Whether they hold is not the document's matter.
func (c *Contract) shown(r *http.Request, requirement map[string]any) bool {
	for name := range requirement {
		_, scheme := c.resolve(pointer("/components/securitySchemes", name))
		header, _ := scheme["name"].(string)
		if scheme["type"] == "http" {
			header = "Authorization"
		}
		if r.Header.Get(header) == "" {
			return false
		}
	}
	return true
}

// sent returns why the document refuses the body of a request.
func (c *Contract) sent(x Exchange, at string) error {
	if c.look(at) == nil {
		if len(x.Sent) > 0 {
			return errors.New("is not described")
		}
		return nil
	}
	at, body := c.resolve(at)
	if len(x.Sent) == 0 {
		if body["required"] == true {
			return errors.New("is required")
		}
		return nil
	}
	return c.content(pointer(at, "content"), x.Request.Header.Get("Content-Type"), x.Sent)
}

// answer returns how an answer differs from the response that is described at a
// place.
func (c *Contract) answer(x Exchange, at string, status int) error {
	if x.Status != status || c.look(at) == nil {
		return fmt.Errorf("the answer's status %d is not described", x.Status)
	}
	at, response := c.resolve(at)
	var wrong []error
	described := object(response["headers"])
	for _, name := range slices.Sorted(maps.Keys(described)) {
		at, h := c.resolve(pointer(at, "headers", name))
		if err := c.text(at, h, x.Header.Values(name)); err != nil {
			wrong = append(wrong, fmt.Errorf("the answer's header %s: %w", name, err))
		}
	}
	for name := range x.Header {
		isDescribed := func(d string) bool { return http.CanonicalHeaderKey(d) == name }
		if !slices.Contains(unspoken, name) && !slices.ContainsFunc(slices.Collect(maps.Keys(described)), isDescribed) {
			wrong = append(wrong, fmt.Errorf("the answer's header %s is not described", name))
		}
	}
	_, hasContent := response["content"]
	switch {
	case !hasContent && (len(x.Answer) > 0 || x.Header.Get("Content-Type") != ""):
		wrong = append(wrong, errors.New("the answer's body is not described"))
	case x.Request.Method == http.MethodHead && len(x.Answer) > 0:
		wrong = append(wrong, errors.New("HEAD is answered with a body"))
	case hasContent:
		answer := x.Answer
		if x.Request.Method == http.MethodHead {
			answer = nil
		} else if media, _, _ := mime.ParseMediaType(x.Header.Get("Content-Type")); len(answer) == 0 && media != mediaLines {
			wrong = append(wrong, errors.New("the answer has no body"))
		}
		if err := c.content(pointer(at, "content"), x.Header.Get("Content-Type"), answer); err != nil {
			wrong = append(wrong, fmt.Errorf("the answer's body: %w", err))
		}
	}
	return errors.Join(wrong...)
}

// unspoken are the headers that belong to HTTP and the Fetch standard rather than
// to an operation.
var unspoken = []string{
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
	"Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", "X-Content-Type-Options",
}

// mediaLines has one JSON text a line. Its schema is that of a line.
const mediaLines = "application/x-ndjson"

// content judges a body by the media types that are described at a place. Only
// JSON is looked into, and only if there is some.
func (c *Contract) content(at, contentType string, b []byte) error {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return fmt.Errorf("Content-Type %q: %w", contentType, err)
	}
	at = pointer(at, media)
	if c.look(at) == nil {
		return fmt.Errorf("Content-Type %s is not described", media)
	}
	texts := [][]byte{b}
	switch {
	case len(b) == 0 || media != "application/json" && media != mediaLines && !strings.HasSuffix(media, "+json"):
		return nil
	case media == mediaLines:
		whole, ok := bytes.CutSuffix(b, []byte("\n"))
		if !ok {
			return errors.New("the last line does not end")
		}
		texts = bytes.Split(whole, []byte("\n"))
	}
	for _, text := range texts {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
		if err != nil {
			return err
		}
		if err := c.Validate(pointer(at, "schema"), v); err != nil {
			return err
		}
	}
	return nil
}

// text judges the values of a parameter or header, which is described at a
// place.
func (c *Contract) text(at string, described map[string]any, values []string) error {
	if len(values) == 0 {
		if described["required"] == true {
			return errors.New("is required")
		}
		return nil
	}
	at = pointer(at, "schema")
	_, schema := c.resolve(at)
	if schema["type"] == "array" {
		list := make([]any, len(values))
		for i, v := range values {
			list[i] = v
		}
		return c.Validate(at, list)
	}
	if len(values) > 1 {
		return errors.New("is given more than once")
	}
	return c.Validate(at, scalar(schema["type"], values[0]))
}

// scalar reads a text as its schema's type has it. What cannot be read stays a
// text, which the schema then refuses.
func scalar(schemaType any, s string) any {
	if schemaType == "integer" || schemaType == "number" {
		if n := json.Number(s); json.Valid([]byte(s)) && n != "" {
			if _, err := n.Float64(); err == nil {
				return n
			}
		}
	}
	return s
}
