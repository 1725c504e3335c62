package domain_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// signingSecret is what the nth key by hand is made from.
func signingSecret(n byte) [32]byte { return [32]byte{n} }

// signer is the key that is made from a secret.
func signer(secret [32]byte) domain.SigningKey {
	s := &domain.SigningKeys{}
	events, err := s.Decide(at("08:00"), domain.MakeSigningKey{Secret: secret})
	if err != nil {
		panic(err)
	}
	if err := s.Evolve(events[0]); err != nil {
		panic(err)
	}
	k, _ := s.Current()
	return k
}

// keyMade is the event that makes k at a time.
func keyMade(when domain.Instant, k domain.SigningKey) *domain.SigningKeyCreated {
	return &domain.SigningKeyCreated{
		Stamp: domain.Stamp{At: when}, KeyID: k.ID, PublicKey: base64url(k.Public()), Secret: domain.Secret{Plain: k.Secret.Plain},
	}
}

func TestSigningKeys(t *testing.T) {
	t.Parallel()
	const k = domain.KindSigning
	one, two := signer(signingSecret(1)), signer(signingSecret(2))
	made := keyMade(at("08:00"), one)
	due := at("08:00").Add(domain.SigningPeriod)
	revoked := func(when domain.Instant, k domain.SigningKey) domain.Event {
		return domain.SigningKeyRevoked{Stamp: domain.Stamp{At: when}, KeyID: k.ID}
	}
	first := domain.MakeSigningKey{Secret: signingSecret(1), OnlyFirst: true}
	run(t, map[string]domaintest.Scenario{
		"has nothing due before it is": {Kind: k, Now: at("23:00")},
		"makes the first":              {Kind: k, Now: at("08:00"), When: first, Then: list(made)},
		"makes the first once":         {Kind: k, Given: list(made), Now: at("09:00"), When: domain.MakeSigningKey{Secret: signingSecret(2), OnlyFirst: true}},
		"rotates to the next that is published": {
			Kind: k, Given: list(made), Now: at("09:00"), When: domain.MakeSigningKey{Secret: signingSecret(2)}, Then: list(keyMade(at("09:00"), one.Next())),
		},
		// Such a history was recorded when a rotation by hand had a fresh secret.
		"rotates to the next of a key that does not follow from the one before": {
			Kind: k, Given: list(made, keyMade(at("09:00"), two)), Now: at("10:00"), When: domain.MakeSigningKey{}, Then: list(keyMade(at("10:00"), two.Next())),
		},
		"keeps a key for its period":    {Kind: k, Given: list(made), Now: due - 1},
		"makes the next when it is due": {Kind: k, Given: list(made), Now: due, Then: list(keyMade(due, one.Next()))},
		// It cannot have signed before it was made.
		"makes one after a long outage, dated now": {
			Kind: k, Given: list(made), Now: due.Add(10 * domain.SigningPeriod), Then: list(keyMade(due.Add(10*domain.SigningPeriod), one.Next())),
		},
		"revokes one that is retired": {
			Kind: k, Given: list(made, keyMade(at("09:00"), two)), Now: at("10:00"),
			When: domain.RevokeSigningKey{KeyID: one.ID, Secret: signingSecret(3)}, Then: list(revoked(at("10:00"), one)),
		},
		// A thief of the revoked key's secret knows the next key.
		"revokes the key that signs, and a fresh one takes its place": {
			Kind: k, Given: list(made), Now: at("10:00"), When: domain.RevokeSigningKey{KeyID: one.ID, Secret: signingSecret(2)},
			Then: list(keyMade(at("10:00"), two), revoked(at("10:00"), one)),
		},
		"revokes one once": {
			Kind: k, Given: list(made, keyMade(at("09:00"), two), revoked(at("09:00"), one)), Now: at("10:00"),
			When: domain.RevokeSigningKey{KeyID: one.ID}, Refused: domain.KeyNotFound,
		},
		"does not know the key":         {Kind: k, Given: list(made), Now: at("10:00"), When: domain.RevokeSigningKey{KeyID: "x"}, Refused: domain.KeyNotFound},
		"is not there for a revocation": {Kind: k, Now: at("10:00"), When: domain.RevokeSigningKey{KeyID: one.ID}, Refused: domain.KeyNotFound},
		"has no clock that runs back":   {Kind: k, Given: list(made), Now: at("07:00"), When: domain.MakeSigningKey{Secret: signingSecret(2)}, Then: list(keyMade(at("08:00"), one.Next()))},
		"takes no command of a queue":   {Kind: k, Given: list(made), Now: at("09:00"), When: domain.Delete{}, Refused: domain.InvalidTransition},
	})
}

// The holder of a key's secret can compute the next key in advance. The holder of only
// the private key cannot.
func TestSigningKey_next(t *testing.T) {
	t.Parallel()
	k := signer(signingSecret(1))
	next := k.Next()
	if next.ID == k.ID || next.ID != k.Next().ID || next.Next().ID == k.ID {
		t.Errorf("%s, then %s, then %s", k.ID, next.ID, next.Next().ID)
	}
	if raw, err := hex.DecodeString(k.Secret.Plain); err != nil || bytes.Contains(k.Private(), raw) {
		t.Errorf("the private half tells the secret, %v", err)
	}
	if !ed25519.Verify(k.Public(), []byte("text"), ed25519.Sign(k.Private(), []byte("text"))) {
		t.Error("the halves do not belong together")
	}
}

// Without the retry in freshSigningKey, one of 64 ids would begin with a dash. Such an
// id could not be given to lotline signing revoke.
func TestSigningKey_theIDIsNotTakenForAFlag(t *testing.T) {
	t.Parallel()
	for n := range byte(255) { // of which four would
		if k := signer(signingSecret(n)); k.ID[0] == '-' || k.Next().ID[0] == '-' {
			t.Errorf("%s, then %s", k.ID, k.Next().ID)
		}
	}
}

// docs/integrity.md shows this example. RFC 8037 has the thumbprint of another key.
func TestSigningKey_theDocumentedExample(t *testing.T) {
	t.Parallel()
	k := signer([32]byte{})
	got := [3]string{k.ID, base64url(k.Public()), k.Next().ID}
	if want := documentedSigningKey; got != want {
		t.Errorf("got %q", got)
	}
}

// documentedSigningKey is the id and the public half of the key whose secret is 32 zero
// bytes, and the id of the next.
var documentedSigningKey = [3]string{
	"LinmsFmpIQ25O248shTteJ8Xrm5i__cMK0pWwgP-Lcs", "ioCfphm-DLlvTgyfpEF6qggR9dxO51PW5oNCDgyk2u8", "dLertDYR62eer6Hgi0yDMbMBWOhl0Tt38oZnxqcZUg8",
}

func base64url(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Signer finds the key that signs a token issued at a time. Signs says whether a key
// may have signed it.
func TestSigningKeys_signer(t *testing.T) {
	t.Parallel()
	one, two, three := signer(signingSecret(1)), signer(signingSecret(2)), signer(signingSecret(3))
	s := domaintest.Fold(t, domain.KindSigning, list(
		keyMade(at("08:00"), one), keyMade(at("10:00"), two), keyMade(at("12:00"), three),
		domain.SigningKeyRevoked{Stamp: stamp("13:00"), KeyID: two.ID},
	)).Aggregate.(*domain.SigningKeys)
	for when, want := range map[string]domain.SigningKey{
		"07:59": three, // none signed then
		"08:00": one,
		"09:59": one,
		"10:00": three, // two did, which is revoked
		"12:00": three,
		"20:00": three,
	} {
		if k, ok := s.Signer(at(when)); !ok || k.ID != want.ID {
			t.Errorf("%s: %+v", when, k)
		}
	}
	retired := at("10:00").Add(domain.SigningGrace)
	if !s.Keys[0].Signs(retired-1) || s.Keys[0].Signs(retired) {
		t.Error("a retired key signs for longer, or not as long, as the grace")
	}
	if s.Keys[1].Signs(at("10:00")) {
		t.Error("a revoked key signs")
	}
	if !s.Keys[2].Signs(at("12:00").Add(1000 * time.Hour)) {
		t.Error("the current key does not sign")
	}
	if _, ok := (&domain.SigningKeys{}).Signer(at("08:00")); ok {
		t.Error("there is a key before the first")
	}
}

// A key is kept as long as a token that it signed may be valid, and then removed.
func TestSigningKeys_areForgottenWhenNothingTheySignedIsGood(t *testing.T) {
	t.Parallel()
	one, two, three := signer(signingSecret(1)), signer(signingSecret(2)), signer(signingSecret(3))
	last := at("09:00").Add(domain.SigningGrace + domain.LongestToken) // of what one signed
	for when, want := range map[domain.Instant]int{last - 1: 3, last: 2} {
		s := domaintest.Fold(t, domain.KindSigning, list(keyMade(at("08:00"), one), keyMade(at("09:00"), two), keyMade(when, three))).Aggregate.(*domain.SigningKeys)
		if len(s.Keys) != want {
			t.Errorf("%d keys", len(s.Keys))
		}
	}
}

// TestLaws_signingKeys sends random commands to the keys. Once there is a key, there is
// always one that signs. A key ends only once. Replaying the log gives the same state.
func TestLaws_signingKeys(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		h := domain.NewHistory(domain.SigningStream)
		var log []domain.Event
		now := at("08:00")
		for range rapid.IntRange(0, 25).Draw(t, "commands") {
			now = now.Add(rapid.SampledFrom([]time.Duration{0, time.Minute, 29 * 24 * time.Hour, 40 * 24 * time.Hour, 400 * 24 * time.Hour, -time.Hour}).Draw(t, "jump"))
			counts := h.At(now)
			due, err := domaintest.Advance(h, counts)
			if err != nil {
				t.Fatal(err)
			}
			log = append(log, due...)
			s := h.Aggregate.(*domain.SigningKeys)
			var cmd domain.Command = domain.MakeSigningKey{
				Secret: signingSecret(byte(len(log))), OnlyFirst: rapid.Bool().Draw(t, "only first"),
			}
			if len(s.Keys) > 0 && rapid.Bool().Draw(t, "revoke") {
				cmd = domain.RevokeSigningKey{KeyID: rapid.SampledFrom(s.Keys).Draw(t, "key").ID, Secret: signingSecret(byte(len(log)))}
			}
			before := h.Fork().Aggregate.(*domain.SigningKeys)
			events, err := domaintest.Carry(h, counts, cmd)
			if _, refused := errors.AsType[*domain.Error](err); err != nil && !refused {
				t.Fatal(err)
			}
			log = append(log, events...)
			s = h.Aggregate.(*domain.SigningKeys)
			for i, k := range s.Keys {
				if last := i == len(s.Keys)-1; last != (k.RetiredAt == 0) || last && k.RevokedAt != 0 {
					t.Fatalf("key %d of %d: %+v", i, len(s.Keys), k)
				}
				for _, was := range before.Keys {
					if was.ID == k.ID && was.RevokedAt != 0 && was != k {
						t.Fatalf("%+v was %+v", k, was)
					}
				}
			}
			if wake := s.Wake(); wake != 0 && wake <= counts {
				t.Fatalf("at %s there is more due at %s", counts, wake)
			}
		}
		if got := domaintest.Fold(t, domain.KindSigning, log).Aggregate; !reflect.DeepEqual(got, h.Aggregate) {
			t.Fatalf("replayed\n%+v, live\n%+v", got, h.Aggregate)
		}
	})
}
