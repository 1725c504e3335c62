package embedded

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// firstCallTimeout is how long a client may take from its connection's handshake
	// to its first call that is allowed.
	firstCallTimeout = 10 * time.Second

	// pendingLimit is how many connections of a listener may be pending at once, and
	// pendingPerNetwork how many of them may come from one network.
	pendingLimit      = 512
	pendingPerNetwork = 64
)

// pending holds the connections of a listener that have not made a call yet that is
// allowed: those in their handshake, those that stay silent after it, those without
// the right password, and those that ask for the state of the store over HTTP/1.
//
// Anybody can open such connections, in any number, so none of them can rely on its
// place. When there are too many, a new connection takes the place of the oldest. A
// client makes its first call within milliseconds and is then pending no more; so the
// connections that lose their places are those that were opened to hold them.
//
// A client at its first call has at worst as many newer connections against it as one
// network may have: the network with the most connections loses one, whoever makes
// the new one.
type pending struct {
	log zerolog.Logger // says which connections were closed to make room

	mu        sync.Mutex                 // guards the fields below
	byNetwork map[network][]*pendingConn // each with the oldest first, none empty
	count     int                        // of all of them
	opened    uint64                     // how many there have ever been
}

func newPending(log zerolog.Logger) *pending {
	return &pending{log: log, byNetwork: make(map[network][]*pendingConn)}
}

// network is where connections are counted together: an IPv4 address, or the 64 bits of
// an IPv6 address below which a client can have any address that it likes. All
// connections over a Unix socket come from the zero network.
type network = netip.Prefix

func networkOf(address net.Addr) network {
	tcp, isTCP := address.(*net.TCPAddr)
	if !isTCP {
		return network{}
	}
	ip := tcp.AddrPort().Addr().Unmap()
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	// It fails for what is no address, which the zero network stands for as well.
	prefix, _ := ip.Prefix(bits)
	return prefix
}

// pendingConn is a connection that is pending until release or Close.
type pendingConn struct {
	net.Conn
	pending *pending
	network network
	number  uint64      // rises with each connection of the listener
	done    atomic.Bool // whether it is pending no more; set with the mutex of pending held
	timer   *time.Timer // closes the connection, nil before awaitCall; guarded by the mutex of pending
}

// add makes a new connection pending.
func (p *pending) add(conn net.Conn) *pendingConn {
	c := &pendingConn{Conn: conn, pending: p, network: networkOf(conn.RemoteAddr())}
	p.mu.Lock()
	surplus := p.surplus(c.network)
	if surplus != nil {
		p.remove(surplus)
	}
	p.opened++
	c.number = p.opened
	p.byNetwork[c.network] = append(p.byNetwork[c.network], c)
	p.count++
	p.mu.Unlock()
	if surplus != nil {
		p.log.Warn().Stringer("client", surplus.RemoteAddr()).Msg("event store closes a connection without calls to make room")
		_ = surplus.Close()
	}
	return c
}

// surplus is the connection that has to make room for a new one of a network, nil if
// there is room. It is called with mu held.
func (p *pending) surplus(newcomer network) *pendingConn {
	if same := p.byNetwork[newcomer]; len(same) >= pendingPerNetwork {
		return same[0]
	}
	if p.count < pendingLimit {
		return nil
	}
	var most []*pendingConn
	for _, conns := range p.byNetwork {
		if len(conns) > len(most) || len(conns) == len(most) && conns[0].number < most[0].number {
			most = conns
		}
	}
	return most[0]
}

// remove ends that a connection is pending, if it is. It is called with mu held.
func (p *pending) remove(c *pendingConn) {
	if c.done.Swap(true) {
		return
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	p.count--
	conns := slices.DeleteFunc(p.byNetwork[c.network], func(other *pendingConn) bool { return other == c })
	if p.byNetwork[c.network] = conns; len(conns) == 0 {
		delete(p.byNetwork, c.network)
	}
}

// awaitCall closes the connection if it is still pending after firstCallTimeout.
func (c *pendingConn) awaitCall() {
	c.pending.mu.Lock()
	defer c.pending.mu.Unlock()
	if !c.done.Load() {
		c.timer = time.AfterFunc(firstCallTimeout, func() { _ = c.Close() })
	}
}

// release says that the connection has made a call that is allowed. It keeps its
// place from then on.
func (c *pendingConn) release() {
	if c.done.Load() {
		return
	}
	c.pending.mu.Lock()
	defer c.pending.mu.Unlock()
	c.pending.remove(c)
}

func (c *pendingConn) Close() error {
	c.release()
	return c.Conn.Close()
}
