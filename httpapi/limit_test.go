package httpapi

import (
	"fmt"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/lotline/lotline/domain"
)

func limits(secret, public int, proxies ...string) func(*Config) {
	return func(c *Config) {
		c.Limits = Limits{Secret: secret, Public: public}
		for _, p := range proxies {
			c.Limits.TrustedProxies = append(c.Limits.TrustedProxies, netip.MustParsePrefix(p))
		}
	}
}

func from(address string) option { return func(r *http.Request) { r.RemoteAddr = address } }

// left checks what an answer says is left of a limit of 3.
func (a *reply) left(remaining int, reset time.Time) {
	a.tb.Helper()
	got := [3]string{}
	for i, name := range []string{"Limit", "Remaining", "Reset"} {
		got[i] = a.Header().Get("X-RateLimit-" + name)
	}
	if want := [3]string{"3", strconv.Itoa(remaining), strconv.FormatInt(reset.Unix(), 10)}; got != want {
		a.tb.Fatalf("%s: limit, remaining and reset are %q, want %q", a.what, got, want)
	}
}

func TestLimit_isInTheAnswersHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limits(3, 0))
	start := w.config.Clock()
	w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK).left(2, start.Add(20*time.Second))
	w.do(http.MethodGet, "/api/v1/queues/x", "").is(http.StatusNotFound).left(1, start.Add(40*time.Second))
	w.advance(500 * time.Millisecond)
	w.do(http.MethodPost, "/api/v1/queues", `{`).is(http.StatusBadRequest).left(0, start.Add(60*time.Second))
	a := w.do(http.MethodGet, "/api/v1/queues", "").refuses(http.StatusTooManyRequests, "Rate limit exceeded")
	a.left(0, start.Add(60*time.Second))
	if got := a.Header().Get("Retry-After"); got != "20" {
		t.Errorf("Retry-After %q", got)
	}
	w.advance(19500 * time.Millisecond)
	// The wait was 19.5 seconds. Retry-After had rounded it up to 20.
	w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK).left(0, start.Add(80*time.Second))
	w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusTooManyRequests)
	w.advance(time.Hour)
	w.do(http.MethodGet, "/api/v1/queues", "").is(http.StatusOK).left(2, w.config.Clock().Add(20*time.Second))
	if a := w.do(http.MethodGet, "/livez", ""); a.Header().Get("X-RateLimit-Limit") != "" {
		t.Errorf("a call that is not limited: %v", a.Header())
	}
}

// A request over the limit is refused and not carried out.
func TestLimit_aRefusedRequestIsNotCarriedOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, limits(1, 0))
	before := w.log.count
	w.do(http.MethodPost, "/api/v1/queues", kindCases[0].body).is(http.StatusCreated)
	made := w.log.count
	w.do(http.MethodPost, "/api/v1/queues", kindCases[0].body).refuses(http.StatusTooManyRequests, "Rate limit exceeded")
	if made == before || w.log.count != made {
		t.Errorf("%d events, then %d", made-before, w.log.count-made)
	}
}

func TestLimit_eachLevelHasItsOwn(t *testing.T) {
	t.Parallel()
	const here, there = "203.0.113.7:1", "203.0.113.8:1"
	const limited = http.StatusTooManyRequests
	type call struct {
		status  int
		options []option
	}
	for name, calls := range map[string][]call{
		"all secret keys of an organization have one limit": {
			{200, []option{key(myKey)}},
			{limited, []option{key(mySecond), from(there)}},
			{200, []option{key(otherKey)}},
		},
		"a publishable key is limited by address": {
			{200, []option{publishable(myPublic), from(here)}},
			{limited, []option{publishable(myPublic), from(here)}},
			{200, []option{publishable(myPublic), from(there)}},
		},
		"an address has one limit for all publishable keys": {
			{200, []option{publishable(myPublic), from(here)}},
			{limited, []option{publishable(otherPublic), from(here)}},
		},
		"publishable keys leave secret ones alone": {
			{200, []option{publishable(myPublic), from(here)}},
			{limited, []option{publishable(myPublic), from(here)}},
			{200, []option{key(myKey), from(here)}},
		},
		"a client that tries keys is limited by its address": {
			{401, []option{key(unknownKey), from(here)}},
			{limited, []option{key(unknownKey + "1"), from(here)}},
			{limited, []option{publishable("pk_live_nobody"), from(here)}},
			{401, []option{key(unknownKey), from(there)}},
		},
		"a client without a key is limited by its address": {
			{401, []option{publishable(""), from(here)}},
			{limited, []option{publishable(""), from(here)}},
		},
		"a valid key is accepted from the address of a client that tries keys": {
			{401, []option{key(unknownKey), from(here)}},
			{limited, []option{key(unknownKey), from(here)}},
			{200, []option{key(myKey), from(here)}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.key(w.other, domain.PublishableKey, otherPublic)
			path, _ := w.create("queues", kindCases[0].body)
			limits(1, 1)(&w.config)
			w.api = New(w.config)
			for i, c := range calls {
				a := w.do(http.MethodGet, path, "", c.options...)
				// The other organization does not use up this limit.
				if a.Code == http.StatusNotFound {
					a.Code = http.StatusOK
				}
				if a.Code != c.status {
					t.Fatalf("call %d: status %d, want %d: %s", i, a.Code, c.status, a.Body)
				}
			}
		})
	}
}

func TestLimit_zeroMeansNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", kindCases[0].body)
	for range 50 {
		for _, o := range []option{key(myKey), publishable(myPublic), key(unknownKey)} {
			if a := w.do(http.MethodGet, path, "", o); a.Code == http.StatusTooManyRequests || a.Header().Get("X-RateLimit-Limit") != "" {
				t.Fatalf("%d %v", a.Code, a.Header())
			}
		}
	}
}

func TestClientAddress_isTheNearestUntrustedOne(t *testing.T) {
	t.Parallel()
	s := newServer(Config{Limits: Limits{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}}})
	for _, c := range []struct {
		peer      string
		forwarded []string
		want      string
	}{
		{"203.0.113.7:1", nil, "203.0.113.7"},
		{"203.0.113.7:1", []string{"198.51.100.1"}, "203.0.113.7"}, // any client can send that header
		{"10.0.0.1:1", nil, "10.0.0.1"},
		{"10.0.0.1:1", []string{""}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"[::ffff:10.0.0.1]:1", []string{"198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"192.0.2.9, 198.51.100.1"}, "198.51.100.1"}, // the client wrote the first one
		{"10.0.0.1:1", []string{"192.0.2.9", "198.51.100.1"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"198.51.100.1 ,10.0.0.2,\t10.0.0.3"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"198.51.100.1, nonsense"}, "10.0.0.1"},
		{"10.0.0.1:1", []string{"nonsense, 10.0.0.2"}, "10.0.0.2"},
		{"10.0.0.1:1", []string{"10.0.0.3, 10.0.0.2"}, "10.0.0.3"},
		{"10.0.0.1:1", []string{"198.51.100.1:4711"}, "198.51.100.1"},
		{"10.0.0.1:1", []string{"2001:db8::1"}, "2001:db8::1"},
		{"[fd00::1]:1", []string{"[2001:db8::1]:4711"}, "2001:db8::1"},
		{"10.0.0.1:1", []string{"fe80::1%eth0"}, "fe80::1"},
		{"10.0.0.1:1", []string{","}, "10.0.0.1"},
		{"@", []string{"198.51.100.1"}, "invalid IP"},
		{"", nil, "invalid IP"},
	} {
		r := &http.Request{RemoteAddr: c.peer, Header: http.Header{"X-Forwarded-For": c.forwarded}}
		if got := s.clientAddress(r).String(); got != c.want {
			t.Errorf("%s with %q: %s, want %s", c.peer, c.forwarded, got, c.want)
		}
	}
}

func TestLimit_trustsTheProxyOnly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	path, _ := w.create("queues", kindCases[0].body)
	limits(0, 1, "10.0.0.0/8")(&w.config)
	w.api = New(w.config)
	get := func(peer, forwarded string) *reply {
		return w.do(http.MethodGet, path, "", publishable(myPublic), from(peer), header("X-Forwarded-For", forwarded))
	}
	get("10.0.0.1:1", "198.51.100.1").is(http.StatusOK)
	get("10.0.0.2:1", "198.51.100.1").is(http.StatusTooManyRequests)
	get("10.0.0.1:1", "198.51.100.2").is(http.StatusOK)
	for i, status := range []int{http.StatusOK, http.StatusTooManyRequests, http.StatusTooManyRequests} {
		get("203.0.113.7:1", fmt.Sprintf("198.51.100.%d", 10+i)).is(status)
	}
}

// A client that changes its address within its IPv6 network has the same limit.
func TestLimit_countsANetworkOfIPv6AsOneAddress(t *testing.T) {
	t.Parallel()
	caller := func(s string) string { return addressCaller(netip.MustParseAddr(s)) }
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"2001:db8::1", "2001:db8::ffff:ffff:ffff:ffff", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"203.0.113.7", "203.0.113.8", false},
		{"203.0.113.7", "203.0.113.7", true},
		{"::1", "0.0.0.1", false},
	} {
		if same := caller(c.a) == caller(c.b); same != c.same {
			t.Errorf("%s and %s are one caller: %t", c.a, c.b, same)
		}
	}
}

// The memory does not grow with the number of callers. A caller who has used up the
// allowance is not evicted in favour of callers who have used little.
func TestLimiter_isBounded(t *testing.T) {
	t.Parallel()
	if size := unsafe.Sizeof(limiter{}); size > 2<<20 {
		t.Errorf("a limiter has %d bytes", size)
	}
	l := newLimiter(10)
	now := time.Unix(1_800_000_000, 0)
	for range 10 {
		l.spend("guesser", now)
	}
	for i := range 1_000_000 {
		l.spend(strconv.Itoa(i), now)
		if i%1000 == 0 && l.spend("guesser", now).allowed {
			t.Fatalf("forgotten after %d others", i)
		}
	}
}

// The limiter allows exactly as many requests as its limit, also with concurrent calls, and
// one more after each interval.
func TestLimiter_allowsExactlyItsLimit(t *testing.T) {
	t.Parallel()
	for _, limit := range []int{1, 7, 60, 100_000} {
		l := newLimiter(limit)
		start := time.Unix(1_800_000_000, 0)
		var allowed atomic.Int64
		var all sync.WaitGroup
		spendAll := func() {
			for range limit {
				if l.spend("a", start).allowed {
					allowed.Add(1)
				}
			}
		}
		for range 4 {
			all.Go(spendAll)
		}
		all.Wait()
		if int(allowed.Load()) != limit {
			t.Errorf("%d of %d at once", allowed.Load(), limit)
		}
		s := l.spend("a", start)
		if s.allowed || s.left != 0 || s.wait != l.interval {
			t.Errorf("then %+v", s)
		}
		if s := l.spend("a", start.Add(l.interval-1)); s.allowed || s.wait != 1 {
			t.Errorf("a moment too early: %+v", s)
		}
		if s := l.spend("a", start.Add(l.interval)); !s.allowed {
			t.Errorf("in time: %+v", s)
		}
		if s := l.spend("a", start.Add(2*time.Minute)); !s.allowed || s.left != int64(limit-1) {
			t.Errorf("after a while: %+v", s)
		}
	}
}

// A machine may set its clock back. No request is refused for that.
func TestLimiter_aClockThatIsSetBackRefusesNobody(t *testing.T) {
	t.Parallel()
	l := newLimiter(60)
	now := time.Unix(1_800_000_000, 0)
	for range 60 {
		l.spend("a", now)
	}
	if l.spend("a", now).allowed {
		t.Fatal("there is no limit")
	}
	for _, before := range []time.Time{now.Add(-time.Second), now.Add(-24 * time.Hour)} {
		if s := l.spend("a", before); !s.allowed || s.left != 59 || s.wait > 0 {
			t.Errorf("at %s: %+v", before, s)
		}
	}
}

// FuzzForwarded checks that addresses beyond the nearest untrusted one in X-Forwarded-For do
// not matter, and that a proxy's address is used only if the header names no other.
func FuzzForwarded(f *testing.F) {
	s := newServer(Config{Limits: Limits{TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}})
	f.Add("192.0.2.1", "198.51.100.1, 10.0.0.2")
	f.Add(" , ", "[2001:db8::1]:80")
	f.Add("10.0.0.1", "fe80::1%x")
	f.Fuzz(func(t *testing.T, madeUp, forwarded string) {
		client := func(forwarded ...string) netip.Addr {
			return s.clientAddress(&http.Request{RemoteAddr: "10.0.0.1:1", Header: http.Header{"X-Forwarded-For": forwarded}})
		}
		got := client(forwarded)
		if !got.IsValid() || got.Zone() != "" || got.Is4In6() {
			t.Fatalf("%q: %s", forwarded, got)
		}
		if !s.trusts(got) && client(madeUp, forwarded) != got {
			t.Fatalf("%q is from %s, and with %q before it from %s", forwarded, got, madeUp, client(madeUp, forwarded))
		}
	})
}
