package crowd

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/lotline/lotline/domain"
)

// tokenClaims are the claims of an admission token. Nothing here checks its signature.
type tokenClaims struct {
	ID      string `json:"jti"`
	Subject string `json:"sub"`
	Expires int64  `json:"exp"`
}

// end is the time from which on the token is invalid.
func (t tokenClaims) end() domain.Instant { return domain.Instant(t.Expires * 1000) }

// claimsOf returns the claims of a token. It returns empty claims if the text is no token.
func claimsOf(token string) (c tokenClaims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(text, &c) != nil {
		return tokenClaims{}
	}
	return c
}
