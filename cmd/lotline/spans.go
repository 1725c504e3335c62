package main

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi"
)

// spans makes the spans of a node: a request, the command in it, the appends for
// that, and the events' way into the read models. The last of them may be on another
// node, so the log carries the trace on: events have their command's traceparent.
type spans struct {
	tracer trace.Tracer // nil when nobody takes spans; then nothing is done
}

// What spans tell beside what OpenTelemetry has names for.
const (
	requestIDAttribute = attribute.Key("lotline.request_id")
	kindAttribute      = attribute.Key("lotline.kind")
	commandAttribute   = attribute.Key("lotline.command")
	outcomeAttribute   = attribute.Key("lotline.outcome")
	eventsAttribute    = attribute.Key("lotline.append.events")
	commandsAttribute  = attribute.Key("lotline.append.commands")
	attemptAttribute   = attribute.Key("lotline.append.attempt")
	eventTypeAttribute = attribute.Key("lotline.event.type")
	delayAttribute     = attribute.Key("lotline.projection.delay_seconds")
)

// received begins a request's span. Probes have none.
func (s spans) received(r *http.Request) *http.Request {
	if s.tracer == nil || !strings.HasPrefix(r.URL.Path, "/api/") {
		return r
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	// The route, which it is called by, is known at the end.
	ctx, _ = s.tracer.Start(ctx, knownMethod(r), trace.WithSpanKind(trace.SpanKindServer))
	return r.WithContext(ctx)
}

func (s spans) finished(r *http.Request, a httpapi.Answer) {
	span := trace.SpanFromContext(r.Context())
	if s.tracer == nil || !span.IsRecording() {
		return
	}
	method := knownMethod(r)
	if a.Route != "" {
		span.SetName(method + " " + a.Route)
	}
	span.SetAttributes(semconv.HTTPRequestMethodKey.String(method), semconv.HTTPRoute(a.Route),
		semconv.HTTPResponseStatusCode(a.Status), requestIDAttribute.String(a.RequestID))
	if a.Status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// begun begins a command's span. What is not sampled leaves nothing in the log.
func (s spans) begun(ctx context.Context, k domain.Kind, c domain.Command) (_ context.Context, traceparent string) {
	if s.tracer == nil {
		return ctx, ""
	}
	name := reflect.TypeOf(c).Name()
	ctx, span := s.tracer.Start(ctx, name+" "+string(k),
		trace.WithAttributes(kindAttribute.String(string(k)), commandAttribute.String(name)))
	if !span.SpanContext().IsSampled() {
		return ctx, ""
	}
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return ctx, carrier.Get("traceparent")
}

func (s spans) answered(ctx context.Context, a commands.Outcome) {
	span := trace.SpanFromContext(ctx)
	if s.tracer == nil || !span.IsRecording() {
		return
	}
	span.SetAttributes(outcomeAttribute.String(commandOutcome(a)))
	if _, refused := errors.AsType[*domain.Error](a.Err); a.Err != nil && !refused {
		span.SetStatus(codes.Error, a.Err.Error())
	}
	span.End()
}

// appended makes a span of an append for each command that waited for it: which of
// their traces are sampled is not known to the others.
func (s spans) appended(a commands.Append) {
	if s.tracer == nil {
		return
	}
	ended := time.Now()
	for _, ctx := range a.Commands {
		if !trace.SpanContextFromContext(ctx).IsSampled() {
			continue
		}
		_, span := s.tracer.Start(ctx, "append "+string(a.Kind), trace.WithSpanKind(trace.SpanKindClient),
			trace.WithTimestamp(ended.Add(-a.Took)), trace.WithAttributes(
				kindAttribute.String(string(a.Kind)), eventsAttribute.Int(a.Events), commandsAttribute.Int(len(a.Commands)),
				attemptAttribute.Int(a.Attempt), outcomeAttribute.String(appendOutcome(a.Err)),
			))
		if a.Err != nil {
			span.SetStatus(codes.Error, a.Err.Error())
		}
		span.End(trace.WithTimestamp(ended))
	}
}

// followed makes a span of an event's way into the read models, under the command
// that the event follows from.
func (s spans) followed(r *domain.Recorded, started, ended time.Time) {
	if s.tracer == nil || r.Metadata.Traceparent == "" {
		return
	}
	ctx := propagation.TraceContext{}.Extract(context.Background(), propagation.MapCarrier{"traceparent": r.Metadata.Traceparent})
	if !trace.SpanContextFromContext(ctx).IsSampled() {
		return
	}
	_, span := s.tracer.Start(ctx, "project "+r.Type, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(started),
		trace.WithAttributes(kindAttribute.String(string(domain.StreamKind(r.Stream))), eventTypeAttribute.String(r.Type),
			delayAttribute.Float64(ended.Sub(r.RecordedAt).Seconds())))
	span.End(trace.WithTimestamp(ended))
}

// spanSender sends spans to a collector. The zero value sends none.
type spanSender struct {
	exporter sdk.SpanExporter
	provider *sdk.TracerProvider
	log      zerolog.Logger
}

// openSpans returns what sends spans to the collector at an OTLP address, if there
// is one. It does not wait for the collector. What else there is to set is read from
// OpenTelemetry's own variables.
func openSpans(ctx context.Context, endpoint string, log zerolog.Logger) (*spanSender, error) {
	if endpoint == "" {
		return &spanSender{}, nil
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, badConfig("LOTLINE_OTLP_ENDPOINT must look like http://localhost:4318")
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.JoinPath("v1", "traces").String()))
	if err != nil {
		return nil, badConfig("LOTLINE_OTLP_ENDPOINT: %w", err)
	}
	// A later one wins.
	about, err := resource.New(ctx, resource.WithService(), resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("lotline"), semconv.ServiceVersion(programVersion())), resource.WithFromEnv())
	if err != nil {
		return nil, badConfig("OpenTelemetry: %w", err)
	}
	s := &spanSender{exporter: exporter, log: log}
	s.provider = sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithBatcher(complainingExporter{exporter, log}))
	return s, nil
}

// tracer is nil when no spans are sent.
func (s *spanSender) tracer() trace.Tracer {
	if s.provider == nil {
		return nil
	}
	return s.provider.Tracer("github.com/lotline/lotline")
}

// spansTimeout is how long the last spans may take to be sent.
const spansTimeout = 5 * time.Second

// close sends what is left, or gives up on it.
func (s *spanSender) close() {
	if s.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), spansTimeout)
	defer cancel()
	if err := s.provider.Shutdown(ctx); err != nil {
		s.log.Warn().Err(err).Msg("the last spans were not sent")
		// This ends what is under way.
		_ = s.exporter.Shutdown(ctx)
	}
}

// complainingExporter logs what could not be sent: otherwise the SDK prints it.
type complainingExporter struct {
	sdk.SpanExporter
	log zerolog.Logger
}

func (e complainingExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn().Err(err).Int("spans", len(spans)).Msg("spans were not sent")
	}
	return nil
}
