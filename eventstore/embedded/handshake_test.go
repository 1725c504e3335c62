package embedded

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/rs/zerolog"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/connectivity"
)

func TestHealth_live(t *testing.T) {
	t.Parallel()
	server := start(t)
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	plain := server.listenTCP(t, &Access{})
	guarded := server.listenTCP(t, newAccess(t, certFile, keyFile, testPassword, zerolog.Nop()))
	overSocket := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", server.socket)
	}}
	insecure := &tls.Config{InsecureSkipVerify: true}
	for claim, c := range map[string]struct {
		url       string
		transport *http.Transport
	}{
		"plain":                     {"http://" + plain, &http.Transport{}},
		"the socket":                {"http://localhost", overSocket},
		"TLS, HTTP/1 alone":         {"https://" + guarded, &http.Transport{TLSClientConfig: insecure}},
		"TLS, HTTP/2 would do also": {"https://" + guarded, &http.Transport{TLSClientConfig: insecure, ForceAttemptHTTP2: true}},
	} {
		client := &http.Client{Transport: c.transport, Timeout: 10 * time.Second}
		for _, call := range []struct {
			method, path string
			want         int
		}{
			{"GET", "/health/live", 204},
			{"HEAD", "/health/live", 204},
			{"POST", "/health/live", 405},
			{"GET", "/health/ready", 404},
			{"GET", "/", 404},
			{"POST", "/event_store.client.streams.Streams/Append", 404},
		} {
			request, err := http.NewRequest(call.method, c.url+call.path, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				t.Fatalf("%s: %v", claim, err)
			}
			body, err := io.ReadAll(response.Body)
			response.Body.Close()
			if response.StatusCode != call.want || len(body) != 0 || err != nil {
				t.Errorf("%s: %s %s: %d with %q, %v", claim, call.method, call.path, response.StatusCode, body, err)
			}
		}
		client.CloseIdleConnections()
	}
	// gRPC works at the same time.
	mustAppend(t, connectTo(t, plain), "s", esdb.NoStream{}, newEvent("x", "{}"))
}

func TestHealth_unavailableWhileTheServerCloses(t *testing.T) {
	t.Parallel()
	server := start(t)
	conn, err := net.Dial("tcp", server.listenTCP(t, &Access{}))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	responses := bufio.NewReader(conn)
	ask := func() int {
		t.Helper()
		if _, err := io.WriteString(conn, "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(responses, nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := response.Body.Close(); err != nil {
			t.Error(err)
		}
		return response.StatusCode
	}
	if status := ask(); status != http.StatusNoContent {
		t.Errorf("while it runs: %d", status)
	}
	server.announce()
	if status := ask(); status != http.StatusServiceUnavailable {
		t.Errorf("when it is about to end: %d", status)
	}
}

// A connection that stays silent lasts as long as a handshake may take. Closing the
// server does not wait for it.
func TestClose_isNotHeldUpByASilentConnection(t *testing.T) {
	t.Parallel()
	server := start(t)
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	plain := server.listenTCP(t, &Access{})
	secured := server.listenTCP(t, newAccess(t, certFile, keyFile, "", zerolog.Nop()))
	for address, sent := range map[string][]string{
		plain:   {"", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET /health/live HTTP/1.1\r\n"},
		secured: {"", "GET"},
	} {
		for _, bytes := range sent {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { conn.Close() })
			if _, err := io.WriteString(conn, bytes); err != nil {
				t.Fatal(err)
			}
		}
		// Connections are accepted in order, so those above were accepted when this one
		// works.
		if address == plain {
			mustAppend(t, connectTo(t, plain), "s", esdb.Any{}, newEvent("x", "{}"))
		}
	}
	begun := time.Now()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took >= closeGrace {
		t.Errorf("closing took %v", took)
	}
}

// pipeListener is a listener whose connections are pipes: dial returns the other end of
// each.
type pipeListener struct {
	connections chan net.Conn
	closed      chan struct{}
	close       func()
}

func newPipeListener() *pipeListener {
	l := &pipeListener{connections: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	return l
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.connections:
		return conn, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.close()
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Net: "pipe"} }

func (l *pipeListener) dial() net.Conn { return l.dialFrom("192.0.2.1") }

// dialFrom dials as a client with that IP address.
func (l *pipeListener) dialFrom(ip string) net.Conn {
	ours, theirs := net.Pipe()
	l.connections <- addressed{theirs, &net.TCPAddr{IP: net.ParseIP(ip), Port: 1024}}
	return ours
}

// addressed is a connection with a given remote address.
type addressed struct {
	net.Conn
	remote net.Addr
}

func (a addressed) RemoteAddr() net.Addr { return a.remote }

// h2Client is what an HTTP/2 client sends first: the preface and empty settings.
const h2Client = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// h2Call is the header frame of a call of Streams.Read.
var h2Call = func() string {
	var block, frame bytes.Buffer
	header := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"},
		{":scheme", "http"},
		{":path", "/event_store.client.streams.Streams/Read"},
		{":authority", "x"},
		{"content-type", "application/grpc"},
		{"te", "trailers"},
	} {
		if err := header.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			panic(err)
		}
	}
	err := http2.NewFramer(&frame, nil).WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	if err != nil {
		panic(err)
	}
	return frame.String()
}()

func TestHandshake_cutsOffASilentConnection(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	for claim, c := range map[string]struct {
		secured bool
		sent    string
		slowly  bool // send one byte per second
		limit   time.Duration
	}{
		"gRPC without a call":        {sent: h2Client, limit: handshakeTimeout + firstCallTimeout},
		"TLS in drops":               {secured: true, slowly: true, sent: "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + string(make([]byte, 100))},
		"gRPC in drops":              {slowly: true, sent: h2Client},
		"a request in drops":         {limit: 2 * handshakeTimeout, slowly: true, sent: "GET /health/live HTTP/1.1\r\nHost: " + strings.Repeat("x", 100)},
		"nothing at all":             {sent: ""},
		"the beginning of gRPC":      {sent: "PRI * HTTP/2.0\r\n"},
		"gRPC without its settings":  {sent: "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
		"half of a request":          {sent: "GET /health/live HTTP/1.1\r\nHost: "},
		"half of a body":             {sent: "POST /health/live HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nx"},
		"nothing in place of TLS":    {secured: true, sent: ""},
		"half of a message of TLS":   {secured: true, sent: "\x16\x03\x01\x02\x00\x01"},
		"a header that is very long": {sent: "GET /" + string(make([]byte, 64<<10))},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.db")
			synctest.Test(t, func(t *testing.T) {
				server, err := open(path, zerolog.Nop(), time.Now)
				if err != nil {
					t.Fatal(err)
				}
				access := &Access{}
				if c.secured {
					access = newAccess(t, certFile, keyFile, "", zerolog.Nop())
				}
				listener := newPipeListener()
				served := make(chan error, 1)
				go func() { served <- server.Serve(listener, access) }()
				conn := listener.dial()
				var writing sync.WaitGroup
				writing.Go(func() {
					if !c.slowly {
						_, _ = io.WriteString(conn, c.sent)
						return
					}
					for _, b := range []byte(c.sent) {
						if _, err := conn.Write([]byte{b}); err != nil {
							return
						}
						time.Sleep(time.Second) //nolint:forbidigo // in a synctest bubble
					}
				})
				begun := time.Now()
				// What the server sends before it closes does not matter.
				if _, err := io.Copy(io.Discard, conn); err != nil && !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("it hung up with %v", err)
				}
				if took := time.Since(begun); took > cmp.Or(c.limit, handshakeTimeout)+time.Second {
					t.Errorf("it took %v", took)
				}
				if err := errors.Join(conn.Close(), server.Close(), <-served); err != nil {
					t.Error(err)
				}
				writing.Wait()
			})
		})
	}
}

// A client without calls loses its connection, even if it responds to pings. A client
// that makes another call does not notice.
func TestServe_closesIdleConnections(t *testing.T) {
	t.Parallel()
	servePipes(t, filepath.Join(t.TempDir(), "events.db"), nil, func(s bubbleServer) {
		client := s.client("192.0.2.1", false)
		for want := 1; want <= 3; want++ {
			for range 2 {
				if err := client.call(s.Context(), ""); err != nil || client.dialed != want {
					s.Fatalf("%d connections, want %d: %v", client.dialed, want, err)
				}
				time.Sleep(idleLimit / 2) //nolint:forbidigo // in a synctest bubble
			}
			if state := client.GetState(); state != connectivity.Ready {
				s.Errorf("after half the time it is %v", state)
			}
			time.Sleep(idleLimit) //nolint:forbidigo // in a synctest bubble
			if state := client.GetState(); state != connectivity.Idle {
				s.Errorf("after all of the time it is %v", state)
			}
		}
		if err := client.Close(); err != nil {
			s.Error(err)
		}
	})
}

// A connection frees its place however it ends: as an HTTP/1 connection, by a timeout, by
// eviction, or after calls.
func TestServe_placesComeBack(t *testing.T) {
	t.Parallel()
	servePipes(t, filepath.Join(t.TempDir(), "events.db"), nil, func(s bubbleServer) {
		for claim, sent := range map[string]string{
			"silent": "", "HTTP/1": "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", "clients": h2Client, "clients with a call": h2Client + h2Call,
		} {
			begun := time.Now()
			for range 3 {
				var open []net.Conn
				for range connectionsLimit {
					conn := s.dial()
					open = append(open, conn)
					go func() { _, _ = io.Copy(io.Discard, conn) }()
					go func() { _, _ = io.WriteString(conn, sent) }()
				}
				synctest.Wait()
				for _, conn := range open {
					_ = conn.Close()
				}
				synctest.Wait()
			}
			if took := time.Since(begun); took != 0 {
				s.Errorf("%s: the places were free again after %v", claim, took)
			}
		}
	})
}

// Clients beyond the limit wait until another one disconnects.
func TestServe_takesNoMoreConnectionsThanItsLimit(t *testing.T) {
	t.Parallel()
	servePipes(t, filepath.Join(t.TempDir(), "events.db"), nil, func(s bubbleServer) {
		var open []net.Conn
		for range connectionsLimit + pendingLimit {
			conn := s.dial()
			open = append(open, conn)
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			// Each client makes its call before the next one connects, so none is
			// pending.
			if _, err := io.WriteString(conn, h2Client+h2Call); err != nil {
				s.Fatal(err)
			}
			synctest.Wait()
		}
		more := make(chan net.Conn)
		go func() { more <- s.dial() }()
		synctest.Wait()
		select {
		case <-more:
			s.Error("one more is let in")
		default:
		}
		for _, conn := range open {
			_ = conn.Close()
		}
		_ = (<-more).Close()
	})
}

// gRPC clears a connection's deadline after the handshake, also if the connection was
// handed over. By then the HTTP/1 server may have set its own deadline.
func TestIncomingConn_theDeadlineOfAnHTTPConnectionStays(t *testing.T) {
	t.Parallel()
	for _, isHTTP := range []bool{true, false} {
		ours, theirs := net.Pipe()
		e := &incomingConn{pendingConn: newPending(zerolog.Nop()).add(theirs), isHTTP: isHTTP, detach: func() bool { return true }}
		if err := errors.Join(theirs.SetDeadline(time.Unix(1, 0)), e.SetDeadline(time.Time{})); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = ours.Write([]byte("x")) }()
		if _, err := e.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) != isHTTP {
			t.Errorf("isHTTP %v: %v", isHTTP, err)
		}
		if err := errors.Join(ours.Close(), theirs.Close()); err != nil {
			t.Error(err)
		}
	}
}
