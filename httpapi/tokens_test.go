package httpapi

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

const (
	guestAt    = "/api/v1/auth/guest"
	consumerAt = "/api/v1/auth/consumer"
	keySetAt   = "/.well-known/jwks.json"
	actAt      = "/api/v1/act" // a path where a consumer acts, for these tests only
)

// newActors returns a world with an additional call that requires a consumer. It answers the
// consumer, and the caller that events would record.
func newActors(t *testing.T, change ...func(*Config)) *world {
	t.Helper()
	w := newWorld(t, change...)
	w.key(w.other, domain.PublishableKey, otherPublic)
	w.letConsumersAct()
	return w
}

func (w *world) letConsumersAct() {
	s := newServer(w.config)
	s.handle(actAt, s.consumer(methods{http.MethodPost: func(x *exchange, r *http.Request) error {
		command, err := idempotencyKey(x, r)
		if err != nil {
			return err
		}
		x.json(r, http.StatusOK, typeJSON, encode(map[string]any{
			"organization": x.organization.ID, "consumer": x.consumer, "caller": x.caller(), "command": command,
		}))
		return nil
	}}))
	w.api, w.undocumented = s, true
}

// session opens a session for a consumer and returns the access token.
func (w *world) session(consumer string, options ...option) string {
	w.tb.Helper()
	a := w.do(http.MethodPost, consumerAt, `{"consumerId":"`+consumer+`"}`, options...).is(http.StatusCreated)
	return a.object()["accessToken"].(string)
}

// as makes a request send a consumer's token with the organization's publishable key.
func as(token string) option {
	return func(r *http.Request) {
		publishable(myPublic)(r)
		key(token)(r)
	}
}

func (w *world) signingKey() domain.SigningKey {
	w.tb.Helper()
	keys, err := w.views.SigningKeys()
	if err != nil {
		w.tb.Fatal(err)
	}
	k, _ := keys.Current()
	return k
}

// forge makes a token from any header and claims, signed by sign.
func forge(headers, claims map[string]any, sign func(text string) []byte) string {
	text := base64.RawURLEncoding.EncodeToString(encode(headers)) + "." + base64.RawURLEncoding.EncodeToString(encode(claims))
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

func TestSession_aGuestActs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodPost, guestAt, "", publishable(myPublic)).is(http.StatusCreated)
	a.wants(map[string]any{"expiresAt": "2026-03-01T13:00:00.000Z"})
	if got := a.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	guest, token := a.object()["consumerId"].(string), a.object()["accessToken"].(string)
	if _, ok := domain.ParseID("guest", guest); !ok {
		t.Errorf("the consumer is %q", guest)
	}
	another := w.do(http.MethodPost, guestAt, "{}", publishable(myPublic)).is(http.StatusCreated).object()["consumerId"]
	if another == guest {
		t.Errorf("two guests are %q", guest)
	}
	w.letConsumersAct()
	w.do(http.MethodPost, actAt, "", as(token)).is(http.StatusOK).wants(map[string]any{"consumer": guest, "organization": string(w.mine)})
}

func TestSession_anAuthenticatedConsumerActs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	token := w.session("customer-4711")
	w.letConsumersAct()
	a := w.do(http.MethodPost, actAt, "", as(token)).is(http.StatusOK)
	a.wants(map[string]any{"consumer": "customer-4711"})
	if got := a.object()["caller"].(map[string]any)["Actor"]; got != domain.ActorConsumer {
		t.Errorf("the actor is %q", got)
	}
}

func TestSession_aBadRequestIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	long := strings.Repeat("x", domain.MaxConsumerID+1)
	for _, body := range []string{`{}`, `{"consumerId":""}`, `{"consumerId":null}`, `{"consumerId":7}`, `{"consumerId":"a b"}`, `{"consumerId":"ü"}`, `{"consumerId":"` + long + `"}`} {
		w.do(http.MethodPost, consumerAt, body).blames("consumerId")
	}
	w.do(http.MethodPost, consumerAt, `{"colour":1}`).blames("consumerId", "colour")
	w.do(http.MethodPost, consumerAt, `{"consumerId":"x","colour":1}`).blames("colour")
	w.do(http.MethodPost, consumerAt, `[]`).refuses(http.StatusBadRequest, "Invalid JSON")
	w.do(http.MethodPost, consumerAt, `{"consumerId":"x"}`, publishable(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
	w.do(http.MethodPost, guestAt, `{"colour":1}`, publishable(myPublic)).blames("colour")
	w.do(http.MethodPost, guestAt, ``, publishable("pk_live_nobody")).refuses(http.StatusUnauthorized, "Authentication required")
	w.do(http.MethodPost, guestAt+"?x=1", ``).blames("x")
	w.do(http.MethodPost, guestAt, ``).is(http.StatusCreated) // a secret key is accepted where a publishable one is
	w.session(long[1:])
}

// Opening a session ignores Idempotency-Key, because it writes no event.
func TestSession_isNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := w.log.count
	again := header("Idempotency-Key", "1")
	first := w.do(http.MethodPost, guestAt, "", publishable(myPublic), again).is(http.StatusCreated).object()
	second := w.do(http.MethodPost, guestAt, "", publishable(myPublic), again).is(http.StatusCreated).object()
	if first["consumerId"] == second["consumerId"] {
		t.Error("two guests share a session")
	}
	if w.log.count != before {
		t.Errorf("%d events", w.log.count-before)
	}
}

func TestConsumer_aSecretKeyActsForOne(t *testing.T) {
	t.Parallel()
	w := newActors(t)
	actsFor := func(ids ...string) option { return header("X-Consumer-Id", ids...) }
	a := w.do(http.MethodPost, actAt, "", actsFor("c-1")).is(http.StatusOK)
	a.wants(map[string]any{"consumer": "c-1", "organization": string(w.mine)})
	caller := a.object()["caller"].(map[string]any)
	if caller["Actor"] != string(w.myKeyID) || caller["OnBehalfOf"] != "c-1" {
		t.Errorf("the caller is %v", caller)
	}
	w.do(http.MethodPost, actAt, "").refuses(http.StatusBadRequest, "Consumer ID is required")
	w.do(http.MethodPost, actAt, "", actsFor("")).blames("X-Consumer-Id")
	w.do(http.MethodPost, actAt, "", actsFor("a b")).blames("X-Consumer-Id")
	w.do(http.MethodPost, actAt, "", actsFor("a", "b")).blames("X-Consumer-Id")
	w.do(http.MethodPost, actAt, "", actsFor(strings.Repeat("x", domain.MaxConsumerID+1))).blames("X-Consumer-Id")
	w.do(http.MethodPost, actAt, "", as(w.session("c-1")), actsFor("c-1")).blames("X-Consumer-Id")
	w.do(http.MethodPost, actAt, "", key(unknownKey), actsFor("c-1")).refuses(http.StatusUnauthorized, "Authentication required")
}

// The same Idempotency-Key from two consumers is two keys. It makes no difference whether the
// consumer sends it or a secret key that acts for the consumer.
func TestConsumer_hasItsOwnIdempotencyKeys(t *testing.T) {
	t.Parallel()
	w := newActors(t)
	commands := map[any]bool{}
	again := header("Idempotency-Key", "1")
	for _, o := range []option{
		as(w.session("a")), as(w.session("b")), header("X-Consumer-Id", "a"), header("X-Consumer-Id", "b"), as(w.session("a")),
	} {
		commands[w.do(http.MethodPost, actAt, "", o, again).is(http.StatusOK).object()["command"]] = true
	}
	if len(commands) != 2 {
		t.Errorf("commands: %v", commands)
	}
}

func TestConsumer_credentials(t *testing.T) {
	t.Parallel()
	w := newActors(t)
	w.key(w.mine, domain.PublishableKey, "pk_test_mine4444444444444444444444444")
	mine, theirs := w.session("c"), w.session("c", key(otherKey))
	signer := w.signingKey()
	private, public := signer.Private(), signer.Public()
	now := w.config.Clock()
	headers := func(changes ...any) map[string]any {
		return with(map[string]any{"alg": "EdDSA", "typ": "JWT", "kid": signer.ID}, changes...)
	}
	claims := func(changes ...any) map[string]any {
		return with(map[string]any{
			"iss": "lotline", "sub": "c", "org": w.mine, "aud": "lotline:access", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		}, changes...)
	}
	right := func(text string) []byte { return ed25519.Sign(private, []byte(text)) }
	_, stranger, _ := ed25519.GenerateKey(nil)
	wrong := func(text string) []byte { return ed25519.Sign(stranger, []byte(text)) }
	none := func(string) []byte { return nil }
	hs256 := func(text string) []byte {
		h := hmac.New(sha256.New, public)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	grant := func(use tokens.Use) string {
		at := domain.InstantOf(now)
		token, err := tokens.New(w.views).Sign(tokens.NewGrant(w.mine, domain.Grant{
			Use: domain.GrantUse(use), Consumer: "c", Distribution: "queue_1", From: at, Until: at.Add(time.Hour),
		}))
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	dot := strings.LastIndexByte(mine, '.')
	const required = "Authentication required"
	for name, c := range map[string]struct {
		options []option
		text    string // "" if the credentials are accepted
	}{
		"his own":                           {[]option{as(mine)}, ""},
		"with another key of the same":      {[]option{as(mine), header("X-Publishable-Key", "pk_test_mine4444444444444444444444444")}, ""},
		"made as we make them":              {[]option{as(forge(headers(), claims(), right))}, ""},
		"the scheme in lower case":          {[]option{as(mine), header("Authorization", "bearer "+mine)}, ""},
		"none":                              {[]option{publishable(myPublic)}, required},
		"no key beside it":                  {[]option{key(mine)}, required},
		"an unknown key beside it":          {[]option{as(mine), header("X-Publishable-Key", "pk_live_nobody")}, required},
		"two keys beside it":                {[]option{as(mine), header("X-Publishable-Key", myPublic, myPublic)}, required},
		"another organization's key":        {[]option{as(mine), header("X-Publishable-Key", otherPublic)}, required},
		"another organization's":            {[]option{as(theirs)}, required},
		"another organization's, as is due": {[]option{as(theirs), header("X-Publishable-Key", otherPublic)}, ""},
		"two":                               {[]option{as(mine), header("Authorization", "Bearer "+mine, "Bearer "+mine)}, required},
		"another scheme":                    {[]option{as(mine), header("Authorization", "Basic "+mine)}, required},
		"the publishable key":               {[]option{as(myPublic)}, required},
		"a blank behind it":                 {[]option{as(mine + " ")}, required},
		"one of three parts missing":        {[]option{as(mine[:dot])}, required},
		"a part too many":                   {[]option{as(mine + ".e30")}, required},
		"padding":                           {[]option{as(mine + "=")}, required},
		"another spelling of the signature": {[]option{as(mine[:len(mine)-1] + string(mine[len(mine)-1]+1))}, required},
		"no signature":                      {[]option{as(mine[:dot+1])}, required},
		"a line break within":               {[]option{as(mine[:dot] + "\n" + mine[dot:])}, required},
		"too long":                          {[]option{as(forge(headers(), claims("x", strings.Repeat("x", 2048)), right))}, required},
		"expired":                           {[]option{as(forge(headers(), claims("exp", now.Unix()), right))}, required},
		"without an end":                    {[]option{as(forge(headers(), claims("exp", nil), right))}, required},
		"without a beginning":               {[]option{as(forge(headers(), claims("iat", nil), right))}, required},
		"without a consumer":                {[]option{as(forge(headers(), claims("sub", ""), right))}, required},
		"without an organization":           {[]option{as(forge(headers(), claims("org", nil), right))}, required},
		"of another issuer":                 {[]option{as(forge(headers(), claims("iss", "https://lotline"), right))}, required},
		"of no use":                         {[]option{as(forge(headers(), claims("aud", nil), right))}, required},
		"of several uses":                   {[]option{as(forge(headers(), claims("aud", []string{"lotline:access"}), right))}, required},
		"an admission":                      {[]option{as(grant(tokens.Admission))}, required},
		"a payment":                         {[]option{as(grant(tokens.Payment))}, required},
		"claims that are none":              {[]option{as(forge(headers(), nil, right))}, required},
		"a time that is none":               {[]option{as(forge(headers(), claims("exp", 1e300), right))}, required},
		"forged":                            {[]option{as(forge(headers(), claims("sub", "d"), func(string) []byte { return signatureOf(mine) }))}, required},
		"by a stranger's key":               {[]option{as(forge(headers(), claims(), wrong))}, required},
		"alg none":                          {[]option{as(forge(headers("alg", "none"), claims(), none))}, required},
		"alg None":                          {[]option{as(forge(headers("alg", "None"), claims(), none))}, required},
		"HS256 with the public key":         {[]option{as(forge(headers("alg", "HS256"), claims(), hs256))}, required},
		"EdDSA by name, HS256 by nature":    {[]option{as(forge(headers(), claims(), hs256))}, required},
		"ES256":                             {[]option{as(forge(headers("alg", "ES256"), claims(), right))}, required},
		"no alg":                            {[]option{as(forge(headers("alg", nil), claims(), right))}, required},
		"no key named":                      {[]option{as(forge(headers("kid", nil), claims(), right))}, required},
		"an unknown key named":              {[]option{as(forge(headers("kid", "x"), claims(), right))}, required},
		"a key named by a number":           {[]option{as(forge(headers("kid", 1), claims(), right))}, required},
		"the next key, ahead of its time": {[]option{as(forge(headers("kid", signer.Next().ID), claims(), func(text string) []byte {
			return ed25519.Sign(signer.Next().Private(), []byte(text))
		}))}, required},
		"a key of its own": {[]option{as(forge(headers("jwk", map[string]any{"kty": "OKP", "crv": "Ed25519", "x": stranger.Public()}), claims(), wrong))}, required},
		"an extension":     {[]option{as(forge(headers("crit", []string{"b64"}, "b64", true), claims(), right))}, required},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := w.do(http.MethodPost, actAt, "", c.options...)
			if c.text == "" {
				a.is(http.StatusOK).wants(map[string]any{"consumer": "c"})
				return
			}
			a.refuses(http.StatusUnauthorized, c.text)
			if got := a.Header().Get("WWW-Authenticate"); got != "Bearer" {
				t.Errorf("WWW-Authenticate: %q", got)
			}
		})
	}
	w.do(http.MethodGet, "/api/v1/queues", "", as(mine)).refuses(http.StatusUnauthorized, "Secret key required")
}

// with returns m with some members changed. nil removes a member.
func with(m map[string]any, changes ...any) map[string]any {
	for i := 0; i < len(changes); i += 2 {
		m[changes[i].(string)] = changes[i+1]
		if changes[i+1] == nil {
			delete(m, changes[i].(string))
		}
	}
	return m
}

func signatureOf(token string) []byte {
	signature, err := base64.RawURLEncoding.DecodeString(token[strings.LastIndexByte(token, '.')+1:])
	if err != nil {
		panic(err)
	}
	return signature
}

// A token that was verified before is remembered. It is refused all the same once it, its
// signing key or its publishable key is no longer valid.
func TestConsumer_whatEndsCountsForTokensThatAreRemembered(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(w *world, publishable domain.ID){
		"the token":           func(w *world, _ domain.ID) { w.advance(time.Hour) },
		"the key that signed": func(w *world, _ domain.ID) { w.sign(domain.RevokeSigningKey{KeyID: w.signingKey().ID}) },
		"the publishable key": func(w *world, id domain.ID) { w.run(w.mine, domain.RevokeKey{KeyID: id}) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newActors(t)
			const shown = "pk_live_mine5555555555555555555555555"
			id := w.key(w.mine, domain.PublishableKey, shown)
			token := w.session("c")
			w.advance(time.Hour - 1)
			for range 2 {
				w.do(http.MethodPost, actAt, "", as(token), header("X-Publishable-Key", shown)).is(http.StatusOK)
			}
			end(w, id)
			w.do(http.MethodPost, actAt, "", as(token), header("X-Publishable-Key", shown)).refuses(http.StatusUnauthorized, "Authentication required")
		})
	}
}

// A public read with a token beside the publishable key is refused if the token is invalid.
func TestConsumer_mayReadThePublicView(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodGet, path, "", as(w.session("c"))).is(http.StatusOK).wants(map[string]any{"status": "PENDING"})
	w.do(http.MethodGet, path, "", as("eyJ.eyJ.x")).refuses(http.StatusUnauthorized, "Authentication required")
}

func TestKeySet_verifiesWhatIsGivenOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	anybody := func(r *http.Request) { r.Header.Del("Authorization") }
	get := func() map[string]ed25519.PublicKey {
		a := w.do(http.MethodGet, keySetAt, "", anybody).is(http.StatusOK)
		if got := a.Header().Get("Cache-Control"); got != "public, max-age=300" {
			t.Errorf("Cache-Control %q", got)
		}
		var set struct{ Keys []struct{ Kid, X string } }
		if err := json.Unmarshal(a.Body.Bytes(), &set); err != nil {
			t.Fatal(err)
		}
		keys := map[string]ed25519.PublicKey{}
		for _, k := range set.Keys {
			raw, err := base64.RawURLEncoding.DecodeString(k.X)
			if err != nil {
				t.Fatal(err)
			}
			keys[k.Kid] = raw
		}
		return keys
	}
	verified := func(keys map[string]ed25519.PublicKey, token string) bool {
		parts := strings.Split(token, ".")
		raw, err := base64.RawURLEncoding.DecodeString(parts[0])
		if err != nil {
			t.Fatal(err)
		}
		var h struct{ Kid string }
		if err := json.Unmarshal(raw, &h); err != nil {
			t.Fatal(err)
		}
		k, ok := keys[h.Kid]
		return ok && ed25519.Verify(k, []byte(parts[0]+"."+parts[1]), signatureOf(token))
	}
	before := get()
	first := w.session("c")
	w.advance(domain.SigningPeriod)
	w.sign(domain.Advance{})
	second := w.session("c")
	after := get()
	if !verified(before, first) || !verified(before, second) {
		t.Error("a stored key set does not have the next key")
	}
	if !verified(after, first) || !verified(after, second) || len(after) != 3 {
		t.Errorf("the set: %v", after)
	}
	revoked := w.signingKey().ID
	w.sign(domain.RevokeSigningKey{KeyID: revoked, Secret: [32]byte{2}})
	if set := get(); set[revoked] != nil || !verified(set, w.session("c")) {
		t.Errorf("after the revocation: %v", set)
	}
}

// keyless are views that have no signing keys, and return an error instead.
type keyless struct {
	Views
	err error
}

func (k keyless) SigningKeys() (*domain.SigningKeys, error) { return nil, k.err }

func TestSession_withoutSigningKeys(t *testing.T) {
	t.Parallel()
	for text, c := range map[string]struct {
		err    error
		status int
	}{
		"Read model is behind":                 {projections.ErrBehind, http.StatusServiceUnavailable},
		"Distribution history is inconsistent": {&domain.HistoryError{Stream: domain.SigningStream}, http.StatusInternalServerError},
	} {
		w := newWorld(t)
		token := w.session("c")
		w.config.Views = keyless{w.views, c.err}
		w.api = New(w.config)
		w.do(http.MethodPost, guestAt, "", publishable(myPublic)).refuses(c.status, text)
		w.do(http.MethodGet, keySetAt, "").refuses(c.status, text)
		w.letConsumersAct()
		w.do(http.MethodPost, actAt, "", as(token)).refuses(c.status, text)
		w.do(http.MethodPost, actAt, "", header("X-Consumer-Id", "c")).is(http.StatusOK)
	}
	w := newWorld(t, func(c *Config) { c.CaughtUp = func() bool { return false } })
	w.do(http.MethodGet, keySetAt, "").refuses(http.StatusServiceUnavailable, "Read model is behind")
}

func TestConsumer_hasItsOwnRateLimit(t *testing.T) {
	t.Parallel()
	w := newActors(t, func(c *Config) { c.Limits = Limits{Consumer: 1, Public: 1, Secret: 10} })
	a, b, theirs := w.session("a"), w.session("b"), w.session("a", key(otherKey))
	act := func(o ...option) *reply { return w.do(http.MethodPost, actAt, "", append(o, from("203.0.113.7:1"))...) }
	act(as(a)).is(http.StatusOK)
	act(as(a)).refuses(http.StatusTooManyRequests, "Rate limit exceeded")
	act(as(w.session("a"))).refuses(http.StatusTooManyRequests, "Rate limit exceeded") // another token of the same consumer
	act(as(b)).is(http.StatusOK)
	act(as(theirs), header("X-Publishable-Key", otherPublic)).is(http.StatusOK) // another organization's consumer with the same id
	act(header("X-Consumer-Id", "a")).is(http.StatusOK)                         // counts against the organization's limit
	act(as("eyJ.eyJ.x")).is(http.StatusUnauthorized)
	act(as("eyJ.eyJ.x")).is(http.StatusTooManyRequests) // counts against the address
	if got := act(as(a)).Header().Get("X-RateLimit-Limit"); got != "1" {
		t.Errorf("X-RateLimit-Limit %q", got)
	}
}

// Web pages of any origin may make consumers' calls.
func TestCORS_anyPageMayActForItsConsumer(t *testing.T) {
	t.Parallel()
	w := newActors(t)
	token := w.session("c")
	for _, a := range []*reply{
		w.do(http.MethodPost, actAt, "", as(token), fromAPage).is(http.StatusOK),
		w.do(http.MethodPost, actAt, "", as("x"), fromAPage).is(http.StatusUnauthorized),
		w.do(http.MethodPost, guestAt, "", publishable(myPublic), fromAPage).is(http.StatusCreated),
		w.do(http.MethodOptions, actAt, "", fromAPage).is(http.StatusNoContent),
		w.do(http.MethodOptions, guestAt, "", fromAPage).is(http.StatusNoContent),
	} {
		if got := a.Header().Get("Access-Control-Allow-Origin"); got != "*" {
			t.Errorf("%s: %q", a.what, got)
		}
	}
	if got := crossOrigin(w.do(http.MethodPost, consumerAt, `{"consumerId":"c"}`, fromAPage).is(http.StatusCreated).Header()); got != nil {
		t.Errorf("for secret keys: %q", got)
	}
}
