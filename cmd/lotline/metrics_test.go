package main

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	promodel "github.com/prometheus/common/model"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi"
	"github.com/lotline/lotline/projections"
)

// figures are the metrics of an engine.
type figures map[string]*dto.MetricFamily

func scrape(t testing.TB, url string) figures {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	parser := expfmt.NewTextParser(promodel.LegacyValidation)
	f, err := parser.TextToMetricFamilies(a.Body)
	if err != nil || a.StatusCode != http.StatusOK {
		t.Fatalf("%d, %v", a.StatusCode, err)
	}
	return f
}

// value returns the sum of a metric's series that have these labels. Of a histogram it
// sums the counts. It returns -1 if there is no such series.
func (f figures) value(name string, labels ...string) float64 {
	sum := -1.0
	for _, m := range f[name].GetMetric() {
		has := map[string]string{}
		for _, l := range m.GetLabel() {
			has[l.GetName()] = l.GetValue()
		}
		matches := true
		for i := 0; i < len(labels); i += 2 {
			matches = matches && has[labels[i]] == labels[i+1]
		}
		if matches {
			sum = max(sum, 0) + m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// wants checks values: a metric's name, its labels as name=value, and the value.
func (f figures) wants(t *testing.T, want map[string]float64) {
	t.Helper()
	for series, value := range want {
		parts := strings.FieldsFunc(series, func(r rune) bool { return r == ' ' || r == '=' })
		if got := f.value(parts[0], parts[1:]...); got != value {
			t.Errorf("%s is %v, want %v", series, got, value)
		}
	}
}

func TestMetrics_tellWhatHappened(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	first, second := c.nodes[0].engine(t), c.nodes[1].engine(t)
	key := clusterKey
	before := scrape(t, first.url+"/metrics")
	// Prometheus' own handler answers /metrics, not the API. Its answer follows the
	// document too.
	if vary := first.must(200, "GET", "/metrics", "", "").header.Values("Vary"); !slices.Equal(vary, []string{"Accept", "Accept-Encoding"}) {
		t.Errorf("the figures vary by %q", vary)
	}

	path := first.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`, "Idempotency-Key", "k").header.Get("Location")
	first.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`, "Idempotency-Key", "k")
	first.must(400, "PUT", path, key, `{"maxCapacity":0}`)
	first.must(200, "GET", path, key, "")
	first.must(401, "GET", path, key+"x", "")
	first.must(404, "GET", "/no/such/path", key, "")
	first.must(405, "BREW", path, key, "")
	// The nodes write in turn. Each decides on the state that it knows, which the other has
	// changed, so each loses a race.
	second.must(200, "PUT", path, key, `{"name":"a"}`)
	first.must(200, "PUT", path, key, `{"name":"b"}`)
	second.must(200, "PUT", path, key, `{"name":"c"}`)
	// A timer opens a draw.
	draw := first.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","winnerCount":1,"openAt":%q,"drawAt":%q}`, in(100), in(3_600_000))).header.Get("Location")
	eventually(t, "it opened", func() bool { return first.must(200, "GET", draw, key, "").object(t)["status"] == "OPEN" })
	bad := first.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	appendImpossible(t, officialClient(t, c.dir.path), filepath.Base(bad))
	var after figures
	eventually(t, "all is told", func() bool {
		after = scrape(t, first.url+"/metrics")
		return after.value("lotline_quarantined_streams") == 1 && after.value("lotline_projection_lag_events") == 0 &&
			after.value("lotline_wake_lateness_seconds") == 1
	})
	after.wants(t, map[string]float64{
		"lotline_http_requests_total route=/api/v1/queues method=POST status=201":       3,
		"lotline_http_requests_total route=/api/v1/queues/{id} method=PUT status=400":   1,
		"lotline_http_requests_total route=/api/v1/queues/{id} method=PUT status=200":   1,
		"lotline_http_requests_total route=/api/v1/queues/{id} method=GET status=200":   1,
		"lotline_http_requests_total route=/api/v1/queues/{id} method=GET status=401":   1,
		"lotline_http_requests_total route=/api/v1/queues/{id} method=other status=405": 1,
		"lotline_http_requests_total route=other method=GET status=404":                 1,
		"lotline_http_request_duration_seconds route=/api/v1/queues":                    3,
		"lotline_commands_total kind=queue command=Create outcome=accepted":             2,
		"lotline_commands_total kind=queue command=Create outcome=replayed":             1,
		"lotline_commands_total kind=queue command=Update outcome=refused":              1,
		"lotline_commands_total kind=queue command=Update outcome=accepted":             1,
		"lotline_commands_total kind=draw command=Create outcome=accepted":              1,
		"lotline_command_duration_seconds kind=queue":                                   5,
		"lotline_ready part=eventStore":                                                 1,
		"lotline_ready part=projections":                                                1,
		"lotline_ready part=timers":                                                     1,
		"lotline_projection_lag_seconds":                                                0,
		"lotline_wake_overdue_seconds":                                                  0,
		"lotline_commands_waiting":                                                      0,
		"lotline_relay_waiting_events":                                                  0,
		"lotline_relay_dropped_events_total":                                            0,
		"lotline_views_write_failures_total":                                            0,
	})
	for name, least := range map[string]float64{
		"lotline_projection_delay_seconds": 8, "lotline_writers": 2, "go_goroutines": 1, "go_build_info": 1, "process_start_time_seconds": 1,
	} {
		if got := after.value(name); got < least {
			t.Errorf("%s is %v", name, got)
		}
	}
	if n := after.value("lotline_appends_total", "outcome", "lost_race") - max(0, before.value("lotline_appends_total", "outcome", "lost_race")); n < 1 {
		t.Errorf("the first node lost %v races", n)
	}
	if n := scrape(t, second.url+"/metrics").value("lotline_appends_total", "outcome", "lost_race"); n < 1 {
		t.Errorf("the second node lost %v races", n)
	}

	families := make([]*dto.MetricFamily, 0, len(after))
	for name, family := range after {
		if strings.HasPrefix(name, "lotline_") {
			families = append(families, family)
		}
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v: %v", problems, err)
	}
	// No label has a value that a client chose.
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, l := range m.GetLabel() {
				for _, part := range []string{filepath.Base(path), filepath.Base(draw), "such", "BREW", "org_", "key_"} {
					if strings.Contains(l.GetValue(), part) {
						t.Errorf("%s has %s=%q", family.GetName(), l.GetName(), l.GetValue())
					}
				}
			}
		}
	}
}

// Each command on a queue is counted under its own name, and so are the commands of the
// timers. The lateness of an admission is not counted as that of a deadline. The opening is
// a deadline, and a timer carries it out, because no request comes earlier.
func TestMetrics_countWhatIsDoneInAQueue(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1).nodes[0]
	e := n.engine(t)
	path := e.must(201, "POST", "/api/v1/queues", clusterKey, body(`{"sequenceId":"s","openAt":%q,"admissionRate":6000}`, in(200))).header.Get("Location")
	eventually(t, "the clock opens it", func() bool {
		return e.must(200, "GET", path, clusterKey, "").object(t)["status"] == "OPEN"
	})
	as := func(consumer string) (name, id string) { return "X-Consumer-Id", consumer }
	status := func(consumer string) any {
		name, id := as(consumer)
		return e.must(200, "GET", path+"/status", clusterKey, "", name, id).object(t)["status"]
	}
	for _, consumer := range []string{"a", "b"} {
		name, id := as(consumer)
		e.must(200, "POST", path+"/enter", clusterKey, "", name, id)
		eventually(t, "the clock admits "+consumer, func() bool { return status(consumer) == "ADMITTED" })
	}
	e.must(200, "POST", path+"/admit", clusterKey, `{"consumerId":"a"}`)
	e.must(404, "POST", path+"/admit", clusterKey, `{"consumerId":"nobody"}`)
	e.must(200, "POST", path+"/complete", clusterKey, `{"consumerId":"a"}`)
	e.must(409, "POST", path+"/deny", clusterKey, `{"consumerId":"a","reason":"ADMIN_ACTION"}`)
	name, id := as("b")
	e.must(200, "POST", path+"/leave", clusterKey, "", name, id)
	var f figures
	eventually(t, "all is shown", func() bool {
		f = scrape(t, n.url+"/metrics")
		return f.value("lotline_projection_lag_events") == 0
	})
	f.wants(t, map[string]float64{
		"lotline_commands_total kind=queue command=Enter outcome=accepted":                   2,
		"lotline_commands_total kind=queue command=Admit outcome=accepted":                   1,
		"lotline_commands_total kind=queue command=Admit outcome=refused":                    1,
		"lotline_commands_total kind=queue command=Complete outcome=accepted":                1,
		"lotline_commands_total kind=queue command=Deny outcome=refused":                     1,
		"lotline_commands_total kind=queue command=Leave outcome=accepted":                   1,
		"lotline_http_requests_total route=/api/v1/queues/{id}/enter method=POST status=200": 2,
		"lotline_http_requests_total route=/api/v1/queues/{id}/admit method=POST status=404": 1,
		"lotline_wake_lateness_seconds step=deadline":                                        1,
	})
	if steps := f.value("lotline_commands_total", "kind", "queue", "command", "Advance", "outcome", "accepted"); steps < 1 {
		t.Errorf("the clock is counted %v times", steps)
	}
}

func TestMetrics_showHowFarCatchingUpIs(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	c.nodes[0].engine(t).must(201, "POST", "/api/v1/queues", clusterKey, `{"sequenceId":"s"}`)
	late := c.openNode(t, lockedDir(t))
	f := scrape(t, late.url+"/metrics")
	// The five events are of the signing key, the organization, its two API keys and the
	// queue.
	f.wants(t, map[string]float64{"lotline_projection_lag_events": 5, "lotline_ready part=projections": 0, "lotline_ready part=eventStore": 1})
	if seconds := f.value("lotline_projection_lag_seconds"); seconds <= 0 {
		t.Errorf("it is %v s behind", seconds)
	}
	late.bringUp(t)
	eventually(t, "it is level", func() bool {
		f := scrape(t, late.url+"/metrics")
		return f.value("lotline_projection_lag_events") == 0 && f.value("lotline_projection_lag_seconds") == 0 && f.value("lotline_ready", "part", "projections") == 1
	})
}

func TestMetrics_showWhatIsOverdue(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 0)
	n := c.openNode(t, lockedDir(t))
	if !n.catchUp(t.Context()) {
		t.Fatal(t.Context().Err())
	}
	if _, err := (&serveCmd{SecretKey: clusterKey}).provision(t.Context(), n.node, io.Discard); err != nil {
		t.Fatal(err)
	}
	// The timers do not run yet.
	n.engine(t).must(201, "POST", "/api/v1/queues", clusterKey, body(`{"sequenceId":"s","openAt":%q}`, in(50)))
	eventually(t, "it is overdue", func() bool { return scrape(t, n.url+"/metrics").value("lotline_wake_overdue_seconds") > 0 })
	n.startTimers()
	eventually(t, "it is done", func() bool {
		f := scrape(t, n.url+"/metrics")
		return f.value("lotline_wake_overdue_seconds") == 0 && f.value("lotline_wake_lateness_seconds") == 1
	})
}

// lateness returns how many steps of the timers were counted, and the sum of their
// lateness in seconds.
func lateness(f figures, step string) (n uint64, sum float64) {
	for _, m := range f["lotline_wake_lateness_seconds"].GetMetric() {
		for _, l := range m.GetLabel() {
			if l.GetName() == "step" && l.GetValue() == step {
				n, sum = m.GetHistogram().GetSampleCount(), m.GetHistogram().GetSampleSum()
			}
		}
	}
	return n, sum
}

func TestMetrics_aLateAdmissionIsShownAsLate(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 1)
	n := c.nodes[0]
	n.stopScheduler()
	e := n.engine(t)
	path := e.must(201, "POST", "/api/v1/queues", clusterKey, body(`{"sequenceId":"s","openAt":%q,"admissionRate":600}`, in(0))).header.Get("Location")
	for _, consumer := range []string{"a", "b", "c"} {
		e.must(200, "POST", path+"/enter", clusterKey, "", "X-Consumer-Id", consumer)
	}
	eventually(t, "an admission is overdue", func() bool { return scrape(t, n.url+"/metrics").value("lotline_wake_overdue_seconds") > 0.5 })
	n.startTimers()
	var f figures
	eventually(t, "all are admitted", func() bool {
		f = scrape(t, n.url+"/metrics")
		return f.value("lotline_commands_waiting") == 0 && e.must(200, "GET", path+"/status", clusterKey, "", "X-Consumer-Id", "c").object(t)["status"] == "ADMITTED"
	})
	f = scrape(t, n.url+"/metrics")
	if count, sum := lateness(f, "admission"); count == 0 || sum < 0.5 {
		t.Errorf("%d admissions are late by %v s together", count, sum)
	}
	if count, _ := lateness(f, "deadline"); count != 0 {
		t.Errorf("%d deadlines are counted", count)
	}
}

// The lateness of an admission counts from the stream's wake for it, whatever events the
// timers append before it. Consumers that are admitted together have the same lateness.
func TestMetrics_theLatenessOfAnAdmission(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		first, stop := b.node(level, false)
		defer stop()
		queue := b.create(first, domain.KindQueue, `{"sequenceId":"s","openAt":%q,"admissionRate":600,"sessionDurationSeconds":5}`, clockNow())
		for i := range 16 {
			b.handle(first, queue, domain.Enter{ConsumerID: fmt.Sprint("c-", i)})
		}
		b.handle(first, queue, domain.Admit{ConsumerID: "c-15"})
		elapse(30 * time.Second) // an outage, in which a session ends
		_, stop = b.node(level, true)
		defer stop()
		elapse(2 * time.Second)

		views, err := projections.Open(filepath.Join(b.dir, "views"), projections.Origin{ID: "log", Head: domain.Position{Commit: 1 << 60}, Log: b}, b.keys, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		defer views.Close()
		n := &node{observer: newObserver(nil), log: &log{clock: walltime.New(clock)}}
		n.caughtUp.Store(true)
		follower := observedViews{views, n}
		for range 2 { // an event that is followed twice counts once
			for _, r := range b.all {
				follower.Follow(r)
			}
		}
		families, err := n.observer.metrics.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		f := figures{}
		for _, family := range families {
			f[family.GetName()] = family
		}
		// Ten are admitted at once, 29.9 s late. Five follow, one every 100 ms.
		if count, sum := lateness(f, "admission"); count != 15 || math.Abs(sum-299) > 1e-6 {
			t.Errorf("%d admissions are late by %v s together, want 15 by 299", count, sum)
		}
		// One session ended 25 s late.
		if count, sum := lateness(f, "deadline"); count != 1 || math.Abs(sum-25) > 1e-6 {
			t.Errorf("%d deadlines are late by %v s together, want 1 by 25", count, sum)
		}
	})
}

func TestMetrics_tellOfAStoreThatIsGone(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1).nodes[0]
	n.link.cut()
	eventually(t, "it is told", func() bool {
		f := scrape(t, n.url+"/metrics")
		return f.value("lotline_ready", "part", "eventStore") == 0 && f.value("lotline_projection_lag_events") == -1
	})
}

func TestMetrics_tellHowSendingToTheBusGoes(t *testing.T) {
	t.Parallel()
	e, bus := withBroker(t)
	e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s","openAt":"2198-01-01T00:00:00Z"}`)
	var f figures
	reaches := func(what string, reached func() bool) {
		t.Helper()
		eventually(t, what, func() bool {
			f = scrape(t, e.url+"/metrics")
			return reached()
		})
	}
	sent := func(messages float64) func() bool {
		return func() bool {
			return f.value("lotline_bus_messages_total") == messages && f.value("lotline_bus_lag_seconds") == 0 &&
				f.value("lotline_bus_sending") == 1 && f.value("lotline_ready", "part", "bus") == 1
		}
	}
	reaches("all three are sent", sent(3))
	bus.kill()
	e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`)
	reaches("one waits", func() bool {
		return f.value("lotline_bus_lag_seconds") > 0 && f.value("lotline_ready", "part", "bus") == 0
	})
	if got := f.value("lotline_bus_messages_total"); got != 3 {
		t.Errorf("%v messages are sent to nobody", got)
	}
	bus.start()
	reaches("it is sent", sent(4))
	if got := scrape(t, newCluster(t, 1).nodes[0].url+"/metrics").value("lotline_bus_sending"); got != -1 {
		t.Errorf("without a bus it is %v", got)
	}
}

func TestMetrics_haveAListenerOfTheirOwn(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t), operatorsListen)
	e.must(404, "GET", "/metrics", "", "")
	apart := e.operators()
	scrape(t, apart.url+"/metrics").wants(t, map[string]float64{"lotline_ready part=eventStore": 1})
	apart.must(200, "GET", "/readyz", "", "")
	apart.must(404, "GET", "/%6Detrics", "", "")
	apart.must(404, "GET", "/livez", "", "")
	apart.must(405, "POST", "/metrics", "", "{}")
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, e.stderr)
	}
}

// metricNames returns the names of all series. Each histogram has three.
func metricNames(t *testing.T) map[string]bool {
	t.Helper()
	c := newClusterStore(t)
	c.options.broker = "nats://" + freeAddress(t) // no broker listens there
	n := c.startNode(t)
	n.engine(t).must(200, "GET", "/livez", "", "")
	families, err := n.observer.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
		if f.GetType() == dto.MetricType_HISTOGRAM {
			for _, series := range []string{"_bucket", "_sum", "_count"} {
				names[f.GetName()+series] = true
			}
		}
	}
	return names
}

var metricName = regexp.MustCompile(`\b(?:lotline|go|process|promhttp)_[a-z_]+\b`)

func TestMetrics_dashboardAlarmsAndPageNameWhatExists(t *testing.T) {
	t.Parallel()
	names := metricNames(t)
	used := map[string]bool{}
	check := func(where, text string) {
		t.Helper()
		for _, name := range metricName.FindAllString(text, -1) {
			used[name] = true
			if !names[name] {
				t.Errorf("%s names %s, which does not exist", where, name)
			}
		}
	}
	panels := dashboard(t)
	for _, p := range panels {
		for _, target := range p.Targets {
			check("the panel "+p.Title, target.Expr)
		}
	}
	for _, a := range alarms(t) {
		check("the alarm "+a.Alert, a.Expr)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	check("the page", strings.NewReplacer("`go_…`", "", "`process_…`", "").Replace(string(page)))
	for name := range names {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_bucket"), "_sum"), "_count")
		if strings.HasPrefix(name, "lotline_") && !strings.Contains(string(page), "`"+base+"`") && !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("the page does not tell of %s", base)
		}
		if strings.HasPrefix(name, "lotline_") && !used[base] && !used[name] {
			t.Errorf("nothing shows %s", base)
		}
	}
}

// BenchmarkObserver measures what the metrics add to the cost of every request and every
// command.
func BenchmarkObserver(b *testing.B) {
	o := &observer{metrics: newMetrics()}
	r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/api/v1/queues/x", http.NoBody)
	b.Run("request", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			o.Finished(o.Received(r), httpapi.Answer{Route: "/api/v1/queues/{id}", Status: 200, Took: 50 * time.Microsecond})
		}
	})
	b.Run("command", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			ctx, _ := o.Begun(b.Context(), domain.KindQueue, domain.Advance{})
			o.Ended(ctx, commands.Outcome{Kind: domain.KindQueue, Command: domain.Advance{}, Took: time.Millisecond})
		}
	})
}

// A browser does not cache the metrics and does not guess their type, on either address.
func TestMetrics_areNotCachedAndNotSniffed(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	newMetrics().handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	if h := w.Header(); w.Code != http.StatusOK || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %v", w.Code, h)
	}
}
