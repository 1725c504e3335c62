package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// warmUp is how long each is asked before it is measured.
	warmUp = 300 * time.Millisecond
	// rounds is how often the subjects take turns, so that what else the machine
	// does hits all of them.
	rounds = 5
	// longestPreparation is how long what is not measured may take.
	longestPreparation = 10 * time.Minute
)

// benchSubject is a server that is measured, and what it is asked.
type benchSubject struct {
	server *benchServer
	// do asks for the n-th time, on the connection of the caller w.
	do func(c *benchClient, w int, n int64) error
}

// compare measures each subject as fast as it answers, in turn, and then at half
// that rate.
func (b *bench) compare(ctx context.Context, scenario string, subjects []benchSubject) error {
	fast := make([]*benchMeasured, len(subjects))
	loads := make([]benchLoad, len(subjects))
	defer func() {
		for _, l := range loads {
			closeBenchClients(l.clients)
		}
	}()
	for i, s := range subjects {
		clients, err := benchClients(b.Connections, s.server.address)
		if err != nil {
			return err
		}
		fast[i] = newBenchMeasured()
		loads[i] = benchLoad{
			clients: clients, asked: new(atomic.Int64), lasts: min(warmUp, b.Duration), most: b.part(rounds),
			do: func(w int, n int64) error { return s.do(clients[w], w, n) },
		}
		b.progress("%s: %s warms up", scenario, s.server.name)
		loads[i].run(ctx)
		s.server.settle(ctx)
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
		loads[i].rate, loads[i].lasts, loads[i].most = fast[i].perSecond()/2, b.Duration/2, b.part(2)
		if loads[i].rate == 0 || ctx.Err() != nil {
			continue
		}
		b.progress("%s: %s at %.0f a second", scenario, s.server.name, loads[i].rate)
		b.report.measured(scenario, s.server.name, loads[i].rate, b.measure(ctx, s.server, &loads[i]))
	}
	return nil
}

// part is a part of the most requests of a measurement, 0 for any number.
func (b *bench) part(of int64) int64 { return (b.Most + of - 1) / of }

// numbered is how many requests compare makes of a subject at most.
func (b *bench) numbered() int64 { return (rounds+1)*b.part(rounds) + b.part(2) }

// measure runs a load with the CPU that it takes the server, which has settled.
func (b *bench) measure(ctx context.Context, s *benchServer, l *benchLoad) *benchMeasured {
	before, _ := s.cpu(ctx)
	m := l.run(ctx)
	m.server = s.settle(ctx) - before
	return m
}

// enter lets consumers enter queues, each once.
func (b *bench) enter(ctx context.Context, scenario string, queues int) (err error) {
	if err := b.makeTokens(ctx, b.numbered()); err != nil {
		return err
	}
	checked := make([]*benchQueue, queues)
	paths := make([]benchPath, queues)
	for i := range checked {
		if checked[i], err = b.makeQueue(ctx, ""); err != nil {
			return err
		}
		paths[i] = b.path(http.MethodPost, checked[i].id, "enter")
	}
	subjects := []benchSubject{{b.engine, func(c *benchClient, w int, n int64) error {
		i := n % int64(queues)
		return b.enterOnce(c, w, checked[i], paths[i], n)
	}}}
	if b.Baseline {
		bare, failed := b.bare(ctx, http.MethodPost, "enter", paths[0])
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, bare.server.stop()) }()
		subjects = append(subjects, bare)
	}
	var inTable atomic.Int64
	if b.table != nil {
		server, failed := b.table.serve(ctx, b)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, server.stop()) }()
		subjects = append(subjects, benchSubject{server, func(c *benchClient, _ int, n int64) error {
			_, err := b.askWhere(c, paths[n%int64(queues)], n)
			if err == nil {
				inTable.Add(1)
			}
			return err
		}})
	}
	if err := b.compare(ctx, scenario, subjects); err != nil {
		return err
	}
	return b.check(ctx, scenario, checked, func(ctx context.Context, v *benchVerdicts) error {
		if b.table == nil {
			return nil
		}
		return b.table.check(ctx, v, inTable.Load())
	})
}

// enterOnce lets the n-th consumer enter, and keeps what was answered.
func (b *bench) enterOnce(c *benchClient, w int, q *benchQueue, p benchPath, n int64) error {
	e := benchEntry{consumer: n, sent: time.Since(b.report.Began)}
	s, err := b.askWhere(c, p, n)
	if err != nil {
		q.doubt(n)
		return err
	}
	e.position, e.acknowledged = s.position, time.Since(b.report.Began)
	q.acknowledged[w] = append(q.acknowledged[w], e)
	return nil
}

// status lets those who wait ask where they stand, while they are admitted.
func (b *bench) status(ctx context.Context, scenario string) (err error) {
	if err := b.makeTokens(ctx, b.Waiting); err != nil {
		return err
	}
	q, err := b.makeQueue(ctx, "")
	if err != nil {
		return err
	}
	enter, status := b.path(http.MethodPost, q.id, "enter"), b.path(http.MethodGet, q.id, "status")
	if err := b.each(ctx, b.Waiting, "enter", func(c *benchClient, w int, n int64) error { return b.enterOnce(c, w, q, enter, n) }); err != nil {
		return err
	}
	// So many that some are admitted all the time, and most of them wait to the end.
	q.rate = 60 * max(1, b.Waiting/1000)
	if err := b.admit(ctx, q, strconv.FormatInt(q.rate, 10)); err != nil {
		return err
	}
	// Each caller asks for consumers of its own, so that their answers have an order.
	callers := int64(b.Connections)
	told := make([]int64, b.Waiting)
	turns := make([]int64, callers)
	worse := make([]benchVerdict, callers)
	subjects := []benchSubject{{b.engine, func(c *benchClient, w int, _ int64) error {
		n := int64(w) + callers*turns[w]
		if turns[w]++; n >= b.Waiting {
			n, turns[w] = int64(w)%b.Waiting, 1
		}
		s, err := b.askWhere(c, status, n)
		if err != nil {
			return err
		}
		if s.status != "QUEUED" && s.status != "ADMITTED" {
			return benchError("somebody is " + s.status)
		}
		worse[w].hold(told[n] == 0 || s.position <= told[n], "%s was told %d, then %d", b.consumerID(n), told[n], s.position)
		told[n] = s.position
		return nil
	}}}
	if b.Baseline {
		bare, failed := b.bare(ctx, http.MethodGet, "status", status)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, bare.server.stop()) }()
		subjects = append(subjects, bare)
	}
	if err := b.compare(ctx, scenario, subjects); err != nil {
		return err
	}
	// What is counted must not change between two looks at it.
	if err := b.admit(context.WithoutCancel(ctx), q, "null"); err != nil {
		return err
	}
	return b.check(ctx, scenario, []*benchQueue{q}, func(_ context.Context, v *benchVerdicts) error {
		for i := range worse {
			v.of(claimForward).add(&worse[i])
		}
		return nil
	})
}

// admit sets how many of a queue are admitted a minute.
func (b *bench) admit(ctx context.Context, q *benchQueue, rate string) error {
	return b.api.call(ctx, http.MethodPut, "/api/v1/queues/"+q.id, `{"admissionRate":`+rate+`}`, nil)
}

// bare is a router with as many routes as the API has, of which the first is the one
// that is asked for. It answers what somebody is answered who waits.
func (b *bench) bare(ctx context.Context, method, action string, p benchPath) (benchSubject, error) {
	q, err := b.makeQueue(ctx, "")
	if err != nil {
		return benchSubject{}, err
	}
	c := &benchClient{address: b.engine.address}
	defer c.close()
	if err := b.makeTokens(ctx, 1); err != nil {
		return benchSubject{}, err
	}
	body, err := b.ask(c, b.path(http.MethodPost, q.id, "enter"), 0)
	if err == nil && action != "enter" {
		body, err = b.ask(c, b.path(method, q.id, action), 0)
	}
	if err != nil {
		return benchSubject{}, err
	}
	route := "/api/v1/queues/{id}/" + action
	routes := []string{route}
	for _, r := range b.routes {
		if r != route && r != "/metrics" { // which shows the CPU
			routes = append(routes, r)
		}
	}
	input, err := json.Marshal(benchBareInput{routes, string(body)})
	if err != nil {
		return benchSubject{}, err
	}
	server, err := startBenchServer(ctx, benchBare, b.hidden, nil, input, b.to.err, "bench-server", "bare")
	length := len(body)
	numbered := max(1, int64(len(b.tokens)))
	return benchSubject{server, func(c *benchClient, _ int, n int64) error {
		body, err := b.ask(c, p, n%numbered)
		if err == nil && len(body) != length {
			err = benchError("the answer has another length")
		}
		return err
	}}, err
}
