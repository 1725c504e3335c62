package projections

import (
	"github.com/lotline/lotline/domain"
)

// Follow handles the next event of the log. One that was followed before is
// ignored. One that its stream's history refuses puts that stream into
// quarantine: from then on nothing is served from it and nothing more of it is
// believed.
//
// What was appended together is shown together: an event behind which more is due at
// its own time waits for what follows, and Position with it. So does what
// participants do, of which many events may come at once: it is shown when another
// stream is followed, when Passed or CaughtUp say that no more is at hand, and after
// a few hundred events.
func (v *Views) Follow(r *domain.Recorded) {
	v.Saw(r.Stream, r.Revision, r.ID, r.Position, r.RecordedAt)
	if !v.position.Before(r.Position) || !v.held.position.Before(r.Position) {
		return
	}
	if v.held.state != nil && v.held.state.stream() != r.Stream {
		// There was no more to it.
		v.makeVisible(v.held)
	}
	next := unpublished{position: r.Position, events: v.held.events + 1}
	if !projected(r.Stream) {
		v.makeVisible(next)
		return
	}
	was, mine := v.held.state, true
	if next.slot = v.held.slot; next.slot == nil {
		next.slot, was = v.slotOf(r.Stream)
		mine = false
	}
	next.state = was.next(r, mine)
	if next.state.partial() || next.state.distribution() != nil && !domain.ChangesObject(r.Event) && next.events < maxHeld {
		v.held = next
		return
	}
	v.makeVisible(next)
}

// heldAtOnce is how many events are held back for more to come.
const maxHeld = 256

// shown is what the next events lead to: the state of an entry, unless they are not
// for the views.
type unpublished struct {
	slot     *streamSlot
	state    *state
	position domain.Position
	events   int
}

// show makes it what queries are answered from.
func (v *Views) makeVisible(s unpublished) {
	v.held = unpublished{}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.position = s.position
	v.reach(s.position)
	if s.slot == nil {
		return
	}
	if slot, known := v.indexes.streams[s.state.stream()]; known && slot.current.broken != nil {
		// Quarantine came first. The only thing left to learn is whose stream it is.
		s.slot, s.state = slot, slot.current.withOwner(s.state.owner)
	}
	if s.state == s.slot.current {
		return
	}
	v.publish(s.slot, s.state)
	if len(v.dirty) >= backlogLimit {
		signal(v.backlogFull)
	}
}

// find returns the entry of a stream and its state.
func (v *Views) slotOf(stream string) (*streamSlot, *state) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot := v.indexes.slotOf(stream)
	return slot, slot.current
}

// publish makes next the state of an entry, and has it written. The caller holds mu.
func (v *Views) publish(slot *streamSlot, next *state) {
	if next.broken != nil && slot.current.broken == nil {
		v.logQuarantine(next.broken)
	}
	v.indexes.put(slot, next)
	v.dirty[slot] = next
}

// projected reports whether the stream is one that the views are about.
func projected(stream string) bool {
	k := domain.StreamKind(stream)
	return k.Distribution() || k == domain.KindOrganization || stream == domain.SigningStream
}

// Passed says that the log was read up to p, and that what was not given to
// Follow is not for the views. It lets those go on who wait for p; following
// does not resume there.
func (v *Views) Passed(p domain.Position) {
	if s := v.held.state; s != nil {
		if !v.held.position.Before(p) && s.partial() {
			// Nobody is shown it, but if its writer has died somebody has to finish it.
			v.indexes.newWakes.tell(s.nextWake())
			return
		}
		v.makeVisible(v.held)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reach(p)
}

// CaughtUp says that the log ends behind the last event. A state that waits for what
// follows is shown then, as the one that a crash between the parts of an outcome
// left: its wake is due, and so a timer goes on with it.
func (v *Views) CaughtUp() {
	if v.held.state != nil {
		v.makeVisible(v.held)
	}
}
