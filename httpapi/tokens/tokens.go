// Package tokens makes and verifies the tokens that consumers show: JWTs (RFC 7519)
// signed with Ed25519 (RFC 8037).
//
// A token is never stored. What it says follows from an event or from the call that
// it answers, and which key signs it from when it was issued, so the same is made
// whenever it is asked for. The package must not decide who gets one.
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

// Use is what a token is for. It is accepted for that alone.
type Use string

// The uses, as the claim `aud` has them.
const (
	Access    Use = "lotline:access"           // to act as a consumer
	Admission Use = Use(domain.GrantAdmission) // to show that one was admitted
	Payment   Use = "lotline:payment"          // to show that one has won, and what
)

const issuer = "lotline"

const (
	// accessLife is how long an access token is good for.
	accessLife = time.Hour
	// grantLife is how long a token is good for that an event grants which sets no
	// end.
	grantLife = 24 * time.Hour
)

// Claims are what a token says.
type Claims struct {
	Use          Use
	Organization domain.ID
	Consumer     string
	Distribution domain.ID      // "" for Access
	EventID      string         // of the event that grants it, "" for Access
	IssuedAt     domain.Instant // a token tells whole seconds of it
	ExpiresAt    domain.Instant // in whole seconds
}

// NewAccess lets a consumer of an organization act from now on, for an hour.
func NewAccess(organization domain.ID, consumer string, now domain.Instant) Claims {
	return Claims{
		Use: Access, Organization: organization, Consumer: consumer,
		IssuedAt: now, ExpiresAt: wholeSecond(now.Add(accessLife)),
	}
}

// NewGrant are the claims of a token that shows a grant of an organization's
// distribution. It is issued at the time of the grant, and ends with the grant, or
// after a day when the grant has no limit. The same grant gives the same claims.
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

// wholeSecond cuts i to the second, which is what a token tells: so it never
// outlives what it stands for.
func wholeSecond(i domain.Instant) domain.Instant { return i - i%1000 }

// Why a token is not accepted.
var (
	// ErrInvalid: it is none of ours, or the key that signed it does not count any
	// more.
	ErrInvalid = errors.New("the token is not valid")
	// ErrExpired: its time is over.
	ErrExpired = errors.New("the token has expired")
	// ErrUse: it is for something else.
	ErrUse = errors.New("the token is for another use")
)

// Keys has the keys that sign. *projections.Views does.
type Keys interface {
	// SigningKeys are the keys as they are now; they are not changed any more. An
	// error says why they cannot be told.
	SigningKeys() (*domain.SigningKeys, error)
}

// Tokens makes and verifies tokens. Safe for concurrent use.
type Tokens struct {
	keys Keys
	ring atomic.Pointer[ring]
	seen memory
}

// New returns the tokens that are signed with keys.
func New(keys Keys) *Tokens { return &Tokens{keys: keys, seen: memory{room: remembered}} }

// ring is what follows from the signing keys.
type ring struct {
	of   *domain.SigningKeys
	keys map[string]pair // by id; those that are not revoked
	jwks []byte
}

type pair struct {
	domain.SigningKey
	public  ed25519.PublicKey
	private ed25519.PrivateKey
}

// now is the ring of the keys as they are. It is made when they have changed.
func (t *Tokens) now() (*ring, error) {
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
	show := func(id string, public ed25519.PublicKey) {
		set.Keys = append(set.Keys, jwk{"OKP", "Ed25519", "sig", "EdDSA", id, base64.RawURLEncoding.EncodeToString(public)})
	}
	for _, k := range keys.Keys {
		if k.RevokedAt != 0 {
			continue
		}
		private := k.Private()
		public := private.Public().(ed25519.PublicKey)
		r.keys[k.ID] = pair{k, public, private}
		show(k.ID, public)
	}
	if current, ok := keys.Current(); ok {
		// Who keeps the set a while knows the next key when it comes.
		next := current.Next()
		show(next.ID, next.Public())
	}
	var err error
	if r.jwks, err = json.Marshal(set); err != nil {
		panic("a key set always encodes: " + err.Error())
	}
	return r
}

// JWKS is the set of the keys that verify, in JSON (RFC 7517).
func (t *Tokens) JWKS() ([]byte, error) {
	r, err := t.now()
	if err != nil {
		return nil, err
	}
	return r.jwks, nil
}

// payload is how claims stand in a token.
type payload struct {
	jwt.RegisteredClaims

	Audience     string `json:"aud"` // one, not a list of one
	Organization string `json:"org"`
	Distribution string `json:"distribution,omitempty"`
}

// Sign makes the token that says c. The key is the one that signed at c.IssuedAt as
// long as that is known and not revoked, so that the same claims make the same token.
func (t *Tokens) Sign(c Claims) (string, error) {
	r, err := t.now()
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

// Verify returns what a token says that is ours, for that use, and good at now.
// ErrInvalid, ErrExpired and ErrUse say that it is not; any other error, that this
// cannot be told now. A signature is verified once; all else, each time.
func (t *Tokens) Verify(token string, use Use, now domain.Instant) (Claims, error) {
	r, err := t.now()
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
	about := v.about.Value()
	switch k, ok := r.keys[about.key]; {
	case !ok || !k.Signs(v.issued):
		return Claims{}, ErrInvalid
	case about.use != use:
		return Claims{}, ErrUse
	case v.expires <= now:
		return Claims{}, ErrExpired
	}
	if !known {
		t.seen.add(id, v)
	}
	return Claims{
		Use: use, Organization: about.organization, Consumer: v.consumer, Distribution: about.distribution, EventID: about.event,
		IssuedAt: v.issued, ExpiresAt: v.expires,
	}, nil
}

// verified is what a token says whose signature is right, in little room: many are
// remembered.
type verified struct {
	consumer        string
	issued, expires domain.Instant
	about           unique.Handle[about]
}

// about is what the tokens of many consumers have in common.
type about struct {
	key                        string // the id of the key that signed it
	use                        Use
	organization, distribution domain.ID
	event                      string
}

// maxToken is how long a token may be. Ours are shorter.
const maxToken = 2048

var parser = jwt.NewParser(
	jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
	jwt.WithStrictDecoding(),
	// Verify does it, for those that are remembered as well.
	jwt.WithoutClaimsValidation(),
)

// read verifies a token's signature.
func (r *ring) read(token string) (verified, error) {
	if !domain.VisibleASCII(token, maxToken) { // base64 would skip line breaks
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
		about: unique.Make(about{id, Use(p.Audience), domain.ID(p.Organization), domain.ID(p.Distribution), p.ID}),
	}, nil
}
