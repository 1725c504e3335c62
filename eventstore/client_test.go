package eventstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/embedded"
)

// storeDirectory is the environment variable that makes the test binary serve a store
// instead of running tests.
const storeDirectory = "LOTLINE_TEST_STORE_DIRECTORY"

// beStore serves the store in a directory until standard input ends, at the latest when
// the parent process ends.
func beStore(dir string) error {
	socket := filepath.Join(dir, "s")
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	server, err := embedded.Open(filepath.Join(dir, "events.db"), zerolog.Nop())
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l, nil) }()
	fmt.Fprintln(os.Stdout, "ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	return errors.Join(server.Close(), <-served)
}

// storeProcess is a store in a separate process.
type storeProcess struct {
	t     *testing.T
	dir   string
	child *exec.Cmd
	stdin io.Closer
}

func newStoreProcess(t *testing.T) *storeProcess {
	t.Helper()
	dir, err := os.MkdirTemp("", "lotline-test-")
	if err != nil {
		t.Fatal(err)
	}
	s := &storeProcess{t: t, dir: dir}
	t.Cleanup(func() {
		s.kill()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.start()
	return s
}

func (s *storeProcess) start() {
	s.t.Helper()
	s.child = exec.Command(os.Args[0])
	// The race detector would delay the end of every process by a second.
	s.child.Env = append(os.Environ(), storeDirectory+"="+s.dir, "GORACE=atexit_sleep_ms=0")
	s.child.Stderr = os.Stderr
	stdin, err := s.child.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	stdout, err := s.child.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.child.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.stdin = stdin
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil {
		s.t.Fatalf("the store did not start: %q, %v", line, err)
	}
}

// stop ends the store with a graceful shutdown.
func (s *storeProcess) stop() {
	s.t.Helper()
	if err := errors.Join(s.stdin.Close(), s.child.Wait()); err != nil {
		s.t.Error(err)
	}
}

func (s *storeProcess) kill() {
	_ = s.child.Process.Kill()
	_ = s.child.Wait()
}

func (s *storeProcess) signal(number os.Signal) {
	s.t.Helper()
	if err := s.child.Process.Signal(number); err != nil {
		s.t.Error(err)
	}
}

// log connects to the store with the given settings in the query of its address.
func (s *storeProcess) log(settings string) *Log {
	s.t.Helper()
	l, err := connect("esdb://localhost?tls=false&gossipTimeout=1"+settings, filepath.Join(s.dir, "s"), testKeyring(s.t, 1))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return l
}

// caller appends to its own stream, reads it back, and knows what the stream must hold.
type caller struct {
	t      *testing.T
	log    *Log
	stream string
	head   domain.Head
	ids    [][16]byte // of the events that were acknowledged
	next   *domain.Proposed
	doubt  bool // next may have been written
	// acknowledged is shared by all callers.
	acknowledged *atomic.Int64
}

func (c *caller) step(ctx context.Context) {
	deadline := time.Duration(50+rand.IntN(400)) * time.Millisecond
	if rand.IntN(8) == 0 {
		// On a slow machine no call would succeed otherwise.
		deadline = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	begun := time.Now()
	defer func() {
		if took := time.Since(begun); took > deadline+grace {
			c.t.Errorf("a call with a deadline of %v returned after %v", deadline, took)
		}
	}()
	switch rand.IntN(4) {
	case 0:
		if _, err := c.log.Head(ctx); err != nil && said(err) != unavailable {
			c.t.Error(err)
		}
	case 1:
		c.read(ctx)
	default:
		c.append(ctx)
	}
}

func (c *caller) append(ctx context.Context) {
	if c.next == nil {
		c.next = &domain.Proposed{ID: uuid.New(), Type: "queue.deleted", Data: []byte("{}"), Metadata: []byte(`{"schemaVersion":1}`)}
	}
	head, _, err := c.log.Append(ctx, c.stream, c.head, []domain.Proposed{*c.next})
	switch said(err) {
	case nothing:
		c.head, c.ids = head, append(c.ids, c.next.ID)
		c.next, c.doubt = nil, false
		c.acknowledged.Add(1)
	case unknown:
		c.doubt = true
	case unavailable:
		// The append was not written. If that is wrong, later reads show unexpected ids.
		if !c.doubt {
			c.next = nil
		}
	default:
		c.t.Errorf("a stream with one writer, %s: %v", c.stream, err)
	}
}

// read checks that the stream holds the acknowledged events. The append whose outcome is
// unknown may follow them, and nothing else.
func (c *caller) read(ctx context.Context) (whole bool) {
	want := c.ids
	if c.doubt {
		want = append(slices.Clip(want), c.next.ID)
	}
	n, last := 0, ""
	for r, err := range c.log.Read(ctx, c.stream, domain.NoStream) {
		if err != nil {
			if said(err) != unavailable {
				c.t.Error(err)
			}
			return false
		}
		metadata, hash, ok := domain.SplitHash(r.RawMetadata)
		if n >= len(want) || r.ID != want[n] || !ok || hash != domain.EventHash(r.ID, r.Type, r.Stream, r.Revision, r.Data, metadata, last) {
			c.t.Errorf("%s@%d is %x, %s", c.stream, n, r.ID, r.RawMetadata)
			return false
		}
		n, last = n+1, hash
	}
	if n < len(c.ids) {
		c.t.Errorf("%s was read without an error, but with %d events of %d", c.stream, n, len(c.ids))
	}
	return true
}

func TestLog_inChaosNobodyWaitsAndNothingIsLost(t *testing.T) {
	t.Parallel()
	s := newStoreProcess(t)
	l := s.log("")
	seen := newCollector(domain.Position{})
	follow(t, l, seen)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	callers := make([]*caller, 64)
	var acknowledged atomic.Int64
	var all sync.WaitGroup
	for i := range callers {
		c := &caller{t: t, log: l, stream: fmt.Sprintf("queue-%d", i), head: domain.EmptyHead(), acknowledged: &acknowledged}
		callers[i] = c
		all.Go(func() {
			for ctx.Err() == nil {
				c.step(context.WithoutCancel(ctx))
				wait(ctx, 20*time.Millisecond)
			}
		})
	}
	for i := range 30 {
		before := acknowledged.Load()
		eventually(t, "nothing is acknowledged any more", func() bool { return acknowledged.Load() > before+3 })
		switch i % 3 {
		case 0:
			s.kill()
			s.start()
		case 1:
			s.signal(syscall.SIGSTOP)
			wait(ctx, time.Duration(50*(i%10))*time.Millisecond)
			s.signal(syscall.SIGCONT)
		case 2:
			s.stop()
			s.start()
		}
	}
	stop()
	all.Wait()
	want := map[[16]byte]bool{}
	for _, c := range callers {
		if !c.read(t.Context()) {
			t.Errorf("%s cannot be read", c.stream)
		}
		for _, id := range c.ids {
			want[id] = true
		}
	}
	for len(want) > 0 {
		select {
		case r := <-seen.got:
			delete(want, r.ID)
		case <-time.After(late):
			t.Fatalf("%d acknowledged events were not followed", len(want))
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func TestTail_noticesAServerThatStandsStill(t *testing.T) {
	t.Parallel()
	s := newStoreProcess(t)
	// gRPC pings the server after ten seconds at the earliest.
	l := s.log("&keepAliveTimeout=500")
	c := newCollector(domain.Position{})
	tail := follow(t, l, c)
	<-tail.CaughtUp()
	s.signal(syscall.SIGSTOP)
	eventually(t, "the tail believes that it follows", func() bool { return !tail.Connected() })
	s.signal(syscall.SIGCONT)
	appendTo(t, l, stream, domain.EmptyHead(), deleted())
	c.take(t, 1)
	eventually(t, "the tail does not know that it follows", tail.Connected)
}

func eventually(t *testing.T, otherwise string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(late); !holds(); wait(t.Context(), 10*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(otherwise)
		}
	}
}

func TestLog_closesWhileThereIsNoServer(t *testing.T) {
	t.Parallel()
	for name, serve := range map[string]func(*testing.T, net.Listener){
		"refused": func(_ *testing.T, l net.Listener) { _ = l.Close() },
		"silent":  raw(func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			serve(t, listener)
			l, err := Connect("esdb://"+listener.Addr().String()+"?tls=false&gossipTimeout=1", testKeyring(t, 1))
			if err != nil {
				t.Fatal(err)
			}
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if _, err := l.Head(t.Context()); !errors.Is(err, errClientClosed) || !errors.Is(err, domain.ErrUnavailable) {
						t.Errorf("a call that waited: %v", err)
					}
				})
			}
			for {
				l.client.mu.Lock()
				waiting := l.client.current != nil
				l.client.mu.Unlock()
				if waiting {
					break
				}
				wait(t.Context(), time.Millisecond)
			}
			for range 2 {
				if err := l.Close(); err != nil {
					t.Error(err)
				}
			}
			all.Wait()
		})
	}
}

func TestLog_closingEndsCallsInFlight(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	tail := NewTail(l, domain.Kinds(), domain.Position{}, zerolog.Nop(), newIgnorant())
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { tail.Run(ctx) })
	<-tail.CaughtUp()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the tail says that it is connected to a closed log", func() bool { return !tail.Connected() })
	cancel()
	running.Wait()
}

// The official client follows a server's referral to another server by itself, and calls
// made meanwhile wait for that, whatever their contexts say.
func TestClient_callsDoNotWaitForAnotherLeader(t *testing.T) {
	t.Parallel()
	follower, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	leader, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(leader.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	asked, responded := make(chan struct{}), make(chan struct{})
	handler(func(w http.ResponseWriter, r *http.Request) {
		close(asked)
		<-responded
		respond(w, r, codes.Unimplemented, nil)
	})(t, leader)
	calls(func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, codes.NotFound, map[string]string{
			"exception": "not-leader", "leader-endpoint-host": host, "leader-endpoint-port": port,
		})
	})(t, follower)
	c, err := dial("esdb://"+follower.Addr().String()+"?tls=false&gossipTimeout=60", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.close() }()
	defer close(responded)
	g, err := c.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.calls.Done()
	if err := headIn(t.Context(), c, g); err == nil {
		t.Error("the server that is not the leader responded")
	}
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	returned := make(chan error, 1)
	go func() { returned <- headIn(ctx, c, g) }()
	select {
	case err := <-returned:
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	case <-time.After(soon + grace):
		t.Error("a call waits for the leader beyond its deadline")
	}
	// Other calls get a new official client meanwhile.
	if again, err := c.begin(t.Context()); err != nil || again == g {
		t.Errorf("got the same client again, %v", err)
	} else {
		again.calls.Done()
	}
}

// headIn reads the end of the log through one generation.
func headIn(ctx context.Context, c *client, g *generation) error {
	return c.run(ctx, g, func() error {
		read, err := g.ReadAll(ctx, esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
		if err != nil {
			return err
		}
		defer read.Close()
		_, err = read.Recv()
		return err
	})
}

// An official client that connects a second time never closes its first connection. If it
// cannot connect again, waiting calls block for good.
func TestClient_aGenerationConnectsOnce(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var connected atomic.Int64
	handler(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/GetSupportedMethods") {
			connected.Add(1)
			respond(w, r, codes.Unimplemented, nil)
			return
		}
		respond(w, r, codes.Unavailable, nil)
	})(t, listener)
	c, err := dial("esdb://"+listener.Addr().String()+"?tls=false", "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.close() }()
	g, err := c.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer g.calls.Done()
	for range 3 {
		if err := headIn(t.Context(), c, g); !connectionLost(err) {
			t.Errorf("a lost connection: %v", err)
		}
	}
	if n := connected.Load(); n != 1 {
		t.Errorf("the client connected %d times", n)
	}
	next, err := c.begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	next.calls.Done()
	if next == g || connected.Load() != 2 {
		t.Errorf("the next call has the client that lost its connection, or one that connected %d times", connected.Load())
	}
}
