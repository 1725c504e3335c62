package projections

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
)

// naive runs a query over all distributions, without any index.
func naive(all []domain.Distribution, q ListQuery) (rows []domain.Distribution) {
	for _, d := range all {
		s := d.Shared()
		name := ""
		if s.Name != nil {
			name = *s.Name
		}
		if s.OrganizationID == q.Organization && !s.Deleted &&
			(len(q.Kinds) == 0 || slices.Contains(q.Kinds, d.Kind())) &&
			(len(q.Status) == 0 || slices.Contains(q.Status, s.Status)) &&
			(q.SequenceID == "" || s.SequenceID == q.SequenceID) &&
			(q.Search == "" || strings.Contains(strings.ToLower(name), strings.ToLower(q.Search))) &&
			(q.OpenAfter == 0 || (s.OpenAt != 0 && s.OpenAt >= q.OpenAfter)) &&
			(q.OpenBefore == 0 || (s.OpenAt != 0 && s.OpenAt < q.OpenBefore)) {
			rows = append(rows, d)
		}
	}
	slices.SortFunc(rows, func(a, b domain.Distribution) int { return compareCursors(q, cursorOf(q, a), cursorOf(q, b)) })
	return rows
}

func cursorOf(q ListQuery, d domain.Distribution) Cursor {
	s := d.Shared()
	switch {
	case q.SortBy == SortCreatedAt:
		return Cursor{At: s.CreatedAt, ID: s.ID}
	case q.SortBy == SortOpenAt:
		return Cursor{At: s.OpenAt, Null: s.OpenAt == 0, ID: s.ID}
	case s.Name == nil:
		return Cursor{Null: true, ID: s.ID}
	}
	return Cursor{Name: *s.Name, ID: s.ID}
}

func compareCursors(q ListQuery, a, b Cursor) int {
	if a.Null != b.Null {
		if a.Null {
			return 1
		}
		return -1
	}
	c := cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	if q.Descending {
		return -c
	}
	return c
}

func drawQuery(t *rapid.T, l *testLog, org domain.ID) ListQuery {
	q := ListQuery{
		Organization: org,
		SortBy:       rapid.SampledFrom(sorts[:]).Draw(t, "sort"),
		Descending:   rapid.Bool().Draw(t, "descending"),
		Backward:     rapid.Bool().Draw(t, "backward"),
		Limit:        rapid.IntRange(1, 5).Draw(t, "limit"),
	}
	switch rapid.IntRange(0, 7).Draw(t, "filter") {
	case 0:
		q.Kinds = rapid.SliceOf(rapid.SampledFrom(domain.Kinds())).Draw(t, "kinds")
	case 1:
		q.Status = rapid.SliceOf(rapid.SampledFrom(domain.Statuses())).Draw(t, "status")
	case 2:
		q.SequenceID = "s"
	case 3:
		q.Search = rapid.SampledFrom([]string{"b<", "aÄ", "B C"}).Draw(t, "search")
	case 4:
		q.OpenAfter = l.now + domain.Instant(rapid.IntRange(-3, 3).Draw(t, "after")*1000)
	case 5:
		q.OpenBefore = l.now + domain.Instant(rapid.IntRange(-3, 3).Draw(t, "before")*1000)
	}
	return q
}

// distributions returns the distributions of the log, also the deleted ones.
func (l *testLog) distributions() (all []domain.Distribution) {
	for _, h := range l.state {
		if d, ok := h.Aggregate.(domain.Distribution); ok && h.Head.Revision >= 0 {
			all = append(all, d)
		}
	}
	return all
}

func ids(rows []domain.Distribution) []domain.ID {
	out := []domain.ID{}
	for _, d := range rows {
		out = append(out, d.Shared().ID)
	}
	return out
}

func rowIDs(rows []Row) []domain.ID {
	out := []domain.ID{}
	for _, r := range rows {
		out = append(out, r.Distribution.Shared().ID)
	}
	return out
}

func drawStep(t *rapid.T, l *testLog, orgs []domain.ID) {
	all := l.distributions()
	slices.SortFunc(all, func(a, b domain.Distribution) int { return cmp.Compare(a.Shared().ID, b.Shared().ID) })
	if len(all) == 0 || rapid.IntRange(0, 3).Draw(t, "come") > 0 {
		drawDistribution(t, l, rapid.SampledFrom(orgs).Draw(t, "org"))
		return
	}
	id := rapid.SampledFrom(all).Draw(t, "which").Shared().ID
	switch rapid.IntRange(0, 2).Draw(t, "change") {
	case 0:
		l.try(id.Stream(), domain.Delete{})
	case 1:
		l.try(id.Stream(), domain.Step{To: domain.StatusOpen})
	default:
		drawUpdate(t, l, id)
	}
}

// Every page has the rows that a search without indexes finds.
func TestList_agreesWithASearchWithoutIndexes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, v := newLog(), emptyViews()
		orgs := []domain.ID{l.id("org"), l.id("org")}
		for range rapid.IntRange(0, 30).Draw(t, "events") {
			drawStep(t, l, orgs)
		}
		follow(v, l)
		for range 20 {
			q := drawQuery(t, l, orgs[0])
			want := naive(l.distributions(), q)
			if len(want) > 0 && rapid.Bool().Draw(t, "cursor") {
				c := cursorOf(q, rapid.SampledFrom(want).Draw(t, "from"))
				if rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
					c.ID = l.id(c.ID.Kind().IDPrefix())
				}
				q.From = &c
			}
			before, behind := split(q, want)
			page := behind
			if q.Backward {
				page = before
			}
			var previous, next bool
			if q.Backward {
				cut := max(0, len(page)-q.Limit)
				previous, next = cut > 0, len(behind) > 0
				page = page[cut:]
			} else {
				cut := min(len(page), q.Limit)
				previous, next = len(before) > 0, cut < len(page)
				page = page[:cut]
			}

			got, err := v.List(q)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(rowIDs(got.Rows), ids(page)) {
				t.Fatalf("%+v\n got %v\nwant %v", q, rowIDs(got.Rows), ids(page))
			}
			if got.HasNext != next || got.HasPrevious != previous {
				t.Fatalf("%+v: next %t, previous %t", q, got.HasNext, got.HasPrevious)
			}
			if len(page) > 0 && (got.Start != cursorOf(q, page[0]) || got.End != cursorOf(q, page[len(page)-1])) {
				t.Fatalf("%+v: from %+v to %+v", q, got.Start, got.End)
			}
			for i, r := range got.Rows {
				if string(r.JSON()) != string(page[i].AppendJSON(nil)) {
					t.Fatalf("got %s", r.JSON())
				}
			}
		}
	})
}

// split cuts sorted rows at q's cursor. The row at the cursor is not on the side of the page.
func split(q ListQuery, rows []domain.Distribution) (before, behind []domain.Distribution) {
	if q.From == nil && q.Backward {
		return rows, nil
	}
	for _, d := range rows {
		c := -1
		if q.From != nil {
			c = compareCursors(q, *q.From, cursorOf(q, d))
		}
		if c < 0 || (c == 0 && q.Backward) {
			behind = append(behind, d)
		} else {
			before = append(before, d)
		}
	}
	return before, behind
}

// A client that turns the pages while rows come and go gets each unchanged row exactly once.
func TestList_turningPages(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, v := newLog(), emptyViews()
		orgs := []domain.ID{l.id("org")}
		for range 15 {
			drawStep(t, l, orgs)
		}
		follow(v, l)
		q := drawQuery(t, l, orgs[0])
		start := len(l.events)
		times := map[domain.ID]int{}
		for turns := 0; ; turns++ {
			page, err := v.List(q)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range rowIDs(page.Rows) {
				times[id]++
			}
			more, at := page.HasNext, page.End
			if q.Backward {
				more, at = page.HasPrevious, page.Start
			}
			if !more {
				break
			}
			q.From = &at
			if turns < 10 {
				drawStep(t, l, orgs)
				follow(v, l)
			}
		}
		for _, d := range naive(l.distributions(), q) {
			id := d.Shared().ID
			touched := slices.ContainsFunc(l.events[start:], func(r *domain.Recorded) bool { return r.Stream == id.Stream() })
			if !touched && times[id] != 1 {
				t.Fatalf("%s came %d times", id, times[id])
			}
		}
	})
}

// A long list is walked in several strides.
func TestList_strides(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.id("org")
	const n = 2*stride + 10
	for i := range n {
		l.now++
		l.create(t, org, domain.Kinds()[i%3], map[string]string{"name": fmt.Sprintf(`"name %d"`, i)})
	}
	follow(v, l)
	for _, descending := range []bool{false, true} {
		page, err := v.List(ListQuery{
			Organization: org, SortBy: SortCreatedAt, Descending: descending, Limit: 5, Search: "Name 7",
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.Rows) != 5 || !page.HasNext || page.HasPrevious {
			t.Fatalf("got %+v", page)
		}
	}
	page, err := v.List(ListQuery{Organization: org, SortBy: SortName, Limit: n})
	if err != nil || len(page.Rows) != n || page.HasNext {
		t.Fatal(len(page.Rows), page.HasNext, err)
	}
	page, err = v.List(ListQuery{Organization: org, SortBy: SortName, Limit: 1, Search: fmt.Sprintf("name %d", n-1)})
	if err != nil || len(page.Rows) != 1 || page.HasNext {
		t.Fatal(len(page.Rows), page.HasNext, err)
	}
}

func TestList_refusesInvalidQueries(t *testing.T) {
	t.Parallel()
	v := emptyViews()
	for _, q := range []ListQuery{{SortBy: "status", Limit: 1}, {SortBy: SortName}} {
		if _, err := v.List(q); err == nil {
			t.Errorf("%+v was accepted", q)
		}
	}
}

// For an organization, the distributions of other organizations do not exist.
func TestViews_tenancy(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	own, other := l.id("org"), l.id("org")
	id := l.create(t, own, domain.KindQueue, nil)
	broken := l.create(t, own, domain.KindQueue, nil)
	l.record(broken.Stream(), domain.Opened{})
	follow(v, l)

	if row, err := v.Get(own, id); err != nil || row.Distribution.Shared().ID != id {
		t.Fatal(row, err)
	}
	if _, err := v.Get(own, broken); !errors.As(err, new(*domain.HistoryError)) {
		t.Fatal(err)
	}
	for _, id := range []domain.ID{id, broken} {
		for _, org := range []domain.ID{other, "", "org_unknown"} {
			if _, err := v.Get(org, id); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s as %q: %v", id, org, err)
			}
		}
	}
	page, err := v.List(ListQuery{Organization: other, SortBy: SortName, Limit: 10})
	if err != nil || len(page.Rows) != 0 {
		t.Error(page, err)
	}
}
