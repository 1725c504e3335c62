package httpapi

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// openGuestSession creates a new, unknown consumer and answers with an access token.
func (s *server) openGuestSession(x *exchange, r *http.Request) error {
	if _, err := readEmptyBody(x, r); err != nil {
		return err
	}
	return s.openSession(x, r, string(domain.NewID("guest", uuid.New())))
}

// openConsumerSession answers with an access token for a consumer that the caller has
// authenticated.
func (s *server) openConsumerSession(x *exchange, r *http.Request) error {
	fields, _, err := readFields(x, r)
	if err != nil {
		return err
	}
	id, err := domain.ReadConsumer(fields)
	if err != nil {
		return err
	}
	return s.openSession(x, r, id)
}

// session is the answer that gives a consumer an access token.
type session struct {
	ConsumerID  string         `json:"consumerId"`
	AccessToken string         `json:"accessToken"`
	ExpiresAt   domain.Instant `json:"expiresAt"`
}

// openSession answers with an access token for a consumer.
func (s *server) openSession(x *exchange, r *http.Request, consumer string) error {
	// Other nodes trust the times in the token, so this node's clock must be right.
	now, err := s.Commands.Now(r.Context())
	if err != nil {
		return err
	}
	c := tokens.NewAccess(x.organization.ID, consumer, domain.InstantOf(now))
	token, err := s.tokens.Sign(c)
	if err != nil {
		return err
	}
	x.json(r, http.StatusCreated, typeJSON, encode(session{consumer, token, c.ExpiresAt}))
	return nil
}

// cacheable allows clients to store the key set for five minutes. The set already includes
// the next signing key of a planned rotation. It cannot include in advance a key that
// replaces a revoked one.
var cacheable = []string{"public, max-age=300"}

// keySet answers with the public keys that verify consumers' tokens.
func (s *server) keySet(x *exchange, r *http.Request) error {
	if !s.CaughtUp() {
		return projections.ErrBehind
	}
	set, err := s.tokens.JWKS()
	if err != nil {
		return err
	}
	x.prepare()["Cache-Control"] = cacheable
	x.send(r, http.StatusOK, typeJSON, set)
	return nil
}
