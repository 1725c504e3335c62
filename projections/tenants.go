package projections

import (
	"github.com/lotline/lotline/domain"
)

// tenant is what one organization sees.
type tenant struct {
	distributions map[domain.ID]*streamSlot // distributions that are not deleted, those in quarantine as well
	lists         map[domain.Kind]*lists
}

func (m *indexes) tenant(id domain.ID) *tenant {
	t, ok := m.tenants[id]
	if !ok {
		t = &tenant{distributions: map[domain.ID]*streamSlot{}, lists: map[domain.Kind]*lists{}}
		m.tenants[id] = t
	}
	return t
}

// place puts a distribution where its new state belongs.
func (t *tenant) update(slot *streamSlot, was, next *state) {
	if next.broken == nil && next.visible() == nil {
		delete(t.distributions, slot.id)
	} else {
		t.distributions[slot.id] = slot
	}
	t.list(slot.id.Kind()).move(slot, was.visible(), next.visible())
}

func (t *tenant) list(k domain.Kind) *lists {
	l, ok := t.lists[k]
	if !ok {
		l = newLists()
		t.lists[k] = l
	}
	return l
}
