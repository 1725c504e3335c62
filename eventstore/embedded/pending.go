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
	// firstCallTimeout is how long a connection may take from its handshake to its first
	// allowed call.
	firstCallTimeout = 10 * time.Second

	// pendingLimit is how many connections of a listener may be pending at once, and
	// pendingPerNetwork how many of them may come from one network.
	pendingLimit      = 512
	pendingPerNetwork = 64
)

// pending holds the connections of a listener that have not made an allowed call yet:
// connections in their handshake, silent connections, connections without the right
// password, and HTTP/1 connections.
//
// Anybody can open any number of such connections, so none of them is sure to keep its
// place. A new connection evicts the oldest one of its network if that network has
// pendingPerNetwork pending connections already. A real client makes its first call within
// milliseconds and is no longer pending after it, so it is rarely evicted.
//
// When all pendingLimit places are taken, the network with the most pending connections
// loses its oldest one, whichever network the new connection is from. So somebody who
// fills the places from many networks evicts their own connections before those of a
// network that has fewer.
type pending struct {
	log zerolog.Logger // of evicted connections

	mu        sync.Mutex                 // guards the fields below
	byNetwork map[network][]*pendingConn // the oldest first; no slice is empty
	count     int                        // of all connections in byNetwork
	opened    uint64                     // how many were ever added
}

func newPending(log zerolog.Logger) *pending {
	return &pending{log: log, byNetwork: make(map[network][]*pendingConn)}
}

// network is the unit in which connections are counted: an IPv4 address, or the first 64
// bits of an IPv6 address, within which a client can choose any address. All connections
// over a Unix socket belong to the zero network.
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
	// Prefix fails for an invalid address, which then belongs to the zero network.
	prefix, _ := ip.Prefix(bits)
	return prefix
}

// pendingConn is a connection that is pending until release or Close.
type pendingConn struct {
	net.Conn
	pending *pending
	network network
	number  uint64      // increases with each connection of the listener
	done    atomic.Bool // no longer pending; set with the mutex of pending held
	timer   *time.Timer // closes the connection; nil before awaitCall; guarded by the mutex of pending
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

// surplus returns the connection that a new one of a network evicts, or nil if there is
// room. The caller holds mu.
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

// remove ends the pending state of a connection, if it is pending. The caller holds mu.
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

// awaitCall starts the timer that closes the connection if it is still pending after
// firstCallTimeout.
func (c *pendingConn) awaitCall() {
	c.pending.mu.Lock()
	defer c.pending.mu.Unlock()
	if !c.done.Load() {
		c.timer = time.AfterFunc(firstCallTimeout, func() { _ = c.Close() })
	}
}

// release is called when the connection has made an allowed call. From then on it cannot
// be evicted.
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
