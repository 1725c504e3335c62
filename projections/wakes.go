package projections

import (
	"maps"
	"slices"
	"sync"

	"github.com/lotline/lotline/domain"
)

// newWakes are the wakes that whoever keeps time has not taken yet. They have a lock of
// their own, so that taking them holds up no reader.
type newWakes struct {
	woken chan struct{} // says that there are some

	mu   sync.Mutex             // guards the field below
	told map[string]domain.Wake // by stream; nil before they are taken for the first time
}

// tell keeps a stream's wake. It is called after every event, whether or not the wake is
// another one: whoever keeps time may know of a state in between.
func (n *newWakes) tell(w domain.Wake) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.told != nil {
		n.told[w.Stream] = w
		signal(n.woken)
	}
}

// take returns what was told since it was called last.
func (n *newWakes) take() map[string]domain.Wake {
	n.mu.Lock()
	defer n.mu.Unlock()
	told := n.told
	n.told = map[string]domain.Wake{}
	return told
}

// NewWakes returns the wakes of the streams that had events since it was called last,
// each stream's once and as the last event left it. The first call returns none: it
// begins to keep them.
func (v *Views) NewWakes() []domain.Wake {
	return slices.Collect(maps.Values(v.models.newWakes.take()))
}

// Woken tells, once for several, that NewWakes has something to return.
func (v *Views) Woken() <-chan struct{} { return v.models.newWakes.woken }

// Wakes calls yield with the wake of every stream that has one, the earliest first,
// until it returns false. It goes by the order at the time of the call, and leaves out
// the streams whose wake has changed since: NewWakes has those.
func (v *Views) Wakes(yield func(domain.Wake) bool) {
	v.mu.Lock() // copying the tree marks the original
	deadlines := v.models.deadlines.Copy()
	v.mu.Unlock()
	deadlines.Scan(func(d deadline) bool {
		w := v.wake(d.stream)
		return w.At != d.at || yield(w)
	})
}

// wake is the stream's next wake.
func (v *Views) wake(stream string) domain.Wake {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.models.find(stream).current.nextWake()
}

// WakeBefore is the wake of a stream as the events left it that Follow was given so far,
// shown or not. It is for the goroutine that calls Follow.
func (v *Views) WakeBefore(stream string) domain.Wake {
	if s := v.held.state; s != nil && s.stream() == stream {
		return s.nextWake()
	}
	return v.wake(stream) // under the lock: damage may be reported meanwhile
}
