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
	s.handle(one+"/enter", s.consumer(methods{http.MethodPost: noQuery(s.act(func(consumer string) domain.Command {
		return domain.Enter{ConsumerID: consumer}
	}))}))
	s.handle(one+"/leave", s.consumer(methods{http.MethodPost: noQuery(s.act(func(consumer string) domain.Command {
		return domain.Leave{ConsumerID: consumer}
	}))}))
	s.handle(one+"/admit", methods{http.MethodPost: s.secret(noQuery(s.admitConsumers))})
	s.handle(one+"/complete", methods{http.MethodPost: s.secret(noQuery(s.treat(nil, func(_ *params, consumer string) domain.Command {
		return domain.Complete{ConsumerID: consumer}
	})))})
	s.handle(one+"/deny", methods{http.MethodPost: s.secret(noQuery(s.treat([]string{"reason"}, func(p *params, consumer string) domain.Command {
		return domain.Deny{ConsumerID: consumer, Reason: p.reason("reason")}
	})))})
	s.handle(one+"/stats", methods{http.MethodGet: s.secret(noQuery(s.queueStats))})
	s.handle(one+"/validate", methods{http.MethodPost: s.secret(noQuery(s.validate))})
}

// act is what consumers do themselves.
func (s *server) act(command func(consumer string) domain.Command) handler {
	return func(x *exchange, r *http.Request) error {
		id, err := pathID(r, domain.KindQueue)
		if err != nil {
			return err
		}
		key, err := idempotencyKey(x, r)
		if err != nil {
			return err
		}
		b, err := readNothing(x, r)
		if err != nil {
			return err
		}
		result, err := s.run(x, r, commands.Request{Stream: id.Stream(), Command: command(x.consumer), Key: commandKey(key, b)})
		if err != nil {
			return err
		}
		return s.stands(x, r, result)
	}
}

// treat is what is done to a consumer. The command takes further members of the
// body, which are named.
func (s *server) treat(further []string, command func(p *params, consumer string) domain.Command) handler {
	names := append([]string{"consumerId"}, further...)
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
		c := command(p, p.consumer())
		if err := p.refusal(names...); err != nil {
			return err
		}
		result, err := s.run(x, r, commands.Request{Stream: id.Stream(), Command: c, Key: key})
		if err != nil {
			return err
		}
		return s.stands(x, r, result)
	}
}

// admitConsumers admits by hand: one out of turn, or the next ones.
func (s *server) admitConsumers(x *exchange, r *http.Request) error {
	id, err := pathID(r, domain.KindQueue)
	if err != nil {
		return err
	}
	fields, key, err := readRepeatable(x, r)
	if err != nil {
		return err
	}
	p := &params{fields: fields}
	var c domain.Admit
	_, named := fields["consumerId"]
	_, counted := fields["count"]
	if named {
		c.ConsumerID = p.consumer()
	}
	if counted {
		c.Count = p.count("count", domain.MaxAdmit)
	}
	if named == counted {
		p.blame("count", "must be given, or consumerId, and not both")
	}
	if err := p.refusal("consumerId", "count"); err != nil {
		return err
	}
	result, err := s.run(x, r, commands.Request{Stream: id.Stream(), Command: c, Key: key})
	if err != nil {
		return err
	}
	out := []byte(`{"data":[`)
	for i := range result.Consumers {
		if i > 0 {
			out = append(out, ',')
		}
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
