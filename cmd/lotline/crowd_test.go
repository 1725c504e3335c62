package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

const (
	crowdClients = 6
	crowdCalls   = 600 // of all clients together
	crowdSeeds   = 2
	crowdKills   = 3 // of each queue
	// closer is the client that moves the close, alone, so that nobody undoes what it
	// does last.
	closer = 0
	// crowdAtOnce is how many consumers are acted for at any time; then come others,
	// because who has completed or was denied stays that.
	crowdAtOnce = 12
	// crowdPause is the longest pause of a client between two calls.
	crowdPause = 10 * time.Millisecond
)

// What clients see of a queue with people in it, while its rate, its capacity and its
// close are changed, is explained by its history, and that breaks no rule.
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

func killCrowd(t *testing.T, seed uint64) *crowdEvidence {
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
		// Every client goes on until it gets no answer.
		c.work()
		arm()
	}
	e.kill()
	c.http.CloseIdleConnections()
	c.urls = []string{serve().url}
	c.work()
	return c.evidence()
}

// mustHold fails unless every claim was looked at, and holds.
func mustHold(t *testing.T, c *crowdEvidence) {
	t.Helper()
	verdicts := c.judge()
	for _, v := range verdicts.all {
		if v.Broken > 0 {
			t.Errorf("%d times of %d it does not hold that %s: %s", v.Broken, v.Looked, v.Claim, v.Example)
		}
	}
	for _, claim := range []string{
		claimWhole, claimOnce, claimAsked, claimTurn, claimLife, claimRate,
		claimCapacity, claimPace, claimSession, claimExplained, claimRefusal, claimRepeat, claimToken, claimTicket,
	} {
		if verdicts.of(claim).Looked == 0 {
			t.Errorf("it was never looked at whether %s", claim)
		}
	}
	answers := map[string]int{}
	for _, call := range c.calls {
		answers[fmt.Sprint(call.op, " ", call.status, " ", call.code)]++
	}
	t.Logf("%d calls, %d events: %v", len(c.calls), len(c.events), answers)
}

// crowd is a queue, and clients who act for many.
type crowd struct {
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

func newCrowd(t testing.TB, seed uint64, secret string, urls ...string) *crowd {
	c := &crowd{t: t, seed: seed, secret: secret, urls: urls, http: newCaller(t), calls: crowdCalls, access: map[string]string{}}
	for i := range crowdClients {
		c.crew = append(c.crew, &crowdClient{crowd: c, id: i, random: rand.New(rand.NewPCG(seed, uint64(i)+1)), tokens: map[string]string{}})
	}
	return c
}

func runCrowd(t testing.TB, cl *cluster, seed uint64, trouble bool) *crowdEvidence {
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

func (c *crowd) pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// must asks node 0 until it answers with a status.
func (c *crowd) must(status int, method, path, body string, header ...string) (got answer) {
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

func (c *crowd) make() {
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

// work has every client act until all calls are made, or it gets no answer.
func (c *crowd) work() {
	var all sync.WaitGroup
	for _, client := range c.crew {
		all.Go(client.work)
	}
	all.Wait()
}

// evidence waits until the queue is over and reads its history.
func (c *crowd) evidence() *crowdEvidence {
	c.t.Helper()
	eventually(c.t, "the queue is over", func() bool {
		return c.must(200, "GET", c.queue, "").object(c.t)["status"] == string(domain.StatusCompleted)
	})
	e := &crowdEvidence{}
	for _, client := range c.crew {
		e.calls = append(e.calls, client.record...)
	}
	slices.SortFunc(e.calls, byCall)
	id := c.queue[len("/api/v1/queues/"):]
	a := c.must(200, "GET", "/api/v1/distributions/"+id+"/events", "", "Accept", "application/x-ndjson")
	for line := range bytes.Lines(a.body) {
		var one crowdEvent
		if err := json.Unmarshal(line, &one); err != nil {
			c.t.Fatalf("%v: %s", err, line)
		}
		e.events = append(e.events, &one)
	}
	return e
}

// crowdClient does one thing after another, for one consumer or another.
type crowdClient struct {
	*crowd
	id     int
	random *rand.Rand
	record []*crowdCall
	latest *crowdCall        // that brought a position
	closed bool              // it has had the queue close for good
	tokens map[string]string // for admission, by consumer
}

func (c *crowdClient) work() {
	for {
		n := c.begun.Add(1)
		if c.id == closer && !c.closed && n*100 >= c.calls*85 {
			call := c.close()
			for ; call.status != http.StatusOK && call.status != 0; call = c.close() {
				c.pause(c.t.Context(), crowdPause)
			}
			if call.status == 0 {
				return
			}
			c.closed = true
		}
		if n > c.calls {
			return
		}
		if call := c.act(n); call == nil || call.status == 0 {
			return
		}
		after(c.t, time.Duration(c.random.Int64N(int64(crowdPause))))
	}
}

func (c *crowdClient) close() *crowdCall {
	at := domain.InstantOf(time.Now().Add(400 * time.Millisecond))
	return c.send(&crowdCall{op: crowdUpdate, closeAt: at}, http.MethodPut, "", body(`{"closeAt":%q}`, at))
}

// act does the n-th thing.
func (c *crowdClient) act(n int64) *crowdCall {
	i := n/8 + c.random.Int64N(crowdAtOnce)
	call := &crowdCall{consumer: fmt.Sprintf("consumer-%d", i)}
	about := body(`{"consumerId":%q}`, call.consumer)
	switch p := c.random.IntN(100); {
	case p < 35:
		call.op = crowdEnter
		return c.send(call, http.MethodPost, "/enter", "")
	case p < 55:
		call.op = crowdStatus
		return c.send(call, http.MethodGet, "/status", "")
	case p < 63:
		call.op = crowdLeave
		return c.send(call, http.MethodPost, "/leave", "")
	case p < 68:
		call.op = crowdAdmit
		return c.send(call, http.MethodPost, "/admit", about)
	case p < 70:
		call.op, call.consumer = crowdAdmitCount, ""
		return c.send(call, http.MethodPost, "/admit", body(`{"count":%d}`, 2))
	case p < 79:
		call.op = crowdComplete
		return c.send(call, http.MethodPost, "/complete", about)
	case p < 82:
		call.op = crowdDeny
		return c.send(call, http.MethodPost, "/deny", body(`{"consumerId":%q,"reason":"FRAUD_DETECTED"}`, call.consumer))
	case p < 96:
		return c.validate(call)
	}
	call.op, call.consumer = crowdUpdate, ""
	change := pick(c.random,
		`"maxCapacity":3`, `"maxCapacity":5`, `"maxCapacity":9`, `"admissionRate":300`, `"admissionRate":1500`, `"admissionRate":6000`,
		`"admissionRate":null`, `"sessionDurationSeconds":1`, `"sessionDurationSeconds":2`)
	if c.id == closer && !c.closed && c.random.IntN(2) == 0 {
		call.closeAt, _ = domain.ParseInstant(pick(c.random, farOpening, farEnd), "")
		change = body(`"closeAt":%q`, call.closeAt)
	}
	return c.send(call, http.MethodPut, "", "{"+change+"}")
}

// validate shows a token that the client was given for the consumer, or for another.
func (c *crowdClient) validate(call *crowdCall) *crowdCall {
	call.op = crowdValidate
	for consumer, token := range c.tokens {
		if call.token = token; c.random.IntN(8) > 0 {
			call.consumer = consumer
		}
		if c.random.IntN(3) == 0 {
			delete(c.tokens, consumer)
		}
		break
	}
	if call.token == "" {
		call.op = crowdStatus
		return c.send(call, http.MethodGet, "/status", "")
	}
	return c.send(call, http.MethodPost, "/validate", body(`{"consumerId":%q,"token":%q}`, call.consumer, call.token))
}

// asConsumer are the credentials of a consumer: an access token for every other one,
// the secret key for the rest. It is nil when the token could not be had.
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

// send makes a call and records it. It returns nil when there was no way to.
func (c *crowdClient) send(call *crowdCall, method, action, sent string) *crowdCall {
	header := http.Header{"Authorization": {"Bearer " + c.secret}}
	if call.op == crowdEnter || call.op == crowdLeave || call.op == crowdStatus {
		if header = c.asConsumer(call.consumer); header == nil {
			return nil
		}
	}
	call.id = fmt.Sprintf("%d-%d", c.id, len(c.record))
	call.node = c.random.IntN(len(c.urls))
	header.Set("X-Request-Id", call.id)
	if !call.op.reads() && call.op != crowdUpdate && c.random.IntN(3) == 0 {
		// The same few for all clients, so that many are repeated, at once as well.
		call.key = body("%s-%s-%s", call.op, pick(c.random, "a", "b"), call.consumer)
		if call.op == crowdAdmitCount {
			call.key += body("%d", c.begun.Load()/100)
		}
		header.Set("Idempotency-Key", call.key)
	}
	if call.op.reads() && c.latest != nil && c.random.IntN(2) == 0 {
		call.named = c.latest
		header.Set("X-Position", c.latest.position)
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	call.called = time.Now()
	a, err := c.http.call(ctx, method, c.urls[call.node]+c.queue+action, sent, header)
	call.returned = time.Now()
	c.record = append(c.record, call)
	if err == nil {
		c.understand(call, a)
	}
	return call
}

func (c *crowdClient) understand(call *crowdCall, a answer) {
	call.status, call.position = a.status, a.header.Get("X-Position")
	call.replayed = a.header.Get("Idempotent-Replayed") == "true"
	if call.position != "" {
		c.latest = call
	}
	var said struct {
		Code  string          `json:"code"`
		Data  []crowdStanding `json:"data"`
		Valid bool            `json:"valid"`
		Error string          `json:"error"`
	}
	var one crowdStanding
	var err error
	switch {
	case call.op == crowdUpdate && a.status == http.StatusOK:
	case a.status != http.StatusOK || call.op == crowdValidate || call.op == crowdAdmit || call.op == crowdAdmitCount:
		err = json.Unmarshal(a.body, &said)
		call.code, call.shown, call.valid, call.invalid = said.Code, said.Data, said.Valid, said.Error
	default:
		err = json.Unmarshal(a.body, &one)
		call.shown = []crowdStanding{one}
	}
	if err != nil {
		c.t.Errorf("%v: %s", err, a.body)
	}
	for _, s := range call.shown {
		if s.Token != "" {
			c.tokens[s.ConsumerID] = s.Token
		}
	}
}
