package domain

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"strings"
	"time"
)

const (
	// SigningPeriod is how long a key signs tokens before the next one takes its
	// place.
	SigningPeriod = 30 * 24 * time.Hour
	// SigningGrace is how long a key may sign after the next key was made. A node that
	// cannot reach the store does not learn of the next key, and signs with the old one.
	SigningGrace = time.Hour
	// LongestToken is the longest time for which a token is valid. It equals the longest
	// session.
	LongestToken = 31_536_000 * time.Second
)

// SigningKey signs tokens. It is an Ed25519 key (RFC 8032).
type SigningKey struct {
	// ID is the thumbprint of the public half (RFC 7638).
	ID string `json:"id"`
	// The private half and the next key are derived from Secret. Secret cannot be
	// computed from the private half.
	Secret    Secret  `json:"secret"`
	CreatedAt Instant `json:"createdAt"`
	RetiredAt Instant `json:"retiredAt"` // when the next one took its place
	RevokedAt Instant `json:"revokedAt"`
}

// Private is the half that signs.
func (k SigningKey) Private() ed25519.PrivateKey {
	seed := deriveSecret(k.Secret.Plain, "lotline-signing-key-v1")
	return ed25519.NewKeyFromSeed(seed[:])
}

// Public is the half that verifies.
func (k SigningKey) Public() ed25519.PublicKey {
	return k.Private().Public().(ed25519.PublicKey)
}

// Signs reports whether the key may have signed a token that was issued at a time. A
// revoked key has signed nothing that counts. A retired key signs only tokens that were
// issued before its retirement or less than SigningGrace after it, so a thief who
// steals the key later cannot make new tokens.
func (k SigningKey) Signs(issued Instant) bool {
	return k.RevokedAt == 0 && (k.RetiredAt == 0 || issued < k.RetiredAt.Add(SigningGrace))
}

// over reports whether every token that the key can have signed has expired.
func (k SigningKey) over(now Instant) bool {
	return k.RetiredAt != 0 && k.RetiredAt.Add(SigningGrace+LongestToken) <= now
}

// Next is the key that replaces k after SigningPeriod, or when an operator rotates the
// keys. It is not recorded before that, but verifiers can learn it in advance.
func (k SigningKey) Next() SigningKey {
	return freshSigningKey(deriveSecret(k.Secret.Plain, "lotline-signing-next-v1"))
}

func newSigningKey(secret string) SigningKey {
	k := SigningKey{Secret: Secret{Plain: secret}}
	k.ID = thumbprint(k.Public())
	return k
}

func deriveSecret(secret, purpose string) [32]byte {
	h := hmac.New(sha256.New, []byte(secret))
	h.Write([]byte(purpose))
	return [32]byte(h.Sum(nil))
}

// thumbprint is the JWK thumbprint of an Ed25519 key (RFC 7638, RFC 8037).
func thumbprint(public ed25519.PublicKey) string {
	x := base64.RawURLEncoding.EncodeToString(public)
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// SigningKeys are the keys that sign the tokens of all organizations. The last key
// signs. Tokens of the earlier keys are still accepted, unless the key is revoked. The
// zero value has no keys. Not safe for concurrent use.
type SigningKeys struct {
	Keys   []SigningKey `json:"keys"` // in the order in which they were made
	Latest Instant      `json:"latest"`
}

// Current returns the key that signs now. It returns false before the first key is
// made.
func (s *SigningKeys) Current() (SigningKey, bool) {
	if len(s.Keys) == 0 {
		return SigningKey{}, false
	}
	return s.Keys[len(s.Keys)-1], true
}

// Signer is the key for a token with the time of issue issued: the key that was current
// at that time or, if that key is forgotten or revoked, the current key. It is false
// before the first key is made.
func (s *SigningKeys) Signer(issued Instant) (SigningKey, bool) {
	for _, k := range slices.Backward(s.Keys) {
		if k.CreatedAt <= issued && k.RevokedAt == 0 {
			return k, true
		} else if k.CreatedAt <= issued {
			break
		}
	}
	return s.Current()
}

// Secrets names the keys' secrets.
func (s *SigningKeys) Secrets() []SecretField {
	fields := make([]SecretField, len(s.Keys))
	for i := range s.Keys {
		fields[i] = SecretField{"secret", &s.Keys[i].Secret}
	}
	return fields
}

// Decide implements Aggregate.
func (s *SigningKeys) Decide(now Instant, cmd Command) ([]Event, error) {
	current, made := s.Current()
	switch c := cmd.(type) {
	case Advance:
		if at := s.Wake(); at != 0 && at <= now {
			return []Event{current.Next().made(now)}, nil
		}
		return nil, nil
	case MakeSigningKey:
		switch {
		case !made:
			return []Event{freshSigningKey(c.Secret).made(now)}, nil
		case c.OnlyFirst:
			return nil, nil
		}
		return []Event{current.Next().made(now)}, nil
	case RevokeSigningKey:
		i := s.find(c.KeyID)
		switch {
		case i < 0:
			return nil, Refuse(KeyNotFound, "")
		case s.Keys[i].RevokedAt != 0:
			return nil, Refuse(KeyNotFound, "it is revoked already")
		case s.Keys[i].RetiredAt != 0:
			return []Event{SigningKeyRevoked{Stamp{now}, c.KeyID}}, nil
		}
		// Not the next key, although verifiers know it: a thief of the revoked key's
		// secret knows it too.
		return []Event{freshSigningKey(c.Secret).made(now), SigningKeyRevoked{Stamp{now}, c.KeyID}}, nil
	}
	return nil, Refuse(InvalidTransition, "signing keys do not take %T", cmd)
}

// freshSigningKey is a key that is made from a secret. Its id does not begin with a
// dash: on a command line, where it may have to be revoked in a hurry, it would be
// taken for a flag.
func freshSigningKey(secret [32]byte) SigningKey {
	for {
		k := newSigningKey(hex.EncodeToString(secret[:]))
		if !strings.HasPrefix(k.ID, "-") {
			return k
		}
		secret = sha256.Sum256(secret[:])
	}
}

// made returns the event that records k. The event has its own copy of the secret,
// which is sealed when the event is encoded.
func (k SigningKey) made(now Instant) Event {
	public := base64.RawURLEncoding.EncodeToString(k.Public())
	return &SigningKeyCreated{Stamp{now}, k.ID, public, Secret{Plain: k.Secret.Plain}}
}

func (s *SigningKeys) find(id string) int {
	return slices.IndexFunc(s.Keys, func(k SigningKey) bool { return k.ID == id })
}

// Evolve implements Aggregate. A new key removes the keys whose tokens have all
// expired.
func (s *SigningKeys) Evolve(e Event) error {
	if e.When() < s.Latest {
		return ruleError(ruleTime, "%s after %s", e.When(), s.Latest)
	}
	switch e := e.(type) {
	case *SigningKeyCreated:
		made := newSigningKey(e.Secret.Plain)
		if made.ID != e.KeyID || base64.RawURLEncoding.EncodeToString(made.Public()) != e.PublicKey {
			return ruleError(ruleCommitment, "the secret of %s makes %s", e.KeyID, made.ID)
		}
		if s.find(e.KeyID) >= 0 {
			return ruleError(ruleKeys, "%s is made twice", e.KeyID)
		}
		made.Secret, made.CreatedAt = e.Secret, e.At
		if n := len(s.Keys); n > 0 {
			s.Keys[n-1].RetiredAt = e.At
		}
		s.Keys = slices.DeleteFunc(append(s.Keys, made), func(k SigningKey) bool { return k.over(e.At) })
	case SigningKeyRevoked:
		i := s.find(e.KeyID)
		if i < 0 || s.Keys[i].RevokedAt != 0 || s.Keys[i].RetiredAt == 0 {
			return ruleError(ruleKeys, "%s is not one that can be revoked", e.KeyID)
		}
		s.Keys[i].RevokedAt = e.At
	default:
		return ruleError(ruleKind, "signing keys do not have %T", e)
	}
	s.Latest = e.When()
	return nil
}

// Wake implements Aggregate.
func (s *SigningKeys) Wake() Instant {
	current, made := s.Current()
	if !made {
		return 0
	}
	return current.CreatedAt.Add(SigningPeriod)
}

// Time implements Aggregate.
func (s *SigningKeys) Time() Instant { return s.Latest }

// Fork implements Aggregate.
func (s *SigningKeys) Fork() Aggregate {
	return &SigningKeys{slices.Clone(s.Keys), s.Latest}
}
