package httpapi

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"strings"
	"sync"

	"github.com/lotline/lotline/domain"
)

// ivSize is how many bytes of an HMAC-SHA256 a token contains.
const ivSize = aes.BlockSize

// tokenEncoding is strict base64: it accepts only one spelling of the last character,
// where plain base64 accepts several.
var tokenEncoding = base64.RawURLEncoding.Strict()

// The uses of tokens. The use is part of the authenticated text, so a token for one use is
// not accepted for the other.
const (
	positionToken = "lotline-position-v2"
	cursorToken   = "lotline-cursor-v2"
)

// sealer makes opaque tokens that only nodes with the same key can read, make or change.
// Safe for concurrent use.
//
// It is a deterministic authenticated encryption of the SIV kind (Rogaway and Shrimpton,
// 2006): an HMAC-SHA256 of the use, the binding and the payload, cut to 16 bytes, is the
// initialization vector under which AES-256 in counter mode encrypts the payload. The same
// vector authenticates the payload. There is no nonce that could repeat. Equal payloads of
// one use and binding make equal tokens. A token reveals only that and its length.
// Security limits the number of different tokens under one key: among 2^48 tokens (90
// years of 100,000 a second), two have the same vector with a probability of 2^-33.
type sealer struct {
	block cipher.Block // encrypts payloads
	macs  sync.Pool    // of hash.Hash; each is an HMAC, under a different key than block
}

// newSealer returns the sealer for a key of any length.
func newSealer(key []byte) *sealer {
	block, err := aes.NewCipher(deriveKey(key, "lotline token encryption v2"))
	if err != nil {
		panic("AES-256 refuses a key of 32 bytes: " + err.Error())
	}
	s := &sealer{block: block}
	macKey := deriveKey(key, "lotline token authentication v2")
	s.macs.New = func() any { return hmac.New(sha256.New, macKey) }
	return s
}

// deriveKey derives the 32-byte key for a purpose from key (RFC 5869).
func deriveKey(key []byte, purpose string) []byte {
	derived, err := hkdf.Key(sha256.New, key, nil, purpose, 32)
	if err != nil {
		panic("HKDF cannot derive 32 bytes: " + err.Error())
	}
	return derived
}

// seal makes a token from payload. Only open with the same use and binding accepts it.
func (s *sealer) seal(use, binding string, payload []byte) string {
	token := make([]byte, ivSize+len(payload))
	iv, sealed := token[:ivSize], token[ivSize:]
	s.authenticate(iv, use, binding, payload)
	cipher.NewCTR(s.block, iv).XORKeyStream(sealed, payload)
	return tokenEncoding.EncodeToString(token)
}

// open returns the payload that seal made the token from. It returns false for a token that
// seal did not make for this use and binding.
func (s *sealer) open(use, binding, token string) ([]byte, bool) {
	b, err := tokenEncoding.DecodeString(token)
	// Even the strict decoder ignores line breaks.
	if err != nil || len(b) < ivSize || strings.ContainsAny(token, "\r\n") {
		return nil, false
	}
	iv, payload := b[:ivSize], b[ivSize:]
	cipher.NewCTR(s.block, iv).XORKeyStream(payload, payload)
	var want [ivSize]byte
	s.authenticate(want[:], use, binding, payload)
	return payload, hmac.Equal(iv, want[:])
}

// authenticate writes the authentication code of use, binding and payload into iv. In the
// authenticated text, use and binding each follow their length, so that no two
// combinations give the same text.
func (s *sealer) authenticate(iv []byte, use, binding string, payload []byte) {
	text := make([]byte, 0, 128)
	for _, part := range [...]string{use, binding} {
		text = binary.BigEndian.AppendUint64(text, uint64(len(part)))
		text = append(text, part...)
	}
	text = append(text, payload...)
	mac := s.macs.Get().(hash.Hash)
	defer s.macs.Put(mac)
	mac.Reset()
	mac.Write(text)
	copy(iv, mac.Sum(text[:0]))
}

// formatPosition returns a position as an opaque token for an organization's clients. A
// plain position would reveal how many events all organizations together have written.
// The token reveals no number, and organizations cannot compare their tokens.
func (s *server) formatPosition(organization domain.ID, p domain.Position) string {
	b := make([]byte, 0, 16)
	b = binary.BigEndian.AppendUint64(b, p.Commit)
	b = binary.BigEndian.AppendUint64(b, p.Prepare)
	return s.sealer.seal(positionToken, string(organization), b)
}

// parsePosition reads a token of formatPosition. It returns false for any other text, and
// for a token of another organization.
func (s *server) parsePosition(organization domain.ID, token string) (domain.Position, bool) {
	b, ok := s.sealer.open(positionToken, string(organization), token)
	if !ok || len(b) != 16 {
		return domain.Position{}, false
	}
	return domain.Position{Commit: binary.BigEndian.Uint64(b), Prepare: binary.BigEndian.Uint64(b[8:])}, true
}
