package domain

import "bytes"

// Lifecycle is what the three kinds share: a distribution's identity, its common
// settings, its schedule and its status. Each kind embeds one by value, and hands it the
// commands and events that all kinds have.
type Lifecycle struct {
	Identity
	Common
	Status    Status  `json:"status"`
	CreatedAt Instant `json:"createdAt"`
	UpdatedAt Instant `json:"updatedAt"` // of the last event that changed the admin object
	Latest    Instant `json:"latest"`    // the latest time in the stream
	Deleted   bool    `json:"deleted,omitempty"`
}

// Shared is the part of a distribution that does not depend on its kind. Callers must
// only read it, unless they own the distribution.
func (l *Lifecycle) Shared() *Lifecycle { return l }

// Time implements Aggregate.
func (l *Lifecycle) Time() Instant { return l.Latest }

// publicStatus is the public status that most kinds show.
func (l *Lifecycle) publicStatus() Status {
	if l.Status.beforeOpen() {
		return statusPending
	}
	return l.Status
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

// step sets the time of the next status to now. Then the step itself is due, and
// Advance takes it.
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

// stepTime returns the time that the step to a status waits for. It knows the steps
// that all kinds have.
func (l *Lifecycle) stepTime(to Status) *Instant {
	switch {
	case to == StatusOpen && l.Status.beforeOpen():
		return &l.OpenAt
	case to == StatusClosed && l.Status == StatusOpen:
		return &l.CloseAt
	}
	return nil
}

// due returns the step that is due at now, of the steps that all kinds have.
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

// wake is when due has something to do next, or 0 for never. A step that an event
// makes necessary is due at the time of that event.
func (l *Lifecycle) wake() Instant {
	switch {
	case l.Status == StatusDraft && l.OpenAt != 0, l.Status == StatusScheduled && l.OpenAt == 0:
		return l.Latest
	case l.Status == StatusScheduled:
		return l.OpenAt
	}
	return 0
}

// dated is the stamp of an event that was due at t. It is t, but never earlier than the
// event before it.
func (l *Lifecycle) dated(t Instant) Stamp { return Stamp{max(t, l.Latest)} }

// reached reports whether a time is set and has come.
func reached(t, now Instant) bool { return t != 0 && t <= now }

// earlier returns the earlier of two times. A time that is unset is ignored.
func earlier(a, b Instant) Instant {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// checkOrder finds a schedule that breaks the order openAt < closeAt ≤ end. For a kind
// without an end, end is 0.
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

// checkNext refuses an event that cannot come next, whatever its data are. Evolve calls
// it before anything else.
func (l *Lifecycle) checkNext(e Event) error {
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

// touch notes the time of an event that changed the object as an admin sees it.
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

// move changes the status from one to the next. It refuses an event before due.
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
