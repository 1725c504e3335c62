package domain

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// problems collects what is wrong with a request, all of it.
type problems []Detail

func (p *problems) add(field, format string, args ...any) {
	*p = append(*p, Detail{Field: field, Message: fmt.Sprintf(format, args...)})
}

// clash is that a field does not go with the others: what is wrong with it and, when
// it is about two alike, what is then wrong with the other.
type clash struct{ field, other Detail }

type clashes []clash

func (c *clashes) add(field, format string, args ...any) {
	*c = append(*c, clash{field: Detail{field, fmt.Sprintf(format, args...)}})
}

// between adds a clash that can be told of either field.
func (c *clashes) between(field, message, other, otherMessage string) {
	*c = append(*c, clash{Detail{field, message + " " + other}, Detail{other, otherMessage + " " + field}})
}

// whole adds what is wrong with d as a whole. It says no more of a field that
// was complained of already, and nothing when such a field decides what the
// others mean. Of two fields that clash it blames the one that the request
// changes, as changes tells.
func (p *problems) whole(d Distribution, changes func(field string) bool) {
	told := map[string]bool{}
	for _, w := range *p {
		told[w.Field] = true
	}
	if told["timeZone"] || told["currencyCode"] || told["auctionType"] {
		return
	}
	var found clashes
	d.check(&found)
	for _, c := range found {
		blamed := c.field
		if c.other.Field != "" && !changes(c.field.Field) && changes(c.other.Field) {
			blamed = c.other
		}
		if !told[blamed.Field] {
			*p = append(*p, blamed)
		}
	}
}

func (p *problems) refusal(code Code) error {
	if len(*p) == 0 {
		return nil
	}
	return &Error{Code: code, Details: *p}
}

// readNew reads the fields of a creation. What is left out, or null, keeps the
// value that it has.
func (p *problems) readNew(given Fields, fields []field) {
	p.unknown(given, fields)
	for _, f := range fields {
		raw, ok := given[f.name]
		switch {
		case ok && f.is(computed):
			p.add(f.name, "is set by the engine")
		case !ok || isNull(raw):
			if f.is(required) {
				p.add(f.name, "is required")
			}
		default:
			if err := f.value.parse(raw); err != nil {
				p.add(f.name, "%s", err)
			}
		}
	}
}

// readChanges reads the fields that an update names into next, which is before
// until then, and returns what that changes. judge looks at each change as well.
func (p *problems) readChanges(given Fields, before, next []field, judge func(f field, raw json.RawMessage)) map[string]Change {
	p.unknown(given, before)
	changed := map[string]Change{}
	for i, f := range next {
		raw, ok := given[f.name]
		if !ok {
			continue
		}
		if err := f.read(raw); err != nil {
			p.add(f.name, "%s", err)
			if f.is(nullable | timing) {
				f.value.clear() // so that nothing is measured by what it was
			}
			continue
		}
		was, is := before[i].json(), f.json()
		if f.is(computed) {
			is = raw
		}
		if sameJSON(was, is) {
			continue
		}
		changed[f.name] = Change{Old: was, New: is}
		if f.is(computed) || f.is(creationOnly) {
			p.add(f.name, "cannot be changed")
			continue
		}
		judge(f, raw)
	}
	return changed
}

func (p *problems) unknown(given Fields, fields []field) {
	p.unknownNames(given, fields, "is not a field of this object")
}

// unknownNames says the same of every name that is none of the fields'.
func (p *problems) unknownNames(given Fields, fields []field, message string) {
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !known[name] {
			p.add(name, "%s", message)
		}
	}
}
