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

// acceptsJSON reports whether the client accepts application/json or
// application/problem+json. Every call can answer in these two.
func acceptsJSON(r *http.Request) bool {
	accept := r.Header["Accept"]
	if len(accept) == 0 || len(accept) == 1 && (accept[0] == "" || accept[0] == "*/*" || accept[0] == mediaJSON) {
		return true
	}
	return quality(accept, mediaJSON) > 0 || quality(accept, mediaProblem) > 0
}

// wantsProblem reports whether the client asks for application/problem+json by name.
func wantsProblem(r *http.Request) bool { return asksFor(r, mediaProblem) }

// wantsLines reports whether the client asks for lines of JSON by name, and does not
// prefer a single JSON text.
func wantsLines(r *http.Request) bool {
	accept := r.Header["Accept"]
	return asksFor(r, mediaLines) && quality(accept, mediaLines) >= quality(accept, mediaJSON)
}

// asksFor reports whether the Accept header names a media type. A wildcard does not
// name it.
func asksFor(r *http.Request, media string) bool {
	for _, header := range r.Header["Accept"] {
		for item := range strings.SplitSeq(header, ",") {
			if pattern, q := mediaRange(item); pattern == media && q > 0 {
				return true
			}
		}
	}
	return false
}

// quality returns the weight that an Accept header gives to a media type, from 0 to 1
// (RFC 9110, section 12.5.1). Of all ranges that include the type, the most specific
// one counts.
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
// weight. It ignores all other parameters.
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
