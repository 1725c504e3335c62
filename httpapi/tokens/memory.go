package tokens

import "sync"

// remembered is how many verified tokens are remembered, in some 90 MB when all
// of them are.
const remembered = 1 << 19

// memory remembers the tokens that were verified last, in two halves: when the young
// one is full it becomes the old one, and what was old and not asked for since is
// forgotten. Safe for concurrent use.
type memory struct {
	room int // for how many there is

	mu         sync.RWMutex // guards the fields below
	young, old map[[16]byte]verified
}

// find returns what a token says, by the beginning of its SHA-256.
func (m *memory) find(id [16]byte) (v verified, ok bool) {
	m.mu.RLock()
	v, ok = m.young[id]
	aging := false
	if !ok {
		v, aging = m.old[id]
	}
	m.mu.RUnlock()
	if aging {
		m.add(id, v)
	}
	return v, ok || aging
}

func (m *memory) add(id [16]byte, v verified) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.young == nil || len(m.young) >= m.room/2 {
		m.young, m.old = map[[16]byte]verified{}, m.young
	}
	m.young[id] = v
}
