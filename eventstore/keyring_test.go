package eventstore

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
)

func testKeyring(t testing.TB, b byte) *Keyring {
	t.Helper()
	k, err := NewKeyring(bytes.Repeat([]byte{b}, MasterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeyring_opensOnlyAtItsPlaceAndUnderItsKey(t *testing.T) {
	t.Parallel()
	k := testKeyring(t, 1)
	sealed := k.Seal("draw-1", "draw.created", "secret", "s3cret")
	if strings.Contains(sealed, "s3cret") {
		t.Error("the sealed form shows the secret")
	}
	if sealed == k.Seal("draw-1", "draw.created", "secret", "s3cret") {
		t.Error("sealing twice gives the same form: the nonce is not fresh")
	}
	if plain, err := k.Open("draw-1", "draw.created", "secret", sealed); err != nil || plain != "s3cret" {
		t.Errorf("opened as %q, %v", plain, err)
	}
	for name, open := range map[string]func() (string, error){
		"another stream": func() (string, error) { return k.Open("draw-2", "draw.created", "secret", sealed) },
		"another type":   func() (string, error) { return k.Open("draw-1", "draw.drawn", "secret", sealed) },
		"another field":  func() (string, error) { return k.Open("draw-1", "draw.created", "encryptionSeed", sealed) },
		"parts shifted":  func() (string, error) { return k.Open("draw-1draw", ".created", "secret", sealed) },
		"another key": func() (string, error) {
			return testKeyring(t, 2).Open("draw-1", "draw.created", "secret", sealed)
		},
		"no prefix":   func() (string, error) { return k.Open("draw-1", "draw.created", "secret", sealed[3:]) },
		"cut":         func() (string, error) { return k.Open("draw-1", "draw.created", "secret", sealed[:8]) },
		"not base64":  func() (string, error) { return k.Open("draw-1", "draw.created", "secret", "v1.***") },
		"one bit off": func() (string, error) { return k.Open("draw-1", "draw.created", "secret", flip(sealed)) },
		"empty":       func() (string, error) { return k.Open("draw-1", "draw.created", "secret", "") },
	} {
		if plain, err := open(); err == nil {
			t.Errorf("%s: opened as %q", name, plain)
		}
	}
}

func flip(sealed string) string {
	last := byte('A')
	if sealed[20] == 'A' {
		last = 'B'
	}
	return sealed[:20] + string(last) + sealed[21:]
}

const hkdfVector = "2a3ca614a9a7a8411cf810b2bc5f55e35e0d5c4d2728950d593941231c7ec1ba"

// Clients hold cursors that use derived keys, so the keys must not change. The expected
// value was computed with Python's hmac, after RFC 5869.
func TestKeyring_derivesByHKDF(t *testing.T) {
	t.Parallel()
	k := testKeyring(t, 1)
	a, err := k.Derive("http tokens v1")
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(a); got != hkdfVector {
		t.Errorf("derived %s, want %s", got, hkdfVector)
	}
	b, err := k.Derive("another purpose")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(a, b) || bytes.Contains(a, bytes.Repeat([]byte{1}, 4)) {
		t.Error("two purposes have the same key, or a derived key is the master key")
	}
}

func TestKeyring_refusesAMasterKeyOfAnotherSize(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := NewKeyring(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was accepted", n)
		}
	}
}
