package main

import (
	"os"
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
	n, err := newNode(l, dir, "", zerolog.Nop())
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
