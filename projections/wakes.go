package projections

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/lotline/lotline/domain"
)

// newWakes are the wakes that the scheduler has not taken yet. They have a lock of their own,
// so that taking them delays no reader.
type newWakes struct {
	woken chan struct{} // receives a value when told is not empty

	mu   sync.Mutex             // guards the field below
	told map[string]domain.Wake // by stream; nil before the first take
}

// tell keeps a stream's wake. It is called after every event, even if the wake is the same as
// before: the scheduler may know another wake from a state between the two.
func (n *newWakes) tell(w domain.Wake) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.told != nil {
		n.told[w.Stream] = w
		signal(n.woken)
	}
}

// take returns the wakes that were told since the last take.
func (n *newWakes) take() map[string]domain.Wake {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := n.told
	n.told = map[string]domain.Wake{}
	return told
}

// NewWakes returns the wakes of the streams that had events since the last call: for each
// stream the wake after its last event. The first call returns none, because the views keep
// new wakes from then on.
func (v *Views) NewWakes() []domain.Wake {
	return slices.Collect(maps.Values(v.indexes.newWakes.take()))
}

// Woken receives a value when NewWakes has something to return: one value for several wakes.
func (v *Views) Woken() <-chan struct{} { return v.indexes.newWakes.woken }

// Wakes yields the wake of every stream that has one, the earliest first. It uses the order
// at the time of the call, and leaves out the streams whose wake has changed since. NewWakes
// returns those.
func (v *Views) Wakes(yield func(domain.Wake) bool) {
	v.mu.Lock() // copying the tree marks the original
	deadlines := v.indexes.deadlines.Copy()
	v.mu.Unlock()
	deadlines.Scan(func(d deadline) bool {
		w := v.wake(d.stream)
		return w.At != d.at || yield(w)
	})
}

// wake returns the stream's wake in its newest visible state.
func (v *Views) wake(stream string) domain.Wake {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.indexes.slotOf(stream).current.nextWake()
}

// WakeBefore returns the wake of a stream after the events that Follow has handled, visible or
// not. Only the goroutine that calls Follow may call it.
func (v *Views) WakeBefore(stream string) domain.Wake {
	if s := v.held.state; s != nil && s.stream() == stream {
		return s.nextWake()
	}
	return v.wake(stream) // under the lock: damage may be reported meanwhile
}

// deadline is the time of a stream's wake.
type deadline struct {
	at     domain.Instant
	stream string
}

func compareDeadlines(a, b deadline) int {
	if a.at != b.at {
		return cmp.Compare(a.at, b.at)
	}
	return strings.Compare(a.stream, b.stream)
}
