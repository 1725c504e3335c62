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

// exchange is one request being served: it writes the answer, and holds what is known
// about the request so far. The router passes it on as the http.ResponseWriter, so that
// no request needs a context of its own. It belongs to the goroutine that serves the
// request.
type exchange struct {
	http.ResponseWriter
	requestID string
	template  string // the route's path template, "" for an unknown path
	started   time.Time

	// The caller, set by authentication.
	organization *domain.Organization
	keyID        domain.ID
	level        domain.KeyLevel // "" without a valid key
	consumer     string          // the consumer who acts, "" if none does

	values [8]string // storage for the header values of set
	used   int       // how many of values are in use

	status int    // 0 until the answer has begun
	bytes  int    // the size of the body so far
	fault  error  // the engine's own error, for the log
	stack  []byte // the stack of a panic
}

// ServeHTTP answers one request, logs it and notifies the observer.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{ResponseWriter: w, requestID: requestID(r), started: s.Clock()}
	x.set("X-Request-Id", x.requestID)
	if s.Observer != nil {
		r = s.Observer.Received(r)
	}
	defer s.finish(x, r)
	if hasAmbiguousLength(r) {
		x.set("Connection", "close")
	}
	if !isLiteral(r.URL) {
		s.router.NotFoundHandler.ServeHTTP(x, r)
		return
	}
	s.router.ServeHTTP(x, r)
}

// hasAmbiguousLength reports whether a request may have stated its length in two ways.
// Package net/http then believes one header and drops the other: it drops a
// Content-Length beside Transfer-Encoding, and a Transfer-Encoding in HTTP/1.0. A proxy in
// front may believe the dropped header, and then disagrees with the server about where the
// next request begins. For that reason RFC 9112, section 6.1, requires the server to close
// the connection after the answer. The handler cannot see a dropped header, so this
// function returns true for every request that may have had one.
func hasAmbiguousLength(r *http.Request) bool {
	return len(r.TransferEncoding) > 0 || !r.ProtoAtLeast(1, 1)
}

// isLiteral reports whether a URL's path is written without unnecessary encoding. If a
// path encodes a letter or a slash, the router takes it for the plain path. But a proxy
// that blocks certain paths compares them as they are sent and would let it through. The
// same is true of a path behind a scheme without a host.
func isLiteral(u *url.URL) bool {
	// Package net/url sets RawPath only if it would encode the path differently.
	return (u.RawPath == "" || !strings.Contains(u.RawPath, "%")) && (u.Scheme == "" || u.Host != "")
}

// finish logs the request and notifies the observer. If the handler panicked before its
// answer began, finish answers 500.
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
		// This aborts the connection, so the client sees that the answer is incomplete.
		panic(http.ErrAbortHandler)
	}
}

// maxRequestID is the largest length of a request id, in bytes.
const maxRequestID = 128

// requestID returns the request id that the client sent, or a new one if the client sent
// none or one that cannot be used.
func requestID(r *http.Request) string {
	if ids := r.Header["X-Request-Id"]; len(ids) == 1 && domain.VisibleASCII(ids[0], maxRequestID) {
		return ids[0]
	}
	return newRequestID()
}

// newRequestID returns a UUIDv4. It has to be unique, but need not be hard to guess, and
// math/rand takes a tenth of the time of crypto/rand.
func newRequestID() string {
	var id uuid.UUID
	binary.NativeEndian.PutUint64(id[:8], rand.Uint64())
	binary.NativeEndian.PutUint64(id[8:], rand.Uint64())
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id.String()
}

// set sets a header to one value. The name must be in canonical form. The first eight
// values need no memory allocation.
func (x *exchange) set(name, value string) {
	if x.used == len(x.values) {
		x.Header()[name] = []string{value}
		return
	}
	x.values[x.used] = value
	x.used++
	x.Header()[name] = x.values[x.used-1 : x.used : x.used]
}

// WriteHeader begins the answer and keeps its status.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write sends a part of the answer's body. Without an earlier WriteHeader the status is 200.
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

// Header values that many answers share. They must not be changed.
var (
	typeJSON    = []string{"application/json; charset=utf-8"}
	typeProblem = []string{"application/problem+json"}
	typeLines   = []string{mediaLines}
	noSniff     = []string{"nosniff"}
	noStore     = []string{"no-store"}
)

// prepare sets the headers that every answer has, and returns all headers.
func (x *exchange) prepare() http.Header {
	h := x.Header()
	h["X-Content-Type-Options"] = noSniff
	h["Cache-Control"] = noStore
	return h
}

// json answers with a body of the given content type, which is JSON for most answers.
func (x *exchange) json(r *http.Request, status int, contentType []string, body []byte) {
	x.prepare()
	x.send(r, status, contentType, body)
}

// send sets the headers about the body and sends the answer. The answer to a HEAD request
// has these headers but no body. All other headers must be set before.
func (x *exchange) send(r *http.Request, status int, contentType []string, body []byte) {
	x.Header()["Content-Type"] = contentType
	x.set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = x.Write(body) // fails only if the client has gone
	}
}

// empty answers without a body.
func (x *exchange) empty(status int) {
	x.prepare()
	x.WriteHeader(status)
}
