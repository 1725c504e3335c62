package httpapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

func TestIdempotencyKey_aCreationIsRepeatable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range kindCases {
		repeat := header("Idempotency-Key", "key-1")
		first := w.do(http.MethodPost, "/api/v1/"+c.collection, c.body, repeat).is(http.StatusCreated)
		if first.Header().Get("Idempotent-Replayed") != "" || first.Header().Get("X-Position") == "" {
			t.Errorf("the first answer has %v", first.Header())
		}
		path := first.Header().Get("Location")
		w.do(http.MethodPut, path, `{"name":"later"}`).is(http.StatusOK)
		w.advance(time.Minute)
		again := w.do(http.MethodPost, "/api/v1/"+c.collection, c.body, repeat).is(http.StatusCreated)
		if again.Body.String() != first.Body.String() {
			t.Errorf("repeated: %s, at first %s", again.Body, first.Body)
		}
		for name, want := range map[string]string{
			"Location": path, "Etag": `"0"`, "Idempotent-Replayed": "true", "X-Position": first.Header().Get("X-Position"),
		} {
			if got := again.Header().Get(name); got != want {
				t.Errorf("repeated: %s %q, want %q", name, got, want)
			}
		}
		w.do(http.MethodPost, "/api/v1/"+c.collection, c.body+" ", repeat).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
		w.handlerRestarts()
		if later := w.do(http.MethodPost, "/api/v1/"+c.collection, c.body, repeat).is(http.StatusCreated); later.Body.String() != first.Body.String() {
			t.Errorf("repeated after a restart: %s", later.Body)
		}
	}
}

// The scope of an idempotency key is an organization and a path. The same key in another
// scope is another command.
func TestIdempotencyKey_ofAnotherScopeIsAnotherCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repeat := header("Idempotency-Key", "key-1")
	body := `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3}`
	ids := map[string]bool{}
	_, id := w.create("draws", body, repeat)
	ids[id] = true
	_, id = w.create("draws", body, repeat, key(otherKey))
	ids[id] = true
	_, id = w.create("draws", body, header("Idempotency-Key", "key-2"))
	ids[id] = true
	_, id = w.create("queues", `{"sequenceId":"s"}`, repeat)
	ids[id] = true
	_, id = w.create("draws", body)
	ids[id] = true
	_, id = w.create("draws", body)
	ids[id] = true
	if len(ids) != 6 {
		t.Errorf("%d of 6 creations are their own", len(ids))
	}
}

// A client may repeat a request with another secret key, because it renewed the first one.
// The request is carried out once all the same.
func TestIdempotencyKey_aRequestRepeatedWithARenewedKeyIsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repeat, renewed := header("Idempotency-Key", "key-1"), key(mySecond)
	path := w.openQueue()
	consumers := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	w.enter(path, consumers...)
	const admitFive = `{"count":5}`
	w.do(http.MethodPost, path+"/admit", admitFive, repeat).is(http.StatusOK)
	created := w.do(http.MethodPost, "/api/v1/draws", `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3}`, repeat).is(http.StatusCreated)
	made := w.do(http.MethodPost, keysAt, `{"level":"publishable"}`, repeat).is(http.StatusCreated)
	wantKey := strings.Replace(made.Body.String(), `"`+made.object()["key"].(string)+`"`, "null", 1)
	for range 2 {
		w.writes(0, func() {
			again := w.do(http.MethodPost, path+"/admit", admitFive, repeat, renewed)
			if got := admitted(again); !slices.Equal(got, consumers[:5]) || again.Header().Get("Idempotent-Replayed") != "true" {
				t.Errorf("admitted %q, %v", got, again.Header())
			}
			again = w.do(http.MethodPost, "/api/v1/draws", `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3}`, repeat, renewed).is(http.StatusCreated)
			if again.Body.String() != created.Body.String() {
				t.Errorf("made %s, at first %s", again.Body, created.Body)
			}
			again = w.do(http.MethodPost, keysAt, `{"level":"publishable"}`, repeat, renewed).is(http.StatusCreated)
			if again.Body.String() != wantKey {
				t.Errorf("made %s, want %s", again.Body, wantKey)
			}
			w.do(http.MethodPost, path+"/admit", `{"count":6}`, repeat, renewed).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
		})
		w.handlerRestarts()
	}
}

// A repeat of a consumer's request is recognised whether it comes with the same token, with
// a renewed token, or with either secret key that acts for the consumer. Another consumer's
// request with the same key is another command.
func TestIdempotencyKey_aConsumersRequestIsOneWhoeverSendsIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	repeat := header("Idempotency-Key", "key-1")
	enter := func(o ...option) *reply {
		return w.do(http.MethodPost, path+"/enter", "", append(o, repeat)...).is(http.StatusOK)
	}
	token := as(w.session("c"))
	w.writes(1, func() { enter(token) })
	w.writes(1, func() { w.do(http.MethodPost, path+"/leave", "", token, repeat).is(http.StatusOK) })
	w.advance(time.Minute)
	// Without the idempotency key this would be a new entry at the end, because the consumer
	// has left.
	for name, o := range map[string][]option{
		"the token": {token}, "a renewed token": {as(w.session("c"))}, "a secret key": {acting("c")}, "another secret key": {acting("c"), key(mySecond)},
	} {
		w.writes(0, func() {
			if a := enter(o...); a.Header().Get("Idempotent-Replayed") != "true" || a.object()["status"] != "LEFT" {
				t.Errorf("%s: %v %s", name, a.Header(), a.Body)
			}
		})
	}
	w.writes(1, func() { enter(acting("d")) })
}

func TestIdempotencyKey_aStepIsRepeatable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s","maxCapacity":1}`)
	repeat := header("Idempotency-Key", "key-1")
	w.do(http.MethodPost, path+"/open", "", repeat).is(http.StatusOK)
	later := w.do(http.MethodPut, path, `{"name":"later"}`).is(http.StatusOK)
	again := w.do(http.MethodPost, path+"/open", "", repeat).is(http.StatusOK)
	again.wants(map[string]any{"status": "OPEN", "name": "later"})
	if again.Header().Get("Idempotent-Replayed") != "true" || again.Header().Get("X-Position") != later.Header().Get("X-Position") {
		t.Errorf("repeated: %v", again.Header())
	}
	w.do(http.MethodPost, path+"/open", "{}", repeat).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
	// The same key can close the queue, because that is another path.
	w.do(http.MethodPost, path+"/close", "", repeat).is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})
}

func TestIdempotencyKey_aRefusalIsNotRemembered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repeat := header("Idempotency-Key", "key-1")
	w.do(http.MethodPost, "/api/v1/queues", `{}`, repeat).blames("sequenceId")
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, repeat).is(http.StatusCreated)

	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	w.do(http.MethodPost, path+"/close", "", repeat).refuses(http.StatusConflict, "Invalid status transition")
	w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
	a := w.do(http.MethodPost, path+"/close", "", repeat).is(http.StatusOK)
	if a.Header().Get("Idempotent-Replayed") != "" {
		t.Error("a refusal was replayed")
	}
}

func TestIdempotencyKey_aMalformedKeyIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	for _, values := range [][]string{{""}, {"a b"}, {"ü"}, {"\x7f"}, {strings.Repeat("k", 256)}, {"a", "b"}} {
		w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("Idempotency-Key", values...)).blames("Idempotency-Key")
		w.do(http.MethodPost, path+"/open", "", header("Idempotency-Key", values...)).blames("Idempotency-Key")
	}
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("Idempotency-Key", strings.Repeat("k", 255))).is(http.StatusCreated)
}

// Two nodes that receive the same creation create one distribution.
func TestIdempotencyKey_aCreationOnTwoNodesCreatesOne(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	second := w.config
	second.Commands = commands.NewHandler(w.log, nil, w.config.Clock)
	repeat := header("Idempotency-Key", "key-1")
	path, id := w.create("queues", `{"sequenceId":"s"}`, repeat)
	w.api = New(second)
	if again, other := w.create("queues", `{"sequenceId":"s"}`, repeat); again != path || other != id {
		t.Errorf("made %s and %s", path, again)
	}
}

// Concurrent repeats are one command, whatever they find on the way.
func TestIdempotencyKey_concurrentRepeatsAreOneCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	var made [8]string
	var wait sync.WaitGroup
	for i := range made {
		wait.Go(func() {
			repeat := header("Idempotency-Key", "key-1")
			made[i], _ = w.create("queues", `{"sequenceId":"s"}`, repeat)
			w.do(http.MethodPost, path+"/open", "", repeat).is(http.StatusOK)
		})
	}
	wait.Wait()
	for _, m := range made {
		if m != made[0] {
			t.Fatalf("made %q", made)
		}
	}
}

// Two different scopes never give the same command id, whatever texts their parts have.
func TestIdempotencyKey_differentScopesHaveDifferentIDs(t *testing.T) {
	t.Parallel()
	seen := map[uuid.UUID]string{}
	for _, c := range []struct{ organization, consumer, method, path string }{
		{"o", "", "POST", "/a"},
		{"o", "POST", "/a", ""},
		{"o", "", "POST", "/a\n"},
		{"o\nPOST", "", "/a", ""},
		{"oPOST", "", "/a", ""},
		{"o", "c", "POST", "/a"},
		{"o", "cP", "OST", "/a"},
		{"", "o", "POST", "/a"},
	} {
		x := &exchange{organization: &domain.Organization{ID: domain.ID(c.organization)}, consumer: c.consumer}
		r := &http.Request{Method: c.method, URL: &url.URL{Path: c.path}, Header: http.Header{"Idempotency-Key": {"k"}}}
		id, err := idempotencyKey(x, r)
		if err != nil {
			t.Fatal(err)
		}
		scope := strings.Join([]string{c.organization, c.consumer, c.method, c.path}, " | ")
		if other, ok := seen[id]; ok {
			t.Errorf("%q and %q are one command", scope, other)
		}
		seen[id] = scope
	}
}

// FuzzIdempotencyKey checks that a key is accepted or refused as the contract says, and that
// two requests are one command only if their paths and keys are equal.
func FuzzIdempotencyKey(f *testing.F) {
	f.Add("/api/v1/queues", "a", "/api/v1/queues", "b")
	f.Add("/a", "b c", "/a", "")
	f.Add("/a/b", "c", "/a", "b/c")
	f.Add("/a\nb", "c", "/a", "b")
	f.Add("/a", strings.Repeat("~", 255), "/a", strings.Repeat("~", 256))
	f.Fuzz(func(t *testing.T, path1, key1, path2, key2 string) {
		x := &exchange{organization: &domain.Organization{ID: "org_1"}, keyID: "key_1"}
		command := func(path, key string) (uuid.UUID, bool) {
			r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: path}, Header: http.Header{"Idempotency-Key": {key}}}
			id, err := idempotencyKey(x, r)
			usable := len(key) >= 1 && len(key) <= 255 && !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
			if usable != (err == nil) {
				t.Fatalf("%q: %v", key, err)
			}
			return id, err == nil
		}
		id1, ok1 := command(path1, key1)
		id2, ok2 := command(path2, key2)
		if same := path1 == path2 && key1 == key2; ok1 && ok2 && (id1 == id2) != same {
			t.Fatalf("%q %q is %s, %q %q is %s", path1, key1, id1, path2, key2, id2)
		}
	})
}
