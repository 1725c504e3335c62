package httpapi

import (
	"crypto/sha256"
	_ "embed" // for the document
	"encoding/base64"
	"fmt"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v4"
)

// openAPISource describes every route of this package, as OpenAPI 3.1. It is
// written by hand and comes before the code: the tests check every request and
// every answer against it.
//
//go:embed openapi.yaml
var openAPISource []byte

// asyncAPISource describes what is published on a message bus, as AsyncAPI 3.0. The
// tests check every stored event and what a broker gets against it.
//
//go:embed asyncapi.yaml
var asyncAPISource []byte

// served is a text that only a new version of the program changes.
type served struct {
	contentType []string
	etag        string
	body        []byte
	policy      string // Content-Security-Policy, or ""
}

func newServed(contentType string, body []byte) served {
	sum := sha256.Sum256(body)
	return served{
		contentType: []string{contentType},
		etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`,
		body:        body,
	}
}

// The OpenAPI document in its three forms, and the AsyncAPI document. Their source is the program's own, so that one
// which cannot be read is a mistake in the program.
var (
	openAPIYAML = sync.OnceValue(func() served { return newServed("application/yaml", openAPISource) })
	openAPIJSON = sync.OnceValue(func() served {
		return newServed("application/json; charset=utf-8", appendNode(nil, openAPIRoot()))
	})
	openAPIPage = sync.OnceValue(func() served {
		body, policy := renderPage(openAPIRoot())
		page := newServed("text/html; charset=utf-8", body)
		page.policy = policy
		return page
	})

	asyncAPIYAML = sync.OnceValue(func() served {
		return newServed("application/vnd.aai.asyncapi+yaml;version=3.0.0", asyncAPISource)
	})

	openAPIRoot = sync.OnceValue(func() *yaml.Node {
		var document yaml.Node
		if err := yaml.Load(openAPISource, &document); err != nil {
			panic("the OpenAPI document cannot be read: " + err.Error())
		}
		return document.Content[0]
	})
)

var revalidate = []string{"no-cache"}

// document answers with a document in one form. It may be kept, and asked for
// again with If-None-Match.
func document(form func() served) handler {
	return func(x *exchange, r *http.Request) error {
		d := form()
		h := x.prepare()
		h["Cache-Control"] = revalidate
		x.set("Etag", d.etag)
		if unchanged(r, d.etag) {
			x.WriteHeader(http.StatusNotModified)
			return nil
		}
		if d.policy != "" {
			x.set("Content-Security-Policy", d.policy)
		}
		x.send(r, http.StatusOK, d.contentType, d.body)
		return nil
	}
}

// appendNode writes YAML, of which JSON can say as much, as JSON in the same
// order.
func appendNode(dst []byte, n *yaml.Node) []byte {
	switch n.Kind {
	case yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, encode(n.Content[i].Value)...)
			dst = append(dst, ':')
			dst = appendNode(dst, n.Content[i+1])
		}
		return append(dst, '}')
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendNode(dst, item)
		}
		return append(dst, ']')
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			panic(fmt.Sprintf("line %d of the OpenAPI document: %v", n.Line, err))
		}
		return append(dst, encode(v)...)
	}
	panic(fmt.Sprintf("line %d of the OpenAPI document has an alias, or what JSON cannot say", n.Line))
}
