//go:build external

package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lotline/lotline/cmd/lotline/bench"
	"github.com/lotline/lotline/cmd/lotline/claims"
)

// LOTLINE_TEST_POSTGRES is a server on which a schema may be made.
func TestBenchPostgres_isMeasured(t *testing.T) {
	t.Parallel()
	url := os.Getenv("LOTLINE_TEST_POSTGRES")
	if url == "" {
		t.Fatal("LOTLINE_TEST_POSTGRES=postgres://… is missing")
	}
	stdout, stderr, code := testBinary(t).run(t, nil,
		shortBench("--scenario=enter", "--dir="+filepath.Dir(dataDirectory(t)), "--postgres="+url)...)
	if code != 0 {
		t.Fatalf("exit %d: %s%s", code, stdout, stderr)
	}
	r := benchReportOf(t, stdout)
	m, ok := r.Find("enter", bench.Table, false)
	if !ok || m.Requests == 0 || len(m.Errors) > 0 {
		t.Errorf("%+v", m)
	}
	if v := verdictsOn(r, "enter")[claims.Table]; v == nil || v.Looked != 1 || v.Broken > 0 {
		t.Errorf("%+v", v)
	}
	if len(r.SQL) != 2 || r.Postgres == "" {
		t.Errorf("%q, %q", r.SQL, r.Postgres)
	}
}
