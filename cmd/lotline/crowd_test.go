package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/cmd/lotline/crowd"
	"github.com/lotline/lotline/domain"
)

const (
	crowdClients = 6
	crowdCalls   = 600 // of all clients together
	crowdSeeds   = 2
	crowdKills   = 3 // of each queue
	// closer is the only client that moves the time to close. So no other client undoes
	// its last move.
	closer = 0
	// crowdAtOnce is the number of consumers that clients act for at any time. Others
	// follow, because a consumer that has completed or was denied cannot enter again.
	crowdAtOnce = 12
	// crowdPause is the longest pause of a client between two calls.
	crowdPause = 10 * time.Millisecond
)

// Clients use a queue and change its rate, its capacity and its time to close. The queue's
// history explains every answer and breaks no rule.
func TestCrowd_oneNode(t *testing.T) {
	t.Parallel()
	eachSeed(t, crowdSeeds, func(t *testing.T, seed uint64) {
		mustHold(t, runCrowd(t, newCluster(t, 1), seed, false))
	})
}

func TestCrowd_twoNodes(t *testing.T) {
	t.Parallel()
	eachSeed(t, crowdSeeds, func(t *testing.T, seed uint64) {
		mustHold(t, runCrowd(t, newCluster(t, 2), seed, false))
	})
}

// The same while the store is cut off now and then.
func TestCrowd_inTrouble(t *testing.T) {
	t.Parallel()
	eachSeed(t, crowdSeeds, func(t *testing.T, seed uint64) {
		mustHold(t, runCrowd(t, newCluster(t, 1+int(seed%2)), seed, true))
	})
}

// The same while the engine is killed in the middle of admission, again and again.
func TestCrowd_killed(t *testing.T) {
	t.Parallel()
	eachSeed(t, 1, func(t *testing.T, seed uint64) { mustHold(t, killCrowd(t, seed)) })
}

func killCrowd(t *testing.T, seed uint64) *crowd.Evidence {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := dataDirectory(t)
	serve := func(env ...string) *engine {
		return testBinary(t).serve(t, dir, append(env, "LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey)...)
	}
	e := serve()
	c := newCrowd(t, seed, testSecretKey, e.url)
	c.make()
	for range crowdKills {
		e.kill()
		c.http.CloseIdleConnections()
		at := pick(rng, beforeAppend, afterAppend)
		e = serve(fmt.Sprintf("%s=%s:%d", faultAt, at, 1+rng.IntN(60)))
		c.urls = []string{e.url}
		enough := c.begun.Load() + 20 + rng.Int64N(100)
		arm := start(func(ctx context.Context) {
			for c.begun.Load() < enough && ctx.Err() == nil {
				c.pause(ctx, time.Millisecond)
			}
			if err := e.cmd.Process.Signal(syscall.SIGUSR1); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
		// Each client goes on until it gets no answer.
		c.work()
		arm()
	}
	e.kill()
	c.http.CloseIdleConnections()
	c.urls = []string{serve().url}
	c.work()
	return c.evidence()
}

// mustHold fails the test unless every claim was checked and holds.
func mustHold(t *testing.T, c *crowd.Evidence) {
	t.Helper()
	verdicts := c.Judge()
	for _, v := range verdicts.All {
		if v.Broken > 0 {
			t.Errorf("%d times of %d it does not hold that %s: %s", v.Broken, v.Looked, v.Claim, v.Example)
		}
	}
	for _, claim := range crowd.Claims() {
		if verdicts.Of(claim).Looked == 0 {
			t.Errorf("it was never looked at whether %s", claim)
		}
	}
	answers := map[string]int{}
	for _, call := range c.Calls {
		answers[fmt.Sprint(call.Op, " ", call.Status, " ", call.Code)]++
	}
	t.Logf("%d calls, %d events: %v", len(c.Calls), len(c.Events), answers)
	record(t, c)
}

// crowdRun is a queue with clients that act for many consumers.
type crowdRun struct {
	t      testing.TB
	seed   uint64
	secret string
	public string
	urls   []string // of the nodes
	http   *caller
	queue  string // its path
	calls  int64
	crew   []*crowdClient
	begun  atomic.Int64

	mu     sync.Mutex // guards the field below
	access map[string]string
}

func newCrowd(t testing.TB, seed uint64, secret string, urls ...string) *crowdRun {
	c := &crowdRun{t: t, seed: seed, secret: secret, urls: urls, http: newCaller(t), calls: crowdCalls, access: map[string]string{}}
	for i := range crowdClients {
		c.crew = append(c.crew, &crowdClient{crowdRun: c, id: i, random: rand.New(rand.NewPCG(seed, uint64(i)+1)), tokens: map[string]string{}})
	}
	return c
}

func runCrowd(t testing.TB, cl *cluster, seed uint64, trouble bool) *crowd.Evidence {
	t.Helper()
	var urls []string
	for _, n := range cl.nodes {
		urls = append(urls, n.url)
	}
	c := newCrowd(t, seed, clusterKey, urls...)
	c.make()
	stopTrouble := func() {}
	if trouble {
		stopTrouble = start(func(ctx context.Context) {
			random := rand.New(rand.NewPCG(seed, 1<<32))
			for ctx.Err() == nil {
				n := cl.nodes[random.IntN(len(cl.nodes))]
				c.pause(ctx, time.Duration(random.Int64N(int64(400*time.Millisecond))))
				n.link.cut()
				c.pause(ctx, time.Duration(random.Int64N(int64(60*time.Millisecond))))
				n.link.mend()
			}
		})
	}
	c.work()
	stopTrouble()
	return c.evidence()
}

func (c *crowdRun) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// must asks node 0 until it answers with a status.
func (c *crowdRun) must(status int, method, path, body string, header ...string) (got answer) {
	c.t.Helper()
	h := http.Header{"Authorization": {"Bearer " + c.secret}}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	eventually(c.t, method+" "+path, func() bool {
		a, err := c.http.call(c.t.Context(), method, c.urls[0]+path, body, h)
		got = a
		return err == nil && a.status == status
	})
	return got
}

func (c *crowdRun) make() {
	c.t.Helper()
	c.public = c.must(201, "POST", "/api/v1/keys", `{"level":"publishable"}`).object(c.t)["key"].(string)
	c.queue = c.must(201, "POST", "/api/v1/queues", body(
		`{"sequenceId":"s","openAt":%q,"closeAt":%q,"maxCapacity":8,"admissionRate":1200,"sessionDurationSeconds":2}`, in(-1000), farOpening,
	)).header.Get("Location")
	eventually(c.t, "all nodes know the queue and the key", func() bool {
		for _, url := range c.urls {
			a, err := c.http.call(c.t.Context(), http.MethodGet, url+c.queue, "", http.Header{"Authorization": nil, "X-Publishable-Key": {c.public}})
			if err != nil || a.status != http.StatusOK {
				return false
			}
		}
		return true
	})
}

// work has every client make calls until all are made or it gets no answer.
func (c *crowdRun) work() {
	var all sync.WaitGroup
	for _, client := range c.crew {
		all.Go(client.work)
	}
	all.Wait()
}

// evidence waits until the queue has completed and reads its history.
func (c *crowdRun) evidence() *crowd.Evidence {
	c.t.Helper()
	eventually(c.t, "the queue is over", func() bool {
		return c.must(200, "GET", c.queue, "").object(c.t)["status"] == string(domain.StatusCompleted)
	})
	e := &crowd.Evidence{}
	for _, client := range c.crew {
		e.Calls = append(e.Calls, client.record...)
	}
	slices.SortFunc(e.Calls, crowd.ByTime)
	id := c.queue[len("/api/v1/queues/"):]
	a := c.must(200, "GET", "/api/v1/distributions/"+id+"/events", "", "Accept", "application/x-ndjson")
	for line := range bytes.Lines(a.body) {
		var one claims.Event
		if err := json.Unmarshal(line, &one); err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		e.Events = append(e.Events, &one)
	}
	return e
}

// crowdClient sends one call after another, for one consumer or another.
type crowdClient struct {
	*crowdRun
	id     int
	random *rand.Rand
	record []*crowd.Call
	latest *crowd.Call       // the last call whose answer had a position
	closed bool              // it has set the time to close for the last time
	tokens map[string]string // for admission, by consumer
}

func (c *crowdClient) work() {
	for {
		n := c.begun.Add(1)
		if c.id == closer && !c.closed && n*100 >= c.calls*85 {
			call := c.close()
			for ; call.Status != http.StatusOK && call.Status != 0; call = c.close() {
				c.pause(c.t.Context(), crowdPause)
			}
			if call.Status == 0 {
				return
			}
			c.closed = true
		}
		if n > c.calls {
			return
		}
		if call := c.act(n); call == nil || call.Status == 0 {
			return
		}
		after(c.t, time.Duration(c.random.Int64N(int64(crowdPause))))
	}
}

func (c *crowdClient) close() *crowd.Call {
	at := domain.InstantOf(time.Now().Add(400 * time.Millisecond))
	return c.send(&crowd.Call{Op: crowd.Update, CloseAt: at}, http.MethodPut, "", body(`{"closeAt":%q}`, at))
}

// act makes the n-th call.
func (c *crowdClient) act(n int64) *crowd.Call {
	i := n/8 + c.random.Int64N(crowdAtOnce)
	call := &crowd.Call{Consumer: fmt.Sprintf("consumer-%d", i)}
	about := body(`{"consumerId":%q}`, call.Consumer)
	switch p := c.random.IntN(100); {
	case p < 35:
		call.Op = crowd.Enter
		return c.send(call, http.MethodPost, "/enter", "")
	case p < 55:
		call.Op = crowd.Status
		return c.send(call, http.MethodGet, "/status", "")
	case p < 63:
		call.Op = crowd.Leave
		return c.send(call, http.MethodPost, "/leave", "")
	case p < 68:
		call.Op = crowd.Admit
		return c.send(call, http.MethodPost, "/admit", about)
	case p < 70:
		call.Op, call.Consumer, call.Count = crowd.AdmitNext, "", 2
		return c.send(call, http.MethodPost, "/admit", body(`{"count":%d}`, call.Count))
	case p < 79:
		call.Op = crowd.Complete
		return c.send(call, http.MethodPost, "/complete", about)
	case p < 82:
		call.Op = crowd.Deny
		return c.send(call, http.MethodPost, "/deny", body(`{"consumerId":%q,"reason":"FRAUD_DETECTED"}`, call.Consumer))
	case p < 96:
		return c.validate(call)
	}
	call.Op, call.Consumer = crowd.Update, ""
	change := pick(c.random,
		`"maxCapacity":3`, `"maxCapacity":5`, `"maxCapacity":9`, `"admissionRate":300`, `"admissionRate":1500`, `"admissionRate":6000`,
		`"admissionRate":null`, `"sessionDurationSeconds":1`, `"sessionDurationSeconds":2`)
	if c.id == closer && !c.closed && c.random.IntN(2) == 0 {
		call.CloseAt, _ = domain.ParseInstant(pick(c.random, farOpening, farEnd), "")
		change = body(`"closeAt":%q`, call.CloseAt)
	}
	return c.send(call, http.MethodPut, "", "{"+change+"}")
}

// validate checks a token that the client was given for the consumer, or for another.
func (c *crowdClient) validate(call *crowd.Call) *crowd.Call {
	call.Op = crowd.Validate
	for consumer, token := range c.tokens {
		if call.Checked = token; c.random.IntN(8) > 0 {
			call.Consumer = consumer
		}
		if c.random.IntN(3) == 0 {
			delete(c.tokens, consumer)
		}
		break
	}
	if call.Checked == "" {
		call.Op = crowd.Status
		return c.send(call, http.MethodGet, "/status", "")
	}
	return c.send(call, http.MethodPost, "/validate", body(`{"consumerId":%q,"token":%q}`, call.Consumer, call.Checked))
}

// asConsumer returns the credentials of a consumer: an access token for every other
// consumer, the secret key for the rest. It returns nil when it got no token.
func (c *crowdClient) asConsumer(consumer string) http.Header {
	if consumer[len(consumer)-1]%2 == 0 {
		return http.Header{"Authorization": {"Bearer " + c.secret}, "X-Consumer-Id": {consumer}}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.access[consumer] == "" {
		a, err := c.http.call(c.t.Context(), http.MethodPost, c.urls[0]+"/api/v1/auth/consumer", body(`{"consumerId":%q}`, consumer),
			http.Header{"Authorization": {"Bearer " + c.secret}})
		switch {
		case err != nil:
			return nil
		case a.status == http.StatusCreated:
			c.access[consumer] = a.object(c.t)["accessToken"].(string)
		}
	}
	return http.Header{"Authorization": {"Bearer " + c.access[consumer]}, "X-Publishable-Key": {c.public}}
}

// send makes a call and records it. It returns nil when it got no token for the call.
func (c *crowdClient) send(call *crowd.Call, method, action, sent string) *crowd.Call {
	header := http.Header{"Authorization": {"Bearer " + c.secret}}
	if call.Op == crowd.Enter || call.Op == crowd.Leave || call.Op == crowd.Status {
		if header = c.asConsumer(call.Consumer); header == nil {
			return nil
		}
	}
	call.ID = fmt.Sprintf("%d-%d", c.id, len(c.record))
	call.Node = c.random.IntN(len(c.urls))
	header.Set("X-Request-Id", call.ID)
	if !call.Op.Reads() && call.Op != crowd.Update && c.random.IntN(3) == 0 {
		// All clients use the same few keys. So many requests are repeats, some of them at
		// the same time.
		call.Key = body("%s-%s-%s", call.Op, pick(c.random, "a", "b"), call.Consumer)
		if call.Op == crowd.AdmitNext {
			call.Key += body("%d", c.begun.Load()/100)
		}
		header.Set("Idempotency-Key", call.Key)
	}
	if call.Op.Reads() && c.latest != nil && c.random.IntN(2) == 0 {
		call.Named = c.latest.ID
		header.Set("X-Position", c.latest.Position)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	call.Called = time.Now()
	a, err := c.http.call(ctx, method, c.urls[call.Node]+c.queue+action, sent, header)
	call.Returned = time.Now()
	call.Late = call.Op.Reads() && call.Returned.Sub(call.Called) >= ownWait
	c.record = append(c.record, call)
	if err == nil {
		c.understand(call, a)
	}
	return call
}

func (c *crowdClient) understand(call *crowd.Call, a answer) {
	call.Status, call.Position = a.status, a.header.Get("X-Position")
	call.Replayed = a.header.Get("Idempotent-Replayed") == "true"
	if call.Position != "" {
		c.latest = call
	}
	var said struct {
		Code  string           `json:"code"`
		Data  []crowd.Standing `json:"data"`
		Valid bool             `json:"valid"`
		Error string           `json:"error"`
	}
	var one crowd.Standing
	var err error
	switch {
	case call.Op == crowd.Update && a.status == http.StatusOK:
	case a.status != http.StatusOK || call.Op == crowd.Validate || call.Op == crowd.Admit || call.Op == crowd.AdmitNext:
		err = json.Unmarshal(a.body, &said)
		call.Code, call.Shown, call.Valid, call.Invalid = said.Code, said.Data, said.Valid, said.Error
	default:
		err = json.Unmarshal(a.body, &one)
		call.Shown = []crowd.Standing{one}
	}
	if err != nil {
		c.t.Errorf("%v: %s", err, a.body)
	}
	for _, s := range call.Shown {
		if s.Token != "" {
			c.tokens[s.ConsumerID] = s.Token
		}
	}
}

// record writes evidence to the file that LOTLINE_TEST_RECORD names, if it names one.
// The planted-fault tests of the packages that judge evidence start from such a file.
func record(t *testing.T, evidence any) {
	t.Helper()
	path := os.Getenv("LOTLINE_TEST_RECORD")
	if path == "" {
		return
	}
	text, err := json.Marshal(evidence)
	if err == nil {
		err = os.WriteFile(path, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
