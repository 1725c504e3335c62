package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// secret lets through who has a secret key, and puts whose it is into x. Beside
// JSON the call may answer in other media types.
func (s *server) secret(h handler, others ...string) handler {
	return func(x *exchange, r *http.Request) error {
		if !s.CaughtUp() {
			return projections.ErrBehind
		}
		if err := s.authenticate(x, r); err != nil {
			return err
		}
		if !acceptsJSON(r) && !slices.ContainsFunc(others, func(media string) bool { return quality(r.Header["Accept"], media) > 0 }) {
			return domain.Refuse(notAcceptable, "answers are %s", strings.Join(append([]string{mediaJSON}, others...), " or "))
		}
		return h(x, r)
	}
}

func (s *server) authenticate(x *exchange, r *http.Request) error {
	key, err := secretKey(r)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(key))
	var buf [2 * sha256.Size]byte
	hex.Encode(buf[:], sum[:])
	c, ok := s.Views.Credential(string(buf[:]))
	if !ok {
		return domain.Refuse(authenticationRequired, "")
	}
	organization, ok := s.Views.Organization(c.OrganizationID)
	if !ok {
		return domain.Refuse(authenticationRequired, "")
	}
	k := organization.Keys[c.KeyID]
	if subtle.ConstantTimeCompare([]byte(k.Hash), buf[:]) != 1 || k.RevokedAt != 0 {
		return domain.Refuse(authenticationRequired, "")
	}
	if k.Level != domain.SecretKey {
		return domain.Refuse(secretKeyRequired, "")
	}
	x.organization, x.keyID = organization, c.KeyID
	return nil
}

// secretKey finds the secret key that a request brings. Whoever shows another
// credential in its place is told what is missing.
func secretKey(r *http.Request) (string, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		if _, ok := r.Header["X-Publishable-Key"]; ok {
			return "", domain.Refuse(secretKeyRequired, "")
		}
		return "", domain.Refuse(authenticationRequired, "")
	}
	scheme, key, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || key == "" || !strings.EqualFold(scheme, "Bearer") {
		return "", domain.Refuse(authenticationRequired, "")
	}
	if !strings.HasPrefix(key, "sk_live_") && !strings.HasPrefix(key, "sk_test_") {
		return "", domain.Refuse(secretKeyRequired, "")
	}
	return key, nil
}
