package projections

import (
	"github.com/lotline/lotline/domain"
)

// SigningKeys returns the keys that sign tokens. The caller must not change them. Errors:
// *domain.HistoryError when their stream is in quarantine, ErrBehind when the views have
// no event of it yet.
func (v *Views) SigningKeys() (*domain.SigningKeys, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[domain.SigningStream]
	switch {
	case !ok:
		return nil, ErrBehind
	case slot.current.broken != nil:
		return nil, slot.current.broken
	}
	return slot.current.history.Aggregate.(*domain.SigningKeys), nil
}
