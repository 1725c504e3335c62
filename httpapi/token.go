package httpapi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/lotline/lotline/domain"
)

// macSize is how much of an HMAC-SHA256 a token carries.
const macSize = 16

// tokenEncoding refuses the several spellings that the last character of plain
// base64 may have.
var tokenEncoding = base64.RawURLEncoding.Strict()

// What tokens are for. It is part of what the MAC covers, so that one is not
// taken for another.
const (
	positionToken = "lotline-position-v1"
	cursorToken   = "lotline-cursor-v1"
)

// sealToken makes an opaque token of payload. It can be opened with the same use
// and binding only, by any node with the same key.
func (s *server) sealToken(use string, binding, payload []byte) string {
	return tokenEncoding.EncodeToString(append(payload, s.mac(use, binding, payload)...))
}

// openToken returns what sealToken was given, or false for anything that it did
// not make.
func (s *server) openToken(use string, binding []byte, token string) ([]byte, bool) {
	b, err := tokenEncoding.DecodeString(token)
	// The decoder skips line breaks, however strict it is.
	if err != nil || len(b) < macSize || strings.ContainsAny(token, "\r\n") {
		return nil, false
	}
	payload, mac := b[:len(b)-macSize], b[len(b)-macSize:]
	return payload, hmac.Equal(mac, s.mac(use, binding, payload))
}

func (s *server) mac(use string, binding, payload []byte) []byte {
	parts := domain.HashParts([]byte(use), binding, payload)
	h := hmac.New(sha256.New, s.MACKey)
	h.Write(parts[:])
	return h.Sum(nil)[:macSize]
}

// formatPosition is p as a client gets it.
func (s *server) formatPosition(p domain.Position) string {
	b := make([]byte, 0, 16+macSize)
	b = binary.BigEndian.AppendUint64(b, p.Commit)
	b = binary.BigEndian.AppendUint64(b, p.Prepare)
	return s.sealToken(positionToken, nil, b)
}

// parsePosition undoes formatPosition.
func (s *server) parsePosition(token string) (domain.Position, bool) {
	b, ok := s.openToken(positionToken, nil, token)
	if !ok || len(b) != 16 {
		return domain.Position{}, false
	}
	return domain.Position{Commit: binary.BigEndian.Uint64(b), Prepare: binary.BigEndian.Uint64(b[8:])}, true
}
