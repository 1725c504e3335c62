package httpapi

import (
	"errors"
	"net/http"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// handleQueues puts what happens in a queue under its path.
func (s *server) handleQueues() {
	one := basePath + collections[domain.KindQueue] + "/{id}"
	s.handle(one+"/status", s.consumer(methods{http.MethodGet: noQuery(s.queueStatus)}))
	s.handle(one+"/enter", s.consumer(methods{http.MethodPost: noQuery(s.bodiless(domain.KindQueue, func(x *exchange) domain.Command {
		return domain.Enter{ConsumerID: x.consumer}
	}, s.stands))}))
	s.handle(one+"/leave", s.consumer(methods{http.MethodPost: noQuery(s.bodiless(domain.KindQueue, func(x *exchange) domain.Command {
		return domain.Leave{ConsumerID: x.consumer}
	}, s.stands))}))
	s.handle(one+"/admit", methods{http.MethodPost: s.secret(noQuery(s.treat(admit, s.allStand, "consumerId", "count")))})
	s.handle(one+"/complete", methods{http.MethodPost: s.secret(noQuery(s.treat(func(p *params) domain.Command {
		return domain.Complete{ConsumerID: p.consumer()}
	}, s.stands, "consumerId")))})
	s.handle(one+"/deny", methods{http.MethodPost: s.secret(noQuery(s.treat(func(p *params) domain.Command {
		return domain.Deny{ConsumerID: p.consumer(), Reason: p.reason("reason")}
	}, s.stands, "consumerId", "reason")))})
	s.handle(one+"/stats", methods{http.MethodGet: s.secret(noQuery(s.queueStats))})
	s.handle(one+"/validate", methods{http.MethodPost: s.secret(noQuery(s.validate))})
}

// treat is what is done to consumers. The command is read from a body that may have
// the members that are named.
func (s *server) treat(command func(p *params) domain.Command, answer answering, members ...string) handler {
	return func(x *exchange, r *http.Request) error {
		id, err := pathID(r, domain.KindQueue)
		if err != nil {
			return err
		}
		fields, key, err := readRepeatable(x, r)
		if err != nil {
			return err
		}
		p := &params{fields: fields}
		c := command(p)
		if err := p.refusal(members...); err != nil {
			return err
		}
		result, err := s.run(x, r, commands.Request{Stream: id.Stream(), Command: c, Key: key})
		if err != nil {
			return err
		}
		return answer(x, r, result)
	}
}

// admit is to admit by hand: one out of turn, or the next ones.
func admit(p *params) domain.Command {
	var c domain.Admit
	_, named := p.fields["consumerId"]
	_, counted := p.fields["count"]
	if named {
		c.ConsumerID = p.consumer()
	}
	if counted {
		c.Count = p.count("count", domain.MaxAdmit)
	}
	if named == counted {
		p.blame("count", "must be given, or consumerId, and not both")
	}
	return c
}

// allStand answers with where all stand whom a command was about.
func (s *server) allStand(x *exchange, r *http.Request, result commands.Result) error {
	out := []byte(`{"data":[`)
	for i := range result.Consumers {
		if i > 0 {
			out = append(out, ',')
		}
		var err error
		if out, err = s.appendParticipation(out, x.organization.ID, &result.Consumers[i]); err != nil {
			return err
		}
	}
	s.participation(x, r, result.Replayed, append(out, "]}"...))
	return nil
}

// stands answers with where the consumer stands whom a command was about.
func (s *server) stands(x *exchange, r *http.Request, result commands.Result) error {
	if len(result.Consumers) != 1 {
		return errors.New("a command about a consumer left none behind")
	}
	out, err := s.appendParticipation(nil, x.organization.ID, &result.Consumers[0])
	if err != nil {
		return err
	}
	s.participation(x, r, result.Replayed, out)
	return nil
}

// participation answers with what is for one consumer, and for now.
func (s *server) participation(x *exchange, r *http.Request, replayed bool, body []byte) {
	if replayed {
		x.set("Idempotent-Replayed", "true")
	}
	x.json(r, http.StatusOK, typeJSON, body)
}

// appendParticipation appends where a consumer stands. Who is admitted gets a token
// that shows it; it is made of the event that admitted him, the same each time.
func (s *server) appendParticipation(dst []byte, organization domain.ID, p *domain.Participation) ([]byte, error) {
	var token string
	if p.Standing == domain.StandingAdmitted {
		var err error
		if token, err = s.tokens.Sign(admissionClaims(organization, p)); err != nil {
			return nil, err
		}
	}
	return p.AppendJSON(dst, token), nil
}

func admissionClaims(organization domain.ID, p *domain.Participation) tokens.Claims {
	event := "evt_" + domain.Base32(p.Admission)
	return tokens.NewGrant(tokens.Admission, event, organization, p.QueueID, p.ConsumerID, p.AdmittedAt, p.ExpiresAt)
}

// queueStatus shows where the consumer stands who asks.
func (s *server) queueStatus(x *exchange, r *http.Request) error {
	q, err := s.queue(x, r)
	if err != nil {
		return err
	}
	p, ok := q.Participation(x.consumer)
	if !ok {
		return domain.Refuse(domain.ConsumerNotInQueue, "")
	}
	out, err := s.appendParticipation(nil, x.organization.ID, &p)
	if err != nil {
		return err
	}
	s.participation(x, r, false, out)
	return nil
}

// queue is the queue in the path, with its participants.
func (s *server) queue(x *exchange, r *http.Request) (*domain.Queue, error) {
	id, err := pathID(r, domain.KindQueue)
	if err != nil {
		return nil, err
	}
	if err := s.awaitWrites(x, r); err != nil {
		return nil, err
	}
	q, err := s.Views.Queue(r.Context(), x.organization.ID, id)
	if errors.Is(err, projections.ErrNotFound) {
		return nil, domain.Refuse(domain.NotFound(domain.KindQueue), "")
	}
	return q, err
}

// stats are how many stand where in a queue.
type stats struct {
	QueueID domain.ID     `json:"queueId"`
	Status  domain.Status `json:"status"`
	domain.Tally
	AdmissionRate domain.Count `json:"admissionRate"`
}

// queueStats counts the entries of a queue by where they stand. It needs to know
// nobody's name, so that a queue that is over is no slower than another.
func (s *server) queueStats(x *exchange, r *http.Request) error {
	row, err := s.row(x, r, domain.KindQueue)
	if err != nil {
		return err
	}
	q, ok := row.Distribution.(*domain.Queue)
	if !ok {
		return errors.New("what has a queue's id is no queue")
	}
	x.version(r, participationETag(row.Head.Revision), func() []byte {
		return encode(stats{q.ID, q.Status, q.Counts(), q.AdmissionRate})
	})
	return nil
}

// verdict is what there is to say of an admission token.
type verdict struct {
	Valid bool   `json:"valid"`
	Error string `json:"error,omitempty"`
}

// Why an admission token is not valid.
const (
	tokenInvalid    = "The token is not valid"
	tokenExpired    = "The token has expired"
	tokenOtherUse   = "The token is for another use"
	tokenOtherQueue = "The token is for another queue"
	tokenOtherOwner = "The token is another consumer's"
	tokenNotLive    = "The consumer is not admitted any more"
)

// validate tells whether an admission token shows that a consumer is admitted now.
func (s *server) validate(x *exchange, r *http.Request) error {
	fields, _, err := readFields(x, r)
	if err != nil {
		return err
	}
	p := &params{fields: fields}
	consumer, token := p.consumer(), p.text("token")
	if err := p.refusal("consumerId", "token"); err != nil {
		return err
	}
	q, err := s.queue(x, r)
	if err != nil {
		return err
	}
	c, err := s.tokens.Verify(token, tokens.Admission, domain.InstantOf(x.started))
	v := verdict{}
	live, entered := q.Participation(consumer)
	switch {
	case errors.Is(err, tokens.ErrExpired):
		v.Error = tokenExpired
	case errors.Is(err, tokens.ErrUse):
		v.Error = tokenOtherUse
	case errors.Is(err, tokens.ErrInvalid), err == nil && c.Organization != x.organization.ID:
		v.Error = tokenInvalid
	case err != nil:
		return err
	case c.Distribution != q.ID:
		v.Error = tokenOtherQueue
	case c.Consumer != consumer:
		v.Error = tokenOtherOwner
	case !entered || live.Standing != domain.StandingAdmitted || admissionClaims(x.organization.ID, &live).EventID != c.EventID:
		v.Error = tokenNotLive
	default:
		v.Valid = true
	}
	x.json(r, http.StatusOK, typeJSON, encode(v))
	return nil
}
