package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func TestIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const refused, malformed = http.StatusPreconditionFailed, http.StatusBadRequest
	many := make([]string, 0, 40)
	for i := range 40 {
		many = append(many, fmt.Sprintf(`"%d"`, i+100))
	}
	for name, c := range map[string]struct {
		values []string
		status int // of a PUT on an object that last changed at revision 2
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

func TestIfNoneMatch(t *testing.T) {
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

// FuzzTags checks that a header which is well formed can be put together again
// from what was read of it.
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
