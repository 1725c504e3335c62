package domain

import (
	"encoding/json"
	"fmt"
)

// problems collects what is wrong with a request: the first MaxDetails problems, and how
// many more there are.
type problems struct {
	details []Detail
	more    int
}

func (p *problems) add(field, format string, args ...any) {
	p.append(Detail{Field: field, Message: fmt.Sprintf(format, args...)})
}

func (p *problems) append(d Detail) {
	if len(p.details) == MaxDetails {
		p.more++
		return
	}
	p.details = append(p.details, d)
}

// clash says that two settings contradict each other. It can be reported at field and,
// when other is set, just as well at other.
type clash struct{ field, other Detail }

type clashes []clash

func (c *clashes) add(field, format string, args ...any) {
	*c = append(*c, clash{field: Detail{field, fmt.Sprintf(format, args...)}})
}

// between adds a clash that can be reported at either field.
func (c *clashes) between(field, message, other, otherMessage string) {
	*c = append(*c, clash{Detail{field, message + " " + other}, Detail{other, otherMessage + " " + field}})
}

// whole adds the problems of d's settings taken together. It skips fields that have a
// problem already. If the time zone, the currency or the auction type has one, it adds
// nothing, because the meaning of other fields depends on these. Of two fields that
// clash, it reports the one that the request changes.
func (p *problems) whole(d Distribution, changes func(field string) bool) {
	told := map[string]bool{}
	for _, w := range p.details {
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
			p.append(blamed)
		}
	}
}

func (p *problems) refusal(code Code) error {
	if len(p.details) == 0 {
		return nil
	}
	return &Error{Code: code, Details: p.details, More: p.more}
}

// readNew reads the fields of a creation. A field that is absent or null keeps its
// value.
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

// readChanges reads the fields of an update into next, a copy of before, and returns
// the changes. It calls judge for each change.
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
				f.value.clear() // so that no other field is compared with its old value
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

// unknownNames adds a message for each name that is no field.
func (p *problems) unknownNames(given Fields, fields []field, message string) {
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
	}
	names, more := given.Unknown(func(name string) bool { return known[name] })
	for _, name := range names {
		p.add(name, "%s", message)
	}
	p.more += more
}
