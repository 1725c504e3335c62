package projections

import (
	"cmp"
	"maps"
	"slices"

	"github.com/lotline/lotline/domain"
)

// Credential is what a key gives access to.
type Credential struct {
	OrganizationID domain.ID
	KeyID          domain.ID
	Level          domain.KeyLevel
}

// account replaces an organization and its credentials by those of its new state.
func (m *indexes) updateOrganization(was, next *domain.Organization) {
	if was != nil {
		for _, k := range was.Keys {
			isOld := func(c Credential) bool { return c.KeyID == k.ID && c.OrganizationID == was.ID }
			if left := slices.DeleteFunc(m.credentials[k.Hash], isOld); len(left) > 0 {
				m.credentials[k.Hash] = left
			} else {
				delete(m.credentials, k.Hash)
			}
		}
		delete(m.organizations, was.ID)
	}
	if next == nil {
		return
	}
	m.organizations[next.ID] = next
	for _, k := range next.Keys {
		if k.RevokedAt != 0 || k.Expired {
			continue
		}
		// One key in two organizations is a mistake. Whose it is does not depend
		// on the order in which the streams were loaded.
		m.credentials[k.Hash] = append(m.credentials[k.Hash], Credential{next.ID, k.ID, k.Level})
		slices.SortFunc(m.credentials[k.Hash], func(a, b Credential) int {
			return cmp.Or(cmp.Compare(a.KeyID, b.KeyID), cmp.Compare(a.OrganizationID, b.OrganizationID))
		})
	}
}

// Credential is what a key gives access to whose end is not recorded, found by the
// SHA-256 of the key in lower-case hex. An organization in quarantine has none: its
// revocations may be what was lost.
func (v *Views) Credential(hash string) (Credential, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := v.indexes.credentials[hash]
	if len(all) == 0 {
		return Credential{}, false
	}
	return all[0], true
}

// Organization is the organization with that id. One in quarantine is not shown.
func (v *Views) Organization(id domain.ID) (*domain.Organization, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	o, ok := v.indexes.organizations[id]
	return o, ok
}

// Account is an organization as it was when it was asked for.
type Account struct {
	// Organization is only to be read: others hold the same.
	Organization *domain.Organization
	// Changed is the revision of the last event that changed it, beside its keys.
	Changed domain.Revision
}

// Account is the organization with that id, likewise.
func (v *Views) Account(id domain.ID) (Account, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[id.Stream()]
	if !ok || slot.current.organization() == nil {
		return Account{}, false
	}
	return Account{slot.current.organization(), slot.current.history.Changed}, true
}

// Organizations are all organizations that are not in quarantine, by id.
func (v *Views) Organizations() []*domain.Organization {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.SortedFunc(maps.Values(v.indexes.organizations), func(a, b *domain.Organization) int {
		return cmp.Compare(a.ID, b.ID)
	})
}
