package httpapi

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// openGuestSession makes a consumer of whom nothing is known, and lets him act.
func (s *server) openGuestSession(x *exchange, r *http.Request) error {
	if _, err := readNothing(x, r); err != nil {
		return err
	}
	return s.openSession(x, r, string(domain.NewID("guest", uuid.New())))
}

// openConsumerSession lets a consumer act whom the caller has authenticated.
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

// session is what a consumer needs to act.
type session struct {
	ConsumerID  string         `json:"consumerId"`
	AccessToken string         `json:"accessToken"`
	ExpiresAt   domain.Instant `json:"expiresAt"`
}

func (s *server) openSession(x *exchange, r *http.Request, consumer string) error {
	// Other nodes take a token for what it says.
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

// cacheable is how long the key set may be kept. The next key is in it ahead of time.
// Only a key that takes the place of a revoked one is not.
var cacheable = []string{"public, max-age=300"}

// keySet answers with the public keys that verify tokens.
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
