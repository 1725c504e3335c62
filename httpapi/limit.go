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

// Limits says how many requests a minute a node takes. Its zero value limits
// nothing.
type Limits struct {
	// Secret is how many the secret keys of one organization may make together,
	// or 0 for any number.
	Secret int
	// Consumer is how many one consumer may make with his tokens, or 0 for any
	// number.
	Consumer int
	// Public is how many one client address may make with publishable keys, or
	// without a valid credential, or 0 for any number.
	Public int
	// TrustedProxies are the addresses whose X-Forwarded-For is believed.
	TrustedProxies []netip.Prefix
}

// limiter counts requests by whoever makes them, by the generic cell rate
// algorithm in its form of virtual scheduling (ITU-T I.371): of each caller it
// knows only when all that was spent is given back. Requests come back one by one
// over the minute, so a whole minute's worth may be spent at once.
//
// Memory is bounded whoever calls: there are so many places, a caller has a few
// that may be his, and the one of them goes first who is closest to having spent
// nothing. Who is forgotten has his limit anew; who has spent all is forgotten last.
// A nil limiter limits nothing. Safe for concurrent use.
type limiter struct {
	limit string        // requests a minute
	every time.Duration // until one more is given back
	span  time.Duration // until all are: a minute, but for rounding
	seed  maphash.Seed  // so that nobody can choose whom to share a row with
	rows  [8192]row
}

type row struct {
	mu    sync.Mutex // guards the field below
	slots [8]slot
}

type slot struct {
	caller uint64
	whole  int64 // when all is given back, in nanoseconds since 1970
}

func newLimiter(perMinute int) *limiter {
	if perMinute <= 0 {
		return nil
	}
	l := &limiter{
		limit: strconv.Itoa(perMinute),
		every: max(time.Minute/time.Duration(perMinute), 1),
		seed:  maphash.MakeSeed(),
	}
	l.span = l.every * time.Duration(perMinute)
	return l
}

// spent is what one more request leads to.
type spent struct {
	allowed bool
	left    int64         // requests that may follow at once
	whole   time.Time     // when all is given back
	wait    time.Duration // until one more is allowed
}

// spend counts a request of a caller's.
func (l *limiter) spend(caller string, at time.Time) spent {
	hash := maphash.String(l.seed, caller)
	now := at.UnixNano()
	r := &l.rows[hash%uint64(len(l.rows))]
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.find(hash)
	whole := max(s.whole, now)
	if whole > now+int64(l.span) {
		// Nobody can have spent more than all: the clock was put back. What was
		// spent is not known any more, and refusing the innocent is worse.
		whole = now
	}
	allowed := whole+int64(l.every) <= now+int64(l.span)
	if allowed {
		whole += int64(l.every)
	}
	*s = slot{hash, whole}
	return spent{
		allowed: allowed,
		left:    (now + int64(l.span) - whole) / int64(l.every),
		whole:   time.Unix(0, whole),
		wait:    time.Duration(whole + int64(l.every) - now - int64(l.span)),
	}
}

// find returns the caller's slot, or the one that he gets, as if he had spent
// nothing.
func (r *row) find(caller uint64) *slot {
	least := &r.slots[0]
	for i := range r.slots {
		s := &r.slots[i]
		if s.caller == caller {
			return s
		}
		if s.whole < least.whole {
			least = s
		}
	}
	*least = slot{}
	return least
}

// limit counts a request, tells the client what is left and refuses one too many.
func (x *exchange) limit(l *limiter, caller string) error {
	if l == nil {
		return nil
	}
	s := l.spend(caller, x.started)
	x.set("X-Ratelimit-Limit", l.limit)
	x.set("X-Ratelimit-Remaining", strconv.FormatInt(s.left, 10))
	// A clock that is far beyond its century must not make it negative.
	x.set("X-Ratelimit-Reset", strconv.FormatInt(max(s.whole.Add(time.Second-1).Unix(), 0), 10))
	if s.allowed {
		return nil
	}
	return &domain.Error{Code: rateLimitExceeded, Message: l.limit + " a minute are allowed", RetryAfter: s.wait}
}

// clientAddress is where a request comes from, as far as it can be believed: the
// nearest address that is not a trusted proxy's. What stands beyond it in
// X-Forwarded-For anybody can have written.
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

func (s *server) trusts(a netip.Addr) bool {
	for _, p := range s.Limits.TrustedProxies {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// parseForwarded reads an element of X-Forwarded-For, to which some proxies add
// the port.
func parseForwarded(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(s)
	if err != nil {
		var withPort netip.AddrPort
		withPort, err = netip.ParseAddrPort(s)
		a = withPort.Addr()
	}
	return a.Unmap().WithZone(""), err == nil
}

// addressCaller is who calls from an address. Whoever has one address of IPv6 has
// the 64 bits behind it as well.
func addressCaller(a netip.Addr) string {
	b := a.As16()
	if a.Is6() {
		return string(b[:8])
	}
	return string(b[:])
}
