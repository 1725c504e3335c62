package embedded

import (
	"context"
	"crypto/tls"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc/credentials"
)

// handshakeTimeout is how long a connection may take until its protocol is known and
// ready: the TLS handshake, the first bytes, and for gRPC the preface and the settings of
// HTTP/2. It is also how long the header of an HTTP/1 request may take.
const handshakeTimeout = 5 * time.Second

// handshaker accepts a server's connections and tells their protocols apart by the first
// bytes. Most connections speak gRPC and stay open. HTTP/1 connections carry a short
// request and go to an http.Server: gRPC served through an http.Server would be several
// times as slow. gRPC calls the handshaker as its transport credentials, the only place
// where gRPC lets a connection be handed to somebody else.
type handshaker struct {
	credentials.TransportCredentials // for the methods that only clients need

	closing context.Context //nolint:containedctx // it ends when the server closes, as the handshaker does
	http    httpConns
}

// accessListener is a listener with the access that its clients need.
type accessListener struct {
	net.Listener
	access     *Access
	handshaker *handshaker
	pending    *pending
}

func (l accessListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c := &incomingConn{pendingConn: l.pending.add(conn), access: l.access}
	c.detach = context.AfterFunc(l.handshaker.closing, func() { _ = c.pendingConn.Close() })
	return c, nil
}

// incomingConn is a new connection. Closing the server closes it during the handshake,
// because gRPC would wait for it. After the handshake it is the AuthInfo of the
// connection's calls.
type incomingConn struct {
	*pendingConn
	access *Access
	isHTTP bool        // it was handed to the HTTP/1 server; owned by the goroutine of the handshake
	detach func() bool // from now on, closing the server does not close the connection
}

// SetDeadline sets the connection's deadline. gRPC calls it before the handshake, and
// again after the handshake with the zero time, which clears the deadline.
//
// The deadline of a connection that was handed to the HTTP/1 server stays as it is: that
// server may already have set its own.
func (c *incomingConn) SetDeadline(t time.Time) error {
	if t.IsZero() {
		c.detach()
	}
	if c.isHTTP {
		return nil
	}
	if t.IsZero() {
		c.awaitCall()
	}
	return c.pendingConn.SetDeadline(t)
}

func (c *incomingConn) Close() error {
	c.detach()
	return c.pendingConn.Close()
}

// AuthType returns the name of the authentication method.
func (c *incomingConn) AuthType() string { return "basic" }

// ServerHandshake does the TLS handshake of a connection, if there is one, and finds out
// its protocol.
func (h *handshaker) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	incoming := raw.(*incomingConn)
	var conn net.Conn = incoming.pendingConn
	if config := incoming.access.tlsConfig(); config != nil {
		secured := tls.Server(conn, config)
		if err := secured.HandshakeContext(h.closing); err != nil {
			return nil, nil, err
		}
		conn = secured
	}
	// HTTP/2 begins with PRI. No HTTP/1 method does, and none is shorter than three bytes.
	first := make([]byte, len("PRI"))
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, nil, err
	}
	conn = &replayedConn{Conn: conn, first: first}
	if string(first) == "PRI" {
		return conn, incoming, nil
	}
	incoming.isHTTP = true
	h.http.add(conn)
	return nil, nil, credentials.ErrConnDispatched
}

// replayedConn is a connection whose first bytes were already read. Its reader gets them again.
type replayedConn struct {
	net.Conn
	first []byte
}

func (o *replayedConn) Read(p []byte) (int, error) {
	if len(o.first) == 0 {
		return o.Conn.Read(p)
	}
	n := copy(p, o.first)
	o.first = o.first[n:]
	return n, nil
}

// httpConns are the connections that speak HTTP/1. It is the listener of the http.Server
// for them.
type httpConns struct {
	server  *http.Server
	waiting chan net.Conn
	ended   chan struct{}
	end     func()
	served  sync.WaitGroup
}

func (h *httpConns) open(handler http.Handler) {
	h.waiting, h.ended = make(chan net.Conn), make(chan struct{})
	h.end = sync.OnceFunc(func() { close(h.ended) })
	h.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: handshakeTimeout,
		ReadTimeout:       handshakeTimeout,
		WriteTimeout:      handshakeTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          stdlog.New(io.Discard, "", 0),
	}
	h.served.Go(func() { _ = h.server.Serve(h) }) // returns after close
}

func (h *httpConns) add(conn net.Conn) {
	select {
	case h.waiting <- conn:
	case <-h.ended:
		_ = conn.Close()
	}
}

func (h *httpConns) Accept() (net.Conn, error) {
	select {
	case conn := <-h.waiting:
		return conn, nil
	case <-h.ended:
		return nil, net.ErrClosed
	}
}

func (h *httpConns) Close() error {
	h.end()
	return nil
}

func (h *httpConns) Addr() net.Addr { return &net.UnixAddr{} }

// close closes the HTTP/1 connections. It may be called once no new ones arrive.
func (h *httpConns) close() error {
	err := h.server.Close()
	h.served.Wait()
	return err
}

// healthPath is the path where a real server reports that it is alive.
const healthPath = "/health/live"

// health responds as a real server does, without a body: 204, or 503 while the server is
// closing.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != healthPath:
		w.WriteHeader(http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case s.handshaker.closing.Err() != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
