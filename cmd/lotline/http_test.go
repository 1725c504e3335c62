package main

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/httpapi"
)

// pipes is a listener whose connections are pipes inside the process. With them a test
// can run in a synctest bubble, where time costs nothing.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	c, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

func (p pipes) Close() error   { return nil }
func (p pipes) Addr() net.Addr { return &net.UnixAddr{} }

// overPipe serves h to one client: send writes the requests while talk reads the answers.
// The synctest bubble fails if a goroutine of the server is left at the end.
func overPipe(h http.HandlerFunc, send func(io.Writer), talk func(net.Conn)) {
	server, listener := newHTTPServer(h), make(pipes, 1)
	client, connection := net.Pipe()
	listener <- connection
	var all sync.WaitGroup
	all.Go(func() { _ = server.Serve(listener) })
	all.Go(func() { send(client) })
	talk(client)
	close(listener)
	all.Wait()
	_ = client.Close()
	synctest.Wait()
}

// A slow client cannot hold a connection or the goroutines that serve it.
func TestHTTPServer_cutsOffSlowClients(t *testing.T) {
	t.Parallel()
	const get, post = "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
	for name, c := range map[string]struct {
		sends   string
		slowly  bool // then sends one byte a second
		deaf    bool // does not read the answer
		within  time.Duration
		handled int64 // requests
	}{
		"nothing is sent":        {"", false, false, 10 * time.Second, 0},
		"headers come slowly":    {get[:len(get)-2] + "X: ", true, false, 10 * time.Second, 0},
		"no body comes":          {post, false, false, 30 * time.Second, 1},
		"the body comes slowly":  {post, true, false, 30 * time.Second, 1},
		"the answer is not read": {get, false, true, time.Minute, 1},
		"nothing more is asked":  {get, false, false, 2 * time.Minute, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var handled atomic.Int64
				answered := make(chan struct{})
				began := time.Now()
				overPipe(func(w http.ResponseWriter, r *http.Request) {
					handled.Add(1)
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = w.Write(make([]byte, 1<<20))
					close(answered)
				}, func(client io.Writer) {
					_, err := io.WriteString(client, c.sends)
					for c.slowly && err == nil {
						time.Sleep(time.Second) //nolint:forbidigo // synctest
						_, err = io.WriteString(client, "x")
					}
				}, func(client net.Conn) {
					if c.deaf {
						<-answered
					} else if _, err := io.Copy(io.Discard, client); err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > c.within || handled.Load() != c.handled {
						t.Errorf("cut off after %s, with %d requests handled", took, handled.Load())
					}
				})
			})
		})
	}
}

// The size of a request's headers is limited.
func TestHTTPServer_refusesFloodsOfHeaders(t *testing.T) {
	t.Parallel()
	for name, flood := range map[string]string{
		"one that is long": "GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100<<10) + "\r\n\r\n",
		"many of them":     "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: x\r\n", 20<<10) + "\r\n",
		"a long path":      "GET /" + strings.Repeat("x", 100<<10) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				overPipe(func(http.ResponseWriter, *http.Request) {
					t.Error("it was handled")
				}, func(client io.Writer) {
					_, _ = io.WriteString(client, flood)
				}, func(client net.Conn) {
					answer, err := io.ReadAll(client)
					if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") {
						t.Errorf("%q, %v", answer, err)
					}
				})
			})
		})
	}
}

// The library would answer "OPTIONS *" itself, without the API's headers.
func TestHTTPServer_optionsOfNoPathIsAnsweredByTheAPI(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		overPipe(func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusNotFound)
		}, func(client io.Writer) {
			_, _ = io.WriteString(client, "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		}, func(client net.Conn) {
			answer, err := io.ReadAll(client)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 404 ") {
				t.Errorf("%q, %v", answer, err)
			}
		})
	})
}

// Input that is not HTTP is answered by the library, in plain text and without a request
// id, as the API's document says.
func TestHTTPServer_inputThatIsNotHTTPIsAnsweredByTheLibrary(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sends  string
		status int
	}{
		"a head that is too large": {"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n\r\n", http.StatusRequestHeaderFieldsTooLarge},
		"no host":                  {"GET / HTTP/1.1\r\n\r\n", http.StatusBadRequest},
		"a NUL in the target":      {"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n", http.StatusBadRequest},
		"no version":               {"GET /\r\n\r\n", http.StatusBadRequest},
	} {
		server := httptest.NewUnstartedServer(nil)
		server.Config = newHTTPServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Errorf("%s: it became a request", name) }))
		server.Start()
		t.Cleanup(server.Close)
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, c.sends); err != nil {
			t.Fatal(err)
		}
		a, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		_ = a.Body.Close()
		if a.StatusCode != c.status || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain") || a.Header.Get("X-Request-Id") != "" {
			t.Errorf("%s: %d %v", name, a.StatusCode, a.Header)
		}
	}
}

// If a request's body does not arrive within 30 seconds, the engine answers that the
// request has timed out.
func TestHTTPServer_aBodyThatDoesNotComeIsARequestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		api := httpapi.Starting(httpapi.Config{Clock: time.Now, Log: zerolog.Nop()})
		began := time.Now()
		overPipe(api.ServeHTTP, func(client io.Writer) {
			_, _ = io.WriteString(client, "GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
		}, func(client net.Conn) {
			answer, err := io.ReadAll(client)
			if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 408 ") || !strings.Contains(string(answer), `"code":"REQUEST_TIMEOUT"`) {
				t.Errorf("%q, %v", answer, err)
			}
			if took := time.Since(began); took != 30*time.Second {
				t.Errorf("after %s", took)
			}
		})
	})
}
