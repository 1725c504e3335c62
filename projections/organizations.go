package projections

import (
	"cmp"
	"maps"
	"slices"

	"github.com/lotline/lotline/domain"
)

// Credential says what an API key gives access to.
type Credential struct {
	OrganizationID domain.ID
	KeyID          domain.ID
	Level          domain.KeyLevel
}

// updateOrganization replaces an organization and its credentials by those of its new state.
// was is nil for a new organization, next for one in quarantine.
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
		// One API key in two organizations is a mistake. The order by id makes the
		// result independent of the order in which the streams were loaded.
		m.credentials[k.Hash] = append(m.credentials[k.Hash], Credential{next.ID, k.ID, k.Level})
		slices.SortFunc(m.credentials[k.Hash], func(a, b Credential) int {
			return cmp.Or(cmp.Compare(a.KeyID, b.KeyID), cmp.Compare(a.OrganizationID, b.OrganizationID))
		})
	}
}

// Credential finds an API key by its SHA-256 in lower-case hex, unless the key is revoked or
// expired. Keys of an organization in quarantine are not found: their revocation may be
// among the lost events.
func (v *Views) Credential(hash string) (Credential, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := v.indexes.credentials[hash]
	if len(all) == 0 {
		return Credential{}, false
	}
	return all[0], true
}

// Organization returns the organization with that id, unless it is in quarantine. The caller
// must not change it.
func (v *Views) Organization(id domain.ID) (*domain.Organization, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	o, ok := v.indexes.organizations[id]
	return o, ok
}

// Account is an organization with the revision of its last change.
type Account struct {
	// Organization must not be changed: other callers have the same one.
	Organization *domain.Organization
	// Changed is the revision of the last event that changed the organization itself.
	// Events about its API keys do not count.
	Changed domain.Revision
}

// Account returns the organization with that id and its last change, unless it is in
// quarantine.
func (v *Views) Account(id domain.ID) (Account, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[id.Stream()]
	if !ok || slot.current.organization() == nil {
		return Account{}, false
	}
	return Account{slot.current.organization(), slot.current.history.Changed}, true
}

// Organizations returns all organizations that are not in quarantine, sorted by id.
func (v *Views) Organizations() []*domain.Organization {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.SortedFunc(maps.Values(v.indexes.organizations), func(a, b *domain.Organization) int {
		return cmp.Compare(a.ID, b.ID)
	})
}
