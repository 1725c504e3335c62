package projections

import (
	"cmp"
	"slices"
	"strings"

	"github.com/lotline/lotline/domain"
)

// StreamTime is a stream and the latest time in it.
type StreamTime struct {
	Stream string         `json:"stream"`
	Latest domain.Instant `json:"latest"`
}

// LaterThan returns the streams that have a time later than now, the latest first. It is
// quick when there are none, which is the usual case.
func (v *Views) LaterThan(now domain.Instant) []StreamTime {
	v.mu.RLock()
	defer v.mu.RUnlock()
	if v.indexes.latest <= now {
		return nil
	}
	var later []StreamTime
	for stream, slot := range v.indexes.streams {
		if at := slot.current.latest(); at > now {
			later = append(later, StreamTime{stream, at})
		}
	}
	slices.SortFunc(later, func(a, b StreamTime) int {
		return cmp.Or(cmp.Compare(b.Latest, a.Latest), strings.Compare(a.Stream, b.Stream))
	})
	return later
}
