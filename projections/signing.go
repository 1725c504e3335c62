package projections

import (
	"github.com/lotline/lotline/domain"
)

// SigningKeys are the keys by which tokens are signed. Nobody changes them. Errors:
// *domain.HistoryError when their stream is in quarantine, ErrBehind when the first
// has not come yet.
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
