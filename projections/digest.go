package projections

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/tidwall/btree"
)

// Digest returns a hash of all read models. Views that have handled the same events have the
// same digest, even if one of them was loaded from its file. No event is followed while the
// digest is computed.
func (v *Views) Digest() string {
	v.mu.RLock()
	defer v.mu.RUnlock()
	m := &v.indexes
	h := sha256.New()
	line := func(what string, facts ...any) { h.Write(fmt.Appendf(nil, "%s %q\n", what, facts)) }

	for _, stream := range slices.Sorted(maps.Keys(m.streams)) {
		s := m.streams[stream].current
		line("stream", stream, s.owner, s.id)
		if s.history != nil {
			// A state that cannot be encoded has a digest as well.
			encoded, err := encode(s.history)
			line("history", s.history.Head.Revision, s.history.Head.Hash, s.history.Changed, encoded, err != nil)
		}
		if d := s.visible(); d != nil {
			line("row", s.json())
			for _, secret := range d.Secrets() {
				line("secret", secret.Name, secret.Value.Plain)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(m.tenants)) {
		t := m.tenants[id]
		if len(t.distributions) == 0 {
			continue
		}
		line("tenant", id, slices.Sorted(maps.Keys(t.distributions)))
		for _, kind := range slices.Sorted(maps.Keys(t.lists)) {
			for i, list := range t.lists[kind] {
				for _, part := range []*btree.BTreeG[item]{list.values, list.nulls} {
					part.Scan(func(at item) bool {
						line("item", kind, sorts[i], at.at, at.name, at.slot.id)
						return true
					})
				}
			}
		}
	}
	m.deadlines.Scan(func(d deadline) bool {
		line("deadline", d.at, d.stream)
		return true
	})
	for _, id := range slices.Sorted(maps.Keys(m.organizations)) {
		line("organization", id)
	}
	for _, hash := range slices.Sorted(maps.Keys(m.credentials)) {
		line("credential", hash, m.credentials[hash])
	}
	for _, stream := range slices.Sorted(maps.Keys(m.quarantine)) {
		line("quarantine", *m.quarantine[stream])
	}
	return hex.EncodeToString(h.Sum(nil))
}
