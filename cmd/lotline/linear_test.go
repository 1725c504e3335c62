package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/lotline/lotline/cmd/lotline/linear"
	"github.com/lotline/lotline/domain"
)

const (
	linearClients    = 8
	linearOperations = 320 // on each distribution
	linearSeeds      = 20
	// farOpening and farEnd are never reached, so that timers do nothing.
	farOpening = "2198-01-01T00:00:00.000Z"
	farEnd     = "2199-01-01T00:00:00.000Z"
	// ownWait is how long a node lets a read wait for events that it has acknowledged.
	ownWait = time.Second
)

// Histories that clients record over HTTP are linearizable.
func TestLinear_oneNode(t *testing.T) {
	t.Parallel()
	eachSeed(t, linearSeeds, func(t *testing.T, seed uint64) {
		runWorkload(t, newCluster(t, 1), workload{seed: seed}).mustBeLegal(t)
	})
}

func TestLinear_twoNodes(t *testing.T) {
	t.Parallel()
	eachSeed(t, linearSeeds, func(t *testing.T, seed uint64) {
		runWorkload(t, newCluster(t, 2), workload{seed: seed}).mustBeLegal(t)
	})
}

// The same while the store is cut off from time to time and clients give up early.
func TestLinear_inTrouble(t *testing.T) {
	t.Parallel()
	eachSeed(t, linearSeeds/2, func(t *testing.T, seed uint64) {
		runWorkload(t, newCluster(t, 1+int(seed%2)), workload{seed: seed, trouble: true}).mustBeLegal(t)
	})
}

// eachSeed runs f for several seeds. LOTLINE_TEST_SEED sets a single seed, and
// LOTLINE_TEST_SEEDS the number of seeds.
func eachSeed(t *testing.T, seeds uint64, f func(*testing.T, uint64)) {
	t.Helper()
	number := func(variable string) (uint64, bool) {
		text, given := os.LookupEnv(variable)
		if !given {
			return 0, false
		}
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", variable, err)
		}
		return n, true
	}
	first, last := uint64(1), seeds
	if n, given := number("LOTLINE_TEST_SEEDS"); given {
		last = n
	}
	if n, given := number("LOTLINE_TEST_SEED"); given {
		first, last = n, n
	}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			t.Parallel()
			f(t, seed)
		})
	}
}

// workload says what clients do.
type workload struct {
	seed       uint64
	trouble    bool
	kinds      []domain.Kind // the kinds of the distributions; empty means all three
	operations int           // the number on each distribution; 0 means linearOperations
	distinct   bool          // no client sends the same update twice
}

// subject is one distribution of a workload, with what the clients have seen of it.
type subject struct {
	kind       domain.Kind
	collection string
	sequence   string
	body       string
	openAt     string     // "" for a draft
	phases     [4]float64 // the progress from which clients open, close, end and delete it

	made  chan struct{} // closed when path is known
	path  string
	begun atomic.Int64
	quits atomic.Int64 // clients that gave up

	// The latest version that each node has acknowledged to any client.
	acknowledged []atomic.Int64

	mu      sync.Mutex // guards the fields below
	bodies  map[int64][]byte
	history linear.History
}

// recording is a workload while it runs, and then its histories.
type recording struct {
	workload
	t        testing.TB
	cluster  *cluster
	caller   *caller
	subjects []*subject
	started  time.Time
	underway chan struct{} // closed when a third of the operations on the first subject are done

	mu   sync.Mutex // guards the field below
	odds []string   // mistakes that a single answer shows
}

func (r *recording) odd(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.odds = append(r.odds, fmt.Sprintf(format, args...))
}

func runWorkload(t testing.TB, c *cluster, w workload) *recording {
	t.Helper()
	if len(w.kinds) == 0 {
		w.kinds = domain.Kinds()
	}
	if w.operations == 0 {
		w.operations = linearOperations
	}
	r := &recording{workload: w, t: t, cluster: c, caller: newCaller(t), started: time.Now(), underway: make(chan struct{})}
	if c.fronted {
		r.caller = r.caller.unchecked()
	}
	random := rand.New(rand.NewPCG(w.seed, 0))
	for i, k := range w.kinds {
		r.subjects = append(r.subjects, newSubject(random, k, i, len(c.nodes)))
	}
	var all sync.WaitGroup
	for i := range linearClients {
		cl := &asker{recording: r, id: i, process: i, random: rand.New(rand.NewPCG(w.seed, uint64(i)+1)), seen: make([]sight, len(r.subjects))}
		all.Go(cl.work)
	}
	stopTrouble := func() {}
	if w.trouble {
		stopTrouble = start(func(ctx context.Context) { r.makeTrouble(ctx, rand.New(rand.NewPCG(w.seed, 1<<32))) })
	}
	all.Wait()
	stopTrouble()
	return r
}

func newSubject(random *rand.Rand, k domain.Kind, i, nodes int) *subject {
	s := &subject{
		kind: k, collection: "/api/v1/" + string(k) + "s", sequence: fmt.Sprintf("subject-%d", i),
		made: make(chan struct{}), bodies: map[int64][]byte{},
		acknowledged: make([]atomic.Int64, nodes),
	}
	if random.IntN(2) == 0 {
		s.openAt = farOpening
	}
	for n := range s.acknowledged {
		s.acknowledged[n].Store(linear.NoVersion)
	}
	for p, earliest := range [4]float64{0.35, 0.6, 0.78, 0.9} {
		s.phases[p] = earliest + 0.05*random.Float64()
	}
	fields := map[string]any{"sequenceId": s.sequence}
	switch k {
	case domain.KindDraw:
		fields["drawAt"], fields["winnerCount"] = farEnd, 1
	case domain.KindAuction:
		fields["settleAt"] = farEnd
	case domain.KindQueue, domain.KindOrganization, domain.KindClaim, domain.KindSeal, domain.KindSink, domain.KindSigning, domain.KindClock:
	}
	if s.openAt != "" {
		fields["openAt"] = s.openAt
	}
	body, _ := json.Marshal(fields)
	s.body = string(body)
	return s
}

// unknownAfter is longer than a node lets a command wait.
const unknownAfter = 5300 * time.Millisecond

// makeTrouble cuts nodes off the store a few times. With some seeds this lasts so long
// that nodes give commands up.
func (r *recording) makeTrouble(ctx context.Context, random *rand.Rand) {
	wait := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	upTo := func(d time.Duration) time.Duration { return time.Duration(random.Int64N(int64(d))) }
	for i := 0; ctx.Err() == nil && i < 4; i++ {
		long := i == 0 && (r.seed%10 == 3 || r.seed%10 == 4)
		if long {
			select {
			case <-ctx.Done():
			case <-r.underway:
			}
		}
		wait(upTo(100 * time.Millisecond))
		n := r.cluster.nodes[random.IntN(len(r.cluster.nodes))]
		n.link.cut()
		wait(upTo(60 * time.Millisecond))
		if long {
			wait(unknownAfter)
		}
		n.link.mend()
	}
}

// asker is a client that sends one request after another.
type asker struct {
	*recording
	id      int
	process int // another one after each operation of unknown outcome
	random  *rand.Rand
	seen    []sight // by subject
}

// sight is what a client knows of a subject.
type sight struct {
	position string // X-Position of the answer to its latest write
	named    int64  // the version that was the answer
	versions []int64
	lastPut  map[string]string
}

func (c *asker) work() {
	// All clients begin with the same creations at the same time.
	for i := range c.subjects {
		c.create(i, false)
	}
	for {
		i, n := c.next()
		if n == 0 {
			break
		}
		c.operate(i, float64(n)/float64(c.operations))
	}
	for i := range c.subjects {
		c.read(i, linear.Get, false)
	}
}

// next picks a subject and returns the number of its next operation, from 1. It returns 0
// when all operations are done.
func (c *asker) next() (i int, n int64) {
	from := c.random.IntN(len(c.subjects))
	for j := range c.subjects {
		i := (from + j) % len(c.subjects)
		if n := c.subjects[i].begun.Add(1); n <= int64(c.operations) {
			if i == 0 && n == int64(c.operations)/3 {
				close(c.underway)
			}
			return i, n
		}
	}
	return 0, 0
}

// operate sends one operation to a subject. progress is the part of the subject's
// operations that are done.
func (c *asker) operate(i int, progress float64) {
	s, mine := c.subjects[i], &c.seen[i]
	switch p := c.random.Float64(); {
	case p < 0.22:
		c.read(i, linear.Get, false)
	case p < 0.32:
		c.read(i, linear.Get, true)
	case p < 0.42:
		c.read(i, linear.List, false)
	case p < 0.48:
		c.create(i, c.random.IntN(4) == 0)
	case p < 0.80:
		fields := mine.lastPut
		if fields == nil || c.random.IntN(6) > 0 || c.distinct {
			fields = map[string]string{}
			if c.random.IntN(4) == 0 {
				fields["openAt"] = pick(c.random, "", farOpening)
			}
			if len(fields) == 0 || c.random.IntN(2) == 0 {
				fields["name"] = ""
				if c.random.IntN(6) > 0 {
					fields["name"] = fmt.Sprintf("%d %d", c.id, s.begun.Load())
				}
			}
		}
		mine.lastPut = fields
		c.put(i, fields, c.ifMatch(mine, 3))
	default:
		c.moveOn(i, progress)
	}
}

// ifMatch returns, for one in so many operations, a version that the client has seen,
// mostly the latest.
func (c *asker) ifMatch(mine *sight, oneIn int) int64 {
	if len(mine.versions) == 0 || c.random.IntN(oneIn) > 0 {
		return linear.NoVersion
	}
	if c.random.IntN(4) == 0 {
		return pick(c.random, mine.versions...)
	}
	return mine.versions[len(mine.versions)-1]
}

// moveOn asks for a step of the lifecycle, often for one that is not possible.
func (c *asker) moveOn(i int, progress float64) {
	s := c.subjects[i]
	end := map[domain.Kind]domain.Status{domain.KindQueue: domain.StatusClosed, domain.KindDraw: domain.StatusDrawn, domain.KindAuction: domain.StatusSettled}[s.kind]
	step := func(to domain.Status) { c.step(i, to, pick(c.random, "", "a", "b")) }
	switch {
	case progress >= s.phases[3] && c.random.IntN(3) > 0:
		c.remove(i, c.ifMatch(&c.seen[i], 3))
	case progress >= s.phases[2] && c.random.IntN(2) > 0:
		step(end)
	case progress >= s.phases[1] && c.random.IntN(2) > 0:
		step(domain.StatusClosed)
	case progress >= s.phases[0] && c.random.IntN(3) > 0:
		step(domain.StatusOpen)
	case progress >= s.phases[0] && progress < s.phases[1]:
		// It is open by now, most likely.
		c.remove(i, linear.NoVersion)
	case progress < s.phases[0]:
		step(pick(c.random, domain.StatusClosed, end))
	default:
		step(pick(c.random, domain.StatusOpen, domain.StatusClosed, end))
	}
}

func pick[T any](random *rand.Rand, from ...T) T { return from[random.IntN(len(from))] }

func (c *asker) create(i int, other bool) {
	s := c.subjects[i]
	in := linear.Input{Op: linear.Create, OpenAt: s.openAt, Other: other}
	body := s.body
	if other {
		body = strings.Replace(body, s.sequence, "another", 1)
	}
	header := http.Header{"Idempotency-Key": {s.sequence}}
	out := c.send(i, in, http.MethodPost, s.collection, body, header)
	// The client cannot send anything else before the path is known.
	for out.Status != http.StatusCreated && !s.isMade() && c.t.Context().Err() == nil {
		after(c.t, 10*time.Millisecond)
		out = c.send(i, in, http.MethodPost, s.collection, body, header)
	}
}

func (s *subject) isMade() bool {
	select {
	case <-s.made:
		return true
	default:
		return false
	}
}

func (c *asker) put(i int, fields map[string]string, ifMatch int64) {
	body := map[string]any{}
	for name, value := range fields {
		body[name] = value
		if value == "" {
			body[name] = nil
		}
	}
	text, _ := json.Marshal(body)
	header := http.Header{"Idempotency-Key": {string(text)}}
	c.send(i, linear.Input{Op: linear.Put, Fields: fields, IfMatch: ifMatch}, http.MethodPut, c.path(i), string(text), header)
}

var stepNames = map[domain.Status]string{
	domain.StatusOpen: "open", domain.StatusClosed: "close", domain.StatusDrawn: "draw", domain.StatusSettled: "settle",
}

func (c *asker) step(i int, to domain.Status, key string) {
	header := http.Header{}
	in := linear.Input{Op: linear.Step, To: to, IfMatch: linear.NoVersion}
	if key != "" {
		header.Set("Idempotency-Key", key)
		in.Key = stepNames[to] + " " + key // the path is part of its scope
	}
	c.send(i, in, http.MethodPost, c.path(i)+"/"+stepNames[to], "", header)
}

func (c *asker) remove(i int, ifMatch int64) {
	c.send(i, linear.Input{Op: linear.Delete, IfMatch: ifMatch}, http.MethodDelete, c.path(i), "", http.Header{})
}

func (c *asker) read(i int, op linear.Operation, conditional bool) {
	s, mine := c.subjects[i], &c.seen[i]
	header := http.Header{}
	if n := len(mine.versions); conditional && n > 0 {
		header.Set("If-None-Match", fmt.Sprintf(`"%d"`, mine.versions[n-1]))
	}
	path := c.path(i)
	if op == linear.List {
		path = s.collection + "?sequenceId=" + s.sequence
	}
	c.send(i, linear.Input{Op: op}, http.MethodGet, path, "", header)
}

// path returns the path of subject i. It waits until the subject is made.
func (c *asker) path(i int) string {
	s := c.subjects[i]
	<-s.made
	return s.path
}

// send sends one operation to subject i and records it.
func (c *asker) send(i int, in linear.Input, method, path, body string, header http.Header) linear.Output {
	r, s, mine := c.recording, c.subjects[i], &c.seen[i]
	in.Kind, in.Client = s.kind, c.id
	at := c.random.IntN(len(r.cluster.nodes))
	isRead := method == http.MethodGet
	if in.Op != linear.Put && in.Op != linear.Delete && in.Op != linear.Step {
		in.IfMatch = linear.NoVersion
	}
	if in.IfMatch != linear.NoVersion {
		header.Set("If-Match", fmt.Sprintf(`"%d"`, in.IfMatch))
	}
	in.Named = linear.NoVersion
	if isRead && mine.position != "" && len(r.cluster.nodes) > 1 {
		in.Named = mine.named
		header.Set("X-Position", mine.position)
	}
	header.Set("X-Request-Id", fmt.Sprintf("client-%d", c.id))
	in.Acknowledged = s.acknowledged[at].Load()

	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	if r.trouble && !isRead && c.random.IntN(40) == 0 && s.quits.Add(1) <= 6 {
		cancel()
		ctx, cancel = context.WithTimeout(r.t.Context(), time.Duration(c.random.Int64N(int64(2*time.Millisecond))))
	}
	defer cancel()
	called := time.Since(r.started)
	a, err := r.caller.call(ctx, method, r.cluster.nodes[at].url+path, body, header)
	returned := time.Since(r.started)

	out, said := r.understand(s, in, a, err)
	out.Late = isRead && returned-called >= ownWait
	if !said {
		return out
	}
	if out.Unknown && isRead {
		return out
	}
	c.learn(s, mine, at, in, out, a)
	process := c.process
	if out.Unknown {
		// The client does not wait for the outcome, so it counts as another process
		// from now on.
		c.process += linearClients
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.Add(process, called, in, returned, out)
	return out
}

// understand turns an answer into an output. It reports false if the answer says only
// that nothing happened.
func (r *recording) understand(s *subject, in linear.Input, a answer, err error) (linear.Output, bool) {
	out := linear.Output{Version: linear.NoVersion}
	if err != nil {
		out.Unknown = true
		if !r.trouble && !errors.Is(err, context.DeadlineExceeded) {
			r.odd("%s: %v", in.Op, err)
		}
		return out, true
	}
	out.Status = a.status
	if a.status >= http.StatusBadRequest {
		out.Code, _ = a.object(r.t)["code"].(string)
	}
	switch out.Code {
	case "OUTCOME_UNKNOWN":
		out.Unknown = true
	case domain.EventStoreUnavailable.Identifier(), domain.ChangedByAnother.Identifier(), "READ_MODEL_IS_BEHIND":
		return out, false
	}
	if a.status == http.StatusInternalServerError {
		r.odd("%s: %s", in.Op, a.body)
	}
	if tag := a.header.Get("ETag"); tag != "" {
		n, err := strconv.ParseInt(strings.Trim(tag, `"`), 10, 64)
		if err != nil {
			r.odd("the entity tag %s", tag)
		}
		out.Version = n
	}
	out.Replayed = a.header.Get("Idempotent-Replayed") == "true"
	switch {
	case in.Op == linear.List && a.status == http.StatusOK:
		var page struct {
			Data []json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(a.body, &page); err != nil {
			r.odd("%v: %s", err, a.body)
		}
		switch len(page.Data) {
		case 0:
			out.Status = http.StatusNotFound
		case 1:
			out.Object = r.readObject(page.Data[0])
		default:
			r.odd("%s is listed several times: %s", s.path, a.body)
		}
	case a.status == http.StatusOK, a.status == http.StatusCreated:
		out.Object = r.readObject(a.body)
		r.sameBytes(s, out.Version, a.body)
	}
	if in.Op == linear.Get && a.status == http.StatusNotFound || in.Op == linear.List {
		out.Code = ""
	}
	return out, true
}

func (r *recording) readObject(body []byte) linear.Object {
	var o struct {
		Status domain.Status `json:"status"`
		Name   *string       `json:"name"`
		OpenAt *string       `json:"openAt"`
	}
	if err := json.Unmarshal(body, &o); err != nil {
		r.odd("%v: %s", err, body)
	}
	seen := linear.Object{Status: o.Status}
	if o.Name != nil {
		seen.Name = *o.Name
	}
	if o.OpenAt != nil {
		seen.OpenAt = *o.OpenAt
		if seen.OpenAt != farOpening {
			seen.OpenAt = linear.ByHand
		}
	}
	return seen
}

// sameBytes checks that an entity tag always stands for the same bytes, whichever node
// answers.
func (r *recording) sameBytes(s *subject, version int64, body []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if was, known := s.bodies[version]; known && !bytes.Equal(was, body) {
		r.odd("%s@%d is\n%s\nand\n%s", s.path, version, was, body)
	}
	s.bodies[version] = body
}

// learn records what the client knows and what the node has acknowledged from now on.
func (c *asker) learn(s *subject, mine *sight, at int, in linear.Input, out linear.Output, a answer) {
	if out.Unknown {
		return
	}
	if in.Op == linear.Create && out.Status == http.StatusCreated {
		s.mu.Lock()
		if s.path == "" {
			s.path = a.header.Get("Location")
			close(s.made)
		} else if s.path != a.header.Get("Location") {
			c.odd("%s was made as %s and as %s", s.sequence, s.path, a.header.Get("Location"))
		}
		s.mu.Unlock()
	}
	if out.Version != linear.NoVersion {
		mine.versions = append(mine.versions, out.Version)
	}
	if in.Op == linear.Get || in.Op == linear.List {
		return
	}
	acknowledged := out.Version
	if out.Status == http.StatusNoContent {
		acknowledged = linear.Gone
	}
	// A repeated creation brings the position of the first.
	if acknowledged != linear.NoVersion && (acknowledged >= mine.named || mine.position == "") {
		mine.position, mine.named = a.header.Get("X-Position"), acknowledged
	}
	for known := s.acknowledged[at].Load(); known < acknowledged && !s.acknowledged[at].CompareAndSwap(known, acknowledged); {
		known = s.acknowledged[at].Load()
	}
}

// check looks for an order of the operations on s that explains the answers.
func (r *recording) check(s *subject) porcupine.CheckResult {
	return s.history.Check(len(r.cluster.nodes))
}

func (r *recording) mustBeLegal(t *testing.T) {
	t.Helper()
	for _, o := range r.odds {
		t.Error(o)
	}
	enough := 300
	if r.trouble {
		enough = 150 // many operations are not recorded, because nothing happened
	}
	for _, s := range r.subjects {
		if len(s.history) < enough {
			t.Errorf("%s: %d operations only", s.kind, len(s.history))
		}
		switch result := r.check(s); result {
		case porcupine.Ok:
		case porcupine.Unknown:
			t.Errorf("%s: no order was found, nor that there is none, within %s (LOTLINE_TEST_SEED=%d)", s.kind, linear.Timeout, r.seed)
		case porcupine.Illegal:
			t.Errorf("%s: %s: no order explains what was seen (run again with LOTLINE_TEST_SEED=%d); see %s",
				s.kind, result, r.seed, r.draw(t, s))
		}
	}
}

// draw writes a picture of a history and of the longest order that explains it, and
// returns the picture's path.
func (r *recording) draw(t *testing.T, s *subject) string {
	t.Helper()
	f, err := os.CreateTemp("", "lotline-history-*.html") //nolint:usetesting // it is looked at after the test
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.history.Draw(len(r.cluster.nodes), f); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// The checker must find planted mistakes. Each of these handlers stands before the API and
// makes one mistake, once.
func TestLinear_findsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(*planted, http.Handler, http.ResponseWriter, *http.Request){
		"an acknowledged update is lost":         (*planted).loseUpdate,
		"a client reads what it has overwritten": (*planted).readStale,
		"an update is carried out again later":   (*planted).repeatUpdate,
		"a condition that fails is passed over":  (*planted).passCondition,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(4) {
				p := &planted{shown: map[string]*shown{}}
				c := newCluster(t, 1+int(seed%2), func(api http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { plant(p, api, w, r) })
				})
				// distinct, because a client that repeats the lost or repeated update itself
				// would hide the mistake.
				r := runWorkload(t, c, workload{seed: seed, kinds: []domain.Kind{domain.KindAuction}, operations: 200, distinct: true})
				if !p.done {
					t.Fatal("nothing was planted")
				}
				if result := r.check(r.subjects[0]); result != porcupine.Illegal {
					t.Errorf("%s; see %s", result, r.draw(t, r.subjects[0]))
				}
			}
		})
	}
}
