package httpapi

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// The tests in this file follow the tables of the HTTP contract. Each row has a subtest of
// the same name. A row that needs more than a few lines has a test of its own elsewhere.

func runRows(t *testing.T, rows []contractRow) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			r.test(newWire(t))
		})
	}
}

// inBothMedia runs rows about errors once for each media type of error answers.
func inBothMedia(t *testing.T, rows []contractRow) {
	t.Helper()
	for _, media := range []string{mediaJSON, mediaProblem} {
		t.Run(media, func(t *testing.T) {
			t.Parallel()
			doubled := make([]contractRow, len(rows))
			for i, r := range rows {
				doubled[i] = contractRow{r.name, func(w *world) {
					w.accept = media
					r.test(w)
				}}
			}
			runRows(t, doubled)
		})
	}
}

// contractRow is a row of a contract table, with the test that shows that it holds.
type contractRow struct {
	name string
	test func(w *world)
}

const (
	queues   = "/api/v1/queues"
	draws    = "/api/v1/draws"
	auctions = "/api/v1/auctions"
)

func TestContract_commonRules(t *testing.T) {
	t.Parallel()
	runRows(t, []contractRow{
		{"base path", func(w *world) {
			w.do(http.MethodGet, queues, "").is(http.StatusOK)
			w.do(http.MethodGet, "/queues", "").refuses(http.StatusNotFound, "Not found")
		}},
		{"media type", func(w *world) {
			a := w.do(http.MethodPost, queues, ofLength(maxBody)).is(http.StatusCreated)
			if got := a.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
				w.tb.Errorf("Content-Type %q", got)
			}
			w.do(http.MethodPost, queues, ofLength(maxBody+1)).refuses(http.StatusRequestEntityTooLarge, "Content too large")
		}},
		{"IDs", func(w *world) {
			for _, c := range kindCases {
				last := ""
				for range 20 {
					path, id := w.create(c.collection, c.body)
					if _, ok := domain.ParseID(c.kind, id); !ok || id <= last || !strings.HasSuffix(path, id) {
						w.tb.Errorf("%s after %s", id, last)
					}
					last = id
					w.advance(time.Millisecond)
				}
				organization := w.do(http.MethodGet, "/api/v1/distributions/"+last, "").object()["organizationId"].(string)
				if _, ok := domain.ParseID("org", organization); !ok {
					w.tb.Errorf("the organization %s", organization)
				}
				stored := w.log.streams[domain.ID(last).Stream()][0].ID
				if events := w.do(http.MethodGet, eventsPath(last), "").is(http.StatusOK); !strings.Contains(events.Body.String(), `"id":"evt_`+domain.Base32(stored)+`"`) {
					w.tb.Errorf("the event %s is in %s", stored, events.Body)
				}
			}
			w.do(http.MethodPost, queues, `{"sequenceId":"a b"}`).blames("sequenceId")
			w.do(http.MethodPost, queues, fmt.Sprintf(`{"sequenceId":%q}`, strings.Repeat("~", 128))).is(http.StatusCreated)
			w.do(http.MethodPost, queues, fmt.Sprintf(`{"sequenceId":%q}`, strings.Repeat("~", 129))).blames("sequenceId")
			if got := w.do(http.MethodGet, queues, "", header("X-Request-Id", "a b")).is(http.StatusOK).Header().Get("X-Request-Id"); got == "a b" || got == "" {
				w.tb.Errorf("a bad request id is %q", got)
			}
		}},
		{"time in", func(w *world) {
			for in, out := range map[string]any{
				"2026-12-15T09:00:00+05:30":   "2026-12-15T03:30:00.000Z",
				"2026-12-15T09:00:00":         "2026-12-15T08:00:00.000Z",
				"2026-12-15T09:00:00.123999Z": "2026-12-15T09:00:00.123Z",
			} {
				w.do(http.MethodPost, queues, fmt.Sprintf(`{"sequenceId":"s","openAt":%q}`, in)).is(http.StatusCreated).wants(map[string]any{"openAt": out})
			}
			for in, says := range map[string]string{"2026-03-29T02:30:00": "does not exist in Europe/Berlin", "2026-10-25T02:30:00": "happens twice in Europe/Berlin"} {
				a := w.do(http.MethodPost, queues, fmt.Sprintf(`{"sequenceId":"s","openAt":%q}`, in))
				if a.blames("openAt"); !strings.Contains(a.failure().Details[0].Message, says) {
					w.tb.Errorf("%s", a.Body)
				}
			}
		}},
		{"time out", func(w *world) {
			w.do(http.MethodPost, queues, `{"sequenceId":"s","openAt":"2027-01-01T00:00:00+01:00"}`).wants(map[string]any{
				"openAt": "2026-12-31T23:00:00.000Z", "createdAt": "2026-03-01T12:00:00.000Z", "updatedAt": "2026-03-01T12:00:00.000Z",
			})
		}},
		{"timeZone", func(w *world) {
			made := w.do(http.MethodPost, queues, `{"sequenceId":"s","openAt":"2026-12-15T09:00:00"}`)
			made.wants(map[string]any{"timeZone": "Europe/Berlin"})
			w.do(http.MethodPost, queues, `{"sequenceId":"s"}`, key(otherKey)).wants(map[string]any{"timeZone": "UTC"})
			w.do(http.MethodPut, made.Header().Get("Location"), `{"timeZone":"Asia/Tokyo"}`).is(http.StatusOK).
				wants(map[string]any{"timeZone": "Asia/Tokyo", "openAt": "2026-12-15T08:00:00.000Z"})
		}},
		{"numbers", func(w *world) {
			w.do(http.MethodPost, queues, `{"sequenceId":"s","maxCapacity":2147483647,"sessionDurationSeconds":31536000}`).is(http.StatusCreated).
				wants(map[string]any{"maxCapacity": 2147483647.0, "sessionDurationSeconds": 31536000.0})
			w.do(http.MethodPost, queues, `{"sequenceId":"s","maxCapacity":2147483648,"sessionDurationSeconds":0}`).blames("maxCapacity", "sessionDurationSeconds")
		}},
		{"money", func(w *world) {
			with := func(v string) *reply {
				return w.do(http.MethodPost, auctions, `{"sequenceId":"s","settleAt":"2026-06-01T00:00:00Z","startingBid":`+v+`}`)
			}
			for in, out := range map[string]string{"100.50": "100.5", `"100.50"`: "100.5", "999999999999.99": "999999999999.99"} {
				if a := with(in).is(http.StatusCreated); !strings.Contains(a.Body.String(), `"startingBid":`+out+`,`) {
					w.tb.Errorf("%s came out in %s", in, a.Body)
				}
			}
			for _, in := range []string{"1e2", "1000000000000", "0.001"} {
				with(in).blames("startingBid")
			}
		}},
		{"unknown JSON fields", func(w *world) {
			w.do(http.MethodPost, queues, `{"sequenceId":"s","colour":1}`).blames("colour")
		}},
		{"PUT", func(w *world) {
			path, _ := w.create("queues", `{"sequenceId":"s","name":"n","maxCapacity":5}`)
			w.do(http.MethodPut, path, `{"maxCapacity":null}`).is(http.StatusOK).wants(map[string]any{"name": "n", "maxCapacity": nil})
			w.writes(0, func() {
				w.do(http.MethodPut, path, `{"name":"n","maxCapacity":null,"sequenceId":"s"}`).is(http.StatusOK)
			})
		}},
		{"request id", func(w *world) {
			mine := w.do(http.MethodPost, queues, kindCases[0].body, header("X-Request-Id", "mine")).is(http.StatusCreated)
			if got := mine.Header().Get("X-Request-Id"); got != "mine" || !strings.Contains(w.logged.String(), `"request_id":"mine"`) {
				w.tb.Errorf("%q, logged %s", got, w.logged)
			}
			for r, err := range w.log.Read(w.tb.Context(), strings.Replace(mine.id(), "_", "-", 1), domain.NoStream) {
				if err != nil || r.Metadata.RequestID != "mine" {
					w.tb.Errorf("%+v, %v", r.Metadata, err)
				}
			}
			if made := w.do(http.MethodGet, queues, "").Header().Get("X-Request-Id"); made == "" {
				w.tb.Error("none is made")
			}
		}},
		{"ETag", func(w *world) {
			path, _ := w.create("queues", kindCases[0].body)
			tag := w.do(http.MethodGet, path, "").Header().Get("Etag")
			w.do(http.MethodPut, path, `{"name":"a"}`, header("If-Match", tag)).is(http.StatusOK)
			w.writes(0, func() {
				w.do(http.MethodPut, path, `{"name":"b"}`, header("If-Match", tag)).refuses(http.StatusPreconditionFailed, "Precondition failed")
				w.do(http.MethodDelete, path, "", header("If-Match", tag)).refuses(http.StatusPreconditionFailed, "Precondition failed")
			})
		}},
		{"reads after writes", func(w *world) {
			path, _ := w.create("queues", kindCases[0].body)
			for i := range 20 {
				name := fmt.Sprint(i)
				position := w.do(http.MethodPut, path, `{"name":"`+name+`"}`).is(http.StatusOK).Header().Get("X-Position")
				w.do(http.MethodGet, path, "").wants(map[string]any{"name": name})
				w.do(http.MethodGet, path, "", header("X-Position", position)).is(http.StatusOK)
			}
			w.do(http.MethodGet, path, "", header("X-Position", "x")).blames("X-Position")
		}},
		{"CORS", func(w *world) {
			path, _ := w.create("queues", kindCases[0].body)
			if got := w.do(http.MethodGet, path, "", publishable(myPublic), fromAPage).is(http.StatusOK).Header().Get("Access-Control-Allow-Origin"); got != "*" {
				w.tb.Errorf("any origin: %q", got)
			}
			w.do(http.MethodOptions, path, "", fromAPage, header("Access-Control-Request-Method", "GET")).is(http.StatusNoContent)
		}},
		{"Idempotency", func(w *world) {
			k := header("Idempotency-Key", "k")
			first := w.do(http.MethodPost, queues, kindCases[0].body, k).is(http.StatusCreated)
			w.advance(24 * time.Hour)
			w.writes(0, func() {
				again := w.do(http.MethodPost, queues, kindCases[0].body, k).is(http.StatusCreated)
				if again.Body.String() != first.Body.String() || again.Header().Get("Idempotent-Replayed") != "true" {
					w.tb.Errorf("%s %v", again.Body, again.Header())
				}
				w.do(http.MethodPost, queues, `{"sequenceId":"t"}`, k).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
			})
			// The events contain the command's id and the hash of its body.
			for _, r := range w.log.streams[domain.ID(first.id()).Stream()] {
				command, err := uuid.Parse(r.Metadata.CommandID)
				if err != nil || command.Version() != 5 || r.Metadata.BodyHash != body(kindCases[0].body).hash() {
					w.tb.Errorf("%s by %+v", r.Type, r.Metadata)
				}
			}
		}},
	})
}

// ofLength returns the body of a queue's creation, padded to n bytes.
func ofLength(n int) string {
	const start, end = `{"sequenceId":"s"`, `}`
	return start + strings.Repeat(" ", n-len(start)-len(end)) + end
}

func TestContract_credentials(t *testing.T) {
	t.Parallel()
	runRows(t, []contractRow{
		{"secret key", func(w *world) {
			for _, k := range []string{myKey, mySecond} {
				path, _ := w.create("queues", kindCases[0].body, key(k))
				// Test and live keys see the same distributions.
				w.do(http.MethodGet, path, "").is(http.StatusOK)
				w.do(http.MethodGet, path, "", key(otherKey)).refuses(http.StatusNotFound, "Queue not found")
			}
		}},
		{"publishable key", func(w *world) {
			path, _ := w.create("queues", kindCases[0].body)
			w.do(http.MethodGet, path, "", publishable(myPublic)).is(http.StatusOK).wants(map[string]any{"status": "PENDING"})
			w.do(http.MethodPut, path, `{}`, publishable(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
			w.do(http.MethodPost, "/api/v1/auth/guest", "", publishable(myPublic)).is(http.StatusCreated)
		}},
		{"consumer", func(w *world) {
			path := w.openQueue()
			guest := w.do(http.MethodPost, "/api/v1/auth/guest", "", publishable(myPublic)).object()
			for consumer, token := range map[string]string{guest["consumerId"].(string): guest["accessToken"].(string), "c": w.session("c")} {
				w.do(http.MethodPost, path+"/enter", "", as(token)).is(http.StatusOK).wants(map[string]any{"consumerId": consumer, "status": "QUEUED"})
				// The token's consumer is the same one that the secret key acts for.
				w.do(http.MethodGet, path+"/status", "", acting(consumer)).is(http.StatusOK).wants(map[string]any{"status": "QUEUED"})
				w.do(http.MethodGet, path+"/status", "", key(token)).refuses(http.StatusUnauthorized, "Authentication required")
				w.do(http.MethodGet, queues, "", as(token)).refuses(http.StatusUnauthorized, "Secret key required")
				for _, call := range []string{"", "/status"} {
					w.do(http.MethodGet, path+call, "", as(token), acting(consumer)).blames("X-Consumer-Id")
				}
			}
		}},
	})
}

// Each error is checked in both media types. Rows about the consumers of queues are in
// TestContract_queueErrors, and rows that take time in TestContract_errorsInTime. Rows about
// entering draws and about bidding are missing, because the API does not serve these yet.
func TestContract_errors(t *testing.T) {
	t.Parallel()
	made := func(w *world, i int) string {
		path, _ := w.create(kindCases[i].collection, kindCases[i].body)
		return path
	}
	notFound := func(i int, text string) contractRow {
		return contractRow{text, func(w *world) {
			mine, deleted, unknown := made(w, i), made(w, i), "/api/v1/"+kindCases[i].collection+"/x"
			w.do(http.MethodDelete, deleted, "").is(http.StatusNoContent)
			for path, o := range map[string]option{mine: key(otherKey), deleted: key(myKey), unknown: key(myKey)} {
				w.do(http.MethodGet, path, "", o).refuses(http.StatusNotFound, text)
				w.do(http.MethodPost, path+"/open", "", o).refuses(http.StatusNotFound, text)
			}
		}}
	}
	rows := []contractRow{
		{"Validation failed", func(w *world) {
			w.do(http.MethodPost, queues, `{"name":7,"maxCapacity":0}`).blames("sequenceId", "name", "maxCapacity")
			w.do(http.MethodGet, queues+"?first=0&sortBy=x", "").blames("first", "sortBy")
		}},
		{"Invalid JSON", func(w *world) {
			a := w.do(http.MethodPost, queues, `{"name":x}`).refuses(http.StatusBadRequest, "Invalid JSON")
			if m := a.failure().Message; !strings.HasPrefix(m, "at byte 8:") {
				w.tb.Errorf("message %q", m)
			}
		}},
		{"Authentication required", func(w *world) {
			_, _, expired := w.newKey(`{"level":"secret","expiresAt":"2026-03-01T12:00:00.001Z"}`)
			w.advance(time.Millisecond)
			for _, k := range []string{unknownKey, myRevoked, expired, ""} {
				w.do(http.MethodGet, queues, "", key(k)).refuses(http.StatusUnauthorized, "Authentication required")
			}
		}},
		{"Secret key required", func(w *world) {
			w.do(http.MethodGet, queues, "", publishable(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
		}},
		notFound(0, "Queue not found"), notFound(1, "Draw not found"), notFound(2, "Auction not found"),
		{"Not found", func(w *world) {
			w.do(http.MethodGet, "/api/v1/nothing", "").refuses(http.StatusNotFound, "Not found")
			w.do(http.MethodGet, "/api/v1/distributions/x", "").refuses(http.StatusNotFound, "Distribution not found")
			w.do(http.MethodGet, "/api/v1/keys/x", "").refuses(http.StatusNotFound, "Key not found")
		}},
		{"413", func(w *world) {
			w.writes(0, func() {
				w.do(http.MethodPost, queues, ofLength(maxBody+1)).refuses(http.StatusRequestEntityTooLarge, "Content too large")
			})
		}},
		{"405", func(w *world) {
			if got := w.do(http.MethodPatch, queues, "").refuses(http.StatusMethodNotAllowed, "Method not allowed").Header().Get("Allow"); got != "GET, HEAD, POST" {
				w.tb.Errorf("Allow %q", got)
			}
		}},
		{"406", func(w *world) {
			if got := w.do(http.MethodGet, queues, "", header("Accept", "text/html")).refuses(http.StatusNotAcceptable, "Not acceptable").Header().Get("Accept"); !strings.Contains(got, "application/json") {
				w.tb.Errorf("Accept %q", got)
			}
		}},
		{"415", func(w *world) {
			if got := w.do(http.MethodPost, queues, `{}`, header("Content-Type", "text/plain")).refuses(http.StatusUnsupportedMediaType, "Unsupported media type").Header().Get("Accept"); got != "application/json" {
				w.tb.Errorf("Accept %q", got)
			}
		}},
		{"Cannot update closed distribution", func(w *world) {
			for i := range kindCases {
				path := made(w, i)
				w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
				w.advance(time.Second)
				w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
				w.writes(0, func() {
					for _, body := range []string{`{}`, `{"name":"x"}`, `{"colour":1}`} {
						w.do(http.MethodPut, path, body).refuses(http.StatusConflict, "Cannot update closed distribution")
					}
				})
			}
		}},
		{"Cannot update open distribution", func(w *world) {
			path := made(w, 0)
			w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
			w.writes(0, func() {
				a := w.do(http.MethodPut, path, `{"openAt":"2026-05-01T00:00:00Z","name":"x"}`).refuses(http.StatusConflict, "Cannot update open distribution")
				if d := a.failure().Details; len(d) != 1 || d[0].Field != "openAt" {
					w.tb.Errorf("%s", a.Body)
				}
			})
		}},
		{"Cannot delete active distribution", func(w *world) {
			path := made(w, 0)
			w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
			w.writes(0, func() {
				w.do(http.MethodDelete, path, "").refuses(http.StatusConflict, "Cannot delete active distribution")
			})
		}},
		{"Invalid status transition", func(w *world) {
			path := made(w, 0)
			w.writes(0, func() {
				w.do(http.MethodPost, path+"/close", "").refuses(http.StatusConflict, "Invalid status transition")
			})
		}},
		{"Distribution was changed by another request", func(w *world) {
			w.config.Commands = failing{err: domain.Refuse(domain.ChangedByAnother, "")}
			w.api = New(w.config)
			w.do(http.MethodPost, queues, kindCases[0].body).refuses(http.StatusConflict, "Distribution was changed by another request")
		}},
		{"Precondition failed", func(w *world) {
			path := made(w, 0)
			w.do(http.MethodPut, path, `{}`, header("If-Match", `"7"`)).refuses(http.StatusPreconditionFailed, "Precondition failed")
		}},
		{"Idempotency key reused", func(w *world) {
			k := header("Idempotency-Key", "k")
			w.do(http.MethodPost, queues, `{"sequenceId":"a"}`, k).is(http.StatusCreated)
			w.do(http.MethodPost, queues, `{"sequenceId":"b"}`, k).refuses(http.StatusUnprocessableEntity, "Idempotency key reused")
		}},
		{"Rate limit exceeded", func(w *world) {
			w.config.Limits.Secret = 1
			w.api = New(w.config)
			w.do(http.MethodGet, queues, "").is(http.StatusOK)
			if got := w.do(http.MethodGet, queues, "").refuses(http.StatusTooManyRequests, "Rate limit exceeded").Header().Get("Retry-After"); got != "60" {
				w.tb.Errorf("Retry-After %q", got)
			}
		}},
		{"Distribution history is inconsistent", func(w *world) {
			path, id := w.create("queues", kindCases[0].body)
			w.log.corrupt(strings.Replace(id, "_", "-", 1))
			for _, o := range []option{key(myKey), publishable(myPublic)} {
				w.do(http.MethodGet, path, "", o).refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
			}
		}},
		{"Event store unavailable", func(w *world) {
			w.log.fail(domain.ErrUnavailable)
			w.writes(0, func() {
				if got := w.do(http.MethodPost, queues, kindCases[0].body).refuses(http.StatusServiceUnavailable, "Event store unavailable").Header().Get("Retry-After"); got == "" {
					w.tb.Error("no Retry-After")
				}
			})
			w.log.fail(nil)
		}},
	}
	inBothMedia(t, rows)
}

// The rows about timeouts. Their time passes at once here.
func TestContract_errorsInTime(t *testing.T) {
	t.Parallel()
	for _, media := range []string{mediaJSON, mediaProblem} {
		in := func(name string, test func(w *world)) {
			t.Run(media+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t)
					w.accept = media
					test(w)
				})
			})
		}
		in("Read model is behind", func(w *world) {
			elsewhere, here := w.api, New(w.config)
			path, _ := w.create("queues", kindCases[0].body)
			w.log.hold()
			written := w.do(http.MethodPut, path, `{"name":"new"}`).is(http.StatusOK)
			w.api = here
			position, before := header("X-Position", written.Header().Get("X-Position")), time.Now()
			a := w.do(http.MethodGet, path, "", position).refuses(http.StatusServiceUnavailable, "Read model is behind")
			if waited := time.Since(before); waited != 2*time.Second || a.Header().Get("Retry-After") != "1" {
				w.tb.Errorf("after %s: %v", waited, a.Header())
			}
			// Without X-Position, the node that wrote serves the read anyway.
			w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"name": nil})
			w.log.release()
			for _, w.api = range []http.Handler{here, elsewhere} {
				w.do(http.MethodGet, path, "", position).is(http.StatusOK).wants(map[string]any{"name": "new"})
			}
		})
		in("OUTCOME_UNKNOWN", func(w *world) {
			release := sync.OnceFunc(w.log.silent())
			defer release()
			again := header("Idempotency-Key", "k")
			a := w.do(http.MethodPost, queues, kindCases[0].body, again).is(http.StatusServiceUnavailable)
			f := a.failure()
			if f.Error != "Event store unavailable" || f.Code != "OUTCOME_UNKNOWN" || a.Header().Get("Retry-After") != "1" || !strings.Contains(f.Message, "Idempotency-Key") {
				w.tb.Errorf("%s %v", a.Body, a.Header())
			}
			release()
			// Repeating is safe: the object is created once.
			id := w.do(http.MethodPost, queues, kindCases[0].body, again).is(http.StatusCreated).id()
			if all := w.do(http.MethodGet, queues, "").page().ids; len(all) != 1 || all[0] != id {
				w.tb.Errorf("there are %v, made %s", all, id)
			}
		})
	}
}

func TestContract_operations(t *testing.T) {
	t.Parallel()
	page := func(path, contentType, has string) contractRow {
		return contractRow{path, func(w *world) {
			a := w.do(http.MethodGet, path, "", header("Authorization")).is(http.StatusOK)
			if got := a.Header().Get("Content-Type"); got != contentType || !strings.Contains(a.Body.String(), has) {
				w.tb.Errorf("%s: %.200s", got, a.Body)
			}
		}}
	}
	runRows(t, []contractRow{
		page("/livez", "application/json; charset=utf-8", `"live"`),
		page("/readyz", "application/json; charset=utf-8", `"eventStore":{"ok":true}`),
		page("/openapi.yaml", "application/yaml", "openapi: 3.1.0"),
		page("/openapi.json", "application/json; charset=utf-8", `{"openapi":"3.1.0"`),
		page("/docs", "text/html; charset=utf-8", "<h1>Lotline</h1>"),
		page("/asyncapi.yaml", "application/vnd.aai.asyncapi+yaml;version=3.0.0", "asyncapi: 3.0.0"),
		{"/metrics", func(w *world) {
			w.config.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/plain; version=0.0.4")
				_, _ = w.Write([]byte("a 1\n"))
			})
			w.api = New(w.config)
			w.do(http.MethodGet, "/metrics", "", header("Authorization")).is(http.StatusOK)
		}},
	})
}

// The schedule of the distributions that the tests create.
const (
	opening = "2026-05-01T00:00:00.000Z"
	closing = "2026-05-01T01:00:00.000Z"
	ending  = "2026-05-01T02:00:00.000Z"
)

// scheduleOf returns the body of a creation with the whole schedule. Without openAt the
// distribution stays a draft.
func scheduleOf(kind string, more ...string) string {
	body := `{"sequenceId":"s","closeAt":"` + closing + `"`
	switch kind {
	case "draw":
		body += `,"winnerCount":3,"drawAt":"` + ending + `"`
	case "auction":
		body += `,"settleAt":"` + ending + `"`
	}
	return body + strings.Join(more, "") + "}"
}

// start is the time at which each world's clock starts.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const withOpening = `,"openAt":"` + opening + `"`

// at sets the clock to a time and carries out the steps of a distribution that are due.
func (w *world) at(path, clock string) {
	w.tb.Helper()
	t, err := time.Parse(time.RFC3339, clock)
	if err != nil {
		w.tb.Fatal(err)
	}
	w.now.Store(t.UnixMilli())
	w.run(domain.ID(path[strings.LastIndex(path, "/")+1:]), domain.Advance{})
}

// stages are the statuses that a distribution can stay in without participants.
var stages = map[string][]string{
	"queue":   {"DRAFT", "SCHEDULED", "OPEN", "COMPLETED"},
	"draw":    {"DRAFT", "SCHEDULED", "OPEN", "CLOSED", "COMPLETED"},
	"auction": {"DRAFT", "SCHEDULED", "OPEN", "CLOSED", "SETTLED"},
}

// reach creates a distribution of a kind and brings it to one of its stages.
func (w *world) reach(kind, status string) (path string) {
	w.tb.Helper()
	body := scheduleOf(kind, withOpening)
	if status == "DRAFT" {
		body = scheduleOf(kind)
	}
	path, _ = w.create(kind+"s", body)
	if now, ok := map[string]string{"OPEN": opening, "CLOSED": closing, "COMPLETED": ending, "SETTLED": ending}[status]; ok {
		w.at(path, now)
	}
	w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"status": status})
	return path
}

// forEveryStatus runs test with a distribution of each kind in each status.
func forEveryStatus(t *testing.T, test func(w *world, kind, status, path string)) {
	t.Helper()
	for kind, statuses := range stages {
		for _, status := range statuses {
			t.Run(status+" "+kind, func(t *testing.T) {
				t.Parallel()
				w := newWire(t)
				test(w, kind, status, w.reach(kind, status))
			})
		}
	}
}

// recorded returns the types and times of the events in a distribution's stream.
func (w *world) recorded(path string) (types []string) {
	w.tb.Helper()
	id := domain.ID(path[strings.LastIndex(path, "/")+1:])
	for r, err := range w.log.Read(w.tb.Context(), id.Stream(), domain.NoStream) {
		if err != nil {
			w.tb.Fatal(err)
		}
		name := strings.TrimPrefix(fmt.Sprintf("%T", r.Event), "*")
		types = append(types, strings.TrimPrefix(name, "domain.")+" "+r.Event.When().String())
	}
	return types
}

func TestContract_fields(t *testing.T) {
	t.Parallel()
	common := []string{
		"id", "type", "organizationId", "sequenceId", "name", "timeZone", "status", "openAt", "closeAt", "encryptionSeed", "metadata", "createdAt", "updatedAt",
	}
	for kind, c := range map[string]struct{ required, own []string }{
		"queue": {[]string{"sequenceId"}, []string{"maxCapacity", "admissionRate", "sessionDurationSeconds"}},
		"draw": {[]string{"sequenceId", "drawAt", "winnerCount"}, []string{
			"drawAt", "winnerCount", "maxEntries", "claimWindowSeconds", "backfill", "entropySource", "seedCommitment", "entriesRoot", "entryCount",
		}},
		"auction": {[]string{"sequenceId", "settleAt"}, []string{
			"settleAt", "startingBid", "minimumIncrement", "reservePrice", "buyNowPrice", "currencyCode", "winnerCount", "auctionType",
			"autoExtendSeconds", "maxExtensions", "startPrice", "floorPrice", "priceDropAmount", "priceDropIntervalSeconds",
		}},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			w.writes(0, func() { w.do(http.MethodPost, "/api/v1/"+kind+"s", `{}`).blames(c.required...) })
			path, _ := w.create(kind+"s", scheduleOf(kind))
			object := w.do(http.MethodGet, path, "").object()
			for _, name := range slices.Concat(common, c.own) {
				if _, ok := object[name]; !ok {
					t.Errorf("there is no %s", name)
				}
			}
			if len(object) != len(common)+len(c.own) {
				t.Errorf("more than expected: %v", object)
			}
			// A PUT of the unchanged object changes nothing. A PUT of another value for a
			// field of the engine is refused.
			same := asJSON(t, object)
			w.writes(0, func() {
				w.do(http.MethodPut, path, same).is(http.StatusOK)
				for _, name := range []string{"id", "type", "organizationId", "sequenceId", "encryptionSeed", "status", "createdAt", "updatedAt"} {
					w.do(http.MethodPut, path, `{"`+name+`":"other"}`).blames(name)
				}
			})
		})
	}
}

// While OPEN, a change of a frozen field is refused with the field's name, and other fields
// can change. In DRAFT and SCHEDULED every field can change.
func TestContract_frozenFields(t *testing.T) {
	t.Parallel()
	later := func(clock string) string { return `"` + strings.Replace(clock, "2026-05-01", "2026-05-02", 1) + `"` }
	changes := map[string]map[string]string{
		"queue": {"maxCapacity": "9", "admissionRate": "9", "sessionDurationSeconds": "9"},
		"draw": {
			"drawAt": later(ending), "winnerCount": "9", "maxEntries": "9", "claimWindowSeconds": "9", "backfill": "false", "entropySource": `"drand 9"`,
		},
		"auction": {
			"settleAt": later(ending), "startingBid": "9", "minimumIncrement": "9", "reservePrice": "9", "buyNowPrice": "9", "currencyCode": `"JPY"`,
			"winnerCount": "9", "autoExtendSeconds": "9", "maxExtensions": "9",
		},
	}
	frozen := []string{"openAt", "entropySource", "currencyCode", "auctionType", "startPrice", "floorPrice", "priceDropAmount", "priceDropIntervalSeconds"}
	forEveryStatus(t, func(w *world, kind, status, path string) {
		own := maps.Clone(changes[kind])
		own["name"], own["metadata"], own["timeZone"] = `"new"`, `{"new":1}`, `"Asia/Tokyo"`
		// These times are within the present schedule and not in the past.
		own["openAt"], own["closeAt"] = `"2026-05-01T00:30:00.000Z"`, `"2026-05-01T01:30:00.000Z"`
		for _, name := range slices.Sorted(maps.Keys(own)) {
			a := w.do(http.MethodPut, path, `{"`+name+`":`+own[name]+`}`)
			switch {
			case status == "OPEN" && slices.Contains(frozen, name):
				a.refuses(http.StatusConflict, "Cannot update open distribution")
				if d := a.failure().Details; len(d) != 1 || d[0].Field != name {
					w.tb.Errorf("%s", a.Body)
				}
			case status == "DRAFT" || status == "SCHEDULED" || status == "OPEN":
				if a.is(http.StatusOK); !strings.Contains(a.Body.String(), `"`+name+`":`+own[name]) {
					w.tb.Errorf("%s: %s", a.what, a.Body)
				}
			default:
				a.refuses(http.StatusConflict, "Cannot update closed distribution")
			}
		}
		if status != "OPEN" {
			return
		}
		w.writes(0, func() {
			w.do(http.MethodPut, path, `{"closeAt":null}`).blames("closeAt")
			for _, name := range []string{"closeAt", "drawAt", "settleAt"} {
				if _, ok := own[name]; !ok {
					continue
				}
				a := w.do(http.MethodPut, path, `{"`+name+`":"2026-04-30T23:59:59.999Z"}`)
				if a.refuses(http.StatusBadRequest, "Validation failed"); a.failure().Details[0].Field != name {
					w.tb.Errorf("%s: %s", a.what, a.Body)
				}
			}
		})
	})
	t.Run("OPEN dutch auction", func(t *testing.T) {
		t.Parallel()
		w := newWire(t)
		const prices = `,"auctionType":"dutch","startPrice":100,"floorPrice":10,"priceDropAmount":1,"priceDropIntervalSeconds":60`
		path, _ := w.create("auctions", scheduleOf("auction", withOpening, prices))
		w.do(http.MethodPut, path, `{"startPrice":200,"floorPrice":20,"priceDropAmount":2,"priceDropIntervalSeconds":120}`).is(http.StatusOK)
		w.at(path, opening)
		for _, change := range []string{`{"startPrice":300}`, `{"floorPrice":null}`, `{"priceDropAmount":3}`, `{"priceDropIntervalSeconds":1}`, `{"auctionType":"english"}`} {
			w.writes(0, func() {
				w.do(http.MethodPut, path, change).refuses(http.StatusConflict, "Cannot update open distribution")
			})
		}
	})
}

func TestContract_order(t *testing.T) {
	t.Parallel()
	const dutch = `"auctionType":"dutch","startPrice":9,"priceDropAmount":1,"priceDropIntervalSeconds":1`
	runRows(t, []contractRow{
		{"openAt < closeAt", func(w *world) {
			for _, c := range kindCases {
				w.do(http.MethodPost, "/api/v1/"+c.collection, scheduleOf(c.kind, `,"openAt":"`+closing+`"`)).blames("closeAt")
			}
		}},
		{"closeAt ≤ drawAt", func(w *world) {
			w.do(http.MethodPost, draws, `{"sequenceId":"s","winnerCount":1,"closeAt":"`+ending+`","drawAt":"`+closing+`"}`).blames("drawAt")
			w.do(http.MethodPost, draws, `{"sequenceId":"s","winnerCount":1,"closeAt":"`+closing+`","drawAt":"`+closing+`"}`).is(http.StatusCreated)
		}},
		{"closeAt ≤ settleAt", func(w *world) {
			w.do(http.MethodPost, auctions, `{"sequenceId":"s","closeAt":"`+ending+`","settleAt":"`+closing+`"}`).blames("settleAt")
			w.do(http.MethodPost, auctions, `{"sequenceId":"s","closeAt":"`+closing+`","settleAt":"`+closing+`"}`).is(http.StatusCreated)
		}},
		{"startingBid ≤ reservePrice ≤ buyNowPrice", func(w *world) {
			w.do(http.MethodPost, auctions, scheduleOf("auction", `,"startingBid":3,"reservePrice":2,"buyNowPrice":1`)).blames("reservePrice", "buyNowPrice")
			w.do(http.MethodPost, auctions, scheduleOf("auction", `,"startingBid":3,"buyNowPrice":1`)).blames("buyNowPrice")
			w.do(http.MethodPost, auctions, scheduleOf("auction", `,"startingBid":3,"reservePrice":3,"buyNowPrice":3`)).is(http.StatusCreated)
		}},
		{"english fields in a dutch auction", func(w *world) {
			w.do(http.MethodPost, auctions, scheduleOf("auction", `,`+dutch+`,"startingBid":1,"minimumIncrement":1,"reservePrice":1,"buyNowPrice":1,"autoExtendSeconds":1,"maxExtensions":1`)).
				blames("startingBid", "minimumIncrement", "reservePrice", "buyNowPrice", "autoExtendSeconds", "maxExtensions")
			w.do(http.MethodPost, auctions, scheduleOf("auction", `,`+dutch)).is(http.StatusCreated)
		}},
		{"dutch fields in an english auction", func(w *world) {
			w.do(http.MethodPost, auctions, scheduleOf("auction", `,"startPrice":9,"floorPrice":1,"priceDropAmount":1,"priceDropIntervalSeconds":1`)).
				blames("startPrice", "floorPrice", "priceDropAmount", "priceDropIntervalSeconds")
		}},
	})
}

// Without closeAt, a draw closes at drawAt, an auction at settleAt, and a queue by hand only.
func TestContract_closesWithoutCloseAt(t *testing.T) {
	t.Parallel()
	for _, c := range kindCases {
		t.Run(c.kind, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			path, _ := w.create(c.collection, strings.Replace(scheduleOf(c.kind, withOpening), `"`+closing+`"`, "null", 1))
			w.at(path, closing)
			w.do(http.MethodGet, path, "").wants(map[string]any{"status": "OPEN"})
			w.at(path, ending)
			want := map[string]string{"queue": "OPEN", "draw": "COMPLETED", "auction": "SETTLED"}[c.kind]
			w.do(http.MethodGet, path, "").wants(map[string]any{"status": want})
			if c.kind == "queue" {
				w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "COMPLETED", "closeAt": ending})
			}
		})
	}
}

func TestContract_delete(t *testing.T) {
	t.Parallel()
	forEveryStatus(t, func(w *world, kind, status, path string) {
		switch status {
		case "DRAFT", "SCHEDULED", "COMPLETED", "SETTLED":
			before := w.recorded(path)
			w.writes(1, func() { w.do(http.MethodDelete, path, "").is(http.StatusNoContent) })
			for _, method := range []string{http.MethodGet, http.MethodDelete} {
				w.do(method, path, "").refuses(http.StatusNotFound, domain.Kind(kind).Title()+" not found")
			}
			// The stream is kept.
			if now := w.recorded(path); !slices.Equal(now[:len(now)-1], before) || !strings.HasPrefix(now[len(now)-1], "Deleted ") {
				w.tb.Errorf("the stream was %q, and is %q", before, now)
			}
		default:
			w.writes(0, func() {
				w.do(http.MethodDelete, path, "").refuses(http.StatusConflict, "Cannot delete active distribution")
			})
		}
	})
}

func TestContract_stepsByHand(t *testing.T) {
	t.Parallel()
	steps := map[string]map[string]string{ // the times that each step sets
		"queue":   {"open": "openAt", "close": "closeAt"},
		"draw":    {"open": "openAt", "close": "closeAt", "draw": "drawAt"},
		"auction": {"open": "openAt", "close": "closeAt", "settle": "settleAt"},
	}
	allowed := map[string][]string{"open": {"DRAFT", "SCHEDULED"}, "close": {"OPEN"}, "draw": {"CLOSED"}, "settle": {"CLOSED"}}
	leadsTo := map[string]string{"open": "OPEN", "close": "CLOSED", "draw": "COMPLETED", "settle": "SETTLED"}
	forEveryStatus(t, func(w *world, kind, status, _ string) {
		for step, sets := range steps[kind] {
			w.now.Store(start.UnixMilli())
			path := w.reach(kind, status)
			w.advance(time.Second)
			if !slices.Contains(allowed[step], status) {
				w.writes(0, func() {
					w.do(http.MethodPost, path+"/"+step, "").refuses(http.StatusConflict, "Invalid status transition")
				})
				continue
			}
			want := leadsTo[step]
			if kind == "queue" && step == "close" {
				want = "COMPLETED" // a queue without admitted consumers completes at once
			}
			w.do(http.MethodPost, path+"/"+step, "").is(http.StatusOK).wants(map[string]any{
				"status": want, sets: domain.InstantOf(w.config.Clock()).String(),
			})
		}
	})
}

// The contract's table of statuses: when a distribution enters and leaves each status, to
// the millisecond, and what the calls answer in it.
func TestContract_lifecycle(t *testing.T) {
	t.Parallel()
	const justBeforeOpening, justBeforeClosing, justBeforeEnding = "2026-04-30T23:59:59.999Z", "2026-05-01T00:59:59.999Z", "2026-05-01T01:59:59.999Z"
	is := func(w *world, path, status string) {
		w.tb.Helper()
		w.do(http.MethodGet, path, "").is(http.StatusOK).wants(map[string]any{"status": status})
	}
	ends := map[string]string{"queue": "COMPLETED", "draw": "COMPLETED", "auction": "SETTLED"}
	rows := map[domain.Status]func(w *world, kind, path string){
		domain.StatusDraft: func(w *world, kind, path string) {
			w.at(path, "2030-01-01T00:00:00Z") // a draft stays a draft, whatever its other times
			is(w, path, "DRAFT")
			w.do(http.MethodPut, path, `{"openAt":null}`).is(http.StatusOK).wants(map[string]any{"status": "DRAFT", "openAt": nil})
		},
		domain.StatusScheduled: func(w *world, kind, path string) {
			w.at(path, justBeforeOpening)
			is(w, path, "SCHEDULED")
			// The only transition back.
			w.do(http.MethodPut, path, `{"openAt":null}`).is(http.StatusOK).wants(map[string]any{"status": "DRAFT"})
			w.do(http.MethodPut, path, `{"openAt":"`+opening+`"}`).is(http.StatusOK).wants(map[string]any{"status": "SCHEDULED"})
		},
		domain.StatusOpen: func(w *world, kind, path string) {
			w.at(path, justBeforeClosing)
			is(w, path, "OPEN")
			w.at(path, closing)
			is(w, path, map[string]string{"queue": "COMPLETED", "draw": "CLOSED", "auction": "CLOSED"}[kind])
		},
		domain.StatusClosed: func(w *world, kind, path string) {
			w.at(path, justBeforeEnding)
			is(w, path, "CLOSED")
			w.at(path, ending)
			is(w, path, ends[kind])
		},
		domain.StatusCompleted: func(w *world, kind, path string) {
			w.writes(0, func() { w.at(path, "2030-01-01T00:00:00Z") })
			is(w, path, "COMPLETED")
		},
		domain.StatusSettled: func(w *world, kind, path string) {
			w.writes(0, func() { w.at(path, "2030-01-01T00:00:00Z") })
			is(w, path, "SETTLED")
		},
	}
	forEveryStatus(t, func(w *world, kind, status, path string) { rows[domain.Status(status)](w, kind, path) })
	runRows(t, []contractRow{
		{"CLOSED queue: COMPLETED follows at once when nobody was admitted", func(w *world) {
			path := w.reach("queue", "COMPLETED")
			if got := w.recorded(path); !slices.Equal(got[len(got)-2:], []string{"Closed " + closing, "Completed " + closing}) {
				w.tb.Errorf("%q", got)
			}
		}},
		{"CLOSED draw: awaits the entropy that a source was named for", func(w *world) {
			path, _ := w.create("draws", scheduleOf("draw", withOpening, `,"entropySource":"drand 1"`))
			w.at(path, "2026-05-01T03:00:00Z")
			is(w, path, "CLOSED")
			w.do(http.MethodPut, path+"/entropy", `{"value":"v"}`).is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})
		}},
		{"OPEN queue: entering, admitting", func(w *world) {
			path := w.openQueue(`,"admissionRate":60`)
			w.enter(path, "a", "b")
			w.advance(time.Second)
			w.at(path, domain.InstantOf(w.config.Clock()).String())
			if a, b := w.status(path, "a")["status"], w.status(path, "b")["status"]; a != "ADMITTED" || b != "QUEUED" {
				w.tb.Errorf("a is %s, b is %s", a, b)
			}
		}},
		{"CLOSED queue: no entries, no automatic admission; who is admitted may finish, by hand goes on", func(w *world) {
			path := w.openQueue(`,"admissionRate":60`)
			w.enter(path, "a", "b", "c")
			w.admitOne(path, "a")
			w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
			w.writes(0, func() {
				w.advance(time.Hour)
				w.at(path, domain.InstantOf(w.config.Clock()).String())
				w.do(http.MethodPost, path+"/enter", "", acting("d")).refuses(http.StatusBadRequest, "Queue is closed")
			})
			w.writes(0, func() {
				w.do(http.MethodPut, path, `{"admissionRate":null}`).refuses(http.StatusConflict, "Cannot update closed distribution")
				w.do(http.MethodDelete, path, "").refuses(http.StatusConflict, "Cannot delete active distribution")
			})
			w.admitOne(path, "b")
			w.do(http.MethodPost, path+"/complete", naming("a")).is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})
			is(w, path, "CLOSED")
		}},
		{"COMPLETED queue: nobody admitted is unfinished, and who still waits is DENIED", func(w *world) {
			path := w.openQueue()
			w.enter(path, "a", "b")
			w.admitOne(path, "a")
			w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
			w.writes(2, func() { w.do(http.MethodPost, path+"/complete", naming("a")).is(http.StatusOK) }) // one event denies every waiting consumer
			is(w, path, "COMPLETED")
			if got := w.status(path, "b"); got["status"] != "DENIED" || got["denyReason"] != "QUEUE_CLOSED" {
				w.tb.Errorf("the waiting consumer: %v", got)
			}
		}},
		{"DRAWN draw: COMPLETED follows at once without entrants", func(w *world) {
			path := w.reach("draw", "COMPLETED")
			if got := w.recorded(path); !slices.Equal(got[len(got)-2:], []string{"Drawn " + ending, "Completed " + ending}) {
				w.tb.Errorf("%q", got)
			}
		}},
		{"all times may be past: every step that is due follows in the creation", func(w *world) {
			w.now.Store(time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
			for _, c := range kindCases {
				made := w.do(http.MethodPost, "/api/v1/"+c.collection, scheduleOf(c.kind, withOpening)).is(http.StatusCreated)
				made.wants(map[string]any{"status": ends[c.kind], "openAt": opening})
				// The events have the times at which they were due, but never a time before
				// the preceding event's.
				for _, e := range w.recorded(made.Header().Get("Location")) {
					if !strings.HasSuffix(e, " 2026-06-01T00:00:00.000Z") {
						w.tb.Errorf("%s: %s", c.kind, e)
					}
				}
			}
		}},
		{"a late step is dated when it was due", func(w *world) {
			for _, c := range kindCases {
				path := w.reach(c.kind, "SCHEDULED")
				w.at(path, "2026-05-03T00:00:00Z")
				got := w.recorded(path)
				if !slices.ContainsFunc(got, func(e string) bool { return strings.HasSuffix(e, "Closed "+closing) }) || !slices.Contains(got, "Opened "+opening) {
					w.tb.Errorf("%s: %q", c.kind, got)
				}
				w.now.Store(start.UnixMilli())
			}
		}},
		{"what is due comes before a command that is refused for it, and stands", func(w *world) {
			for _, c := range kindCases {
				path := w.reach(c.kind, "OPEN")
				w.now.Store(time.Date(2026, 5, 1, 1, 0, 0, 0, time.UTC).UnixMilli())
				// No timer has fired yet.
				w.do(http.MethodPut, path, `{"name":"late"}`).refuses(http.StatusConflict, "Cannot update closed distribution")
				is(w, path, map[string]string{"queue": "COMPLETED", "draw": "CLOSED", "auction": "CLOSED"}[c.kind])
				w.now.Store(start.UnixMilli())
			}
		}},
		{"a command never counts before the latest time in the stream", func(w *world) {
			path := w.reach("queue", "OPEN")
			w.now.Store(time.Date(2026, 4, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
			w.do(http.MethodPut, path, `{"name":"x"}`).is(http.StatusOK).wants(map[string]any{"updatedAt": opening})
		}},
	})
}

// Rows without the sort value come last in both directions. Rows with equal values are
// sorted by id. Names are compared by code point.
func TestContract_listOrder(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	ids := map[string]string{}
	for _, name := range []string{"null1", "Z", "a", "é", "😀", "null2", "a2"} {
		body := `{"sequenceId":"s","name":"` + strings.TrimRight(name, "2") + `","openAt":"2026-05-01T00:00:00Z"}`
		if strings.HasPrefix(name, "null") {
			body = `{"sequenceId":"s"}`
		}
		_, ids[name] = w.create("queues", body)
		w.advance(time.Millisecond)
	}
	for query, want := range map[string][]string{
		"sortBy=name":                {"Z", "a", "a2", "é", "😀", "null1", "null2"},
		"sortBy=name&sortDir=desc":   {"😀", "é", "a2", "a", "Z", "null2", "null1"},
		"sortBy=openAt&sortDir=asc":  {"Z", "a", "é", "😀", "a2", "null1", "null2"},
		"sortBy=openAt&sortDir=desc": {"a2", "😀", "é", "a", "Z", "null2", "null1"},
	} {
		got := w.do(http.MethodGet, queues+"?"+query, "").page().ids
		for i, name := range want {
			if want[i] = ids[name]; i >= len(got) || got[i] != want[i] {
				t.Errorf("%s: at %d there is not %s", query, i, name)
				break
			}
		}
	}
}
