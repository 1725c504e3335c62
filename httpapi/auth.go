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

// secret lets through who has a secret key, and puts whose it is into x. Beside
// JSON the call may answer in other media types.
func (s *server) secret(h handler, others ...string) handler {
	return s.guard(s.admitSecret, h, others...)
}

// public lets through who has a secret or a publishable key, also from web pages
// of any origin. x says which of the two it is.
func (s *server) public(m methods) methods { return s.fromPages(s.admit, m) }

// consumer lets through who acts as a consumer: with his token, or with a secret key
// for him; also from web pages of any origin. x says whose consumer it is and which.
func (s *server) consumer(m methods) methods { return s.fromPages(s.admitConsumer, m) }

// fromPages guards calls that web pages of any origin may make.
func (s *server) fromPages(admit admission, m methods) methods {
	for method, h := range m {
		h := s.guard(admit, h)
		m[method] = func(x *exchange, r *http.Request) error {
			x.allowOrigin(r)
			return h(x, r)
		}
	}
	m[http.MethodOptions] = preflight(m)
	return m
}

// admission puts into x who makes a request, or refuses it.
type admission func(x *exchange, r *http.Request) error

// guard lets through who is admitted.
func (s *server) guard(admit admission, h handler, others ...string) handler {
	return func(x *exchange, r *http.Request) error {
		if !s.CaughtUp() {
			return projections.ErrBehind
		}
		err := admit(x, r)
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

// count holds a request against the limit of whoever makes it: the organization,
// the consumer or, for those who show what everybody can have, the client address. So
// who tries keys is limited too. A key that is right is let through all the same: it
// is too long to be guessed at any speed, and those who share an address with
// somebody who tries must not be locked out.
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

// admitSecret admits who brings a secret key. Whoever brings another credential that
// holds is told that it does not do here.
func (s *server) admitSecret(x *exchange, r *http.Request) error {
	err := s.admit(x, r)
	if err == nil && x.level == domain.SecretKey {
		return nil
	}
	if err == nil || s.holdsOtherwise(x, r) {
		return domain.Refuse(secretKeyRequired, "")
	}
	return err
}

// holdsOtherwise reports whether the credential in the place of a secret key is a
// publishable key or an access token that holds.
func (s *server) holdsOtherwise(x *exchange, r *http.Request) bool {
	shown, ok := bearer(r)
	if !ok {
		return false
	}
	if _, err := s.tokens.Verify(shown, tokens.Access, domain.InstantOf(x.started)); err == nil {
		return true
	}
	_, k, ok := s.lookUp(x, shown)
	return ok && k.Level == domain.PublishableKey
}

// admit admits who brings a secret or a publishable key. Of both, the secret one
// counts. Beside a publishable key there may be a consumer's token, which then has
// to hold.
func (s *server) admit(x *exchange, r *http.Request) error {
	if shown, ok := bearer(r); ok && secretForm(shown) {
		return s.authenticate(x, shown, domain.SecretKey)
	}
	keys := r.Header["X-Publishable-Key"]
	if len(keys) != 1 {
		return domain.Refuse(authenticationRequired, "")
	}
	if err := s.authenticate(x, keys[0], domain.PublishableKey); err != nil {
		return err
	}
	if _, ok := r.Header["Authorization"]; !ok {
		return nil
	}
	return s.authenticateConsumer(x, r)
}

// authenticateConsumer finds out whose token is shown beside a publishable key. The
// token is of use beside a key of its own organization only. It says for whom, so
// nothing else may.
func (s *server) authenticateConsumer(x *exchange, r *http.Request) error {
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

// onBehalfOf is the header by which a secret key acts for a consumer.
const onBehalfOf = "X-Consumer-Id"

// admitConsumer admits who acts as a consumer.
func (s *server) admitConsumer(x *exchange, r *http.Request) error {
	if err := s.admit(x, r); err != nil {
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

// authenticate puts into x whose key is shown, if it holds and is of a level.
func (s *server) authenticate(x *exchange, shown string, level domain.KeyLevel) error {
	organization, k, ok := s.lookUp(x, shown)
	switch {
	case !ok:
		return domain.Refuse(authenticationRequired, "")
	case k.Level == level:
		x.organization, x.keyID, x.level = organization, k.ID, level
		return nil
	case level == domain.SecretKey:
		return domain.Refuse(secretKeyRequired, "")
	}
	// A secret key where everybody can see it gives access to nothing.
	return domain.Refuse(authenticationRequired, "")
}

// lookUp finds a key that holds, and the organization whose it is.
func (s *server) lookUp(x *exchange, shown string) (*domain.Organization, domain.Key, bool) {
	sum := sha256.Sum256([]byte(shown))
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
	// A key that has expired gives no access, even when the timer that records it is
	// late.
	holds := subtle.ConstantTimeCompare([]byte(k.Hash), buf[:]) == 1 && k.Works(domain.InstantOf(x.started))
	return organization, k, holds
}

// secretForm reports whether a credential is meant to be a secret key.
func secretForm(shown string) bool {
	return strings.HasPrefix(shown, "sk_live_") || strings.HasPrefix(shown, "sk_test_")
}

// bearer is what a request shows as a bearer of (RFC 6750). What is more than one
// credential is no key and no token.
func bearer(r *http.Request) (shown string, ok bool) {
	headers := r.Header["Authorization"]
	if len(headers) != 1 {
		return "", false
	}
	scheme, shown, _ := strings.Cut(headers[0], " ")
	shown = strings.TrimLeft(shown, " ")
	return shown, shown != "" && strings.EqualFold(scheme, "Bearer")
}
