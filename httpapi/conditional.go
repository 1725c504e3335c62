package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/lotline/lotline/domain"
)

// etag returns the entity tag of an object that last changed at the given revision.
func etag(changed domain.Revision) string {
	return `"` + strconv.FormatInt(int64(changed), 10) + `"`
}

// participationETag returns the entity tag of a view that includes participation, such
// as a number of entries. Such a view changes with every event of its stream, and end is
// the revision of the stream's last event. The tag differs from every tag of etag, so it
// never matches in If-Match.
func participationETag(end domain.Revision) string {
	return `"p` + strconv.FormatInt(int64(end), 10) + `"`
}

// tags are the entity tags of an If-Match or If-None-Match header.
type tags struct {
	any          bool     // "*"
	strong, weak []string // with their quotes
}

// parseTags reads the lines of an If-Match or If-None-Match header (RFC 9110, section
// 13.1). It returns false if they are not well formed.
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

// tagEnd returns the length of the quoted tag at the beginning of s, or -1 if there is none.
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

// revision returns the revision that etag made tag from. It returns false for a tag that
// etag did not make.
func revision(tag string) (domain.Revision, bool) {
	n, err := strconv.ParseUint(strings.Trim(tag, `"`), 10, 63)
	r := domain.Revision(n)
	return r, err == nil && etag(r) == tag
}

// precondition reads If-Match and If-None-Match (RFC 9110, section 13.1). The object's
// revision must be one of match, unless match is nil, and must not be one of noneMatch.
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
	// If-Match: * needs no check here. For an object that does not exist, 404 says more
	// than 412 would.
	if t, given := read("If-Match"); given && !t.any {
		// Weak tags and tags that are not ours match nothing. The remaining list may be
		// empty, but is not nil: then no revision matches.
		match = revisions(t.strong)
	}
	if t, given := read("If-None-Match"); given {
		noneMatch = append(revisions(t.strong), revisions(t.weak)...)
		if t.any {
			match = []domain.Revision{} // no object matches
		}
	}
	if len(wrong) > 0 {
		return nil, nil, invalid(wrong...)
	}
	return match, noneMatch, nil
}

// revisions returns the revisions that etag made the tags from. It skips tags that etag
// did not make. The result is never nil.
func revisions(tags []string) []domain.Revision {
	all := []domain.Revision{}
	for _, tag := range tags {
		if r, ok := revision(tag); ok {
			all = append(all, r)
		}
	}
	return all
}

// unchanged reports whether the client already has the version of an object with the
// given tag (RFC 9110, section 13.1.2). It ignores a malformed If-None-Match header: the
// client then merely gets the object again.
func unchanged(r *http.Request, tag string) bool {
	lines, ok := r.Header["If-None-Match"]
	if !ok {
		return false
	}
	t, ok := parseTags(lines)
	return ok && (t.any || slices.Contains(t.strong, tag) || slices.Contains(t.weak, tag))
}
