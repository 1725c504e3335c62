package httpapi

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

const keysAt = "/api/v1/keys"

// newKey creates a key over HTTP.
func (w *world) newKey(body string, options ...option) (path, id, text string) {
	w.tb.Helper()
	a := w.do(http.MethodPost, keysAt, body, options...).is(http.StatusCreated)
	return a.Header().Get("Location"), a.id(), a.object()["key"].(string)
}

func TestKey_itsTextIsAnsweredOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.do(http.MethodPost, keysAt, `{"level":"secret","mode":"test","name":"<ci>","expiresAt":"2026-03-02T00:00:00"}`).is(http.StatusCreated)
	id, text := a.id(), a.object()["key"].(string)
	if !strings.HasPrefix(text, "sk_test_") || len(text) != len("sk_test_")+26 {
		t.Errorf("made %q", text)
	}
	// A time without an offset is in the organization's time zone.
	shown := `{"id":"` + id + `","level":"secret","mode":"test","name":"<ci>","hint":"` + text[:12] +
		`","createdAt":"2026-03-01T12:00:00.000Z","expiresAt":"2026-03-01T23:00:00.000Z","revokedAt":null`
	if got := a.Body.String(); got != shown+`,"key":"`+text+`"}` {
		t.Errorf("answers %s", got)
	}
	path := a.Header().Get("Location")
	if path != keysAt+"/"+id || a.Header().Get("Idempotent-Replayed") != "" || a.Header().Get("Cache-Control") != "no-store" || a.Header().Get("X-Position") == "" {
		t.Errorf("answers %v", a.Header())
	}
	if got := w.do(http.MethodGet, path, "", key(text)).is(http.StatusOK).Body.String(); got != shown+"}" {
		t.Errorf("shows %s", got)
	}
	if list := w.do(http.MethodGet, keysAt, "").is(http.StatusOK).Body.String(); !strings.Contains(list, shown) || strings.Contains(list, text) {
		t.Errorf("lists %s", list)
	}
	hash := domain.KeyHash(text)
	if logged := w.logged.String(); strings.Contains(logged, text) || strings.Contains(logged, hash) || !strings.Contains(logged, path) {
		t.Errorf("logs %s", logged)
	}
}

func TestKey_ofEachLevelCanBeCreated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct{ body, prefix, level, mode string }{
		{`{"level":"secret"}`, "sk_live_", "secret", "live"},
		{`{"level":"publishable","name":null,"expiresAt":null,"mode":null}`, "pk_live_", "publishable", "live"},
		{`{"level":"publishable","mode":"test"}`, "pk_test_", "publishable", "test"},
	} {
		a := w.do(http.MethodPost, keysAt, c.body).is(http.StatusCreated)
		a.wants(map[string]any{"level": c.level, "mode": c.mode, "name": nil, "expiresAt": nil, "revokedAt": nil})
		text := a.object()["key"].(string)
		if !strings.HasPrefix(text, c.prefix) {
			t.Errorf("%s makes %s", c.body, text)
		}
		if got := w.do(http.MethodGet, keysAt, "", key(text)); (got.Code == http.StatusOK) != (c.level == "secret") {
			t.Errorf("%s gives %d", c.prefix, got.Code)
		}
	}
}

func TestKey_aBadCreationIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	before := len(w.log.streams[w.mine.Stream()])
	for body, fields := range map[string][]string{
		`{}`: {"level"},
		`{"level":null,"id":"key_1","key":"sk_live_mine","revokedAt":null}`:                                      {"id", "key", "revokedAt", "level"},
		`{"level":"root","mode":"prod","name":7,"expiresAt":12}`:                                                 {"level", "mode", "name", "expiresAt"},
		`{"level":1,"mode":"LIVE","name":"` + strings.Repeat("n", 201) + `","expiresAt":"2026-02-30T00:00:00Z"}`: {"level", "mode", "name", "expiresAt"},
		`{"level":"secret","name":"a\u0000b"}`:                                                                   {"name"},
		`{"level":"secret","expiresAt":"2026-03-01T12:00:00Z"}`:                                                  {"expiresAt"}, // now
		`{"level":"secret","expiresAt":"2026-03-29T02:30:00"}`:                                                   {"expiresAt"}, // in a gap
		`{"level":"secret","expiresAt":"2026-10-25T02:30:00"}`:                                                   {"expiresAt"}, // twice
		`{"level":"secret","expiresAt":"2200-01-01T00:00:00Z"}`:                                                  {"expiresAt"},
		`{"level":"secret","expiresAt":{"$gt":""}}`:                                                              {"expiresAt"},
	} {
		w.do(http.MethodPost, keysAt, body).blames(fields...)
	}
	w.do(http.MethodPost, keysAt, `[]`).refuses(http.StatusBadRequest, "Invalid JSON")
	w.do(http.MethodPost, keysAt, ``).refuses(http.StatusBadRequest, "Invalid JSON")
	w.do(http.MethodPost, keysAt, `{"level":"secret","level":"publishable"}`).refuses(http.StatusBadRequest, "Invalid JSON")
	w.do(http.MethodPost, keysAt, `{"level":"secret"}`, header("Idempotency-Key", "a b")).blames("Idempotency-Key")
	w.do(http.MethodPost, keysAt+"?dry=1", `{"level":"secret"}`).blames("dry")
	w.do(http.MethodPost, keysAt, `{"level":"secret"}`, key(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
	if got := len(w.log.streams[w.mine.Stream()]); got != before {
		t.Errorf("%d events were written", got-before)
	}
}

// A repeated creation creates no second key and does not answer the key's text, whatever
// happened to the key in the meantime.
func TestKey_aRepeatedCreationCreatesNoSecondKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const body = `{"level":"secret","expiresAt":"2026-03-01T13:00:00Z"}`
	repeat := header("Idempotency-Key", "key-1")
	first := w.do(http.MethodPost, keysAt, body, repeat).is(http.StatusCreated)
	path, text := first.Header().Get("Location"), first.object()["key"].(string)
	want := strings.Replace(first.Body.String(), `"`+text+`"`, "null", 1)
	for _, meanwhile := range []func(){
		func() {},
		w.handlerRestarts,
		func() { w.do(http.MethodDelete, path, "").is(http.StatusNoContent) },
		func() { w.advance(2 * time.Hour) },
	} {
		meanwhile()
		again := w.do(http.MethodPost, keysAt, body, repeat).is(http.StatusCreated)
		if again.Body.String() != want || again.Header().Get("Location") != path || again.Header().Get("Idempotent-Replayed") != "true" {
			t.Errorf("repeated: %s %v, want %s", again.Body, again.Header(), want)
		}
	}
	w.do(http.MethodPost, keysAt, body+" ", repeat).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
	// Another organization's idempotency key is another key.
	if _, id, other := w.newKey(`{"level":"secret"}`, repeat, key(otherKey)); other == text || keysAt+"/"+id == path {
		t.Error("another organization got the same key")
	}
}

func TestKey_aRevokedOneGivesNoAccess(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _, text := w.newKey(`{"level":"secret"}`)
	w.do(http.MethodGet, keysAt, "", key(text)).is(http.StatusOK)
	w.advance(time.Minute)
	// A key may revoke itself.
	a := w.do(http.MethodDelete, path, "", key(text)).is(http.StatusNoContent)
	if a.Body.Len() != 0 || a.Header().Get("X-Position") == "" {
		t.Errorf("answers %s %v", a.Body, a.Header())
	}
	w.do(http.MethodGet, keysAt, "", key(text)).refuses(http.StatusUnauthorized, "Authentication required")
	w.do(http.MethodDelete, path, "").refuses(http.StatusNotFound, "Key not found")
	w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"revokedAt": "2026-03-01T12:01:00.000Z"})
	for _, id := range []string{"key_00000000000000000000000000", "key_x", "x", w.mine.Stream()} {
		w.do(http.MethodGet, keysAt+"/"+id, "").refuses(http.StatusNotFound, "Key not found")
		w.do(http.MethodDelete, keysAt+"/"+id, "").refuses(http.StatusNotFound, "Key not found")
	}
}

// An organization cannot revoke its last secret key over HTTP, which would lock it out.
func TestKey_theLastSecretKeyCannotBeRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var last string
	for _, k := range w.do(http.MethodGet, keysAt, "", key(otherKey)).is(http.StatusOK).object()["data"].([]any) {
		last = keysAt + "/" + k.(map[string]any)["id"].(string)
	}
	w.do(http.MethodDelete, last, "", key(otherKey)).refuses(http.StatusConflict, "Not possible in this state")
	w.newKey(`{"level":"publishable"}`, key(otherKey))
	w.do(http.MethodDelete, last, "", key(otherKey)).refuses(http.StatusConflict, "Not possible in this state")
	_, _, ending := w.newKey(`{"level":"secret","expiresAt":"2026-03-01T13:00:00Z"}`, key(otherKey))
	w.do(http.MethodDelete, last, "", key(ending)).is(http.StatusNoContent)
	w.do(http.MethodGet, keysAt, "", key(otherKey)).is(http.StatusUnauthorized)
}

// A key expires at its time, even if the timer that records the expiry is late.
func TestKey_anExpiredOneGivesNoAccessBeforeTheExpiryIsRecorded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id, text := w.newKey(`{"level":"secret","expiresAt":"2026-03-01T13:00:00Z"}`)
	written := len(w.log.streams[w.mine.Stream()])
	w.advance(time.Hour - time.Millisecond)
	w.do(http.MethodGet, keysAt, "", key(text)).is(http.StatusOK)
	w.advance(time.Millisecond)
	w.do(http.MethodGet, keysAt, "", key(text)).refuses(http.StatusUnauthorized, "Authentication required")
	if len(w.log.streams[w.mine.Stream()]) != written {
		t.Fatal("it is recorded already")
	}
	// The next command records the expiry, with the time at which it was due. After that the
	// expiry holds even on a node whose clock is behind.
	w.advance(time.Hour)
	w.do(http.MethodDelete, path, "").refuses(http.StatusNotFound, "Key not found")
	events := w.log.streams[w.mine.Stream()][written:]
	if len(events) != 1 || events[0].Event != domain.Event(domain.KeyExpired{Stamp: domain.Stamp{At: domain.InstantOf(w.config.Clock().Add(-time.Hour))}, KeyID: domain.ID(id)}) {
		t.Errorf("wrote %+v", events)
	}
	w.advance(-90 * time.Minute)
	w.do(http.MethodGet, keysAt, "", key(text)).refuses(http.StatusUnauthorized, "Authentication required")
	w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"expiresAt": "2026-03-01T13:00:00.000Z", "revokedAt": nil})
}

func TestKey_ofAnotherOrganizationDoesNotExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id, text := w.newKey(`{"level":"secret"}`)
	theirs := key(otherKey)
	w.do(http.MethodGet, path, "", theirs).refuses(http.StatusNotFound, "Key not found")
	w.do(http.MethodDelete, path, "", theirs).refuses(http.StatusNotFound, "Key not found")
	w.do(http.MethodDelete, path, "", theirs, header("If-Match", `"0"`)).refuses(http.StatusNotFound, "Key not found")
	if list := w.do(http.MethodGet, keysAt+"?first=100", "", theirs).is(http.StatusOK).Body.String(); strings.Contains(list, id) {
		t.Errorf("they see %s", list)
	}
	w.do(http.MethodGet, path, "", key(text)).is(http.StatusOK)
	unknown := w.do(http.MethodGet, keysAt+"/key_00000000000000000000000000", "", theirs, header("X-Request-Id", "r"))
	if got := w.do(http.MethodGet, path, "", theirs, header("X-Request-Id", "r")); got.Body.String() != unknown.Body.String() {
		t.Errorf("%s tells it from %s", got.Body, unknown.Body)
	}
}

// Keys have no entity tags, so only "*" matches a key.
func TestIfMatch_onAKeyOnlyTheStarMatches(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _, text := w.newKey(`{"level":"secret"}`)
	w.do(http.MethodDelete, path, "", header("If-Match", `"0"`)).refuses(http.StatusPreconditionFailed, "Precondition failed")
	w.do(http.MethodDelete, path, "", header("If-Match", `0`)).blames("If-Match")
	w.do(http.MethodGet, path, "", key(text)).is(http.StatusOK)
	w.do(http.MethodDelete, path, "", header("If-Match", "*")).is(http.StatusNoContent)
}

func TestKeys_areListedInPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var all []string
	for range 7 {
		_, id, _ := w.newKey(`{"level":"publishable"}`)
		all = append(all, id)
	}
	type page struct {
		Data     []struct{ ID string }
		PageInfo pageInfo
	}
	get := func(query string) (p page, ids []string) {
		t.Helper()
		if err := json.Unmarshal(w.do(http.MethodGet, keysAt+query, "").is(http.StatusOK).Body.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		for _, k := range p.Data {
			ids = append(ids, k.ID)
		}
		return p, ids
	}
	_, every := get("")
	if newest := every[:7]; len(every) != 11 || !slices.Equal(reversed(newest), all) {
		t.Fatalf("lists %v, made %v", every, all)
	}
	for _, size := range []string{"1", "2", "3", "10", "11", "100"} {
		var forth, back []string
		p, ids := get("?first=" + size)
		for forth = ids; p.PageInfo.HasNextPage; forth = append(forth, ids...) {
			p, ids = get("?first=" + size + "&after=" + *p.PageInfo.EndCursor)
			if !p.PageInfo.HasPreviousPage {
				t.Fatalf("nothing is before %v", ids)
			}
		}
		p, ids = get("?last=" + size)
		for back = ids; p.PageInfo.HasPreviousPage; back = slices.Concat(ids, back) {
			p, ids = get("?last=" + size + "&before=" + *p.PageInfo.StartCursor)
			if !p.PageInfo.HasNextPage {
				t.Fatalf("nothing is behind %v", ids)
			}
		}
		if !slices.Equal(forth, every) || !slices.Equal(back, every) {
			t.Errorf("in pages of %s: %v and %v, want %v", size, forth, back, every)
		}
	}
	p, _ := get("?first=2")
	cursor := *p.PageInfo.EndCursor
	// A cursor is valid for one list of one organization only.
	w.do(http.MethodGet, keysAt+"?after="+cursor, "", key(otherKey)).blames("after")
	w.do(http.MethodGet, "/api/v1/distributions?after="+cursor, "").blames("after")
	w.do(http.MethodGet, keysAt+"?after="+cursor[1:], "").blames("after")
	w.do(http.MethodGet, keysAt+"?first=0", "").blames("first")
	w.do(http.MethodGet, keysAt+"?first=101&last=1&sortBy=name&status=OPEN", "").blames("first", "first", "sortBy", "status")
}

func reversed(s []string) []string {
	r := slices.Clone(s)
	slices.Reverse(r)
	return r
}
