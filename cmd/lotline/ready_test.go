package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/httpapi"
)

// A node that builds its read models says how far it is, and that it is not ready.
func TestServe_saysHowFarItIsWhileItCatchesUp(t *testing.T) {
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

// Each part is named, and the node is not ready before the last of them is.
func TestReadyz_namesEachPartAndAwaitsThemAll(t *testing.T) {
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
	shows("503, eventStore true, histories true, projections false, timers false")
	if !n.catchUp(t.Context()) {
		t.Fatal("it did not catch up")
	}
	shows("503, eventStore true, histories true, projections true, timers false")
	n.keepTime()
	eventually(t, "nothing is overdue", n.scheduler.CaughtUp)
	shows("200, eventStore true, histories true, projections true, timers true")
	n.link.cut()
	eventually(t, "the parts that need the store are named", func() bool {
		return told() == "503, eventStore false, histories true, projections false, timers true"
	})
}
