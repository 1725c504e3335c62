package projections

import (
	"github.com/lotline/lotline/domain"
)

// tenant has the distributions of one organization.
type tenant struct {
	distributions map[domain.ID]*streamSlot // those that are not deleted; those in quarantine are among them
	lists         map[domain.Kind]*lists
}

// tenant returns the organization's tenant, and makes it when there is none.
func (m *indexes) tenant(id domain.ID) *tenant {
	t, ok := m.tenants[id]
	if !ok {
		t = &tenant{distributions: map[domain.ID]*streamSlot{}, lists: map[domain.Kind]*lists{}}
		m.tenants[id] = t
	}
	return t
}

// update moves a distribution to where its new state belongs, or removes it.
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
