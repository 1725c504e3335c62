package httpapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// page is the answer of a list.
type page struct {
	ids         []string
	start, end  string
	next, prior bool
}

func (a *reply) page() page {
	a.tb.Helper()
	o := a.is(http.StatusOK).object()
	var p page
	for _, row := range o["data"].([]any) {
		p.ids = append(p.ids, row.(map[string]any)["id"].(string))
	}
	info := o["pageInfo"].(map[string]any)
	if len(info) != 4 {
		a.tb.Fatalf("pageInfo %v", info)
	}
	p.start, _ = info["startCursor"].(string)
	p.end, _ = info["endCursor"].(string)
	p.next, p.prior = info["hasNextPage"].(bool), info["hasPreviousPage"].(bool)
	return p
}

// populate creates queues named q00, q01, … one second apart and returns their ids. The
// queues with odd numbers have an opening time.
func (w *world) populate(n int) []string {
	w.tb.Helper()
	ids := make([]string, n)
	for i := range ids {
		body := fmt.Sprintf(`{"sequenceId":"s%d","name":"q%02d"`, i%3, i)
		if i%2 == 1 {
			body += fmt.Sprintf(`,"openAt":"2026-05-%02dT00:00:00Z"`, 1+i%28)
		}
		_, ids[i] = w.create("queues", body+"}")
		w.advance(time.Second)
	}
	return ids
}

func TestList_pagesHaveEveryRowOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.populate(45)
	newest := slices.Clone(ids)
	slices.Reverse(newest)
	for query, order := range map[string][]string{
		"":                             newest,
		"sortBy=createdAt":             newest,
		"sortBy=createdAt&sortDir=asc": ids,
		"sortDir=asc":                  ids,
		"sortBy=name":                  ids,
		"sortBy=name&sortDir=desc":     newest,
		"search=q0&sortDir=asc":        ids[:10],
		"search=Q0&sortDir=asc":        ids[:10],
		"status=DRAFT&status=OPEN&sortDir=asc": func() (even []string) {
			for i := 0; i < len(ids); i += 2 {
				even = append(even, ids[i])
			}
			return even
		}(),
		"sequenceId=s1&sortDir=asc": func() (some []string) {
			for i := 1; i < len(ids); i += 3 {
				some = append(some, ids[i])
			}
			return some
		}(),
		"openAfter=2026-05-02T00:00:00Z&openBefore=" + url.QueryEscape("2026-05-06T02:00:00+02:00") + "&sortBy=openAt&sortDir=asc": {
			ids[1], ids[29], ids[3], ids[31],
		},
		"status=SETTLED": {},
	} {
		t.Run(query, func(t *testing.T) {
			t.Parallel()
			path := "/api/v1/queues?" + query
			var forward, backward []string
			next := path + "&first=7"
			for {
				p := w.do(http.MethodGet, next, "").page()
				if p.prior != (len(forward) > 0) || (len(p.ids) == 0) != (p.start == "" && p.end == "") {
					t.Fatalf("%s: %+v", next, p)
				}
				forward = append(forward, p.ids...)
				if !p.next {
					break
				}
				next = path + "&first=7&after=" + p.end
			}
			prior := path + "&last=7"
			for {
				p := w.do(http.MethodGet, prior, "").page()
				if p.next != (len(backward) > 0) {
					t.Fatalf("%s: %+v", prior, p)
				}
				backward = append(slices.Clone(p.ids), backward...)
				if !p.prior {
					break
				}
				prior = path + "&last=7&before=" + p.start
			}
			if !slices.Equal(forward, order) || !slices.Equal(backward, order) {
				t.Errorf("forward  %v\nbackward %v\nwant     %v", forward, backward, order)
			}
		})
	}
	if p := w.do(http.MethodGet, "/api/v1/queues", "").page(); len(p.ids) != 20 || !p.next || p.prior {
		t.Errorf("a page has %d rows", len(p.ids))
	}
	if p := w.do(http.MethodGet, "/api/v1/queues?first=100", "").page(); len(p.ids) != 45 {
		t.Errorf("the largest page has %d rows", len(p.ids))
	}
	first := w.do(http.MethodGet, "/api/v1/queues?first=3", "").page()
	if p := w.do(http.MethodGet, "/api/v1/queues?after="+first.end, "").page(); !slices.Equal(p.ids, newest[3:23]) {
		t.Errorf("after without first: %v", p.ids)
	}
	if p := w.do(http.MethodGet, "/api/v1/queues?before="+first.end, "").page(); !slices.Equal(p.ids, newest[:2]) {
		t.Errorf("before without last: %v", p.ids)
	}
}

// The rows of a list are the same bytes as the answers for single objects.
func TestList_ofAllKindsHasTheObjectsThemselves(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	objects := map[string]string{}
	var all []string
	for _, c := range kindCases {
		a := w.do(http.MethodPost, "/api/v1/"+c.collection, c.body).is(http.StatusCreated)
		objects[c.collection] = a.Body.String()
		all = append(all, a.Body.String())
		w.advance(time.Second)
	}
	for _, c := range kindCases {
		a := w.do(http.MethodGet, "/api/v1/"+c.collection, "").is(http.StatusOK)
		if !strings.HasPrefix(a.Body.String(), `{"data":[`+objects[c.collection]+`],"pageInfo":{"startCursor":"`) {
			t.Errorf("%s: %s", c.collection, a.Body)
		}
	}
	a := w.do(http.MethodGet, "/api/v1/distributions?sortDir=asc", "").is(http.StatusOK)
	if !strings.HasPrefix(a.Body.String(), `{"data":[`+strings.Join(all, ",")+`],"pageInfo":`) {
		t.Errorf("distributions: %s", a.Body)
	}
	empty := w.do(http.MethodGet, "/api/v1/queues", "", key(otherKey)).is(http.StatusOK)
	if want := `{"data":[],"pageInfo":{"startCursor":null,"endCursor":null,"hasNextPage":false,"hasPreviousPage":false}}`; empty.Body.String() != want {
		t.Errorf("an empty list is %s", empty.Body)
	}
	head := w.do(http.MethodHead, "/api/v1/queues", "", key(otherKey)).is(http.StatusOK)
	if head.Body.Len() != 0 || head.Header().Get("Content-Length") != empty.Header().Get("Content-Length") {
		t.Errorf("HEAD: %v", head.Header())
	}
}

func TestList_wrongParametersAreAllNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cursor := w.cursor("/api/v1/queues")
	for query, fields := range map[string][]string{
		"first=0":                              {"first"},
		"first=101":                            {"first"},
		"first=x":                              {"first"},
		"first=":                               {"first"},
		"last=-1":                              {"last"},
		"first=1&first=2":                      {"first"},
		"first=1&last=1":                       {"first"},
		"first=1&before=" + cursor:             {"first"},
		"after=" + cursor + "&last=1":          {"after"},
		"after=x&before=y":                     {"after"},
		"after=x":                              {"after"},
		"after=":                               {"after"},
		"before=x":                             {"before"},
		"after=a&after=b":                      {"after"},
		"sortBy=updatedAt":                     {"sortBy"},
		"sortDir=DESC":                         {"sortDir"},
		"status=open":                          {"status"},
		"status=OPEN&status=":                  {"status"},
		"sequenceId=a%20b":                     {"sequenceId"},
		"sequenceId=":                          {"sequenceId"},
		"search=q":                             {"search"},
		"search=%ff%ff":                        {"search"},
		"openAfter=2026-05-01":                 {"openAfter"},
		"openAfter=2026-05-01T00:00:00":        {"openAfter"},
		"openBefore=2026-05-01T00:00:00+02:00": {"openBefore"}, // an unencoded + means a blank
		"colour=red":                           {"colour"},
		"First=1":                              {"First"},
		"zebra=1&first=0&search=q&apple=2&openBefore=soon&status=NO&after=x": {"first", "status", "search", "openBefore", "apple", "zebra"},
		"a=%zz": {"query"},
		"a;b":   {"query"},
	} {
		w.do(http.MethodGet, "/api/v1/queues?"+query, "").blames(fields...)
		w.do(http.MethodGet, "/api/v1/distributions?"+query, "").blames(fields...)
	}
	a := w.do(http.MethodGet, "/api/v1/queues?openBefore=2026-05-01T00:00:00+02:00", "")
	if m := a.failure().Details[0].Message; !strings.Contains(m, "%2B") {
		t.Errorf("about a plus that became a blank: %q", m)
	}
}

// cursor creates two queues and returns the cursor between them.
func (w *world) cursor(path string) string {
	w.tb.Helper()
	w.create("queues", `{"sequenceId":"s","name":"first"}`)
	w.advance(time.Second)
	w.create("queues", `{"sequenceId":"s","name":"first"}`)
	return w.do(http.MethodGet, path+"?first=1", "").page().end
}

// A cursor is valid only for the list that it came from.
func TestCursor_isValidForItsOwnListOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cursor := w.cursor("/api/v1/queues")
	after := "after=" + cursor
	for _, query := range []string{"", "&first=5", "&sortBy=createdAt", "&sortDir=desc"} {
		if p := w.do(http.MethodGet, "/api/v1/queues?"+after+query, "").page(); len(p.ids) != 1 {
			t.Errorf("%s: %v", query, p)
		}
	}
	w.do(http.MethodGet, "/api/v1/queues?before="+cursor+"&last=5", "").is(http.StatusOK)
	for _, query := range []string{
		"&sortBy=name", "&sortDir=asc", "&status=DRAFT", "&sequenceId=s", "&search=first",
		"&openAfter=2026-01-01T00:00:00Z", "&openBefore=2027-01-01T00:00:00Z",
	} {
		w.do(http.MethodGet, "/api/v1/queues?"+after+query, "").blames("after")
	}
	w.do(http.MethodGet, "/api/v1/draws?"+after, "").blames("after")
	w.do(http.MethodGet, "/api/v1/distributions?"+after, "").blames("after")
	w.do(http.MethodGet, "/api/v1/queues?"+after, "", key(otherKey)).blames("after")
	w.do(http.MethodGet, "/api/v1/queues?"+after, "", key(mySecond)).is(http.StatusOK)

	both := w.do(http.MethodGet, "/api/v1/queues?first=1&status=OPEN&status=DRAFT", "").page().end
	w.do(http.MethodGet, "/api/v1/queues?status=DRAFT&status=OPEN&status=DRAFT&after="+both, "").is(http.StatusOK)
	w.do(http.MethodGet, "/api/v1/queues?status=DRAFT&after="+both, "").blames("after")

	for i := range len(cursor) {
		for _, c := range []byte("Az9_") {
			if cursor[i] != c {
				w.do(http.MethodGet, "/api/v1/queues?after="+cursor[:i]+string(c)+cursor[i+1:], "").blames("after")
			}
		}
	}
	position := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).Header().Get("X-Position")
	w.do(http.MethodGet, "/api/v1/queues?after="+position, "").blames("after")
	w.config.TokenKey = []byte("another")
	w.api = New(w.config)
	w.do(http.MethodGet, "/api/v1/queues?"+after, "").blames("after")
}

// If rows are added or removed between two pages, every other row still appears exactly
// once.
func TestList_pagingSkipsAndRepeatsNoRowWhileOthersChange(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ids := w.populate(12)
	first := w.do(http.MethodGet, "/api/v1/queues?sortBy=name&first=4", "").page()
	for _, i := range []int{3, 5} {
		w.do(http.MethodDelete, "/api/v1/queues/"+ids[i], "").is(http.StatusNoContent)
	}
	w.create("queues", `{"sequenceId":"s","name":"q01a"}`)
	rest := w.do(http.MethodGet, "/api/v1/queues?sortBy=name&after="+first.end, "").page()
	if want := slices.Concat(ids[4:5], ids[6:]); !slices.Equal(rest.ids, want) {
		t.Errorf("got %v, want %v", rest.ids, want)
	}
}

func FuzzCursor(f *testing.F) {
	s := newServer(Config{TokenKey: []byte("k")})
	q := projections.ListQuery{Organization: "org_1", Kinds: domain.Kinds(), SortBy: projections.SortName}
	f.Add("queue_01h455vb4pex5vsknk084sn02q", "näme", int64(1), false, "x")
	f.Add("", "", int64(-1), true, s.sealer.seal(cursorToken, listIdentity(q), nil))
	f.Add("q", "\x00\xff", int64(1)<<62, false, s.sealer.seal(cursorToken, listIdentity(q), append(make([]byte, 9), 200)))
	f.Fuzz(func(t *testing.T, id, name string, at int64, null bool, token string) {
		if len(id) < 256 {
			c := projections.Cursor{Null: null, At: domain.Instant(at), Name: name, ID: domain.ID(id)}
			if got, ok := s.parseCursor(q, s.formatCursor(q, c)); !ok || *got != c {
				t.Fatalf("%+v came back as %+v, %t", c, got, ok)
			}
		}
		if got, ok := s.parseCursor(q, token); ok && s.formatCursor(q, *got) != token {
			t.Fatalf("%q is taken for %+v", token, got)
		}
	})
}
