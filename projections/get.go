package projections

import (
	"errors"

	"github.com/lotline/lotline/domain"
)

// ErrNotFound says that an organization has no such distribution: there never
// was one, it is deleted, or it is another organization's.
var ErrNotFound = errors.New("no such distribution")

// Row is a distribution as it was when it was asked for.
type Row struct {
	// Distribution is only to be read: others hold the same.
	Distribution domain.Distribution
	// Head is the end of its stream.
	Head domain.Head
	// Changed is the revision of the last event that changed the admin object.
	Changed domain.Revision

	state *state // nil for a row that was not read from views
}

func (s *state) row() Row {
	return Row{Distribution: s.visible(), Head: s.history.Head, Changed: s.history.Changed, state: s}
}

// JSON is the distribution as an admin sees it. It is rendered once a change and
// only to be read: others hold the same bytes.
func (r Row) JSON() []byte {
	if r.state == nil {
		return r.Distribution.AppendJSON(nil)
	}
	return r.state.json()
}

// Get finds a distribution of an organization, or gives ErrNotFound. When its
// stream is in quarantine, it gives the *domain.HistoryError.
func (v *Views) Get(organization, id domain.ID) (Row, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	t, ok := v.indexes.tenants[organization]
	if !ok {
		return Row{}, ErrNotFound
	}
	slot, ok := t.distributions[id]
	if !ok {
		return Row{}, ErrNotFound
	}
	if slot.current.broken != nil {
		return Row{}, slot.current.broken
	}
	return slot.current.row(), nil
}

// Owned reports whether a distribution is an organization's, or was until it was
// deleted, or is the organization itself, and why its stream is in quarantine if it is.
func (v *Views) Owned(organization, id domain.ID) (quarantine *domain.HistoryError, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[id.Stream()]
	if !ok || slot.current.owner != organization {
		return nil, false
	}
	return slot.current.broken, true
}
