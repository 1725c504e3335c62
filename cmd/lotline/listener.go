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

// listeners serve HTTP on one or two addresses: one for everybody and, if one is
// configured, another one for operators. They open before there is a node. Until the node
// runs, they answer only how far the start has come.
type listeners struct {
	logger            zerolog.Logger
	observer          *observer
	clock             *walltime.Clock
	address           net.Addr
	api               *http.Server
	operations        *http.Server // for operators; nil if they have no address of their own
	failed            chan error   // receives the error if serving HTTP ends before close
	foundLog          atomic.Bool
	apiHandler        handlerSwitch // what api serves
	operationsHandler handlerSwitch // what operations serves
	stopOperations    func()        // nil without operations
}

// handlerSwitch is a handler that can be replaced while it serves.
type handlerSwitch struct{ now atomic.Pointer[http.Handler] }

func (s *handlerSwitch) set(h http.Handler) { s.now.Store(&h) }

func (s *handlerSwitch) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	(*s.now.Load()).ServeHTTP(w, r)
}

// openListeners listens on all addresses and then starts to answer requests.
func (c *serveCmd) openListeners(ctx context.Context, o *observer, logger zerolog.Logger) (*listeners, error) {
	listener, err := listen(ctx, "tcp", c.Listen)
	if err != nil {
		return nil, badConfig("LOTLINE_LISTEN: %w", err)
	}
	ls := &listeners{logger: logger, observer: o, clock: walltime.New(clock), address: listener.Addr(), failed: make(chan error, 1)}
	starting := httpapi.Config{Ready: ls.readyBeforeNode, Clock: clock, Log: logger, Observer: o, Metrics: o.metrics.handler()}
	if c.MetricsListen != "" {
		ls.operationsHandler.set(httpapi.Operations(starting))
		if err := ls.serveOperations(ctx, c.MetricsListen); err != nil {
			return nil, errors.Join(err, listener.Close())
		}
		starting.Metrics = nil
	}
	ls.apiHandler.set(httpapi.Starting(starting))
	ls.api = newHTTPServer(&ls.apiHandler)
	go func() {
		if err := ls.api.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			ls.failed <- err
		}
	}()
	return ls, nil
}

// serveNode lets the handlers of a node answer from now on. operations is nil if
// operators have no address of their own.
func (ls *listeners) serveNode(api, operations http.Handler) {
	ls.apiHandler.set(api)
	if operations != nil {
		ls.operationsHandler.set(operations)
	}
}

// readyBeforeNode returns the checks of /readyz while there is no node yet.
func (ls *listeners) readyBeforeNode(context.Context) []httpapi.Check {
	store := errors.New("it has not answered yet")
	if ls.foundLog.Load() || ls.clock.Compared() {
		store = nil
	}
	return []httpapi.Check{
		{Name: partClock, Err: ls.clock.Err(), Reason: clockReason},
		{Name: partEventStore, Err: store, Reason: "it has not answered yet"},
		{Name: partProjections, Err: errors.New("they are not loaded yet"), Reason: "they are not loaded yet"},
		{Name: partTimers, Err: errOverdue, Reason: errOverdue.Error()},
	}
}

// requestsTimeout is how long a shutdown waits for requests that are in flight.
const requestsTimeout = 5 * time.Second

// close stops accepting requests and waits for those in flight. After requestsTimeout
// it cuts them off.
func (ls *listeners) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), requestsTimeout)
	defer cancel()
	err := ls.api.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		ls.logger.Warn().Msg("cut off requests that did not end in time")
		err = ls.api.Close()
	}
	stop(ls.stopOperations)
	return err
}

// serveOperations serves operators on an address of their own.
func (ls *listeners) serveOperations(ctx context.Context, at string) error {
	l, err := listen(ctx, "tcp", at)
	if err != nil {
		return badConfig("LOTLINE_METRICS_LISTEN: %w", err)
	}
	ls.operations = newHTTPServer(&ls.operationsHandler)
	wait := start(func(context.Context) {
		if err := ls.operations.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			ls.logger.Error().Err(err).Msg("the metrics are not served")
		}
	})
	ls.stopOperations = func() {
		_ = ls.operations.Close() // a scrape in flight is cut off
		wait()
	}
	ls.logger.Info().Stringer("address", l.Addr()).Msg("the metrics are served")
	return nil
}
