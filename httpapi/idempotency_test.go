package httpapi

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

func TestCreationIsRepeatable(t *testing.T) {
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

// A key is the caller's, for one path; what it is used for elsewhere is another
// command.
func TestScopeOfAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	repeat := header("Idempotency-Key", "key-1")
	body := `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3}`
	ids := map[string]bool{}
	_, id := w.create("draws", body, repeat)
	ids[id] = true
	_, id = w.create("draws", body, repeat, key(mySecond))
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
	if len(ids) != 7 {
		t.Errorf("%d of 7 creations are their own", len(ids))
	}
}

func TestStepIsRepeatable(t *testing.T) {
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
	// The same key closes, because that is another path.
	w.do(http.MethodPost, path+"/close", "", repeat).is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})
}

func TestRefusalIsNotRemembered(t *testing.T) {
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

func TestIdempotencyKeysThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", `{"sequenceId":"s"}`)
	for _, values := range [][]string{{""}, {"a b"}, {"ü"}, {"\x7f"}, {strings.Repeat("k", 256)}, {"a", "b"}} {
		w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("Idempotency-Key", values...)).blames("Idempotency-Key")
		w.do(http.MethodPost, path+"/open", "", header("Idempotency-Key", values...)).blames("Idempotency-Key")
	}
	w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, header("Idempotency-Key", strings.Repeat("k", 255))).is(http.StatusCreated)
}

// Two nodes that get one creation make one distribution.
func TestCreationOnTwoNodes(t *testing.T) {
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

// Repeats that come at once are one command, whatever they meet on their way.
func TestRepeatsAtOnce(t *testing.T) {
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

// FuzzIdempotencyKey checks that a key is taken or refused as the contract says,
// and that two requests are one command only when path and key are the same.
func FuzzIdempotencyKey(f *testing.F) {
	f.Add("/api/v1/queues", "a", "/api/v1/queues", "b")
	f.Add("/a", "b c", "/a", "")
	f.Add("/a/b", "c", "/a", "b/c")
	f.Add("/a", strings.Repeat("~", 255), "/a", strings.Repeat("~", 256))
	f.Fuzz(func(t *testing.T, path1, key1, path2, key2 string) {
		x := &exchange{organization: &domain.Organization{ID: "org_1"}, keyID: "key_1"}
		command := func(path, key string) (uuid.UUID, bool) {
			r := &http.Request{Method: http.MethodPost, URL: &url.URL{Path: path}, Header: http.Header{"Idempotency-Key": {key}}}
			scoped, err := idempotencyKey(x, r)
			usable := len(key) >= 1 && len(key) <= 255 && !strings.ContainsFunc(key, func(r rune) bool { return r < '!' || r > '~' })
			if usable != (err == nil) {
				t.Fatalf("%q: %v", key, err)
			}
			return commandKey(scoped, nil).CommandID, err == nil && !strings.Contains(path, "\n") // which no path that is served has
		}
		id1, ok1 := command(path1, key1)
		id2, ok2 := command(path2, key2)
		if same := path1 == path2 && key1 == key2; ok1 && ok2 && (id1 == id2) != same {
			t.Fatalf("%q %q is %s, %q %q is %s", path1, key1, id1, path2, key2, id2)
		}
	})
}
