package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/embedded"
)

// embeddedStore is the embedded server while it runs in this process.
type embeddedStore struct {
	server *embedded.Server
	served []<-chan error // one for each listener
}

// startEmbedded opens the store of a data directory and serves it on the
// directory's socket and, when one is configured, on a TCP address.
func startEmbedded(ctx context.Context, s *settings, dir *dataDir, log zerolog.Logger) (*embeddedStore, error) {
	if err := s.embeddedListen(); err != nil {
		return nil, err
	}
	listeners, err := storeListeners(ctx, s, dir)
	if err != nil {
		return nil, err
	}
	server, err := embedded.Open(dir.file(eventsFile), log)
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return nil, badConfig("event store: %w", err)
	}
	e := &embeddedStore{server: server}
	for _, l := range listeners {
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()
		e.served = append(e.served, done)
	}
	return e, nil
}

func storeListeners(ctx context.Context, s *settings, dir *dataDir) ([]net.Listener, error) {
	socket := dir.file(socketFile)
	// Whoever left a socket behind is gone: the directory is locked by us.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, badConfig("event store: %w", err)
	}
	unixListener, err := listen(ctx, "unix", socket)
	if err != nil {
		return nil, badConfig("event store: %w", err)
	}
	if s.EmbeddedListen == "" {
		return []net.Listener{unixListener}, nil
	}
	tcpListener, err := listen(ctx, "tcp", s.EmbeddedListen)
	if err != nil {
		return nil, badConfig("LOTLINE_EMBEDDED_LISTEN: %w", errors.Join(err, unixListener.Close()))
	}
	return []net.Listener{unixListener, tcpListener}, nil
}

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, network, address)
}

func (e *embeddedStore) Close() error {
	err := e.server.Close()
	for _, done := range e.served {
		err = errors.Join(err, <-done)
	}
	return err
}

type storeCmd struct{}

// Run serves the embedded store until ctx ends.
func (storeCmd) Run(ctx context.Context, s *settings, to streams) (err error) {
	log, flush := newLogger(s.LogFormat, to.err)
	defer func() { err = errors.Join(err, flush()) }()
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	store, err := startEmbedded(ctx, s, dir, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(to.out, "The event store is listening on %s\n", dir.file(socketFile))
	if s.EmbeddedListen != "" {
		fmt.Fprintf(to.out, "The event store is listening on esdb://%s?tls=false\n", s.EmbeddedListen)
	}
	<-ctx.Done()
	return store.Close()
}

// log is the event log that the settings name, with what stands behind it.
type log struct {
	*eventstore.Log
	keys     *eventstore.Keyring
	embedded *embeddedStore // nil when the store runs elsewhere
	dir      *dataDir       // locked for the log alone, or nil
}

// reachTimeout is how long a start waits for the event store.
const reachTimeout = 30 * time.Second

// openLog opens the log: on the server that is named, or on the embedded store
// of the data directory, which it starts.
func openLog(ctx context.Context, s *settings, dir *dataDir, logger zerolog.Logger) (*log, error) {
	key, err := masterKey(s, dir.path)
	if err != nil {
		return nil, err
	}
	l := &log{}
	if l.keys, err = eventstore.NewKeyring(key); err != nil {
		return nil, badConfig("%w", err)
	}
	if s.EventStore != "" {
		l.Log, err = eventstore.Connect(s.EventStore, l.keys)
		if err != nil {
			return nil, badConfig("LOTLINE_EVENTSTORE: %w", err)
		}
	} else {
		if l.embedded, err = startEmbedded(ctx, s, dir, logger); err != nil {
			return nil, err
		}
		if l.Log, err = eventstore.ConnectSocket(dir.file(socketFile), l.keys); err != nil {
			return nil, errors.Join(err, l.embedded.Close())
		}
	}
	if err := l.check(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// check finds out whether the store answers and the master key is the log's.
func (l *log) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	err := l.CheckMasterKey(ctx, time.Now())
	switch {
	case errors.Is(err, eventstore.ErrMasterKey):
		return badConfig("LOTLINE_MASTER_KEY: %w", err)
	case err != nil:
		return badConfig("event store: %w", err)
	}
	return nil
}

func (l *log) Close() error {
	err := l.Log.Close()
	if l.embedded != nil {
		err = errors.Join(err, l.embedded.Close())
	}
	if l.dir != nil {
		err = errors.Join(err, l.dir.Close())
	}
	return err
}
