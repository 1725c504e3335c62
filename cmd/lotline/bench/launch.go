package bench

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain/queuemodel"
)

// The last digit of a consumer's number decides what the consumer does in a launch. Of ten
// consumers, one leaves within a second after it entered, one never completes after its
// admission, and eight complete.
const (
	launchTenths    = 10
	launchLeaver    = 3
	launchNoShow    = 7
	launchTellEvery = time.Second
)

// launchStep is the next request of a consumer.
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

// launchRun is a running launch. Only one goroutine at a time has a consumer's step, so
// the slices by consumer need no lock.
type launchRun struct {
	*runner

	queue              *queue
	session            time.Duration
	enter, asks, leave template
	complete           []byte
	sent               []time.Duration       // when each consumer first asked to enter
	told               []queuemodel.Standing // the standing in the last answer to each
}

// launch measures consumers that arrive one after another within a time. Each enters,
// waits, is admitted and ends. While it waits it asks for its place as often as the
// answers tell it to.
func (r *runner) launch(ctx context.Context, scenario string) error {
	if err := r.makeTokens(ctx, r.Consumers); err != nil {
		return err
	}
	l := &launchRun{
		runner: r, session: 3*time.Second + r.Within/10,
		sent: make([]time.Duration, r.Consumers), told: make([]queuemodel.Standing, r.Consumers),
	}
	// The rate is a little lower than that of the arrivals, so that a line forms.
	rate := max(1, int64(0.8*float64(r.Consumers)/r.Within.Minutes()))
	var err error
	l.queue, err = r.makeQueue(ctx, fmt.Sprintf(`,"admissionRate":%d,"sessionDurationSeconds":%d`, rate, int64(l.session.Seconds())))
	if err != nil {
		return err
	}
	l.queue.rate = rate
	l.enter, l.asks, l.leave = r.template(http.MethodPost, l.queue.id, "enter"), r.template(http.MethodGet, l.queue.id, "status"), r.template(http.MethodPost, l.queue.id, "leave")
	l.complete = []byte("POST /api/v1/queues/" + l.queue.id + "/complete HTTP/1.1\r\nHost: " + r.engine.address +
		"\r\nAuthorization: Bearer " + r.api.secret + "\r\nContent-Type: application/json\r\nContent-Length: ")
	clients, err := dialAll(r.Connections, r.engine.address)
	if err != nil {
		return err
	}
	defer closeAll(clients)
	before, own, started := r.engine.settle(ctx), generatorCPU(), time.Now()
	deeds := l.run(ctx, clients)
	took := time.Since(started)
	all := newMeasured()
	for i, m := range deeds {
		m.took = took
		r.report.measured(scenario+" "+launchNames[i], r.engine.name, 0, m)
		all.add(m)
	}
	all.took, all.generator, all.server = took, generatorCPU()-own, r.engine.settle(ctx)-before
	r.report.measured(scenario, r.engine.name, 0, all)
	return r.check(ctx, scenario, []*queue{l.queue}, func(context.Context, *claims.Verdicts) error { return nil })
}

// launchOutcome is the result of a step: the consumer's next step, unless it has none.
type launchOutcome struct {
	next launchStep
	over bool // the consumer has no next step
}

// run carries out all steps, until none is left or ctx ends.
func (l *launchRun) run(ctx context.Context, clients []*client) (deeds [launchDeeds]*measured) {
	work, done := make(chan launchStep), make(chan launchOutcome)
	each := make([][launchDeeds]*measured, len(clients))
	var workers sync.WaitGroup
	for w := range clients {
		for d := range each[w] {
			each[w][d] = newMeasured()
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
		deeds[d] = newMeasured()
		for w := range each {
			deeds[d].add(each[w][d])
		}
	}
	return deeds
}

// dispatch hands out each step when it is due.
func (l *launchRun) dispatch(ctx context.Context, work chan<- launchStep, done <-chan launchOutcome) {
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

// launchAgain is how long a consumer waits after an error before it tries again.
const launchAgain = time.Second

// take carries out a step and returns the consumer's next step, unless over is true.
func (l *launchRun) take(c *client, w int, step launchStep) (next launchStep, over bool, err error) {
	n := step.consumer
	again := launchStep{time.Now().Add(launchAgain), n, step.does}
	var s standing
	switch step.does {
	case launchEnters:
		sent := time.Since(l.report.Began)
		if l.sent[n] == 0 {
			l.sent[n] = sent
		}
		if s, err = l.askWhere(c, l.enter, n); err == nil {
			l.queue.acknowledged[w] = append(l.queue.acknowledged[w], entry{n, l.sent[n], time.Since(l.report.Began), s.position})
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
		var fault answerError
		if errors.As(err, &fault) && step.does != launchEnters {
			again.does = launchAsks // the session may be over
		}
		return again, false, err
	}
	return l.after(step, s)
}

// after returns the next step of the consumer of a step whose answer was s. over reports
// that the consumer has no next step.
func (l *launchRun) after(step launchStep, s standing) (next launchStep, over bool, err error) {
	n, now := step.consumer, time.Now()
	role := n % launchTenths
	// Consumers with the same last digit act at different times within a second.
	spread := time.Duration(n/launchTenths*7919%1000) * time.Millisecond
	poll := launchStep{now.Add(time.Duration(s.pollAfter) * time.Millisecond), n, launchAsks}
	switch s.status {
	case "QUEUED", "ADMITTED":
		switch {
		case step.does == launchLeaves || step.does == launchCompletes:
			return next, true, answerError("after " + launchNames[step.does] + " somebody is " + s.status)
		case role == launchLeaver:
			return launchStep{now.Add(spread), n, launchLeaves}, false, nil
		case s.status == "QUEUED":
			l.told[n] = queuemodel.Queued
			return poll, false, nil
		case role == launchNoShow && l.told[n] != queuemodel.Admitted:
			l.told[n] = queuemodel.Admitted
			return launchStep{now.Add(l.session), n, launchAsks}, false, nil
		case role == launchNoShow:
			return launchStep{now.Add(launchAgain), n, launchAsks}, false, nil
		}
		return launchStep{now.Add(spread), n, launchCompletes}, false, nil
	case "COMPLETED", "EXPIRED", "LEFT":
		l.queue.end(n, queuemodel.Standing(s.status))
	default:
		return next, true, answerError("somebody is " + s.status)
	}
	return next, true, nil
}

func (l *launchRun) askToComplete(c *client, n int64) (standing, error) {
	body := append(l.consumer([]byte(`{"consumerId":"`), n), `"}`...)
	c.out = append(strconv.AppendInt(append(c.out[:0], l.complete...), int64(len(body)), 10), "\r\n\r\n"...)
	c.out = append(c.out, body...)
	status, answer, err := c.do()
	if err == nil && status != http.StatusOK {
		err = statusFault(status, answer)
	}
	if err != nil {
		return standing{}, err
	}
	return standingOf(answer, []byte(l.consumerID(n)))
}
