package httpapi

import (
	"errors"
	"net/http"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// participantCall is a call about the participants of a distribution. Each kind has a
// table of its calls. A call either carries out a command or answers a query. A command
// call has command, which reads the request, and answer, which writes the result. A query
// call has only query, and changes nothing.
type participantCall struct {
	method string
	path   string // what follows the path of the distribution
	level  callerLevel

	command commandReader
	answer  resultWriter

	query participantQuery // nil for a command
}

// callerLevel is the credential that a call requires. The zero value is the strictest.
type callerLevel int

const (
	bySecretKey callerLevel = iota
	byConsumer              // a consumer's token, or a secret key that acts for a consumer
)

// participantQuery answers a query about a distribution of the given kind.
type participantQuery func(s *server, x *exchange, r *http.Request, k domain.Kind) error

// participantMethods returns the handlers of a call about the participants of a kind,
// which check the caller's credential.
func (s *server) participantMethods(k domain.Kind, c participantCall) methods {
	h := s.carryOut(k, c.command, c.answer)
	if c.query != nil {
		h = func(x *exchange, r *http.Request) error { return c.query(s, x, r, k) }
	}
	h = noQuery(h)
	switch c.level {
	case byConsumer:
		return s.consumer(methods{c.method: h})
	case bySecretKey:
		return methods{c.method: s.secret(h)}
	}
	panic("a call of an unknown caller level")
}

// fromBody reads a command from the body of a request.
func fromBody(read func(domain.Fields) (domain.Command, error)) commandReader {
	return func(x *exchange, r *http.Request) (domain.Command, commands.IdempotencyKey, error) {
		fields, key, err := readRepeatable(x, r)
		if err != nil {
			return nil, commands.IdempotencyKey{}, err
		}
		c, err := read(fields)
		return c, key, err
	}
}

// forConsumer reads a request without a body. command makes the command from the id of
// the consumer who acts.
func forConsumer(command func(consumer string) domain.Command) commandReader {
	return withoutBody(func(x *exchange) domain.Command { return command(x.consumer) })
}

// eachParticipation answers a command with the participation of every consumer that the
// command was about.
func eachParticipation(s *server, x *exchange, r *http.Request, result commands.Result) error {
	out := []byte(`{"data":[`)
	for i, p := range result.Participations {
		if i > 0 {
			out = append(out, ',')
		}
		var err error
		if out, err = s.appendParticipation(out, x.organization.ID, p); err != nil {
			return err
		}
	}
	x.sendParticipation(r, result.Replayed, append(out, "]}"...))
	return nil
}

// oneParticipation answers a command with the participation of the one consumer that the
// command was about.
func oneParticipation(s *server, x *exchange, r *http.Request, result commands.Result) error {
	if len(result.Participations) != 1 {
		return errors.New("a command about a consumer has no participation as its result")
	}
	out, err := s.appendParticipation(nil, x.organization.ID, result.Participations[0])
	if err != nil {
		return err
	}
	x.sendParticipation(r, result.Replayed, out)
	return nil
}

// sendParticipation answers with one or several participations, already encoded as JSON.
func (x *exchange) sendParticipation(r *http.Request, replayed bool, body []byte) {
	if replayed {
		x.set("Idempotent-Replayed", "true")
	}
	x.json(r, http.StatusOK, typeJSON, body)
}

// appendParticipation appends a participation as its consumer sees it. If the consumer has
// a grant, such as an admission, the JSON includes a token that proves it. The token
// depends only on the event that gave the grant, so it is the same in every answer.
func (s *server) appendParticipation(dst []byte, organization domain.ID, p domain.Participation) ([]byte, error) {
	var v domain.View
	if g, ok := p.Grant(); ok {
		var err error
		if v.Token, err = s.tokens.Sign(tokens.NewGrant(organization, g)); err != nil {
			return nil, err
		}
	}
	return p.AppendJSON(dst, v), nil
}

// participationStatus answers with the participation of the consumer who acts.
func participationStatus(s *server, x *exchange, r *http.Request, k domain.Kind) error {
	d, err := s.participants(x, r, k)
	if err != nil {
		return err
	}
	p, ok := d.Participation(x.consumer)
	if !ok {
		return domain.Refuse(domain.NotIn(k), "")
	}
	out, err := s.appendParticipation(nil, x.organization.ID, p)
	if err != nil {
		return err
	}
	x.sendParticipation(r, false, out)
	return nil
}

// participants returns the distribution that the path names, with its participants.
func (s *server) participants(x *exchange, r *http.Request, k domain.Kind) (domain.Distribution, error) {
	id, err := pathID(r, k)
	if err != nil {
		return nil, err
	}
	if err := s.awaitWrites(x, r); err != nil {
		return nil, err
	}
	d, err := s.Views.Participants(r.Context(), x.organization.ID, id)
	if errors.Is(err, projections.ErrNotFound) {
		return nil, domain.Refuse(domain.NotFound(k), "")
	}
	return d, err
}
