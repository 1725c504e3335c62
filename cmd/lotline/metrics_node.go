package main

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/lotline/lotline/domain"
)

// nodeCollector measures the parts of a node when Prometheus scrapes. It measures at
// most once a second, however many scrapes there are.
type nodeCollector struct {
	mu   sync.Mutex // guards the fields below; held while measuring
	node *node      // nil while the start waits for the log
	at   time.Time
	last []prometheus.Metric
}

const (
	measureEvery   = time.Second
	measureTimeout = 2 * time.Second
	// maxBacklog limits how many events are read to find the lag of the read models.
	maxBacklog = 10_000
)

var (
	readyDesc         = prometheus.NewDesc("lotline_ready", "1 for a part of /readyz that works, else 0.", []string{"part"}, nil)
	lagEventsDesc     = prometheus.NewDesc("lotline_projection_lag_events", "Events in the log that the read models do not show yet, counted to about 10,000.", nil, nil)
	lagSecondsDesc    = prometheus.NewDesc("lotline_projection_lag_seconds", "Age in seconds of the oldest event that the read models do not show yet.", nil, nil)
	overdueDesc       = prometheus.NewDesc("lotline_wake_overdue_seconds", "Seconds since the earliest step that is not carried out was due.", nil, nil)
	quarantinedDesc   = prometheus.NewDesc("lotline_quarantined_streams", "Streams in quarantine, because they hold events that the rules do not allow.", nil, nil)
	writersDesc       = prometheus.NewDesc("lotline_writers", "Streams whose state is in memory for writing.", nil, nil)
	waitingDesc       = prometheus.NewDesc("lotline_commands_waiting", "Commands that no writer has taken up yet.", nil, nil)
	relayWaitingDesc  = prometheus.NewDesc("lotline_relay_waiting_events", "Events that wait for the message bus.", nil, nil)
	relayDroppedDesc  = prometheus.NewDesc("lotline_relay_dropped_events_total", "Events that were dropped because the message bus was too slow.", nil, nil)
	busSendingDesc    = prometheus.NewDesc("lotline_bus_sending", "1 on the node that sends to the external message bus, else 0.", nil, nil)
	busMessagesDesc   = prometheus.NewDesc("lotline_bus_messages_total", "Messages that this node has sent to the external message bus.", nil, nil)
	busLagDesc        = prometheus.NewDesc("lotline_bus_lag_seconds", "Age in seconds of the oldest event that is not sent to the external message bus, as far as this node knows.", nil, nil)
	clockOffsetDesc   = prometheus.NewDesc("lotline_clock_offset_seconds", "Seconds by which the node's clock is certainly ahead of the event store's clock; negative when it is behind, 0 when it may be right.", nil, nil)
	streamsAheadDesc  = prometheus.NewDesc("lotline_streams_ahead_of_clock", "Streams with a time that is later than the node's clock.", nil, nil)
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

// measure reads the present values of the metrics that no other part of the program
// updates. It leaves out the metrics that it cannot read from the store.
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
	gauge(streamsAheadDesc, float64(len(n.ahead.find())))
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

// setNode makes n the node that is measured. Before that, the metrics report that no
// part is ready.
func (m *metrics) setNode(n *node) {
	m.node.mu.Lock()
	defer m.node.mu.Unlock()
	m.node.node = n
}
