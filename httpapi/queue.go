package httpapi

import (
	"errors"
	"net/http"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
)

// queueCalls are the calls about the consumers of a queue.
var queueCalls = []participantCall{
	{method: http.MethodGet, path: "/status", level: byConsumer, query: participationStatus},
	{method: http.MethodPost, path: "/enter", level: byConsumer, command: forConsumer(func(c string) domain.Command { return domain.Enter{ConsumerID: c} }), answer: oneParticipation},
	{method: http.MethodPost, path: "/leave", level: byConsumer, command: forConsumer(func(c string) domain.Command { return domain.Leave{ConsumerID: c} }), answer: oneParticipation},
	{method: http.MethodPost, path: "/admit", level: bySecretKey, command: fromBody(domain.ReadAdmit), answer: eachParticipation},
	{method: http.MethodPost, path: "/complete", level: bySecretKey, command: fromBody(domain.ReadComplete), answer: oneParticipation},
	{method: http.MethodPost, path: "/deny", level: bySecretKey, command: fromBody(domain.ReadDeny), answer: oneParticipation},
	{method: http.MethodGet, path: "/stats", level: bySecretKey, query: queueStats},
	{method: http.MethodPost, path: "/validate", level: bySecretKey, query: validateToken(tokens.Admission, "The consumer is not admitted any more")},
}

// queueRefusals are the refusals that only calls about queues give.
var queueRefusals = map[domain.Code]answer{
	domain.NotIn(domain.KindQueue):      {status: http.StatusNotFound},
	domain.TooLate(domain.KindQueue):    {status: http.StatusBadRequest},
	domain.NotOpenYet(domain.KindQueue): {status: http.StatusLocked},
	domain.Full(domain.KindQueue):       {status: http.StatusTooManyRequests},
}

// stats are how many entries of a queue have each status.
type stats struct {
	QueueID domain.ID     `json:"queueId"`
	Status  domain.Status `json:"status"`
	domain.Tally
	AdmissionRate domain.Count `json:"admissionRate"`
}

// queueStats counts the entries of a queue by their status. It needs no participants,
// so a queue that is over is no slower than another.
func queueStats(s *server, x *exchange, r *http.Request, k domain.Kind) error {
	row, err := s.row(x, r, k)
	if err != nil {
		return err
	}
	q, ok := row.Distribution.(*domain.Queue)
	if !ok {
		return errors.New("the distribution with a queue's id is no queue")
	}
	x.version(r, participationETag(row.Head.Revision), func() []byte {
		return encode(stats{q.ID, q.Status, q.Counts(), q.AdmissionRate})
	})
	return nil
}
