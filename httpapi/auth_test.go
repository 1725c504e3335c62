package httpapi

import (
	"net/http"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

func TestAuthentication_acceptsASecretKeyOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	without := func(r *http.Request) { r.Header.Del("Authorization") }
	bearer := func(v ...string) option { return header("Authorization", v...) }
	const required, secret = "Authentication required", "Secret key required"
	token := w.session("c")
	for name, c := range map[string]struct {
		options []option
		text    string // "" if the key is accepted
	}{
		"a key for tests":                       {[]option{key(myKey)}, ""},
		"a live key":                            {[]option{key(mySecond)}, ""},
		"the scheme in lower case":              {[]option{bearer("bearer " + myKey)}, ""},
		"a publishable key beside a secret one": {[]option{key(myKey), header("X-Publishable-Key", myPublic)}, ""},
		"nothing":                               {[]option{without}, required},
		"an unknown key":                        {[]option{key(unknownKey)}, required},
		"a revoked key":                         {[]option{key(myRevoked)}, required},
		"a key with a blank behind it":          {[]option{key(myKey + " ")}, required},
		"a scheme alone":                        {[]option{bearer("Bearer ")}, required},
		"another scheme":                        {[]option{bearer("Basic c2s6eA==")}, required},
		"two keys":                              {[]option{bearer("Bearer "+myKey, "Bearer "+myKey)}, required},
		"an empty header":                       {[]option{bearer("")}, required},
		"a publishable key":                     {[]option{without, header("X-Publishable-Key", myPublic)}, secret},
		"a publishable key as bearer":           {[]option{key(myPublic)}, secret},
		"a token":                               {[]option{key(token)}, secret},
		"a token beside a publishable key":      {[]option{as(token)}, secret},
		"a token and X-Consumer-Id":             {[]option{as(token), header("X-Consumer-Id", "c")}, secret},
		"a token that nobody signed":            {[]option{key("eyJhbGciOiJFZERTQSJ9.e30.c2ln")}, required},
		"half a token":                          {[]option{key(token[:len(token)/2])}, required},
		"half a token beside a publishable key": {[]option{as(token[:len(token)/2])}, required},
		"an unknown publishable key":            {[]option{without, header("X-Publishable-Key", "pk_live_nobody")}, required},
		"an unknown publishable key as bearer":  {[]option{key("pk_live_nobody0000000000000000000000")}, required},
		"an empty publishable key":              {[]option{without, header("X-Publishable-Key", "")}, required},
		"two publishable keys":                  {[]option{without, header("X-Publishable-Key", myPublic, myPublic)}, required},
		"a secret key as publishable key":       {[]option{without, header("X-Publishable-Key", myKey)}, required},
		"letters":                               {[]option{key("x")}, required},
		"two words":                             {[]option{key("x y")}, required},
		"two words beside a publishable key":    {[]option{key("x y"), header("X-Publishable-Key", myPublic)}, required},
		"a key and a word":                      {[]option{key(myKey + " y")}, required},
		"a key and a tab":                       {[]option{key(myKey + "\ty")}, required},
		"a publishable key and a word":          {[]option{key(myPublic + " y")}, required},
		"a token and a word":                    {[]option{key(token + " y")}, required},
		"two keys in one line":                  {[]option{bearer("Bearer " + myKey + ", Bearer " + myKey)}, required},
		"two keys after one scheme":             {[]option{bearer("Bearer " + myKey + "," + myKey)}, required},
		"no scheme":                             {[]option{bearer(myKey)}, required},
		"a scheme and no blank":                 {[]option{bearer("Bearer" + myKey)}, required},
		"another scheme with a key":             {[]option{bearer("Token " + myKey)}, required},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for method, path := range map[string]string{
				http.MethodGet:  "/api/v1/queues",
				http.MethodPost: "/api/v1/queues/x/open",
				http.MethodPut:  "/api/v1/draws/x/entropy",
			} {
				a := w.do(method, path, "", c.options...)
				if c.text == "" && a.Code == http.StatusUnauthorized {
					t.Errorf("%s: %s", a.what, a.Body)
				}
				if c.text == "" {
					continue
				}
				a.refuses(http.StatusUnauthorized, c.text)
				if got := a.Header().Get("WWW-Authenticate"); got != "Bearer" {
					t.Errorf("WWW-Authenticate: %q", got)
				}
			}
		})
	}
}

// A publishable key whose text begins like a secret key's is still publishable.
func TestAuthentication_thePrefixDoesNotMakeAKeySecret(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const disguised = "sk_live_disguised0000000000000000000"
	w.happens(w.mine.Stream(), domain.KeyCreated{
		Stamp: domain.Stamp{At: domain.InstantOf(w.config.Clock())}, KeyID: "key_1", Level: domain.PublishableKey, Hash: domain.KeyHash(disguised),
	})
	w.do(http.MethodGet, "/api/v1/queues", "", key(disguised)).refuses(http.StatusUnauthorized, "Secret key required")
}

// liar is a view that returns the same credential for every hash.
type liar struct {
	Views
	found projections.Credential
}

func (l liar) Credential(string) (projections.Credential, bool) { return l.found, true }

func TestAuthentication_aKeyFoundUnderAWrongHashIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Views = liar{w.views, projections.Credential{OrganizationID: w.mine, KeyID: w.myKeyID, Level: domain.SecretKey}}
	w.api = New(w.config)
	w.do(http.MethodGet, "/api/v1/queues", "", key(unknownKey)).refuses(http.StatusUnauthorized, "Authentication required")
	w.do(http.MethodGet, "/api/v1/queues", "", key(mySecond)).refuses(http.StatusUnauthorized, "Authentication required")
	w.do(http.MethodGet, "/api/v1/queues", "", key(myKey)).is(http.StatusOK)
}

// The credential and the organization are looked up one after the other. A key may be
// revoked between the two.
func TestAuthentication_aKeyRevokedBetweenTheLookupsIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.Views = liar{w.views, projections.Credential{OrganizationID: w.mine, KeyID: w.revokedID, Level: domain.SecretKey}}
	w.api = New(w.config)
	w.do(http.MethodGet, "/api/v1/queues", "", key(myRevoked)).refuses(http.StatusUnauthorized, "Authentication required")
}

// RFC 6750 allows one or more blanks between the scheme and the key.
func TestAuthentication_blanksBeforeTheKeyAreNotPartOfIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, blanked := range []string{"Bearer  " + myKey, "bearer   " + myKey} {
		w.do(http.MethodGet, "/api/v1/queues", "", header("Authorization", blanked)).is(http.StatusOK)
	}
	for _, blanked := range []string{"Bearer ", "Bearer   ", "Bearer"} {
		w.do(http.MethodGet, "/api/v1/queues", "", header("Authorization", blanked)).refuses(http.StatusUnauthorized, "Authentication required")
	}
}
