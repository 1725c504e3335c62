package httpapi

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

// A read includes every write that this node acknowledged, however late the read models are.
func TestRead_waitsForAcknowledgedWrites(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.log.hold()
		path, _ := w.create("queues", `{"sequenceId":"s"}`)
		time.AfterFunc(900*time.Millisecond, w.log.release)
		w.do(http.MethodGet, path, "").is(http.StatusOK)

		w.log.hold()
		w.do(http.MethodPut, path, `{"name":"new"}`).is(http.StatusOK)
		time.AfterFunc(900*time.Millisecond, w.log.release)
		if a := w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK); !strings.Contains(a.Body.String(), `"name":"new"`) {
			t.Errorf("the list has %s", a.Body)
		}
	})
}

func TestRead_isServedAfterWaitingASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		path, _ := w.create("queues", `{"sequenceId":"s"}`)
		w.log.hold()
		w.do(http.MethodPut, path, `{"name":"new"}`).is(http.StatusOK)
		start := time.Now()
		w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"name": nil})
		if waited := time.Since(start); waited != time.Second {
			t.Errorf("waited %s", waited)
		}
		// Another organization's read does not wait.
		start = time.Now()
		w.do(http.MethodGet, "/api/v1/queues", "", key(otherKey)).is(http.StatusOK)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("another organization waited %s", waited)
		}
	})
}

// A read on another node waits for the position in X-Position, and is refused if the node
// does not reach it in time.
func TestRead_waitsForThePositionInItsHeader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		elsewhere := w.api
		w.api = New(w.config) // a node that has acknowledged nothing
		w.log.hold()
		here := w.api
		w.api = elsewhere
		made := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).is(http.StatusCreated)
		path, position := made.Header().Get("Location"), header("X-Position", made.Header().Get("X-Position"))
		w.api = here

		w.do(http.MethodGet, path, "").is(http.StatusNotFound)
		start := time.Now()
		for _, p := range []string{path, "/api/v1/queues"} {
			a := w.do(http.MethodGet, p, "", position).refuses(http.StatusServiceUnavailable, "Read model is behind")
			if a.Header().Get("Retry-After") != "1" {
				t.Errorf("%v", a.Header())
			}
		}
		if waited := time.Since(start); waited != 4*time.Second {
			t.Errorf("two reads waited %s", waited)
		}
		time.AfterFunc(1900*time.Millisecond, w.log.release)
		w.do(http.MethodGet, path, "", position).is(http.StatusOK)
	})
}

func TestPosition_thatTheEngineDidNotMakeIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`).is(http.StatusCreated)
	path, position := made.Header().Get("Location"), made.Header().Get("X-Position")
	w.do(http.MethodGet, path, "", header("X-Position", position)).is(http.StatusOK)
	bad := []string{"", "x", position + "A", position[1:], position + "=", strings.ToUpper(position)}
	for i := range len(position) {
		const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
		for _, c := range []byte(digits) {
			if position[i] != c {
				bad = append(bad, position[:i]+string(c)+position[i+1:])
			}
		}
	}
	for _, p := range bad {
		w.do(http.MethodGet, path, "", header("X-Position", p)).blames("X-Position")
	}
	w.do(http.MethodGet, path, "", header("X-Position", position, position)).blames("X-Position")
	w.do(http.MethodGet, "/api/v1/queues", "", header("X-Position", "x")).blames("X-Position")

	w.config.TokenKey = []byte("another")
	w.api = New(w.config)
	w.do(http.MethodGet, path, "", header("X-Position", position)).blames("X-Position")
}

func TestPositionsAndCursors_cannotReplaceEachOther(t *testing.T) {
	t.Parallel()
	s := newSealer([]byte("k"))
	token := s.seal(positionToken, "b", []byte("payload"))
	for _, c := range []struct {
		use, binding string
		opens        bool
	}{{positionToken, "b", true}, {cursorToken, "b", false}, {positionToken, "", false}, {positionToken, "bp", false}} {
		if _, ok := s.open(c.use, c.binding, token); ok != c.opens {
			t.Errorf("%+v: %t", c, ok)
		}
	}
}

func TestAcknowledged_remembersEveryOrganizationInBoundedMemory(t *testing.T) {
	t.Parallel()
	at := func(n int) domain.Position { return domain.Position{Commit: uint64(n), Prepare: uint64(n)} }
	organization := func(n int) domain.ID { return domain.ID("org_" + strconv.Itoa(n)) }
	var a acknowledged
	if a.latest("org_1") != (domain.Position{}) {
		t.Error("nothing was acknowledged")
	}
	a.note("org_1", at(5))
	a.note("org_1", at(3))
	if a.latest("org_1") != at(5) || a.latest("org_2") != (domain.Position{}) {
		t.Errorf("%v, %v", a.latest("org_1"), a.latest("org_2"))
	}
	// However many organizations write, every one of them waits for its own writes, and
	// the memory is bounded.
	for i := range 3*maxAcknowledged + 5 {
		a.note(organization(i), at(10+i))
		if len(a.positions) > maxAcknowledged {
			t.Fatalf("%d are kept", len(a.positions))
		}
	}
	for i := range 3*maxAcknowledged + 5 {
		if a.latest(organization(i)).Before(at(10 + i)) {
			t.Fatalf("%d: %v is known of %v", i, a.latest(organization(i)), at(10+i))
		}
	}
	// A position before the floor does not make an organization wait for less.
	a.note("org_late", at(1))
	if a.latest("org_late").Before(a.floor) {
		t.Errorf("%v is before %v", a.latest("org_late"), a.floor)
	}
}

func FuzzPosition(f *testing.F) {
	s := newServer(Config{TokenKey: []byte("k")})
	f.Add(s.formatPosition("org_1", domain.Position{Commit: 1, Prepare: 2}))
	f.Add(s.formatPosition("org_1", domain.Position{}))
	f.Add(s.sealer.seal(cursorToken, "org_1", make([]byte, 16)))
	f.Add(s.sealer.seal(positionToken, "org_1", nil))
	f.Add("\n" + s.formatPosition("org_1", domain.Position{}))
	f.Add("")
	f.Fuzz(func(t *testing.T, token string) {
		if p, ok := s.parsePosition("org_1", token); ok && s.formatPosition("org_1", p) != token {
			t.Fatalf("%q is taken for %v, which is %q", token, p, s.formatPosition("org_1", p))
		}
	})
}
