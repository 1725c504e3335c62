package main

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/lotline/lotline/cmd/lotline/bench"
	"github.com/lotline/lotline/cmd/lotline/claims"
)

// shortBench returns the arguments of a run that measures little.
func shortBench(further ...string) []string {
	return append([]string{
		"bench", "--json", "--duration=250ms", "--most=300", "--connections=4", "--queues=3", "--waiting=40", "--consumers=40", "--within=1s",
	}, further...)
}

// benchReportOf decodes the report that bench printed.
func benchReportOf(t *testing.T, stdout string) (r bench.Report) {
	t.Helper()
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return r
}

// verdictsOn returns the verdicts on a scenario by claim.
func verdictsOn(r bench.Report, scenario string) map[string]*claims.Verdict {
	all := map[string]*claims.Verdict{}
	for _, c := range r.Checks {
		for _, v := range c.Verdicts {
			if c.Scenario == scenario {
				all[v.Claim] = v
			}
		}
	}
	return all
}

func TestBench_measuresChecksAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"--tokens=false", "--tokens"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Dir(dataDirectory(t))
			svg := filepath.Join(t.TempDir(), "out.svg")
			stdout, stderr, code := testBinary(t).run(t, nil, shortBench("--baseline", "--dir="+dir, "--svg="+svg, mode)...)
			if code != 0 {
				t.Fatalf("exit %d: %s%s", code, stdout, stderr)
			}
			r := benchReportOf(t, stdout)
			all := map[string][]string{
				"enter":      {claims.Whole, claims.Once, claims.Asked, claims.Order, claims.Position, claims.Tally},
				"enter-many": {claims.Whole, claims.Once, claims.Asked, claims.Order, claims.Position, claims.Tally},
				"status":     {claims.Whole, claims.Once, claims.Asked, claims.Order, claims.Position, claims.Tally, claims.Turn, claims.Life, claims.Rate, claims.Forward},
				"launch":     {claims.Whole, claims.Once, claims.Asked, claims.Order, claims.Position, claims.Tally, claims.Turn, claims.Life, claims.Rate, claims.End},
			}
			for scenario, wanted := range all {
				for _, claim := range wanted {
					if v := verdictsOn(r, scenario)[claim]; v == nil || v.Looked == 0 || v.Broken > 0 {
						t.Errorf("%s: %q: %+v", scenario, claim, v)
					}
				}
			}
			for _, m := range r.Measures {
				if m.Requests == 0 || len(m.Errors) > 0 || m.PerSecond <= 0 || m.P50 <= 0 || m.P99 < m.P50 || m.Max < m.P99 {
					t.Errorf("%+v", m)
				}
			}
			for _, scenario := range []string{"enter", "enter-many", "status"} {
				for _, server := range []string{bench.Lotline, bench.Bare} {
					for _, paced := range []bool{false, true} {
						if _, ok := r.Find(scenario, server, paced); !ok {
							t.Errorf("%s of %s was not measured, paced: %t", scenario, server, paced)
						}
					}
				}
			}
			if len(r.Ratios) != 3 {
				t.Errorf("%+v", r.Ratios)
			}
			if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
				t.Errorf("%v, %v", left, err)
			}
			drawn, err := os.ReadFile(svg)
			if err != nil {
				t.Fatal(err)
			}
			if n := countXML(t, drawn, "polyline"); n != len(r.Measures) {
				t.Errorf("%d lines are drawn, of %d", n, len(r.Measures))
			}
		})
	}
}

// countXML counts the elements with a name in an XML document.
func countXML(t *testing.T, text []byte, name string) (n int) {
	t.Helper()
	for d := xml.NewDecoder(bytes.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return n
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == name {
			n++
		}
	}
}

// An interrupt ends bench. It reports what it measured by then and leaves no engine and
// no directory behind.
func TestBench_anInterruptStillReports(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(dataDirectory(t))
	c := testBinary(t).command(t.Context(), nil, "bench", "--json", "--scenario=enter", "--duration=10m", "--connections=4", "--dir="+dir)
	var stdout bytes.Buffer
	stderr := &lockedBuffer{}
	c.Stdout, c.Stderr = &stdout, stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it measures", func() bool { return strings.Contains(stderr.String(), "round 1") || c.ProcessState != nil })
	if err := c.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(); err != nil {
		t.Fatalf("%v: %s", err, stderr)
	}
	r := benchReportOf(t, stdout.String())
	v := verdictsOn(r, "enter")[claims.Once]
	if !r.Interrupted || len(r.Measures) != 1 || v == nil || v.Looked == 0 || v.Broken > 0 {
		t.Errorf("%s", stdout.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// bench finds a proxy that answers one of the requests itself instead of passing it on.
func TestBench_findsAServerThatLosesEntries(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t))
	key := e.secretKey()
	to, err := url.Parse(e.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(to)
	var entries atomic.Int64
	var lies atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if lies.Load() && strings.HasSuffix(r.URL.Path, "/enter") && entries.Add(1) == 20 {
			fmt.Fprintf(w, `{"consumerId":%q,"status":"QUEUED","position":20,"pollAfterMs":1000}`, r.Header.Get("X-Consumer-Id"))
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	measure := func() (bench.Report, int) {
		stdout, stderr, code := testBinary(t).run(t, nil, shortBench("--scenario=enter", "--url="+server.URL, "--secret-key="+key,
			"--publishable-key="+shownPublishable.FindStringSubmatch(e.stdout.String())[1])...)
		if stdout == "" {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		return benchReportOf(t, stdout), code
	}
	if r, code := measure(); code != 0 || r.Failed() {
		t.Errorf("exit %d of an honest server: %+v", code, verdictsOn(r, "enter"))
	}
	lies.Store(true)
	r, code := measure()
	if v := verdictsOn(r, "enter")[claims.Once]; code != exitFault || v == nil || v.Broken != 1 {
		t.Errorf("exit %d, %+v", code, v)
	}
}

var shownPublishable = regexp.MustCompile(`publishable key +(pk_live_[A-Z0-9]+)`)

func TestBench_badFlagsAreOneLineAndExitCode2(t *testing.T) {
	t.Parallel()
	for _, flags := range [][]string{
		{"--connections=0"},
		{"--duration=0s"},
		{"--waiting=3"},
		{"--most=-1"},
		{"--scenario=dance"},
		{"--url=http://localhost:1"},
		{"--url=https://localhost:1", "--secret-key=sk", "--publishable-key=pk"},
		{"--tokens", "--postgres=postgres://localhost:1/x"},
		{"--dir=/nowhere/at/all"},
	} {
		_, stderr, code := testBinary(t).run(t, nil, append([]string{"bench"}, flags...)...)
		if code != exitConfig || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, %s", flags, code, stderr)
		}
	}
}
