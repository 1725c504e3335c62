package projections

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/btree"

	"github.com/lotline/lotline/domain"
)

// Sort is the field that a list is sorted by, as the API calls it.
type Sort string

// The orders of lists.
const (
	SortCreatedAt Sort = "createdAt"
	SortName      Sort = "name" // by code point
	SortOpenAt    Sort = "openAt"
)

var sorts = [...]Sort{SortCreatedAt, SortName, SortOpenAt}

// Cursor is a place in a sorted list: a sort value and, among equal ones, an id. It stays
// valid when its row is gone.
type Cursor struct {
	Null bool           // the row has no sort value
	At   domain.Instant // the sort value, if it is a time
	Name string         // the sort value, if it is the name
	ID   domain.ID
}

// ListQuery asks for a page of an organization's distributions. The zero value of a filter
// filters nothing.
type ListQuery struct {
	Organization domain.ID
	Kinds        []domain.Kind // of distributions
	Status       []domain.Status
	SequenceID   string
	Search       string         // a part of the name; upper and lower case are the same
	OpenAfter    domain.Instant // openAt is this or later
	OpenBefore   domain.Instant // openAt is earlier than this

	SortBy Sort
	// Descending reverses the order of the sort values, and of the ids among equal ones.
	// Rows without a sort value are last in either order.
	Descending bool

	Limit    int
	Backward bool    // the page ends before From, or at the end of the list
	From     *Cursor // the page begins after this place; nil for the beginning of the list
}

// Page is the result of a ListQuery. Its rows are in the order of the list, also when the
// query is backward.
type Page struct {
	Rows        []Row
	Start, End  Cursor // the places of the first and the last row; zero when there are no rows
	HasPrevious bool   // the list has rows before the page
	HasNext     bool   // the list has rows after the page
}

// List returns a page. A page begins at a place, not at a number of rows. So when rows come
// and go between two queries, the other rows are neither repeated nor left out.
// Distributions in quarantine are left out. The error says that SortBy or Limit is
// invalid.
func (v *Views) List(q ListQuery) (Page, error) {
	if !slices.Contains(sorts[:], q.SortBy) {
		return Page{}, fmt.Errorf("lists are not sorted by %q", q.SortBy)
	}
	if q.Limit < 1 {
		return Page{}, fmt.Errorf("a page does not have %d rows", q.Limit)
	}
	q.Search = ignoreCase(q.Search)

	// One row more than the page may have says whether the list goes on.
	found := make([]found, 0, q.Limit+1)
	for f := range v.walk(&q, q.Backward, false, q.Limit+1) {
		if found = append(found, f); len(found) > q.Limit {
			break
		}
	}
	on := len(found) > q.Limit
	found = found[:min(len(found), q.Limit)]
	back := false
	if q.From != nil {
		for range v.walk(&q, !q.Backward, true, 1) {
			back = true
			break
		}
	}

	page := Page{HasPrevious: back, HasNext: on, Rows: make([]Row, len(found))}
	if q.Backward {
		slices.Reverse(found)
		page.HasPrevious, page.HasNext = on, back
	}
	for i, f := range found {
		page.Rows[i] = f.state.row()
	}
	if len(found) > 0 {
		page.Start, page.End = found[0].cursor(), found[len(found)-1].cursor()
	}
	return page, nil
}

// ignoreCase makes strings equal that differ only in upper and lower case. It converts to
// upper case first, because some letters outside of ASCII have several lower-case forms.
func ignoreCase(s string) string {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return strings.ToLower(strings.ToUpper(s))
		}
	}
	return strings.ToLower(s)
}

// accepts reports whether d passes the filters.
func (q *ListQuery) accepts(d *domain.Lifecycle) bool {
	switch {
	case len(q.Status) > 0 && !slices.Contains(q.Status, d.Status),
		q.SequenceID != "" && q.SequenceID != d.SequenceID,
		(q.OpenAfter != 0 || q.OpenBefore != 0) && d.OpenAt == 0,
		q.OpenAfter != 0 && d.OpenAt < q.OpenAfter,
		q.OpenBefore != 0 && d.OpenAt >= q.OpenBefore:
		return false
	case q.Search == "":
		return true
	}
	return d.Name != nil && strings.Contains(ignoreCase(*d.Name), q.Search)
}

// item is a distribution in a sorted list. Only the sort value of that list is set, the
// other one is zero.
type item struct {
	at   domain.Instant
	name string
	slot *streamSlot
}

func compareItems(a, b item) int {
	if a.at != b.at {
		return cmp.Compare(a.at, b.at)
	}
	if c := strings.Compare(a.name, b.name); c != 0 {
		return c
	}
	return strings.Compare(string(a.slot.id), string(b.slot.id))
}

// sortedList holds distributions in one order. Those without a sort value are in a tree of
// their own, because they come last in either direction.
type sortedList struct {
	values, nulls *btree.BTreeG[item]
}

func (l *sortedList) part(nulls bool) *btree.BTreeG[item] {
	if nulls {
		return l.nulls
	}
	return l.values
}

// load fills an empty list.
func (l *sortedList) load(slots []*streamSlot, by Sort) {
	places := make([]place, 0, len(slots))
	for _, slot := range slots {
		places = append(places, placeOf(slot, slot.current.visible().Shared(), by))
	}
	slices.SortFunc(places, func(a, b place) int { return compareItems(a.item, b.item) })
	for _, p := range places {
		l.part(p.null).Load(p.item)
	}
}

// place is the place of a distribution in a sorted list.
type place struct {
	item
	null bool
}

func placeOf(slot *streamSlot, d *domain.Lifecycle, by Sort) place {
	p := place{item: item{slot: slot}}
	switch by {
	case SortCreatedAt:
		p.at = d.CreatedAt
	case SortOpenAt:
		p.at, p.null = d.OpenAt, d.OpenAt == 0
	case SortName:
		if p.null = d.Name == nil; !p.null {
			p.name = *d.Name
		}
	}
	return p
}

// lists are the sorted lists of one organization and kind, one for each order in sorts.
type lists [len(sorts)]sortedList

func newLists() *lists {
	var l lists
	for i := range l {
		l[i] = sortedList{newTree(compareItems), newTree(compareItems)}
	}
	return &l
}

// move moves a distribution to the places of its new state. was is nil for a new
// distribution, now is nil for one that is removed.
func (l *lists) move(slot *streamSlot, was, now domain.Distribution) {
	for i, by := range sorts {
		var from, to place
		if was != nil {
			from = placeOf(slot, was.Shared(), by)
		}
		if now != nil {
			to = placeOf(slot, now.Shared(), by)
		}
		if from == to {
			continue
		}
		if was != nil {
			l[i].part(from.null).Delete(from.item)
		}
		if now != nil {
			l[i].part(to.null).Set(to.item)
		}
	}
}

// found is a row of a list and its place.
type found struct {
	place
	state *state
}

func (f found) cursor() Cursor {
	return Cursor{Null: f.null, At: f.at, Name: f.name, ID: f.state.id}
}

// stride is how many rows a walk checks before it releases the lock for a moment. A search
// in a long list takes many strides.
const stride = 512

// walk yields the rows that q accepts, after q.From, in the order of q or backward. With
// including, it begins with the row at q.From itself. It fetches at most want rows ahead.
func (v *Views) walk(q *ListQuery, backward, including bool, want int) iter.Seq[found] {
	return func(yield func(found) bool) {
		parts := []bool{false, true} // without and with null as the sort value
		if backward {
			slices.Reverse(parts)
		}
		if q.From != nil && q.From.Null == parts[1] {
			parts = parts[1:]
		}
		for _, nulls := range parts {
			s := step{q: q, nulls: nulls, up: q.Descending == backward, including: including, want: want}
			if q.From != nil && q.From.Null == nulls {
				s.from = item{at: q.From.At, name: q.From.Name, slot: &streamSlot{id: q.From.ID}}
			}
			for more := true; more; {
				var rows []found
				rows, more = v.take(&s)
				for _, f := range rows {
					if !yield(f) {
						return
					}
				}
			}
		}
	}
}

// step is how far a walk has come.
type step struct {
	q         *ListQuery
	nulls     bool // which part of the lists
	up        bool
	from      item // the last item; without a slot the walk has not begun
	including bool // from itself is yielded as well
	want      int
}

// take checks the next rows, returns those that the query accepts and moves the step after
// them. It reports whether there may be more.
func (v *Views) take(s *step) (rows []found, more bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	t, ok := v.indexes.tenants[s.q.Organization]
	if !ok {
		return nil, false
	}
	column := slices.Index(sorts[:], s.q.SortBy)
	var trees []btree.IterG[item]
	for _, k := range domain.Kinds() {
		l, ok := t.lists[k]
		if !ok || (len(s.q.Kinds) > 0 && !slices.Contains(s.q.Kinds, k)) {
			continue
		}
		if tree := l[column].part(s.nulls).Iter(); s.begin(&tree) {
			trees = append(trees, tree)
		}
	}
	for range stride {
		next := s.nearest(trees)
		if next < 0 {
			return rows, false
		}
		s.from, s.including = trees[next].Item(), false
		current := s.from.slot.current
		if s.q.accepts(current.visible().Shared()) {
			rows = append(rows, found{place{s.from, s.nulls}, current})
		}
		if !s.advance(&trees[next]) {
			trees = slices.Delete(trees, next, next+1)
		}
		if len(rows) == s.want {
			return rows, true
		}
	}
	return rows, true
}

// begin moves tree to the next item of the walk and reports whether there is one.
func (s *step) begin(tree *btree.IterG[item]) bool {
	switch {
	case s.from.slot == nil && s.up:
		return tree.First()
	case s.from.slot == nil:
		return tree.Last()
	case !tree.Seek(s.from): // to it, or to what follows it
		return !s.up && tree.Last()
	}
	there := compareItems(tree.Item(), s.from) == 0
	if (there && s.including) || (!there && s.up) {
		return true
	}
	return s.advance(tree)
}

func (s *step) advance(tree *btree.IterG[item]) bool {
	if s.up {
		return tree.Next()
	}
	return tree.Prev()
}

// nearest returns the index of the tree whose item comes next, or -1 when there is none.
func (s *step) nearest(trees []btree.IterG[item]) int {
	best := -1
	for i := range trees {
		if best < 0 || (compareItems(trees[i].Item(), trees[best].Item()) < 0) == s.up {
			best = i
		}
	}
	return best
}
