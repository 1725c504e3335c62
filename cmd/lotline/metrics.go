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

// metrics are a node's figures, as Prometheus collects them. The values of labels
// are from sets that are bounded by the program: no id and no path of a client.
type metrics struct {
	registry *prometheus.Registry
	node     *nodeCollector
	requests *children[requestKey, counted]
	commands *children[commandKey, counted]
	appends  *children[string, prometheus.Counter]

	appendTook, appendCommands, appendEvents prometheus.Observer
	projectionDelay                          prometheus.Observer
	admissionLateness, deadlineLateness      prometheus.Observer

	step step // the last step of the clock; owned by the goroutine that follows the log
}

// step is something that the clock did to a stream.
type step struct {
	stream   string
	revision domain.Revision // of its last event so far
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

// counted is a counter and how long what it counts took.
type counted struct {
	count prometheus.Counter
	took  prometheus.Observer
}

// Bounds of histograms.
var (
	// From a read in memory to a command that ran out of time.
	durations = []float64{0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
	// What one append may hold.
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

	zones := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "lotline_zoneinfo_info", Help: "1, with the edition of the time zones that local times are read by."}, []string{"edition"})
	m.registry.MustRegister(zones)
	zones.WithLabelValues(domain.CurrentZones().Edition()).Set(1)
	requests := counter("lotline_http_requests_total", "Requests that were answered.", "route", "method", "status")
	requestsTook := histogram("lotline_http_request_duration_seconds", "From the head of a request to its answer.", durations, "route")
	m.requests = newChildren(func(k requestKey) counted {
		return counted{requests.WithLabelValues(k.route, k.method, strconv.Itoa(k.status)), requestsTook.WithLabelValues(k.route)}
	})
	commands := counter("lotline_commands_total", "Commands that have an outcome.", "kind", "command", "outcome")
	commandsTook := histogram("lotline_command_duration_seconds", "From a command to its outcome, waiting included.", durations, "kind")
	m.commands = newChildren(func(k commandKey) counted {
		return counted{commands.WithLabelValues(string(k.kind), k.command.Name(), k.outcome), commandsTook.WithLabelValues(string(k.kind))}
	})
	appends := counter("lotline_appends_total", "Appends to the log.", "outcome")
	m.appends = newChildren(func(outcome string) prometheus.Counter { return appends.WithLabelValues(outcome) })
	m.appendTook = histogram("lotline_append_duration_seconds", "How long the store took for an append.", durations).WithLabelValues()
	m.appendCommands = histogram("lotline_append_commands", "Commands that one append was for.", sizes).WithLabelValues()
	m.appendEvents = histogram("lotline_append_events", "Events in one append.", sizes).WithLabelValues()
	m.projectionDelay = histogram("lotline_projection_delay_seconds", "From an event's record to the read models that show it.", durations).WithLabelValues()
	lateness := histogram("lotline_wake_lateness_seconds", "By how much a step of the clock was recorded after it was due.", append(durations, 60, 600), "step")
	m.admissionLateness, m.deadlineLateness = lateness.WithLabelValues("admission"), lateness.WithLabelValues("deadline")
	return m
}

// handler answers those who collect the figures.
func (m *metrics) handler() http.Handler {
	figures := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		figures.ServeHTTP(w, r)
	})
}

// maxScrapes is how many may collect at once. Everybody may, where the figures have
// no listener of their own.
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

// followed counts an event that the read models show since now. before is the wake of its
// stream before the event; it is only looked at when the clock caused the event.
func (m *metrics) followed(r *domain.Recorded, before domain.Wake, now time.Time) {
	m.projectionDelay.Observe(max(0, now.Sub(r.RecordedAt).Seconds()))
	if r.Metadata.Actor != domain.ActorClock || r.Event == nil || before.Revision != r.Revision-1 {
		return
	}
	if !before.Unfinished || m.step.stream != r.Stream || m.step.revision != before.Revision {
		m.step = step{stream: r.Stream, due: before.At}
	}
	m.step.revision = r.Revision
	// Most events are dated when they were due. Some are dated when they happen: they were
	// due when the stream was to be woken, and so were the others of the same step.
	due, lateness := r.Event.When(), m.deadlineLateness
	switch r.Event.(type) {
	case domain.ConsumerAdmitted:
		// Apart from the others: thousands of them would hide an opening that is late.
		due, lateness = m.step.due, m.admissionLateness
	case *domain.SigningKeyCreated:
		due = m.step.due
	}
	if due != 0 {
		lateness.Observe(max(0, r.RecordedAt.Sub(due.Time()).Seconds()))
	}
}

// commandOutcome is how a command ended, in a word.
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

// appendOutcome is how an append ended, in a word.
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

// knownMethod is a request's method, of which a client may make up any.
func knownMethod(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return r.Method
	}
	return "other"
}

// children are the members of a vector. To find one by what its labels are made of
// costs less than by its labels.
type children[K comparable, M any] struct {
	create func(K) M
	mu     sync.RWMutex // guards made
	made   map[K]M
}

func newChildren[K comparable, M any](create func(K) M) *children[K, M] {
	return &children[K, M]{create: create, made: map[K]M{}}
}

func (c *children[K, M]) of(k K) M {
	c.mu.RLock()
	m, ok := c.made[k]
	c.mu.RUnlock()
	if ok {
		return m
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	// A vector gives the same member again, so it does not matter who is first.
	m = c.create(k)
	c.made[k] = m
	return m
}

// measure has n measured from now on. Until then none of its parts is ready.
func (m *metrics) measure(n *node) {
	m.node.mu.Lock()
	defer m.node.mu.Unlock()
	m.node.node = n
}

// nodeCollector measures the parts of a node when somebody collects, and not more
// often than once a second, whoever asks.
type nodeCollector struct {
	mu   sync.Mutex // guards the fields below; held while measuring
	node *node      // nil while the start waits for the log
	at   time.Time
	last []prometheus.Metric
}

const (
	measureEvery   = time.Second
	measureTimeout = 2 * time.Second
	// maxBacklog bounds what is read to find out how far behind the read models are.
	maxBacklog = 10_000
)

var (
	readyDesc         = prometheus.NewDesc("lotline_ready", "1 for a part of /readyz that is as it should be, else 0.", []string{"part"}, nil)
	lagEventsDesc     = prometheus.NewDesc("lotline_projection_lag_events", "Events in the log that the read models do not show yet, counted to about 10,000.", nil, nil)
	lagSecondsDesc    = prometheus.NewDesc("lotline_projection_lag_seconds", "Since when the oldest event that the read models do not show is in the log.", nil, nil)
	overdueDesc       = prometheus.NewDesc("lotline_wake_overdue_seconds", "By how much the clock's next step is overdue.", nil, nil)
	quarantinedDesc   = prometheus.NewDesc("lotline_quarantined_streams", "Streams that hold what the rules do not allow.", nil, nil)
	writersDesc       = prometheus.NewDesc("lotline_writers", "Streams whose state is in memory to be written to.", nil, nil)
	waitingDesc       = prometheus.NewDesc("lotline_commands_waiting", "Commands that no writer has taken up yet.", nil, nil)
	relayWaitingDesc  = prometheus.NewDesc("lotline_relay_waiting_events", "Events that wait for the message bus.", nil, nil)
	relayDroppedDesc  = prometheus.NewDesc("lotline_relay_dropped_events_total", "Events that the message bus was too slow for.", nil, nil)
	busSendingDesc    = prometheus.NewDesc("lotline_bus_sending", "1 when it is this node that sends to the message bus outside, else 0.", nil, nil)
	busMessagesDesc   = prometheus.NewDesc("lotline_bus_messages_total", "Messages that this node has sent to the message bus outside.", nil, nil)
	busLagDesc        = prometheus.NewDesc("lotline_bus_lag_seconds", "Since when the oldest event that is not sent to the message bus outside is in the log, as far as this node knows.", nil, nil)
	clockOffsetDesc   = prometheus.NewDesc("lotline_clock_offset_seconds", "By how much the clock is ahead of the event store's for certain; negative when it is behind, 0 when it may be right.", nil, nil)
	streamsAheadDesc  = prometheus.NewDesc("lotline_streams_ahead_of_clock", "Streams that hold a time which is ahead of the clock.", nil, nil)
	writeFailuresDesc = prometheus.NewDesc("lotline_views_write_failures_total", "How often the read models could not be written to their file.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		readyDesc, lagEventsDesc, lagSecondsDesc, overdueDesc, quarantinedDesc, writersDesc, waitingDesc,
		relayWaitingDesc, relayDroppedDesc, busSendingDesc, busMessagesDesc, busLagDesc, writeFailuresDesc, clockOffsetDesc, streamsAheadDesc,
	} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(to chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.node == nil {
		for _, part := range []string{partClock, partEventStore, partProjections, partTimers} {
			to <- prometheus.MustNewConstMetric(readyDesc, prometheus.GaugeValue, 0, part)
		}
		return
	}
	if time.Since(c.at) >= measureEvery {
		c.last = c.node.measure()
		c.at = time.Now()
	}
	for _, m := range c.last {
		to <- m
	}
}

// measure takes the figures that nobody counts. What the store does not tell is
// left out.
func (n *node) measure() (all []prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), measureTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
	}
	counter := func(d *prometheus.Desc, v int64) {
		all = append(all, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v)))
	}
	for _, check := range n.ready(ctx) {
		ok := 1.0
		if check.Err != nil {
			ok = 0
		}
		gauge(readyDesc, ok, check.Name)
	}
	if b, err := n.log.Backlog(ctx, n.views.Position(), followedKinds(), maxBacklog); err == nil {
		seconds := 0.0
		if b.Events > 0 {
			seconds = max(0, time.Since(b.Oldest).Seconds())
		}
		gauge(lagEventsDesc, float64(b.Events))
		gauge(lagSecondsDesc, seconds)
	}
	overdue := 0.0
	n.views.Wakes(func(w domain.Wake) bool {
		overdue = max(0, clock().Sub(w.At.Time()).Seconds())
		return false
	})
	gauge(overdueDesc, overdue)
	gauge(quarantinedDesc, float64(len(n.views.Quarantined())))
	gauge(clockOffsetDesc, n.log.clock.Offset().Seconds())
	gauge(streamsAheadDesc, float64(len(n.ahead.look())))
	held := n.handler.Occupancy()
	gauge(writersDesc, float64(held.Writers))
	gauge(waitingDesc, float64(held.Waiting))
	gauge(relayWaitingDesc, float64(n.relay.Waiting()))
	counter(relayDroppedDesc, n.relay.Dropped())
	if n.sink != nil {
		s := n.sink.State()
		sending, lag := 0.0, 0.0
		if s.Sending {
			sending = 1
		}
		if !s.Oldest.IsZero() {
			lag = max(0, time.Since(s.Oldest).Seconds())
		}
		gauge(busSendingDesc, sending)
		counter(busMessagesDesc, int64(s.Messages)) //nolint:gosec // a node does not send as many
		gauge(busLagDesc, lag)
	}
	counter(writeFailuresDesc, n.views.WriteFailures())
	return all
}
