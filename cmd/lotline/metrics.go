package main

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"reflect"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi"
)

// metrics are a node's metrics for Prometheus. Each label has a bounded set of values:
// no label holds an id or a path that a client chose.
type metrics struct {
	registry *prometheus.Registry
	node     *nodeCollector
	requests *labelCache[requestKey, counted]
	commands *labelCache[commandKey, counted]
	appends  *labelCache[string, prometheus.Counter]

	appendTook, appendCommands, appendEvents prometheus.Observer
	projectionDelay                          prometheus.Observer
	admissionLateness, deadlineLateness      prometheus.Observer

	step step // the last step of the timers; owned by the goroutine that follows the log
}

// step is the group of events that one wake of the timers appended to a stream.
type step struct {
	stream   string
	revision domain.Revision // of the step's last event so far
	due      domain.Instant
}

type requestKey struct {
	route, method string
	status        int
}

type commandKey struct {
	kind    domain.Kind
	command reflect.Type
	outcome string
}

// counted is a counter of operations and a histogram of how long they took.
type counted struct {
	count prometheus.Counter
	took  prometheus.Observer
}

// Buckets of histograms.
var (
	// Seconds: from a read in memory to a command that timed out.
	durations = []float64{0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
	// Events or commands in one append.
	sizes = []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000}
)

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), node: &nodeCollector{}}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewBuildInfoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.node)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, labels)
		m.registry.MustRegister(v)
		return v
	}

	zones := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lotline_zoneinfo_info", Help: "Always 1; the label is the edition of the time zones by which local times are read."}, []string{"edition"})
	m.registry.MustRegister(zones)
	zones.WithLabelValues(domain.CurrentZones().Edition()).Set(1)
	requests := counter("lotline_http_requests_total", "Requests that were answered.", "route", "method", "status")
	requestsTook := histogram("lotline_http_request_duration_seconds", "Seconds from the arrival of a request to the end of its answer.", durations, "route")
	m.requests = newLabelCache(func(k requestKey) counted {
		return counted{requests.WithLabelValues(k.route, k.method, strconv.Itoa(k.status)), requestsTook.WithLabelValues(k.route)}
	})
	commands := counter("lotline_commands_total", "Commands that have an outcome.", "kind", "command", "outcome")
	commandsTook := histogram("lotline_command_duration_seconds", "Seconds from the arrival of a command to its outcome, waiting included.", durations, "kind")
	m.commands = newLabelCache(func(k commandKey) counted {
		return counted{commands.WithLabelValues(string(k.kind), k.command.Name(), k.outcome), commandsTook.WithLabelValues(string(k.kind))}
	})
	appends := counter("lotline_appends_total", "Appends to the log.", "outcome")
	m.appends = newLabelCache(func(outcome string) prometheus.Counter { return appends.WithLabelValues(outcome) })
	m.appendTook = histogram("lotline_append_duration_seconds", "Seconds that the store took for an append.", durations).WithLabelValues()
	m.appendCommands = histogram("lotline_append_commands", "Commands in one append.", sizes).WithLabelValues()
	m.appendEvents = histogram("lotline_append_events", "Events in one append.", sizes).WithLabelValues()
	m.projectionDelay = histogram("lotline_projection_delay_seconds", "Seconds from the recording of an event until the read models show it.", durations).WithLabelValues()
	lateness := histogram("lotline_wake_lateness_seconds", "Seconds from the time at which a step was due to its recording.", append(durations, 60, 600), "step")
	m.admissionLateness, m.deadlineLateness = lateness.WithLabelValues("admission"), lateness.WithLabelValues("deadline")
	return m
}

// handler serves the metrics to Prometheus.
func (m *metrics) handler() http.Handler {
	figures := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		figures.ServeHTTP(w, r)
	})
}

// maxScrapes limits how many scrapes run at once. Without a separate address for
// operators, anybody can scrape.
const maxScrapes = 8

func (m *metrics) finished(method string, a httpapi.Answer) {
	c := m.requests.of(requestKey{cmp.Or(a.Route, "other"), method, a.Status})
	c.count.Inc()
	c.took.Observe(a.Took.Seconds())
}

func (m *metrics) answered(a commands.Outcome) {
	c := m.commands.of(commandKey{a.Kind, reflect.TypeOf(a.Command), commandOutcome(a)})
	c.count.Inc()
	c.took.Observe(a.Took.Seconds())
}

func (m *metrics) appended(a commands.Append) {
	m.appends.of(appendOutcome(a.Err)).Inc()
	m.appendTook.Observe(a.Took.Seconds())
	m.appendCommands.Observe(float64(len(a.Commands)))
	m.appendEvents.Observe(float64(a.Events))
}

// followed records that the read models have applied an event at now. before is the
// stream's wake before the event. It is used only if the timers caused the event.
func (m *metrics) followed(r *domain.Recorded, before domain.Wake, now time.Time) {
	m.projectionDelay.Observe(max(0, now.Sub(r.RecordedAt).Seconds()))
	if r.Metadata.Actor != domain.ActorClock || r.Event == nil || before.Revision != r.Revision-1 {
		return
	}
	if !before.Unfinished || m.step.stream != r.Stream || m.step.revision != before.Revision {
		m.step = step{stream: r.Stream, due: before.At}
	}
	m.step.revision = r.Revision
	// Most events have the time at which they were due. Some have the time at which they
	// were decided. Those were due at the stream's wake, like the whole step.
	due, lateness := r.Event.When(), m.deadlineLateness
	switch r.Event.(type) {
	case domain.ConsumerAdmitted:
		// Admissions have their own label: thousands of them would hide a late opening.
		due, lateness = m.step.due, m.admissionLateness
	case *domain.SigningKeyCreated:
		due = m.step.due
	}
	if due != 0 {
		lateness.Observe(max(0, r.RecordedAt.Sub(due.Time()).Seconds()))
	}
}

// commandOutcome returns the label value for how a command ended.
func commandOutcome(a commands.Outcome) string {
	if a.Replayed && a.Err == nil {
		return "replayed"
	}
	refusal, refused := errors.AsType[*domain.Error](a.Err)
	_, broken := errors.AsType[*domain.HistoryError](a.Err)
	switch {
	case a.Err == nil:
		return "accepted"
	case refused && refusal.Code == domain.ChangedByAnother:
		return "lost_race"
	case refused:
		return "refused"
	case broken:
		return "quarantined"
	case errors.Is(a.Err, domain.ErrOutcomeUnknown), errors.Is(a.Err, context.DeadlineExceeded), errors.Is(a.Err, context.Canceled):
		return "unknown"
	case errors.Is(a.Err, domain.ErrUnavailable), errors.Is(a.Err, commands.ErrClosed):
		return "unavailable"
	}
	return "fault"
}

// appendOutcome returns the label value for how an append ended.
func appendOutcome(err error) string {
	_, broken := errors.AsType[*domain.HistoryError](err)
	switch {
	case err == nil:
		return "written"
	case errors.Is(err, domain.ErrWrongRevision):
		return "lost_race"
	case broken:
		return "quarantined"
	case errors.Is(err, domain.ErrUnavailable):
		return "unavailable"
	}
	return "unknown"
}

// knownMethod returns a request's method, or "other" for methods that are not listed: a
// client can send any text as a method.
func knownMethod(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// labelCache keeps the members of a metric vector by a key of type K. A lookup here
// costs less than one by label values in the vector.
type labelCache[K comparable, M any] struct {
	create func(K) M
	mu     sync.RWMutex // guards made
	made   map[K]M
}

func newLabelCache[K comparable, M any](create func(K) M) *labelCache[K, M] {
	return &labelCache[K, M]{create: create, made: map[K]M{}}
}

func (c *labelCache[K, M]) of(k K) M {
	c.mu.RLock()
	m, ok := c.made[k]
	c.mu.RUnlock()
	if ok {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// If another goroutine was faster, the vector returns the same member again.
	m = c.create(k)
	c.made[k] = m
	return m
}
