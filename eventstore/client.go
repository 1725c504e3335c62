package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lotline/lotline/eventstore/backoff"
)

// client wraps the official client, which has three faults. When it loses its connection,
// it blocks all calls, whatever their contexts say, until it has another one, and for
// good if it gives up. It forgets a lost connection without closing it. It panics for
// some responses.
//
// So calls never wait while the official client connects, and an official client never
// connects a second time: each connection gets a new one. client is safe for concurrent
// use.
//
// One case remains. A server may refer a client to another server as the leader; servers
// do not do this to clients that accept any node, as ours does. The official client then
// goes there by itself, and forgets its connection if the other server does not respond.
type client struct {
	config  *esdb.Configuration
	closing context.Context // ends when the client is closed
	close   func() error    // ends calls in flight and closes the connection

	mu         sync.Mutex  // guards the fields below
	current    *generation // nil if the next call has to connect
	background sync.WaitGroup
}

// generation is one instance of the official client. It begins with the first attempt to
// connect and ends when the connection is lost.
type generation struct {
	failure   atomic.Pointer[string] // why the last attempt to connect failed
	connected chan struct{}          // closed once the Client below is set
	*esdb.Client
	calls sync.WaitGroup
}

var (
	errClientClosed = errors.New("the event store client is closed")
	// errNotSent marks calls that ended before there was a connection.
	errNotSent = errors.New("there was no connection to the event store")
)

// dial returns a client for a connection string (esdb://…). It does not connect yet. If
// socket is not empty, it is the absolute path of a Unix socket to use instead of the
// string's address.
func dial(connection, socket string) (*client, error) {
	config, err := esdb.ParseConnectionString(connection)
	if _, ok := errors.AsType[*fs.PathError](err); err != nil && !ok && strings.Contains(connection, "@") {
		// The official client's error shows the password or a part of it, except when the
		// error is about the certificate file.
		err = errors.New("it cannot be parsed: is the password escaped as in a URL, and is each setting's value one that it takes?")
	}
	if err != nil {
		return nil, fmt.Errorf("event store address: %w", err)
	}
	if socket != "" {
		// The official client parses the address as a URL, so special characters in the
		// path must be escaped.
		config.Address = (&url.URL{Scheme: "unix", Path: socket}).String()
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("event store address: %w", err)
	}
	// connect repeats attempts, and unlike the official client it can be stopped.
	config.MaxDiscoverAttempts, config.DiscoveryInterval = 1, 0
	config.Logger = panicBeforeReconnecting
	c := &client{config: config}
	var cancel context.CancelFunc
	c.closing, cancel = context.WithCancel(context.Background())
	c.close = sync.OnceValue(func() error {
		// No call begins after this.
		c.mu.Lock()
		cancel()
		g := c.current
		c.mu.Unlock()
		c.finish(g)
		return nil
	})
	return c, nil
}

// lostError is the panic value of a call that lost its connection.
type lostError struct{ error }

// panicBeforeReconnecting is the official client's logger. When the client learns that
// its connection is lost, it logs that before it looks for another one, in the goroutine
// of the failed call. There is no other hook. So this function panics to leave the call
// there, and guard recovers.
func panicBeforeReconnecting(_ esdb.LogLevel, format string, args ...any) {
	if format != "unexpected exception: %v" || len(args) != 1 {
		return
	}
	if err, ok := args[0].(error); ok && status.Code(err) == codes.Unavailable {
		panic(lostError{err})
	}
}

// reconnectPause is the pause between attempts to reach the server. It does not grow:
// callers are waiting, and an attempt costs little.
const reconnectPause = 100 * time.Millisecond

// connect tries to reach the server until it succeeds or the client is closed, and then sets g's official client.
func (c *client) connect(g *generation) {
	for {
		inner, err := esdb.NewClient(c.config)
		if err == nil {
			// This makes no request beyond those of connecting.
			if _, err = inner.GetServerVersion(); err == nil {
				g.Client = inner
				close(g.connected)
				return
			}
		}
		g.failure.Store(new(err.Error()))
		if !backoff.Sleep(c.closing, reconnectPause) {
			return
		}
	}
}

// begin waits for a connection. When it returns one, it has counted the caller in
// g.calls.
func (c *client) begin(ctx context.Context) (*generation, error) {
	c.mu.Lock()
	if c.closing.Err() != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", errNotSent, errClientClosed)
	}
	g := c.current
	if g == nil {
		g = &generation{connected: make(chan struct{})}
		c.current = g
		c.background.Go(func() { c.connect(g) })
	}
	g.calls.Add(1)
	c.mu.Unlock()
	select {
	case <-g.connected:
		return g, nil
	case <-ctx.Done():
		g.calls.Done()
		return nil, fmt.Errorf("%w: %w%s", errNotSent, ctx.Err(), g.reason())
	case <-c.closing.Done():
		g.calls.Done()
		return nil, fmt.Errorf("%w: %w", errNotSent, errClientClosed)
	}
}

// reason returns why the last attempt to connect failed, as the end of an error message.
// It returns an empty string if no attempt has failed.
func (g *generation) reason() string {
	if failure := g.failure.Load(); failure != nil {
		return ": " + *failure
	}
	return ""
}

// untilClosed returns a context that ends when ctx ends or the client is closed.
func (c *client) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.closing, func() { cancel(errClientClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// do runs f, which calls the official client. It returns when f returns or ctx ends. If
// ctx ends first, f may still be running. So after an error the caller must not read the
// variables that f assigns.
func (c *client) do(ctx context.Context, f func(context.Context, *esdb.Client) error) error {
	g, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer g.calls.Done()
	ctx, cancel := c.untilClosed(ctx)
	defer cancel()
	return c.run(ctx, g, func() error { return f(ctx, g.Client) })
}

// run runs f in a new goroutine, which it abandons when ctx ends.
func (c *client) run(ctx context.Context, g *generation, f func() error) error {
	done := make(chan error, 1)
	g.calls.Go(func() { done <- c.guard(g, f) })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// guard runs f and returns its panics as errors. It retires g if f lost the connection.
func (c *client) guard(g *generation, f func() error) (err error) {
	defer func() {
		switch p := recover().(type) {
		case nil:
		case lostError:
			err = p.error
		default:
			err = fmt.Errorf("event store client: %v", p)
		}
		if connectionLost(err) {
			c.retire(g)
		}
	}()
	return f()
}

func connectionLost(err error) bool {
	if e, ok := errors.AsType[*esdb.Error](err); ok {
		switch e.Code() {
		case esdb.ErrorUnavailable, esdb.ErrorCodeConnectionClosed, esdb.ErrorCodeNotLeader:
			return true
		}
	}
	return err != nil && status.Code(err) == codes.Unavailable
}

// retire makes the next call connect anew. g's connection is closed once its calls have
// ended.
func (c *client) retire(g *generation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != g || c.closing.Err() != nil {
		return
	}
	c.current = nil
	c.background.Go(func() { g.end() })
}

// end waits for g's calls and then closes the connection. Closing it earlier would make
// the calls panic.
func (g *generation) end() {
	g.calls.Wait()
	_ = g.Close() // always succeeds
}

// subscribe delivers the events of a subscription to $all, in the caller's goroutine. It
// returns when ctx ends or the subscription drops, with the reason.
func (c *client) subscribe(ctx context.Context, options esdb.SubscribeToAllOptions, deliver func(*esdb.SubscriptionEvent)) error {
	g, err := c.begin(ctx)
	if err != nil {
		return err
	}
	defer g.calls.Done()
	ctx, cancel := c.untilClosed(ctx)
	defer cancel()
	var subscription *esdb.Subscription
	err = c.run(ctx, g, func() error {
		var err error
		subscription, err = g.SubscribeToAll(ctx, options)
		return err
	})
	if err != nil {
		return err
	}
	defer func() { _ = subscription.Close() }() // always succeeds
	for {
		var event *esdb.SubscriptionEvent
		err := c.guard(g, func() error {
			event = subscription.Recv()
			if event.SubscriptionDropped != nil {
				return event.SubscriptionDropped.Error
			}
			return nil
		})
		if err != nil {
			return err
		}
		deliver(event)
	}
}

// closeWait is how long closing waits for calls in flight.
const closeWait = 2 * time.Second

// finish closes the last connection once its calls have ended, but waits for closeWait at
// most. The wait can be too short for an attempt to connect to a server that accepts
// connections and sends nothing: such an attempt may take as long as the connection
// string allows (gossipTimeout).
func (c *client) finish(g *generation) {
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		c.background.Wait()
		if g != nil && g.Client != nil {
			g.end()
		}
	}()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}
