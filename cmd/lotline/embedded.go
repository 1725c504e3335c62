package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/eventstore/embedded"
)

// embeddedStore is the embedded store's server, running in this process.
type embeddedStore struct {
	server  *embedded.Server
	address string         // the connection string of its TCP address, "" if it has none
	served  sync.WaitGroup // the goroutines that serve listeners
	failed  chan error     // receives the error of a listener that ends before Close
}

// storeListener is a listener of the embedded store with its access rules.
type storeListener struct {
	net.Listener
	access *embedded.Access // nil lets in everybody who can connect
}

// startEmbedded opens the store of a data directory and serves it on the
// directory's socket and, when one is configured, on a TCP address.
func startEmbedded(ctx context.Context, s *settings, dir *dataDir, log zerolog.Logger) (*embeddedStore, error) {
	if err := dir.checkLogFile(s.restored); err != nil {
		return nil, err
	}
	e := &embeddedStore{}
	listeners, err := e.listen(ctx, s, dir, log)
	if err == nil {
		if e.server, err = embedded.Open(dir.file(eventsFile), log); err != nil {
			err = badConfig("event store: %w", err)
		}
		if errors.Is(err, embedded.ErrLost) {
			err = fmt.Errorf("%w: %s", err, remedy)
		}
	}
	if err != nil {
		for _, l := range listeners {
			err = errors.Join(err, l.Close())
		}
		return nil, err
	}
	e.failed = make(chan error, len(listeners))
	for _, l := range listeners {
		e.served.Go(func() {
			if err := e.server.Serve(l.Listener, l.access); err != nil {
				e.failed <- fmt.Errorf("serve the event store on %s: %w", l.Addr(), err)
			}
		})
	}
	return e, nil
}

// maxSocketPath is how long the path of a Unix socket may be on Linux. Other
// systems allow a little less, and say so themselves.
const maxSocketPath = 107

// listen opens the listeners. If it returns an error, it also returns the listeners
// that it opened before, and the caller must close them.
func (e *embeddedStore) listen(ctx context.Context, s *settings, dir *dataDir, log zerolog.Logger) (opened []storeListener, err error) {
	socket := dir.file(socketFile)
	if len(socket) > maxSocketPath {
		return nil, badConfig("data directory %s: the path of the socket in it may have %d bytes and has %d: use a shorter directory", dir.path, maxSocketPath, len(socket))
	}
	// This process holds the directory's lock, so a socket in it is left over from a
	// process that has ended.
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, badConfig("event store: %w", err)
	}
	l, err := listenPrivately(socket)
	if err != nil {
		return nil, badConfig("event store: %w", err)
	}
	opened = append(opened, storeListener{l, nil})
	if s.EmbeddedListen == "" {
		return opened, nil
	}
	access, err := s.embeddedAccess(log)
	if err != nil {
		return opened, err
	}
	if l, err = listen(ctx, "tcp", s.EmbeddedListen); err != nil {
		return opened, badConfig("LOTLINE_EMBEDDED_LISTEN: %w", err)
	}
	host, _, err := net.SplitHostPort(s.EmbeddedListen)
	if err == nil {
		e.address = access.ConnectionString(host, l.Addr().(*net.TCPAddr).Port)
	}
	return append(opened, storeListener{l, access}), err
}

func listen(ctx context.Context, network, address string) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, network, address)
}

// printAddress prints the connection string of the TCP address, if there is one.
func (e *embeddedStore) printAddress(out io.Writer) {
	if e.address != "" {
		fmt.Fprintf(out, "The event store is listening on %s\n", e.address)
	}
}

func (e *embeddedStore) Close() error {
	err := e.server.Close()
	e.served.Wait()
	return err
}

// minPasswordLength makes the embedded store's password hard to guess. The store does
// not limit how often a client may try.
const minPasswordLength = 8

// embeddedAccess returns the access rules for the embedded store's TCP address. An
// address that is not loopback must have TLS and a password.
func (s *settings) embeddedAccess(log zerolog.Logger) (*embedded.Access, error) {
	host, _, err := net.SplitHostPort(s.EmbeddedListen)
	if err != nil {
		return nil, badConfig("LOTLINE_EMBEDDED_LISTEN: %w", err)
	}
	ip, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && ip.IsLoopback()
	secured := s.EmbeddedTLSCert != "" && s.EmbeddedTLSKey != ""
	switch {
	case !loopback && (!secured || s.EmbeddedPassword == ""):
		return nil, badConfig("LOTLINE_EMBEDDED_LISTEN: %s is not a loopback address, so the embedded store needs LOTLINE_EMBEDDED_TLS_CERT, LOTLINE_EMBEDDED_TLS_KEY and LOTLINE_EMBEDDED_PASSWORD there", s.EmbeddedListen)
	case !secured && (s.EmbeddedTLSCert != "" || s.EmbeddedTLSKey != ""):
		return nil, badConfig("LOTLINE_EMBEDDED_TLS_CERT and LOTLINE_EMBEDDED_TLS_KEY need each other")
	case !secured && s.EmbeddedPassword != "":
		return nil, badConfig("LOTLINE_EMBEDDED_PASSWORD needs LOTLINE_EMBEDDED_TLS_CERT and LOTLINE_EMBEDDED_TLS_KEY: clients send no password without TLS")
	case s.EmbeddedPassword != "" && len(s.EmbeddedPassword) < minPasswordLength:
		return nil, badConfig("LOTLINE_EMBEDDED_PASSWORD must have at least %d characters", minPasswordLength)
	}
	access, err := embedded.NewAccess(s.EmbeddedTLSCert, s.EmbeddedTLSKey, s.EmbeddedPassword, log)
	if err != nil {
		return nil, badConfig("LOTLINE_EMBEDDED_TLS_CERT: %w", err)
	}
	return access, nil
}
