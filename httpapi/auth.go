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
func (s *server) secret(h handler, others ...string) handler { return s.guard(secretKey, h, others...) }

// public lets through who has a secret or a publishable key, also from web pages
// of any origin. x says which of the two it is.
func (s *server) public(m methods) methods {
	for method, h := range m {
		h := s.guard(anyKey, h)
		m[method] = func(x *exchange, r *http.Request) error {
			x.allowOrigin(r)
			return h(x, r)
		}
	}
	m[http.MethodOptions] = preflight(m)
	return m
}

// guard lets through who brings a credential that find finds.
func (s *server) guard(find func(*http.Request) (credential, error), h handler, others ...string) handler {
	return func(x *exchange, r *http.Request) error {
		if !s.CaughtUp() {
			return projections.ErrBehind
		}
		c, err := find(r)
		if err == nil {
			err = s.authenticate(x, c)
		}
		if over := s.count(x, r); over != nil {
			return over
		}
		if err != nil {
			return err
		}
		if !acceptsJSON(r) && !slices.ContainsFunc(others, func(media string) bool { return quality(r.Header["Accept"], media) > 0 }) {
			return domain.Refuse(notAcceptable, "answers are %s", strings.Join(append([]string{mediaJSON}, others...), " or "))
		}
		return h(x, r)
	}
}

// count holds a request against the limit of whoever makes it: the organization
// or, for those who show what everybody can have, the client address. So who tries
// keys is limited too. A key that is right is let through all the same: it is too
// long to be guessed at any speed, and those who share an address with somebody
// who tries must not be locked out.
func (s *server) count(x *exchange, r *http.Request) error {
	switch {
	case x.level == domain.SecretKey:
		return x.limit(s.bySecret, string(x.organization.ID))
	case s.byAddress == nil:
		return nil
	}
	return x.limit(s.byAddress, addressCaller(s.clientAddress(r)))
}

func (s *server) authenticate(x *exchange, shown credential) error {
	sum := sha256.Sum256([]byte(shown.key))
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
	// A key that has expired gives no access, even when the timer that records it is
	// late.
	if subtle.ConstantTimeCompare([]byte(k.Hash), buf[:]) != 1 || !k.Works(domain.InstantOf(x.started)) {
		return domain.Refuse(authenticationRequired, "")
	}
	if k.Level != shown.level {
		if shown.level == domain.SecretKey {
			return domain.Refuse(secretKeyRequired, "")
		}
		// A secret key where everybody can see it gives access to nothing.
		return domain.Refuse(authenticationRequired, "")
	}
	x.organization, x.keyID, x.level = organization, c.KeyID, k.Level
	return nil
}

// credential is a key that a request brings, and what it is shown as.
type credential struct {
	key   string
	level domain.KeyLevel
}

// anyKey finds the secret or the publishable key that a request brings. Of both,
// the secret one counts.
func anyKey(r *http.Request) (credential, error) {
	if _, ok := r.Header["Authorization"]; ok {
		c, err := secretKey(r)
		if err != nil {
			err = domain.Refuse(authenticationRequired, "")
		}
		return c, err
	}
	keys := r.Header["X-Publishable-Key"]
	if len(keys) != 1 {
		return credential{}, domain.Refuse(authenticationRequired, "")
	}
	return credential{keys[0], domain.PublishableKey}, nil
}

// secretKey finds the secret key that a request brings. Whoever shows another
// credential in its place is told what is missing.
func secretKey(r *http.Request) (credential, error) {
	headers := r.Header["Authorization"]
	if len(headers) == 0 {
		if _, ok := r.Header["X-Publishable-Key"]; ok {
			return credential{}, domain.Refuse(secretKeyRequired, "")
		}
		return credential{}, domain.Refuse(authenticationRequired, "")
	}
	scheme, key, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || key == "" || !strings.EqualFold(scheme, "Bearer") {
		return credential{}, domain.Refuse(authenticationRequired, "")
	}
	if !strings.HasPrefix(key, "sk_live_") && !strings.HasPrefix(key, "sk_test_") {
		return credential{}, domain.Refuse(secretKeyRequired, "")
	}
	return credential{key, domain.SecretKey}, nil
}
