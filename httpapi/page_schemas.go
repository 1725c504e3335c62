package httpapi

import (
	"fmt"
	"slices"
	"strings"
)

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

// field describes one value. The description of the value itself takes precedence over the
// description of its schema.
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

// value returns the schema that s refers to. If s allows a schema or null, value returns
// that schema.
func (w *pageWriter) value(s node) node {
	s, _ = w.resolve(s)
	for _, one := range s.at("anyOf").items() {
		if one.at("type").text() != "null" {
			return w.value(one)
		}
	}
	return s
}

// kind describes the type of a schema's values.
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

// rules describes in words what a schema requires of a value.
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

// example returns the example of a schema. If the schema has none, it combines the examples
// of the schema's parts.
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

// resolve follows references from n. It returns the node at the end, and the name under
// which the document lists that node. The name is "" if n is not a reference.
func (w *pageWriter) resolve(n node) (node, string) {
	name := ""
	for n.at("$ref").exists() {
		keys := strings.Split(strings.TrimPrefix(n.at("$ref").text(), "#/"), "/")
		n, name = w.root.at(keys...), keys[len(keys)-1]
	}
	return n, name
}
