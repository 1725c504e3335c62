package httpapi

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

const (
	defaultLimit = 20
	maxLimit     = 100
	minSearch    = 2
	maxSearch    = 200 // a name is not longer
	maxSequence  = 128
)

// list answers with a page of the distributions of a kind, or of all.
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

// appendPage joins the rows as they are rendered already.
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

// appendList writes a page of any objects.
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

type pageInfo struct {
	StartCursor     *string `json:"startCursor"` // null on an empty page
	EndCursor       *string `json:"endCursor"`
	HasNextPage     bool    `json:"hasNextPage"`
	HasPreviousPage bool    `json:"hasPreviousPage"`
}

// parseQuery reads the query parameters. Unlike URL.Query it does not drop what
// it cannot read.
func parseQuery(r *http.Request) (url.Values, error) {
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid(domain.Detail{Field: "query", Message: "cannot be read: " + err.Error()})
	}
	return given, nil
}

// unknownParameters names the parameters that are not known.
func unknownParameters(given url.Values, known []parameter) []domain.Detail {
	var wrong []domain.Detail
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(known, func(p parameter) bool { return p.name == name }) {
			wrong = append(wrong, domain.Detail{Field: name, Message: "is not a parameter of this request"})
		}
	}
	return wrong
}

// parameter is one query parameter of a list and how it is read. The error's
// text is for the client.
type parameter struct {
	name string
	read func(q *listRequest, value string) error
}

// listRequest is a list as it is being read. The cursor is opened when all else
// is known, because it holds for one list only.
type listRequest struct {
	projections.ListQuery
	direction string // as given
	cursor    string // likewise
}

// pageParameters are the parameters of every list.
var pageParameters = []parameter{
	{"first", (*listRequest).readLimit},
	{"after", (*listRequest).readCursor},
	{"last", (*listRequest).readLimit},
	{"before", (*listRequest).readCursor},
}

// listParameters are those of lists of distributions, in the order in which what
// is wrong with them is told. All but status may be given once.
var listParameters = slices.Concat(pageParameters, []parameter{
	{"sortBy", (*listRequest).readSort},
	{"sortDir", (*listRequest).readDirection},
	{"status", (*listRequest).readStatus},
	{"sequenceId", (*listRequest).readSequence},
	{"search", (*listRequest).readSearch},
	{"openAfter", func(q *listRequest, v string) error { return readTime(&q.OpenAfter, v) }},
	{"openBefore", func(q *listRequest, v string) error { return readTime(&q.OpenBefore, v) }},
})

// readList makes a query of the parameters, or refuses all that is wrong with
// them at once.
func (s *server) readList(organization domain.ID, kinds []domain.Kind, known []parameter, given url.Values) (projections.ListQuery, error) {
	q := listRequest{ListQuery: projections.ListQuery{
		Organization: organization,
		Kinds:        kinds,
		SortBy:       projections.SortCreatedAt,
		Limit:        defaultLimit,
	}}
	var wrong []domain.Detail
	refuse := func(name, message string) {
		wrong = append(wrong, domain.Detail{Field: name, Message: message})
	}
	for _, p := range known {
		values := given[p.name]
		if len(values) > 1 && p.name != "status" {
			refuse(p.name, "may be given once")
			continue
		}
		for _, v := range values {
			if err := p.read(&q, v); err != nil {
				refuse(p.name, err.Error())
				break
			}
		}
	}
	q.Backward = given.Has("last") || given.Has("before")
	if q.Backward {
		for _, name := range []string{"first", "after"} {
			if given.Has(name) {
				refuse(name, "does not go together with last or before")
			}
		}
	}
	wrong = append(wrong, unknownParameters(given, known)...)
	// Names are read from A on, times from the newest on.
	q.Descending = q.direction == "desc" || q.direction == "" && q.SortBy != projections.SortName
	// With a parameter wrong it is not known which list the cursor is for.
	if len(wrong) == 0 && (given.Has("after") || given.Has("before")) {
		place, ok := s.parseCursor(q.ListQuery, q.cursor)
		if !ok {
			refuse(cursorName(q.Backward), "is not a cursor of this list")
		}
		q.From = place
	}
	if len(wrong) > 0 {
		return projections.ListQuery{}, invalid(wrong...)
	}
	return q.ListQuery, nil
}

func cursorName(backward bool) string {
	if backward {
		return "before"
	}
	return "after"
}

func (q *listRequest) readCursor(v string) error {
	q.cursor = v
	return nil
}

func (q *listRequest) readLimit(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxLimit {
		return fmt.Errorf("must be a whole number from 1 to %d", maxLimit)
	}
	q.Limit = n
	return nil
}

func (q *listRequest) readSort(v string) error {
	q.SortBy = projections.Sort(v)
	switch q.SortBy {
	case projections.SortCreatedAt, projections.SortName, projections.SortOpenAt:
		return nil
	}
	return fmt.Errorf("must be createdAt, name or openAt")
}

func (q *listRequest) readDirection(v string) error {
	if v != "asc" && v != "desc" {
		return fmt.Errorf("must be asc or desc")
	}
	q.direction = v
	return nil
}

func (q *listRequest) readStatus(v string) error {
	if !slices.Contains(domain.Statuses(), domain.Status(v)) {
		return fmt.Errorf("must be one of %v", domain.Statuses())
	}
	// A repeated one means nothing. Each that is kept is compared with every row.
	if !slices.Contains(q.Status, domain.Status(v)) {
		q.Status = append(q.Status, domain.Status(v))
	}
	return nil
}

func (q *listRequest) readSequence(v string) error {
	if !domain.VisibleASCII(v, maxSequence) {
		return fmt.Errorf("must be 1 to %d visible ASCII characters", maxSequence)
	}
	q.SequenceID = v
	return nil
}

func (q *listRequest) readSearch(v string) error {
	if n := utf8.RuneCountInString(v); n < minSearch || n > maxSearch || !utf8.ValidString(v) {
		return fmt.Errorf("must have %d to %d characters", minSearch, maxSearch)
	}
	q.Search = v
	return nil
}

// readTime reads a time that has an offset: a list has no time zone of its own.
func readTime(to *domain.Instant, v string) error {
	i, err := domain.ParseInstant(v, "")
	if err != nil && strings.Contains(v, " ") {
		// The commonest cause by far, and hard to see.
		return fmt.Errorf("%w; a + in a query has to be written %%2B", err)
	}
	*to = i
	return err
}

// formatCursor is a place in the list that q asks for, as a client gets it. It
// opens for the same organization, kinds, filters and order only; page size and
// direction of travel may change.
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

// parseCursor undoes formatCursor.
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

// listIdentity is what makes a list another list: all of the query but the page.
func listIdentity(q projections.ListQuery) string {
	// The order of status values means nothing.
	q.Status = slices.Sorted(slices.Values(q.Status))
	q.Limit, q.From, q.Backward = 0, nil, false
	b, err := json.Marshal(q)
	if err != nil {
		panic("a query that cannot be encoded: " + err.Error())
	}
	return string(b)
}
