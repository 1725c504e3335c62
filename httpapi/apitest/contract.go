// Package apitest checks an HTTP API against its OpenAPI 3.1 document: tests give it each
// request with its answer, and it reports the differences from the document.
//
// A JSON Schema 2020-12 validator checks values against the document's schemas. Everything
// else is read strictly: a status, a header, a query parameter or a field that the document
// does not describe is a difference. The package supports only the parts of OpenAPI that
// this API's document uses.
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

// Contract is an OpenAPI document to check exchanges against. Safe for concurrent use.
type Contract struct {
	*document
	paths []path
}

type path struct {
	template string
	segments []string
}

// New reads a document in JSON. All its references must point into the document itself.
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
	// A path with a literal segment is tried before one with a parameter.
	slices.SortFunc(c.paths, func(a, b path) int { return -strings.Compare(a.template, b.template) })
	slices.SortStableFunc(c.paths, func(a, b path) int {
		return strings.Count(a.template, "{") - strings.Count(b.template, "{")
	})
	return c, nil
}

// Exchange is a request and its answer.
type Exchange struct {
	Request *http.Request // the body in it is not read
	Sent    []byte        // the body of the request
	Status  int
	Header  http.Header
	Answer  []byte // the body of the answer
}

// Check returns an error about everything in an exchange that the document does not
// describe, or nil if it describes everything. Check ignores the mistakes of a request that
// was refused with a 4xx status.
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

// find returns the path item of a URL, with the path's template and the values of its
// variables. It returns nil for a path with unnecessary percent-encoding, because the API
// does not serve such paths.
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

// request returns an error about everything in a request that the document does not allow.
func (c *Contract) request(x Exchange, at string, operation map[string]any, variables map[string]string) error {
	wrong := c.parameters(x, at, variables)
	security, own := operation["security"].([]any)
	if !own {
		security, _ = c.root["security"].([]any)
	}
	if len(security) > 0 && !slices.ContainsFunc(security, func(s any) bool { return c.hasCredentials(x.Request, object(s)) }) {
		wrong = append(wrong, errors.New("the credentials are not there"))
	}
	if err := c.sent(x, pointer(at, "requestBody")); err != nil {
		wrong = append(wrong, fmt.Errorf("the request's body: %w", err))
	}
	return errors.Join(wrong...)
}

// parameters returns an error for each path, query or header parameter of a request that
// the document does not allow.
func (c *Contract) parameters(x Exchange, at string, variables map[string]string) []error {
	var wrong []error
	query, err := url.ParseQuery(x.Request.URL.RawQuery)
	if err != nil {
		wrong = append(wrong, err)
	}
	known := map[string]bool{}
	for _, at := range c.describedParameters(at) {
		at, p := c.resolve(at)
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
	for name := range query {
		if !known[name] {
			wrong = append(wrong, fmt.Errorf("parameter %s is not described", name))
		}
	}
	return wrong
}

// describedParameters returns the JSON pointers of the parameters that the document
// describes for an operation, and for its path.
func (c *Contract) describedParameters(operationAt string) []string {
	itemAt := operationAt[:strings.LastIndex(operationAt, "/")]
	var all []string
	for _, list := range []string{pointer(itemAt, "parameters"), pointer(operationAt, "parameters")} {
		described, _ := c.look(list).([]any)
		for i := range described {
			all = append(all, pointer(list, strconv.Itoa(i)))
		}
	}
	return all
}

// hasCredentials reports whether a request has all the credentials of a security
// requirement. It does not check whether they are valid.
func (c *Contract) hasCredentials(r *http.Request, requirement map[string]any) bool {
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

// sent returns an error if the document does not allow the body of a request.
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

// answer returns an error about every difference between an answer and the response that
// the document describes at a JSON pointer.
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
		if !slices.Contains(commonHeaders, name) && !slices.ContainsFunc(slices.Collect(maps.Keys(described)), isDescribed) {
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

// commonHeaders are the headers that the document need not describe, because they belong to
// HTTP and the Fetch standard and not to an operation.
var commonHeaders = []string{
	"Access-Control-Allow-Origin", "Access-Control-Expose-Headers",
	"Cache-Control", "Connection", "Content-Length", "Content-Type", "Date", "X-Content-Type-Options",
}

// mediaLines is the media type with one JSON text on each line. Its schema in the document
// describes one line.
const mediaLines = "application/x-ndjson"

// content checks a body against the media types that the document describes at a JSON
// pointer. It checks the content of JSON bodies only, and not of empty ones.
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

// text checks the values of the parameter or header that the document describes at a JSON
// pointer.
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

// scalar converts a text to the schema's type. If it cannot, it returns the text, which the
// schema then refuses.
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
