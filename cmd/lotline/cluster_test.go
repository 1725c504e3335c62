package main

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// cluster is one embedded store with engines on it, all in this process. They are
// wired as the program wires them, but each reaches the store over a link that
// can be cut.
type cluster struct {
	dir   *dataDir
	keys  *eventstore.Keyring
	store *embeddedStore
	nodes []*clusterNode
	// fronted says that what answers is not the API alone.
	fronted bool
	// options and logger are what nodes are started with.
	options nodeOptions
	logger  zerolog.Logger
}

type clusterNode struct {
	*node
	log  *log
	link *link
	url  string
}

// clusterKey is a secret key of the organization that a cluster has.
const clusterKey = "sk_test_cluster0000000000000000000000"

// front stands before the API of a node.
type front func(http.Handler) http.Handler

// newCluster starts a store and some nodes. It is stopped at the end of the test.
func newCluster(t testing.TB, nodes int, fronts ...front) *cluster {
	t.Helper()
	c := newClusterStore(t)
	c.fronted = len(fronts) > 0
	for range nodes {
		c.startNode(t, fronts...)
	}
	return c
}

func newClusterStore(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{dir: lockedDir(t), logger: zerolog.Nop()}
	var err error
	if c.keys, err = eventstore.NewKeyring(make([]byte, eventstore.MasterKeySize)); err != nil {
		t.Fatal(err)
	}
	if c.store, err = startEmbedded(t.Context(), &settings{}, c.dir, zerolog.Nop()); err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, c.store)
	return c
}

func lockedDir(t testing.TB) *dataDir {
	t.Helper()
	dir, err := openDataDir(dataDirectory(t))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, dir)
	return dir
}

func closeAtEnd(t testing.TB, c io.Closer) {
	t.Helper()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// connect is a connection to the store of its own.
func (c *cluster) connect(t testing.TB) *eventstore.Log {
	t.Helper()
	l, err := eventstore.ConnectSocket(c.dir.file(socketFile), c.keys)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, l)
	return l
}

// startNode adds a node with read models of its own and returns when it is ready.
func (c *cluster) startNode(t testing.TB, fronts ...front) *clusterNode {
	t.Helper()
	n := c.openNode(t, lockedDir(t), fronts...)
	n.bringUp(t)
	return n
}

// openNode is a node that listens and does not follow the log yet.
func (c *cluster) openNode(t testing.TB, dir *dataDir, fronts ...front) *clusterNode {
	t.Helper()
	n := &clusterNode{link: newLink(t, dir.file("link.sock"), c.dir.file(socketFile)), log: &log{keys: c.keys, clock: walltime.New(clock)}}
	var err error
	if n.log.Log, err = eventstore.ConnectSocket(n.link.path, c.keys); err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, n.log)
	if err := n.log.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n.node, err = newNode(n.log, dir, c.options, c.logger); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.shutDown(); err != nil {
			t.Error(err)
		}
	})
	d, err := (&serveCmd{Listen: "127.0.0.1:0"}).openDoor(t.Context(), n.observer, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	h := n.api
	for _, f := range fronts {
		h = f(h)
	}
	d.leadTo(h, nil)
	n.url = "http://" + d.address.String()
	c.nodes = append(c.nodes, n)
	return n
}

func (n *clusterNode) bringUp(t testing.TB) {
	t.Helper()
	if !n.catchUp(t.Context()) {
		t.Fatal(t.Context().Err())
	}
	if _, err := (&serveCmd{SecretKey: clusterKey}).provision(t.Context(), n.node, io.Discard); err != nil {
		t.Fatal(err)
	}
	n.keepTime()
	n.sendOut()
}

// organization is the one that clusterKey belongs to.
func (n *clusterNode) organization(t testing.TB) domain.ID {
	t.Helper()
	for _, o := range n.views.Organizations() {
		return o.ID
	}
	t.Fatal("there is no organization")
	return ""
}

// link passes on what is written to a socket at path. While it is cut it takes
// connections and drops them.
type link struct {
	path, to string
	listener net.Listener
	passing  sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	conns map[net.Conn]struct{}
	down  bool
}

func newLink(t testing.TB, path, to string) *link {
	t.Helper()
	listener, err := listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{path: path, to: to, listener: listener, conns: map[net.Conn]struct{}{}}
	l.passing.Go(l.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		l.cut()
		l.passing.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.passing.Go(func() { l.pass(from) })
	}
}

func (l *link) pass(from net.Conn) {
	defer from.Close()
	to, err := (&net.Dialer{}).DialContext(context.Background(), "unix", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		return
	}
	l.conns[from] = struct{}{}
	l.mu.Unlock()
	// Whichever side ends first ends the other.
	end := func() { _ = errors.Join(to.Close(), from.Close()) }
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(to, from)
		end()
	})
	_, _ = io.Copy(from, to)
	end()
	both.Wait()
	l.mu.Lock()
	delete(l.conns, from)
	l.mu.Unlock()
}

// cut breaks the connections and keeps new ones from coming about until mend.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		_ = c.Close() // what passes is to fail
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}

// caller makes HTTP calls to the nodes of a cluster over connections of its own.
type caller struct{ *http.Client }

func newCaller(t testing.TB) *caller {
	t.Helper()
	return &caller{newHTTPClient(t)}
}

// unheld is a caller for what does not answer as the document says, or is not to be
// slowed down.
func (c *caller) unheld() *caller {
	return &caller{&http.Client{Transport: c.Transport.(*held).RoundTripper}}
}

// call is like engine.call, but gives an error where that ends the test.
func (c *caller) call(ctx context.Context, method, url, body string, header http.Header) (answer, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", "Bearer "+clusterKey)
	maps.Copy(req.Header, header)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, got}, err
}

// after is done when some time has passed or the test ends.
func after(t testing.TB, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}
