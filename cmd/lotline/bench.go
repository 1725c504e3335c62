package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
)

// benchCmd is the load generator. Nothing in it is needed to run an engine.
type benchCmd struct {
	URL            string `group:"What is measured" placeholder:"http://…" help:"A running engine to measure (none: one is started, and removed at the end)."`
	SecretKey      string `group:"What is measured" placeholder:"sk_live_…" help:"A secret key of it, for --url. Queues are made with it and stay there."`
	PublishableKey string `group:"What is measured" placeholder:"pk_live_…" help:"A publishable key of the same organization, for --url."`
	Dir            string `group:"What is measured" default:"." help:"Where the directory of the engine that is started is made, and removed: on the disk to measure."`
	Baseline       bool   `group:"What is measured" help:"Measure in turn a router that does nothing but answer the same bytes."`
	CPUProfile     string `name:"cpuprofile" group:"What is measured" placeholder:"FILE" help:"Where the engine that is started writes what its processors did."`

	Scenario    []string      `enum:"enter,enter-many,status,launch" default:"enter,enter-many,status,launch" help:"What to do: ${enum}."`
	Connections int           `default:"64" help:"How many connections ask at once (${default})."`
	Duration    time.Duration `default:"5s" help:"How long each is asked as fast as it answers; half as long at half that rate (${default})."`
	Most        int64         `placeholder:"N" help:"How many requests each measurement has at most (0: as many as there is time for)."`
	Queues      int           `default:"64" help:"How many queues enter-many has (${default})."`
	Tokens      bool          `help:"Consumers act with access tokens of their own, not by the hand of the secret key."`

	JSON bool   `name:"json" help:"Print the report as JSON."`
}

func (c *benchCmd) validate() error {
	if c.URL != "" {
		if _, err := hostPort(c.URL); err != nil {
			return err
		}
		if c.SecretKey == "" || c.PublishableKey == "" {
			return badConfig("--url needs --secret-key and --publishable-key")
		}
		if c.CPUProfile != "" {
			return badConfig("--cpuprofile is for an engine that bench starts")
		}
	}
	if c.Connections < 1 || c.Queues < 1 || c.Duration <= 0 || c.Most < 0 {
		return badConfig("--connections, --queues and --duration have to be above 0, and --most not below")
	}
	return nil
}

// errBenchChecks ends bench when what the server said does not add up.
var errBenchChecks = errors.New("what the server says afterwards does not add up")

// Run measures, checks and reports, also when it is interrupted.
func (c *benchCmd) Run(ctx context.Context, k *kong.Context, to streams) (err error) {
	if err := c.validate(); err != nil {
		return err
	}
	b := &bench{benchCmd: c, to: to, hidden: map[string]bool{}, prefix: uuid.NewString()[:24], report: newBenchReport(c)}
	for _, group := range k.Model.AllFlags(false) {
		for _, f := range group {
			for _, v := range f.Envs {
				b.hidden[v] = true
			}
		}
	}
	for _, n := range k.Model.Leaves(false) {
		for _, group := range n.AllFlags(false) {
			for _, f := range group {
				for _, v := range f.Envs {
					b.hidden[v] = true
				}
			}
		}
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.begin(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	for _, name := range c.Scenario {
		if ctx.Err() != nil {
			break
		}
		if err := b.scenario(ctx, name); err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.report.Interrupted = ctx.Err() != nil
	b.progress("")
	if err := b.report.print(to.out, c.JSON); err != nil {
		return err
	}
	if b.report.failed() {
		return errBenchChecks
	}
	return nil
}

// bench is one run of it.
type bench struct {
	*benchCmd

	to     streams
	hidden map[string]bool // variables that servers do not inherit
	prefix string          // of the ids of consumers
	dir    string          // "" when the engine is somebody else's
	api    *benchAPI
	engine *benchServer
	routes []string // templates of the API's paths
	report *benchReport
}

func (b *bench) begin(ctx context.Context) (err error) {
	if b.URL != "" {
		address, err := hostPort(b.URL)
		if err != nil {
			return err
		}
		b.api = &benchAPI{strings.TrimRight(b.URL, "/"), b.SecretKey, b.PublishableKey}
		b.engine = &benchServer{name: benchLotline, address: address}
	} else {
		if b.dir, err = os.MkdirTemp(b.Dir, "lotline-bench-"); err != nil {
			return badConfig("--dir: %w", err)
		}
		var args []string
		if b.CPUProfile != "" {
			args = append(args, "--cpuprofile", b.CPUProfile)
		}
		if b.engine, b.api, err = startBenchEngine(ctx, b.hidden, b.dir, args...); err != nil {
			text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			return fmt.Errorf("%w\n%s", err, text)
		}
	}
	var document struct {
		Paths map[string]json.RawMessage `json:"paths"`
	}
	if err := b.api.call(ctx, http.MethodGet, "/openapi.json", "", &document); err != nil {
		return err
	}
	b.routes = slices.Sorted(maps.Keys(document.Paths))
	return nil
}

func (b *bench) close() (err error) {
	if b.engine != nil {
		err = b.engine.stop()
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}

// progress replaces the line on stderr that says what is being done.
func (b *bench) progress(format string, args ...any) {
	fmt.Fprintf(b.to.err, "\r\033[K"+format, args...)
}

func (b *bench) scenario(ctx context.Context, name string) error {
	switch name {
	case "enter":
		return b.enter(ctx, name, 1)
	case "enter-many":
		return b.enter(ctx, name, b.Queues)
	}
	return nil
}

// makeQueue makes a queue that is open, with further settings.
func (b *bench) makeQueue(ctx context.Context, settings string) (id string, err error) {
	var made struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	body := `{"sequenceId":"bench","name":"A load test","openAt":"2020-01-01T00:00:00Z"` + settings + `}`
	if err := b.api.call(ctx, http.MethodPost, "/api/v1/queues", body, &made); err != nil {
		return "", err
	}
	if made.Status != "OPEN" {
		return "", fmt.Errorf("the queue is %s", made.Status)
	}
	return made.ID, nil
}

// consumer appends the n-th consumer's id, which is like a UUID.
func (b *bench) consumer(dst []byte, n int64) []byte {
	const digits = 12
	dst = append(dst, b.prefix...)
	// An odd factor keeps them apart, and out of order.
	hex := strconv.AppendUint(make([]byte, 0, 16), uint64(n+1)*0x5DEECE66D15&(1<<(4*digits)-1), 16)
	for range digits - len(hex) {
		dst = append(dst, '0')
	}
	return append(dst, hex...)
}

// benchSubject is a server that is measured, and what it is asked.
type benchSubject struct {
	server *benchServer
	// do asks for the n-th time on a connection.
	do func(c *benchClient, w int, n int64) error
}

// warmUp is how long each is asked before it is measured.
const warmUp = 300 * time.Millisecond

// rounds is how often the subjects take turns, so that what else the machine does
// hits all of them.
const rounds = 5

// compare measures each subject as fast as it answers, and then at half that rate.
func (b *bench) compare(ctx context.Context, scenario string, subjects ...benchSubject) error {
	fast := make([]*benchMeasured, len(subjects))
	loads := make([]benchLoad, len(subjects))
	for i, s := range subjects {
		clients, err := benchClients(b.Connections, s.server.address)
		if err != nil {
			return err
		}
		defer closeBenchClients(clients)
		fast[i] = newBenchMeasured()
		loads[i] = benchLoad{
			clients: clients, asked: new(atomic.Int64), lasts: warmUp, most: b.Most / rounds,
			do: func(w int, n int64) error { return s.do(clients[w], w, n) },
		}
		b.progress("%s: %s warms up", scenario, s.server.name)
		loads[i].run(ctx)
		loads[i].lasts = b.Duration / rounds
	}
	for round := range rounds {
		for i, s := range subjects {
			b.progress("%s: %s, round %d of %d", scenario, s.server.name, round+1, rounds)
			fast[i].add(b.measure(ctx, s.server, &loads[i]))
		}
	}
	for i, s := range subjects {
		b.report.measured(scenario, s.server.name, 0, fast[i])
	}
	for i, s := range subjects {
		loads[i].rate, loads[i].lasts, loads[i].most = fast[i].perSecond()/2, b.Duration/2, b.Most
		if loads[i].rate == 0 || ctx.Err() != nil {
			continue
		}
		b.progress("%s: %s at %.0f a second", scenario, s.server.name, loads[i].rate)
		b.report.measured(scenario, s.server.name, loads[i].rate, b.measure(ctx, s.server, &loads[i]))
	}
	return nil
}

// measure runs a load with the CPU that it takes the server.
func (b *bench) measure(ctx context.Context, s *benchServer, l *benchLoad) *benchMeasured {
	before := s.settle(ctx)
	m := l.run(ctx)
	m.server = s.settle(ctx) - before
	return m
}

// enter lets consumers enter queues, each once.
func (b *bench) enter(ctx context.Context, scenario string, queues int) error {
	checked := make([]*benchQueue, queues)
	heads := make([][]byte, queues)
	for i := range checked {
		id, err := b.makeQueue(ctx, "")
		if err != nil {
			return err
		}
		checked[i] = newBenchQueue(id, b.Connections)
		heads[i] = b.enterHead(id)
	}
	started := time.Now()
	ours := benchSubject{b.engine, func(c *benchClient, w int, n int64) error {
		q := checked[n%int64(queues)]
		e := benchEntry{consumer: n, sent: time.Since(started)}
		err := b.askToEnter(c, heads[n%int64(queues)], n)
		e.acknowledged = time.Since(started)
		if err == nil {
			e.position, err = positionOf(c.body)
		}
		if err != nil {
			q.doubt(n)
			return err
		}
		q.acknowledged[w] = append(q.acknowledged[w], e)
		return nil
	}}
	subjects := []benchSubject{ours}
	if b.Baseline {
		probe, err := b.makeQueue(ctx, "")
		if err != nil {
			return err
		}
		c := &benchClient{address: b.engine.address}
		defer c.close()
		if err := b.askToEnter(c, b.enterHead(probe), 1<<40); err != nil {
			return err
		}
		bare, err := b.startBare(ctx, "/api/v1/queues/{id}/enter", c.body)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, bare.stop()) }()
		length := len(c.body)
		subjects = append(subjects, benchSubject{bare, func(c *benchClient, _ int, n int64) error {
			c.out = append(b.consumer(append(c.out[:0], heads[0]...), n), "\r\n\r\n"...)
			status, body, err := c.do()
			if err == nil && (status != http.StatusOK || len(body) != length) {
				err = statusFault(status, body)
			}
			return err
		}})
	}
	if err := b.compare(ctx, scenario, subjects...); err != nil {
		return err
	}
	return b.check(ctx, scenario, checked)
}

func (b *bench) enterHead(queue string) []byte {
	return []byte("POST /api/v1/queues/" + queue + "/enter HTTP/1.1\r\nHost: " + b.engine.address +
		"\r\nAuthorization: Bearer " + b.api.secret + "\r\nContent-Length: 0\r\nX-Consumer-Id: ")
}

// askToEnter lets the n-th consumer enter. What is answered is in c.body.
func (b *bench) askToEnter(c *benchClient, head []byte, n int64) error {
	c.out = append(b.consumer(append(c.out[:0], head...), n), "\r\n\r\n"...)
	status, body, err := c.do()
	switch {
	case err != nil:
		return err
	case status != http.StatusOK:
		return statusFault(status, body)
	case benchText(body, `"consumerId":"`) != string(b.consumer(make([]byte, 0, 64), n)):
		return benchFault("the answer is about another consumer")
	}
	return nil
}

// startBare starts a router with as many routes as the API has, of which the first is
// the one that is asked for.
func (b *bench) startBare(ctx context.Context, route string, body []byte) (*benchServer, error) {
	routes := []string{route}
	for _, r := range b.routes {
		if r != route && r != "/metrics" { // which shows the CPU
			routes = append(routes, r)
		}
	}
	input, err := json.Marshal(benchBareInput{routes, string(body)})
	if err != nil {
		return nil, err
	}
	return startBenchServer(ctx, benchBare, b.hidden, nil, input, b.to.err, "bench-server", "bare")
}

// benchText is what stands behind a mark in an answer, up to the next quote.
func benchText(body []byte, mark string) string {
	_, rest, ok := bytes.Cut(body, []byte(mark))
	if !ok {
		return ""
	}
	text, _, _ := bytes.Cut(rest, []byte(`"`))
	return string(text)
}

// positionOf is the position in an answer, -1 for null.
func positionOf(body []byte) (int64, error) {
	_, rest, ok := bytes.Cut(body, []byte(`"position":`))
	end := bytes.IndexByte(rest, ',')
	if !ok || end < 0 {
		return 0, benchFault("the answer has no position")
	}
	if string(rest[:end]) == "null" {
		return -1, nil
	}
	n, err := strconv.ParseInt(string(rest[:end]), 10, 64)
	if err != nil {
		return 0, benchFault("the position is not a number")
	}
	return n, nil
}
