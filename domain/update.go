package domain

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
)

// update decides a partial change. Invalid values are reported before frozen fields,
// and frozen fields before fields that contradict each other.
func (l *Lifecycle) update(now Instant, c Update, self Distribution) ([]Event, error) {
	if l.Status.over() {
		return nil, Refuse(UpdateClosed, "it is %s", l.Status)
	}
	var wrong, frozen problems
	next := self.Fork().(Distribution)
	open := l.Status == StatusOpen
	changed := wrong.readChanges(c.Fields, self.fields(), next.fields(), func(f field, raw json.RawMessage) {
		switch {
		case open && f.is(untilOpen):
			frozen.add(f.name, "is frozen once open")
		case f.is(untilEntered) && self.Entries() > 0:
			frozen.add(f.name, "is frozen once somebody took part")
		case open && f.is(timing):
			if isNull(raw) {
				wrong.add(f.name, "may not be cleared once open")
			} else if *f.value.(instant).p < now {
				wrong.add(f.name, "may not be moved into the past")
			}
		}
	})
	if len(changed) > 0 && len(frozen.details) == 0 {
		wrong.whole(next, func(field string) bool { _, differs := changed[field]; return differs })
	}
	if err := wrong.refusal(ValidationFailed); err != nil {
		return nil, err
	}
	if err := frozen.refusal(UpdateOpen); err != nil {
		return nil, err
	}
	if len(changed) == 0 {
		return nil, nil
	}
	return []Event{Updated{Stamp{now}, changed, CauseUpdate}}, nil
}

func (l *Lifecycle) applyUpdate(e Updated, self Distribution) error {
	fields := self.fields()
	err := e.apply(fields, func(f field) error {
		// A step by hand sets the time of the next status. An update may not set it
		// once the distribution is closed.
		if e.Cause == CauseHand && !byHand(self, f) || e.Cause != CauseHand && l.Status.over() {
			return ruleError(ruleFrozen, "%s in status %s", f.name, l.Status)
		}
		if l.Status == StatusOpen && f.is(untilOpen) {
			return ruleError(ruleFrozen, "%s once open", f.name)
		}
		if f.is(untilEntered) && self.Entries() > 0 {
			return ruleError(ruleFrozen, "%s once somebody took part", f.name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, f := range fields {
		_, changed := e.Changed[f.name]
		if t, ok := f.value.(instant); ok && changed && l.Status == StatusOpen && *t.p < e.When() {
			return ruleError(ruleFrozen, "%s is moved to %s once open", f.name, *t.p)
		}
	}
	return nil
}

// apply makes the changes. It refuses them when a field may not change, when a change
// does not continue the present value, or when allow refuses the field.
func (u Updated) apply(fields []field, allow func(field) error) error {
	for _, name := range slices.Sorted(maps.Keys(u.Changed)) {
		i := slices.IndexFunc(fields, func(f field) bool { return f.name == name })
		if i < 0 || fields[i].is(computed) || fields[i].is(creationOnly) {
			return ruleError(ruleUpdate, "%s is not a field that changes", name)
		}
		f, change := fields[i], u.Changed[name]
		if !sameJSON(f.json(), change.Old) {
			return ruleError(ruleUpdate, "%s was %s, not %s", name, f.json(), change.Old)
		}
		if err := allow(f); err != nil {
			return err
		}
	}
	for _, f := range fields {
		if change, ok := u.Changed[f.name]; ok {
			if err := f.replay(change.New); err != nil {
				return ruleError(ruleUpdate, "%s %s", f.name, err)
			}
		}
	}
	return nil
}

// byHand reports whether the next step by hand sets f.
func byHand(self Distribution, f field) bool {
	i, ok := f.value.(instant)
	return ok && slices.ContainsFunc(Statuses(), func(s Status) bool { return self.stepTime(s) == i.p })
}

// sameJSON reports whether two JSON texts mean the same, however strings are escaped
// and members are ordered. Numbers are compared as they are written. Events of earlier
// versions may hold half of a surrogate pair. It differs from the replacement character
// to which it is decoded.
func sameJSON(a, b json.RawMessage) bool {
	canonical := func(raw json.RawMessage) []byte {
		var v any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if d.Decode(&v) != nil {
			return nil
		}
		out, _ := json.Marshal(v)
		return out
	}
	return bytes.Equal(a, b) || loneSurrogate(a) == loneSurrogate(b) && bytes.Equal(canonical(a), canonical(b))
}
