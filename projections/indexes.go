package projections

import (
	"slices"
	"sync"

	"github.com/tidwall/btree"

	"github.com/lotline/lotline/domain"
)

// indexes are the structures that answer the queries. They depend only on the newest
// states of the streams, not on the order in which these came.
type indexes struct {
	streams       map[string]*streamSlot
	tenants       map[domain.ID]*tenant
	deadlines     *btree.BTreeG[deadline]
	organizations map[domain.ID]*domain.Organization
	credentials   map[string][]Credential // by the hash of the API key, each sorted by the id of the API key
	quarantine    map[string]*domain.HistoryError
	newWakes      *newWakes
	latest        domain.Instant // the latest time in any stream
}

// signal sends to a channel with a buffer of one, unless a value is in it already.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// newTree returns a tree without locks of its own. Views.mu guards it.
func newTree[T any](compare func(a, b T) int) *btree.BTreeG[T] {
	return btree.NewBTreeGOptions(
		func(a, b T) bool { return compare(a, b) < 0 },
		btree.Options{NoLocks: true},
	)
}

func newIndexes(size int) indexes {
	return indexes{
		streams:       make(map[string]*streamSlot, size),
		tenants:       map[domain.ID]*tenant{},
		deadlines:     newTree(compareDeadlines),
		organizations: map[domain.ID]*domain.Organization{},
		credentials:   map[string][]Credential{},
		quarantine:    map[string]*domain.HistoryError{},
		newWakes:      &newWakes{woken: make(chan struct{}, 1)},
	}
}

// slotOf returns the stream's slot. For an unknown stream it returns a new slot with the
// state before the first event, and does not keep it.
func (m *indexes) slotOf(stream string) *streamSlot {
	if slot, ok := m.streams[stream]; ok {
		return slot
	}
	return &streamSlot{current: &state{history: domain.NewHistory(stream), folded: true}}
}

// put makes next the newest state of slot and updates all indexes.
func (m *indexes) put(slot *streamSlot, next *state) {
	was := slot.current
	slot.current, slot.id = next, next.id
	m.streams[next.stream()] = slot
	m.latest = max(m.latest, next.latest())
	if next.owner != "" && domain.StreamKind(next.stream()).Distribution() {
		m.tenant(next.owner).update(slot, was, next)
	}
	if old, at := was.wake(), next.wake(); old != at {
		if old != 0 {
			m.deadlines.Delete(deadline{old, next.stream()})
		}
		if at != 0 {
			m.deadlines.Set(deadline{at, next.stream()})
		}
	}
	m.newWakes.tell(next.nextWake())
	m.updateOrganization(was.organization(), next.organization())
	if next.broken != nil {
		m.quarantine[next.stream()] = next.broken
	}
}

// build makes the indexes of all states. It sorts the states first, which is several times
// as fast as calling put for each.
func build(states []*state) indexes {
	m := newIndexes(len(states))
	listed := map[*lists][]*streamSlot{}
	var deadlines []deadline
	for _, s := range states {
		slot := &streamSlot{id: s.id, current: s}
		m.streams[s.stream()] = slot
		m.latest = max(m.latest, s.latest())
		m.updateOrganization(nil, s.organization())
		if s.broken != nil {
			m.quarantine[s.stream()] = s.broken
		}
		if at := s.wake(); at != 0 {
			deadlines = append(deadlines, deadline{at, s.stream()})
		}
		if d := s.visible(); d != nil {
			t := m.tenant(s.owner)
			t.distributions[s.id] = slot
			l := t.list(d.Kind())
			listed[l] = append(listed[l], slot)
		} else if s.broken != nil && s.owner != "" && s.id.Kind().Distribution() {
			m.tenant(s.owner).distributions[s.id] = slot
		}
	}

	var wg sync.WaitGroup
	wg.Go(func() {
		slices.SortFunc(deadlines, compareDeadlines)
		for _, d := range deadlines {
			m.deadlines.Load(d)
		}
	})
	for l, slots := range listed {
		for i := range l {
			wg.Go(func() { l[i].load(slots, sorts[i]) })
		}
	}
	wg.Wait()
	return m
}
