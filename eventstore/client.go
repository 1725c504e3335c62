package eventstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// client supervises the official one, whose calls may block without regard to
// their context while it looks for a server, whose Close panics those that do,
// and which forgets its old connection without closing it when it makes a new
// one. The last is narrowed to those calls that are under way when a connection
// is lost: one forgotten connection may remain from each loss. Safe for
// concurrent use.
type client struct {
	config *esdb.Configuration
	slots  chan struct{} // one for each call under way, also of callers that left

	mu      sync.Mutex // guards the fields below
	current *generation
	closed  bool
	retired sync.WaitGroup // generations that wait for their calls to end
}

// maxCalls bounds the calls under way. While there is no server calls do not end
// with their contexts, and without a bound each would leave something behind.
const maxCalls = 1_024

// generation is an official client from one loss of the connection to the next.
type generation struct {
	*esdb.Client
	calls sync.WaitGroup
}

var errClientClosed = errors.New("the event store client is closed")

// dial makes a client for a connection string (esdb://…). It does not connect
// yet. socket, when not empty, is the absolute path of a Unix socket to use
// instead of the address.
func dial(connection, socket string) (*client, error) {
	config, err := esdb.ParseConnectionString(connection)
	if err != nil {
		return nil, fmt.Errorf("event store address: %w", err)
	}
	if socket != "" {
		// The address is taken for a URL, so what stands in a path by chance is
		// escaped.
		config.Address = (&url.URL{Scheme: "unix", Path: socket}).String()
	}
	// By default the client gives up for good about a second after the server
	// went. It has to outlast a restart of the server, however long that takes;
	// how long a call waits is up to the call's context.
	config.MaxDiscoverAttempts = math.MaxInt32
	config.Logger = esdb.NoopLogging()
	c := &client{config: config, slots: make(chan struct{}, maxCalls)}
	if c.current, err = c.newGeneration(); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *client) newGeneration() (*generation, error) {
	inner, err := esdb.NewClient(c.config)
	if err != nil {
		return nil, fmt.Errorf("event store client: %w", err)
	}
	return &generation{Client: inner}, nil
}

// do runs f, which calls the client, and returns when f does or when ctx ends.
// What f assigns may be read only when do returned f's result.
func (c *client) do(ctx context.Context, f func(*esdb.Client) error) error {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.slots
		return errClientClosed
	}
	g := c.current
	done := make(chan error, 1)
	g.calls.Go(func() {
		defer func() { <-c.slots }()
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("event store client: %v", p)
			}
		}()
		err := f(g.Client)
		if connectionLost(err) {
			c.retire(g)
		}
		done <- err
	})
	c.mu.Unlock()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func connectionLost(err error) bool {
	e, ok := errors.AsType[*esdb.Error](err)
	if !ok {
		return false
	}
	return e.Code() == esdb.ErrorUnavailable || e.Code() == esdb.ErrorCodeConnectionClosed || status.Code(e.Err()) == codes.Unavailable
}

// retire puts a new generation into g's place. g is closed when its calls have
// ended.
func (c *client) retire(g *generation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current != g || c.closed {
		return
	}
	next, err := c.newGeneration()
	if err != nil {
		// The configuration was good before; g goes on, with its leak.
		return
	}
	c.current = next
	c.retired.Go(func() {
		g.calls.Wait()
		_ = g.Close() // which always succeeds
	})
}

// closeWait is how long calls may take to end before a client is left behind.
const closeWait = 2 * time.Second

// close releases the connections. While a call is stuck in the client, because
// there is no server, it is left to end by itself: closing would make that call
// panic.
func (c *client) close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	g := c.current
	c.mu.Unlock()
	idle := make(chan struct{})
	go func() {
		g.calls.Wait()
		_ = g.Close() // which always succeeds
		c.retired.Wait()
		close(idle)
	}()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
	return nil
}
