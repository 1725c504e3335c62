package httpapi

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // for the template and its style
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"slices"
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

// renderPage makes a page of an OpenAPI document, and the policy that it is to
// be served with: the page has its style in it and needs nothing else.
func renderPage(document *yaml.Node) (page []byte, policy string) {
	var b bytes.Buffer
	if err := pageTemplate.Execute(&b, (&pageWriter{node{document}}).page()); err != nil {
		panic("the page of the OpenAPI document: " + err.Error())
	}
	style := sha256.Sum256([]byte(pageStyle))
	return b.Bytes(), "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(style[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}

// What the page's template is given.
type (
	pageView struct {
		Title, Version, Summary string
		Style                   template.CSS
		Intro                   template.HTML
		Groups                  []groupView
		Credentials             []fieldView
		Headers                 []fieldView
		Schemas                 []schemaView
	}
	groupView struct {
		Name, Summary string
		Operations    []operationView
	}
	operationView struct {
		ID, Method, Path, Summary string
		Description               template.HTML
		Credentials               [][]string // alternatives, of which each may have several parts
		Parameters                []fieldView
		Body                      *contentView
		Answers                   []answerView
	}
	answerView struct {
		Status      string
		Description template.HTML
		Headers     []string
		Content     *contentView
		Refusals    []refusalView
	}
	refusalView struct {
		Error, Code string
		Description template.HTML
	}
	contentView struct {
		Media    string
		Type     []part
		Required bool
		Examples []exampleView
	}
	exampleView struct{ Title, JSON string }
	schemaView  struct {
		Name        string
		Description template.HTML
		Fields      []fieldView
		Closed      bool
		Type        []part
		Example     string
	}
	fieldView struct {
		Name, In    string
		Anchor      string // where links to it lead, or ""
		Required    bool
		Type        []part
		Rules       []string
		Description template.HTML
	}
	// part is a piece of text, which may name a schema that the page describes.
	part struct{ Text, Schema string }
)

// pageWriter turns a document into what the template is given.
type pageWriter struct{ root node }

func (w *pageWriter) page() pageView {
	info := w.root.at("info")
	v := pageView{
		Title: info.at("title").text(), Version: info.at("version").text(), Summary: info.at("summary").text(),
		Style: template.CSS(pageStyle), //nolint:gosec // the program's own
		Intro: markdown(info.at("description")),
	}
	for _, tag := range w.root.at("tags").items() {
		v.Groups = append(v.Groups, w.group(tag))
	}
	for name, s := range w.root.at("components", "securitySchemes").members() {
		v.Credentials = append(v.Credentials, fieldView{Name: name, Description: markdown(s.at("description"))})
	}
	for name, h := range w.root.at("components", "headers").members() {
		h := w.field(name, h.at("schema"), h)
		h.Anchor, h.Required = "header-"+name, false
		v.Headers = append(v.Headers, h)
	}
	for name, s := range w.root.at("components", "schemas").members() {
		if s.at("title").exists() {
			v.Schemas = append(v.Schemas, w.schema(name, s))
		}
	}
	return v
}

func (w *pageWriter) group(tag node) groupView {
	g := groupView{Name: tag.at("name").text(), Summary: tag.at("description").text()}
	for path, item := range w.root.at("paths").members() {
		for method, o := range item.members() {
			if slices.ContainsFunc(o.at("tags").items(), func(n node) bool { return n.text() == g.Name }) {
				g.Operations = append(g.Operations, w.operation(path, method, item, o))
			}
		}
	}
	return g
}

func (w *pageWriter) operation(path, method string, item, o node) operationView {
	v := operationView{
		ID: o.at("operationId").text(), Method: strings.ToUpper(method), Path: path,
		Summary: o.at("summary").text(), Description: markdown(o.at("description")),
	}
	security := o.at("security")
	if !security.exists() {
		security = w.root.at("security")
	}
	for _, alternative := range security.items() {
		var together []string
		for name := range alternative.members() {
			together = append(together, name)
		}
		v.Credentials = append(v.Credentials, together)
	}
	for _, p := range append(item.at("parameters").items(), o.at("parameters").items()...) {
		p, _ = w.resolve(p)
		v.Parameters = append(v.Parameters, w.field(p.at("name").text(), p.at("schema"), p))
	}
	if body, _ := w.resolve(o.at("requestBody")); body.exists() {
		v.Body = w.content(body.at("content"))
		v.Body.Required = body.at("required").text() == "true"
	}
	for status, a := range o.at("responses").members() {
		a, _ = w.resolve(a)
		v.Answers = append(v.Answers, w.answer(status, a))
	}
	return v
}

func (w *pageWriter) answer(status string, a node) answerView {
	v := answerView{Status: status, Description: line(a.at("description"))}
	for name := range a.at("headers").members() {
		v.Headers = append(v.Headers, name)
	}
	v.Refusals = w.refusals(a.at("content", mediaJSON, "schema"))
	if len(v.Refusals) == 0 {
		v.Content = w.content(a.at("content"))
	}
	return v
}

// refusals are the errors that a schema lets through, if these are what it is
// about.
func (w *pageWriter) refusals(s node) []refusalView {
	s, _ = w.resolve(s)
	var all []refusalView
	for _, one := range s.at("anyOf").items() {
		all = append(all, w.refusals(one)...)
	}
	if text := s.at("properties", "error", "const"); text.exists() {
		all = append(all, refusalView{text.text(), s.at("properties", "code", "const").text(), markdown(s.at("description"))})
	}
	return all
}

// content is the first of several media types.
func (w *pageWriter) content(c node) *contentView {
	for media, m := range c.members() {
		v := &contentView{Media: media, Type: w.kind(m.at("schema"))}
		for name, e := range m.at("examples").members() {
			title := e.at("summary").text()
			if title == "" {
				title = name
			}
			v.Examples = append(v.Examples, exampleView{title, indented(appendNode(nil, e.at("value").Node))})
		}
		if len(v.Examples) == 0 && media == mediaJSON {
			v.Examples = append(v.Examples, exampleView{"Example", indented(w.example(m.at("schema")))})
		}
		return v
	}
	return nil
}

func (w *pageWriter) schema(name string, s node) schemaView {
	v := schemaView{Name: name, Description: markdown(s.at("description"))}
	if s.at("examples").exists() {
		v.Example = indented(w.example(s))
	}
	v.Closed = s.at("additionalProperties").text() == "false"
	if s.at("oneOf").exists() {
		v.Type = w.kind(s)
	}
	for field, f := range s.at("properties").members() {
		field := w.field(field, f, f)
		field.Required = slices.ContainsFunc(s.at("required").items(), func(n node) bool { return n.text() == field.Name })
		v.Fields = append(v.Fields, field)
	}
	return v
}

// field describes one value. Its own description goes before its schema's.
func (w *pageWriter) field(name string, schema, described node) fieldView {
	f := fieldView{
		Name: name, In: described.at("in").text(), Required: described.at("required").text() == "true",
		Type: w.kind(schema), Rules: w.rules(schema), Description: markdown(described.at("description")),
	}
	if f.Description == "" {
		s := w.value(schema)
		f.Description = markdown(s.at("description"))
	}
	return f
}

// value is the schema behind references, and beside null.
func (w *pageWriter) value(s node) node {
	s, _ = w.resolve(s)
	for _, one := range s.at("anyOf").items() {
		if one.at("type").text() != "null" {
			return w.value(one)
		}
	}
	return s
}

// kind says what a schema is of.
func (w *pageWriter) kind(s node) []part {
	s, name := w.resolve(s)
	if s.at("title").exists() && name != "" {
		return []part{{s.at("title").text(), name}}
	}
	for _, members := range []node{s.at("anyOf"), s.at("oneOf")} {
		var parts []part
		for i, one := range members.items() {
			if i > 0 {
				parts = append(parts, part{Text: " or "})
			}
			parts = append(parts, w.kind(one)...)
		}
		if parts != nil {
			return parts
		}
	}
	t := s.at("type")
	switch {
	case t.text() == "array":
		return append([]part{{Text: "array of "}}, w.kind(s.at("items"))...)
	case t.text() == "object" && s.at("additionalProperties", "$ref").exists():
		return append([]part{{Text: "object of "}}, w.kind(s.at("additionalProperties"))...)
	case t.text() != "":
		return []part{{Text: t.text()}}
	case s.at("const").exists():
		return []part{{Text: "string"}}
	}
	var names []string
	for _, n := range t.items() {
		names = append(names, n.text())
	}
	if names == nil {
		return []part{{Text: "any"}}
	}
	return []part{{Text: strings.Join(names, " or ")}}
}

// rules say in words what a schema asks for.
func (w *pageWriter) rules(s node) []string {
	s = w.value(s)
	if s.at("type").text() == "array" {
		s = w.value(s.at("items"))
	}
	var rules []string
	add := func(format, name string) {
		if v := s.at(name); v.exists() {
			rules = append(rules, fmt.Sprintf(format, v.text()))
		}
	}
	between := func(least, most, what string) {
		low, high := s.at(least), s.at(most)
		switch {
		case low.exists() && high.exists():
			rules = append(rules, fmt.Sprintf("%s to %s%s", low.text(), high.text(), what))
		case low.exists():
			rules = append(rules, fmt.Sprintf("at least %s%s", low.text(), what))
		case high.exists():
			rules = append(rules, fmt.Sprintf("at most %s%s", high.text(), what))
		}
	}
	add("always %s", "const")
	if enum := s.at("enum"); enum.exists() {
		var words []string
		for _, e := range enum.items() {
			words = append(words, e.text())
		}
		rules = append(rules, "one of "+strings.Join(words, ", "))
	}
	add("more than %s", "exclusiveMinimum")
	between("minimum", "maximum", "")
	between("minLength", "maxLength", " characters")
	add("%s", "format")
	add("%s when absent", "default")
	return rules
}

// example is the example that a schema has, or one made of its parts'.
func (w *pageWriter) example(s node) []byte {
	s, _ = w.resolve(s)
	if c := s.at("const"); c.exists() {
		return appendNode(nil, c.Node)
	}
	for _, first := range s.at("examples").items() {
		return appendNode(nil, first.Node)
	}
	for _, first := range s.at("oneOf").items() {
		return w.example(first)
	}
	if items := s.at("items"); items.exists() {
		return slices.Concat([]byte("["), w.example(items), []byte("]"))
	}
	b := []byte("{")
	for name, p := range s.at("properties").members() {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(b, encode(name)...), ':')
		b = append(b, w.example(p)...)
	}
	return append(b, '}')
}

// resolve follows a reference, and returns the name that what it leads to has
// among its like.
func (w *pageWriter) resolve(n node) (node, string) {
	name := ""
	for n.at("$ref").exists() {
		keys := strings.Split(strings.TrimPrefix(n.at("$ref").text(), "#/"), "/")
		n, name = w.root.at(keys...), keys[len(keys)-1]
	}
	return n, name
}

func markdown(n node) template.HTML {
	var b strings.Builder
	if err := goldmark.Convert([]byte(n.text()), &b); err != nil {
		panic("a text of the OpenAPI document: " + err.Error())
	}
	return template.HTML(b.String()) //nolint:gosec // goldmark lets no HTML through
}

// line is a text of one paragraph, without the paragraph.
func line(n node) template.HTML {
	s := strings.TrimPrefix(strings.TrimSpace(string(markdown(n))), "<p>")
	return template.HTML(strings.TrimSuffix(s, "</p>")) //nolint:gosec // as above
}

func indented(b []byte) string {
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		panic("an example of the OpenAPI document: " + err.Error())
	}
	return out.String()
}

// node is a place in a YAML document, or nothing.
type node struct{ *yaml.Node }

func (n node) exists() bool { return n.Node != nil }

// text is a scalar's text, and "" for everything else.
func (n node) text() string {
	if n.Node == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

func (n node) at(keys ...string) node {
next:
	for _, key := range keys {
		for name, value := range n.members() {
			if name == key {
				n = value
				continue next
			}
		}
		return node{}
	}
	return n
}

// members are the members of a mapping, in their order.
func (n node) members() func(yield func(string, node) bool) {
	return func(yield func(string, node) bool) {
		if n.Node == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, node{n.Content[i+1]}) {
				return
			}
		}
	}
}

func (n node) items() []node {
	if n.Node == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	items := make([]node, len(n.Content))
	for i, item := range n.Content {
		items[i] = node{item}
	}
	return items
}
