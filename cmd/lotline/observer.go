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

// observer is told what the parts of a node do, and turns it into figures and, when
// somebody takes them, spans.
type observer struct {
	metrics *metrics
	spans   spans
}

// newObserver makes spans with tracer, which is nil when nobody takes them.
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

// observedViews are the read models as a follower of the log that is observed, from
// when they have caught up: what happened before has nobody who waits for it.
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
