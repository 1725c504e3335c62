package main

import (
	"bytes"
	"context"
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
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

// shortBench are the flags of a run that measures little.
func shortBench(further ...string) []string {
	return append([]string{
		"bench", "--json", "--duration=250ms", "--most=300", "--connections=4", "--queues=3", "--waiting=40", "--consumers=40", "--within=1s",
	}, further...)
}

// benchReportOf is the report in what bench printed.
func benchReportOf(t *testing.T, stdout string) (r benchReport) {
	t.Helper()
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return r
}

// verdicts are those of a scenario, by claim.
func (r *benchReport) verdicts(scenario string) map[string]*benchVerdict {
	all := map[string]*benchVerdict{}
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
			claims := map[string][]string{
				"enter":      {claimWhole, claimOnce, claimAsked, claimOrder, claimPosition, claimTally},
				"enter-many": {claimWhole, claimOnce, claimAsked, claimOrder, claimPosition, claimTally},
				"status":     {claimWhole, claimOnce, claimAsked, claimOrder, claimPosition, claimTally, claimTurn, claimLife, claimRate, claimForward},
				"launch":     {claimWhole, claimOnce, claimAsked, claimOrder, claimPosition, claimTally, claimTurn, claimLife, claimRate, claimEnd},
			}
			for scenario, wanted := range claims {
				for _, claim := range wanted {
					if v := r.verdicts(scenario)[claim]; v == nil || v.Looked == 0 || v.Broken > 0 {
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
				for _, server := range []string{benchLotline, benchBare} {
					for _, paced := range []bool{false, true} {
						if _, ok := r.find(scenario, server, paced); !ok {
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

// countXML counts the elements of a name in what has to be XML.
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

// An interrupt ends it with a report of what was measured by then, and with its
// engine and directory gone.
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
	v := r.verdicts("enter")[claimOnce]
	if !r.Interrupted || len(r.Measures) != 1 || v == nil || v.Looked == 0 || v.Broken > 0 {
		t.Errorf("%s", stdout.String())
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// A proxy that keeps some of what comes in for itself, and says that all is well.
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
	measure := func() (benchReport, int) {
		stdout, stderr, code := testBinary(t).run(t, nil, shortBench("--scenario=enter", "--url="+server.URL, "--secret-key="+key,
			"--publishable-key="+shownPublishable.FindStringSubmatch(e.stdout.String())[1])...)
		if stdout == "" {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		return benchReportOf(t, stdout), code
	}
	if r, code := measure(); code != 0 || r.failed() {
		t.Errorf("exit %d of an honest server: %+v", code, r.verdicts("enter"))
	}
	lies.Store(true)
	r, code := measure()
	if v := r.verdicts("enter")[claimOnce]; code != exitFault || v == nil || v.Broken != 1 {
		t.Errorf("exit %d, %+v", code, v)
	}
}

var shownPublishable = regexp.MustCompile(`publishable key +(pk_live_[A-Z0-9]+)`)

// benchStory is what clients know of a queue, and what its server says.
type benchStory struct {
	bench  *bench
	queue  *benchQueue
	events []map[string]any
	count  int
}

// newBenchStory is a true one: three enter one after another, the first is admitted and
// completes, the second is admitted.
func newBenchStory() *benchStory {
	b := &bench{benchCmd: &benchCmd{}, prefix: "01234567-89ab-4cde-8f01-", to: streams{io.Discard, io.Discard}, report: &benchReport{}}
	s := &benchStory{bench: b, queue: newBenchQueue("queue_1", 1), count: 1}
	s.queue.rate = 60
	s.happens("queue.created", -1, 0)
	for n := range int64(3) {
		s.happens("queue.consumer.entered", n, n)
		s.queue.acknowledged[0] = append(s.queue.acknowledged[0], benchEntry{
			consumer: n, sent: time.Duration(2*n) * time.Second, acknowledged: time.Duration(2*n+1) * time.Second, position: n + 1,
		})
	}
	s.happens("queue.consumer.admitted", 0, 10)
	s.happens("queue.consumer.completed", 0, 11)
	s.happens("queue.consumer.admitted", 1, 12)
	s.queue.end(0, benchStandings["queue.consumer.completed"])
	return s
}

// happens appends an event at a second.
func (s *benchStory) happens(name string, consumer, second int64) {
	data := map[string]any{"at": time.Unix(1_800_000_000+second, 0).UTC().Format("2006-01-02T15:04:05.000Z")}
	if consumer >= 0 {
		data["consumerId"] = s.bench.consumerID(consumer)
	}
	s.events = append(s.events, map[string]any{"type": name, "data": data})
}

// data is that of an event.
func (s *benchStory) data(i int) map[string]any { return s.events[i]["data"].(map[string]any) } //nolint:forcetypeassert // made above

// ServeHTTP tells it as Lotline does.
func (s *benchStory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/events") {
		fmt.Fprintf(w, `{"consumerCount":%d}`, s.count)
		return
	}
	hash := ""
	for i, e := range s.events {
		e["revision"] = i
		previous := hash
		hash = fmt.Sprintf("hash%d", i)
		if e["metadata"] == nil {
			e["metadata"] = map[string]any{"hash": hash, "prevHash": previous}
		}
		line, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "%s\n", line)
	}
}

// Each lie is found, and nothing else.
func TestBench_findsPlantedLies(t *testing.T) {
	t.Parallel()
	const entered, admitted, completed, second = 1, 4, 5, 6
	lies := map[string]struct {
		plant  func(s *benchStory)
		broken []string
	}{
		"none": {func(*benchStory) {}, nil},
		"a lost entry": {func(s *benchStory) {
			s.events = slices.Delete(s.events, entered+2, entered+3)
			s.count = 0
		}, []string{claimOnce}},
		"an entry made twice": {func(s *benchStory) {
			s.events = slices.Insert(s.events, entered+3, s.events[entered+2])
			s.events[entered+3] = map[string]any{"type": "queue.consumer.entered", "data": s.data(entered + 2)}
			s.count = 2
		}, []string{claimOnce, claimAsked}},
		"a stranger": {func(s *benchStory) {
			s.happens("queue.consumer.entered", 77, 20)
			s.count = 2
		}, []string{claimAsked}},
		"a place taken over": {func(s *benchStory) {
			s.events[entered+1], s.events[entered+2] = s.events[entered+2], s.events[entered+1]
			s.data(second)["consumerId"] = s.bench.consumerID(2)
			s.queue.acknowledged[0][1].position, s.queue.acknowledged[0][2].position = 3, 2
		}, []string{claimOrder}},
		"a wrong position": {func(s *benchStory) {
			s.events = s.events[:entered+3]
			s.count = 3
			clear(s.queue.ends)
			s.queue.acknowledged[0][1].position = 1
		}, []string{claimPosition}},
		"out of turn": {func(s *benchStory) {
			s.data(second)["consumerId"] = s.bench.consumerID(2)
		}, []string{claimTurn}},
		"out of turn by hand": {func(s *benchStory) {
			s.data(second)["consumerId"], s.data(second)["byHand"] = s.bench.consumerID(2), true
		}, nil},
		"a double admission": {func(s *benchStory) {
			s.data(second)["consumerId"] = s.bench.consumerID(0)
			s.events[second], s.events[completed] = s.events[completed], s.events[second]
			s.count = 2
		}, []string{claimLife}},
		"too fast":            {func(s *benchStory) { s.queue.rate = 1; s.happens("queue.consumer.admitted", 2, 13); s.count = 0 }, []string{claimRate}},
		"another count":       {func(s *benchStory) { s.count = 2 }, []string{claimTally}},
		"another end":         {func(s *benchStory) { s.queue.end(1, benchStandings["queue.consumer.left"]) }, []string{claimEnd}},
		"a gap in the hashes": {func(s *benchStory) { s.events[admitted]["metadata"] = map[string]any{"hash": "hash4", "prevHash": "x"} }, []string{claimWhole}},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newBenchStory()
			lie.plant(s)
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			s.bench.api = &benchAPI{base: server.URL}
			none := func(context.Context, *benchVerdicts) error { return nil }
			if err := s.bench.check(t.Context(), "story", []*benchQueue{s.queue}, none); err != nil {
				t.Fatal(err)
			}
			var broken []string
			for claim, v := range s.bench.report.verdicts("story") {
				if v.Broken > 0 {
					broken = append(broken, claim)
					t.Logf("%s: %s", claim, v.Example)
				}
			}
			slices.Sort(broken)
			slices.Sort(lie.broken)
			if !slices.Equal(broken, lie.broken) || s.bench.report.failed() != (len(lie.broken) > 0) {
				t.Errorf("found %q, of %q", broken, lie.broken)
			}
		})
	}
}

// With a rate, what a slow answer keeps from being asked in time is late as well.
func TestBenchLoad_aStallIsNotHidden(t *testing.T) {
	t.Parallel()
	for rate, slow := range map[float64]int64{0: 1, 100: 20} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := benchLoad{
					clients: []*benchClient{{}}, rate: rate, lasts: 400 * time.Millisecond, asked: new(atomic.Int64),
					do: func(_ int, n int64) error {
						took := time.Millisecond
						if n == 0 {
							took = 300 * time.Millisecond
						}
						time.Sleep(took) //nolint:forbidigo // synctest
						return nil
					},
				}
				late := int64(0)
				for _, b := range l.run(t.Context()).latencies.Distribution() {
					if b.From >= 100_000 {
						late += b.Count
					}
				}
				if late < slow || rate == 0 && late > slow {
					t.Errorf("%d took over 100 ms, of %d", late, slow)
				}
			})
		})
	}
}

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

// What is not the answer of an API does not count as one, and the next one does.
func TestBenchClient_refusesWhatItCannotRead(t *testing.T) {
	t.Parallel()
	answers := []string{
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
		"SSH-2.0-OpenSSH\r\n",
		"HTTP/1.1 2x0 OK\r\nContent-Length: 1\r\n\r\na",
		"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",
	}
	l, err := listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for _, a := range append(answers, "HTTP/1.1 200 OK\r\ncontent-Length: 3\r\n\r\nabc") {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.ReadFull(c, make([]byte, 4))
			_, _ = io.WriteString(c, a)
			_ = c.Close()
		}
	}()
	c := &benchClient{address: l.Addr().String(), out: []byte("ask\n")}
	defer c.close()
	for _, a := range answers {
		if status, body, err := c.do(); err == nil {
			t.Errorf("%q: %d %s", a, status, body)
		}
	}
	if status, body, err := c.do(); err != nil || status != 200 || string(body) != "abc" {
		t.Errorf("%d %s, %v", status, body, err)
	}
}

// The longest wait is the one that must not be missing.
func TestBench_countsWhatTakesLongerThanItsScale(t *testing.T) {
	t.Parallel()
	h := newLatencies()
	for _, d := range []time.Duration{0, time.Millisecond, time.Hour} {
		record(h, d)
	}
	if h.TotalCount() != 3 || h.Max() < (10*time.Minute).Microseconds() {
		t.Errorf("%d are counted, the longest as %d µs", h.TotalCount(), h.Max())
	}
}

// A million admissions within a minute are looked at once each, not once for each
// that came a minute before: a launch of that size was never done with checking.
func TestBench_checksTheRateOfAMillionAdmissions(t *testing.T) {
	t.Parallel()
	const admissions = 1_000_000
	line := &benchLine{}
	for i := range admissions {
		line.admitted = append(line.admitted, domain.InstantOf(time.UnixMicro(int64(i)*50)))
	}
	for _, c := range []struct{ rate, broken int64 }{
		{admissions, 0},
		{10_000, admissions - 10_167}, // the last 10,167 are as many as there may be
	} {
		v := &benchVerdicts{}
		line.checkRate(c.rate, v)
		if got := v.of(claimRate); got.Looked != admissions || got.Broken != c.broken {
			t.Errorf("with %d a minute: %+v", c.rate, got)
		}
	}
}
