package httpapi

import (
	"net/http"

	"github.com/lotline/lotline/domain"
)

// drawAPI is what draws add to the calls that every kind has.
var drawAPI = kindAPI{
	steps: []stepCall{{"draw", domain.StatusDrawn}},
	paths: map[string]func(s *server) methods{
		"/entropy": func(s *server) methods { return methods{http.MethodPut: s.secret(noQuery(s.supplyEntropy))} },
	},
}

// supplyEntropy records the entropy that a draw's source published.
func (s *server) supplyEntropy(x *exchange, r *http.Request) error {
	return s.runFields(x, r, domain.KindDraw, func(f domain.Fields) domain.Command { return domain.SupplyEntropy{Fields: f} })
}
