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

// spans makes the spans of a node: for a request, for its command, for the command's
// appends, and for the projection of each event. Another node may project the event, so
// the log carries the trace: each event has the traceparent of its command.
type spans struct {
	tracer trace.Tracer // nil if no collector is configured; then no spans are made
}

// Span attributes for which OpenTelemetry has no names.
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

// received starts a request's span. Only requests below /api/ have one.
func (s spans) received(r *http.Request) *http.Request {
	if s.tracer == nil || !strings.HasPrefix(r.URL.Path, "/api/") {
		return r
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	// The span is renamed at the end, when the route is known.
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

// begun starts a command's span. The traceparent is "" if the span is not sampled.
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

// appended makes one span of an append for each sampled command that waited for it,
// because each command belongs to another trace.
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

// followed makes a span for the projection of an event into the read models. Its parent
// is the span of the command that caused the event.
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

// openSpans returns a sender of spans to the collector at an OTLP address. For the
// address "" it returns a sender that sends none. It does not wait for the collector.
// Other settings come from OpenTelemetry's own environment variables.
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
	// If an attribute is set twice, the later option wins.
	about, err := resource.New(ctx, resource.WithService(), resource.WithTelemetrySDK(), resource.WithHost(),
		resource.WithAttributes(semconv.ServiceName("lotline"), semconv.ServiceVersion(programVersion())), resource.WithFromEnv())
	if err != nil {
		return nil, badConfig("OpenTelemetry: %w", err)
	}
	s := &spanSender{exporter: exporter, log: log}
	s.provider = sdk.NewTracerProvider(sdk.WithResource(about), sdk.WithBatcher(loggingExporter{exporter, log}))
	return s, nil
}

// tracer is nil when no spans are sent.
func (s *spanSender) tracer() trace.Tracer {
	if s.provider == nil {
		return nil
	}
	return s.provider.Tracer("github.com/lotline/lotline")
}

// spansTimeout is how long a shutdown waits for the last spans to be sent.
const spansTimeout = 5 * time.Second

// close sends the spans that are left. After spansTimeout it drops them.
func (s *spanSender) close() {
	if s.provider == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), spansTimeout)
	defer cancel()
	if err := s.provider.Shutdown(ctx); err != nil {
		s.log.Warn().Err(err).Msg("the last spans were not sent")
		// This ends an export that is still in flight.
		_ = s.exporter.Shutdown(ctx)
	}
}

// loggingExporter logs failed exports. Otherwise the SDK would print them itself.
type loggingExporter struct {
	sdk.SpanExporter
	log zerolog.Logger
}

func (e loggingExporter) ExportSpans(ctx context.Context, spans []sdk.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn().Err(err).Int("spans", len(spans)).Msg("spans were not sent")
	}
	return nil
}
