package projections

import (
	"errors"

	"github.com/lotline/lotline/domain"
)

// ErrNotFound says that an organization has no such distribution: it never existed, it is
// deleted, or it is another organization's.
var ErrNotFound = errors.New("no such distribution")

// Row is a distribution at the moment of the query.
type Row struct {
	// Distribution must not be changed: other callers have the same one.
	Distribution domain.Distribution
	// Head is the head of its stream.
	Head domain.Head
	// Changed is the revision of the last event that changed the admin object.
	Changed domain.Revision

	state *state // nil for a Row that another package made
}

func (s *state) row() Row {
	return Row{Distribution: s.visible(), Head: s.history.Head, Changed: s.history.Changed, state: s}
}

// JSON returns the distribution as an admin sees it. The caller must not change the bytes:
// they are rendered once for all callers.
func (r Row) JSON() []byte {
	if r.state == nil {
		return r.Distribution.AppendJSON(nil)
	}
	return r.state.json()
}

// Get returns a distribution of an organization. Errors: ErrNotFound, and the
// *domain.HistoryError of a stream in quarantine.
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

// Owned reports whether the object with that id is the organization itself or one of its
// distributions, even a deleted one. quarantine says why the stream of such an object is in
// quarantine. It is nil when the stream is not in quarantine.
func (v *Views) Owned(organization, id domain.ID) (quarantine *domain.HistoryError, ok bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[id.Stream()]
	if !ok || slot.current.owner != organization {
		return nil, false
	}
	return slot.current.broken, true
}
