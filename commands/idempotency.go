package commands

import (
	"hash/maphash"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// IdempotencyKey makes a command repeatable: when the stream has events of a command
// with the same CommandID, the command is not carried out again. The zero value is no
// key.
type IdempotencyKey struct {
	CommandID uuid.UUID // made from the Idempotency-Key of the request and its scope
	BodyHash  string    // of the request's body, in lower-case hex
}

func (k IdempotencyKey) given() bool { return k.CommandID != uuid.Nil }

// keyReused refuses a command whose idempotency key came with another body before.
func keyReused() error {
	return domain.Refuse(domain.IdempotencyReused, "the key was used with another body")
}

// doneCommands are the commands with an idempotency key whose events a stream holds.
// A writer reads them from the stream, so every node knows the same ones, also after a
// restart. Each takes some 90 bytes. The zero value is empty.
type doneCommands struct {
	byID  map[uuid.UUID]doneCommand // by command id
	order []doneAt                  // in the order of the stream
}

type doneAt struct {
	id    uuid.UUID
	at    domain.Instant
	first domain.Revision // of the command's events
}

// doneCommand says which body a command had and where its events begin.
type doneCommand struct {
	fingerprint uint64
	first       domain.Revision
}

var fingerprintSeed = maphash.MakeSeed()

// fingerprint shortens a body hash to 8 bytes. Two bodies with the same fingerprint are
// taken for the same body. For two different bodies, the probability of that is 1 in 2^64.
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

// merge adds the commands of other.
func (m *doneCommands) merge(other *doneCommands) {
	for _, r := range other.order {
		m.put(r, other.byID[r.id].fingerprint)
	}
}

// find reports whether a command with k's id was carried out, whether it had k's body,
// and at which revision its events begin.
func (m *doneCommands) find(k IdempotencyKey) (done, same bool, first domain.Revision) {
	c, done := m.byID[k.CommandID]
	return done, done && c.fingerprint == fingerprint(k.BodyHash), c.first
}

func (m *doneCommands) size() int { return len(m.order) }

// forgetBefore drops the commands that are older than since, oldest first.
func (m *doneCommands) forgetBefore(since domain.Instant) {
	n := 0
	for n < len(m.order) && m.order[n].at < since {
		delete(m.byID, m.order[n].id)
		n++
	}
	m.order = m.order[n:]
}
