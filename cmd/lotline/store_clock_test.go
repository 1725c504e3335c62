package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
)

// storeAlone starts a store as a process of its own and returns the environment for
// engines on it.
func storeAlone(t *testing.T) (env []string) {
	t.Helper()
	at := freeAddress(t)
	startStore(t, testBinary(t), dataDirectory(t), at)
	return []string{"LOTLINE_EVENTSTORE=esdb://" + at + "?tls=false", "LOTLINE_MASTER_KEY=" + testMasterKey, "LOTLINE_SECRET_KEY=" + testSecretKey}
}

// readOn opens the log of such a store.
func readOn(t *testing.T, env []string) *log {
	t.Helper()
	dir, err := openDataDir(dataDirectory(t))
	if err != nil {
		t.Fatal(err)
	}
	s := &settings{EventStore: strings.TrimPrefix(env[0], "LOTLINE_EVENTSTORE="), MasterKey: testMasterKey}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	closeAtEnd(t, l)
	return l
}

// checkOf returns the status of /readyz and what it says about one part.
func checkOf(e *engine, part string) (status int, said string) {
	a := e.call(http.MethodGet, "/readyz", testSecretKey, "")
	var all struct {
		Checks map[string]json.RawMessage `json:"checks"`
	}
	if err := json.Unmarshal(a.body, &all); err != nil {
		e.t.Fatal(err)
	}
	return a.status, string(all.Checks[part])
}

// A node whose clock is an hour ahead or behind decides nothing and says why. It does not
// disturb the admissions and sessions of the other node. It goes on when its clock is
// right.
func TestStoreClock_aWrongClockHarmsNoOtherNode(t *testing.T) {
	t.Parallel()
	for by, reason := range map[time.Duration]string{
		time.Hour:  "the clock is 1h0m0s ahead of the event store's",
		-time.Hour: "the clock is 1h0m0s behind the event store's",
	} {
		t.Run(by.String(), func(t *testing.T) {
			t.Parallel()
			env, wrong := storeAlone(t), newWrongClock(t)
			good := testBinary(t).serve(t, dataDirectory(t), env...)
			bad := testBinary(t).serve(t, dataDirectory(t), append(env, wrong.env())...)
			made := good.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s","admissionRate":300,"sessionDurationSeconds":2}`)
			path := made.header.Get("Location")
			good.must(200, "POST", path+"/open", testSecretKey, "")
			bad.must(200, "POST", path+"/enter", testSecretKey, "", "X-Consumer-Id", "before")

			wrong.set(by)
			// Even the first command is refused before it is decided.
			if a := bad.must(503, "POST", path+"/enter", testSecretKey, "", "X-Consumer-Id", "b"); !strings.Contains(string(a.body), "EVENT_STORE_UNAVAILABLE") {
				t.Errorf("it answers %s", a.body)
			}
			bad.must(503, "POST", "/api/v1/keys", testSecretKey, `{"level":"secret"}`)
			bad.must(503, "POST", "/api/v1/auth/guest", testSecretKey, "")
			if status, said := checkOf(bad, "clock"); status != 503 || !strings.Contains(said, reason) {
				t.Errorf("/readyz: %d %s", status, said)
			}
			f := scrape(t, bad.url+"/metrics")
			if off := f.value("lotline_clock_offset_seconds"); f.value("lotline_ready", "part", "clock") != 0 || off < by.Seconds()-1 || off > by.Seconds()+1 {
				t.Errorf("by the metrics it is off by %v", off)
			}
			const consumers = 5
			for i := range consumers {
				good.must(200, "POST", path+"/enter", testSecretKey, "", "X-Consumer-Id", fmt.Sprint("c-", i))
			}
			l, stream := readOn(t, env), domain.ID(made.object(t)["id"].(string)).Stream()
			within(t, 15*time.Second, "all sessions have ended", func() bool {
				return inTheLog(t, l, stream).Aggregate.(*domain.Queue).Tally == domain.Tally{Expired: consumers + 1}
			})
			if status, _ := checkOf(good, "clock"); status != 200 {
				t.Errorf("the other node is not ready: %d", status)
			}
			bad.must(200, "GET", path, testSecretKey, "")

			wrong.set(0)
			within(t, 15*time.Second, "it is ready again", func() bool { status, _ := checkOf(bad, "clock"); return status == 200 })
			bad.must(200, "POST", path+"/enter", testSecretKey, "", "X-Consumer-Id", "b")
			for r, err := range l.Read(t.Context(), stream, domain.NoStream) {
				if err != nil {
					t.Fatal(err)
				}
				if off := r.RecordedAt.Sub(r.Event.When().Time()); off.Abs() > time.Minute {
					t.Errorf("%s counts at %s and was recorded at %s", r.Type, r.Event.When(), r.RecordedAt)
				}
			}
			eventually(t, "the log says that it is right again", func() bool {
				return lineWith(bad.stderr.String(), `"message":"the clock is right again"`) != ""
			})
			if n := strings.Count(bad.stderr.String(), `"message":"the clock is wrong"`); n != 1 {
				t.Errorf("the log says %d times that it is wrong", n)
			}
		})
	}
}

// A node that starts with a wrong clock waits, and admin commands refuse to run.
func TestStoreClock_aStartWithAnotherClockWaitsForIt(t *testing.T) {
	t.Parallel()
	env, wrong := storeAlone(t), newWrongClock(t)
	wrong.set(-time.Hour)
	reason := "the clock is 1h0m0s behind the event store's"
	dir := dataDirectory(t)
	e := testBinary(t).launch(t, dir, append(env, wrong.env())...)
	eventually(t, "/readyz names it", func() bool {
		status, said := checkOf(e, "clock")
		return status == 503 && strings.Contains(said, clockReason)
	})
	eventually(t, "the log says what it waits for", func() bool {
		return strings.Contains(lineWith(e.stderr.String(), "waiting for the clock"), reason)
	})
	// This is so in the engine's directory as well.
	for _, place := range []string{dataDirectory(t), dir} {
		stdout, stderr, code := testBinary(t).run(t, append(env, wrong.env(), "LOTLINE_DATA_DIR="+place), "org", "create", "--name=x")
		if code != exitConfig || stdout != "" || stderr != "lotline: "+reason+"\n" {
			t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
		}
	}
	wrong.set(0)
	within(t, 15*time.Second, "it is ready", func() bool { status, _ := checkOf(e, "clock"); return status == 200 })
	eventually(t, "its key works", func() bool { return e.call("GET", "/api/v1/organization", testSecretKey, "").status == 200 })
	l := readOn(t, env)
	for _, stream := range []string{domain.SealStream, domain.SigningStream} {
		for r, err := range l.Read(t.Context(), stream, domain.NoStream) {
			if err != nil {
				t.Fatal(err)
			}
			if off := r.RecordedAt.Sub(r.Event.When().Time()); off.Abs() > time.Minute {
				t.Errorf("%s counts at %s and was recorded at %s", r.Type, r.Event.When(), r.RecordedAt)
			}
		}
	}
}

// With a small difference the node reports that it is not ready, but still serves
// requests.
func TestStoreClock_aClockThatIsSecondsOffIsNamed(t *testing.T) {
	t.Parallel()
	env, wrong := storeAlone(t), newWrongClock(t)
	e := testBinary(t).serve(t, dataDirectory(t), append(env, wrong.env())...)
	path := e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`).header.Get("Location")
	for _, by := range []time.Duration{10 * time.Second, -10 * time.Second} {
		wrong.set(by)
		eventually(t, "/readyz names it", func() bool {
			status, said := checkOf(e, "clock")
			return status == 503 && strings.Contains(said, "the clock is 10s ")
		})
		e.must(200, "PUT", path, testSecretKey, body(`{"name":"off by %s"}`, by))
		wrong.set(0)
		eventually(t, "it is right again", func() bool { status, _ := checkOf(e, "clock"); return status == 200 })
	}
}

// In streams whose time is ahead of the clock nothing happens until the clock reaches
// that time. The check names these streams but is advisory, because no other node could
// serve them either.
func TestStoreClock_streamsAheadOfTheClockAreNamed(t *testing.T) {
	t.Parallel()
	dir, wrong := dataDirectory(t), newWrongClock(t)
	wrong.set(time.Hour)
	e := testBinary(t).serve(t, dir, wrong.env(), operatorsListen, "LOTLINE_SECRET_KEY="+testSecretKey)
	path := e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`).header.Get("Location")
	stream := domain.ID(path[strings.LastIndex(path, "/")+1:]).Stream()
	if status, said := checkOf(e, "streamTimes"); status != 200 || said != `{"ok":true}` {
		t.Errorf("/readyz: %d %s", status, said)
	}
	named := func(e *engine, more int) bool {
		status, said := checkOf(e.operators(), "streamTimes")
		return status == 200 && strings.Contains(said, `{"stream":"`+stream+`","latest":"`) && strings.Contains(said, fmt.Sprintf(`"count":%d`, more))
	}
	// The streams ahead are the queue, the organization and the signing keys.
	wrong.set(0)
	eventually(t, "they are named", func() bool { return named(e, 3) })
	eventually(t, "they are counted", func() bool {
		return scrape(t, e.operators().url+"/metrics").value("lotline_streams_ahead_of_clock") == 3
	})
	// A restart finds the same streams, with and without the read models' file.
	for _, remove := range []bool{false, true} {
		if code := e.terminate(); code != 0 {
			t.Errorf("exit %d", code)
		}
		if remove {
			if err := os.Remove(dir + "/" + viewsFile); err != nil {
				t.Fatal(err)
			}
		}
		e = testBinary(t).serve(t, dir, wrong.env(), operatorsListen)
		if !named(e, 3) {
			_, said := checkOf(e.operators(), "streamTimes")
			t.Errorf("after a restart: %s", said)
		}
	}
	wrong.set(time.Hour + time.Minute)
	eventually(t, "the clock has come there", func() bool { _, said := checkOf(e, "streamTimes"); return said == `{"ok":true}` })
}

// A node compares its clock with the store's at every append that it makes anyway. So it
// finds a clock that drifts without extra appends.
func TestStoreClock_everyAppendComparesTheClock(t *testing.T) {
	t.Parallel()
	c := newClusterStore(t)
	n := c.openNode(t, lockedDir(t))
	var off atomic.Int64
	began := time.Now()
	skewed := walltime.New(func() time.Time { return time.Now().Add(time.Duration(off.Load())) })
	skewed.Compare(n.log.Log, func() time.Duration { return time.Since(began) + time.Duration(off.Load()) })
	n.log.clock = skewed
	n.handler.UseClock(skewed)
	n.bringUp(t)
	off.Store(int64(10 * time.Second))
	if err := skewed.Err(); err != nil {
		t.Errorf("before an append: %v", err)
	}
	newest, err := n.log.Newest(t.Context(), domain.ClockStream)
	if err != nil || newest == nil || newest.Revision != 0 {
		t.Errorf("the start took more than one comparison: %v, %v", newest, err)
	}
	ask := asking(t, c)
	ask(0, http.MethodPost, "/api/v1/queues", `{"sequenceId":"s"}`, "")
	eventually(t, "the append shows it", func() bool { return skewed.Offset() > 9*time.Second })
}
