package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/lotline/lotline/domain"
)

// etag is the entity tag of an object that last changed at a revision.
func etag(changed domain.Revision) string {
	return `"` + strconv.FormatInt(int64(changed), 10) + `"`
}

// participationETag is the entity tag of a view in which participation shows, and
// which so changes with every event of a stream that ends at a revision. It is no
// admin object's, so it matches none in If-Match.
func participationETag(end domain.Revision) string {
	return `"p` + strconv.FormatInt(int64(end), 10) + `"`
}

// tags are the entity tags of an If-Match or If-None-Match header.
type tags struct {
	any          bool     // "*"
	strong, weak []string // with their quotes
}

// parseTags reads the lines of a header as RFC 9110, section 13.1, defines it,
// and reports whether they are well formed.
func parseTags(lines []string) (tags, bool) {
	rest := strings.Join(lines, ",")
	if strings.Trim(rest, " \t") == "*" {
		return tags{any: true}, true
	}
	var t tags
	for {
		// A list may have empty elements.
		rest = strings.TrimLeft(rest, ", \t")
		if rest == "" {
			return t, len(t.strong)+len(t.weak) > 0
		}
		opaque, isWeak := strings.CutPrefix(rest, "W/")
		end := tagEnd(opaque)
		if end < 0 {
			return tags{}, false
		}
		if isWeak {
			t.weak = append(t.weak, opaque[:end])
		} else {
			t.strong = append(t.strong, opaque[:end])
		}
		rest = strings.TrimLeft(opaque[end:], " \t")
		if rest != "" && rest[0] != ',' {
			return tags{}, false
		}
	}
}

// tagEnd is the length of the quoted tag that s begins with, or -1.
func tagEnd(s string) int {
	if s == "" || s[0] != '"' {
		return -1
	}
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return i + 1
		case c < '!' || c == 0x7f:
			return -1
		}
	}
	return -1
}

// revision is what etag made tag of, and false for a tag of nobody's.
func revision(tag string) (domain.Revision, bool) {
	n, err := strconv.ParseUint(strings.Trim(tag, `"`), 10, 63)
	r := domain.Revision(n)
	return r, err == nil && etag(r) == tag
}

// precondition returns the revisions of which one has to be the object's, or nil
// when any will do, and those of which none may be (RFC 9110, section 13.1).
func precondition(r *http.Request) (match, noneMatch []domain.Revision, err error) {
	var wrong []domain.Detail
	read := func(name string) (t tags, given bool) {
		lines, given := r.Header[name]
		if !given {
			return t, false
		}
		t, ok := parseTags(lines)
		if !ok {
			wrong = append(wrong, domain.Detail{Field: name, Message: `must be "*" or a list of entity tags such as "3"`})
		}
		return t, ok
	}
	// For If-Match: * nothing has to be looked at. An object that does not exist is not
	// found, which says more than that it does not match.
	if t, given := read("If-Match"); given && !t.any {
		// Weak tags and foreign ones match nothing, so what is left may be empty,
		// which is not nil.
		match = revisions(t.strong)
	}
	if t, given := read("If-None-Match"); given {
		noneMatch = append(revisions(t.strong), revisions(t.weak)...)
		if t.any {
			match = []domain.Revision{} // so that no object will do
		}
	}
	if len(wrong) > 0 {
		return nil, nil, invalid(wrong...)
	}
	return match, noneMatch, nil
}

// revisions are what the tags stand for, without those that are nobody's. It is
// never nil.
func revisions(tags []string) []domain.Revision {
	all := []domain.Revision{}
	for _, tag := range tags {
		if r, ok := revision(tag); ok {
			all = append(all, r)
		}
	}
	return all
}

// unchanged reports whether the client has the object as it is (RFC 9110, section
// 13.1.2). A header that cannot be read is not heeded: the answer is then merely
// longer.
func unchanged(r *http.Request, tag string) bool {
	lines, ok := r.Header["If-None-Match"]
	if !ok {
		return false
	}
	t, ok := parseTags(lines)
	return ok && (t.any || slices.Contains(t.strong, tag) || slices.Contains(t.weak, tag))
}
