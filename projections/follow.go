package projections

import (
	"github.com/lotline/lotline/domain"
)

// Follow handles the next event of the log. It ignores an event that it has handled before.
// An event that the stream's history refuses puts the stream into quarantine: from then on
// nothing is served from the stream, and its later events are ignored.
//
// The events of one append become visible together: while more events are due at the time
// of an event, Follow holds the state back, and Position with it. It also holds back events
// about participants, because many of them may come at once. These become visible when an
// event of another stream is followed, when Passed or CaughtUp is called, and after 256
// events.
func (v *Views) Follow(r *domain.Recorded) {
	v.Saw(r.Stream, r.Revision, r.ID, r.Position, r.RecordedAt)
	if !v.position.Before(r.Position) || !v.held.position.Before(r.Position) {
		return
	}
	if v.held.state != nil && v.held.state.stream() != r.Stream {
		// The append had no more events.
		v.makeVisible(v.held)
	}
	next := unpublished{position: r.Position, events: v.held.events + 1}
	if !projected(r.Stream) {
		v.makeVisible(next)
		return
	}
	was, owned := v.held.state, true
	if next.slot = v.held.slot; next.slot == nil {
		next.slot, was = v.slotOf(r.Stream)
		owned = false
	}
	next.state = was.next(r, owned)
	if next.state.partial() || next.state.distribution() != nil && !domain.ChangesObject(r.Event) && next.events < maxHeld {
		v.held = next
		return
	}
	v.makeVisible(next)
}

// maxHeld is how many events about participants are held back at most.
const maxHeld = 256

// unpublished is a state that events lead to and that is not visible yet.
type unpublished struct {
	slot     *streamSlot // nil for events that are not for the views
	state    *state
	position domain.Position // of the last of the events
	events   int
}

// makeVisible publishes a state with its position.
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
		// The stream was put into quarantine after s was made. Only the owner in s is still
		// useful.
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

// slotOf returns the slot of a stream and its newest visible state.
func (v *Views) slotOf(stream string) (*streamSlot, *state) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot := v.indexes.slotOf(stream)
	return slot, slot.current
}

// publish makes next the visible state of a slot, and marks it to be written to the file.
// The caller holds mu.
func (v *Views) publish(slot *streamSlot, next *state) {
	if next.broken != nil && slot.current.broken == nil {
		v.logQuarantine(next.broken)
	}
	v.indexes.put(slot, next)
	v.dirty[slot] = next
}

// projected reports whether the views hold streams of this kind.
func projected(stream string) bool {
	k := domain.StreamKind(stream)
	return k.Distribution() || k == domain.KindOrganization || stream == domain.SigningStream
}

// Passed says that the log was read up to p, and that the events which were not given to
// Follow are not for the views. WaitFor returns for p and the positions before. Position
// does not change: after a restart, following resumes after the last event.
func (v *Views) Passed(p domain.Position) {
	if s := v.held.state; s != nil {
		if !v.held.position.Before(p) && s.partial() {
			// The state stays invisible. The scheduler is told of its wake, because it
			// must finish the outcome if the writer has died.
			v.indexes.newWakes.tell(s.nextWake())
			return
		}
		v.makeVisible(v.held)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reach(p)
}

// CaughtUp says that the log ends after the last event. A state that is held back becomes
// visible then. It may be a part of an outcome whose writer crashed: its wake is due, so the
// scheduler finishes it.
func (v *Views) CaughtUp() {
	if v.held.state != nil {
		v.makeVisible(v.held)
	}
}
