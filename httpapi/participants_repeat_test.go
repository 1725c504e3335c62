package httpapi

import (
	"crypto/ed25519"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
)

// A repeat with the same idempotency key answers the same HTTP status and ids, with the
// consumer's present state. It writes nothing. Another body with the same key is refused.
func TestParticipationIsRepeatable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		from, body, other string
		later             func(w *world, path string) // is called before the repeat
		status            string                      // the consumer's status at the repeat
	}{
		"enter":    {"nobody", "", "{}", func(w *world, path string) { w.admitOne(path, "c") }, "ADMITTED"},
		"leave":    {"QUEUED", "", "{}", func(w *world, path string) { w.enter(path, "c") }, "QUEUED"},
		"admit":    {"QUEUED", naming("c"), naming("d"), func(w *world, path string) { w.do(http.MethodPost, path+"/complete", naming("c")).is(http.StatusOK) }, "COMPLETED"},
		"complete": {"ADMITTED", naming("c"), naming("d"), func(w *world, _ string) { w.advance(time.Hour) }, "COMPLETED"},
		"deny":     {"QUEUED", denying("c"), strings.Replace(denying("c"), "FRAUD_DETECTED", "ADMIN_ACTION", 1), func(w *world, _ string) { w.advance(time.Hour) }, "DENIED"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			path := w.openQueue()
			bringTo[c.from](w, path, "c")
			k := header("Idempotency-Key", "k")
			send := func(body string) *reply {
				var o []option
				if c.body == "" {
					o = append(o, acting("c"))
				}
				return w.do(http.MethodPost, path+"/"+name, body, append(o, k)...)
			}
			w.writes(1, func() {
				first := send(c.body)
				if first.participation(); first.Header().Get("Idempotent-Replayed") != "" || first.Header().Get("X-Position") == "" {
					t.Errorf("the first answer has %v", first.Header())
				}
			})
			c.later(w, path)
			repeat := func() {
				again := send(c.body)
				if got := again.participation(); got["status"] != c.status || got["consumerId"] != "c" {
					t.Errorf("repeated: %v", got)
				}
				if again.Header().Get("Idempotent-Replayed") != "true" {
					t.Errorf("the repeat has %v", again.Header())
				}
				send(c.other).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
			}
			w.writes(0, repeat)
			w.handlerRestarts() // a request to another node finds the same
			w.writes(0, repeat)
		})
	}
}

// A repeat answers the same consumers with their present state, and admits nobody else: at
// once, later, after a restart and on another node.
func TestParticipation_admittingByCountIsRepeatable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	w.enter(path, "a", "b", "c", "d")
	k := header("Idempotency-Key", "k")
	admit := func(body string) *reply { return w.do(http.MethodPost, path+"/admit", body, k) }
	w.writes(2, func() {
		if got := admitted(admit(`{"count":2}`)); !slices.Equal(got, []string{"a", "b"}) {
			t.Errorf("admitted %q", got)
		}
	})
	for range 2 {
		w.writes(0, func() {
			again := admit(`{"count":2}`).is(http.StatusOK)
			if got := admitted(again); !slices.Equal(got, []string{"a", "b"}) || again.Header().Get("Idempotent-Replayed") != "true" {
				t.Errorf("repeated: %q, %v", got, again.Header())
			}
			admit(`{"count":3}`).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
			admit(naming("c")).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
		})
		w.handlerRestarts()
	}
	w.do(http.MethodPost, path+"/complete", naming("a")).is(http.StatusOK)
	w.writes(0, func() {
		all := admit(`{"count":2}`).is(http.StatusOK).object()["data"].([]any)
		if first, second := all[0].(map[string]any), all[1].(map[string]any); first["status"] != "COMPLETED" || second["status"] != "ADMITTED" || len(all) != 2 {
			t.Errorf("repeated later: %v", all)
		}
	})
	// The same idempotency key of a consumer is another key.
	w.writes(1, func() {
		w.do(http.MethodPost, path+"/enter", "", k, acting("e")).is(http.StatusOK)
	})
}

// Two consumers may use the same idempotency key without effect on each other: no consumer
// gets an answer with another consumer's place.
func TestParticipation_idempotencyKeysAreEachConsumersOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	k := header("Idempotency-Key", "k")
	for i, o := range []option{acting("a"), acting("b"), as(w.session("c")), as(w.session("d"))} {
		for range 2 {
			w.do(http.MethodPost, path+"/enter", "", o, k).is(http.StatusOK).wants(map[string]any{"position": float64(i + 1)})
		}
	}
}

// The events record who acted, and for which consumer.
func TestParticipation_eventsSayWhoActed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	before := domain.Revision(len(w.recorded(path)) - 1)
	w.do(http.MethodPost, path+"/enter", "", as(w.session("a")), header("X-Request-Id", "r-1")).is(http.StatusOK)
	w.do(http.MethodPost, path+"/enter", "", acting("b")).is(http.StatusOK)
	w.do(http.MethodPost, path+"/leave", "", acting("b")).is(http.StatusOK)
	w.do(http.MethodPost, path+"/leave", "", as(w.session("a"))).is(http.StatusOK)
	w.enter(path, "d")
	w.do(http.MethodPost, path+"/admit", naming("d")).is(http.StatusOK)
	w.do(http.MethodPost, path+"/deny", denying("d"), key(mySecond)).is(http.StatusOK)
	type who struct{ actor, onBehalfOf string }
	mine := string(w.myKeyID)
	want := []who{{domain.ActorConsumer, ""}, {mine, "b"}, {mine, "b"}, {domain.ActorConsumer, ""}, {mine, "d"}, {mine, ""}}
	var got []who
	var last domain.Metadata
	for r, err := range w.log.Read(t.Context(), domain.ID(path[len(queues)+1:]).Stream(), before) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, who{r.Metadata.Actor, r.Metadata.OnBehalfOf}); len(got) == 1 && r.Metadata.RequestID != "r-1" {
			t.Errorf("the request is %q", r.Metadata.RequestID)
		}
		last = r.Metadata
	}
	if !slices.Equal(got[:len(got)-1], want) || last.Actor == mine || !strings.HasPrefix(last.Actor, "key_") {
		t.Errorf("got %v and %v\nwant %v", got, last, want)
	}
}

// A consumer of another organization is another consumer, even with the same id.
func TestParticipation_consumersOfTwoOrganizationsAreDifferent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.key(w.other, domain.PublishableKey, otherPublic)
	path := w.openQueue()
	w.enter(path, "c")
	theirs := w.session("c", key(otherKey))
	w.writes(0, func() {
		for call, method := range map[string]string{"/enter": http.MethodPost, "/leave": http.MethodPost, "/status": http.MethodGet} {
			w.do(method, path+call, "", as(theirs)).refuses(http.StatusUnauthorized, "Authentication required")
			w.do(method, path+call, "", as(theirs), header("X-Publishable-Key", otherPublic)).refuses(http.StatusNotFound, "Queue not found")
		}
	})
}

// Every call about another organization's queue is answered exactly as if the queue did not
// exist, also if a step is due in it.
func TestParticipation_anotherOrganizationsQueueDoesNotExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := w.create("queues", `{"sequenceId":"s","openAt":"2026-03-01T12:00:00Z","closeAt":"2026-03-01T13:00:00Z","admissionRate":60}`)
	w.enter(path, "c")
	token := w.admitOne(path, "c")
	missing := strings.Replace(path, id[len(id)-20:], "00000000000000000000", 1)
	for _, due := range []time.Duration{0, time.Hour} {
		w.advance(due)
		for call, body := range map[string]string{
			"/status": "", "/stats": "", "/enter": "", "/leave": "", "/complete": naming("c"), "/deny": denying("c"), "/admit": naming("c"),
			"/validate": `{"consumerId":"c","token":"` + token + `"}`,
		} {
			method := http.MethodPost
			if call == "/status" || call == "/stats" {
				method = http.MethodGet
			}
			for _, o := range []option{header("X-Request-Id", "r"), header("Idempotency-Key", "k")} {
				ask := func(path string) *reply {
					return w.do(method, path+call, body, key(otherKey), acting("c"), header("X-Request-Id", "r"), o).refuses(http.StatusNotFound, "Queue not found")
				}
				if foreign, unknown := ask(path), ask(missing); foreign.Body.String() != unknown.Body.String() || asJSON(t, foreign.Header()) != asJSON(t, unknown.Header()) {
					t.Errorf("%s:\n%v %s\nbut a missing one:\n%v %s", foreign.what, foreign.Header(), foreign.Body, unknown.Header(), unknown.Body)
				}
			}
		}
	}
}

// badTokens are tokens that do not allow acting as c.
func (w *world) badTokens(path string) map[string]string {
	w.tb.Helper()
	signer := w.signingKey()
	now := w.config.Clock()
	headers := func(alg string) map[string]any {
		return map[string]any{"alg": alg, "typ": "JWT", "kid": signer.ID}
	}
	claims := func(use string, until time.Duration) map[string]any {
		return map[string]any{
			"iss": "lotline", "sub": "c", "org": w.mine, "aud": use, "distribution": path[len(queues)+1:], "jti": "evt_1",
			"iat": now.Add(-time.Hour).Unix(), "exp": now.Add(until).Unix(),
		}
	}
	ours := func(text string) []byte { return ed25519.Sign(signer.Private(), []byte(text)) }
	_, stranger, _ := ed25519.GenerateKey(nil)
	return map[string]string{
		"none":         "x",
		"expired":      forge(headers("EdDSA"), claims("lotline:access", 0), ours),
		"alg none":     forge(headers("none"), claims("lotline:access", time.Hour), func(string) []byte { return nil }),
		"wrong key":    forge(headers("EdDSA"), claims("lotline:access", time.Hour), func(text string) []byte { return ed25519.Sign(stranger, []byte(text)) }),
		"forged":       forge(headers("EdDSA"), claims("lotline:access", time.Hour), func(string) []byte { return make([]byte, ed25519.SignatureSize) }),
		"wrong use":    forge(headers("EdDSA"), claims("lotline:payment", time.Hour), ours),
		"an admission": forge(headers("EdDSA"), claims("lotline:admission", time.Hour), ours),
	}
}

func TestParticipation_badTokensAreRefused(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	path := w.openQueue()
	w.enter(path, "c")
	admission := w.admitOne(path, "c")
	bad := w.badTokens(path)
	bad["his own admission"] = admission
	w.writes(0, func() {
		for name, token := range bad {
			for call, method := range map[string]string{"/enter": http.MethodPost, "/leave": http.MethodPost, "/status": http.MethodGet} {
				a := w.do(method, path+call, "", as(token))
				if a.refuses(http.StatusUnauthorized, "Authentication required"); a.Header().Get("WWW-Authenticate") != "Bearer" {
					t.Errorf("%s: %v", name, a.Header())
				}
			}
		}
	})
}

// verdict validates an admission token. It returns "" if the token proves that the consumer
// is admitted, and otherwise the reason in the answer.
func (w *world) verdict(path, consumer, token string) string {
	w.tb.Helper()
	a := w.do(http.MethodPost, path+"/validate", `{"consumerId":"`+consumer+`","token":"`+token+`"}`).is(http.StatusOK)
	reason, _ := a.object()["error"].(string)
	if valid := a.object()["valid"]; valid != (reason == "") || reason == "" && a.Body.String() != `{"valid":true}` {
		w.tb.Errorf("%s: %s", a.what, a.Body)
	}
	return reason
}

// The validation of admission tokens, with each reason in the contract.
func TestContract_validate(t *testing.T) {
	t.Parallel()
	const session = `,"sessionDurationSeconds":60`
	fresh := func(t *testing.T, more ...string) (w *world, path, token string) {
		t.Helper()
		w = newWorld(t)
		path = w.openQueue(more...)
		w.enter(path, "c", "d")
		return w, path, w.admitOne(path, "c")
	}
	for name, c := range map[string]struct {
		settings string
		then     func(w *world, path string)
		want     string
	}{
		"as it was given":                 {session, func(*world, string) {}, ""},
		"up to the last millisecond":      {session, func(w *world, _ string) { w.advance(time.Minute - time.Millisecond) }, ""},
		"not when the session ends":       {session, func(w *world, _ string) { w.advance(time.Minute) }, tokenExpired},
		"not after it is recorded either": {session, func(w *world, path string) { w.advance(time.Minute); w.at(path, "2026-03-01T12:01:00Z") }, tokenExpired},
		"a day without a limit":           {"", func(w *world, _ string) { w.advance(24*time.Hour - time.Millisecond) }, ""},
		"no more than a day":              {"", func(w *world, _ string) { w.advance(24 * time.Hour) }, tokenExpired},
		"not once completed":              {session, func(w *world, path string) { w.do(http.MethodPost, path+"/complete", naming("c")).is(http.StatusOK) }, "The consumer is not admitted any more"},
		"not once he left":                {session, func(w *world, path string) { w.do(http.MethodPost, path+"/leave", "", acting("c")).is(http.StatusOK) }, "The consumer is not admitted any more"},
		"not once denied":                 {session, func(w *world, path string) { w.do(http.MethodPost, path+"/deny", denying("c")).is(http.StatusOK) }, "The consumer is not admitted any more"},
		"not while he waits again": {session, func(w *world, path string) {
			w.do(http.MethodPost, path+"/leave", "", acting("c")).is(http.StatusOK)
			w.enter(path, "c")
		}, "The consumer is not admitted any more"},
		"not of an earlier session": {session, func(w *world, path string) {
			w.do(http.MethodPost, path+"/leave", "", acting("c")).is(http.StatusOK)
			w.enter(path, "c")
			if again := w.admitOne(path, "c"); w.verdict(path, "c", again) != "" {
				w.tb.Error("the new session's token is not valid")
			}
		}, "The consumer is not admitted any more"},
		"while the queue is closed": {session, func(w *world, path string) {
			w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
		}, ""},
		"not in a queue that is over": {session, func(w *world, path string) {
			w.do(http.MethodPost, path+"/deny", denying("c")).is(http.StatusOK)
			moveQueueTo["COMPLETED"](w, path)
		}, "The consumer is not admitted any more"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, path, token := fresh(t, c.settings)
			c.then(w, path)
			w.writes(0, func() {
				if got := w.verdict(path, "c", token); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
	t.Run("tokens in answers", func(t *testing.T) {
		t.Parallel()
		w, path, token := fresh(t)
		other := w.openQueue()
		w.enter(other, "c")
		w.admitOne(other, "c")
		signed := func(use tokens.Use, organization domain.ID) string {
			at := domain.InstantOf(w.config.Clock())
			made, err := tokens.New(w.views).Sign(tokens.NewGrant(organization, domain.Grant{
				Use: domain.GrantUse(use), Consumer: "c", Distribution: domain.ID(path[len(queues)+1:]), From: at,
			}))
			if err != nil {
				t.Fatal(err)
			}
			return made
		}
		bad := w.badTokens(path)
		dot := strings.LastIndexByte(token, '.')
		for name, c := range map[string]struct{ path, consumer, token, want string }{
			"at another queue":             {other, "c", token, tokenElsewhere(domain.KindQueue)},
			"by another consumer":          {path, "d", token, tokenOtherOwner},
			"by one who never entered":     {path, "nobody", token, tokenOtherOwner},
			"an access token":              {path, "c", w.session("c"), tokenOtherUse},
			"a payment token":              {path, "c", signed(tokens.Payment, w.mine), tokenOtherUse},
			"another organization's":       {path, "c", signed(tokens.Admission, w.other), tokenInvalid},
			"of an event that was not":     {path, "c", signed(tokens.Admission, w.mine), "The consumer is not admitted any more"},
			"nothing":                      {path, "c", "", tokenInvalid},
			"something":                    {path, "c", "a.b.c", tokenInvalid},
			"without a signature":          {path, "c", token[:dot+1], tokenInvalid},
			"with another one's signature": {path, "c", token[:dot] + bad["expired"][strings.LastIndexByte(bad["expired"], '.'):], tokenInvalid},
			"alg none":                     {path, "c", bad["alg none"], tokenInvalid},
			"a stranger's key":             {path, "c", bad["wrong key"], tokenInvalid},
		} {
			if got := w.verdict(c.path, c.consumer, c.token); got != c.want {
				t.Errorf("%s: %q, want %q", name, got, c.want)
			}
		}
		// A token stays valid when the signing keys change, unless its key is revoked.
		if w.status(path, "c")["admissionToken"] != token {
			t.Error("another token each time")
		}
		w.sign(domain.RevokeSigningKey{KeyID: w.signingKey().ID, Secret: [32]byte{3}})
		if got := w.verdict(path, "c", token); got != tokenInvalid {
			t.Errorf("by a revoked key: %q", got)
		}
		if again := w.status(path, "c")["admissionToken"].(string); w.verdict(path, "c", again) != "" {
			t.Error("the token by the next key is not valid")
		}
	})
}

// A token never outlives the session, not even by a part of a second.
func TestParticipation_aTokenNeverOutlivesTheSession(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for ms := range 10 {
		w.advance(137 * time.Millisecond)
		path := w.openQueue(`,"sessionDurationSeconds":`, string(rune('1'+ms%3)))
		w.enter(path, "c")
		token := w.admitOne(path, "c")
		claims, err := tokens.New(w.views).Verify(token, tokens.Admission, 0)
		if err != nil {
			t.Fatal(err)
		}
		if ends := w.status(path, "c")["expiresAt"].(string); claims.ExpiresAt.String() > ends {
			t.Errorf("the token ends at %s, the session at %s", claims.ExpiresAt, ends)
		}
	}
}

// A GET request writes nothing.
func TestParticipation_aGETChangesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s","openAt":"2026-03-01T12:00:00Z","closeAt":"2026-03-01T13:00:00Z","admissionRate":60,"sessionDurationSeconds":60}`)
	w.enter(path, "a", "b")
	token := w.admitOne(path, "a")
	// That is true even while steps are due: admissions, an expiry, the close.
	for range 3 {
		w.advance(time.Hour)
		w.writes(0, func() {
			for range 2 {
				w.do(http.MethodGet, path+"/status", "", acting("a")).is(http.StatusOK).wants(map[string]any{"status": "ADMITTED"})
				w.do(http.MethodHead, path+"/status", "", acting("b")).is(http.StatusOK)
				w.do(http.MethodGet, path+"/status", "", acting("nobody")).is(http.StatusNotFound)
				w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"status": "OPEN"})
				w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK)
				w.do(http.MethodGet, queues, "").is(http.StatusOK)
				w.do(http.MethodGet, eventsPath(path[len(queues)+1:]), "").is(http.StatusOK)
				w.verdict(path, "a", token)
			}
		})
	}
}

// A consumer's call does not change the queue's own entity tag, but it changes the public
// view's.
func TestParticipation_doesNotChangeTheQueuesETag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	get := func(o ...option) *reply { return w.do(http.MethodGet, path, "", o...).is(http.StatusOK) }
	before, seen := get(), get(publishable(myPublic))
	w.advance(time.Second)
	w.enter(path, "a", "b", "c")
	w.admitOne(path, "a")
	after := get()
	if after.Header().Get("Etag") != before.Header().Get("Etag") || after.Body.String() != before.Body.String() {
		t.Errorf("before %s %s\nafter  %s %s", before.Header().Get("Etag"), before.Body, after.Header().Get("Etag"), after.Body)
	}
	now := get(publishable(myPublic))
	if now.wants(map[string]any{"consumerCount": 2.0, "status": "OPEN"}); now.Header().Get("Etag") == seen.Header().Get("Etag") {
		t.Error("the public view's tag does not change with the waiting consumers")
	}
	w.do(http.MethodPut, path, `{"name":"n"}`, header("If-Match", before.Header().Get("Etag"))).is(http.StatusOK)
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
	get(publishable(myPublic)).wants(map[string]any{"consumerCount": 2.0, "status": "CLOSED"})
	w.do(http.MethodPost, path+"/complete", naming("a")).is(http.StatusOK)
	get(publishable(myPublic)).wants(map[string]any{"consumerCount": 0.0, "status": "CLOSED"})
}

// A status includes what the same node has acknowledged. On another node it includes what
// X-Position asks for.
func TestParticipation_readsAfterWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		path := w.openQueue()
		here, there := w.api, New(w.config)
		w.log.hold()
		position := header("X-Position", w.do(http.MethodPost, path+"/enter", "", acting("c")).is(http.StatusOK).Header().Get("X-Position"))
		w.api = there // a node that has acknowledged nothing
		w.do(http.MethodGet, path+"/status", "", acting("c")).refuses(http.StatusNotFound, "Consumer not in queue")
		started := time.Now()
		w.do(http.MethodGet, path+"/status", "", acting("c"), position).refuses(http.StatusServiceUnavailable, "Read model is behind")
		if waited := time.Since(started); waited != 2*time.Second {
			t.Errorf("waited %s", waited)
		}
		w.do(http.MethodGet, path+"/status", "", acting("c"), header("X-Position", "x")).blames("X-Position")
		time.AfterFunc(900*time.Millisecond, w.log.release)
		w.api = here
		w.do(http.MethodGet, path+"/status", "", acting("c")).is(http.StatusOK).wants(map[string]any{"status": "QUEUED"})
		w.api = there
		w.do(http.MethodGet, path+"/status", "", acting("c"), position).is(http.StatusOK)
	})
}

// The participants of a completed queue are read from the log. If that takes longer than two
// seconds, the answer is 503. The reading is done once and continues, so a later request
// finds the result.
func TestParticipation_ofACompletedQueueIsReadFromTheLogOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		path := w.openQueue()
		for standing, c := range map[string]string{"COMPLETED": "a", "DENIED": "b", "LEFT": "c", "QUEUED": "d"} {
			bringTo[standing](w, path, c)
		}
		moveQueueTo["COMPLETED"](w, path)
		stuck := make(chan struct{})
		w.log.mu.Lock()
		w.log.stuck = stuck
		w.log.mu.Unlock()
		started := time.Now()
		a := w.do(http.MethodGet, path+"/status", "", acting("a")).refuses(http.StatusServiceUnavailable, "Read model is behind")
		if waited := time.Since(started); waited != 2*time.Second || a.Header().Get("Retry-After") != "1" {
			t.Errorf("waited %s: %v", waited, a.Header())
		}
		w.do(http.MethodPost, path+"/validate", `{"consumerId":"a","token":"x"}`).refuses(http.StatusServiceUnavailable, "Read model is behind")
		// Other queues are served in the meantime.
		w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).wants(map[string]any{"consumerCount": 0.0})
		close(stuck)
		for c, want := range map[string]string{"a": "COMPLETED", "b": "DENIED", "c": "LEFT", "d": "DENIED"} {
			if got := w.status(path, c)["status"]; got != want {
				t.Errorf("%s is %v", c, got)
			}
		}
		if got := w.status(path, "d"); got["denyReason"] != "QUEUE_CLOSED" || got["pollAfterMs"] != nil {
			t.Errorf("the consumer who waited to the end: %v", got)
		}
		w.do(http.MethodGet, path+"/status", "", acting("nobody")).refuses(http.StatusNotFound, "Consumer not in queue")
		w.do(http.MethodDelete, path, "").is(http.StatusNoContent)
		w.do(http.MethodGet, path+"/status", "", acting("a")).refuses(http.StatusNotFound, "Queue not found")
	})
}

// If a consumer leaves and is admitted at the same time, one of the commands is first, and
// both answers agree with the log.
func TestParticipation_leavingDuringAdmissionAgreesWithTheLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	consumers := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	w.enter(path, consumers...)
	done := make(chan *reply)
	for _, c := range consumers {
		go func() { done <- w.do(http.MethodPost, path+"/leave", "", acting(c)) }()
		go func() { done <- w.do(http.MethodPost, path+"/admit", naming(c)) }()
	}
	refused := 0
	for range 2 * len(consumers) {
		switch a := <-done; {
		case a.Code == http.StatusConflict && strings.Contains(a.what, "/admit"):
			refused++
		default:
			a.is(http.StatusOK)
		}
	}
	left := 0
	for _, e := range w.recorded(path) {
		if strings.HasPrefix(e, "ConsumerLeft") {
			left++
		}
	}
	for _, c := range consumers {
		if got := w.status(path, c)["status"]; got != "LEFT" {
			t.Errorf("%s is %v", c, got)
		}
	}
	if admittedBefore := strings.Count(strings.Join(w.recorded(path), " "), "ConsumerAdmitted"); left != len(consumers) || admittedBefore+refused != len(consumers) {
		t.Errorf("%d left, %d were admitted before and %d not", left, admittedBefore, refused)
	}
}

// After a restart during admission, nobody is admitted twice or out of turn.
func TestParticipation_aRestartDuringAdmissionKeepsTheOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue(`,"admissionRate":60`)
	consumers := []string{"a", "b", "c", "d", "e", "f"}
	w.enter(path, consumers...)
	for i, c := range consumers {
		w.advance(time.Second)
		next := commands.NewHandler(w.log, nil, w.config.Clock) // a handler that remembers nothing
		for range 2 {
			if _, err := next.Handle(t.Context(), commands.Request{
				Stream: domain.ID(path[len(queues)+1:]).Stream(), Command: domain.Advance{}, Caller: commands.Caller{Actor: domain.ActorClock},
			}); err != nil {
				t.Fatal(err)
			}
		}
		for j, other := range consumers {
			want := "QUEUED"
			if j <= i {
				want = "ADMITTED"
			}
			if got := w.status(path, other)["status"]; got != want {
				t.Errorf("after the admission of %s, %s is %v", c, other, got)
			}
		}
		if err := next.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A change of the queue's settings while thousands of consumers wait applies from then on. It
// removes no consumer and moves none.
func TestParticipation_settingsCanChangeWhileThousandsWait(t *testing.T) {
	t.Parallel()
	const thousands = 2000
	name := func(i int) string { return fmt.Sprintf("c-%04d", i) }
	many := func(t *testing.T, more string) (w *world, path string) {
		t.Helper()
		w = newWorld(t)
		path = w.openQueue(more)
		for i := range thousands {
			w.enter(path, name(i))
		}
		return w, path
	}
	// waiting checks that exactly the last n consumers who entered are waiting, in order.
	waiting := func(w *world, path string, n int) {
		w.tb.Helper()
		w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).wants(map[string]any{"consumerCount": float64(n)})
		for _, position := range []int{1, 2, n / 2, n - 1, n} {
			if got := w.status(path, name(thousands-n+position-1))["position"]; got != float64(position) {
				w.tb.Errorf("%s has the position %v, want %d", name(thousands-n+position-1), got, position)
			}
		}
		if n < thousands && w.status(path, name(thousands-n-1))["status"] == "QUEUED" {
			w.tb.Errorf("%s still waits", name(thousands-n-1))
		}
	}
	tick := func(w *world, path string, d time.Duration) {
		w.advance(d)
		w.at(path, domain.InstantOf(w.config.Clock()).String())
	}
	t.Run("the rate", func(t *testing.T) {
		t.Parallel()
		w, path := many(t, `,"admissionRate":60`)
		tick(w, path, time.Second)
		waiting(w, path, 1999)
		w.do(http.MethodPut, path, `{"admissionRate":600}`).is(http.StatusOK)
		tick(w, path, time.Second/2) // uses up the saved admissions
		waiting(w, path, 1994)
		tick(w, path, time.Second/2)
		waiting(w, path, 1989)
		w.do(http.MethodPut, path, `{"admissionRate":null}`).is(http.StatusOK)
		tick(w, path, time.Hour)
		waiting(w, path, 1989)
		w.do(http.MethodPut, path, `{"admissionRate":60000}`).is(http.StatusOK)
		tick(w, path, time.Minute) // only the admissions of one second are caught up
		waiting(w, path, 989)
	})
	t.Run("the capacity", func(t *testing.T) {
		t.Parallel()
		w, path := many(t, `,"maxCapacity":3000`)
		w.do(http.MethodPut, path, `{"maxCapacity":1950}`).is(http.StatusOK)
		waiting(w, path, 2000)
		w.do(http.MethodPost, path+"/enter", "", acting("late")).refuses(http.StatusTooManyRequests, "Queue is full")
		w.do(http.MethodPost, path+"/admit", `{"count":50}`).is(http.StatusOK)
		w.do(http.MethodPost, path+"/enter", "", acting("late")).refuses(http.StatusTooManyRequests, "Queue is full")
		w.do(http.MethodPost, path+"/admit", `{"count":1}`).is(http.StatusOK)
		waiting(w, path, 1949)
		w.enter(path, "late")
	})
	t.Run("the sessions", func(t *testing.T) {
		t.Parallel()
		w, path := many(t, `,"sessionDurationSeconds":60`)
		ends := func(want any) {
			t.Helper()
			for _, p := range w.do(http.MethodPost, path+"/admit", `{"count":2}`).is(http.StatusOK).object()["data"].([]any) {
				if got := p.(map[string]any)["expiresAt"]; got != want {
					t.Errorf("the session ends at %v, want %v", got, want)
				}
			}
		}
		ends("2026-03-01T12:01:00.000Z")
		w.do(http.MethodPut, path, `{"sessionDurationSeconds":1}`).is(http.StatusOK)
		ends("2026-03-01T12:00:01.000Z")
		w.do(http.MethodPut, path, `{"sessionDurationSeconds":null}`).is(http.StatusOK)
		ends(nil)
		waiting(w, path, 1994)
		tick(w, path, time.Minute-time.Millisecond)
		for i, want := range []string{"ADMITTED", "ADMITTED", "EXPIRED", "EXPIRED", "ADMITTED", "ADMITTED"} {
			if got := w.status(path, name(i))["status"]; got != want {
				t.Errorf("%s is %v, want %s", name(i), got, want)
			}
		}
	})
	t.Run("the close", func(t *testing.T) {
		t.Parallel()
		w, path := many(t, "")
		w.do(http.MethodPut, path, `{"closeAt":"2026-03-01T13:00:00Z"}`).is(http.StatusOK)
		w.do(http.MethodPut, path, `{"closeAt":"2026-03-01T12:00:30Z"}`).is(http.StatusOK)
		waiting(w, path, 2000)
		w.advance(30*time.Second - time.Millisecond)
		w.enter(path, "last")
		w.advance(time.Millisecond)
		w.do(http.MethodPost, path+"/enter", "", acting("late")).refuses(http.StatusBadRequest, "Queue is closed")
		w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).wants(map[string]any{"consumerCount": 0.0, "status": "CLOSED"})
		for _, c := range []string{name(0), name(1000), "last"} {
			if got := w.status(path, c); got["status"] != "DENIED" || got["denyReason"] != "QUEUE_CLOSED" {
				t.Errorf("%v", got)
			}
		}
	})
}
