package httpapi

import (
	"errors"
	"net/http"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
)

// queueAPI is what queues add to the calls that every kind has.
var queueAPI = kindAPI{participants: queueCalls, refusals: queueRefusals}

// queueCalls are the calls about the consumers in a queue.
var queueCalls = []participantCall{
	{method: http.MethodGet, path: "/status", level: byConsumer, query: participationStatus},
	{method: http.MethodPost, path: "/enter", level: byConsumer, command: forConsumer(enter), answer: oneParticipation},
	{method: http.MethodPost, path: "/leave", level: byConsumer, command: forConsumer(leave), answer: oneParticipation},
	{method: http.MethodPost, path: "/admit", level: bySecretKey, command: fromBody(domain.ReadAdmit), answer: eachParticipation},
	{method: http.MethodPost, path: "/complete", level: bySecretKey, command: fromBody(domain.ReadComplete), answer: oneParticipation},
	{method: http.MethodPost, path: "/deny", level: bySecretKey, command: fromBody(domain.ReadDeny), answer: oneParticipation},
	{method: http.MethodGet, path: "/stats", level: bySecretKey, query: queueStats},
	{method: http.MethodPost, path: "/validate", level: bySecretKey, query: validateToken(tokens.Admission, "The consumer is not admitted any more")},
}

func enter(consumer string) domain.Command { return domain.Enter{ConsumerID: consumer} }

func leave(consumer string) domain.Command { return domain.Leave{ConsumerID: consumer} }

// queueRefusals are the answers for refusals that only calls about queues give.
var queueRefusals = map[domain.Code]answer{
	domain.NotIn(domain.KindQueue):      {status: http.StatusNotFound},
	domain.TooLate(domain.KindQueue):    {status: http.StatusBadRequest},
	domain.NotOpenYet(domain.KindQueue): {status: http.StatusLocked},
	domain.Full(domain.KindQueue):       {status: http.StatusTooManyRequests},
}

// stats counts the entries of a queue by their status.
type stats struct {
	QueueID domain.ID     `json:"queueId"`
	Status  domain.Status `json:"status"`
	domain.Tally
	AdmissionRate domain.Count `json:"admissionRate"`
}

// queueStats answers with the number of entries in each status. It does not load the
// participants, so it is as fast for a queue that has ended as for any other.
func queueStats(s *server, x *exchange, r *http.Request, k domain.Kind) error {
	row, err := s.row(x, r, k)
	if err != nil {
		return err
	}
	q, ok := row.Distribution.(*domain.Queue)
	if !ok {
		return errors.New("the distribution with a queue's id is not a queue")
	}
	x.jsonUnlessUnchanged(r, participationETag(row.Head.Revision), func() []byte {
		return encode(stats{q.ID, q.Status, q.Counts(), q.AdmissionRate})
	})
	return nil
}
