package httpapi

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

const otherPublic = "pk_live_other111111111111111111111111"

// publishable makes a request send a publishable key instead of a secret one.
func publishable(key string) option {
	return func(r *http.Request) {
		r.Header.Del("Authorization")
		r.Header.Set("X-Publishable-Key", key)
	}
}

func TestPublicView_hasThePublicFieldsOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ collection, body, secrets, want string }{
		{
			"queues", `{"sequenceId":"s","maxCapacity":5,"admissionRate":7`, "admissionRate",
			`"capacity":5,"consumerCount":0}`,
		},
		{
			"draws", `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3,"maxEntries":5`, "seedCommitment",
			`"drawAt":"2026-06-01T00:00:00.000Z","capacity":5,"winnerCount":3,"entrantCount":0}`,
		},
		{
			"auctions", `{"sequenceId":"s","settleAt":"2026-06-01T00:00:00Z","startingBid":1,"reservePrice":9`, "reservePrice",
			`"settleAt":"2026-06-01T00:00:00.000Z","startingPrice":1,"reserveMet":false,"minimumBidIncrement":null,"winnerCount":1,"currentHighBid":null,"currencyCode":"EUR"}`,
		},
	} {
		t.Run(c.collection, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.key(w.other, domain.PublishableKey, otherPublic)
			path, id := w.create(c.collection, c.body+`,"name":"n","encryptionSeed":"hidden","metadata":{"hidden":1}}`)
			want := `{"id":"` + id + `","name":"n","sequenceId":"s","openAt":null,"closeAt":null,"timeZone":"Europe/Berlin","status":"PENDING",` + c.want
			for _, p := range []string{path, "/api/v1/distributions/" + id} {
				if got := w.do(http.MethodGet, p, "", publishable(myPublic)).is(http.StatusOK); got.Body.String() != want {
					t.Errorf("GET %s:\n got %s\nwant %s", p, got.Body, want)
				}
				admin := w.do(http.MethodGet, p, "", header("X-Publishable-Key", myPublic)).is(http.StatusOK)
				if !strings.Contains(admin.Body.String(), c.secrets) || !strings.Contains(admin.Body.String(), "hidden") {
					t.Errorf("GET %s with both keys: %s", p, admin.Body)
				}
			}
			w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
			w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).wants(map[string]any{"status": "OPEN", "openAt": "2026-03-01T12:00:00.000Z"})
			w.advance(time.Second)
			w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
			w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
		})
	}
}

// With another organization's publishable key, a distribution is answered exactly like one
// that does not exist.
func TestPublicView_doesNotExistForAnotherOrganization(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.key(w.other, domain.PublishableKey, otherPublic)
	for _, c := range kindCases {
		path, id := w.create(c.collection, c.body)
		missing := strings.Replace(path, id[len(id)-20:], "00000000000000000000", 1)
		for _, p := range [][2]string{{path, missing}, {"/api/v1/distributions/" + id, "/api/v1/distributions/" + c.kind + "_00000000000000000000000000"}} {
			same := header("X-Request-Id", "r")
			foreign := w.do(http.MethodGet, p[0], "", publishable(otherPublic), same).is(http.StatusNotFound)
			unknown := w.do(http.MethodGet, p[1], "", publishable(otherPublic), same).is(http.StatusNotFound)
			if foreign.Body.String() != unknown.Body.String() || asJSON(t, foreign.Header()) != asJSON(t, unknown.Header()) {
				t.Errorf("%s: %s, but a missing one: %s", foreign.what, foreign.Body, unknown.Body)
			}
		}
	}
}

// The public view and the admin's view have different entity tags, so that no client takes
// one body for the other.
func TestPublicView_hasItsOwnETag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	admin := w.do(http.MethodGet, path, "").is(http.StatusOK).Header().Get("Etag")
	tag := w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).Header().Get("Etag")
	w.do(http.MethodGet, path, "", publishable(myPublic), header("If-None-Match", tag)).is(http.StatusNotModified)
	w.do(http.MethodGet, path, "", publishable(myPublic), header("If-None-Match", admin)).is(http.StatusOK)
	w.do(http.MethodGet, path, "", header("If-None-Match", tag)).is(http.StatusOK)
	w.do(http.MethodPut, path, `{"name":"x"}`, header("If-Match", tag)).refuses(http.StatusPreconditionFailed, "Precondition failed")
	w.do(http.MethodPut, path, `{"name":"x"}`).is(http.StatusOK)
	if again := w.do(http.MethodGet, path, "", publishable(myPublic), header("If-None-Match", tag)).is(http.StatusOK); again.Header().Get("Etag") == tag {
		t.Errorf("after a change: %s", tag)
	}
}

// A read with a publishable key includes the organization's earlier writes.
func TestPublicView_includesEarlierWrites(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s","name":"old"}`)
	w.log.hold()
	position := w.do(http.MethodPut, path, `{"name":"new"}`).is(http.StatusOK).Header().Get("X-Position")
	seen := make(chan *reply)
	go func() { seen <- w.do(http.MethodGet, path, "", publishable(myPublic), header("X-Position", position)) }()
	w.log.release()
	(<-seen).is(http.StatusOK).wants(map[string]any{"name": "new"})
	w.do(http.MethodGet, path, "", publishable(myPublic), header("X-Position", "x")).blames("X-Position")
}

func TestPublicView_needsAValidKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	const required, secret = "Authentication required", "Secret key required"
	revoked := w.key(w.mine, domain.PublishableKey, "pk_live_revoked000000000000000000000")
	w.run(w.mine, domain.RevokeKey{KeyID: revoked})
	const disguised = "sk_live_disguised0000000000000000000"
	w.happens(w.mine.Stream(), domain.KeyCreated{
		Stamp: domain.Stamp{At: domain.InstantOf(w.config.Clock())}, KeyID: "key_1", Level: domain.PublishableKey, Hash: domain.KeyHash(disguised),
	})
	for name, c := range map[string]struct {
		options []option
		text    string
	}{
		"none":                             {[]option{publishable(""), func(r *http.Request) { r.Header.Del("X-Publishable-Key") }}, required},
		"an empty one":                     {[]option{publishable("")}, required},
		"an unknown one":                   {[]option{publishable("pk_live_nobody00000000000000000000000")}, required},
		"a revoked one":                    {[]option{publishable("pk_live_revoked000000000000000000000")}, required},
		"two":                              {[]option{publishable(""), header("X-Publishable-Key", myPublic, myPublic)}, required},
		"a secret key in its place":        {[]option{publishable(myKey)}, required},
		"a secret key that is unknown":     {[]option{key(unknownKey), header("X-Publishable-Key", myPublic)}, required},
		"a token that nobody gave out":     {[]option{key("eyJhbGciOiJFZERTQSJ9.e30.c2ln"), header("X-Publishable-Key", myPublic)}, required},
		"a publishable key as a secret":    {[]option{key(myPublic)}, required},
		"a publishable key in disguise":    {[]option{key(disguised)}, secret},
		"the scheme without anything else": {[]option{header("Authorization", "Bearer")}, required},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.do(http.MethodGet, path, "", c.options...).refuses(http.StatusUnauthorized, c.text)
		})
	}
	t.Run("everything but the public view needs a secret key", func(t *testing.T) {
		t.Parallel()
		for _, call := range []struct{ method, path, body string }{
			{http.MethodGet, "/api/v1/queues", ""},
			{http.MethodGet, "/api/v1/distributions", ""},
			{http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`},
			{http.MethodPut, path, `{"name":"x"}`},
			{http.MethodDelete, path, ""},
			{http.MethodPost, path + "/open", ""},
		} {
			w.do(call.method, call.path, call.body, publishable(myPublic)).refuses(http.StatusUnauthorized, secret)
		}
		w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"status": "DRAFT"})
	})
}
