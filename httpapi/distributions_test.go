package httpapi

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"
)

// kindCases have the smallest creation of each kind.
var kindCases = []struct{ collection, kind, body string }{
	{"queues", "queue", `{"sequenceId":"s"}`},
	{"draws", "draw", `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3}`},
	{"auctions", "auction", `{"sequenceId":"s","settleAt":"2026-06-01T00:00:00Z"}`},
}

func TestDistribution_ofEachKindIsCreatedChangedAndDeleted(t *testing.T) {
	t.Parallel()
	for _, c := range kindCases {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			made := w.do(http.MethodPost, "/api/v1/"+c.collection, c.body).is(http.StatusCreated)
			made.wants(map[string]any{
				"type": c.kind, "status": "DRAFT", "organizationId": string(w.mine), "timeZone": "Europe/Berlin",
				"createdAt": "2026-03-01T12:00:00.000Z",
			})
			path := made.Header().Get("Location")
			if want := "/api/v1/" + c.collection + "/" + made.id(); path != want {
				t.Fatalf("Location %q, want %q", path, want)
			}
			if got := made.Header().Get("Etag"); got != `"0"` {
				t.Errorf("ETag %q", got)
			}
			for _, p := range []string{path, "/api/v1/distributions/" + made.id()} {
				got := w.do(http.MethodGet, p, "").is(http.StatusOK)
				if got.Body.String() != made.Body.String() || got.Header().Get("Etag") != `"0"` {
					t.Errorf("GET %s: %s with %s, made %s", p, got.Body, got.Header(), made.Body)
				}
			}
			put := w.do(http.MethodPut, path, `{"name":"Ünïcode <&>","openAt":"2026-05-01T00:00:00"}`).is(http.StatusOK)
			// 00:00 in Berlin is 22:00 UTC of the day before.
			put.wants(map[string]any{"status": "SCHEDULED", "name": "Ünïcode <&>", "openAt": "2026-04-30T22:00:00.000Z"})
			if got := put.Header().Get("Etag"); got != `"2"` {
				t.Errorf("ETag after updated and scheduled: %q", got)
			}
			if got := w.do(http.MethodGet, path, "").is(http.StatusOK); got.Body.String() != put.Body.String() {
				t.Errorf("GET after PUT: %s, want %s", got.Body, put.Body)
			}
			gone := w.do(http.MethodDelete, path, "").is(http.StatusNoContent)
			if gone.Body.Len() != 0 || gone.Header().Get("X-Position") == "" {
				t.Errorf("DELETE: %q %v", gone.Body, gone.Header())
			}
			title := strings.ToUpper(c.kind[:1]) + c.kind[1:]
			for _, method := range []string{http.MethodGet, http.MethodDelete} {
				w.do(method, path, "").refuses(http.StatusNotFound, title+" not found")
			}
			w.do(http.MethodPut, path, `{}`).refuses(http.StatusNotFound, title+" not found")
			w.do(http.MethodGet, "/api/v1/distributions/"+made.id(), "").refuses(http.StatusNotFound, "Distribution not found")
		})
	}
}

func TestCreation_usesTheOrganizationsDefaults(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	body := kindCases[2].body
	w.do(http.MethodPost, "/api/v1/auctions", body).wants(map[string]any{"currencyCode": "EUR", "timeZone": "Europe/Berlin"})
	w.do(http.MethodPost, "/api/v1/auctions", body, key(otherKey)).wants(map[string]any{"currencyCode": "USD", "timeZone": "UTC"})
}

func TestStep_byHandChangesTheStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	queue, _ := w.create("queues", kindCases[0].body)
	w.do(http.MethodPost, queue+"/open", "").is(http.StatusOK).wants(map[string]any{"status": "OPEN", "openAt": "2026-03-01T12:00:00.000Z"})
	w.do(http.MethodPost, queue+"/open", "").refuses(http.StatusConflict, "Invalid status transition")
	w.do(http.MethodPost, queue+"/close", `{}`).is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})

	draw, _ := w.create("draws", kindCases[1].body)
	w.do(http.MethodPost, draw+"/draw", "").refuses(http.StatusConflict, "Invalid status transition")
	w.do(http.MethodPost, draw+"/open", "").is(http.StatusOK)
	w.advance(time.Second)
	w.do(http.MethodPost, draw+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
	w.do(http.MethodPost, draw+"/draw", "").is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})

	auction, _ := w.create("auctions", kindCases[2].body)
	w.do(http.MethodPost, auction+"/open", "").is(http.StatusOK)
	w.advance(time.Second)
	w.do(http.MethodPost, auction+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
	w.do(http.MethodPost, auction+"/settle", "").is(http.StatusOK).wants(map[string]any{"status": "SETTLED"})
}

func TestStep_refusesFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", kindCases[0].body)
	w.do(http.MethodPost, path+"/open", `{"at":1,"by":2}`).blames("at", "by")
	w.do(http.MethodPost, path+"/open", `[]`).refuses(http.StatusBadRequest, "Invalid JSON")
	w.do(http.MethodGet, path, "").wants(map[string]any{"status": "DRAFT"})
}

func TestEntropy_isSuppliedToAClosedDraw(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("draws", `{"sequenceId":"s","drawAt":"2026-06-01T00:00:00Z","winnerCount":3,"entropySource":"drand 1"}`)
	entropy := path + "/entropy"
	w.do(http.MethodPut, entropy, `{"value":"v"}`).refuses(http.StatusConflict, "Invalid status transition")
	w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
	w.advance(time.Second)
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
	w.do(http.MethodPost, path+"/draw", "").refuses(http.StatusConflict, "Invalid status transition")
	w.do(http.MethodPut, entropy, `{"b":1,"a":2}`).blames("a", "b", "value")
	for _, value := range []string{"7", "null", `""`, `"a\tb"`, `"\ud800"`, `"` + strings.Repeat("é", 257) + `"`} {
		w.do(http.MethodPut, entropy, `{"value":`+value+`,"y":1,"x":2}`).blames("x", "y", "value")
	}
	w.do(http.MethodPut, entropy, `{"value":"v"}`, header("If-Match", `"0"`)).refuses(http.StatusPreconditionFailed, "Precondition failed")
	first := w.do(http.MethodPut, entropy, `{"value":"v"}`).is(http.StatusOK)
	again := w.do(http.MethodPut, entropy, `{"value":"v"}`).is(http.StatusOK)
	if first.Body.String() != again.Body.String() || again.Header().Get("X-Position") != first.Header().Get("X-Position") {
		t.Errorf("the same value again: %s %v", again.Body, again.Header())
	}
	w.do(http.MethodPost, path+"/draw", "").is(http.StatusOK)
	queue, _ := w.create("queues", kindCases[0].body)
	w.do(http.MethodPut, strings.Replace(queue, "queues", "draws", 1)+"/entropy", `{"value":"v"}`).refuses(http.StatusNotFound, "Draw not found")
}

func TestPut_withoutAChangeWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.do(http.MethodPost, "/api/v1/queues", `{"sequenceId":"s","name":"n"}`).is(http.StatusCreated)
	a := w.do(http.MethodPut, made.Header().Get("Location"), `{"name":"n","sequenceId":"s"}`).is(http.StatusOK)
	if a.Header().Get("Etag") != `"0"` || a.Header().Get("X-Position") != made.Header().Get("X-Position") {
		t.Errorf("got %v", a.Header())
	}
}

func TestRefusals_ofTheRulesAreAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", kindCases[0].body)
	w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
	w.do(http.MethodPut, path, `{"openAt":"2026-07-01T00:00:00Z"}`).refuses(http.StatusConflict, "Cannot update open distribution")
	w.do(http.MethodDelete, path, "").refuses(http.StatusConflict, "Cannot delete active distribution")
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
	w.do(http.MethodPut, path, `{"name":"late"}`).refuses(http.StatusConflict, "Cannot update closed distribution")
	w.do(http.MethodDelete, path, "").is(http.StatusNoContent)
}

func TestCreation_aRefusalNamesEveryWrongField(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.do(http.MethodPost, "/api/v1/draws", `{"drawAt":"soon","winnerCount":0,"status":"OPEN","colour":1,"name":7}`).
		blames("colour", "sequenceId", "name", "status", "drawAt", "winnerCount")
	path, _ := w.create("draws", kindCases[1].body)
	w.do(http.MethodPut, path, `{"drawAt":null,"colour":1,"timeZone":"Mars/Base"}`).blames("colour", "timeZone", "drawAt")
}

func TestPathID_thatNamesNoDistributionOfItsKindIsNotFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	_, queue := w.create("queues", kindCases[0].body)
	_, draw := w.create("draws", kindCases[1].body)
	for _, c := range []struct{ collection, id, text string }{
		{"queues", draw, "Queue not found"},
		{"draws", queue, "Draw not found"},
		{"auctions", queue, "Auction not found"},
		{"queues", "queue_", "Queue not found"},
		{"queues", "nonsense", "Queue not found"},
		{"queues", queue + "0", "Queue not found"},
		{"queues", strings.ToUpper(queue), "Queue not found"},
		{"queues", "queue_8zzzzzzzzzzzzzzzzzzzzzzzzz", "Queue not found"},
		{"distributions", "nonsense", "Distribution not found"},
		{"distributions", strings.Replace(queue, "queue_", "org_", 1), "Distribution not found"},
		{"distributions", strings.Replace(queue, "queue_", "_", 1), "Distribution not found"},
	} {
		path := "/api/v1/" + c.collection + "/" + c.id
		w.do(http.MethodGet, path, "").refuses(http.StatusNotFound, c.text)
		if c.collection == "distributions" {
			continue
		}
		w.do(http.MethodPut, path, `{"name":"x"}`).refuses(http.StatusNotFound, c.text)
		w.do(http.MethodDelete, path, "").refuses(http.StatusNotFound, c.text)
		w.do(http.MethodPost, path+"/open", "").refuses(http.StatusNotFound, c.text)
	}
}

// A distribution of another organization is answered exactly like one that does not exist,
// to the byte.
func TestTenancy_anotherOrganizationsDistributionDoesNotExist(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range kindCases {
		path, id := w.create(c.collection, c.body)
		last := id[len(id)-1]
		unknown := strings.TrimSuffix(path, string(last)) + string("0123456789abcdefghjkmnpqrstvwxyz"[(strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", last)+1)%32])
		for _, call := range []struct{ method, suffix, body string }{
			{http.MethodGet, "", ""},
			{http.MethodPut, "", `{"name":"x"}`},
			{http.MethodPut, "", `{"colour":"x"}`},
			{http.MethodDelete, "", ""},
			{http.MethodPost, "/open", ""},
		} {
			id := header("X-Request-Id", "r")
			foreign := w.do(call.method, path+call.suffix, call.body, key(otherKey), id).is(http.StatusNotFound)
			missing := w.do(call.method, unknown+call.suffix, call.body, key(otherKey), id).is(http.StatusNotFound)
			if foreign.Body.String() != missing.Body.String() {
				t.Errorf("%s: %s, but a missing one: %s", foreign.what, foreign.Body, missing.Body)
			}
			if f, m := asJSON(t, foreign.Header()), asJSON(t, missing.Header()); f != m {
				t.Errorf("%s: %s, but a missing one: %s", foreign.what, f, m)
			}
		}
		for _, p := range []string{"/api/v1/" + c.collection, "/api/v1/distributions"} {
			if a := w.do(http.MethodGet, p, "", key(otherKey)).is(http.StatusOK); !strings.HasPrefix(a.Body.String(), `{"data":[],`) {
				t.Errorf("%s shows another's: %s", p, a.Body)
			}
		}
		w.do(http.MethodGet, path, "").is(http.StatusOK)
	}
}

func TestBrokenHistory_isAnsweredAsAFault(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, id := w.create("queues", kindCases[0].body)
	sound, _ := w.create("queues", kindCases[0].body)
	w.log.corrupt(strings.Replace(id, "_", "-", 1))
	// The command handler notices the broken history when it has to read the stream.
	w.handlerRestarts()
	const text = "Distribution history is inconsistent"
	a := w.do(http.MethodGet, path, "").refuses(http.StatusInternalServerError, text)
	if m := a.failure().Message; !strings.Contains(m, "revision 1") {
		t.Errorf("message %q", m)
	}
	w.do(http.MethodPut, path, `{"name":"x"}`).refuses(http.StatusInternalServerError, text)
	w.do(http.MethodDelete, path, "").refuses(http.StatusInternalServerError, text)
	w.do(http.MethodPost, path+"/open", "").refuses(http.StatusInternalServerError, text)
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		body := ""
		if method == http.MethodPut {
			body = `{}`
		}
		w.do(method, path, body, key(otherKey)).refuses(http.StatusNotFound, "Queue not found")
	}
	w.do(http.MethodGet, sound, "").is(http.StatusOK)
	if a := w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK); strings.Contains(a.Body.String(), id) {
		t.Errorf("a list contains the broken queue: %s", a.Body)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
