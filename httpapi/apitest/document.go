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

// document is a description in JSON, with schemas in it. Safe for concurrent use.
type document struct {
	root map[string]any

	mu       sync.Mutex // guards the fields below
	compiler *jsonschema.Compiler
	schemas  map[string]*jsonschema.Schema // by JSON pointer
}

// base is where the schemas are, for the validator.
const base = "https://api.invalid/document.json"

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

// closeSchemas makes every object of the document's schemas refuse fields that
// are not described. A document leaves answers open, so that fields can be added
// without breaking clients; a test wants to know of each.
func closeSchemas(node any) {
	shut := func(schema any) {
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
					shut(p)
				}
			case "schema", "payload", "items", "additionalProperties":
				shut(v)
			}
			closeSchemas(v)
		}
	}
}

// Validate judges a value, as jsonschema.UnmarshalJSON reads it, by the schema at
// a JSON pointer of the document. Fields that the schema does not describe are
// refused.
func (d *document) Validate(at string, v any) error {
	s, err := d.schema(at)
	if err != nil {
		return err
	}
	return s.Validate(v)
}

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

// Look returns what is at a JSON pointer of the document, or nil.
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

// resolve follows the references at a place to the object that is meant, and
// returns where it is.
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

// pointer is the JSON pointer of a place below another.
func pointer(at string, keys ...string) string {
	for _, k := range keys {
		at += "/" + escape.Replace(k)
	}
	return at
}

// object is v as an object, or an empty one.
func object(v any) map[string]any {
	o, _ := v.(map[string]any)
	return o
}
