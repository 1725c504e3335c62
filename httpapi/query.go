package httpapi

import (
	"maps"
	"net/http"
	"net/url"
	"slices"

	"github.com/lotline/lotline/domain"
)

// parseQuery reads the query parameters. It refuses a query that it cannot read. URL.Query
// would silently drop the unreadable parameters.
func parseQuery(r *http.Request) (url.Values, error) {
	given, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, invalid(domain.Detail{Field: "query", Message: "cannot be read: " + err.Error()})
	}
	return given, nil
}

// unknownParameters returns a detail for each given parameter that is not known.
func unknownParameters(given url.Values, known []parameter) []domain.Detail {
	var wrong []domain.Detail
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.ContainsFunc(known, func(p parameter) bool { return p.name == name }) {
			wrong = append(wrong, domain.Detail{Field: name, Message: "is not a parameter of this request"})
		}
	}
	return wrong
}

// noQuery makes a call refuse all query parameters. If it ignored a parameter, the answer
// would not be the one that the client asked for.
func noQuery(h handler) handler {
	return func(x *exchange, r *http.Request) error {
		if r.URL.RawQuery == "" {
			return h(x, r)
		}
		given, err := parseQuery(r)
		if err != nil {
			return err
		}
		if wrong := unknownParameters(given, nil); len(wrong) > 0 {
			return invalid(wrong...)
		}
		return h(x, r)
	}
}
