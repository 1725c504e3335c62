package commands

import (
	"hash/maphash"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// memory is what a writer remembers of the repeatable commands in its stream, in
// some 90 bytes each. The log is what it is made from, so it holds across restarts
// and on all nodes. The zero value is empty.
type doneCommands struct {
	byID  map[uuid.UUID]doneCommand // by command id
	order []doneAt                  // in the order of the stream
}

type doneAt struct {
	id    uuid.UUID
	at    domain.Instant
	first domain.Revision // of the command's events
}

// carried is what is known of a command that was carried out.
type doneCommand struct {
	fingerprint uint64
	first       domain.Revision
}

var fingerprintSeed = maphash.MakeSeed()

// fingerprint stands for a body hash. Two bodies under one key that share one are
// taken for the same, which happens once in 2^64.
func fingerprint(bodyHash string) uint64 { return maphash.String(fingerprintSeed, bodyHash) }

func (m *doneCommands) add(k IdempotencyKey, at domain.Instant, first domain.Revision) {
	m.put(doneAt{k.CommandID, at, first}, fingerprint(k.BodyHash))
}

func (m *doneCommands) put(r doneAt, body uint64) {
	if _, ok := m.byID[r.id]; ok {
		return
	}
	if m.byID == nil {
		m.byID = map[uuid.UUID]doneCommand{}
	}
	m.byID[r.id] = doneCommand{body, r.first}
	m.order = append(m.order, r)
}

// merge adds what other remembers.
func (m *doneCommands) merge(other *doneCommands) {
	for _, r := range other.order {
		m.put(r, other.byID[r.id].fingerprint)
	}
}

// find reports whether the command of k's id was carried out, and with k's body,
// and where its events begin.
func (m *doneCommands) find(k IdempotencyKey) (done, same bool, first domain.Revision) {
	c, done := m.byID[k.CommandID]
	return done, done && c.fingerprint == fingerprint(k.BodyHash), c.first
}

func (m *doneCommands) size() int { return len(m.order) }

// forget drops what is older than since, from the oldest on.
func (m *doneCommands) forgetBefore(since domain.Instant) {
	n := 0
	for n < len(m.order) && m.order[n].at < since {
		delete(m.byID, m.order[n].id)
		n++
	}
	m.order = m.order[n:]
}
