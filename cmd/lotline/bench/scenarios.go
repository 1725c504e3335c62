package bench

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
)

const (
	// warmUp is how long each server gets requests before it is measured.
	warmUp = 300 * time.Millisecond
	// rounds is how often the subjects take turns. Taking turns makes other load on the
	// machine slow all of them.
	rounds = 5
	// longestPreparation is the longest time for requests that are not measured.
	longestPreparation = 10 * time.Minute
)

// subject is a server that is measured, with the requests to it.
type subject struct {
	server *server
	// do sends the n-th request on the connection of caller w.
	do func(c *client, w int, n int64) error
}

// compare measures the subjects in turn, each as fast as it answers, and then each at
// half that rate.
func (r *runner) compare(ctx context.Context, scenario string, subjects []subject) error {
	fast := make([]*measured, len(subjects))
	loads := make([]load, len(subjects))
	defer func() {
		for _, l := range loads {
			closeAll(l.clients)
		}
	}()
	for i, s := range subjects {
		clients, err := dialAll(r.Connections, s.server.address)
		if err != nil {
			return err
		}
		fast[i] = newMeasured()
		loads[i] = load{
			clients: clients, asked: new(atomic.Int64), lasts: min(warmUp, r.Duration), most: r.part(rounds),
			do: func(w int, n int64) error { return s.do(clients[w], w, n) },
		}
		r.progress("%s: %s warms up", scenario, s.server.name)
		loads[i].run(ctx)
		s.server.settle(ctx)
		loads[i].lasts = r.Duration / rounds
	}
	for round := range rounds {
		for i, s := range subjects {
			r.progress("%s: %s, round %d of %d", scenario, s.server.name, round+1, rounds)
			fast[i].add(r.measure(ctx, s.server, &loads[i]))
		}
	}
	for i, s := range subjects {
		r.report.measured(scenario, s.server.name, 0, fast[i])
	}
	for i, s := range subjects {
		loads[i].rate, loads[i].lasts, loads[i].most = fast[i].perSecond()/2, r.Duration/2, r.part(2)
		if loads[i].rate == 0 || ctx.Err() != nil {
			continue
		}
		r.progress("%s: %s at %.0f a second", scenario, s.server.name, loads[i].rate)
		r.report.measured(scenario, s.server.name, loads[i].rate, r.measure(ctx, s.server, &loads[i]))
	}
	return nil
}

// part returns --most divided by of, rounded up. 0 means no limit.
func (r *runner) part(of int64) int64 { return (r.Most + of - 1) / of }

// numbered returns the largest number of requests that compare sends to one subject.
func (r *runner) numbered() int64 { return (rounds+1)*r.part(rounds) + r.part(2) }

// measure runs a load and measures the server's CPU time. The server must be idle before.
func (r *runner) measure(ctx context.Context, s *server, l *load) *measured {
	before, _ := s.cpu(ctx)
	m := l.run(ctx)
	m.server = s.settle(ctx) - before
	return m
}

// enter measures consumers that enter queues, each of them once.
func (r *runner) enter(ctx context.Context, scenario string, queues int) (err error) {
	if err := r.makeTokens(ctx, r.numbered()); err != nil {
		return err
	}
	checked := make([]*queue, queues)
	requests := make([]template, queues)
	for i := range checked {
		if checked[i], err = r.makeQueue(ctx, ""); err != nil {
			return err
		}
		requests[i] = r.template(http.MethodPost, checked[i].id, "enter")
	}
	subjects := []subject{{r.engine, func(c *client, w int, n int64) error {
		i := n % int64(queues)
		return r.enterOnce(c, w, checked[i], requests[i], n)
	}}}
	if r.Baseline {
		bare, failed := r.bare(ctx, http.MethodPost, "enter", requests[0])
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, bare.server.stop()) }()
		subjects = append(subjects, bare)
	}
	var inTable atomic.Int64
	if r.table != nil {
		server, failed := r.table.serve(ctx, r)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, server.stop()) }()
		subjects = append(subjects, subject{server, func(c *client, _ int, n int64) error {
			_, err := r.askWhere(c, requests[n%int64(queues)], n)
			if err == nil {
				inTable.Add(1)
			}
			return err
		}})
	}
	if err := r.compare(ctx, scenario, subjects); err != nil {
		return err
	}
	return r.check(ctx, scenario, checked, func(ctx context.Context, v *claims.Verdicts) error {
		if r.table == nil {
			return nil
		}
		return r.table.check(ctx, v, inTable.Load())
	})
}

// enterOnce lets consumer n enter and keeps the answer.
func (r *runner) enterOnce(c *client, w int, q *queue, request template, n int64) error {
	e := entry{consumer: n, sent: time.Since(r.report.Began)}
	s, err := r.askWhere(c, request, n)
	if err != nil {
		q.doubt(n)
		return err
	}
	e.position, e.acknowledged = s.position, time.Since(r.report.Began)
	q.acknowledged[w] = append(q.acknowledged[w], e)
	return nil
}

// status measures waiting consumers that ask for their place, while the queue admits
// some of them.
func (r *runner) status(ctx context.Context, scenario string) (err error) {
	if err := r.makeTokens(ctx, r.Waiting); err != nil {
		return err
	}
	q, err := r.makeQueue(ctx, "")
	if err != nil {
		return err
	}
	enter, status := r.template(http.MethodPost, q.id, "enter"), r.template(http.MethodGet, q.id, "status")
	if err := r.each(ctx, r.Waiting, "enter", func(c *client, w int, n int64) error { return r.enterOnce(c, w, q, enter, n) }); err != nil {
		return err
	}
	// At this rate the queue admits consumers all the time, and most of them wait to the
	// end.
	q.rate = 60 * max(1, r.Waiting/1000)
	if err := r.admit(ctx, q, strconv.FormatInt(q.rate, 10)); err != nil {
		return err
	}
	// Each caller asks for its own consumers only. So the answers to one consumer come
	// one after another.
	callers := int64(r.Connections)
	told := make([]int64, r.Waiting)
	turns := make([]int64, callers)
	worse := make([]claims.Verdict, callers)
	subjects := []subject{{r.engine, func(c *client, w int, _ int64) error {
		n := int64(w) + callers*turns[w]
		if turns[w]++; n >= r.Waiting {
			n, turns[w] = int64(w)%r.Waiting, 1
		}
		s, err := r.askWhere(c, status, n)
		if err != nil {
			return err
		}
		if s.status != "QUEUED" && s.status != "ADMITTED" {
			return answerError("somebody is " + s.status)
		}
		worse[w].Hold(told[n] == 0 || s.position <= told[n], "%s was told %d, then %d", r.consumerID(n), told[n], s.position)
		told[n] = s.position
		return nil
	}}}
	if r.Baseline {
		bare, failed := r.bare(ctx, http.MethodGet, "status", status)
		if failed != nil {
			return failed
		}
		defer func() { err = errors.Join(err, bare.server.stop()) }()
		subjects = append(subjects, bare)
	}
	if err := r.compare(ctx, scenario, subjects); err != nil {
		return err
	}
	// The queue must not change between the checks.
	if err := r.admit(context.WithoutCancel(ctx), q, "null"); err != nil {
		return err
	}
	return r.check(ctx, scenario, []*queue{q}, func(_ context.Context, v *claims.Verdicts) error {
		for i := range worse {
			v.Of(claims.Forward).Add(&worse[i])
		}
		return nil
	})
}

// admit sets a queue's admissions per minute.
func (r *runner) admit(ctx context.Context, q *queue, rate string) error {
	return r.api.call(ctx, http.MethodPut, "/api/v1/queues/"+q.id, `{"admissionRate":`+rate+`}`, nil)
}

// bare starts a router that has as many routes as the API. It answers every request
// with the engine's answer to a waiting consumer. The measured route is its first.
func (r *runner) bare(ctx context.Context, method, action string, request template) (subject, error) {
	q, err := r.makeQueue(ctx, "")
	if err != nil {
		return subject{}, err
	}
	c := &client{address: r.engine.address}
	defer c.close()
	if err := r.makeTokens(ctx, 1); err != nil {
		return subject{}, err
	}
	body, err := r.ask(c, r.template(http.MethodPost, q.id, "enter"), 0)
	if err == nil && action != "enter" {
		body, err = r.ask(c, r.template(method, q.id, action), 0)
	}
	if err != nil {
		return subject{}, err
	}
	route := "/api/v1/queues/{id}/" + action
	routes := []string{route}
	for _, other := range r.routes {
		if other != route && other != "/metrics" { // the bare router shows its CPU time there
			routes = append(routes, other)
		}
	}
	input, err := json.Marshal(bareInput{routes, string(body)})
	if err != nil {
		return subject{}, err
	}
	server, err := r.startServer(ctx, Bare, nil, input, r.program.Err, "bare")
	length := len(body)
	numbered := max(1, int64(len(r.tokens)))
	return subject{server, func(c *client, _ int, n int64) error {
		body, err := r.ask(c, request, n%numbered)
		if err == nil && len(body) != length {
			err = answerError("the answer has another length")
		}
		return err
	}}, err
}
