package httpapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// acting makes the request's secret key act for a consumer.
func acting(consumer string) option { return header("X-Consumer-Id", consumer) }

func naming(consumer string) string { return `{"consumerId":"` + consumer + `"}` }

func denying(consumer string) string {
	return `{"consumerId":"` + consumer + `","reason":"FRAUD_DETECTED"}`
}

// openQueue creates a queue and opens it.
func (w *world) openQueue(more ...string) (path string) {
	w.tb.Helper()
	path, _ = w.create("queues", `{"sequenceId":"s"`+strings.Join(more, "")+"}")
	w.do(http.MethodPost, path+"/open", "").is(http.StatusOK)
	return path
}

func (w *world) enter(path string, consumers ...string) {
	w.tb.Helper()
	for _, c := range consumers {
		w.do(http.MethodPost, path+"/enter", "", acting(c)).is(http.StatusOK).wants(map[string]any{"status": "QUEUED"})
	}
}

// admitOne admits a consumer out of turn, and returns the admission token.
func (w *world) admitOne(path, consumer string) (token string) {
	w.tb.Helper()
	w.do(http.MethodPost, path+"/admit", naming(consumer)).is(http.StatusOK)
	return w.status(path, consumer)["admissionToken"].(string)
}

// status returns a consumer's participation.
func (w *world) status(path, consumer string) map[string]any {
	w.tb.Helper()
	return w.do(http.MethodGet, path+"/status", "", acting(consumer)).is(http.StatusOK).object()
}

// participation returns the participation in an answer: the answer itself, or the first
// element of its list.
func (a *reply) participation() map[string]any {
	a.tb.Helper()
	o := a.is(http.StatusOK).object()
	if all, ok := o["data"].([]any); ok {
		return all[0].(map[string]any)
	}
	return o
}

// bringTo brings a consumer to a status, in an open queue whose sessions last a minute.
var bringTo = map[string]func(w *world, path, c string){
	"nobody": func(*world, string, string) {},
	"QUEUED": func(w *world, path, c string) { w.enter(path, c) },
	"ADMITTED": func(w *world, path, c string) {
		w.enter(path, c)
		w.admitOne(path, c)
	},
	"COMPLETED": func(w *world, path, c string) {
		w.enter(path, c)
		w.admitOne(path, c)
		w.do(http.MethodPost, path+"/complete", naming(c)).is(http.StatusOK)
	},
	"EXPIRED": func(w *world, path, c string) {
		w.enter(path, c)
		w.admitOne(path, c)
		w.advance(time.Minute)
		w.at(path, domain.InstantOf(w.config.Clock()).String())
	},
	"DENIED": func(w *world, path, c string) {
		w.enter(path, c)
		w.do(http.MethodPost, path+"/deny", denying(c)).is(http.StatusOK)
	},
	"LEFT": func(w *world, path, c string) {
		w.enter(path, c)
		w.do(http.MethodPost, path+"/leave", "", acting(c)).is(http.StatusOK)
	},
}

// moveQueueTo brings an open queue to a status. For CLOSED it admits another consumer first,
// because a queue without admitted consumers completes when it closes.
var moveQueueTo = map[string]func(w *world, path string){
	"OPEN": func(*world, string) {},
	"CLOSED": func(w *world, path string) {
		w.enter(path, "another")
		w.admitOne(path, "another")
		w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
	},
	"COMPLETED": func(w *world, path string) {
		w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "COMPLETED"})
	},
}

// The contract's table of a queue's calls: each call in every status of the queue, from
// every status that a consumer can have then.
func TestContract_queueCalls(t *testing.T) {
	t.Parallel()
	const (
		is      = iota // the consumer keeps the status, and nothing is written
		becomes        // the consumer gets another status, by one event
		missing        // 404 Consumer not in queue
		refused        // 409 Not possible in this state
		tooLate        // 400 Queue is closed
	)
	type outcome struct {
		what   int
		status string // the consumer's status after the call
	}
	as := func(s string) outcome { return outcome{is, s} }
	to := func(s string) outcome { return outcome{becomes, s} }
	no, gone, late := outcome{what: refused}, outcome{what: missing}, outcome{what: tooLate}
	type row map[string]outcome // by the consumer's status before the call
	calls := map[string]struct {
		do                      func(w *world, path string) *reply
		open, closed, completed row
	}{
		"enter": {
			func(w *world, path string) *reply {
				return w.do(http.MethodPost, path+"/enter", "", acting("c"))
			},
			row{"nobody": to("QUEUED"), "QUEUED": as("QUEUED"), "ADMITTED": as("ADMITTED"), "COMPLETED": as("COMPLETED"), "DENIED": as("DENIED"), "EXPIRED": to("QUEUED"), "LEFT": to("QUEUED")},
			row{"nobody": late, "QUEUED": as("QUEUED"), "ADMITTED": as("ADMITTED"), "COMPLETED": as("COMPLETED"), "DENIED": as("DENIED"), "EXPIRED": late, "LEFT": late},
			row{"nobody": late, "QUEUED": as("DENIED"), "COMPLETED": as("COMPLETED"), "DENIED": as("DENIED"), "EXPIRED": late, "LEFT": late},
		},
		"leave": {
			func(w *world, path string) *reply {
				return w.do(http.MethodPost, path+"/leave", "", acting("c"))
			},
			row{"nobody": gone, "QUEUED": to("LEFT"), "ADMITTED": to("LEFT"), "COMPLETED": no, "DENIED": no, "EXPIRED": no, "LEFT": as("LEFT")},
			row{"nobody": gone, "QUEUED": to("LEFT"), "ADMITTED": to("LEFT"), "COMPLETED": no, "DENIED": no, "EXPIRED": no, "LEFT": as("LEFT")},
			row{"nobody": gone, "QUEUED": no, "COMPLETED": no, "DENIED": no, "EXPIRED": no, "LEFT": as("LEFT")},
		},
		"status": {
			func(w *world, path string) *reply {
				return w.do(http.MethodGet, path+"/status", "", acting("c"))
			},
			row{"nobody": gone, "QUEUED": as("QUEUED"), "ADMITTED": as("ADMITTED"), "COMPLETED": as("COMPLETED"), "DENIED": as("DENIED"), "EXPIRED": as("EXPIRED"), "LEFT": as("LEFT")},
			row{"nobody": gone, "QUEUED": as("QUEUED"), "ADMITTED": as("ADMITTED"), "COMPLETED": as("COMPLETED"), "DENIED": as("DENIED"), "EXPIRED": as("EXPIRED"), "LEFT": as("LEFT")},
			row{"nobody": gone, "QUEUED": as("DENIED"), "COMPLETED": as("COMPLETED"), "DENIED": as("DENIED"), "EXPIRED": as("EXPIRED"), "LEFT": as("LEFT")},
		},
		"admit": {
			func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/admit", naming("c")) },
			row{"nobody": gone, "QUEUED": to("ADMITTED"), "ADMITTED": as("ADMITTED"), "COMPLETED": no, "DENIED": no, "EXPIRED": no, "LEFT": no},
			row{"nobody": gone, "QUEUED": to("ADMITTED"), "ADMITTED": as("ADMITTED"), "COMPLETED": no, "DENIED": no, "EXPIRED": no, "LEFT": no},
			row{"nobody": gone, "QUEUED": no, "COMPLETED": no, "DENIED": no, "EXPIRED": no, "LEFT": no},
		},
		"complete": {
			func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/complete", naming("c")) },
			row{"nobody": gone, "QUEUED": no, "ADMITTED": to("COMPLETED"), "COMPLETED": as("COMPLETED"), "DENIED": no, "EXPIRED": no, "LEFT": no},
			row{"nobody": gone, "QUEUED": no, "ADMITTED": to("COMPLETED"), "COMPLETED": as("COMPLETED"), "DENIED": no, "EXPIRED": no, "LEFT": no},
			row{"nobody": gone, "QUEUED": no, "COMPLETED": as("COMPLETED"), "DENIED": no, "EXPIRED": no, "LEFT": no},
		},
		"deny": {
			func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/deny", denying("c")) },
			row{"nobody": gone, "QUEUED": to("DENIED"), "ADMITTED": to("DENIED"), "COMPLETED": no, "DENIED": as("DENIED"), "EXPIRED": no, "LEFT": no},
			row{"nobody": gone, "QUEUED": to("DENIED"), "ADMITTED": to("DENIED"), "COMPLETED": no, "DENIED": as("DENIED"), "EXPIRED": no, "LEFT": no},
			row{"nobody": gone, "QUEUED": as("DENIED"), "COMPLETED": no, "DENIED": as("DENIED"), "EXPIRED": no, "LEFT": no},
		},
	}
	check := func(a *reply, from string, want outcome) {
		a.tb.Helper()
		switch want.what {
		case missing:
			a.refuses(http.StatusNotFound, "Consumer not in queue")
		case refused:
			a.refuses(http.StatusConflict, "Not possible in this state")
		case tooLate:
			a.refuses(http.StatusBadRequest, "Queue is closed")
		default:
			if got := a.participation(); got["status"] != want.status || got["consumerId"] != "c" {
				a.tb.Errorf("%s from %s: %v", a.what, from, got)
			}
		}
	}
	callThrice := func(w *world, status, from string, call func(w *world, path string) *reply, want outcome) {
		w.tb.Helper()
		path := w.openQueue(`,"sessionDurationSeconds":60`)
		bringTo[from](w, path, "c")
		moveQueueTo[status](w, path)
		events := 0
		if want.what == becomes {
			events = 1
		}
		// The second and the third call change nothing more.
		for _, events := range []int{events, 0, 0} {
			w.writes(events, func() { check(call(w, path), from, want) })
		}
	}
	for name, call := range calls {
		for status, outcomes := range map[string]row{"OPEN": call.open, "CLOSED": call.closed, "COMPLETED": call.completed} {
			t.Run(name+" while "+status, func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				for from, want := range outcomes {
					callThrice(w, status, from, call.do, want)
				}
			})
		}
	}
}

// The fields of a participation in each status.
func TestContract_queueState(t *testing.T) {
	t.Parallel()
	const entered = "2026-03-01T12:00:00.000Z"
	for status, want := range map[string]map[string]any{
		"QUEUED":    {"position": 1.0, "estimatedWaitTimeInSeconds": nil, "pollAfterMs": 1020.0, "admittedAt": nil, "expiresAt": nil, "completedAt": nil, "denyReason": nil},
		"ADMITTED":  {"position": 0.0, "estimatedWaitTimeInSeconds": nil, "pollAfterMs": 5000.0, "admittedAt": entered, "expiresAt": "2026-03-01T12:01:00.000Z", "completedAt": nil, "denyReason": nil},
		"COMPLETED": {"position": nil, "estimatedWaitTimeInSeconds": nil, "pollAfterMs": nil, "admittedAt": entered, "expiresAt": "2026-03-01T12:01:00.000Z", "completedAt": entered, "denyReason": nil},
		"EXPIRED":   {"position": nil, "estimatedWaitTimeInSeconds": nil, "pollAfterMs": nil, "admittedAt": entered, "expiresAt": "2026-03-01T12:01:00.000Z", "completedAt": nil, "denyReason": nil},
		"DENIED":    {"position": nil, "estimatedWaitTimeInSeconds": nil, "pollAfterMs": nil, "admittedAt": nil, "expiresAt": nil, "completedAt": nil, "denyReason": "FRAUD_DETECTED"},
		"LEFT":      {"position": nil, "estimatedWaitTimeInSeconds": nil, "pollAfterMs": nil, "admittedAt": nil, "expiresAt": nil, "completedAt": nil, "denyReason": nil},
	} {
		t.Run(status, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			path := w.openQueue(`,"sessionDurationSeconds":60`)
			bringTo[status](w, path, "c")
			a := w.do(http.MethodGet, path+"/status", "", acting("c")).is(http.StatusOK)
			want["queueId"], want["consumerId"], want["status"], want["enteredAt"] = path[strings.LastIndex(path, "/")+1:], "c", status, entered
			a.wants(want)
			state := a.object()
			if _, ok := state["admissionToken"].(string); ok != (status == "ADMITTED") {
				t.Errorf("the token of a consumer with status %s: %v", status, state["admissionToken"])
			}
			// With the seed, the ticket can be decoded.
			seed := w.do(http.MethodGet, path, "").object()["encryptionSeed"].(string)
			if n, ok := domain.EntryOfTicket(state["ticket"].(string), seed, domain.ID(state["queueId"].(string))); n != 1 || !ok {
				t.Errorf("the ticket %v is of entry %d", state["ticket"], n)
			}
			if len(state) != len(want)+2 {
				t.Errorf("other fields than are known: %v", state)
			}
		})
	}
}

// The position, the estimated wait and the polling interval follow from the number of
// waiting consumers and the admission rate.
func TestContract_queuePosition(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue(`,"admissionRate":90`)
	w.enter(path, "a", "b", "c", "d")
	expect := func(want map[string][3]any) {
		t.Helper()
		for c, p := range want {
			got := w.status(path, c)
			if got["position"] != p[0] || got["estimatedWaitTimeInSeconds"] != p[1] || got["pollAfterMs"] != p[2] {
				t.Errorf("%s: %v", c, got)
			}
		}
	}
	expect(map[string][3]any{"a": {1.0, 1.0, 1000.0}, "b": {2.0, 2.0, 1000.0}, "c": {3.0, 2.0, 1000.0}, "d": {4.0, 3.0, 1000.0}})
	w.do(http.MethodPost, path+"/leave", "", acting("b")).is(http.StatusOK)
	expect(map[string][3]any{"b": {nil, nil, nil}, "c": {2.0, 2.0, 1000.0}})
	w.do(http.MethodPut, path, `{"admissionRate":1}`).is(http.StatusOK)
	expect(map[string][3]any{"a": {1.0, 60.0, 6000.0}, "d": {3.0, 180.0, 18000.0}})
	w.do(http.MethodPut, path, `{"admissionRate":null}`).is(http.StatusOK)
	expect(map[string][3]any{"a": {1.0, nil, 1020.0}, "d": {3.0, nil, 1060.0}})
	// A consumer who enters again is at the end, with another ticket.
	ticket := w.status(path, "b")["ticket"]
	w.enter(path, "b")
	expect(map[string][3]any{"b": {4.0, nil, 1080.0}})
	if again := w.status(path, "b")["ticket"]; again == ticket {
		t.Errorf("the ticket stays %v", ticket)
	}
	// An admitted consumer has no wait. In a closed queue the wait cannot be estimated.
	w.do(http.MethodPut, path, `{"admissionRate":60}`).is(http.StatusOK)
	w.admitOne(path, "c")
	expect(map[string][3]any{"a": {1.0, 1.0, 1000.0}, "c": {0.0, 0.0, 5000.0}, "b": {3.0, 3.0, 1000.0}})
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
	expect(map[string][3]any{"a": {1.0, nil, 1020.0}, "c": {0.0, 0.0, 5000.0}, "b": {3.0, nil, 1060.0}})
}

// A denied consumer keeps the first reason for good.
func TestContract_denyReasons(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	path := w.openQueue()
	w.enter(path, "ORDER_LIMIT_EXCEEDED", "FRAUD_DETECTED", "ADMIN_ACTION")
	w.admitOne(path, "FRAUD_DETECTED")
	for _, first := range domain.DenyReasons() {
		for _, reason := range append([]domain.DenyReason{first}, domain.DenyReasons()...) {
			w.do(http.MethodPost, path+"/deny", fmt.Sprintf(`{"consumerId":%q,"reason":%q}`, first, reason)).is(http.StatusOK).
				wants(map[string]any{"status": "DENIED", "denyReason": string(first)})
		}
		w.do(http.MethodPost, path+"/enter", "", acting(string(first))).is(http.StatusOK).
			wants(map[string]any{"status": "DENIED", "denyReason": string(first), "position": nil, "admissionToken": nil})
	}
}

// After each event, every consumer who ever entered is counted under the present status.
func TestContract_queueStats(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	path := w.openQueue(`,"sessionDurationSeconds":60,"admissionRate":null`)
	fields := []string{"waiting", "admitted", "completed", "expired", "denied", "left"}
	expect := func(status string, rate any, counts ...int) {
		t.Helper()
		a := w.do(http.MethodGet, path+"/stats", "").is(http.StatusOK)
		want := map[string]any{"queueId": path[strings.LastIndex(path, "/")+1:], "status": status, "admissionRate": rate}
		for i, n := range counts {
			want[fields[i]] = float64(n)
		}
		a.wants(want)
		if got := a.object(); len(got) != len(want) {
			t.Errorf("other fields than are known: %v", got)
		}
	}
	expect("OPEN", nil, 0, 0, 0, 0, 0, 0)
	w.enter(path, "a", "b", "c", "d", "e", "f", "g")
	expect("OPEN", nil, 7, 0, 0, 0, 0, 0)
	w.do(http.MethodPost, path+"/leave", "", acting("a")).is(http.StatusOK)
	w.enter(path, "a") // another entry
	expect("OPEN", nil, 7, 0, 0, 0, 0, 1)
	w.do(http.MethodPost, path+"/admit", `{"count":3}`).is(http.StatusOK)
	expect("OPEN", nil, 4, 3, 0, 0, 0, 1)
	w.do(http.MethodPost, path+"/complete", naming("b")).is(http.StatusOK)
	expect("OPEN", nil, 4, 2, 1, 0, 0, 1)
	w.do(http.MethodPost, path+"/deny", denying("c")).is(http.StatusOK)
	w.do(http.MethodPost, path+"/deny", denying("e")).is(http.StatusOK)
	expect("OPEN", nil, 3, 1, 1, 0, 2, 1)
	w.advance(time.Minute)
	w.at(path, domain.InstantOf(w.config.Clock()).String())
	expect("OPEN", nil, 3, 0, 1, 1, 2, 1)
	w.do(http.MethodPut, path, `{"admissionRate":1}`).is(http.StatusOK)
	expect("OPEN", 1.0, 3, 0, 1, 1, 2, 1)
	w.admitOne(path, "g")
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK)
	expect("CLOSED", 1.0, 2, 1, 1, 1, 2, 1)
	// When the queue completes, the waiting consumers are denied.
	w.do(http.MethodPost, path+"/complete", naming("g")).is(http.StatusOK)
	expect("COMPLETED", 1.0, 0, 0, 2, 1, 4, 1)
	w.do(http.MethodGet, path+"/stats?first=1", "").blames("first")
}

// The entity tag changes with every event, and only then.
func TestContract_queueStatsETag(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	get := func(known string) *reply {
		return w.do(http.MethodGet, path+"/stats", "", header("If-None-Match", known))
	}
	tag := get(`"none"`).is(http.StatusOK).Header().Get("Etag")
	for _, happens := range []func(){
		func() { w.enter(path, "a", "b") },
		func() { w.admitOne(path, "a") },
		func() { w.do(http.MethodPut, path, `{"admissionRate":1}`).is(http.StatusOK) },
	} {
		if a := get(tag).is(http.StatusNotModified); a.Body.Len() > 0 || a.Header().Get("Etag") != tag {
			t.Errorf("unchanged: %v %s", a.Header(), a.Body)
		}
		happens()
		if next := get(tag).is(http.StatusOK).Header().Get("Etag"); next == tag {
			t.Errorf("the tag stays %s", tag)
		} else {
			tag = next
		}
	}
	// It differs from the queue's own entity tag, and does not change that one.
	w.do(http.MethodPut, path, `{"name":"x"}`, header("If-Match", tag)).refuses(http.StatusPreconditionFailed, "Precondition failed")
}

// The errors of calls before the opening, after the close, to a full queue, and to a queue
// that does not exist.
func TestContract_queueErrors(t *testing.T) {
	t.Parallel()
	enter := func(w *world, path, c string) *reply {
		return w.do(http.MethodPost, path+"/enter", "", acting(c))
	}
	is := func(w *world, a *reply, headers map[string]string) {
		w.tb.Helper()
		for name, want := range headers {
			if got := a.Header().Get(name); got != want {
				w.tb.Errorf("%s: %s is %q, want %q", a.what, name, got, want)
			}
		}
	}
	inBothMedia(t, []contractRow{
		{"423 in DRAFT", func(w *world) {
			path, _ := w.create("queues", `{"sequenceId":"s","closeAt":"`+closing+`"}`)
			w.writes(0, func() {
				a := enter(w, path, "c").refuses(http.StatusLocked, "Queue is not open yet")
				is(w, a, map[string]string{"Retry-After": "", "X-Opens-At": ""})
			})
		}},
		{"423 in SCHEDULED", func(w *world) {
			path, _ := w.create("queues", `{"sequenceId":"s","openAt":"2026-03-01T12:00:10Z"}`)
			w.advance(8501 * time.Millisecond)
			a := enter(w, path, "c").refuses(http.StatusLocked, "Queue is not open yet")
			is(w, a, map[string]string{"Retry-After": "2", "X-Opens-At": "2026-03-01T12:00:10.000Z"})
			w.advance(1498 * time.Millisecond)
			is(w, enter(w, path, "c").refuses(http.StatusLocked, "Queue is not open yet"), map[string]string{"Retry-After": "1"})
			w.advance(time.Millisecond) // no timer fires
			w.writes(2, func() { enter(w, path, "c").is(http.StatusOK).wants(map[string]any{"status": "QUEUED"}) })
		}},
		{"429 Queue is full", func(w *world) {
			for rate, retry := range map[string]string{"null": "30", "1": "60", "7": "9", "60": "1", "100000": "1"} {
				path := w.openQueue(`,"maxCapacity":2,"admissionRate":`, rate)
				w.enter(path, "a", "b")
				w.writes(0, func() {
					is(w, enter(w, path, "c").refuses(http.StatusTooManyRequests, "Queue is full"), map[string]string{"Retry-After": retry})
					enter(w, path, "a").is(http.StatusOK)
				})
				// A consumer who leaves or is admitted makes room at once.
				w.do(http.MethodPost, path+"/leave", "", acting("a")).is(http.StatusOK)
				w.enter(path, "c")
				w.admitOne(path, "b")
				w.enter(path, "a")
				enter(w, path, "d").refuses(http.StatusTooManyRequests, "Queue is full")
			}
		}},
		{"429 Rate limit exceeded, by consumer", func(w *world) {
			path := w.openQueue()
			w.config.Limits.Consumer = 1
			w.api = New(w.config)
			a, b := w.session("a"), w.session("b")
			w.do(http.MethodPost, path+"/enter", "", as(a)).is(http.StatusOK)
			w.writes(0, func() {
				is(w, w.do(http.MethodPost, path+"/leave", "", as(a)).refuses(http.StatusTooManyRequests, "Rate limit exceeded"), map[string]string{"Retry-After": "60", "X-RateLimit-Limit": "1"})
			})
			w.do(http.MethodPost, path+"/enter", "", as(b)).is(http.StatusOK)
			enter(w, path, "a").is(http.StatusOK) // the organization's limit
		}},
		{"400 Queue is closed", func(w *world) {
			path := w.openQueue()
			moveQueueTo["CLOSED"](w, path)
			w.writes(0, func() { enter(w, path, "c").refuses(http.StatusBadRequest, "Queue is closed") })
		}},
		{"400 Queue is closed, at the very millisecond of the close", func(w *world) {
			path, _ := w.create("queues", `{"sequenceId":"s","openAt":"2026-03-01T12:00:00Z","closeAt":"2026-03-01T12:00:01Z"}`)
			w.advance(999 * time.Millisecond)
			w.enter(path, "a")
			w.advance(time.Millisecond) // no timer fires
			// The steps that were due are in the log, although the command was refused.
			w.writes(2, func() { enter(w, path, "b").refuses(http.StatusBadRequest, "Queue is closed") })
			if got := w.status(path, "a"); got["status"] != "DENIED" || got["denyReason"] != "QUEUE_CLOSED" {
				w.tb.Errorf("a consumer waiting at the end: %v", got)
			}
		}},
		{"400 Consumer ID is required", func(w *world) {
			path := w.openQueue()
			w.do(http.MethodPost, path+"/enter", "").refuses(http.StatusBadRequest, "Consumer ID is required")
			w.do(http.MethodPost, path+"/leave", "").refuses(http.StatusBadRequest, "Consumer ID is required")
			w.do(http.MethodGet, path+"/status", "").refuses(http.StatusBadRequest, "Consumer ID is required")
		}},
		{"400 for X-Consumer-Id beside a token", func(w *world) {
			path := w.openQueue()
			token := w.session("c")
			w.writes(0, func() {
				w.do(http.MethodPost, path+"/enter", "", as(token), acting("c")).blames("X-Consumer-Id")
				for _, id := range []string{"", "a b", "ü", strings.Repeat("x", 129)} {
					enter(w, path, id).blames("X-Consumer-Id")
				}
			})
			enter(w, path, strings.Repeat("~", 128)).is(http.StatusOK)
		}},
		{"401", func(w *world) {
			path := w.openQueue()
			w.do(http.MethodGet, path+"/stats", "", key("")).refuses(http.StatusUnauthorized, "Authentication required")
			for call, method := range map[string]string{"/enter": http.MethodPost, "/leave": http.MethodPost, "/status": http.MethodGet} {
				w.do(method, path+call, "", key("")).refuses(http.StatusUnauthorized, "Authentication required")
				w.do(method, path+call, "", publishable(myPublic)).refuses(http.StatusUnauthorized, "Authentication required")
			}
			token := w.session("c")
			w.enter(path, "c")
			w.do(http.MethodGet, path+"/stats", "", publishable(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
			w.do(http.MethodGet, path+"/stats", "", as(token)).refuses(http.StatusUnauthorized, "Secret key required")
			for call, body := range map[string]string{"/admit": naming("c"), "/complete": naming("c"), "/deny": denying("c"), "/validate": `{"consumerId":"c","token":"x"}`} {
				w.do(http.MethodPost, path+call, body, publishable(myPublic)).refuses(http.StatusUnauthorized, "Secret key required")
				w.do(http.MethodPost, path+call, body, as(token)).refuses(http.StatusUnauthorized, "Secret key required")
			}
		}},
		{"404 Queue not found", func(w *world) {
			mine := w.openQueue()
			w.enter(mine, "c")
			deleted, _ := w.create("queues", `{"sequenceId":"s"}`)
			w.do(http.MethodDelete, deleted, "").is(http.StatusNoContent)
			draw, _ := w.create("draws", kindCases[1].body)
			w.writes(0, func() {
				for path, o := range map[string]option{
					mine: key(otherKey), deleted: key(myKey), queues + "/x": key(myKey),
					queues + "/queue_01h455vb4pex5vsknk084sn02q": key(myKey), queues + draw[len(draws):]: key(myKey),
				} {
					w.do(http.MethodPost, path+"/enter", "", o, acting("c")).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodPost, path+"/leave", "", o, acting("c")).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodGet, path+"/status", "", o, acting("c")).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodGet, path+"/stats", "", o).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodPost, path+"/admit", naming("c"), o).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodPost, path+"/admit", `{"count":1}`, o).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodPost, path+"/complete", naming("c"), o).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodPost, path+"/deny", denying("c"), o).refuses(http.StatusNotFound, "Queue not found")
					w.do(http.MethodPost, path+"/validate", `{"consumerId":"c","token":"x"}`, o).refuses(http.StatusNotFound, "Queue not found")
				}
			})
		}},
		{"404 Consumer not in queue", func(w *world) {
			path := w.openQueue()
			w.writes(0, func() {
				w.do(http.MethodPost, path+"/leave", "", acting("c")).refuses(http.StatusNotFound, "Consumer not in queue")
				w.do(http.MethodGet, path+"/status", "", acting("c")).refuses(http.StatusNotFound, "Consumer not in queue")
				w.do(http.MethodPost, path+"/admit", naming("c")).refuses(http.StatusNotFound, "Consumer not in queue")
				w.do(http.MethodPost, path+"/complete", naming("c")).refuses(http.StatusNotFound, "Consumer not in queue")
				w.do(http.MethodPost, path+"/deny", denying("c")).refuses(http.StatusNotFound, "Consumer not in queue")
			})
		}},
		{"409 Not possible in this state", func(w *world) {
			path := w.openQueue()
			w.enter(path, "c")
			w.writes(0, func() {
				w.do(http.MethodPost, path+"/complete", naming("c")).refuses(http.StatusConflict, "Not possible in this state")
			})
		}},
		{"500 Distribution history is inconsistent", func(w *world) {
			path := w.openQueue()
			w.enter(path, "c")
			w.log.corrupt(domain.ID(path[len(queues)+1:]).Stream())
			w.handlerRestarts()
			enter(w, path, "d").refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
			w.do(http.MethodGet, path+"/status", "", acting("c")).refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
			w.do(http.MethodGet, path+"/stats", "").refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
			w.do(http.MethodPost, path+"/validate", `{"consumerId":"c","token":"x"}`).refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
			enter(w, path, "d").refuses(http.StatusInternalServerError, "Distribution history is inconsistent")
			w.do(http.MethodPost, path+"/admit", `{"count":1}`, key(otherKey)).refuses(http.StatusNotFound, "Queue not found")
		}},
		{"503 Event store unavailable", func(w *world) {
			path := w.openQueue()
			w.log.fail(domain.ErrUnavailable)
			w.writes(0, func() {
				is(w, enter(w, path, "c").refuses(http.StatusServiceUnavailable, "Event store unavailable"), map[string]string{"Retry-After": "1"})
			})
			w.log.fail(nil)
		}},
	})
}

// The clock admits consumers evenly, from the opening to the close. Unused admissions of at
// most one second are saved up. Admissions by hand do not change that.
func TestContract_queueAdmission(t *testing.T) {
	t.Parallel()
	all := []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"}
	type tick struct {
		after time.Duration
		do    func(w *world, path string) // is called before the time passes
		want  int                         // how many consumers the clock has admitted by then
	}
	nothing := func(*world, string) {}
	enter := func(w *world, path string) {
		for _, consumer := range all { // the first of them may be admitted at once
			w.do(http.MethodPost, path+"/enter", "", acting(consumer)).is(http.StatusOK)
		}
	}
	byHand := func(consumer string) func(w *world, path string) {
		return func(w *world, path string) { w.admitOne(path, consumer) }
	}
	set := func(body string) func(w *world, path string) {
		return func(w *world, path string) { w.do(http.MethodPut, path, body).is(http.StatusOK) }
	}
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		settings string
		ticks    []tick
	}{
		"100 a minute is one every 600 ms": {`,"admissionRate":100`, []tick{
			{599 * ms, enter, 0}, {ms, nothing, 1}, {599 * ms, nothing, 1}, {ms, nothing, 2}, {600 * ms, nothing, 3},
		}},
		"by hand neither counts nor slows": {`,"admissionRate":100`, []tick{
			{600 * ms, enter, 1}, {300 * ms, byHand("j"), 1}, {299 * ms, byHand("i"), 1}, {ms, byHand("h"), 2}, {600 * ms, nothing, 3},
		}},
		"one second's worth is saved up": {`,"admissionRate":100`, []tick{
			{time.Hour, nothing, 0}, {199 * ms, enter, 1}, {ms, nothing, 2}, {599 * ms, nothing, 2}, {ms, nothing, 3},
		}},
		"what was missed is not caught up": {`,"admissionRate":100`, []tick{{time.Hour, enter, 1}, {200 * ms, nothing, 2}}},
		"a fast rate admits several at once": {`,"admissionRate":6000`, []tick{
			{10 * ms, enter, 1}, {49 * ms, nothing, 1}, {ms, nothing, 6}, {50 * ms, nothing, 10},
		}},
		"another rate counts from then on": {`,"admissionRate":60`, []tick{
			{500 * ms, enter, 0}, {49 * ms, set(`{"admissionRate":600}`), 0}, {ms, nothing, 1}, {100 * ms, nothing, 2}, {time.Hour, set(`{"admissionRate":null}`), 2},
		}},
		"none when it is closed": {`,"admissionRate":60`, []tick{
			{time.Second, enter, 1}, {999 * ms, nothing, 1}, {time.Hour, func(w *world, path string) { w.do(http.MethodPost, path+"/close", "").is(http.StatusOK) }, 1},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			path := w.openQueue(c.settings)
			for i, tick := range c.ticks {
				tick.do(w, path)
				w.advance(tick.after)
				w.at(path, domain.InstantOf(w.config.Clock()).String())
				// The consumers after the first seven are those that are admitted by hand.
				admitted := slices.DeleteFunc(slices.Clone(all[:7]), func(consumer string) bool {
					return w.do(http.MethodGet, path+"/status", "", acting(consumer)).object()["status"] != "ADMITTED"
				})
				if !slices.Equal(admitted, all[:min(7, tick.want)]) {
					t.Errorf("tick %d: %q are admitted, want the first %d", i, admitted, tick.want)
				}
			}
		})
	}
}

// A closed queue completes when its last session has ended.
func TestContract_queueEndsWithTheLastSession(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	path := w.openQueue(`,"sessionDurationSeconds":60`)
	w.enter(path, "a", "b", "c")
	w.admitOne(path, "a")
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
	w.advance(time.Second)
	w.admitOne(path, "b")
	before := len(w.recorded(path))
	w.advance(time.Hour)
	w.at(path, domain.InstantOf(w.config.Clock()).String())
	want := []string{"ConsumerExpired 2026-03-01T12:01:00.000Z", "ConsumerExpired 2026-03-01T12:01:01.000Z", "Completed 2026-03-01T12:01:01.000Z"}
	if got := w.recorded(path)[before:]; !slices.Equal(got, want) {
		t.Errorf("recorded %q, want %q", got, want)
	}
	for c, want := range map[string]string{"a": "EXPIRED", "b": "EXPIRED", "c": "DENIED"} {
		if got := w.status(path, c)["status"]; got != want {
			t.Errorf("%s is %v, want %s", c, got, want)
		}
	}
}

// If a step is due at the same millisecond as a request, the step comes first, even if no
// timer has fired. The request applies to the state after it.
func TestContract_queueAtTheVeryMillisecond(t *testing.T) {
	t.Parallel()
	const due = "2026-03-01T12:00:01.000Z" // when an admission, or the end of a session, is due
	waits := func(w *world) string {
		path := w.openQueue(`,"admissionRate":60`)
		w.enter(path, "a", "b")
		return path
	}
	inside := func(w *world) string {
		path := w.openQueue(`,"sessionDurationSeconds":1`)
		w.enter(path, "a", "b")
		w.admitOne(path, "a")
		return path
	}
	enter := func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/enter", "", acting("a")) }
	leave := func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/leave", "", acting("a")) }
	complete := func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/complete", naming("a")) }
	deny := func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/deny", denying("a")) }
	admit := func(body string) func(w *world, path string) *reply {
		return func(w *world, path string) *reply { return w.do(http.MethodPost, path+"/admit", body) }
	}
	for name, c := range map[string]struct {
		given func(w *world) string
		do    func(w *world, path string) *reply
		want  string   // the status in the answer, "" for a 409
		then  []string // the events that are recorded
	}{
		"leaving when the admission is due":                    {waits, leave, "LEFT", []string{"ConsumerAdmitted", "ConsumerLeft"}},
		"completing when the admission is due":                 {waits, complete, "COMPLETED", []string{"ConsumerAdmitted", "ConsumerCompleted"}},
		"denying when the admission is due":                    {waits, deny, "DENIED", []string{"ConsumerAdmitted", "ConsumerDenied"}},
		"entering again when the admission is due":             {waits, enter, "ADMITTED", []string{"ConsumerAdmitted"}},
		"admitting by hand when the admission is due":          {waits, admit(naming("a")), "ADMITTED", []string{"ConsumerAdmitted"}},
		"admitting the next by hand when the admission is due": {waits, admit(`{"count":1}`), "b", []string{"ConsumerAdmitted", "ConsumerAdmitted"}},
		"completing when the session ends":                     {inside, complete, "", []string{"ConsumerExpired"}},
		"leaving when the session ends":                        {inside, leave, "", []string{"ConsumerExpired"}},
		"denying when the session ends":                        {inside, deny, "", []string{"ConsumerExpired"}},
		"admitting by hand when the session ends":              {inside, admit(naming("a")), "", []string{"ConsumerExpired"}},
		"entering again when the session ends":                 {inside, enter, "QUEUED", []string{"ConsumerExpired", "ConsumerEntered"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t)
			path := c.given(w)
			before := len(w.recorded(path))
			w.advance(time.Second)
			switch a := c.do(w, path); c.want {
			case "":
				a.refuses(http.StatusConflict, "Not possible in this state")
			case "b":
				if got := admitted(a.is(http.StatusOK)); !slices.Equal(got, []string{"b"}) {
					t.Errorf("admitted %q", got)
				}
			default:
				got := a.is(http.StatusOK).object()
				if all, ok := got["data"].([]any); ok {
					got = all[0].(map[string]any)
				}
				if got["status"] != c.want || c.want == "QUEUED" && got["position"] != 2.0 {
					t.Errorf("%v", got)
				}
			}
			for i := range c.then {
				c.then[i] += " " + due
			}
			if got := w.recorded(path)[before:]; !slices.Equal(got, c.then) {
				t.Errorf("recorded %q, want %q", got, c.then)
			}
		})
	}
}

// Admitting a number of consumers by hand takes the next ones in turn, while OPEN and CLOSED.
func TestContract_admitByCount(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path := w.openQueue()
	w.enter(path, "a", "b", "c", "d", "e")
	w.do(http.MethodPost, path+"/leave", "", acting("b")).is(http.StatusOK)
	admit := func(n int) []string {
		t.Helper()
		return admitted(w.do(http.MethodPost, path+"/admit", fmt.Sprintf(`{"count":%d}`, n)).is(http.StatusOK))
	}
	if got := admit(2); !slices.Equal(got, []string{"a", "c"}) {
		t.Errorf("admitted %q", got)
	}
	w.do(http.MethodPost, path+"/close", "").is(http.StatusOK).wants(map[string]any{"status": "CLOSED"})
	if got := admit(1000); !slices.Equal(got, []string{"d", "e"}) {
		t.Errorf("admitted %q", got)
	}
	w.writes(0, func() {
		if got := admit(3); len(got) != 0 {
			t.Errorf("admitted %q", got)
		}
	})
	draft, _ := w.create("queues", `{"sequenceId":"s"}`)
	over := w.openQueue()
	moveQueueTo["COMPLETED"](w, over)
	w.writes(0, func() {
		for _, p := range []string{draft, over} {
			w.do(http.MethodPost, p+"/admit", `{"count":1}`).refuses(http.StatusConflict, "Not possible in this state")
		}
	})
}

// admitted returns the consumers in a list of participations, all of which must be ADMITTED.
func admitted(a *reply) []string {
	a.tb.Helper()
	all := []string{}
	for _, p := range a.object()["data"].([]any) {
		p := p.(map[string]any)
		if p["status"] != "ADMITTED" || p["admissionToken"] == nil {
			a.tb.Errorf("%s: %v", a.what, p)
		}
		all = append(all, p["consumerId"].(string))
	}
	return all
}
