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

// ivSize is how much of an HMAC-SHA256 a token carries.
const ivSize = aes.BlockSize

// tokenEncoding refuses the several spellings that the last character of plain
// base64 may have.
var tokenEncoding = base64.RawURLEncoding.Strict()

// What tokens are for. It is part of what is authenticated, so that a token for one use
// is not accepted for the other.
const (
	positionToken = "lotline-position-v2"
	cursorToken   = "lotline-cursor-v2"
)

// sealer makes opaque tokens: nobody else can read, make or change one. Every node with
// the same key opens them. Safe for concurrent use.
//
// It is a deterministic authenticated encryption of the SIV kind (Rogaway and Shrimpton,
// 2006): an HMAC-SHA256 of the use, the binding and the payload, cut to 16 bytes, is the
// initialization vector under which AES-256 in counter mode encrypts the payload, and is
// what authenticates it. There is no nonce that could repeat. Equal payloads of one use
// and binding make equal tokens, and that is all that a token tells beside its length.
// The bound is on the number of different tokens under one key: of 2^48 (90 years of
// 100,000 a second), two have the same vector with a probability of 2^-33.
type sealer struct {
	block cipher.Block // encrypts payloads
	macs  sync.Pool    // of hash.Hash, each an HMAC under a key of its own
}

func newSealer(key []byte) *sealer {
	block, err := aes.NewCipher(deriveKey(key, "lotline token encryption v2"))
	if err != nil {
		panic("a key of AES-256 has 32 bytes: " + err.Error())
	}
	s := &sealer{block: block}
	macKey := deriveKey(key, "lotline token authentication v2")
	s.macs.New = func() any { return hmac.New(sha256.New, macKey) }
	return s
}

// deriveKey is the 32-byte key for a purpose (RFC 5869).
func deriveKey(key []byte, purpose string) []byte {
	derived, err := hkdf.Key(sha256.New, key, nil, purpose, 32)
	if err != nil {
		panic("HKDF has 32 bytes to give: " + err.Error())
	}
	return derived
}

// seal makes a token of payload. It opens with the same use and binding only.
func (s *sealer) seal(use, binding string, payload []byte) string {
	token := make([]byte, ivSize+len(payload))
	iv, sealed := token[:ivSize], token[ivSize:]
	s.authenticate(iv, use, binding, payload)
	cipher.NewCTR(s.block, iv).XORKeyStream(sealed, payload)
	return tokenEncoding.EncodeToString(token)
}

// open returns the payload that seal was given, or false for anything that seal did not
// make.
func (s *sealer) open(use, binding, token string) ([]byte, bool) {
	b, err := tokenEncoding.DecodeString(token)
	// The decoder skips line breaks, however strict it is.
	if err != nil || len(b) < ivSize || strings.ContainsAny(token, "\r\n") {
		return nil, false
	}
	iv, payload := b[:ivSize], b[ivSize:]
	cipher.NewCTR(s.block, iv).XORKeyStream(payload, payload)
	var want [ivSize]byte
	s.authenticate(want[:], use, binding, payload)
	return payload, hmac.Equal(iv, want[:])
}

// authenticate writes into iv what only payload has for this use and binding. Each part
// of the HMAC's text but the last has its length in front.
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

// formatPosition is a position as an organization's clients get it. Positions count the
// events of all organizations, so it tells no number, and other organizations cannot
// compare it with theirs.
func (s *server) formatPosition(organization domain.ID, p domain.Position) string {
	b := make([]byte, 0, 16)
	b = binary.BigEndian.AppendUint64(b, p.Commit)
	b = binary.BigEndian.AppendUint64(b, p.Prepare)
	return s.sealer.seal(positionToken, string(organization), b)
}

// parsePosition undoes formatPosition.
func (s *server) parsePosition(organization domain.ID, token string) (domain.Position, bool) {
	b, ok := s.sealer.open(positionToken, string(organization), token)
	if !ok || len(b) != 16 {
		return domain.Position{}, false
	}
	return domain.Position{Commit: binary.BigEndian.Uint64(b), Prepare: binary.BigEndian.Uint64(b[8:])}, true
}
