package httpapi

import "github.com/lotline/lotline/domain"

// participantCalls are the calls about the participants of each kind.
var participantCalls = map[domain.Kind][]participantCall{
	domain.KindQueue: queueCalls,
}

// kindRefusals are the refusals that only calls about one kind give.
var kindRefusals = map[domain.Kind]map[domain.Code]answer{
	domain.KindQueue: queueRefusals,
}
