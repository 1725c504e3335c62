package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/cmd/lotline/ledger"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/projections"
)

// The variables that `make soak` sets for a long run.
const (
	roundsVariable = "LOTLINE_TEST_ROUNDS"
	seedVariable   = "LOTLINE_TEST_SEED"
)

const (
	clients       = 16
	perDirectory  = 10  // rounds on one data directory
	acknowledging = 200 // the fewest acknowledged writes in a round
	enginesAtOnce = 2
)

// number returns the value of an environment variable, or otherwise if it is not set.
func number(t testing.TB, variable string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// A process may be killed at any moment. A change that it acknowledged is in the log once.
// A change that it did not acknowledge is in the log at most once. A client that repeats
// the request learns which.
func TestKill_nothingAcknowledgedIsLostAndNothingHappensTwice(t *testing.T) {
	t.Parallel()
	rounds := 100
	switch {
	case testing.Short():
		rounds = 20
	case raceDetector:
		// The race detector makes a round six times as slow, and a few rounds are enough for it.
		rounds = 20
	}
	rounds = int(number(t, roundsVariable, uint64(rounds)))
	seed := number(t, seedVariable, rand.Uint64())
	t.Logf("%d rounds; %s=%d plans the same again", rounds, seedVariable, seed)
	all := &tally{started: time.Now()}
	var engines sync.WaitGroup
	var next atomic.Int64
	for range enginesAtOnce {
		engines.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				left := rounds - i*perDirectory
				if left <= 0 || t.Failed() {
					return
				}
				t.Run(fmt.Sprintf("directory %d", i), func(t *testing.T) {
					killed := newKilled(t, rand.New(rand.NewPCG(seed, uint64(i))))
					for range min(left, perDirectory) {
						killed.round()
						if n := all.finish(); n%100 == 0 {
							t.Logf("%d rounds in %s", n, time.Since(all.started).Round(time.Second))
						}
					}
					killed.settle()
					all.add(killed)
				})
			}
		})
	}
	engines.Wait()
	t.Log(all)
}

// killed is a data directory whose engine is killed again and again.
type killed struct {
	t       *testing.T
	dir     string
	rng     *rand.Rand
	ledger  *ledger.Ledger
	clients []*client
	shared  *shelf
	engine  *engine
	http    *http.Client

	recoveries []time.Duration
	ends       map[string]int
}

func newKilled(t *testing.T, rng *rand.Rand) *killed {
	t.Helper()
	dir := dataDirectory(t)
	k := &killed{
		t: t, dir: dir, rng: rng, ledger: newLedger(t, dir), shared: &shelf{}, ends: map[string]int{},
		http: newHTTPClient(t),
	}
	for i := range clients {
		k.clients = append(k.clients, &client{name: fmt.Sprintf("c%d", i), killed: k})
	}
	return k
}

const byChance = "at any moment"

// round starts the engine, checks the state that the last round left, and lets the
// clients write until the engine is dead.
func (k *killed) round() {
	k.t.Helper()
	end := []string{byChance, byChance, beforeAppend, beforeAppend, afterAppend, afterAppend}[k.rng.IntN(6)]
	var env []string
	if end != byChance {
		env = append(env, fmt.Sprintf("%s=%s:%d", faultAt, end, 1+k.rng.IntN(40)))
	}
	k.start(env...)
	k.compare()
	var acknowledged atomic.Int64
	enough := make(chan struct{})
	target := int64(acknowledging + k.rng.IntN(50))
	k.shared.clear()
	var writing sync.WaitGroup
	for _, c := range k.clients {
		c.rng = rand.New(rand.NewPCG(k.rng.Uint64(), 0))
		writing.Go(func() {
			for d := c.first(); c.try(d); d = c.next() {
				if d.Reply.Status < 300 && acknowledged.Add(1) == target {
					close(enough)
				}
			}
		})
	}
	pause := time.Duration(k.rng.IntN(20_000)) * time.Microsecond
	dead := make(chan struct{})
	go func() {
		writing.Wait()
		close(dead)
	}()
	select {
	case <-enough:
	case <-dead:
		k.t.Fatalf("it ended after %d writes: %s", acknowledged.Load(), k.engine.stderr)
	case <-time.After(time.Minute):
		k.t.Fatalf("only %d writes in a minute", acknowledged.Load())
	}
	if end == byChance {
		<-time.After(pause)
		k.engine.kill()
	} else if err := k.engine.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		k.t.Fatal(err)
	}
	select {
	case <-dead:
	case <-time.After(time.Minute):
		k.t.Fatalf("it was not killed %s an append", end)
	}
	k.engine.kill()
	if status, ok := k.engine.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
		k.t.Fatalf("it ended by %v: %s", k.engine.cmd.ProcessState, k.engine.stderr)
	}
	k.ends[end]++
	k.http.CloseIdleConnections()
}

func (k *killed) start(env ...string) {
	k.t.Helper()
	started := time.Now()
	k.engine = testBinary(k.t).serve(k.t, k.dir, append(env, "LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey)...)
	k.recoveries = append(k.recoveries, time.Since(started))
}

// compare lets every client repeat the request that got no answer, and its last
// acknowledged request with a key. Then it compares everything with the log.
func (k *killed) compare() {
	k.t.Helper()
	var asking sync.WaitGroup
	for _, c := range k.clients {
		asking.Go(func() {
			if c.keyed != nil {
				if r, err := c.keyed.Send(c.http, c.engine.url, testSecretKey); err != nil {
					k.t.Error(err)
				} else {
					c.keyed.Again = append(c.keyed.Again, *r)
				}
				c.keyed = nil
			}
			if c.open != nil && c.mayRepeat(c.open) && !c.try(c.open) {
				k.t.Error("no answer to a repeated request")
			}
			c.open = nil
		})
	}
	asking.Wait()
	k.ledger.Check(k.engine)
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// settle waits until nothing is due, and compares the read models with new ones that are
// made from the log alone.
func (k *killed) settle() {
	k.t.Helper()
	k.start()
	k.compare()
	k.ledger.UntilQuiet()
	var objects []string
	for stream, s := range k.ledger.Distributions() {
		k.ledger.CheckObject(k.engine, stream)
		if !s.Deleted() {
			objects = append(objects, fmt.Sprint(answer{body: []byte(s.Rows[len(s.Rows)-1])}.object(k.t)))
		}
	}
	k.ledger.CheckUnchanged()
	before := k.everything()
	for order, listed := range before {
		if slices.Sort(objects); !slices.Equal(slices.Sorted(slices.Values(listed)), objects) {
			k.t.Errorf("the log has\n%s\nand by %s are listed\n%s", strings.Join(objects, "\n"), order, strings.Join(listed, "\n"))
		}
	}
	k.engine.kill()
	k.compareDigests()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(k.dir, viewsFile+suffix)); err != nil && suffix == "" {
			k.t.Fatal(err)
		}
	}
	k.start()
	if after := k.everything(); !maps.EqualFunc(before, after, slices.Equal) {
		k.t.Errorf("the lists were\n%v\nand made anew are\n%v", before, after)
	}
	k.engine.kill()
}

// everything returns the answers of all lists, by their order.
func (k *killed) everything() map[string][]string {
	k.t.Helper()
	all := map[string][]string{}
	for _, order := range []string{"createdAt", "name", "openAt"} {
		for query, more := "?first=100&sortBy="+order, true; more; {
			page := k.engine.must(200, "GET", "/api/v1/distributions"+query, testSecretKey, "").object(k.t)
			for _, row := range page["data"].([]any) {
				all[order] = append(all[order], fmt.Sprint(row))
			}
			info := page["pageInfo"].(map[string]any)
			if more = info["hasNextPage"].(bool); more {
				query = "?first=100&sortBy=" + order + "&after=" + info["endCursor"].(string)
			}
		}
	}
	return all
}

// compareDigests brings the read models that the last process left to the log's end, and
// compares them with new ones.
func (k *killed) compareDigests() {
	k.t.Helper()
	s := &settings{DataDir: k.dir, MasterKey: testMasterKey}
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		k.t.Fatal(err)
	}
	l, err := openLog(k.t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		k.t.Fatal(err)
	}
	l.dir = dir
	defer l.Close()
	digest := func(path string) string {
		views, err := projections.Open(path, projections.Origin{ID: l.id, Head: l.head}, l.keys, zerolog.Nop())
		if err != nil {
			k.t.Fatal(err)
		}
		defer views.Close()
		tail := eventstore.NewTail(l.Log, followedKinds(), l.head, zerolog.Nop(), views)
		stop := start(tail.Run)
		defer stop()
		<-tail.CaughtUp()
		return views.Digest()
	}
	live, fresh := digest(dir.file(viewsFile)), digest(filepath.Join(k.t.TempDir(), viewsFile))
	if live != fresh {
		k.t.Errorf("the read models have the digest %s, those made anew %s", live, fresh)
	}
}

// client is a client that sends one request after another.
type client struct {
	*killed
	name  string
	rng   *rand.Rand
	count int

	own   []object
	open  *request // the request that got no answer
	keyed *request // the last acknowledged request that has a key
}

type object struct{ path, etag string }

// shelf has the objects that all clients change in a round.
type shelf struct {
	mu      sync.Mutex
	objects []object
}

func (s *shelf) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects = nil
}

func (s *shelf) put(o object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.objects {
		if s.objects[i].path == o.path {
			s.objects[i] = o
			return
		}
	}
	s.objects = append(s.objects, o)
}

func (s *shelf) pick(n int) (object, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.objects) == 0 {
		return object{}, false
	}
	return s.objects[n%len(s.objects)], true
}

var collections = []string{"/api/v1/queues", "/api/v1/draws", "/api/v1/auctions"}

func (c *client) request(effect, method, path, body string) *request {
	c.count++
	d := &request{Client: c.name, ID: fmt.Sprintf("%s-%d", c.name, c.count), Method: method, Path: path, Body: body, Effect: effect}
	if method == "POST" && (effect != "created" || c.rng.IntN(4) > 0) {
		d.Key = "key-" + d.ID
	}
	c.ledger.Add(d)
	return d
}

// first plans the first request of a round: it makes a shared object, or is like any
// other.
func (c *client) first() *request {
	for i, collection := range collections {
		if c.name == fmt.Sprintf("c%d", i) {
			own := []string{"", body(`,"drawAt":%q,"winnerCount":1`, in(3_600_000)), body(`,"settleAt":%q`, in(3_600_000))}[i]
			return c.request("created", "POST", collection, `{"sequenceId":"shared"`+own+`}`)
		}
	}
	return c.next()
}

// next plans the next request.
func (c *client) next() *request {
	n := c.rng.IntN(100)
	if n < 25 || len(c.own) == 0 {
		return c.create()
	}
	i := c.rng.IntN(len(c.own))
	o := c.own[i]
	fight := c.rng.IntN(3) == 0
	if fight {
		if s, ok := c.shared.pick(i); ok {
			o = s
		}
	}
	switch {
	case n < 55:
		return c.request("updated", "PUT", o.path, body(`{"name":"%s, %d"}`, c.name, c.count))
	case n < 68:
		d := c.request("updated", "PUT", o.path, body(`{"name":"%s, %d, if still the same"}`, c.name, c.count))
		d.IfMatch = o.etag
		return d
	case n < 75:
		return c.request("updated", "PUT", o.path, body(`{"name":"%s, %d","closeAt":%q}`, c.name, c.count, in(20+c.rng.IntN(400))))
	case n < 88:
		step := []string{"open", "close"}[c.rng.IntN(2)]
		if strings.Contains(o.path, "/draws/") && c.rng.IntN(3) == 0 {
			step = "draw"
		} else if strings.Contains(o.path, "/auctions/") && c.rng.IntN(3) == 0 {
			step = "settle"
		}
		return c.request("updated", "POST", o.path+"/"+step, "")
	case n < 94 && strings.Contains(o.path, "/draws/"):
		return c.request("entropy.supplied", "PUT", o.path+"/entropy", body(`{"value":"%s, %d"}`, c.name, c.count))
	case fight:
		return c.create()
	default:
		c.own = slices.Delete(c.own, i, i+1)
		return c.request("deleted", "DELETE", o.path, "")
	}
}

func (c *client) create() *request {
	i := c.rng.IntN(len(collections))
	opens := 20 + c.rng.IntN(300)
	closes := opens + 10 + c.rng.IntN(200)
	ends := 3_600_000
	if c.rng.IntN(2) == 0 {
		ends = closes + c.rng.IntN(200)
	}
	schedule := ""
	if c.rng.IntN(3) > 0 {
		schedule = body(`,"openAt":%q`, in(opens))
		if c.rng.IntN(2) == 0 {
			schedule += body(`,"closeAt":%q`, in(closes))
		}
	}
	own := []string{`,"admissionRate":60`, body(`,"winnerCount":1,"drawAt":%q`, in(ends)), body(`,"startingBid":1.5,"settleAt":%q`, in(ends))}[i]
	if i == 1 && c.rng.IntN(2) == 0 {
		own += `,"entropySource":"drand"`
	}
	return c.request("created", "POST", collections[i], body(`{"sequenceId":"s","name":"%s, %d"%s%s}`, c.name, c.count, schedule, own))
}

// mayRepeat reports whether a request may be sent again without a second effect. An
// update without a key of an object that other clients change too could have one.
func (c *client) mayRepeat(d *request) bool {
	own := slices.ContainsFunc(c.own, func(o object) bool { return o.path == d.Path })
	return d.Key != "" || d.IfMatch != "" || d.Method == http.MethodDelete || d.Effect == "entropy.supplied" || own
}

// try sends a request and records the answer. It reports whether there was an answer.
func (c *client) try(d *request) bool {
	r, err := d.Send(c.http, c.engine.url, testSecretKey)
	if err != nil {
		c.open = d
		return false
	}
	d.Reply = r
	path := strings.TrimSuffix(d.Path, "/entropy")
	for _, step := range []string{"/open", "/close", "/draw", "/settle"} {
		path = strings.TrimSuffix(path, step)
	}
	switch {
	case r.Status == 201 && strings.Contains(d.Body, `"shared"`):
		c.shared.put(object{r.Location, r.ETag})
	case r.Status == 201:
		c.own = append(c.own, object{r.Location, r.ETag})
	case r.Status == 200:
		if i := slices.IndexFunc(c.own, func(o object) bool { return o.path == path }); i >= 0 {
			c.own[i].etag = r.ETag
		} else {
			c.shared.put(object{path, r.ETag})
		}
	}
	if r.Status >= 400 {
		// Objects that cannot be changed any more are dropped.
		c.own = slices.DeleteFunc(c.own, func(o object) bool { return o.path == path && r.Status != 412 })
	}
	if len(c.own) > 10 {
		c.own = c.own[1:]
	}
	if r.Status < 300 && d.Key != "" {
		c.keyed = d
	}
	return true
}

// tally adds up a run.
type tally struct {
	started time.Time

	mu         sync.Mutex // guards the fields below
	rounds     int
	ends       map[string]int
	asked      int
	done       int
	refused    int
	open       map[string]int // what became of requests that were not answered
	events     int
	recoveries []time.Duration
}

func (a *tally) finish() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rounds++
	return a.rounds
}

func (a *tally) add(k *killed) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil {
		a.open, a.ends = map[string]int{}, map[string]int{}
	}
	for end, n := range k.ends {
		a.ends[end] += n
	}
	for _, d := range k.ledger.Requests() {
		a.asked++
		switch {
		case d.Reply != nil && d.Reply.Status < 300:
			a.done++
		case d.Reply != nil:
			a.refused++
		}
		if d.Reply == nil || d.Reply.Attempt > 1 {
			a.open[fate(k.ledger, d)]++
		}
	}
	a.events += k.ledger.Events()
	a.recoveries = append(a.recoveries, k.recoveries...)
}

// fate says what happened to a request whose first attempt got no answer.
func fate(l *ledger.Ledger, d *request) string {
	first := l.Caused(d, 1)
	switch {
	case d.Reply == nil && first:
		return "done, not asked again"
	case d.Reply == nil:
		return "not done, not asked again"
	case first && d.Reply.Status < 300:
		return "done, and acknowledged to the repeat"
	case first:
		return "done, and the repeat refused for it"
	case d.Reply.Status < 300:
		return "not done, done by the repeat"
	}
	return "not done, and the repeat refused"
}

func (a *tally) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	slices.Sort(a.recoveries)
	p50, most := time.Duration(0), time.Duration(0)
	if n := len(a.recoveries); n > 0 {
		p50, most = a.recoveries[n/2], a.recoveries[n-1]
	}
	return fmt.Sprintf("%d rounds in %s\nkilled: %v\nrequests: %d, acknowledged: %d, refused: %d, events: %d\nnot answered: %v\nready again after: p50 %s, at most %s",
		a.rounds, time.Since(a.started).Round(time.Second), a.ends, a.asked, a.done, a.refused, a.events, a.open,
		p50.Round(time.Millisecond), most.Round(time.Millisecond))
}
