// Package tokens makes and verifies the tokens that consumers present: JWTs (RFC 7519)
// signed with Ed25519 (RFC 8037).
//
// Tokens are never stored. The claims of a token come from an event or from an API call,
// and its time of issue decides which key signs it. So the same token can be made again at
// any time, unless its key was revoked. The package must not decide who gets a token.
package tokens

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"
	"unique"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lotline/lotline/domain"
)

// Use is the purpose of a token. A token is accepted for its own use only.
type Use string

// The uses, as they are written in the claim `aud`.
const (
	Access    Use = "lotline:access"           // the bearer may act as the consumer
	Admission Use = Use(domain.GrantAdmission) // proves that the consumer was admitted
	Payment   Use = "lotline:payment"          // proves what the consumer won
)

const issuer = "lotline"

const (
	// accessLife is how long an access token is valid.
	accessLife = time.Hour
	// grantLife is how long a token for a grant without an end is valid.
	grantLife = 24 * time.Hour
)

// Claims are the content of a token.
type Claims struct {
	Use          Use
	Organization domain.ID
	Consumer     string
	Distribution domain.ID      // "" for Access
	EventID      string         // the event that gave the grant, "" for Access
	IssuedAt     domain.Instant // the token has only its whole seconds
	ExpiresAt    domain.Instant // always a whole second
}

// NewAccess returns the claims of an access token: it allows its bearer to act as a consumer
// of an organization, for one hour from now.
func NewAccess(organization domain.ID, consumer string, now domain.Instant) Claims {
	return Claims{
		Use: Access, Organization: organization, Consumer: consumer,
		IssuedAt: now, ExpiresAt: wholeSecond(now.Add(accessLife)),
	}
}

// NewGrant returns the claims of a token that proves a grant of an organization's
// distribution. The token's time of issue is the time of the grant. It expires when the
// grant ends, or after 24 hours if the grant has no end. The same grant always gives the
// same claims.
func NewGrant(organization domain.ID, g domain.Grant) Claims {
	until := g.Until
	if until == 0 {
		until = g.From.Add(grantLife)
	}
	return Claims{
		Use: Use(g.Use), Organization: organization, Consumer: g.Consumer, Distribution: g.Distribution,
		EventID: "evt_" + domain.Base32(g.Event), IssuedAt: g.From, ExpiresAt: wholeSecond(until),
	}
}

// wholeSecond rounds i down to the second, because a token has whole seconds only. Rounding
// down makes sure that a token never outlives its grant.
func wholeSecond(i domain.Instant) domain.Instant { return i - i%1000 }

// Why a token is not accepted.
var (
	// ErrInvalid: the token was not made by this engine, or the key that signed it is no
	// longer accepted.
	ErrInvalid = errors.New("the token is not valid")
	// ErrExpired: the token has expired.
	ErrExpired = errors.New("the token has expired")
	// ErrUse: the token is for another use.
	ErrUse = errors.New("the token is for another use")
)

// SigningKeySource has the signing keys. *projections.Views implements it.
type SigningKeySource interface {
	// SigningKeys returns the signing keys as they are now. The returned value never
	// changes: after a change of the keys, SigningKeys returns another pointer. An error
	// means that the keys are not known now.
	SigningKeys() (*domain.SigningKeys, error)
}

// Tokens makes and verifies tokens. Safe for concurrent use.
type Tokens struct {
	keys SigningKeySource
	ring atomic.Pointer[ring]
	seen memory
}

// New returns Tokens that sign and verify with keys.
func New(keys SigningKeySource) *Tokens { return &Tokens{keys: keys, seen: memory{room: remembered}} }

// ring is computed from the signing keys, once for each version of them.
type ring struct {
	of   *domain.SigningKeys
	keys map[string]pair // the keys that are not revoked, by id
	jwks []byte          // the public keys in JSON
}

// pair is a signing key with its two halves.
type pair struct {
	domain.SigningKey
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

// current returns the ring of the current signing keys. It makes a new ring only if the keys
// have changed.
func (t *Tokens) current() (*ring, error) {
	keys, err := t.keys.SigningKeys()
	if err != nil {
		return nil, err
	}
	if r := t.ring.Load(); r != nil && r.of == keys {
		return r, nil
	}
	r := newRing(keys)
	t.ring.Store(r)
	return r, nil
}

// jwk is the public half of a key (RFC 7517, RFC 8037).
type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
	ID        string `json:"kid"`
	X         string `json:"x"`
}

func newRing(keys *domain.SigningKeys) *ring {
	r := &ring{of: keys, keys: map[string]pair{}}
	set := struct {
		Keys []jwk `json:"keys"`
	}{[]jwk{}}
	publish := func(id string, public ed25519.PublicKey) {
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", "sig", "EdDSA", id, base64.RawURLEncoding.EncodeToString(public)})
	}
	for _, k := range keys.Keys {
		if k.RevokedAt != 0 {
			continue
		}
		private := k.Private()
		public := private.Public().(ed25519.PublicKey)
		r.keys[k.ID] = pair{k, public, private}
		publish(k.ID, public)
	}
	if current, ok := keys.Current(); ok {
		// A verifier that stores the set must know the next key before it signs.
		next := current.Next()
		publish(next.ID, next.Public())
	}
	var err error
	if r.jwks, err = json.Marshal(set); err != nil {
		panic("a key set always encodes: " + err.Error())
	}
	return r
}

// JWKS returns the set of the public keys that verify tokens, in JSON (RFC 7517).
func (t *Tokens) JWKS() ([]byte, error) {
	r, err := t.current()
	if err != nil {
		return nil, err
	}
	return r.jwks, nil
}

// payload is the JSON form of claims in a token.
type payload struct {
	jwt.RegisteredClaims

	Audience     string `json:"aud"` // a single text, not a list
	Organization string `json:"org"`
	Distribution string `json:"distribution,omitempty"`
}

// Sign makes a token of the claims c. It signs with the key that was in use at c.IssuedAt, so
// that the same claims make the same token. If that key is unknown or revoked, it signs with
// the current key.
func (t *Tokens) Sign(c Claims) (string, error) {
	r, err := t.current()
	if err != nil {
		return "", err
	}
	signer, ok := r.of.Signer(c.IssuedAt)
	if !ok {
		return "", errors.New("there is no key to sign with")
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, payload{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: issuer, Subject: c.Consumer, ID: c.EventID,
			IssuedAt: jwt.NewNumericDate(c.IssuedAt.Time()), ExpiresAt: jwt.NewNumericDate(c.ExpiresAt.Time()),
		},
		Audience: string(c.Use), Organization: string(c.Organization), Distribution: string(c.Distribution),
	})
	token.Header["kid"] = signer.ID
	return token.SignedString(r.keys[signer.ID].private)
}

// Verify returns the claims of a token if this engine made it, it is for the given use, and
// it is valid at the time now. ErrInvalid, ErrExpired and ErrUse say why a token is not
// accepted. Any other error means that the token cannot be verified now. Verify remembers
// tokens whose signature it has verified, and checks everything else on each call.
func (t *Tokens) Verify(token string, use Use, now domain.Instant) (Claims, error) {
	r, err := t.current()
	if err != nil {
		return Claims{}, err
	}
	sum := sha256.Sum256([]byte(token))
	id := [16]byte(sum[:])
	v, known := t.seen.find(id)
	if !known {
		if v, err = r.read(token); err != nil {
			return Claims{}, err
		}
	}
	common := v.common.Value()
	switch k, ok := r.keys[common.key]; {
	case !ok || !k.Signs(v.issued):
		return Claims{}, ErrInvalid
	case common.use != use:
		return Claims{}, ErrUse
	case v.expires <= now:
		return Claims{}, ErrExpired
	}
	if !known {
		t.seen.add(id, v)
	}
	return Claims{
		Use: use, Organization: common.organization, Consumer: v.consumer, Distribution: common.distribution, EventID: common.event,
		IssuedAt: v.issued, ExpiresAt: v.expires,
	}, nil
}

// verified has the claims of a token whose signature was verified. It is small, because
// many of them are remembered.
type verified struct {
	consumer        string
	issued, expires domain.Instant
	common          unique.Handle[common]
}

// common has the claims that the tokens of many consumers share.
type common struct {
	key                        string // the id of the key that signed it
	use                        Use
	organization, distribution domain.ID
	event                      string
}

// maxToken is the largest length of a token that is read, in bytes. Sign makes shorter ones.
const maxToken = 2048

var parser = jwt.NewParser(
	jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
	jwt.WithStrictDecoding(),
	// Verify checks the claims itself, also of remembered tokens.
	jwt.WithoutClaimsValidation(),
)

// read verifies a token's signature and returns its claims. It does not check its use or
// its times.
func (r *ring) read(token string) (verified, error) {
	if !domain.VisibleASCII(token, maxToken) { // base64 would ignore line breaks
		return verified{}, ErrInvalid
	}
	var p payload
	var id string
	_, err := parser.ParseWithClaims(token, &p, func(t *jwt.Token) (any, error) {
		id, _ = t.Header["kid"].(string)
		k, ok := r.keys[id]
		if _, critical := t.Header["crit"]; critical || !ok {
			return nil, ErrInvalid
		}
		return k.public, nil
	})
	if err != nil || p.Issuer != issuer || p.Subject == "" || p.IssuedAt == nil || p.ExpiresAt == nil {
		return verified{}, ErrInvalid
	}
	return verified{
		consumer: p.Subject, issued: domain.InstantOf(p.IssuedAt.Time), expires: domain.InstantOf(p.ExpiresAt.Time),
		common: unique.Make(common{id, Use(p.Audience), domain.ID(p.Organization), domain.ID(p.Distribution), p.ID}),
	}, nil
}
