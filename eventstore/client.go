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
)

// client supervises the official one, which by itself, when a connection is lost,
// blocks calls without regard to their context until it has another, and for good
// when it gives up; which forgets the lost connection without closing it; and
// which panics on some answers. So it is never left to connect while others wait
// for it, nor to connect a second time: each connection has an official client of
// its own. Safe for concurrent use.
//
// What remains: a server that refers to another one as the leader, which none does
// to a client that asks for no leader, has the official client go there by itself.
// It then forgets a connection when the other one does not answer.
type client struct {
	config  *esdb.Configuration
	closing context.Context // ends when the client is closed
	close   func() error

	mu         sync.Mutex  // guards the fields below
	current    *generation // nil when the next call has to connect
	background sync.WaitGroup
}

// generation is an official client from its connection to the loss of it.
type generation struct {
	failure   atomic.Pointer[string] // why there is no connection so far
	connected chan struct{}          // closed when the field below is set
	*esdb.Client
	calls sync.WaitGroup
}

var (
	errClientClosed = errors.New("the event store client is closed")
	// errNotSent is added to what ended a call before there was a connection.
	errNotSent = errors.New("there was no connection to the event store")
)

// dial makes a client for a connection string (esdb://…). It does not connect
// yet. socket, when not empty, is the absolute path of a Unix socket to use
// instead of the address.
func dial(connection, socket string) (*client, error) {
	config, err := esdb.ParseConnectionString(connection)
	if _, ok := errors.AsType[*fs.PathError](err); err != nil && !ok && strings.Contains(connection, "@") {
		// What the client says of it shows the password, or a part of it, unless it is
		// about the certificate's file.
		err = errors.New("it cannot be parsed: is the password escaped as in a URL, and is each setting's value one that it takes?")
	}
	if err != nil {
		return nil, fmt.Errorf("event store address: %w", err)
	}
	if socket != "" {
		// The address is taken for a URL, so what stands in a path by chance is
		// escaped.
		config.Address = (&url.URL{Scheme: "unix", Path: socket}).String()
	}
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("event store address: %w", err)
	}
	// Trying again is up to connect, which can be stopped.
	config.MaxDiscoverAttempts, config.DiscoveryInterval = 1, 0
	config.Logger = leaveBeforeReconnecting
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

// lostError is what a call panics with when its connection is lost.
type lostError struct{ error }

// leaveBeforeReconnecting is the official client's logger. The one thing that the
// client does between learning that the connection is lost and beginning to look
// for another one is to log it, in the goroutine of the call that failed. So the
// call is left there, for guard to take up.
func leaveBeforeReconnecting(_ esdb.LogLevel, format string, args ...any) {
	if format != "unexpected exception: %v" || len(args) != 1 {
		return
	}
	if err, ok := args[0].(error); ok && status.Code(err) == codes.Unavailable {
		panic(lostError{err})
	}
}

// reconnectPause is between attempts to reach the server.
const reconnectPause = 100 * time.Millisecond

// connect gives g its official client as soon as there is a server.
func (c *client) connect(g *generation) {
	for {
		inner, err := esdb.NewClient(c.config)
		if err == nil {
			// Asks for nothing that the client does not ask when it connects.
			if _, err = inner.GetServerVersion(); err == nil {
				g.Client = inner
				close(g.connected)
				return
			}
		}
		g.failure.Store(new(err.Error()))
		timer := time.NewTimer(reconnectPause)
		select {
		case <-timer.C:
		case <-c.closing.Done():
			timer.Stop()
			return
		}
	}
}

// begin waits for a connection. When it returns one, g.calls counts the caller.
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

// reason is why there is no connection, as far as that is known.
func (g *generation) reason() string {
	if failure := g.failure.Load(); failure != nil {
		return ": " + *failure
	}
	return ""
}

// untilClosed returns a context that ends with ctx and when the client is closed.
func (c *client) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.closing, func() { cancel(errClientClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// do runs f, which calls the official client, and returns when f does or when ctx
// ends. What f assigns may be read only when do returned f's result.
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

// run runs f in a goroutine of its own, which is left behind when ctx ends.
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

// guard runs f and turns its panics into errors. It retires g when f lost the
// connection.
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

// retire has the next call connect anew. g is closed when its calls have ended.
func (c *client) retire(g *generation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != g || c.closing.Err() != nil {
		return
	}
	c.current = nil
	c.background.Go(func() { g.end() })
}

// end closes the connection when the calls have ended: closing panics those that
// are still under way.
func (g *generation) end() {
	g.calls.Wait()
	_ = g.Close() // which always succeeds
}

// subscribe delivers what a subscription to $all gives, in the caller's goroutine,
// until ctx ends or the subscription drops. It returns why.
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
	defer func() { _ = subscription.Close() }() // which always succeeds
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

// closeWait is how long closing waits for what is under way to end.
const closeWait = 2 * time.Second

// finish closes the last connection when its calls have ended. An attempt to
// connect, to a server that takes the connection and says nothing, goes on for as
// long as the configuration allows one to take (gossipTimeout), and is not waited
// for to the end.
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
