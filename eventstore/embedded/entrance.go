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

// entranceTimeout is how long a connection may take for its handshake: that of TLS,
// the first bytes that tell what it speaks, and for gRPC the preface and the settings
// of HTTP/2. It is also how long the header of an HTTP/1 request may take.
const entranceTimeout = 5 * time.Second

// entrance takes a server's connections in. Most speak gRPC and stay; some are
// visitors with a question over HTTP/1. They are told apart by their first bytes,
// because gRPC through a server for both is several times as slow. It is put in
// gRPC's way as its transport credentials, where gRPC allows for connections that
// turn out to be somebody else's.
type entrance struct {
	credentials.TransportCredentials // for what only clients need

	closing  context.Context //nolint:containedctx // it ends with the server, as the entrance does
	visitors visitors
}

// door is a listener whose connections get in as access says.
type door struct {
	net.Listener
	access   *Access
	entrance *entrance
	pending  *pending
}

func (d door) Accept() (net.Conn, error) {
	conn, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	e := &entrant{pendingConn: d.pending.add(conn), access: d.access}
	e.admit = context.AfterFunc(d.entrance.closing, func() { _ = e.pendingConn.Close() })
	return e, nil
}

// entrant is a connection on its way in. It is closed with the server; gRPC
// would wait for it. When it is in, it is what gRPC knows of the client of a call.
type entrant struct {
	*pendingConn
	access  *Access
	visitor bool        // whether it was handed on; owned by the goroutine that takes it in
	admit   func() bool // ends its being closed with the server
}

// SetDeadline is called by gRPC before a connection is taken in, and without a
// deadline when it is in. By then a visitor's deadlines are set by others.
func (e *entrant) SetDeadline(t time.Time) error {
	if t.IsZero() {
		e.admit()
	}
	if e.visitor {
		return nil
	}
	if t.IsZero() {
		e.awaitCall()
	}
	return e.pendingConn.SetDeadline(t)
}

func (e *entrant) Close() error {
	e.admit()
	return e.pendingConn.Close()
}

// AuthType names how calls are authenticated.
func (e *entrant) AuthType() string { return "basic" }

// ServerHandshake finds out what a new connection is for.
func (e *entrance) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	entering := raw.(*entrant)
	var conn net.Conn = entering.pendingConn
	if config := entering.access.tlsConfig(); config != nil {
		secured := tls.Server(conn, config)
		if err := secured.HandshakeContext(e.closing); err != nil {
			return nil, nil, err
		}
		conn = secured
	}
	// No method of HTTP/1 is shorter, and none begins as HTTP/2 does.
	first := make([]byte, len("PRI"))
	if _, err := io.ReadFull(conn, first); err != nil {
		return nil, nil, err
	}
	conn = &opened{Conn: conn, first: first}
	if string(first) == "PRI" {
		return conn, entering, nil
	}
	entering.visitor = true
	e.visitors.take(conn)
	return nil, nil, credentials.ErrConnDispatched
}

// opened is a connection whose first bytes were read and are given again.
type opened struct {
	net.Conn
	first []byte
}

func (o *opened) Read(p []byte) (int, error) {
	if len(o.first) == 0 {
		return o.Conn.Read(p)
	}
	n := copy(p, o.first)
	o.first = o.first[n:]
	return n, nil
}

// visitors are the connections that speak HTTP/1, as the listener of the server
// that answers them.
type visitors struct {
	server  *http.Server
	waiting chan net.Conn
	ended   chan struct{}
	end     func()
	served  sync.WaitGroup
}

func (v *visitors) open(handler http.Handler) {
	v.waiting, v.ended = make(chan net.Conn), make(chan struct{})
	v.end = sync.OnceFunc(func() { close(v.ended) })
	v.server = &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: entranceTimeout,
		ReadTimeout:       entranceTimeout,
		WriteTimeout:      entranceTimeout,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          stdlog.New(io.Discard, "", 0),
	}
	v.served.Go(func() { _ = v.server.Serve(v) }) // until close
}

func (v *visitors) take(conn net.Conn) {
	select {
	case v.waiting <- conn:
	case <-v.ended:
		_ = conn.Close()
	}
}

func (v *visitors) Accept() (net.Conn, error) {
	select {
	case conn := <-v.waiting:
		return conn, nil
	case <-v.ended:
		return nil, net.ErrClosed
	}
}

func (v *visitors) Close() error {
	v.end()
	return nil
}

func (v *visitors) Addr() net.Addr { return &net.UnixAddr{} }

// close cuts visitors off. It may be called when no more come in.
func (v *visitors) close() error {
	err := v.server.Close()
	v.served.Wait()
	return err
}

// healthPath is where a real server tells that it is alive.
const healthPath = "/health/live"

// health answers as a real server does: without a body, 204 or, when it is about
// to end, 503.
func (s *Server) health(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path != healthPath:
		w.WriteHeader(http.StatusNotFound)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		w.WriteHeader(http.StatusMethodNotAllowed)
	case s.entrance.closing.Err() != nil:
		w.WriteHeader(http.StatusServiceUnavailable)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
