package tokens

import "sync"

// remembered is the largest number of verified tokens that are remembered. That many take
// about 90 MB of memory.
const remembered = 1 << 19

// memory remembers the tokens that were verified or used last. It has two halves. When the
// young half is full, it becomes the old half, and the previous old half is dropped. A
// token in the old half moves to the young one when it is used. Safe for concurrent use.
type memory struct {
	room int // the largest number of tokens

	mu         sync.RWMutex // guards the fields below
	young, old map[[16]byte]verified
}

// find returns the claims of a remembered token. id is the beginning of the token's
// SHA-256.
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

// add remembers a token.
func (m *memory) add(id [16]byte, v verified) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.young == nil || len(m.young) >= m.room/2 {
		m.young, m.old = map[[16]byte]verified{}, m.young
	}
	m.young[id] = v
}
