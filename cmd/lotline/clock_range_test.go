package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// wrongClock is a file that says by how much the clock of a process is wrong.
type wrongClock struct {
	t    *testing.T
	path string
}

func newWrongClock(t *testing.T) *wrongClock {
	t.Helper()
	c := &wrongClock{t, filepath.Join(t.TempDir(), "clock")}
	c.set(0)
	return c
}

// set makes the clock wrong by that much. The process never finds half of it.
func (c *wrongClock) set(by time.Duration) {
	c.t.Helper()
	err := os.WriteFile(c.path+".new", []byte(by.String()), 0o600)
	if err == nil {
		err = os.Rename(c.path+".new", c.path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// show makes the clock show the first of January of a year.
func (c *wrongClock) show(year int) {
	c.t.Helper()
	// A duration holds 292 years.
	c.set(time.Until(time.Date(year, 1, 1, 0, 0, 10, 0, time.UTC)))
}

func (c *wrongClock) env() string { return clockFile + "=" + c.path }

// launch is like serve, but does not wait until the engine is ready.
func (p program) launch(t *testing.T, dir string, env ...string) *engine {
	t.Helper()
	at := freeAddress(t)
	env = append([]string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=" + at}, env...)
	e := &engine{t: t, cmd: p.command(t.Context(), env, "serve"), url: "http://" + at, stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	e.cmd.Stdout, e.cmd.Stderr = e.stdout, e.stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	client := newHTTPClient(t)
	eventually(t, "it answers", func() bool {
		r, err := client.Get(e.url + "/livez")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return e
}

// A machine may start with its clock at 1970, and with one that broke in any year.
// The engine waits, says for what, and leaves nothing in the log by then.
func TestServe_aStartWithAnImpossibleClockWaitsForIt(t *testing.T) {
	t.Parallel()
	for _, year := range []int{1970, 1999, 2200, 2306} {
		t.Run(strconv.Itoa(year), func(t *testing.T) {
			t.Parallel()
			dir, wrong := dataDirectory(t), newWrongClock(t)
			wrong.show(year)
			e := testBinary(t).launch(t, dir, wrong.env(), "LOTLINE_SECRET_KEY="+testSecretKey)
			reason := "the clock shows " + strconv.Itoa(year) + "-01-01T00:00:1"
			if a := e.must(503, "GET", "/readyz", "", ""); !strings.Contains(string(a.body), `"clock":{"ok":false,"reason":"`+clockReason+`"}`) {
				t.Errorf("/readyz: %s", a.body)
			}
			e.must(503, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`)
			eventually(t, "the log says what it waits for", func() bool {
				line := lineWith(e.stderr.String(), "waiting for the clock")
				return strings.Contains(line, reason)
			})
			if _, err := os.Stat(filepath.Join(dir, eventsFile)); !os.IsNotExist(err) {
				t.Errorf("there is a log: %v", err)
			}
			wrong.set(0)
			eventually(t, "it is ready", func() bool { return e.call("GET", "/readyz", "", "").status == 200 })
			e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`)
			e.kill()
			e = testBinary(t).serve(t, dir)
			e.must(200, "GET", "/api/v1/organization", testSecretKey, "")
		})
	}
}

// lineWith is the first line of text that contains what, or "".
func lineWith(text, what string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, what) {
			return line
		}
	}
	return ""
}

func TestServe_sigtermEndsAStartThatWaitsForTheClock(t *testing.T) {
	t.Parallel()
	wrong := newWrongClock(t)
	wrong.show(1970)
	e := testBinary(t).launch(t, dataDirectory(t), wrong.env())
	if err := e.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, e.stderr)
	}
}

// A running engine whose clock leaves the years that can be recorded decides nothing,
// says so, and goes on when the clock is right.
func TestServe_anImpossibleClockDecidesNothing(t *testing.T) {
	t.Parallel()
	for _, year := range []int{1970, 2306} {
		t.Run(strconv.Itoa(year), func(t *testing.T) {
			t.Parallel()
			dir, wrong := dataDirectory(t), newWrongClock(t)
			e := testBinary(t).serve(t, dir, wrong.env())
			key := e.secretKey()
			idempotent := []string{"Idempotency-Key", "k"}
			made := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`, idempotent...).header.Get("Location")
			due := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(1000))).header.Get("Location")
			wrong.show(year)
			for _, c := range [][3]string{
				{"POST", "/api/v1/queues", `{"sequenceId":"s"}`},
				{"PUT", made, `{"name":"x"}`},
				{"POST", made + "/open", ""},
				{"DELETE", made, ""},
				{"POST", "/api/v1/keys", `{"level":"secret"}`},
				{"PUT", "/api/v1/organization", `{"name":"x"}`},
				{"POST", "/api/v1/auth/guest", ""},
				{"POST", "/api/v1/auth/consumer", `{"consumerId":"c"}`},
			} {
				if a := e.must(503, c[0], c[1], key, c[2]); !strings.Contains(string(a.body), `"code":"EVENT_STORE_UNAVAILABLE"`) || a.header.Get("Retry-After") != "1" {
					t.Errorf("%s %s: %s", c[0], c[1], a.body)
				}
			}
			e.must(503, "POST", "/api/v1/queues", key, `{"sequenceId":"t"}`, "Idempotency-Key", "other")
			e.must(200, "GET", made, key, "")
			if a := e.must(503, "GET", "/readyz", key, ""); !strings.Contains(string(a.body), `"error":"the clock shows `+strconv.Itoa(year)) {
				t.Errorf("/readyz: %s", a.body)
			}
			eventually(t, "a metric says so", func() bool {
				return scrape(t, e.url+"/metrics").value("lotline_ready", "part", "clock") == 0
			})
			<-time.After(2 * time.Second) // timers had their chance
			if strings.Contains(e.stderr.String(), "a timer is tried again") {
				t.Errorf("timers are tried: %s", e.stderr)
			}
			wrong.set(0)
			e.must(200, "GET", "/readyz", "", "")
			within(t, 10*time.Second, "what was due is done", func() bool {
				return e.must(200, "GET", due, key, "").object(t)["status"] == "OPEN"
			})
			if again := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`, idempotent...); again.header.Get("Location") != made {
				t.Errorf("repeated, it made %s", again.header.Get("Location"))
			}
			e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"t"}`, "Idempotency-Key", "other")
			other := e.must(201, "POST", "/api/v1/keys", key, `{"level":"secret"}`).object(t)["key"].(string)
			e.kill()
			if err := os.Remove(filepath.Join(dir, viewsFile)); err != nil {
				t.Fatal(err)
			}
			e = testBinary(t).serve(t, dir)
			e.must(http.StatusOK, "GET", made, other, "")
			if n := scrape(t, e.url+"/metrics").value("lotline_quarantined_streams"); n != 0 {
				t.Errorf("%v streams are in quarantine", n)
			}
		})
	}
}

// What administers says in one line why it does nothing.
func TestAdmin_refusesWithAnImpossibleClock(t *testing.T) {
	t.Parallel()
	dir, wrong := dataDirectory(t), newWrongClock(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	before := admin(t, dir, "keys", "list")
	for _, running := range []bool{true, false} {
		if !running {
			e.terminate()
		}
		for _, year := range []int{1970, 2306} {
			wrong.show(year)
			for _, args := range [][]string{
				{"keys", "create"}, {"org", "create", "--name=x"}, {"org", "update", "--name=x"}, {"signing", "rotate"},
			} {
				stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir, wrong.env()}, args...)
				if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "lotline: the clock shows "+strconv.Itoa(year)) {
					t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
				}
			}
		}
	}
	if after := admin(t, dir, "keys", "list"); after != before {
		t.Errorf("the keys were\n%s\nand are\n%s", before, after)
	}
	testBinary(t).serve(t, dir).must(200, "GET", "/api/v1/organization", key, "")
	// Nor does the first command of all leave anything.
	fresh := dataDirectory(t)
	if _, _, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + fresh, wrong.env()}, "org", "create", "--name=x"); code != exitConfig {
		t.Errorf("exit %d", code)
	}
	testBinary(t).serve(t, fresh)
}
