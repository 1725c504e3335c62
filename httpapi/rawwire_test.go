package httpapi

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// rawServer is a world whose API is served on a port, for clients that write any bytes.
type rawServer struct {
	*world
	address string
}

// bodyTimeout is how long the server of newRawServer waits for a whole request.
const bodyTimeout = 2 * time.Second

func newRawServer(tb testing.TB) *rawServer {
	tb.Helper()
	w := newWorld(tb)
	server := httptest.NewUnstartedServer(w.api)
	server.Config.ReadTimeout = bodyTimeout
	server.Start()
	tb.Cleanup(server.Close)
	return &rawServer{w, server.Listener.Addr().String()}
}

// rawConn is a connection to a rawServer.
type rawConn struct {
	tb      testing.TB
	conn    net.Conn
	answers *bufio.Reader
}

func (s *rawServer) dial() *rawConn {
	s.tb.Helper()
	conn, err := (&net.Dialer{}).DialContext(s.tb.Context(), "tcp", s.address)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(func() { _ = conn.Close() })
	// If the server sends nothing, the test fails but does not hang.
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		s.tb.Fatal(err)
	}
	return &rawConn{s.tb, conn, bufio.NewReader(conn)}
}

// send writes a request. The server may have closed the connection by then.
func (c *rawConn) send(format string, args ...any) { _, _ = fmt.Fprintf(c.conn, format, args...) }

// rawAnswer is an answer that was read from the connection.
type rawAnswer struct {
	*http.Response
	text string
}

// answer reads the answer to one request. method is the method of the request.
func (c *rawConn) answer(method string) rawAnswer {
	c.tb.Helper()
	a, err := http.ReadResponse(c.answers, &http.Request{Method: method})
	if err != nil {
		c.tb.Fatalf("no answer: %v", err)
	}
	text, err := io.ReadAll(a.Body)
	if err != nil {
		c.tb.Fatal(err)
	}
	if err := a.Body.Close(); err != nil {
		c.tb.Fatal(err)
	}
	return rawAnswer{a, string(text)}
}

// closed checks that the server sends no more and closes the connection.
func (c *rawConn) closed() {
	c.tb.Helper()
	rest, err := io.ReadAll(c.answers)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.tb.Error("the connection stays open")
	}
	if len(rest) > 0 {
		c.tb.Errorf("there is another answer: %q", rest)
	}
}

// refuses checks the status and the error of an answer.
func (a rawAnswer) refuses(tb testing.TB, status int, text string) {
	tb.Helper()
	var f failure
	err := json.Unmarshal([]byte(a.text), &f)
	if code := strings.ToUpper(strings.ReplaceAll(text, " ", "_")); err != nil || a.StatusCode != status || f.Error != text || f.Code != code {
		tb.Errorf("%d %s, want %d %s", a.StatusCode, a.text, status, text)
	}
}

const (
	asMe     = "Host: x\r\nAuthorization: Bearer " + myKey + "\r\nContent-Type: application/json\r\n"
	asPublic = "Host: x\r\nX-Publishable-Key: " + myPublic + "\r\nContent-Type: application/json\r\n"
)

// A body that comes too slowly is refused with 408, and not as bad JSON.
func TestWire_aBodyThatComesTooSlowlyIsARequestTimeout(t *testing.T) {
	t.Parallel()
	s := newRawServer(t)
	path, _ := s.create("queues", `{"sequenceId":"s"}`)
	sent := map[string]*rawConn{} // all time out at the same time
	for name, request := range map[string]string{
		"of a length":              "POST " + queues + " HTTP/1.1\r\n" + asMe + "Content-Length: 1000\r\n\r\n{\"sequenceId\":",
		"in pieces":                "POST " + queues + " HTTP/1.1\r\n" + asMe + "Transfer-Encoding: chunked\r\n\r\n5\r\n{\"seq\r\n",
		"with a PUT":               "PUT " + path + " HTTP/1.1\r\n" + asMe + "Content-Length: 10\r\n\r\n",
		"that the call ignores":    "GET " + path + " HTTP/1.1\r\n" + asMe + "Content-Length: 10\r\n\r\n",
		"that the call has not":    "POST " + path + "/open HTTP/1.1\r\n" + asMe + "Content-Length: 2\r\n\r\n{",
		"of no type":               "GET " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n",
		"that the probes know not": "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		c := s.dial()
		c.send("%s", request)
		sent[name] = c
	}
	s.writes(0, func() {
		for name, c := range sent {
			a := c.answer(http.MethodPost)
			a.refuses(t, http.StatusRequestTimeout, "Request timeout")
			if !a.Close {
				t.Errorf("%s: the connection is said to stay open", name)
			}
			c.closed()
		}
	})
	if strings.Contains(s.logged.String(), `"level":"error"`) {
		t.Errorf("the client's failure is logged as ours: %s", s.logged)
	}
}

// After a request that states its length in two ways, the server must not read another one:
// the next bytes may be part of the first request.
func TestWire_nothingIsReadAfterARequestOfTwoLengths(t *testing.T) {
	t.Parallel()
	s := newRawServer(t)
	const next = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
	for name, request := range map[string]string{
		"a length and chunks":                         "POST " + queues + " HTTP/1.1\r\n" + asMe + "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"chunks and a length":                         "POST " + queues + " HTTP/1.1\r\n" + asMe + "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		"no chunks and a length":                      "POST " + queues + " HTTP/1.1\r\n" + asMe + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"beside a GET":                                "GET /livez HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"to nothing":                                  "POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"chunks in HTTP/1.0, which has none":          "GET /livez HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n",
		"both in HTTP/1.0":                            "POST " + queues + " HTTP/1.0\r\n" + asMe + "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"chunks alone, which cannot be distinguished": "POST " + queues + " HTTP/1.1\r\n" + asMe + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
	} {
		c := s.dial()
		c.send("%s", request+next)
		if a := c.answer(http.MethodPost); !a.Close {
			t.Errorf("%s: %d, and the connection is said to stay open", name, a.StatusCode)
		}
		c.closed()
	}
	// Two different Content-Length headers are refused before a handler is called.
	c := s.dial()
	c.send("POST %s HTTP/1.1\r\n%sContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}%s", queues, asMe, next)
	if a := c.answer(http.MethodPost); a.StatusCode != http.StatusBadRequest || !a.Close {
		t.Errorf("two lengths: %d", a.StatusCode)
	}
	c.closed()
}

// A call without a body refuses a large body by its Content-Length alone, or when its chunks
// exceed the limit, also from a client without a key.
func TestWire_aCallWithoutABodyReadsNoLargeOne(t *testing.T) {
	t.Parallel()
	s := newRawServer(t)
	path, _ := s.create("queues", `{"sequenceId":"s"}`)
	pieces := strings.Repeat("100\r\n"+strings.Repeat(" ", 0x100)+"\r\n", 17)
	type refused struct {
		what, method string
		conn         *rawConn
	}
	var sent []refused
	for target, as := range map[string]string{
		"POST /api/v1/auth/guest":  asPublic,
		"POST " + path + "/open":   asMe,
		"POST " + path + "/enter":  asMe + "X-Consumer-Id: c\r\n",
		"GET " + path:              asPublic,
		"GET " + queues:            asMe,
		"HEAD " + path:             asMe,
		"DELETE " + path:           asMe,
		"OPTIONS " + path:          asPublic,
		"GET /livez":               "Host: x\r\n",
		"GET /readyz":              "Host: x\r\n",
		"GET /openapi.json":        "Host: x\r\n",
		"GET /console":             "Host: x\r\n",
		"GET /api/v1/organization": "Host: x\r\n", // without a key
	} {
		method, _, _ := strings.Cut(target, " ")
		for name, request := range map[string]string{
			"by its length":     "Content-Length: 4097\r\n\r\n", // the body itself is never sent
			"when asked for it": "Content-Length: 1000000\r\nExpect: 100-continue\r\n\r\n",
			"in pieces":         "Transfer-Encoding: chunked\r\n\r\n" + pieces,
		} {
			c := s.dial()
			c.send("%s HTTP/1.1\r\n%s%s", target, as, request)
			sent = append(sent, refused{target + " " + name, method, c})
		}
	}
	s.writes(0, func() {
		for _, r := range sent {
			a := r.conn.answer(r.method)
			if a.StatusCode != http.StatusRequestEntityTooLarge || !a.Close {
				t.Errorf("%s: %d %s, to be closed: %t", r.what, a.StatusCode, a.text, a.Close)
			}
			if r.method != http.MethodHead {
				a.refuses(t, http.StatusRequestEntityTooLarge, "Content too large")
			}
			r.conn.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		}
		for _, r := range sent {
			r.conn.closed()
		}
	})
	// A body of 4 KiB is read.
	c := s.dial()
	c.send("POST %s/open HTTP/1.1\r\n%sContent-Length: 4096\r\n\r\n{%s}", path, asMe, strings.Repeat(" ", 4094))
	if a := c.answer(http.MethodPost); a.StatusCode != http.StatusOK || a.Close {
		t.Errorf("4 KiB: %d %s", a.StatusCode, a.text)
	}
	c.send("GET %s HTTP/1.1\r\n%sContent-Length: 4096\r\n\r\n%s", path, asMe, strings.Repeat("x", 4096))
	if a := c.answer(http.MethodGet); a.StatusCode != http.StatusOK || a.Close {
		t.Errorf("4 KiB beside a GET: %d %s", a.StatusCode, a.text)
	}
}

// The bytes of a refused body are never read as the next request, whatever the refusal.
func TestWire_theBodyOfARefusedRequestIsNotTheNextRequest(t *testing.T) {
	t.Parallel()
	s := newRawServer(t)
	const hidden = "POST " + queues + " HTTP/1.1\r\n" + asMe + "X-Request-Id: hidden\r\nContent-Length: 18\r\n\r\n{\"sequenceId\":\"s\"}"
	for name, head := range map[string]string{
		"an unknown key":           "POST " + queues + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + unknownKey + "\r\n",
		"another media type":       "POST " + queues + " HTTP/1.1\r\n" + strings.Replace(asMe, mediaJSON, "text/plain", 1),
		"no JSON":                  "POST " + queues + " HTTP/1.1\r\n" + asMe,
		"no such path":             "POST /nothing HTTP/1.1\r\nHost: x\r\n",
		"a path that is encoded":   "POST /api/v1/%71ueues HTTP/1.1\r\n" + asMe,
		"a method that it has not": "PATCH " + queues + " HTTP/1.1\r\n" + asMe,
		"a parameter":              "POST " + queues + "?x=1 HTTP/1.1\r\n" + asMe,
		"a GET":                    "GET " + queues + " HTTP/1.1\r\n" + asMe,
		"more than 1 MiB":          "POST " + queues + " HTTP/1.1\r\n" + asMe + "X-Length: 1048577\r\n",
	} {
		length := len(hidden)
		if strings.Contains(head, "X-Length") {
			length = maxBody + 1
		}
		s.writes(0, func() {
			c := s.dial()
			c.send("%sContent-Length: %d\r\n\r\n%sGET /livez HTTP/1.1\r\nHost: x\r\nX-Request-Id: next\r\n\r\n", head, length, hidden)
			a := c.answer(http.MethodPost)
			if id := a.Header.Get("X-Request-Id"); id == "next" || id == "hidden" {
				t.Errorf("%s: the first answer is to %s", name, id)
			}
			if a.Close {
				c.closed()
				return
			}
			if next := c.answer(http.MethodGet); next.StatusCode != http.StatusOK || next.Header.Get("X-Request-Id") != "next" {
				t.Errorf("%s: then %d to %s", name, next.StatusCode, next.Header.Get("X-Request-Id"))
			}
		})
	}
}

// A client that waits for 100 Continue gets the refusal instead.
func TestWire_aRefusedBodyGetsNo100Continue(t *testing.T) {
	t.Parallel()
	s := newRawServer(t)
	for name, c := range map[string]struct {
		head   string
		status int
	}{
		"too large":      {asMe + "Content-Length: 2000000\r\n", http.StatusRequestEntityTooLarge},
		"another type":   {strings.Replace(asMe, mediaJSON, "text/plain", 1) + "Content-Length: 10\r\n", http.StatusUnsupportedMediaType},
		"an unknown key": {"Host: x\r\nAuthorization: Bearer " + unknownKey + "\r\nContent-Length: 10\r\n", http.StatusUnauthorized},
	} {
		conn := s.dial()
		conn.send("POST %s HTTP/1.1\r\n%sExpect: 100-continue\r\n\r\n", queues, c.head)
		if a := conn.answer(http.MethodPost); a.StatusCode != c.status || !a.Close {
			t.Errorf("%s: %d %s", name, a.StatusCode, a.text)
		}
		conn.closed()
	}
	conn := s.dial()
	conn.send("POST %s HTTP/1.1\r\n%sContent-Length: 18\r\nExpect: 100-continue\r\n\r\n", queues, asMe)
	if a := conn.answer(http.MethodPost); a.StatusCode != http.StatusContinue {
		t.Fatalf("one that is taken: %d %s", a.StatusCode, a.text)
	}
	conn.send(`{"sequenceId":"s"}`)
	if a := conn.answer(http.MethodPost); a.StatusCode != http.StatusCreated {
		t.Errorf("one that is taken: %d %s", a.StatusCode, a.text)
	}
}
