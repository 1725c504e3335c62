package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/cmd/lotline/ledger"
	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// asLotline makes the test binary run as the program. So the processes that tests start
// are built with the same options as the tests, such as the race detector.
const asLotline = "LOTLINE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if tool, ok := map[string]func([]string) error{asCurl: curlMain, asJq: jqMain}[filepath.Base(os.Args[0])]; ok {
		if err := tool(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if at := os.Getenv(asBroker); at != "" {
		beBroker(at, os.Getenv(brokerDir))
	}
	if os.Getenv(asLotline) != "" {
		installFaults()
		main()
	}
	goleak.VerifyTestMain(m)
}

// program is a way to run the program: a binary and the environment that it needs.
type program struct {
	path string
	env  []string
}

func testBinary(t testing.TB) program {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program{path, []string{asLotline + "=1"}}
}

// builtBinary builds the program as a user does.
func builtBinary(t testing.TB) program {
	t.Helper()
	path := filepath.Join(t.TempDir(), "lotline")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return program{path, nil}
}

func (p program) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, p.path, args...)
	// The environment in which the tests run must not configure the program.
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "LOTLINE_") && !strings.HasPrefix(v, "OTEL_") {
			c.Env = append(c.Env, v)
		}
	}
	c.Env = append(append(c.Env, p.env...), env...)
	return c
}

// run runs a command and waits until it ends.
func (p program) run(t testing.TB, env []string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	c := p.command(ctx, env, args...)
	c.Stdout, c.Stderr = &out, &errs
	err := c.Run()
	if exit, ok := err.(*exec.ExitError); ok { //nolint:errorlint // Run documents this type
		return out.String(), errs.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), 0
}

// engine is a running `lotline serve`.
type engine struct {
	t      testing.TB
	cmd    *exec.Cmd
	url    string
	stdout *lockedBuffer
	stderr *lockedBuffer
	// foreign switches the comparison of answers with the OpenAPI document off.
	foreign bool
	printed sync.WaitGroup
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// dataDirectory returns the path of a data directory that does not exist yet. The path
// is short, because a Unix socket's path has to be.
func dataDirectory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lotline-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "data")
}

// serve starts an engine on a port of its own and waits until it says where it
// listens. It is killed at the end of the test if it still runs.
func (p program) serve(t testing.TB, dir string, env ...string) *engine {
	t.Helper()
	return p.serveWith(t, dir, nil, env...)
}

func (p program) serveWith(t testing.TB, dir string, flags []string, env ...string) *engine {
	t.Helper()
	env = append([]string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=127.0.0.1:0"}, env...)
	e := &engine{t: t, cmd: p.command(context.Background(), env, append([]string{"serve"}, flags...)...), stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	e.cmd.Stderr = e.stderr
	out, err := e.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	ready := make(chan string, 1)
	e.printed.Go(func() {
		lines := bufio.NewScanner(io.TeeReader(out, e.stdout))
		for lines.Scan() {
			if url, ok := strings.CutPrefix(lines.Text(), "Lotline is listening on "); ok {
				ready <- url
			}
		}
		close(ready)
	})
	url, ok := <-ready
	if !ok {
		t.Fatalf("it did not start: %s", e.stderr)
	}
	e.url = url
	return e
}

var shownKey = regexp.MustCompile(`secret key +(sk_live_[A-Z0-9]+)`)

// secretKey returns the secret key that the engine prints at its first start.
func (e *engine) secretKey() string {
	e.t.Helper()
	var key string
	eventually(e.t, "a key is shown", func() bool {
		m := shownKey.FindStringSubmatch(e.stdout.String())
		if m != nil {
			key = m[1]
		}
		return m != nil
	})
	return key
}

// kill ends the engine with SIGKILL.
func (e *engine) kill() {
	if e.cmd.ProcessState != nil {
		return
	}
	if err := e.cmd.Process.Kill(); err != nil {
		e.t.Error(err)
	}
	e.printed.Wait()
	if err := e.cmd.Wait(); err == nil {
		e.t.Error("a killed process ended well")
	}
}

// terminate sends SIGTERM and returns the exit code.
func (e *engine) terminate() int {
	e.t.Helper()
	return e.end(syscall.SIGTERM)
}

// end sends a signal that ends the engine, and returns the exit code.
func (e *engine) end(signal syscall.Signal) int {
	e.t.Helper()
	if err := e.cmd.Process.Signal(signal); err != nil {
		e.t.Error(err)
	}
	e.printed.Wait()
	if err := e.cmd.Wait(); err != nil {
		e.t.Logf("%v: %s", err, e.stderr)
	}
	return e.cmd.ProcessState.ExitCode()
}

// patience is how long a test waits for something that happens at once on an idle
// machine.
const patience = 30 * time.Second

// eventually waits until a condition holds. The test fails if that takes longer than
// patience.
func eventually(t testing.TB, what string, reached func() bool) {
	t.Helper()
	within(t, patience, what, reached)
}

func within(t testing.TB, patience time.Duration, what string, reached func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !reached() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// in returns the time some milliseconds from now, as the API writes it.
func in(ms int) string {
	return time.Now().Add(time.Duration(ms) * time.Millisecond).UTC().Format("2006-01-02T15:04:05.000Z")
}

func body(format string, args ...any) string { return fmt.Sprintf(format, args...) }

// startStore starts `lotline store` on an address and waits until it listens.
func startStore(t testing.TB, p program, dir, at string, env ...string) *engine {
	t.Helper()
	env = append([]string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_EMBEDDED_LISTEN=" + at}, env...)
	e := &engine{t: t, cmd: p.command(context.Background(), env, "store"), stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	e.cmd.Stdout, e.cmd.Stderr = e.stdout, e.stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	eventually(t, "the store listens", func() bool { return strings.Contains(e.stdout.String(), "esdb://") })
	return e
}

// admin runs an admin command and returns its output.
func admin(t *testing.T, dir string, args ...string) string {
	t.Helper()
	stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
	if code != 0 {
		t.Fatalf("%v: exit %d: %s", args, code, stderr)
	}
	return strings.TrimSpace(stdout)
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// launch starts an engine as serve does, but does not wait until it is ready.
func (p program) launch(t *testing.T, dir string, env ...string) *engine {
	t.Helper()
	at := freeAddress(t)
	env = append([]string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=" + at}, env...)
	e := &engine{t: t, cmd: p.command(t.Context(), env, "serve"), url: "http://" + at, stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	e.cmd.Stdout, e.cmd.Stderr = e.stdout, e.stderr
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.kill)
	client := newHTTPClient(t)
	eventually(t, "it answers", func() bool {
		r, err := client.Get(e.url + "/livez")
		if err == nil {
			r.Body.Close()
		}
		return err == nil
	})
	return e
}

const (
	testMasterKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
	testSecretKey = "sk_live_0123456789abcdef"
)

// processes are a store and its engines, or an engine with a store of its own.
type processes struct {
	t      *testing.T
	dir    string // the store's
	at     string // the store's address, if the store is a process of its own
	store  *engine
	nodes  []*engine
	http   *http.Client
	ledger *ledger.Ledger
	count  atomic.Int64
}

func newProcesses(t *testing.T) *processes {
	t.Helper()
	dir := dataDirectory(t)
	return &processes{t: t, dir: dir, http: newHTTPClient(t), ledger: newLedger(t, dir)}
}

// newPair starts a store and two engines on it.
func newPair(t *testing.T) *processes {
	t.Helper()
	p := newProcesses(t)
	p.at = freeAddress(t)
	p.store = startStore(t, testBinary(t), p.dir, p.at)
	p.nodes = []*engine{p.node(), p.node()}
	return p
}

// freeAddress returns an address to listen on. A process that is started again can
// listen on it again.
func freeAddress(t *testing.T) string {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	return free.Addr().String()
}

// node starts an engine on the store.
func (p *processes) node() *engine { return p.nodeIn(dataDirectory(p.t)) }

func (p *processes) nodeIn(dir string, env ...string) *engine {
	return testBinary(p.t).serve(p.t, dir, append(env,
		"LOTLINE_EVENTSTORE=esdb://"+p.at+"?tls=false", "LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey)...)
}

func (p *processes) request(effect, method, path, body string) *request {
	n := p.count.Add(1)
	d := &request{Client: fmt.Sprint("nobody's ", n), ID: fmt.Sprint("n-", n), Method: method, Path: path, Body: body, Effect: effect}
	if method == "POST" {
		d.Key = "key-" + d.ID
	}
	p.ledger.Add(d)
	return d
}

// do sends a request to a node. The test fails if the node does not answer.
func (p *processes) do(node int, d *request) *reply {
	r, err := d.Send(p.http, p.nodes[node].url, testSecretKey)
	if err != nil {
		p.t.Error(err)
		return &reply{}
	}
	d.Reply = r
	return r
}

func (p *processes) create(node int, collection, fields string) string {
	p.t.Helper()
	r := p.do(node, p.request("created", "POST", collection, `{"sequenceId":"s"`+fields+`}`))
	if r.Status != 201 {
		p.t.Fatalf("%d %s", r.Status, r.Body)
	}
	return r.Location
}

// tryCreate asks a node to create a queue, and returns the status of the answer.
func (p *processes) tryCreate(node int) int {
	p.t.Helper()
	d := p.request("created", "POST", "/api/v1/queues", `{"sequenceId":"s"}`)
	r, err := d.Send(p.http, p.nodes[node].url, testSecretKey)
	if err != nil {
		p.t.Fatal(err)
	}
	if r.Status == 503 {
		d.Denied = append(d.Denied, *r)
	} else {
		d.Reply = r
	}
	return r.Status
}

// check compares the whole log with all answers and with the objects of all nodes.
func (p *processes) check() {
	p.t.Helper()
	p.ledger.UntilQuiet()
	for _, e := range p.nodes {
		if e.cmd.ProcessState == nil {
			for stream := range p.ledger.Distributions() {
				p.ledger.CheckObject(e, stream)
			}
			p.ledger.Check(e)
		}
	}
	p.ledger.CheckUnchanged()
}

// ends returns the fields that a creation of a kind needs beside its sequenceId, with
// the time at which the distribution ends.
func ends(collection string, at string) string {
	switch collection {
	case "/api/v1/draws":
		return body(`,"winnerCount":1,"drawAt":%q`, at)
	case "/api/v1/auctions":
		return body(`,"settleAt":%q`, at)
	}
	return body(`,"closeAt":%q`, at)
}

// cluster is an embedded store and several engines on it, all in this process. The
// engines are wired as in the program, except that each reaches the store over a link
// that a test can cut.
type cluster struct {
	dir   *dataDir
	keys  *eventstore.Keyring
	store *embeddedStore
	nodes []*clusterNode
	// fronted is set if handlers of the test stand before the API.
	fronted bool
	// options and logger configure nodes that are started later.
	options nodeOptions
	logger  zerolog.Logger
}

type clusterNode struct {
	*node
	log  *log
	link *link
	url  string
}

// clusterKey is a secret key of the cluster's organization.
const clusterKey = "sk_test_cluster0000000000000000000000"

// front wraps the API's handler of a node.
type front func(http.Handler) http.Handler

// newCluster starts a store and some nodes. They stop at the end of the test.
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

// connect opens another connection to the store.
func (c *cluster) connect(t testing.TB) *eventstore.Log {
	t.Helper()
	l, err := eventstore.ConnectSocket(c.dir.file(socketFile), c.keys)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, l)
	return l
}

// startNode starts a node with its own read models and returns when it is ready.
func (c *cluster) startNode(t testing.TB, fronts ...front) *clusterNode {
	t.Helper()
	n := c.openNode(t, lockedDir(t), fronts...)
	n.bringUp(t)
	return n
}

// openNode returns a node that listens but does not follow the log yet.
func (c *cluster) openNode(t testing.TB, dir *dataDir, fronts ...front) *clusterNode {
	t.Helper()
	n := &clusterNode{link: newLink(t, dir.file("link.sock"), c.dir.file(socketFile)), log: &log{keys: c.keys, clock: walltime.New(clock)}}
	var err error
	if n.log.Log, err = eventstore.ConnectSocket(n.link.path, c.keys); err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, n.log)
	if err := n.log.checkMasterKey(t.Context()); err != nil {
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
	d, err := (&serveCmd{Listen: "127.0.0.1:0"}).openListeners(t.Context(), n.observer, zerolog.Nop())
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
	d.serveNode(h, nil)
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
	n.startTimers()
	n.startSink()
}

// organization returns the organization of clusterKey.
func (n *clusterNode) organization(t testing.TB) domain.ID {
	t.Helper()
	for _, o := range n.views.Organizations() {
		return o.ID
	}
	t.Fatal("there is no organization")
	return ""
}

// after waits for some time, or until the test ends.
func after(t testing.TB, d time.Duration) {
	select {
	case <-t.Context().Done():
	case <-time.After(d):
	}
}

// twoNodes returns the command handlers of two engines on one embedded store.
func twoNodes(t *testing.T) (*log, []*commands.Handler) {
	t.Helper()
	s := &settings{DataDir: dataDirectory(t)}
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	second, err := eventstore.ConnectSocket(dir.file(socketFile), l.keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{second, l} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	// The clocks of two nodes always differ a little.
	late := func() time.Time { return time.Now().Add(7 * time.Millisecond) }
	return l, []*commands.Handler{commands.NewHandler(l, nil, time.Now), commands.NewHandler(second, nil, late)}
}

// both runs f(0) and f(1) concurrently.
func both(f func(i int)) {
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// engine returns the node in the form that tests of processes use.
func (n *clusterNode) engine(t testing.TB) *engine {
	return &engine{t: t, url: n.url, stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
}

// operatorsListen makes an engine serve /metrics and the whole /readyz on a separate
// address. The method operators returns that address.
const operatorsListen = "LOTLINE_METRICS_LISTEN=127.0.0.1:0"

var operatorsAddress = regexp.MustCompile(`"address":"([^"]+)"[^\n]*"message":"the metrics are served"`)

// operators returns the operators' address of an engine that was started with
// operatorsListen, as an engine to call.
func (e *engine) operators() *engine {
	e.t.Helper()
	var at string
	eventually(e.t, "its address is logged", func() bool {
		if m := operatorsAddress.FindStringSubmatch(e.stderr.String()); m != nil {
			at = "http://" + m[1]
		}
		return at != ""
	})
	return &engine{t: e.t, url: at, stderr: e.stderr, foreign: true}
}

// readyChecks waits until an engine is ready and returns the parts that /readyz reports
// to a caller with a secret key.
func (e *engine) readyChecks(key string) map[string]any {
	e.t.Helper()
	var a answer
	eventually(e.t, "it is ready", func() bool {
		a = e.call("GET", "/readyz", key, "")
		return a.status == 200
	})
	return a.object(e.t)["checks"].(map[string]any)
}
