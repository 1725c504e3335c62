package commands

import (
	"hash/maphash"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// memory is what a writer remembers of the repeatable commands in its stream, in
// some 70 bytes each. The log is what it is made from, so it holds across restarts
// and on all nodes. The zero value is empty.
type memory struct {
	bodies map[uuid.UUID]uint64 // fingerprints of the body hashes by command id
	order  []remembered         // in the order of the stream
}

type remembered struct {
	id uuid.UUID
	at domain.Instant
}

var fingerprintSeed = maphash.MakeSeed()

// fingerprint stands for a body hash. Two bodies under one key that share one are
// taken for the same, which happens once in 2^64.
func fingerprint(bodyHash string) uint64 { return maphash.String(fingerprintSeed, bodyHash) }

func (m *memory) add(k Key, at domain.Instant) {
	m.put(remembered{k.CommandID, at}, fingerprint(k.BodyHash))
}

func (m *memory) put(r remembered, body uint64) {
	if _, ok := m.bodies[r.id]; ok {
		return
	}
	if m.bodies == nil {
		m.bodies = map[uuid.UUID]uint64{}
	}
	m.bodies[r.id] = body
	m.order = append(m.order, r)
}

// merge adds what other remembers.
func (m *memory) merge(other *memory) {
	for _, r := range other.order {
		m.put(r, other.bodies[r.id])
	}
}

// find reports whether the command of k's id was carried out, and with k's body.
func (m *memory) find(k Key) (done, same bool) {
	body, done := m.bodies[k.CommandID]
	return done, done && body == fingerprint(k.BodyHash)
}

func (m *memory) size() int { return len(m.order) }

// forget drops what is older than since, from the oldest on.
func (m *memory) forget(since domain.Instant) {
	n := 0
	for n < len(m.order) && m.order[n].at < since {
		delete(m.bodies, m.order[n].id)
		n++
	}
	m.order = m.order[n:]
}
