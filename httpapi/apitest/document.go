package apitest

import (
	"bytes"
	"errors"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// document is an OpenAPI or AsyncAPI document with JSON schemas. Safe for concurrent use.
type document struct {
	root map[string]any

	mu       sync.Mutex // guards the fields below
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
}

// base is the URL under which the validator finds the document. It is never fetched.
const base = "https://api.invalid/document.json"

// newDocument reads a document in JSON.
func newDocument(text []byte) (*document, error) {
	open, err := readObject(text)
	if err != nil {
		return nil, err
	}
	closed, err := readObject(text)
	if err != nil {
		return nil, err
	}
	closeSchemas(closed)
	d := &document{root: open, compiler: jsonschema.NewCompiler(), schemas: map[string]*jsonschema.Schema{}}
	d.compiler.DefaultDraft(jsonschema.Draft2020)
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(base, closed); err != nil {
		return nil, err
	}
	return d, nil
}

// readObject reads a JSON text that must be an object.
func readObject(text []byte) (map[string]any, error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	o, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("the document is not an object")
	}
	return o, nil
}

// closeSchemas changes the document's schemas so that objects may not have undescribed
// fields. The document itself allows them in answers, so that fields can be added without
// breaking clients. But a test must find every undescribed field.
func closeSchemas(node any) {
	refuseOthers := func(schema any) {
		s, ok := schema.(map[string]any)
		if !ok {
			return
		}
		if _, open := s["additionalProperties"]; !open {
			s["unevaluatedProperties"] = false
		}
	}
	switch node := node.(type) {
	case []any:
		for _, v := range node {
			closeSchemas(v)
		}
	case map[string]any:
		for name, v := range node {
			switch name {
			case "example", "examples", "default", "const", "enum":
				continue
			case "properties":
				for _, p := range object(v) {
					refuseOthers(p)
				}
			case "schema", "payload", "items", "additionalProperties":
				refuseOthers(v)
			}
			closeSchemas(v)
		}
	}
}

// Validate checks a value against the schema at a JSON pointer of the document. v must come
// from jsonschema.UnmarshalJSON. Validate refuses fields that the schema does not describe.
func (d *document) Validate(at string, v any) error {
	s, err := d.schema(at)
	if err != nil {
		return err
	}
	return s.Validate(v)
}

// schema returns the compiled schema at a JSON pointer.
func (d *document) schema(at string) (*jsonschema.Schema, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.schemas[at]; ok {
		return s, nil
	}
	// The pointer is part of a URL here.
	s, err := d.compiler.Compile(base + "#" + (&url.URL{Path: at}).EscapedPath())
	if err != nil {
		return nil, err
	}
	d.schemas[at] = s
	return s, nil
}

// Look returns the value at a JSON pointer of the document, or nil if there is none.
func (d *document) Look(at string) any { return d.look(at) }

func (d *document) look(at string) any {
	var v any = d.root
	// A pointer begins with a slash, or is empty.
	for _, key := range strings.Split(at, "/")[1:] {
		key = unescape.Replace(key)
		switch node := v.(type) {
		case map[string]any:
			v = node[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i < 0 || i >= len(node) {
				return nil
			}
			v = node[i]
		default:
			return nil
		}
	}
	return v
}

// resolve follows references from a JSON pointer. It returns the object at the end and its
// JSON pointer.
func (d *document) resolve(at string) (string, map[string]any) {
	for {
		o := object(d.look(at))
		ref, ok := o["$ref"].(string)
		if !ok {
			return at, o
		}
		at = strings.TrimPrefix(ref, "#")
	}
}

var (
	escape   = strings.NewReplacer("~", "~0", "/", "~1")
	unescape = strings.NewReplacer("~1", "/", "~0", "~")
)

// pointer returns the JSON pointer of a value below the value at another JSON pointer.
func pointer(at string, keys ...string) string {
	for _, k := range keys {
		at += "/" + escape.Replace(k)
	}
	return at
}

// object returns v as an object, or an empty object if v is something else.
func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}
