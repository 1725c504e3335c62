package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the template and its style
	"encoding/base64"
	"encoding/json"
	"html/template"
	"strings"

	"github.com/yuin/goldmark"
	"go.yaml.in/yaml/v4"
)

var (
	//go:embed page.html.tmpl
	pageSource string
	//go:embed page.css
	pageStyle string

	pageTemplate = template.Must(template.New("page").Parse(pageSource))
)

// renderPage renders an OpenAPI document as an HTML page. The page must be served with the
// returned Content-Security-Policy. It contains its style and loads nothing.
func renderPage(document *yaml.Node) (page []byte, policy string) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, (&pageWriter{node{document}}).page()); err != nil {
		panic("the page of the OpenAPI document cannot be rendered: " + err.Error())
	}
	style := sha256.Sum256([]byte(pageStyle))
	return b.Bytes(), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(style[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// markdown renders a text of the document as HTML.
func markdown(n node) template.HTML {
	var b strings.Builder
	if err := goldmark.Convert([]byte(n.text()), &b); err != nil {
		panic("a text of the OpenAPI document cannot be rendered: " + err.Error())
	}
	return template.HTML(b.String()) //nolint:gosec // goldmark removes HTML from the text
}

// line renders a text of one paragraph, without the paragraph's own tags.
func line(n node) template.HTML {
	s := strings.TrimPrefix(strings.TrimSpace(string(markdown(n))), "<p>")
	return template.HTML(strings.TrimSuffix(s, "</p>")) //nolint:gosec // as above
}

// indented formats JSON for reading.
func indented(b []byte) string {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		panic("an example of the OpenAPI document is not JSON: " + err.Error())
	}
	return out.String()
}
