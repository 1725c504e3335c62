package main

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

// What consumers do in a launch, by their numbers: of ten one leaves while waiting or
// soon after, one is admitted and does not come, and the others complete.
const (
	launchTenths    = 10
	launchLeaver    = 3
	launchNoShow    = 7
	launchTellEvery = time.Second
)

// launchStep is what a consumer does next.
type launchStep struct {
	due      time.Time
	consumer int64
	does     launchDeed
}

type launchDeed int

const (
	launchEnters launchDeed = iota
	launchAsks
	launchLeaves
	launchCompletes
	launchDeeds
)

var launchNames = [launchDeeds]string{"enter", "status", "leave", "complete"}

// launchSteps is a heap of steps, the earliest first.
type launchSteps []launchStep

func (s launchSteps) Len() int           { return len(s) }
func (s launchSteps) Less(i, j int) bool { return s[i].due.Before(s[j].due) }
func (s launchSteps) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *launchSteps) Push(x any)        { *s = append(*s, x.(launchStep)) } //nolint:forcetypeassert // only steps are pushed
func (s *launchSteps) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// benchLaunch is a launch under way. A consumer's step is in one place at a time, so
// what is kept by consumer needs no lock.
type benchLaunch struct {
	*bench

	queue              *benchQueue
	session            time.Duration
	enter, asks, leave benchPath
	complete           []byte
	sent               []time.Duration   // when each first asked to enter
	told               []domain.Standing // what each was told last
}

// launch lets consumers arrive one after another within a time, wait, be admitted and
// finish, each as often asking for its place as it was told to.
func (b *bench) launch(ctx context.Context, scenario string) error {
	if err := b.makeTokens(ctx, b.Consumers); err != nil {
		return err
	}
	l := &benchLaunch{
		bench: b, session: 3*time.Second + b.Within/10,
		sent: make([]time.Duration, b.Consumers), told: make([]domain.Standing, b.Consumers),
	}
	// A little slower than they arrive, so that there is a line.
	rate := max(1, int64(0.8*float64(b.Consumers)/b.Within.Minutes()))
	var err error
	l.queue, err = b.makeQueue(ctx, fmt.Sprintf(`,"admissionRate":%d,"sessionDurationSeconds":%d`, rate, int64(l.session.Seconds())))
	if err != nil {
		return err
	}
	l.queue.rate = rate
	l.enter, l.asks, l.leave = b.path(http.MethodPost, l.queue.id, "enter"), b.path(http.MethodGet, l.queue.id, "status"), b.path(http.MethodPost, l.queue.id, "leave")
	l.complete = []byte("POST /api/v1/queues/" + l.queue.id + "/complete HTTP/1.1\r\nHost: " + b.engine.address +
		"\r\nAuthorization: Bearer " + b.api.secret + "\r\nContent-Type: application/json\r\nContent-Length: ")
	clients, err := benchClients(b.Connections, b.engine.address)
	if err != nil {
		return err
	}
	defer closeBenchClients(clients)
	before, own, started := b.engine.settle(ctx), generatorCPU(), time.Now()
	deeds := l.run(ctx, clients)
	took := time.Since(started)
	all := newBenchMeasured()
	for i, m := range deeds {
		m.took = took
		b.report.measured(scenario+" "+launchNames[i], b.engine.name, 0, m)
		all.add(m)
	}
	all.took, all.generator, all.server = took, generatorCPU()-own, b.engine.settle(ctx)-before
	b.report.measured(scenario, b.engine.name, 0, all)
	return b.check(ctx, scenario, []*benchQueue{l.queue}, func(context.Context, *benchVerdicts) error { return nil })
}

// launchOutcome is what became of a step.
type launchOutcome struct {
	next launchStep
	over bool // there is no next step
}

// run lets everything happen, until nothing is left to happen or ctx ends.
func (l *benchLaunch) run(ctx context.Context, clients []*benchClient) (deeds [launchDeeds]*benchMeasured) {
	work, done := make(chan launchStep), make(chan launchOutcome)
	each := make([][launchDeeds]*benchMeasured, len(clients))
	var workers sync.WaitGroup
	for w := range clients {
		for d := range each[w] {
			each[w][d] = newBenchMeasured()
		}
		workers.Go(func() {
			for step := range work {
				next, over, err := l.take(clients[w], w, step)
				m := each[w][step.does]
				if err != nil {
					m.faults[err.Error()]++
				} else {
					record(m.latencies, time.Since(step.due))
				}
				done <- launchOutcome{next, over}
			}
		})
	}
	l.dispatch(ctx, work, done)
	workers.Wait()
	for d := range deeds {
		deeds[d] = newBenchMeasured()
		for w := range each {
			deeds[d].add(each[w][d])
		}
	}
	return deeds
}

// dispatch hands out each step when it is due.
func (l *benchLaunch) dispatch(ctx context.Context, work chan<- launchStep, done <-chan launchOutcome) {
	defer close(work)
	began := time.Now()
	gap := l.Within.Seconds() / float64(l.Consumers)
	arrives := func(n int64) time.Time { return began.Add(time.Duration(float64(n) * gap * float64(time.Second))) }
	var arrived, over, under int64
	steps := &launchSteps{{due: began}}
	tell := time.NewTicker(launchTellEvery)
	defer tell.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	stopped := ctx.Done()
	for {
		var out chan<- launchStep
		var first launchStep
		if stopped != nil && len(*steps) > 0 {
			first = (*steps)[0]
			if wait := time.Until(first.due); wait <= 0 {
				out = work
			} else {
				timer.Reset(wait)
			}
		}
		if out == nil && under == 0 && (stopped == nil || len(*steps) == 0) {
			return
		}
		select {
		case out <- first:
			heap.Pop(steps)
			under++
			if first.does == launchEnters && first.consumer == arrived {
				if arrived++; arrived < l.Consumers {
					heap.Push(steps, launchStep{due: arrives(arrived), consumer: arrived})
				}
			}
		case o := <-done:
			if under--; o.over {
				over++
			} else {
				heap.Push(steps, o.next)
			}
		case <-timer.C:
		case <-tell.C:
			l.progress("launch: %d of %d arrived, %d finished, %.0f s", arrived, l.Consumers, over, time.Since(began).Seconds())
		case <-stopped:
			stopped = nil
		}
	}
}

// launchAgain is when somebody who got no answer tries again.
const launchAgain = time.Second

// take takes a step, and says which is next.
func (l *benchLaunch) take(c *benchClient, w int, step launchStep) (next launchStep, over bool, err error) {
	n := step.consumer
	again := launchStep{time.Now().Add(launchAgain), n, step.does}
	var s benchStanding
	switch step.does {
	case launchEnters:
		sent := time.Since(l.report.Began)
		if l.sent[n] == 0 {
			l.sent[n] = sent
		}
		if s, err = l.askWhere(c, l.enter, n); err == nil {
			l.queue.acknowledged[w] = append(l.queue.acknowledged[w], benchEntry{n, l.sent[n], time.Since(l.report.Began), s.position})
		} else {
			l.queue.doubt(n)
		}
	case launchAsks:
		s, err = l.askWhere(c, l.asks, n)
	case launchLeaves:
		s, err = l.askWhere(c, l.leave, n)
	case launchCompletes:
		s, err = l.askToComplete(c, n)
	case launchDeeds:
	}
	if err != nil {
		var fault benchError
		if errors.As(err, &fault) && step.does != launchEnters {
			again.does = launchAsks // the session may be over
		}
		return again, false, err
	}
	return l.after(step, s)
}

// after is what a consumer does who was told where it stands.
func (l *benchLaunch) after(step launchStep, s benchStanding) (next launchStep, over bool, err error) {
	n, now := step.consumer, time.Now()
	role := n % launchTenths
	// Spread over a second, by a number that has nothing to do with the role.
	spread := time.Duration(n/launchTenths*7919%1000) * time.Millisecond
	poll := launchStep{now.Add(time.Duration(s.pollAfter) * time.Millisecond), n, launchAsks}
	switch s.status {
	case "QUEUED", "ADMITTED":
		switch {
		case step.does == launchLeaves || step.does == launchCompletes:
			return next, true, benchError("after " + launchNames[step.does] + " somebody is " + s.status)
		case role == launchLeaver:
			return launchStep{now.Add(spread), n, launchLeaves}, false, nil
		case s.status == "QUEUED":
			l.told[n] = domain.StandingQueued
			return poll, false, nil
		case role == launchNoShow && l.told[n] != domain.StandingAdmitted:
			l.told[n] = domain.StandingAdmitted
			return launchStep{now.Add(l.session), n, launchAsks}, false, nil
		case role == launchNoShow:
			return launchStep{now.Add(launchAgain), n, launchAsks}, false, nil
		}
		return launchStep{now.Add(spread), n, launchCompletes}, false, nil
	case "COMPLETED":
		l.queue.end(n, domain.StandingCompleted)
	case "EXPIRED":
		l.queue.end(n, domain.StandingExpired)
	case "LEFT":
		l.queue.end(n, domain.StandingLeft)
	default:
		return next, true, benchError("somebody is " + s.status)
	}
	return next, true, nil
}

func (l *benchLaunch) askToComplete(c *benchClient, n int64) (benchStanding, error) {
	body := append(l.consumer([]byte(`{"consumerId":"`), n), `"}`...)
	c.out = append(strconv.AppendInt(append(c.out[:0], l.complete...), int64(len(body)), 10), "\r\n\r\n"...)
	c.out = append(c.out, body...)
	status, answer, err := c.do()
	if err == nil && status != http.StatusOK {
		err = statusFault(status, answer)
	}
	if err != nil {
		return benchStanding{}, err
	}
	return standingOf(answer, []byte(l.consumerID(n)))
}
