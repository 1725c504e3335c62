package domain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Status is where a distribution stands in its life.
type Status string

// The statuses, in the order in which they are passed.
const (
	StatusDraft     Status = "DRAFT"     // openAt is null
	StatusScheduled Status = "SCHEDULED" // openAt is set, not reached
	StatusOpen      Status = "OPEN"      // entering, bidding
	StatusClosed    Status = "CLOSED"    // too late to take part
	StatusDrawn     Status = "DRAWN"     // draw: winners selected
	StatusCompleted Status = "COMPLETED" // queue, draw: nothing more happens
	StatusSettled   Status = "SETTLED"   // auction: nothing more happens
)

// Statuses are all statuses, in the order in which they are passed.
func Statuses() []Status {
	return []Status{StatusDraft, StatusScheduled, StatusOpen, StatusClosed, StatusDrawn, StatusCompleted, StatusSettled}
}

// beforeOpen, over: where a PUT may still change everything, and where it may
// change nothing any more.
func (s Status) beforeOpen() bool { return s == StatusDraft || s == StatusScheduled }
func (s Status) over() bool       { return !s.beforeOpen() && s != StatusOpen }

// deletable reports whether a DELETE is allowed: nobody takes part or waits for
// an outcome.
func (s Status) deletable() bool {
	return s.beforeOpen() || s == StatusCompleted || s == StatusSettled
}

// Common are the settings that every kind has.
type Common struct {
	SequenceID     string          `json:"sequenceId"`
	Name           *string         `json:"name"`
	TimeZone       string          `json:"timeZone"`
	OpenAt         Instant         `json:"openAt"`
	CloseAt        Instant         `json:"closeAt"`
	EncryptionSeed Secret          `json:"encryptionSeed"`
	Metadata       json.RawMessage `json:"metadata"`
}

func (c *Common) secrets() []SecretField {
	return []SecretField{{"encryptionSeed", &c.EncryptionSeed}}
}

// Lifecycle is what the three kinds share: who a distribution is, its common
// settings, its schedule and where it stands. Each kind embeds one by value and
// asks it first.
type Lifecycle struct {
	Identity
	Common
	Status    Status  `json:"status"`
	CreatedAt Instant `json:"createdAt"`
	UpdatedAt Instant `json:"updatedAt"` // of the last event that changed the admin object
	Latest    Instant `json:"latest"`    // the latest time in the stream
	Deleted   bool    `json:"deleted,omitempty"`
}

// Shared is the part of a distribution that does not depend on its kind. Whoever
// was not told otherwise only reads it.
func (l *Lifecycle) Shared() *Lifecycle { return l }

// Distribution is an aggregate of one of the three kinds.
type Distribution interface {
	Aggregate
	SecretHolder
	Kind() Kind
	Shared() *Lifecycle
	// AppendJSON appends the object as an admin sees it.
	AppendJSON(dst []byte) []byte
	// AppendPublicJSON appends the object as everybody may see it.
	AppendPublicJSON(dst []byte) []byte

	// fields are the admin fields in the order of the contract, bound to this
	// value.
	fields() []field
	// preset fills in what a creation may leave out.
	preset(Defaults)
	// check finds what is wrong with the settings as a whole.
	check(*clashes)
	// created is the event that makes a distribution with these settings.
	created(Stamp, Create) Event
	// entered reports whether somebody entered or bid.
	entered() bool
	// stepTime is the time that the step to a status waits for, or nil when
	// there is no such step from the present status.
	stepTime(Status) *Instant
}

// NewDistribution is a distribution that has not been created yet.
func NewDistribution(k Kind) Distribution {
	switch k {
	case KindQueue:
		return &Queue{}
	case KindDraw:
		return &Draw{}
	case KindAuction:
		return &Auction{}
	case KindOrganization, KindClaim, KindSeal, KindSink, KindSigning, KindClock:
	}
	panic("not a kind of distribution: " + string(k))
}

// problems collects what is wrong with a request: the first MaxDetails of it, and how
// much more there is.
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

// leadingFields and trailingFields stand around each kind's own.
func (l *Lifecycle) leadingFields() []field {
	return []field{
		{"id", shown(func(dst []byte) []byte { return appendString(dst, string(l.ID)) }), computed},
		{"type", shown(func(dst []byte) []byte { return appendString(dst, string(l.ID.Kind())) }), computed},
		{"organizationId", shown(func(dst []byte) []byte { return appendString(dst, string(l.OrganizationID)) }), computed},
		{"sequenceId", token{&l.SequenceID}, required | creationOnly},
		{"name", text{&l.Name, 0, 200}, nullable},
		{"timeZone", zone{&l.TimeZone}, 0},
		{"status", shown(func(dst []byte) []byte { return appendString(dst, string(l.Status)) }), computed},
		{"openAt", instant{&l.OpenAt, &l.TimeZone}, nullable | untilOpen | timing},
		{"closeAt", instant{&l.CloseAt, &l.TimeZone}, nullable | timing},
		{"encryptionSeed", secret{&l.EncryptionSeed}, creationOnly},
		{"metadata", object{&l.Metadata, 16 << 10}, nullable},
	}
}

func (l *Lifecycle) trailingFields() []field {
	return []field{
		{"createdAt", shown(l.CreatedAt.appendJSON), computed},
		{"updatedAt", shown(l.UpdatedAt.appendJSON), computed},
	}
}

func (l *Lifecycle) allFields(own ...field) []field {
	return append(append(l.leadingFields(), own...), l.trailingFields()...)
}

// publicFields stand before each kind's own in what everybody may see.
func (l *Lifecycle) publicFields(own ...field) []field {
	return append([]field{
		{"id", shown(func(dst []byte) []byte { return appendString(dst, string(l.ID)) }), computed},
		{"name", text{&l.Name, 0, 200}, 0},
		{"sequenceId", token{&l.SequenceID}, 0},
		{"openAt", instant{&l.OpenAt, &l.TimeZone}, 0},
		{"closeAt", instant{&l.CloseAt, &l.TimeZone}, 0},
		{"timeZone", zone{&l.TimeZone}, 0},
		{"status", shown(func(dst []byte) []byte { return appendString(dst, string(l.publicStatus())) }), computed},
	}, own...)
}

// publicStatus tells what taking part depends on, and no more: before the opening
// nobody needs to know how firm it is, and at the end only what there is to see.
func (l *Lifecycle) publicStatus() Status {
	switch {
	case l.Status.beforeOpen():
		return "PENDING"
	case l.Status == StatusCompleted && l.ID.Kind() == KindQueue:
		return StatusClosed
	case l.Status == StatusCompleted:
		return StatusDrawn
	}
	return l.Status
}

func appendFields(dst []byte, fields []field) []byte {
	for i, f := range fields {
		sep := byte(',')
		if i == 0 {
			sep = '{'
		}
		dst = append(dst, sep, '"')
		dst = append(dst, f.name...)
		dst = append(dst, '"', ':')
		dst = f.value.appendJSON(dst)
	}
	return append(dst, '}')
}

// decide handles the commands that do not depend on the kind. self is the
// distribution that embeds l.
func (l *Lifecycle) decide(now Instant, cmd Command, self Distribution) ([]Event, error) {
	if c, ok := cmd.(Create); ok {
		return l.create(now, c, self)
	}
	if l.Status == "" || l.Deleted {
		if _, ok := cmd.(Advance); ok {
			return nil, nil
		}
		return nil, Refuse(NotFound(self.Kind()), "")
	}
	switch c := cmd.(type) {
	case Update:
		return l.update(now, c, self)
	case Delete:
		if !l.Status.deletable() {
			return nil, Refuse(DeleteActive, "it is %s", l.Status)
		}
		return []Event{Deleted{Stamp{now}}}, nil
	case Step:
		return l.step(now, c, self)
	}
	return nil, Refuse(InvalidTransition, "a %s does not take %T", self.Kind(), cmd)
}

func (l *Lifecycle) create(now Instant, c Create, self Distribution) ([]Event, error) {
	if l.Status != "" {
		return nil, Refuse(ChangedByAnother, "%s exists already", l.ID)
	}
	made := NewDistribution(self.Kind())
	s := made.Shared()
	s.Identity = Identity{c.ID, c.OrganizationID}
	s.TimeZone = c.Defaults.TimeZone
	made.preset(c.Defaults)
	var wrong problems
	wrong.readNew(c.Fields, made.fields())
	wrong.whole(made, func(field string) bool { _, given := c.Fields[field]; return given })
	if err := wrong.refusal(ValidationFailed); err != nil {
		return nil, err
	}
	if s.EncryptionSeed.Plain == "" {
		s.EncryptionSeed = Secret{Plain: c.Seed}
	}
	return []Event{made.created(Stamp{now}, c)}, nil
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
	known := map[string]bool{}
	for _, f := range fields {
		known[f.name] = true
	}
	names, more := given.Unknown(func(name string) bool { return known[name] })
	for _, name := range names {
		p.add(name, "is not a field of this object")
	}
	p.more += more
}

// update decides a partial change. What is wrong in any state is told before
// what is frozen now.
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
		case f.is(untilEntered) && self.entered():
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

// read parses raw, or clears the field for null.
func (f field) read(raw json.RawMessage) error {
	if f.is(computed) {
		return nil
	}
	if !isNull(raw) {
		return f.value.parse(raw)
	}
	if !f.is(nullable) {
		return fmt.Errorf("may not be null")
	}
	f.value.clear()
	return nil
}

// replay reads what an event holds, which may have been taken when less was asked
// of it.
func (f field) replay(raw json.RawMessage) error {
	if v, ok := f.value.(replayed); ok && !isNull(raw) {
		return v.replay(raw)
	}
	return f.read(raw)
}

// sameJSON reports whether two JSON texts mean the same, however strings are
// escaped and members ordered. Numbers are compared as they are written. Half of a
// character, which events of earlier versions may hold, is not what it is decoded
// to.
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

// step sets the time of the next status to now. The step itself follows because
// it is due.
func (l *Lifecycle) step(now Instant, c Step, self Distribution) ([]Event, error) {
	if self.stepTime(c.To) == nil {
		return nil, Refuse(InvalidTransition, "%s is not the next step from %s", c.To, l.Status)
	}
	next := self.Fork().(Distribution)
	*next.stepTime(c.To) = now
	if c.To == StatusOpen {
		var wrong problems
		wrong.whole(next, func(string) bool { return false }) // the request names no field
		if err := wrong.refusal(ValidationFailed); err != nil {
			return nil, err
		}
	}
	changed := map[string]Change{}
	before, after := self.fields(), next.fields()
	for i, f := range after {
		if was, is := before[i].json(), f.json(); !bytes.Equal(was, is) {
			changed[f.name] = Change{Old: was, New: is}
		}
	}
	return []Event{Updated{Stamp{now}, changed, CauseHand}}, nil
}

// stepTime finds the times that the kinds share.
func (l *Lifecycle) stepTime(to Status) *Instant {
	switch {
	case to == StatusOpen && l.Status.beforeOpen():
		return &l.OpenAt
	case to == StatusClosed && l.Status == StatusOpen:
		return &l.CloseAt
	}
	return nil
}

// due is the step that the kinds share and that is due at now.
func (l *Lifecycle) due(now Instant) []Event {
	switch {
	case l.Status == StatusDraft && l.OpenAt != 0:
		return []Event{Scheduled{Stamp{now}}}
	case l.Status == StatusScheduled && l.OpenAt == 0:
		return []Event{Unscheduled{Stamp{now}}}
	case l.Status == StatusScheduled && l.OpenAt <= now:
		return []Event{Opened{l.dated(l.OpenAt)}}
	}
	return nil
}

// wake is when due has something to do next, or 0 for never. A step that follows
// from what was done is due at the time of that.
func (l *Lifecycle) wake() Instant {
	switch {
	case l.Status == StatusDraft && l.OpenAt != 0, l.Status == StatusScheduled && l.OpenAt == 0:
		return l.Latest
	case l.Status == StatusScheduled:
		return l.OpenAt
	}
	return 0
}

// dated stamps what was due at t: with t, but never before what precedes it.
func (l *Lifecycle) dated(t Instant) Stamp { return Stamp{max(t, l.Latest)} }

// reached reports whether a time is set and has come.
func reached(t, now Instant) bool { return t != 0 && t <= now }

// earlier returns the earlier of two times of which each may be unset.
func earlier(a, b Instant) Instant {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// checkOrder finds a schedule that is out of order: openAt < closeAt ≤ end. end
// is 0 for a kind without one.
func (l *Lifecycle) checkOrder(wrong *clashes, endName string, end Instant) {
	if l.OpenAt != 0 && l.CloseAt != 0 && l.CloseAt <= l.OpenAt {
		wrong.between("closeAt", "must be after", "openAt", "must be before")
	}
	if end == 0 {
		return
	}
	if l.CloseAt != 0 && end < l.CloseAt {
		wrong.between(endName, "must not be before", "closeAt", "must not be after")
	}
	if l.OpenAt != 0 && end <= l.OpenAt {
		wrong.between(endName, "must be after", "openAt", "must be before")
	}
}

// The rules that a history must keep. Each is the Rule of a RuleError.
const (
	ruleCreation   = "a stream begins with the creation, and has one only"
	ruleKind       = "an event belongs to its kind"
	ruleTime       = "time does not run backwards"
	ruleDeleted    = "nothing follows the deletion"
	ruleTransition = "the status moves forward, one step at a time"
	ruleDue        = "no step is taken before its time"
	ruleUpdate     = "an update continues the present values"
	ruleFrozen     = "what is frozen does not change"
	ruleDelete     = "what is active is not deleted"
	ruleCommitment = "the revealed secret is the one that was committed to"
	ruleEntries    = "the frozen list holds who entered"
	ruleKeys       = "a key is made once and ends once"
	ruleLine       = "a consumer's standing changes as the queue's rules say"
	ruleTurn       = "nobody is admitted before who entered earlier and still waits"
	rulePace       = "automatic admission keeps to the rate"
	ruleCapacity   = "no more wait than the capacity in force"
	ruleSession    = "a session lasts as long as was said, and is over then"
	ruleUnfinished = "a queue is completed when nobody admitted is unfinished"
	ruleEntropy    = "entropy comes once, while CLOSED, to who named a source"
)

// admit refuses any event that cannot come now, whatever it says. It is asked
// before all else.
func (l *Lifecycle) admit(e Event) error {
	_, queue := e.(*QueueCreated)
	_, draw := e.(*DrawCreated)
	_, auction := e.(*AuctionCreated)
	if creation := queue || draw || auction; creation != (l.Status == "") {
		return ruleError(ruleCreation, "%T in status %q", e, l.Status)
	}
	if l.Deleted {
		return ruleError(ruleDeleted, "%T", e)
	}
	if e.When() < l.Latest {
		return ruleError(ruleTime, "%s after %s", e.When(), l.Latest)
	}
	return nil
}

// begin applies the shared part of a creation.
func (l *Lifecycle) begin(e Event, id Identity, c Common, k Kind) error {
	if id.ID.Kind() != k {
		return ruleError(ruleKind, "a %s with the id %s", k, id.ID)
	}
	l.Identity, l.Common = id, c
	if isNull(l.Metadata) {
		l.Metadata = nil
	}
	l.Status = StatusDraft
	l.CreatedAt = e.When()
	l.touch(e)
	return nil
}

// touch notes the time of an event that changed the admin object.
func (l *Lifecycle) touch(e Event) {
	l.UpdatedAt = e.When()
	l.Latest = e.When()
}

// evolve applies the events that do not depend on the kind.
func (l *Lifecycle) evolve(e Event, self Distribution) error {
	var err error
	switch e := e.(type) {
	case Updated:
		err = l.applyUpdate(e, self)
	case Scheduled:
		if l.OpenAt == 0 {
			return ruleError(ruleDue, "scheduled without openAt")
		}
		err = l.move(e, StatusScheduled, 0, StatusDraft)
	case Unscheduled:
		if l.OpenAt != 0 {
			return ruleError(ruleTransition, "unscheduled with openAt set")
		}
		err = l.move(e, StatusDraft, 0, StatusScheduled)
	case Opened:
		if l.OpenAt == 0 {
			return ruleError(ruleDue, "opened without openAt")
		}
		err = l.move(e, StatusOpen, l.OpenAt, StatusScheduled)
	case Deleted:
		if !l.Status.deletable() {
			return ruleError(ruleDelete, "in status %s", l.Status)
		}
		l.Deleted = true
	default:
		return ruleError(ruleKind, "a %s does not have %T", self.Kind(), e)
	}
	if err != nil {
		return err
	}
	l.touch(e)
	return nil
}

// move takes the step to a status from another one, at due or later.
func (l *Lifecycle) move(e Event, to Status, due Instant, from Status) error {
	if l.Status != from {
		return ruleError(ruleTransition, "%s from %s", to, l.Status)
	}
	if e.When() < due {
		return ruleError(ruleDue, "%s at %s, due at %s", to, e.When(), due)
	}
	l.Status = to
	l.touch(e)
	return nil
}

func (l *Lifecycle) applyUpdate(e Updated, self Distribution) error {
	fields := self.fields()
	err := e.apply(fields, func(f field) error {
		// A step by hand sets the time of the status that follows, which an
		// update may not once the distribution is closed.
		if e.Cause == CauseHand && !byHand(self, f) || e.Cause != CauseHand && l.Status.over() {
			return ruleError(ruleFrozen, "%s in status %s", f.name, l.Status)
		}
		if l.Status == StatusOpen && f.is(untilOpen) {
			return ruleError(ruleFrozen, "%s once open", f.name)
		}
		if f.is(untilEntered) && self.entered() {
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

// apply makes the changes, when each continues the present value of a field that
// may change and is allowed.
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
