package httpapi

import (
	"hash/maphash"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

// Limits has the numbers of requests a minute that a node allows. The zero value limits
// nothing.
type Limits struct {
	// Secret is how many requests a minute the secret keys of one organization may make
	// together. 0 means no limit.
	Secret int
	// Consumer is how many requests a minute one consumer may make with tokens. 0 means
	// no limit.
	Consumer int
	// Public is how many requests a minute one client address may make with publishable
	// keys or without a valid credential. 0 means no limit.
	Public int
	// TrustedProxies are the addresses of proxies whose X-Forwarded-For is trusted.
	TrustedProxies []netip.Prefix
}

// limiter limits how many requests each caller may make. It uses the generic cell rate
// algorithm in its virtual scheduling form (ITU-T I.371). For each caller it stores only
// the time at which the caller's whole allowance is available again. Used requests become
// available one by one over the minute, so a caller may make a whole minute's requests at
// once.
//
// Its memory is bounded, however many callers there are. The table has a fixed number of
// rows, and a caller's hash selects a row of eight slots. When the row is full, the caller
// with the most allowance left is evicted, and starts with a whole allowance later. So a
// caller who has used up the allowance is evicted last.
//
// A nil limiter limits nothing. Safe for concurrent use.
type limiter struct {
	limit    string        // requests a minute
	interval time.Duration // the time until one used request becomes available again
	period   time.Duration // the time until all do: a minute, except for rounding
	seed     maphash.Seed  // random, so that nobody can choose callers that share a row
	rows     [8192]row
}

type row struct {
	mu    sync.Mutex // guards the field below
	slots [8]slot
}

type slot struct {
	caller uint64 // the caller's hash
	fullAt int64  // when the whole allowance is available, in nanoseconds since 1970
}

// newLimiter returns a limiter that allows perMinute requests a minute. It returns nil for 0.
func newLimiter(perMinute int) *limiter {
	if perMinute <= 0 {
		return nil
	}
	l := &limiter{
		limit:    strconv.Itoa(perMinute),
		interval: max(time.Minute/time.Duration(perMinute), 1),
		seed:     maphash.MakeSeed(),
	}
	l.period = l.interval * time.Duration(perMinute)
	return l
}

// allowance is what a caller has left after a request.
type allowance struct {
	allowed bool          // whether this request is within the limit
	left    int64         // how many more requests may follow at once
	fullAt  time.Time     // when the whole allowance is available again
	wait    time.Duration // the time until one more request is allowed
}

// spend counts one request of a caller.
func (l *limiter) spend(caller string, at time.Time) allowance {
	hash := maphash.String(l.seed, caller)
	now := at.UnixNano()
	r := &l.rows[hash%uint64(len(l.rows))]
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(hash)
	fullAt := max(s.fullAt, now)
	if fullAt > now+int64(l.period) {
		// A caller cannot have used more than the allowance, so the clock was set back
		// and the use is unknown. It counts as unused: refusing requests that are within
		// the limit would be worse.
		fullAt = now
	}
	allowed := fullAt+int64(l.interval) <= now+int64(l.period)
	if allowed {
		fullAt += int64(l.interval)
	}
	*s = slot{hash, fullAt}
	return allowance{
		allowed: allowed,
		left:    (now + int64(l.period) - fullAt) / int64(l.interval),
		fullAt:  time.Unix(0, fullAt),
		wait:    time.Duration(fullAt + int64(l.interval) - now - int64(l.period)),
	}
}

// find returns the caller's slot. A caller without one gets the slot of the caller with
// the most allowance left, with a whole allowance.
func (r *row) find(caller uint64) *slot {
	evicted := &r.slots[0]
	for i := range r.slots {
		s := &r.slots[i]
		if s.caller == caller {
			return s
		}
		if s.fullAt < evicted.fullAt {
			evicted = s
		}
	}
	*evicted = slot{}
	return evicted
}

// limit counts a request of a caller, tells the client what is left of its limit, and
// refuses a request over the limit.
func (x *exchange) limit(l *limiter, caller string) error {
	if l == nil {
		return nil
	}
	s := l.spend(caller, x.started)
	x.set("X-Ratelimit-Limit", l.limit)
	x.set("X-Ratelimit-Remaining", strconv.FormatInt(s.left, 10))
	// With a clock set centuries ahead the time overflows. It must not become negative.
	x.set("X-Ratelimit-Reset", strconv.FormatInt(max(s.fullAt.Add(time.Second-1).Unix(), 0), 10))
	if s.allowed {
		return nil
	}
	return &domain.Error{Code: rateLimitExceeded, Message: l.limit + " a minute are allowed", RetryAfter: s.wait}
}

// clientAddress returns the address of the client that sent a request: the nearest
// address that is not a trusted proxy's. Addresses beyond it in X-Forwarded-For cannot be
// trusted, because any client can write them.
func (s *server) clientAddress(r *http.Request) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{} // not from an IP network
	}
	client := peer.Addr().Unmap()
	if !s.trusts(client) {
		return client
	}
	forwarded := strings.Join(r.Header["X-Forwarded-For"], ",")
	for forwarded != "" && s.trusts(client) {
		last := strings.LastIndexByte(forwarded, ',')
		a, ok := parseForwarded(strings.Trim(forwarded[last+1:], " \t"))
		if !ok {
			break
		}
		client = a
		forwarded = forwarded[:max(last, 0)]
	}
	return client
}

// trusts reports whether an address is a trusted proxy's.
func (s *server) trusts(a netip.Addr) bool {
	for _, p := range s.Limits.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseForwarded reads an element of X-Forwarded-For. Some proxies add a port to the
// address.
func parseForwarded(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(s)
		a = withPort.Addr()
	}
	return a.Unmap().WithZone(""), err == nil
}

// addressCaller returns the limiter's caller for an address. All IPv6 addresses with the
// same first 64 bits are one caller, because a client usually has all of them.
func addressCaller(a netip.Addr) string {
	b := a.As16()
	if a.Is6() {
		return string(b[:8])
	}
	return string(b[:])
}
