package httpapi

import (
	"net/http"
	"strconv"
	"strings"
)

const (
	mediaJSON    = "application/json"
	mediaProblem = "application/problem+json"
	mediaLines   = "application/x-ndjson"
)

// acceptsJSON reports whether one of the two types that we answer in is
// acceptable.
func acceptsJSON(r *http.Request) bool {
	accept := r.Header["Accept"]
	if len(accept) == 0 || len(accept) == 1 && (accept[0] == "" || accept[0] == "*/*" || accept[0] == mediaJSON) {
		return true
	}
	return quality(accept, mediaJSON) > 0 || quality(accept, mediaProblem) > 0
}

// wantsProblem reports whether application/problem+json was asked for.
func wantsProblem(r *http.Request) bool { return names(r, mediaProblem) }

// wantsLines reports whether lines of JSON were asked for, and one JSON text is
// not more welcome.
func wantsLines(r *http.Request) bool {
	accept := r.Header["Accept"]
	return names(r, mediaLines) && quality(accept, mediaLines) >= quality(accept, mediaJSON)
}

// names reports whether a media type was asked for by name. A wildcard does not
// ask for it.
func names(r *http.Request, media string) bool {
	for _, header := range r.Header["Accept"] {
		for item := range strings.SplitSeq(header, ",") {
			if pattern, q := mediaRange(item); pattern == media && q > 0 {
				return true
			}
		}
	}
	return false
}

// quality is how welcome a media type is, from 0 to 1 (RFC 9110, section
// 12.5.1): what the most specific range says that includes it.
func quality(accept []string, media string) float64 {
	best, found := 0.0, 0
	for _, header := range accept {
		for item := range strings.SplitSeq(header, ",") {
			pattern, q := mediaRange(item)
			specific := 0
			switch pattern {
			case media:
				specific = 3
			case "application/*":
				specific = 2
			case "*/*":
				specific = 1
			}
			if specific > found || specific == found && specific > 0 && q > best {
				best, found = q, specific
			}
		}
	}
	return best
}

// mediaRange splits one element of an Accept header into its range and its
// weight. Parameters beside the weight do not matter to us.
func mediaRange(item string) (string, float64) {
	pattern, parameters, _ := strings.Cut(item, ";")
	q := 1.0
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(name, "q") {
			continue
		}
		weight, err := strconv.ParseFloat(value, 64)
		if err != nil || weight < 0 || weight > 1 {
			weight = 0
		}
		q = weight
	}
	return strings.ToLower(strings.TrimSpace(pattern)), q
}
