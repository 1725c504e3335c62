package httpapi

import (
	"net/http"
	"slices"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// list answers with a page of the distributions of a kind, or of all kinds.
func (s *server) list(k domain.Kind) handler {
	kinds := []domain.Kind{k}
	if k == anyKind {
		kinds = domain.Kinds()
	}
	return func(x *exchange, r *http.Request) error {
		given, err := parseQuery(r)
		if err != nil {
			return err
		}
		q, err := s.readList(x.organization.ID, kinds, listParameters, given)
		if err != nil {
			return err
		}
		if err := s.awaitWrites(x, r); err != nil {
			return err
		}
		page, err := s.Views.List(q)
		if err != nil {
			return err
		}
		x.json(r, http.StatusOK, typeJSON, s.appendPage(nil, q, page))
		return nil
	}
}

// appendPage appends a page of distributions as JSON. The rows are already rendered.
func (s *server) appendPage(dst []byte, q projections.ListQuery, page projections.Page) []byte {
	rows := make([][]byte, len(page.Rows))
	for i, row := range page.Rows {
		rows[i] = row.JSON()
	}
	info := pageInfo{HasNextPage: page.HasNext, HasPreviousPage: page.HasPrevious}
	if len(rows) > 0 {
		start, end := s.formatCursor(q, page.Start), s.formatCursor(q, page.End)
		info.StartCursor, info.EndCursor = &start, &end
	}
	return appendList(dst, rows, info)
}

// appendList appends a page of any objects as JSON. Each row is the JSON of one object.
func appendList(dst []byte, rows [][]byte, info pageInfo) []byte {
	size := 256
	for _, row := range rows {
		size += len(row) + 1
	}
	dst = slices.Grow(dst, size)
	dst = append(dst, `{"data":[`...)
	for i, row := range rows {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, row...)
	}
	dst = append(dst, `],"pageInfo":`...)
	dst = append(dst, encode(info)...)
	return append(dst, '}')
}

// pageInfo has the cursors of a page's first and last row, and says whether there are pages
// before and after it.
type pageInfo struct {
	StartCursor     *string `json:"startCursor"` // null on an empty page
	EndCursor       *string `json:"endCursor"`
	HasNextPage     bool    `json:"hasNextPage"`
	HasPreviousPage bool    `json:"hasPreviousPage"`
}
