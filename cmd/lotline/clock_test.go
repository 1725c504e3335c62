package main

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
)

// A machine's clock may be set forward and back. The times in a stream still never run
// backwards, and nothing that happened is undone.
func TestClock_jumpsChangeNothingThatHappened(t *testing.T) {
	t.Parallel()
	p := newProcesses(t)
	wrong := filepath.Join(t.TempDir(), "clock")
	set := func(by time.Duration) {
		t.Helper()
		// The rename keeps the engine from reading half of the file.
		err := os.WriteFile(wrong+".new", []byte(by.String()), 0o600)
		if err == nil {
			err = os.Rename(wrong+".new", wrong)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.ledger.Wrong = by
	}
	set(0)
	p.embedded(clockFile + "=" + wrong)

	// Some open before the clock is set, some soon after, and some open and close within
	// the two hours by which the clock is then set ahead.
	schedule := func(n int, openAt, endAt string) (paths []string) {
		for i := range n {
			paths = append(paths, p.create(0, collections[i%3], body(`,"openAt":%q`, openAt)+ends(collections[i%3], endAt)))
		}
		return paths
	}
	early := schedule(9, in(300), in(5_000_000))
	soon := schedule(9, in(3000), in(1_800_000))
	late := schedule(9, in(3_600_000), in(5_400_000))
	byHand := schedule(3, in(5_000_000), in(9_000_000))
	var steps []*request
	for _, path := range byHand {
		d := p.request("updated", "POST", path+"/open", "")
		if r := p.do(0, d); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		steps = append(steps, d)
	}
	times := 0
	everywhere := func() {
		t.Helper()
		times++
		for _, paths := range [][]string{early, soon, late, byHand} {
			for _, path := range paths {
				if r := p.do(0, p.request("updated", "PUT", path, body(`{"name":"for the %dth time"}`, times))); r.Status != 200 && r.Status != 409 {
					t.Errorf("%d %s", r.Status, r.Body)
				}
			}
		}
		for _, d := range steps {
			r, err := d.Send(p.http, p.nodes[0].url, testSecretKey)
			if err != nil {
				t.Fatal(err)
			}
			d.Again = append(d.Again, *r)
		}
	}
	statuses := func(paths ...[]string) (all []string) {
		for _, path := range slices.Concat(paths...) {
			all = append(all, p.nodes[0].must(200, "GET", path, testSecretKey, "").object(t)["status"].(string))
		}
		return all
	}
	are := func(want string, paths ...string) bool {
		return !slices.ContainsFunc(statuses(paths), func(s string) bool { return s != want })
	}
	eventually(t, "the early ones opened", func() bool { return are("OPEN", early...) })
	everywhere()

	set(-time.Hour)
	everywhere()
	// The true time is an hour ahead of the engine's clock.
	fresh := schedule(3, in(-3_600_000+200), in(3_600_000))
	eventually(t, "what is due by the new time opened", func() bool { return are("OPEN", fresh...) })
	// On a slow machine some may have opened already.
	before := statuses(early, soon, late, byHand)
	<-time.After(3 * time.Second)
	everywhere()
	if after := statuses(early, soon, late, byHand); !slices.Equal(after, before) || slices.Contains(before[:9], "SCHEDULED") {
		t.Errorf("the clock was set back, and what was %v is %v", before, after)
	}
	p.check()

	set(2 * time.Hour)
	// The next command or timer first does everything that is due.
	for n, path := range append(soon[:4:4], late[:4]...) {
		if r := p.do(0, p.request("updated", "PUT", path, body(`{"name":"too late %d"}`, n))); r.Status != 409 {
			t.Errorf("%d %s", r.Status, r.Body)
		}
	}
	schedule(1, in(7_300_000), in(9_000_000)) // makes the scheduler check its timers
	for _, paths := range [][]string{early, soon, late} {
		for i, path := range paths {
			want := []string{"COMPLETED", "COMPLETED", "SETTLED"}[i%3]
			eventually(t, fmt.Sprintf("%s is %s", path, want), func() bool { return are(want, path) })
		}
	}
	everywhere()
	p.check()

	// The clock is set back to the true time, and the engine restarts.
	set(0)
	everywhere()
	p.check()
	p.nodes[0].kill()
	p.embedded(clockFile + "=" + wrong)
	everywhere()
	p.check()
}

// A machine may start with its clock at 1970 or, if the clock is broken, in any year. The
// engine waits for the right time, says so, and writes nothing to the log before.
func TestClock_aStartWithAnImpossibleClockWaitsForIt(t *testing.T) {
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

// lineWith returns the first line of text that contains what, or "".
func lineWith(text, what string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, what) {
			return line
		}
	}
	return ""
}

func TestClock_sigtermEndsAStartThatWaitsForIt(t *testing.T) {
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

// A running engine whose clock leaves the range of years that events can hold decides
// nothing and says so. It goes on when the clock is right.
func TestClock_anImpossibleClockDecidesNothing(t *testing.T) {
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
			<-time.After(2 * time.Second) // long enough for timers to try
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

// An admin command says in one line why it does nothing.
func TestClock_adminCommandsRefuseAnImpossibleClock(t *testing.T) {
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
	// In a new directory such a command creates nothing.
	fresh := dataDirectory(t)
	if _, _, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + fresh, wrong.env()}, "org", "create", "--name=x"); code != exitConfig {
		t.Errorf("exit %d", code)
	}
	testBinary(t).serve(t, fresh)
}

// The sink's events hold the time too. An impossible time could not be decoded again.
func TestClock_aWrongClockAppendsNothing(t *testing.T) {
	t.Parallel()
	l := clockedLog{nil, walltime.New(func() time.Time { return time.Unix(10, 0) })}
	_, _, err := l.Append(t.Context(), domain.SinkStream("bus"), domain.EmptyHead(), nil)
	if !isWrong(err) || !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("it says %v", err)
	}
}
