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
// table of them. A call either carries out a command, and then answer shows the
// result, or it is a query, which changes nothing.
type participantCall struct {
	method string
	path   string // behind the path of the distribution
	level  callerLevel

	command commandReader
	answer  answering

	query participantQuery // nil for a command
}

// callerLevel says who may make a call.
type callerLevel int

const (
	bySecretKey callerLevel = iota
	byConsumer              // or by a secret key that acts for a consumer
)

// participantQuery answers a query about a distribution of a kind.
type participantQuery func(s *server, x *exchange, r *http.Request, k domain.Kind) error

// handleParticipants serves the calls about the participants of a kind.
func (s *server) handleParticipants(k domain.Kind, calls []participantCall) {
	for _, c := range calls {
		h := s.carryOut(k, c.command, c.answer)
		if c.query != nil {
			h = func(x *exchange, r *http.Request) error { return c.query(s, x, r, k) }
		}
		h = noQuery(h)
		m := methods{c.method: h}
		switch c.level {
		case byConsumer:
			m = s.consumer(m)
		case bySecretKey:
			m[c.method] = s.secret(h)
		}
		s.handle(basePath+collections[k]+"/{id}"+c.path, m)
	}
}

// fromBody reads a command from the body.
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

// forConsumer makes the command of the consumer who acts. The request has no body.
func forConsumer(command func(consumer string) domain.Command) commandReader {
	return withoutBody(func(x *exchange) domain.Command { return command(x.consumer) })
}

// eachParticipation shows the participation of every consumer whom a command was
// about.
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
	x.participation(r, result.Replayed, append(out, "]}"...))
	return nil
}

// oneParticipation shows the participation of the consumer whom a command was about.
func oneParticipation(s *server, x *exchange, r *http.Request, result commands.Result) error {
	if len(result.Participations) != 1 {
		return errors.New("a command about a consumer has no participation as its result")
	}
	out, err := s.appendParticipation(nil, x.organization.ID, result.Participations[0])
	if err != nil {
		return err
	}
	x.participation(r, result.Replayed, out)
	return nil
}

// participation answers with participations in JSON.
func (x *exchange) participation(r *http.Request, replayed bool, body []byte) {
	if replayed {
		x.set("Idempotent-Replayed", "true")
	}
	x.json(r, http.StatusOK, typeJSON, body)
}

// appendParticipation appends a participation as its owner sees it. A consumer who has
// a grant gets the token that shows it. The token is made of the event that gave the
// grant, so it is the same each time.
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

// participationStatus shows the participation of the consumer who asks.
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
	x.participation(r, false, out)
	return nil
}

// participants is the distribution in the path, with its participants.
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

// validity tells whether a token is good.
type validity struct {
	Valid bool   `json:"valid"`
	Error string `json:"error,omitempty"`
}

// Why a token is not valid. Each kind has words of its own for a grant that has ended.
const (
	tokenInvalid    = "The token is not valid"
	tokenExpired    = "The token has expired"
	tokenOtherUse   = "The token is for another use"
	tokenOtherOwner = "The token is another consumer's"
)

func tokenElsewhere(k domain.Kind) string { return "The token is for another " + string(k) }

// validateToken tells whether a token shows a grant that its consumer has now. The
// text notLive says that the consumer has it no more.
func validateToken(use tokens.Use, notLive string) participantQuery {
	return func(s *server, x *exchange, r *http.Request, k domain.Kind) error {
		fields, _, err := readFields(x, r)
		if err != nil {
			return err
		}
		given, err := domain.ReadShownToken(fields)
		if err != nil {
			return err
		}
		d, err := s.participants(x, r, k)
		if err != nil {
			return err
		}
		v := validity{}
		c, err := s.tokens.Verify(given.Token, use, domain.InstantOf(x.started))
		switch {
		case errors.Is(err, tokens.ErrExpired):
			v.Error = tokenExpired
		case errors.Is(err, tokens.ErrUse):
			v.Error = tokenOtherUse
		case errors.Is(err, tokens.ErrInvalid), err == nil && c.Organization != x.organization.ID:
			v.Error = tokenInvalid
		case err != nil:
			return err
		case c.Distribution != d.Shared().ID:
			v.Error = tokenElsewhere(k)
		case c.Consumer != given.ConsumerID:
			v.Error = tokenOtherOwner
		case !isLive(d, c):
			v.Error = notLive
		default:
			v.Valid = true
		}
		x.json(r, http.StatusOK, typeJSON, encode(v))
		return nil
	}
}

// isLive reports whether the grant that a token shows is the one that its consumer has
// now.
func isLive(d domain.Distribution, c tokens.Claims) bool {
	p, ok := d.Participation(c.Consumer)
	if !ok {
		return false
	}
	g, ok := p.Grant()
	return ok && tokens.NewGrant(c.Organization, g).EventID == c.EventID
}
