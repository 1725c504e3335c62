package httpapi

import (
	"html/template"
	"slices"
	"strings"
)

// pageWriter turns an OpenAPI document into the values that the template renders.
type pageWriter struct{ root node }

func (w *pageWriter) page() pageView {
	info := w.root.at("info")
	v := pageView{
		Title: info.at("title").text(), Version: info.at("version").text(), Summary: info.at("summary").text(),
		Style: template.CSS(pageStyle), //nolint:gosec // it is part of the program
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

// refusals returns the errors that a schema describes. It returns none for a schema that is
// not about errors.
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

// content describes the first media type of a body, or returns nil if there is none.
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
