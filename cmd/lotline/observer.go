package main

import (
	"context"
	"net/http"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi"
	"github.com/lotline/lotline/projections"
)

// observer receives callbacks from the parts of a node. It turns them into metrics and,
// if a collector is configured, spans.
type observer struct {
	metrics *metrics
	spans   spans
}

// newObserver returns an observer that makes spans with tracer. A nil tracer makes none.
func newObserver(tracer trace.Tracer) *observer { return &observer{newMetrics(), spans{tracer}} }

func (o *observer) Received(r *http.Request) *http.Request { return o.spans.received(r) }

func (o *observer) Finished(r *http.Request, a httpapi.Answer) {
	o.metrics.finished(knownMethod(r), a)
	o.spans.finished(r, a)
}

func (o *observer) Begun(ctx context.Context, k domain.Kind, c domain.Command) (_ context.Context, traceparent string) {
	return o.spans.begun(ctx, k, c)
}

func (o *observer) Ended(ctx context.Context, a commands.Outcome) {
	o.metrics.answered(a)
	o.spans.answered(ctx, a)
}

func (o *observer) Appended(a commands.Append) {
	o.metrics.appended(a)
	o.spans.appended(a)
}

// observedViews follows the log for the read models and reports each event to the
// observer. It does not report events while the read models catch up, because nobody
// waits for those.
type observedViews struct {
	*projections.Views
	node *node
}

func (v observedViews) Follow(r *domain.Recorded) {
	v.node.log.clock.Recorded(r.ID, r.RecordedAt)
	if !v.node.caughtUp.Load() {
		v.Views.Follow(r)
		return
	}
	var before domain.Wake
	if r.Metadata.Actor == domain.ActorClock {
		before = v.WakeBefore(r.Stream)
	}
	started := time.Now()
	v.Views.Follow(r)
	now := time.Now()
	v.node.observer.metrics.followed(r, before, now)
	v.node.observer.spans.followed(r, started, now)
}
