package eventstore

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

// client supervises the official one, whose calls may block without regard to
// their context while it looks for a server, and whose Close panics those that
// do. Safe for concurrent use.
type client struct {
	*esdb.Client
	calls sync.WaitGroup
}

// dial makes a client for a connection string (esdb://…). It does not connect
// yet. socket, when not empty, is the path of a Unix socket to use instead of the
// address.
func dial(connection, socket string) (*client, error) {
	config, err := esdb.ParseConnectionString(connection)
	if err != nil {
		return nil, fmt.Errorf("event store address: %w", err)
	}
	if socket != "" {
		config.Address = "unix:" + socket
	}
	// By default the client gives up for good about a second after the server
	// went. It has to outlast a restart of the server, however long that takes;
	// how long a call waits is up to the call's context.
	config.MaxDiscoverAttempts = math.MaxInt32
	config.Logger = esdb.NoopLogging()
	c, err := esdb.NewClient(config)
	if err != nil {
		return nil, fmt.Errorf("event store client: %w", err)
	}
	return &client{Client: c}, nil
}

// do runs f, which calls the client, and returns when f does or when ctx ends.
// What f assigns may be read only when do returned f's result.
func (c *client) do(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	c.calls.Go(func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("event store client: %v", p)
			}
		}()
		done <- f()
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// closeWait is how long calls may take to end before a client is left behind.
const closeWait = 2 * time.Second

// close releases the client's connection. While a call is stuck in the client it
// is left to end by itself, since closing would make that call panic.
func (c *client) close() error {
	idle := make(chan struct{})
	go func() {
		c.calls.Wait()
		close(idle)
	}()
	timer := time.NewTimer(closeWait)
	defer timer.Stop()
	select {
	case <-idle:
		return c.Close()
	case <-timer.C:
		return fmt.Errorf("event store client: calls did not end within %s", closeWait)
	}
}
