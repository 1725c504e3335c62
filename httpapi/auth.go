package httpapi

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// secret makes a call require a secret key. others are the media types that the call
// can answer in besides JSON.
func (s *server) secret(h handler, others ...string) handler {
	return s.guard(s.authenticateSecretKey, h, others...)
}

// public makes calls require a secret or a publishable key, and allows them to web
// pages of any origin. The handlers find the level of the key in x.
func (s *server) public(m methods) methods { return s.crossOrigin(s.authenticateKey, m) }

// consumer makes calls require a consumer who acts: either the consumer's own token
// beside a publishable key, or a secret key that acts for the consumer. It allows the
// calls to web pages of any origin. The handlers find the consumer in x.
func (s *server) consumer(m methods) methods { return s.crossOrigin(s.authenticateConsumer, m) }

// crossOrigin guards calls that web pages of any origin may make.
func (s *server) crossOrigin(authenticate authentication, m methods) methods {
	for method, h := range m {
		h := s.guard(authenticate, h)
		m[method] = func(x *exchange, r *http.Request) error {
			x.allowOrigin(r)
			return h(x, r)
		}
	}
	m[http.MethodOptions] = preflight(m)
	return m
}

// authentication identifies the caller of a request and notes the caller in x, or refuses
// the request.
type authentication func(x *exchange, r *http.Request) error

// guard calls h for requests that authenticate, are within their rate limit, and accept
// a media type that the call can answer in. It refuses all other requests.
func (s *server) guard(authenticate authentication, h handler, others ...string) handler {
	return func(x *exchange, r *http.Request) error {
		if !s.CaughtUp() {
			return projections.ErrBehind
		}
		err := authenticate(x, r)
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

// count counts a request against one rate limit: the organization's for a secret key,
// the consumer's for a consumer's token, and the client address's for all other
// requests. So a client that tries keys is limited by its address. A valid secret key or
// token does not count against the address, and is accepted even if the address has used
// up its limit. A key is too long to be guessed at any speed, and other clients at the
// address of an attacker must not be locked out.
func (s *server) count(x *exchange, r *http.Request) error {
	switch {
	case x.level == domain.SecretKey:
		return x.limit(s.bySecret, string(x.organization.ID))
	case x.consumer != "":
		return x.limit(s.byConsumer, string(x.organization.ID)+" "+x.consumer)
	case s.byAddress == nil:
		return nil
	}
	return x.limit(s.byAddress, addressCaller(s.clientAddress(r)))
}

// authenticateSecretKey requires a secret key. If the request has another valid
// credential instead, the refusal says that a secret key is required.
func (s *server) authenticateSecretKey(x *exchange, r *http.Request) error {
	err := s.authenticateKey(x, r)
	if err == nil && x.level == domain.SecretKey {
		return nil
	}
	if err == nil || s.hasOtherCredential(x, r) {
		return domain.Refuse(secretKeyRequired, "")
	}
	return err
}

// hasOtherCredential reports whether the Authorization header has a valid publishable
// key or a valid access token in the place of a secret key.
func (s *server) hasOtherCredential(x *exchange, r *http.Request) bool {
	credential, ok := bearer(r)
	if !ok {
		return false
	}
	if _, err := s.tokens.Verify(credential, tokens.Access, domain.InstantOf(x.started)); err == nil {
		return true
	}
	_, k, ok := s.lookUp(x, credential)
	return ok && k.Level == domain.PublishableKey
}

// authenticateKey requires a secret or a publishable key. If the request has both, the
// secret key counts. A publishable key may come with a consumer's token, which must then
// be valid.
func (s *server) authenticateKey(x *exchange, r *http.Request) error {
	if credential, ok := bearer(r); ok && isSecretForm(credential) {
		return s.checkKey(x, credential, domain.SecretKey)
	}
	keys := r.Header["X-Publishable-Key"]
	if len(keys) != 1 {
		return domain.Refuse(authenticationRequired, "")
	}
	if err := s.checkKey(x, keys[0], domain.PublishableKey); err != nil {
		return err
	}
	if _, ok := r.Header["Authorization"]; !ok {
		return nil
	}
	return s.checkAccessToken(x, r)
}

// checkAccessToken verifies the access token that a request sends with a publishable
// key, and notes the token's consumer in x. It refuses a token of another organization
// than the key's. It also refuses the header X-Consumer-Id, because the token already
// says which consumer acts.
func (s *server) checkAccessToken(x *exchange, r *http.Request) error {
	token, ok := bearer(r)
	if !ok {
		return domain.Refuse(authenticationRequired, "")
	}
	c, err := s.tokens.Verify(token, tokens.Access, domain.InstantOf(x.started))
	switch {
	case errors.Is(err, tokens.ErrExpired):
		return domain.Refuse(authenticationRequired, "the access token has expired")
	case errors.Is(err, tokens.ErrInvalid), errors.Is(err, tokens.ErrUse):
		return domain.Refuse(authenticationRequired, "the access token is not valid")
	case err != nil:
		return err
	case c.Organization != x.organization.ID:
		return domain.Refuse(authenticationRequired, "the access token is not valid")
	}
	x.consumer = c.Consumer
	if _, given := r.Header[onBehalfOf]; given {
		return invalid(domain.Detail{Field: onBehalfOf, Message: "is for secret keys: the access token says which consumer it is"})
	}
	return nil
}

// onBehalfOf is the header that names the consumer for whom a secret key acts.
const onBehalfOf = "X-Consumer-Id"

// authenticateConsumer requires a consumer who acts, and notes the consumer in x.
func (s *server) authenticateConsumer(x *exchange, r *http.Request) error {
	if err := s.authenticateKey(x, r); err != nil {
		return err
	}
	ids, given := r.Header[onBehalfOf]
	switch {
	case x.level == domain.PublishableKey && x.consumer == "":
		return domain.Refuse(authenticationRequired, "an access token is needed beside the publishable key")
	case x.level == domain.PublishableKey:
		return nil
	case !given:
		return domain.Refuse(consumerIDRequired, "with a secret key "+onBehalfOf+" says which consumer acts")
	case len(ids) > 1 || !domain.VisibleASCII(ids[0], domain.MaxConsumerID):
		return invalid(domain.Detail{Field: onBehalfOf, Message: "must be 1 to 128 visible ASCII characters"})
	}
	x.consumer = ids[0]
	return nil
}

// checkKey requires that text is a valid key of the given level, and notes the key and
// its organization in x.
func (s *server) checkKey(x *exchange, text string, level domain.KeyLevel) error {
	organization, k, ok := s.lookUp(x, text)
	switch {
	case !ok:
		return domain.Refuse(authenticationRequired, "")
	case k.Level == level:
		x.organization, x.keyID, x.level = organization, k.ID, level
		return nil
	case level == domain.SecretKey:
		return domain.Refuse(secretKeyRequired, "")
	}
	// A secret key in X-Publishable-Key, which everybody can see, gives no access.
	return domain.Refuse(authenticationRequired, "")
}

// lookUp returns the key with the given text and the key's organization. It returns
// false if there is no such key, or if the key is revoked or expired.
func (s *server) lookUp(x *exchange, text string) (*domain.Organization, domain.Key, bool) {
	sum := sha256.Sum256([]byte(text))
	var buf [2 * sha256.Size]byte
	hex.Encode(buf[:], sum[:])
	c, ok := s.Views.Credential(string(buf[:]))
	if !ok {
		return nil, domain.Key{}, false
	}
	organization, ok := s.Views.Organization(c.OrganizationID)
	if !ok {
		return nil, domain.Key{}, false
	}
	k := organization.Keys[c.KeyID]
	// A key that has expired gives no access, even if the timer that records the expiry
	// is late.
	valid := subtle.ConstantTimeCompare([]byte(k.Hash), buf[:]) == 1 && k.Works(domain.InstantOf(x.started))
	return organization, k, valid
}

// isSecretForm reports whether a credential has the form of a secret key. The key need
// not exist.
func isSecretForm(credential string) bool {
	return strings.HasPrefix(credential, "sk_live_") || strings.HasPrefix(credential, "sk_test_")
}

// bearer returns the bearer credential of a request (RFC 6750). It returns false if the
// request has none, or more than one Authorization header.
func bearer(r *http.Request) (credential string, ok bool) {
	headers := r.Header["Authorization"]
	if len(headers) != 1 {
		return "", false
	}
	scheme, credential, _ := strings.Cut(headers[0], " ")
	credential = strings.TrimLeft(credential, " ")
	return credential, credential != "" && strings.EqualFold(scheme, "Bearer")
}
