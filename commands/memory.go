package commands

import (
	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// memory is what a writer remembers of the repeatable commands in its stream.
// The log is what it is made from, so it holds across restarts and on all nodes.
// The zero value is empty.
type memory struct {
	bodies map[uuid.UUID]string // body hashes by command id
	order  []remembered         // in the order of the stream
}

type remembered struct {
	id uuid.UUID
	at domain.Instant
}

func (m *memory) add(k Key, at domain.Instant) {
	if _, ok := m.bodies[k.CommandID]; ok {
		return
	}
	if m.bodies == nil {
		m.bodies = map[uuid.UUID]string{}
	}
	m.bodies[k.CommandID] = k.BodyHash
	m.order = append(m.order, remembered{k.CommandID, at})
}

func (m *memory) find(id uuid.UUID) (bodyHash string, ok bool) {
	bodyHash, ok = m.bodies[id]
	return bodyHash, ok
}

// forget drops what is older than since, from the oldest on.
func (m *memory) forget(since domain.Instant) {
	n := 0
	for n < len(m.order) && m.order[n].at < since {
		delete(m.bodies, m.order[n].id)
		n++
	}
	m.order = m.order[n:]
}
