package httpapi

import (
	"net/http"
	"slices"

	"github.com/lotline/lotline/domain"
)

// kindAPI is what one kind of distribution adds to the calls that every kind has.
type kindAPI struct {
	// participants are the calls about the consumers who take part.
	participants []participantCall
	// steps are the steps of the lifecycle that only this kind has.
	steps []stepCall
	// paths are all other calls, by what follows the path of the distribution.
	paths map[string]func(s *server) methods
	// refusals are the answers for refusals that only this kind gives.
	refusals map[domain.Code]answer
}

// kinds maps each kind to the calls and refusals that it adds. To add a kind, write its
// kindAPI in a file of its own and list it here.
var kinds = map[domain.Kind]kindAPI{
	domain.KindQueue:   queueAPI,
	domain.KindDraw:    drawAPI,
	domain.KindAuction: auctionAPI,
}

// stepCall is a call that moves a distribution to its next status by hand.
type stepCall struct {
	name string // the last segment of the path
	to   domain.Status
}

// commonSteps are the steps that every kind has.
var commonSteps = []stepCall{{"open", domain.StatusOpen}, {"close", domain.StatusClosed}}

// handleParticipants serves the calls about the participants of a kind.
func (s *server) handleParticipants(k domain.Kind) {
	for _, c := range kinds[k].participants {
		s.handle(basePath+collections[k]+"/{id}"+c.path, s.participantMethods(k, c))
	}
}

// handleSteps serves the steps of the lifecycle and the other calls of a kind.
func (s *server) handleSteps(k domain.Kind) {
	path := basePath + collections[k] + "/{id}"
	for _, c := range append(slices.Clone(commonSteps), kinds[k].steps...) {
		s.handle(path+"/"+c.name, methods{http.MethodPost: s.secret(noQuery(s.step(k, c.to)))})
	}
	for suffix, m := range kinds[k].paths {
		s.handle(path+suffix, m(s))
	}
}
