package httpapi

import (
	"errors"
	"net/http"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
)

// validity is the answer to the validation of a token.
type validity struct {
	Valid bool   `json:"valid"`
	Error string `json:"error,omitempty"`
}

// Why a token is not valid. Each kind has its own text for a grant that has ended.
const (
	tokenInvalid    = "The token is not valid"
	tokenExpired    = "The token has expired"
	tokenOtherUse   = "The token is for another use"
	tokenOtherOwner = "The token is another consumer's"
)

// tokenElsewhere is the text about a token for another distribution of kind k.
func tokenElsewhere(k domain.Kind) string { return "The token is for another " + string(k) }

// validateToken returns a query that says whether a token proves a grant that its consumer
// still has. The text ended is the answer about a grant that the consumer no longer has.
func validateToken(use tokens.Use, ended string) participantQuery {
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
			v.Error = ended
		default:
			v.Valid = true
		}
		x.json(r, http.StatusOK, typeJSON, encode(v))
		return nil
	}
}

// isLive reports whether the consumer in a token's claims now has the grant that the token
// was made for.
func isLive(d domain.Distribution, c tokens.Claims) bool {
	p, ok := d.Participation(c.Consumer)
	if !ok {
		return false
	}
	g, ok := p.Grant()
	return ok && tokens.NewGrant(c.Organization, g).EventID == c.EventID
}
