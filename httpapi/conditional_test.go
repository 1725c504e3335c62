package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestIfMatch_allowsAWriteToAMatchingRevisionOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const refused, malformed = http.StatusPreconditionFailed, http.StatusBadRequest
	many := make([]string, 0, 40)
	for i := range 40 {
		many = append(many, fmt.Sprintf(`"%d"`, i+100))
	}
	for name, c := range map[string]struct {
		values []string
		status int // the answer to a PUT on an object that last changed at revision 2
	}{
		"the present one":           {[]string{`"2"`}, http.StatusOK},
		"any":                       {[]string{`*`}, http.StatusOK},
		"one of several":            {[]string{`"7", "2" ,"1"`}, http.StatusOK},
		"one of several lines":      {[]string{`"7"`, `W/"1"`, `"2"`}, http.StatusOK},
		"empty elements":            {[]string{`, ,"2",`}, http.StatusOK},
		"an old one":                {[]string{`"1"`}, refused},
		"a later one":               {[]string{`"3"`}, refused},
		"none of several":           {[]string{`"0","1","3"`}, refused},
		"a weak one":                {[]string{`W/"2"`}, refused},
		"a foreign one":             {[]string{`"abc", "2,"`}, refused},
		"written otherwise":         {[]string{`"02"`}, refused},
		"the revision before all":   {[]string{`"-1"`}, refused},
		"larger than any":           {[]string{`"18446744073709551617"`}, refused},
		"without quotes":            {[]string{`2`}, malformed},
		"without the second quote":  {[]string{`"2`}, malformed},
		"nothing":                   {[]string{``}, malformed},
		"any and one":               {[]string{`*, "2"`}, malformed},
		"without a comma":           {[]string{`"1" "2"`}, malformed},
		"weak in lower case":        {[]string{`w/"2"`}, malformed},
		"a blank inside":            {[]string{`"2 "`}, malformed},
		"many":                      {many, refused},
		"many but each is the same": {slices.Repeat([]string{`"2"`}, 40), http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := w.create("queues", `{"sequenceId":"s"}`)
			if got := w.do(http.MethodPut, path, `{"openAt":"2027-01-01T00:00:00Z"}`).Header().Get("Etag"); got != `"2"` {
				t.Fatal(got)
			}
			before := w.do(http.MethodGet, path, "").Body.String()
			for _, call := range []struct{ method, body string }{{http.MethodPut, `{"name":"x"}`}, {http.MethodDelete, ""}} {
				if c.status == http.StatusOK && call.method == http.MethodDelete {
					continue // the PUT has changed the revision
				}
				a := w.do(call.method, path, call.body, header("If-Match", c.values...))
				switch c.status {
				case refused:
					a.refuses(refused, "Precondition failed")
				case malformed:
					a.blames("If-Match")
				default:
					a.is(c.status)
				}
			}
			if after := w.do(http.MethodGet, path, "").Body.String(); (after != before) != (c.status == http.StatusOK) {
				t.Errorf("it is %s, was %s", after, before)
			}
		})
	}
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodDelete, path, "", header("If-Match", `"1", "0"`)).is(http.StatusNoContent)
	for _, v := range []string{`"0"`, `*`, `W/"1"`, `"0", "1"`} {
		w.do(http.MethodDelete, path, "", header("If-Match", v)).refuses(http.StatusNotFound, "Queue not found")
	}
}

func TestIfNoneMatch_aReadOfAKnownVersionIsNotModified(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := w.create("queues", `{"sequenceId":"s"}`)
	for value, fresh := range map[string]bool{
		`"0"`:        false,
		`W/"0"`:      false,
		`"9", W/"0"`: false,
		`*`:          false,
		`"1"`:        true,
		`0`:          true,
		`"0`:         true,
		``:           true,
	} {
		for _, p := range []string{path, "/api/v1/distributions/" + id} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				a := w.do(method, p, "", header("If-None-Match", value))
				if (a.Code == http.StatusOK) != fresh || (a.Code == http.StatusNotModified) == fresh || a.Header().Get("Etag") != `"0"` {
					t.Errorf("%s with %s: %d %v", a.what, value, a.Code, a.Header())
				}
			}
		}
	}
	w.do(http.MethodPut, path, `{"name":"x"}`).is(http.StatusOK)
	w.do(http.MethodGet, path, "", header("If-None-Match", `"0"`)).is(http.StatusOK)
}

// FuzzTags checks that a well-formed header can be rebuilt from the tags that were read.
func FuzzTags(f *testing.F) {
	for _, seed := range []string{`*`, `"1"`, `"1", W/"2"`, `,,"a"`, `"`, `W/`, `"a""b"`, `"é"`, "\"\x7f\"", `""`, `"1" ,	"2"`} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		got, ok := parseTags([]string{value})
		if !ok {
			return
		}
		if got.any {
			if strings.TrimSpace(value) != "*" {
				t.Fatalf("%q is taken for any", value)
			}
			return
		}
		all := slices.Clone(got.strong)
		for _, tag := range got.weak {
			all = append(all, "W/"+tag)
		}
		again, ok := parseTags([]string{strings.Join(all, ", ")})
		if !ok || !slices.Equal(again.strong, got.strong) || !slices.Equal(again.weak, got.weak) || len(all) == 0 {
			t.Fatalf("%q: %v, again %v", value, got, again)
		}
		for _, tag := range got.strong {
			if r, ok := revision(tag); ok && (etag(r) != tag || r < 0) {
				t.Fatalf("%q became revision %d", tag, r)
			}
		}
	})
}

// If-None-Match: * restricts a write to objects that do not exist. It must not change an
// object that exists.
func TestIfNoneMatch_refusesAWriteToAMatchingObject(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const refused, malformed = http.StatusPreconditionFailed, http.StatusBadRequest
	for name, c := range map[string]struct {
		match, noneMatch []string
		status           int // the answer to a write to an object that last changed at revision 1
	}{
		"any":                          {nil, []string{`*`}, refused},
		"any, with blanks":             {nil, []string{" * "}, refused},
		"the present one":              {nil, []string{`"1"`}, refused},
		"the present one, weakly":      {nil, []string{`W/"1"`}, refused},
		"one of several":               {nil, []string{`"7", W/"1"`, `"9"`}, refused},
		"any, beside the present one":  {[]string{`"1"`}, []string{`*`}, refused},
		"any, beside any":              {[]string{`*`}, []string{`*`}, refused},
		"an old one, beside the wrong": {[]string{`"0"`}, []string{`"0"`}, refused},
		"without quotes":               {nil, []string{`1`}, malformed},
		"nothing":                      {nil, []string{``}, malformed},
		"any and one":                  {nil, []string{`*, "1"`}, malformed},
		"an old one":                   {nil, []string{`"0"`}, http.StatusOK},
		"foreign ones":                 {nil, []string{`"abc", W/"01", "p1"`}, http.StatusOK},
		"an old one, beside any":       {[]string{`*`}, []string{`"0"`}, http.StatusOK},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path, _ := w.create("queues", `{"sequenceId":"s"}`)
			w.do(http.MethodPut, path, `{"name":"a"}`).is(http.StatusOK)
			given := func(r *http.Request) {
				if c.match != nil {
					r.Header["If-Match"] = c.match
				}
				r.Header["If-None-Match"] = c.noneMatch
			}
			before := w.do(http.MethodGet, path, "").Body.String()
			for _, call := range []struct{ method, body string }{{http.MethodPut, `{"name":"b"}`}, {http.MethodDelete, ""}} {
				if c.status == http.StatusOK && call.method == http.MethodDelete {
					continue // the PUT has changed the revision
				}
				a := w.do(call.method, path, call.body, given)
				switch c.status {
				case refused:
					a.refuses(refused, "Precondition failed")
				case malformed:
					a.blames("If-None-Match")
				default:
					a.is(c.status)
				}
			}
			if after := w.do(http.MethodGet, path, "").Body.String(); (after != before) != (c.status == http.StatusOK) {
				t.Errorf("it is %s, was %s", after, before)
			}
			if c.status == malformed {
				w.do(http.MethodPut, path, `{}`, given, header("If-Match", "x")).blames("If-Match", "If-None-Match")
			}
		})
	}
	anyOne := header("If-None-Match", "*")
	draw, _ := w.create("draws", kindCases[1].body)
	keyPath, _, _ := w.newKey(`{"level":"secret"}`)
	w.writes(0, func() {
		w.do(http.MethodPut, draw+"/entropy", `{"value":"v"}`, anyOne).refuses(refused, "Precondition failed")
		w.do(http.MethodPut, organizationAt, `{"name":"b"}`, anyOne).refuses(refused, "Precondition failed")
		w.do(http.MethodDelete, keyPath, "", anyOne).refuses(refused, "Precondition failed")
		// For an object that does not exist, 404 says more than 412.
		w.do(http.MethodPut, queues+"/queue_01h455vb4pex5vsknk084sn02q", `{}`, anyOne).refuses(http.StatusNotFound, "Queue not found")
		w.do(http.MethodDelete, draw, "", anyOne, key(otherKey)).refuses(http.StatusNotFound, "Draw not found")
		w.do(http.MethodDelete, keysAt+"/key_01h455vb4pex5vsknk084sn02q", "", anyOne).refuses(http.StatusNotFound, "Key not found")
	})
	// Keys have no entity tags, so no tag matches one.
	w.do(http.MethodDelete, keyPath, "", header("If-None-Match", `"1"`)).is(http.StatusNoContent)
	// A creation makes a new object, so nothing matches.
	w.do(http.MethodPost, queues, `{"sequenceId":"s"}`, anyOne).is(http.StatusCreated)
}
