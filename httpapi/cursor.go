package httpapi

import (
	"encoding/binary"
	"encoding/json"
	"slices"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// formatCursor returns a place in the list of q as an opaque token for the client. The token
// is valid only with the same organization, kinds, filters and order. The page size may
// change, and so may the direction in which the client pages.
func (s *server) formatCursor(q projections.ListQuery, c projections.Cursor) string {
	b := make([]byte, 0, 128)
	if c.Null {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	b = binary.BigEndian.AppendUint64(b, uint64(c.At))
	b = append(b, byte(len(c.ID)))
	b = append(b, c.ID...)
	b = append(b, c.Name...)
	return s.sealer.seal(cursorToken, listIdentity(q), b)
}

// parseCursor reads a token of formatCursor. It returns false for any other text, and for
// the cursor of another list.
func (s *server) parseCursor(q projections.ListQuery, token string) (*projections.Cursor, bool) {
	b, ok := s.sealer.open(cursorToken, listIdentity(q), token)
	if !ok || len(b) < 10 || len(b) < 10+int(b[9]) {
		return nil, false
	}
	id := 10 + int(b[9])
	return &projections.Cursor{
		Null: b[0] == 1,
		At:   domain.Instant(binary.BigEndian.Uint64(b[1:])),
		ID:   domain.ID(b[10:id]),
		Name: string(b[id:]),
	}, true
}

// listIdentity returns a text that is equal for two queries exactly if they ask for pages
// of the same list.
func listIdentity(q projections.ListQuery) string {
	// The order of the statuses does not matter.
	q.Status = slices.Sorted(slices.Values(q.Status))
	q.Limit, q.From, q.Backward = 0, nil, false
	b, err := json.Marshal(q)
	if err != nil {
		panic("a query that cannot be encoded: " + err.Error())
	}
	return string(b)
}
