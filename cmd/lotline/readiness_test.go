package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/httpapi"
)

// A node that is catching up reports its progress, and that it is not ready.
func TestReadyz_saysHowFarCatchingUpIs(t *testing.T) {
	t.Parallel()
	s := &settings{DataDir: dataDirectory(t)}
	e := testBinary(t).serve(t, s.DataDir)
	e.secretKey()
	e.kill()
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir.file(viewsFile)); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	n, err := newNode(l, dir, nodeOptions{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.shutDown(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	projections := func() httpapi.Check {
		for _, c := range n.ready(t.Context()) {
			if c.Name == "projections" {
				return c
			}
		}
		t.Fatal("nothing is said of projections")
		return httpapi.Check{}
	}
	if c := projections(); c.Err == nil || c.Detail != (catchingUp{}) {
		t.Errorf("at the start: %+v", c)
	}
	if !n.catchUp(t.Context()) {
		t.Fatal("it did not catch up")
	}
	n.caughtUp.Store(false)
	if c := projections(); c.Err == nil || c.Detail.(catchingUp).Events == 0 || c.Detail.(catchingUp).UpTo.IsZero() {
		t.Errorf("after the first events: %+v", c)
	}
	n.caughtUp.Store(true)
	eventually(t, "it is ready", func() bool { c := projections(); return c.Err == nil && c.Detail == nil })
}

// Readyz names each part. The node is not ready before all parts are.
func TestReadyz_namesEachPartAndWaitsForAll(t *testing.T) {
	t.Parallel()
	c := newClusterStore(t)
	n := c.openNode(t, lockedDir(t))
	client := newHTTPClient(t)
	told := func() string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, n.url+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Body.Close()
		var body struct{ Checks map[string]struct{ OK bool } }
		if err := json.NewDecoder(a.Body).Decode(&body); err != nil {
			t.Fatal(err)
		}
		parts := []string{strconv.Itoa(a.StatusCode)}
		for _, name := range slices.Sorted(maps.Keys(body.Checks)) {
			parts = append(parts, fmt.Sprintf("%s %t", name, body.Checks[name].OK))
		}
		return strings.Join(parts, ", ")
	}
	shows := func(want string) {
		t.Helper()
		if got := told(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	shows("503, clock true, eventStore true, histories true, projections false, streamTimes true, timers false")
	if !n.catchUp(t.Context()) {
		t.Fatal("it did not catch up")
	}
	shows("503, clock true, eventStore true, histories true, projections true, streamTimes true, timers false")
	n.startTimers()
	eventually(t, "nothing is overdue", n.scheduler.CaughtUp)
	shows("200, clock true, eventStore true, histories true, projections true, streamTimes true, timers true")
	n.link.cut()
	eventually(t, "the parts that need the store are named", func() bool {
		return told() == "503, clock true, eventStore false, histories true, projections false, streamTimes true, timers true"
	})
}

// The public does not see the store's error texts or the number of events in the log.
func TestReadyz_onlyOperatorsSeeTheDetails(t *testing.T) {
	t.Parallel()
	c := newClusterStore(t)
	c.options.separateOperations = true
	n := c.openNode(t, lockedDir(t))
	e := n.engine(t)
	type state struct {
		OK            bool
		Reason, Error string
		Detail        map[string]any
	}
	read := func(body []byte) map[string]state {
		t.Helper()
		var a struct{ Checks map[string]state }
		if err := json.Unmarshal(body, &a); err != nil {
			t.Fatal(err)
		}
		return a.Checks
	}
	toOperators := func() map[string]state {
		t.Helper()
		answer := httptest.NewRecorder()
		n.operations.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
		return read(answer.Body.Bytes())
	}
	toAll := read(e.must(503, "GET", "/readyz", "", "").body)["projections"]
	if toAll.Reason != "catching up with the log, 0 % done" || toAll.Error != "" || toAll.Detail != nil {
		t.Errorf("everybody is told %+v", toAll)
	}
	if told := toOperators()["projections"]; told.Error == "" || told.Detail["percent"] == nil || told.Detail["events"] == nil {
		t.Errorf("operators are told %+v", told)
	}
	n.bringUp(t)
	eventually(t, "it is ready", func() bool { return e.call("GET", "/readyz", clusterKey, "").status == 200 })
	n.link.cut()
	eventually(t, "the store is missed", func() bool { return e.call("GET", "/readyz", "", "").status == 503 })
	for key, detailed := range map[string]bool{"": false, clusterKey + "x": false, clusterKey: true} {
		told := read(e.must(503, "GET", "/readyz", key, "").body)["eventStore"]
		if told.OK || told.Reason != "it does not answer, or the last write to it failed" || (told.Error != "") != detailed {
			t.Errorf("with the key %q: %+v", key, told)
		}
	}
	if told := toOperators()["eventStore"]; told.Error == "" {
		t.Errorf("operators are told %+v", told)
	}
}

// The operators' address has /readyz during the whole start, even before there is a
// node.
func TestReadyz_isOnTheOperatorsListenerFromTheStart(t *testing.T) {
	t.Parallel()
	at, store := freeAddress(t), freeAddress(t)
	var stdout, stderr lockedBuffer
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{
			"serve", "--data-dir=" + dataDirectory(t), "--listen=127.0.0.1:0", "--metrics-listen=" + at, "--log-format=json",
			"--eventstore=esdb://" + store + "?tls=false", "--master-key=" + testMasterKey,
		}, &stdout, &stderr)
	}()
	client := newHTTPClient(t)
	get := func() (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+at+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		a, err := client.Do(req)
		if err != nil {
			return 0, ""
		}
		defer a.Body.Close()
		text, err := io.ReadAll(a.Body)
		if err != nil {
			return 0, ""
		}
		return a.StatusCode, string(text)
	}
	eventually(t, "the start is told", func() bool {
		status, text := get()
		return status == http.StatusServiceUnavailable && strings.Contains(text, `"eventStore":{"ok":false`)
	})
	startStore(t, testBinary(t), dataDirectory(t), store, "LOTLINE_MASTER_KEY="+testMasterKey)
	eventually(t, "it is ready", func() bool { status, _ := get(); return status == http.StatusOK })
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("exit %d: %s", code, &stderr)
	}
}

// An engine prints its address only when it is ready, if nothing is overdue.
func TestReadyz_aNodeIsReadyOnceItSaysWhereItListens(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1).nodes[0]
	if !n.scheduler.CaughtUp() {
		t.Error("it does not know whether anything is overdue")
	}
	for _, check := range n.ready(t.Context()) {
		if check.Err != nil {
			t.Errorf("%s: %v", check.Name, check.Err)
		}
	}
}
