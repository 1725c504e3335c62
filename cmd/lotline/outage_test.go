package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lotline/lotline/cmd/lotline/ledger"
)

// outageVariable names the variable in which `make outage` sets how long the store is
// away.
const outageVariable = "LOTLINE_TEST_OUTAGE"

// The store goes away and comes back. The engines are not restarted.
func TestOutage_endsByItself(t *testing.T) {
	t.Parallel()
	// The outages mostly wait, so they run concurrently.
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { t.Run("a store that was stopped and is started again", stoppedStore) })
	all.Go(func() { t.Run("a store that stood still", frozenStore) })
	all.Go(func() { t.Run("a store that is killed again and again", killedStore) })
}

func stoppedStore(t *testing.T) {
	p := newPair(t)
	p.outage(func() {
		if code := p.store.terminate(); code != 0 {
			t.Errorf("the store ended with %d: %s", code, p.store.stderr)
		}
		p.readAhead()
	}, func() { p.store = startStore(t, testBinary(t), p.dir, p.at) })
}

func frozenStore(t *testing.T) {
	p := newPair(t)
	p.outage(p.send(p.store, syscall.SIGSTOP), p.send(p.store, syscall.SIGCONT))
}

// killedStore kills the store while appends are in flight, some of which were written.
func killedStore(t *testing.T) {
	p := newPair(t)
	finish := p.keepWriting(16, time.Millisecond)
	for range 12 {
		<-time.After(300 * time.Millisecond)
		p.store.kill()
		p.store = startStore(t, testBinary(t), p.dir, p.at)
		for i := range p.nodes {
			eventually(t, "it writes again", func() bool { return p.tryCreate(i) == 201 })
		}
	}
	finish()
	p.check()
}

// send returns a function that sends a signal to an engine.
func (p *processes) send(e *engine, s syscall.Signal) func() {
	return func() {
		if err := e.cmd.Process.Signal(s); err != nil {
			p.t.Error(err)
		}
	}
}

// readAhead asks both nodes for a position that their log has not reached. The position
// comes from a copy of the log to which more was appended.
func (p *processes) readAhead() {
	p.t.Helper()
	dir := dataDirectory(p.t)
	log, err := os.ReadFile(filepath.Join(p.dir, eventsFile))
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, eventsFile), log, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	e := testBinary(p.t).serve(p.t, dir, "LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey)
	position := e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`).header.Get("X-Position")
	e.kill()
	for _, node := range p.nodes {
		asked := time.Now()
		a := node.call("GET", "/api/v1/queues", testSecretKey, "", "X-Position", position)
		if took := time.Since(asked); a.status != 503 || a.object(p.t)["error"] != "Read model is behind" || a.header.Get("Retry-After") == "" || took > answerWithin {
			p.t.Errorf("after %s: %d %s", took, a.status, a.body)
		}
	}
}

// answerWithin is how soon a write must be answered while the store is away: twice the
// time that a command may take, because the machine may be busy.
const answerWithin = 10 * time.Second

func (p *processes) outage(stop, start func()) {
	t := p.t
	t.Helper()
	length := 15 * time.Second
	if testing.Short() {
		length = 5 * time.Second
	}
	if text := os.Getenv(outageVariable); text != "" {
		var err error
		if length, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}

	// Some distributions exist before the outage and become due during it.
	var paths []string
	opens, closes := in(2000), in(4000)
	for n := range 60 {
		collection := collections[n%3]
		paths = append(paths, p.create(n%2, collection, body(`,"openAt":%q`, opens)+ends(collection, closes)))
	}
	shared := make([]string, 2)
	for i := range shared {
		shared[i] = p.create(i, "/api/v1/queues", "")
	}

	// Other clients write all the time, and repeat requests that failed.
	finish := p.keepWriting(8, 20*time.Millisecond)

	<-time.After(500 * time.Millisecond)
	stopped := time.Now()
	stop()
	for _, e := range p.nodes {
		eventually(t, "it is noticed", func() bool { return e.call("GET", "/readyz", "", "").status == 503 })
	}

	waiting := p.writeAtOnce(shared)
	var reads []time.Duration
	for len(reads) == 0 || time.Since(stopped) < length {
		for _, e := range p.nodes {
			for _, path := range []string{paths[0], "/api/v1/distributions", "/livez"} {
				asked := time.Now()
				e.must(200, "GET", path, testSecretKey, "")
				reads = append(reads, time.Since(asked))
			}
			ready := e.must(503, "GET", "/readyz", "", "").object(t)
			if state := ready["checks"].(map[string]any)["eventStore"].(map[string]any); state["ok"] != false {
				t.Errorf("/readyz says %v", ready)
			}
		}
		<-time.After(50 * time.Millisecond)
	}
	slowest, taken := waiting()
	if taken > 0 {
		t.Errorf("%d writes were taken without a store", taken)
	}

	start()
	back := time.Now()
	for i, e := range p.nodes {
		eventually(t, "it is ready again", func() bool { return e.call("GET", "/readyz", "", "").status == 200 })
		t.Logf("node %d is ready %s after the store is back", i, time.Since(back).Round(time.Millisecond))
	}
	finish()
	p.check()
	if n := opened(p.ledger, paths); n != len(paths) {
		t.Errorf("%d of %d opened", n, len(paths))
	}
	slices.Sort(reads)
	t.Logf("the slowest of 128 writes was answered after %s; reads: p50 %s, at most %s",
		slowest.Round(time.Millisecond), reads[len(reads)/2].Round(time.Microsecond), reads[len(reads)-1].Round(time.Millisecond))
}

// writeAtOnce sends many writes at once that the store cannot take now, to one object and
// to many. The returned function waits for the answers. It returns how long the slowest
// took, and how many writes succeeded.
func (p *processes) writeAtOnce(shared []string) func() (slowest time.Duration, taken int64) {
	var waiting sync.WaitGroup
	var done atomic.Int64
	took := make([]time.Duration, 128)
	for i := range took {
		var d *request
		if i%4 > 1 {
			d = p.request("created", "POST", "/api/v1/queues", `{"sequenceId":"s"}`)
		} else {
			d = p.request("updated", "PUT", shared[i%len(shared)], body(`{"name":"%d"}`, i))
		}
		waiting.Go(func() {
			asked := time.Now()
			r, err := d.Send(p.http, p.nodes[i%len(p.nodes)].url, testSecretKey)
			took[i] = time.Since(asked)
			if err != nil {
				p.t.Error(err)
				return
			}
			if r.Status < 300 {
				d.Reply = r
				done.Add(1)
				return
			}
			d.Denied = append(d.Denied, *r)
			if r.Status != 503 || r.RetryAfter == "" || took[i] > answerWithin {
				p.t.Errorf("a write is answered after %s with %d %s", took[i], r.Status, r.Body)
			}
		})
	}
	p.t.Cleanup(waiting.Wait)
	return func() (time.Duration, int64) {
		waiting.Wait()
		return slices.Max(took), done.Load()
	}
}

// keepWriting starts clients that write, and repeat each request until it has an answer.
// The returned function stops the clients and waits for them.
func (p *processes) keepWriting(clients int, pause time.Duration) (finish func()) {
	var writing sync.WaitGroup
	over := make(chan struct{})
	for c := range clients {
		writing.Go(func() { p.persist(c, pause, over) })
	}
	finish = sync.OnceFunc(func() {
		close(over)
		writing.Wait()
	})
	p.t.Cleanup(finish)
	return finish
}

// persist is one of these clients. It writes to any node until over is closed.
func (p *processes) persist(c int, pause time.Duration, over <-chan struct{}) {
	own := ""
	for n := 0; ; n++ {
		select {
		case <-over:
			return
		case <-time.After(pause):
		}
		d := p.request("updated", "PUT", own, body(`{"name":"%d of %d"}`, n, c))
		switch {
		case own == "":
			d.Effect, d.Method, d.Path, d.Body, d.Key = "created", "POST", "/api/v1/queues", `{"sequenceId":"s"}`, "key-"+d.ID
		case n%5 == 4:
			d.Effect, d.Method, d.Path, d.Body, d.Key = "updated", "POST", own+"/open", "", "key-"+d.ID
		}
		for d.Reply == nil {
			r, err := d.Send(p.http, p.nodes[(c+n+d.Attempts)%len(p.nodes)].url, testSecretKey)
			switch {
			case err != nil:
				p.t.Error(err)
				return
			case r.Status == 503 && p.t.Failed():
				return
			case r.Status == 503:
				d.Denied = append(d.Denied, *r)
				<-time.After(100 * time.Millisecond)
			default:
				d.Reply = r
			}
		}
		if d.Effect == "created" {
			own = d.Reply.Location
		} else if d.Key != "" {
			own = "" // an open object cannot be opened again
		}
	}
}

// opened counts the objects whose opening is in the log.
func opened(l *ledger.Ledger, paths []string) (n int) {
	for _, path := range paths {
		for stream, s := range l.Distributions() {
			if strings.HasSuffix(stream, strings.SplitN(filepath.Base(path), "_", 2)[1]) && strings.Contains(strings.Join(s.Rows, ""), `"OPEN"`) {
				n++
			}
		}
	}
	return n
}
