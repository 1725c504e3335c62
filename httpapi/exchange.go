package httpapi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// exchange is a request on its way: the writer of the answer, and what is known
// of the request by now. It is passed through the router as the
// http.ResponseWriter, which spares every request a context of its own. It
// belongs to the goroutine that serves the request.
type exchange struct {
	http.ResponseWriter
	requestID string
	template  string // of the route, "" when the path is unknown
	started   time.Time

	// Set by authentication.
	organization *domain.Organization
	keyID        domain.ID
	level        domain.KeyLevel // "" for a stranger
	consumer     string          // who acts, "" where no consumer does

	values [8]string // room for the headers that set sets
	used   int       // of values

	status int // 0 until the answer has begun
	bytes  int
	fault  error  // what went wrong with us, for the log
	stack  []byte // where, when that was a panic
}

// ServeHTTP answers one request, logs it and tells the observer.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, requestID: requestID(r), started: s.Clock()}
	x.set("X-Request-Id", x.requestID)
	if s.Observer != nil {
		r = s.Observer.Received(r)
	}
	defer s.finish(x, r)
	if mayHideItsLength(r) {
		x.set("Connection", "close")
	}
	if !literal(r.URL) {
		s.router.NotFoundHandler.ServeHTTP(x, r)
		return
	}
	s.router.ServeHTTP(x, r)
}

// mayHideItsLength reports whether a request may have said in two ways how long it is.
// Package net/http believes one of them and drops the other: a Content-Length beside
// Transfer-Encoding, and a Transfer-Encoding in HTTP/1.0. A proxy in front may have
// believed the other one, so that the two do not agree where the next request begins.
// RFC 9112, section 6.1, therefore has the server close the connection after the
// answer. What was dropped cannot be seen any more, so all requests are meant that may
// be of that kind.
func mayHideItsLength(r *http.Request) bool {
	return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1)
}

// literal reports whether a path is written as our own are. A path that encodes a
// letter or a slash names the same place to the router, but not to a proxy that
// compares paths as they are sent, and may have to keep them from the outside. So does
// a path behind a scheme without a host.
func literal(u *url.URL) bool {
	// RawPath is only there when the path is not encoded as package net/url would.
	return (u.RawPath == "" || !strings.Contains(u.RawPath, "%")) && (u.Scheme == "" || u.Host != "")
}

// finish answers for a handler that panicked, and tells the log and the observer.
func (s *server) finish(x *exchange, r *http.Request) {
	p := recover()
	begun := x.status != 0
	if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
		begun = true
	} else if p != nil {
		x.fault, x.stack = fmt.Errorf("panic: %v", p), debug.Stack()
		if !begun {
			x.fail(r, x.fault)
		}
	}
	took := s.Clock().Sub(x.started)
	s.logRequest(x, r, took)
	if s.Observer != nil {
		s.Observer.Finished(r, Answer{x.template, x.status, took, x.requestID})
	}
	if p != nil && begun {
		// The answer is cut short where the client can see it.
		panic(http.ErrAbortHandler)
	}
}

// maxRequestID is how long a request id may be.
const maxRequestID = 128

// requestID is the caller's own or, when that cannot be used, a new one.
func requestID(r *http.Request) string {
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && domain.VisibleASCII(ids[0], maxRequestID) {
		return ids[0]
	}
	return newRequestID()
}

// newRequestID is a UUIDv4. It has to be unique but not hard to guess, and this
// way costs a tenth.
func newRequestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// set sets a header, whose name is in canonical form, to one value. The first
// few cost no memory of their own.
func (x *exchange) set(name, value string) {
	if x.used == len(x.values) {
		x.Header()[name] = []string{value}
		return
	}
	x.values[x.used] = value
	x.used++
	x.Header()[name] = x.values[x.used-1 : x.used : x.used]
}

// WriteHeader begins the answer.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the answer's body.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(b)
	x.bytes += n
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// Header values that many answers share. Nobody changes them.
var (
	typeJSON    = []string{"application/json; charset=utf-8"}
	typeProblem = []string{"application/problem+json"}
	typeLines   = []string{mediaLines}
	noSniff     = []string{"nosniff"}
	noStore     = []string{"no-store"}
)

// prepare sets the headers that every answer has.
func (x *exchange) prepare() http.Header {
	h := x.Header()
	h["X-Content-Type-Options"] = noSniff
	h["Cache-Control"] = noStore
	return h
}

// json answers with a JSON text, or what else contentType says that it is.
func (x *exchange) json(r *http.Request, status int, contentType []string, body []byte) {
	x.prepare()
	x.send(r, status, contentType, body)
}

// send sends a body, or what HEAD shows of one, when all other headers are set.
func (x *exchange) send(r *http.Request, status int, contentType []string, body []byte) {
	x.Header()["Content-Type"] = contentType
	x.set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = x.Write(body) // whoever asked may have gone
	}
}

// empty answers without a body.
func (x *exchange) empty(status int) {
	x.prepare()
	x.WriteHeader(status)
}
