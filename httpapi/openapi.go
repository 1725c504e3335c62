package httpapi

import (
	"crypto/sha256"
	_ "embed" // for the document
	"encoding/base64"
	"net/http"
	"sync"

	"go.yaml.in/yaml/v4"
)

// openAPISource is the OpenAPI 3.1 document of every route of this package. It is written
// by hand, before the code. The tests check every request and every answer against it.
//
//go:embed openapi.yaml
var openAPISource []byte

// asyncAPISource is the AsyncAPI 3.0 document of the messages on a message bus. The tests
// check every stored event, and the messages that a broker receives, against it.
//
//go:embed asyncapi.yaml
var asyncAPISource []byte

// staticDocument is a document that changes only with a new version of the program.
type staticDocument struct {
	contentType []string
	etag        string
	body        []byte
	policy      string // Content-Security-Policy, or ""
}

func newStaticDocument(contentType string, body []byte) staticDocument {
	sum := sha256.Sum256(body)
	return staticDocument{
		contentType: []string{contentType},
		etag:        `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`,
		body:        body,
	}
}

// The OpenAPI document in its three forms, and the AsyncAPI document. Their sources are
// part of the program, so a source that cannot be read is a mistake in the program and
// panics.
var (
	openAPIYAML = sync.OnceValue(func() staticDocument { return newStaticDocument("application/yaml", openAPISource) })
	openAPIJSON = sync.OnceValue(func() staticDocument {
		return newStaticDocument("application/json; charset=utf-8", appendNode(nil, openAPIRoot()))
	})
	openAPIPage = sync.OnceValue(func() staticDocument {
		body, policy := renderPage(openAPIRoot())
		page := newStaticDocument("text/html; charset=utf-8", body)
		page.policy = policy
		return page
	})

	asyncAPIYAML = sync.OnceValue(func() staticDocument {
		return newStaticDocument("application/vnd.aai.asyncapi+yaml;version=3.0.0", asyncAPISource)
	})

	openAPIRoot = sync.OnceValue(func() *yaml.Node {
		var document yaml.Node
		if err := yaml.Load(openAPISource, &document); err != nil {
			panic("the OpenAPI document cannot be read: " + err.Error())
		}
		return document.Content[0]
	})
)

// revalidate lets clients store a document, but makes them ask each time if it changed.
var revalidate = []string{"no-cache"}

// serveDocument answers with a document. A client that stored the document can ask with
// If-None-Match whether it changed.
func serveDocument(form func() staticDocument) handler {
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
