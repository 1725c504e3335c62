package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/httpapi"
)

// door is where HTTP is answered. It opens before there is a node behind it, and
// tells those who knock how far the start is.
type listeners struct {
	logger     zerolog.Logger
	observer   *observer
	clock      *walltime.Clock
	address    net.Addr
	server     *http.Server
	operations *http.Server // for operators alone; nil without an address of its own
	failed     chan error   // has why HTTP is not served any more, unless it was closed
	foundLog   atomic.Bool
	behind     handlerSwitch // what server serves
	aside      handlerSwitch // what operations serves
	stop       func()        // ends operations, nil when there is none
}

// handlerSwitch is a handler that can be replaced while it serves.
type handlerSwitch struct{ now atomic.Pointer[http.Handler] }

func (s *handlerSwitch) set(h http.Handler) { s.now.Store(&h) }

func (s *handlerSwitch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.now.Load()).ServeHTTP(w, r)
}

// openDoor takes the addresses, all before anything is answered, and answers.
func (c *serveCmd) openListeners(ctx context.Context, o *observer, logger zerolog.Logger) (*listeners, error) {
	listener, err := listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, badConfig("LOTLINE_LISTEN: %w", err)
	}
	d := &listeners{logger: logger, observer: o, clock: walltime.New(clock), address: listener.Addr(), failed: make(chan error, 1)}
	starting := httpapi.Config{Ready: d.starting, Clock: clock, Log: logger, Observer: o, Metrics: o.metrics.handler()}
	if c.MetricsListen != "" {
		d.aside.set(httpapi.Operations(starting))
		if err := d.serveOperations(ctx, c.MetricsListen); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		starting.Metrics = nil
	}
	d.behind.set(httpapi.Starting(starting))
	d.server = httpServer(&d.behind)
	go func() {
		if err := d.server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			d.failed <- err
		}
	}()
	return d, nil
}

// leadTo has a node's handlers answer from now on: api everybody, and operations, which
// is nil without an address of its own, operators.
func (d *listeners) serveNode(api, operations http.Handler) {
	d.behind.set(api)
	if operations != nil {
		d.aside.set(operations)
	}
}

// starting is how the parts are before there is a node that knows.
func (d *listeners) starting(context.Context) []httpapi.Check {
	store := errors.New("it has not answered yet")
	if d.foundLog.Load() || d.clock.Compared() {
		store = nil
	}
	return []httpapi.Check{
		{Name: partClock, Err: d.clock.Err(), Reason: clockReason},
		{Name: partEventStore, Err: store, Reason: "it has not answered yet"},
		{Name: partProjections, Err: errors.New("they are not loaded yet"), Reason: "they are not loaded yet"},
		{Name: partTimers, Err: errOverdue, Reason: errOverdue.Error()},
	}
}

// requestsTimeout is how long requests may take at the end.
const requestsTimeout = 5 * time.Second

// close lets nothing in any more and waits for what is under way.
func (d *listeners) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestsTimeout)
	defer cancel()
	err := d.server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		d.logger.Warn().Msg("requests that did not come to an end are cut off")
		err = d.server.Close()
	}
	stop(d.stop)
	return err
}

// serveOperations serves operators on an address of their own.
func (d *listeners) serveOperations(ctx context.Context, at string) error {
	l, err := listen(ctx, "tcp", at)
	if err != nil {
		return badConfig("LOTLINE_METRICS_LISTEN: %w", err)
	}
	d.operations = httpServer(&d.aside)
	wait := start(func(context.Context) {
		if err := d.operations.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.logger.Error().Err(err).Msg("the metrics are not served")
		}
	})
	d.stop = func() {
		_ = d.operations.Close() // whoever collects just now goes without
		wait()
	}
	d.logger.Info().Stringer("address", l.Addr()).Msg("the metrics are served")
	return nil
}
