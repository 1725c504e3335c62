package httpapi

import (
	"fmt"
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
	maxSearch    = 200 // the largest length of a name
	maxSequence  = 128
)

// parameter is a query parameter of a list. read notes its value in q, or returns an error
// whose text is for the client.
type parameter struct {
	name string
	read func(q *listRequest, value string) error
}

// listRequest collects the parameters of a list. The cursor is decrypted after all other
// parameters are read, because it is valid for one list only.
type listRequest struct {
	projections.ListQuery
	direction string // as the client sent it
	cursor    string // as the client sent it
}

// pageParameters are the parameters of every list.
var pageParameters = []parameter{
	{"first", (*listRequest).readLimit},
	{"after", (*listRequest).readCursor},
	{"last", (*listRequest).readLimit},
	{"before", (*listRequest).readCursor},
}

// listParameters are the parameters of lists of distributions. A refusal lists wrong
// parameters in this order. Only status may be given more than once.
var listParameters = slices.Concat(pageParameters, []parameter{
	{"sortBy", (*listRequest).readSort},
	{"sortDir", (*listRequest).readDirection},
	{"status", (*listRequest).readStatus},
	{"sequenceId", (*listRequest).readSequence},
	{"search", (*listRequest).readSearch},
	{"openAfter", func(q *listRequest, v string) error { return readTime(&q.OpenAfter, v) }},
	{"openBefore", func(q *listRequest, v string) error { return readTime(&q.OpenBefore, v) }},
})

// readList makes a query from the given parameters. A refusal lists every parameter that
// is wrong.
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
	// The default order is A to Z for names, and the latest first for times.
	q.Descending = q.direction == "desc" || q.direction == "" && q.SortBy != projections.SortName
	// If a parameter is wrong, it is not known which list the cursor is for.
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

// cursorName is the parameter that holds the cursor of a page.
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
	// A repeated status changes nothing. It is dropped, because each status costs a
	// comparison for every row.
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

// readTime reads a time with an offset from UTC. A list has no time zone for a time
// without one.
func readTime(to *domain.Instant, v string) error {
	i, err := domain.ParseInstant(v, "")
	if err != nil && strings.Contains(v, " ") {
		// A + that was not encoded is by far the most common mistake, and hard to notice.
		return fmt.Errorf("%w; a + in a query has to be written %%2B", err)
	}
	*to = i
	return err
}
