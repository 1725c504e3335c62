package bench

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// newLatencies returns a histogram of durations from 1 µs to 10 minutes, to three
// digits.
func newLatencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
}

// record counts a duration. A duration beyond the range counts as the longest of the
// range: the worst latency must not be missing.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	within := min(max(h.LowestTrackableValue(), d.Microseconds()), h.HighestTrackableValue())
	if err := h.RecordValue(within); err != nil {
		panic("a value within the range is counted: " + err.Error())
	}
}

// answerError says what is wrong with an answer. Errors with the same text are counted
// together.
type answerError string

func (e answerError) Error() string { return string(e) }

// load says which requests the generator sends to a server, and how fast.
type load struct {
	clients []*client
	// rate is the number of requests that become due each second, even if earlier ones
	// are not answered yet. If rate is 0, each connection sends its next request when it
	// has received the previous answer.
	rate float64
	// The load ends after the time lasts or after most requests, whichever comes first.
	// If most is 0, their number is not limited.
	lasts time.Duration
	most  int64
	// do sends the n-th request on the connection of caller w.
	do func(w int, n int64) error
	// asked counts the calls of do, together with other loads that share it.
	asked *atomic.Int64
}

// measured is the result of a load.
type measured struct {
	took      time.Duration
	latencies *hdrhistogram.Histogram // in µs; of answers without an error
	faults    map[string]int64
	generator time.Duration // CPU time of this process
	server    time.Duration // CPU time of the server, until it was idle again
}

func newMeasured() *measured {
	return &measured{latencies: newLatencies(), faults: map[string]int64{}}
}

func (m *measured) add(o *measured) {
	m.took += o.took
	m.latencies.Merge(o.latencies)
	for k, n := range o.faults {
		m.faults[k] += n
	}
	m.generator += o.generator
	m.server += o.server
}

func (m *measured) perSecond() float64 {
	if m.took == 0 {
		return 0
	}
	return float64(m.latencies.TotalCount()) / m.took.Seconds()
}

// run sends the load to the server. A latency counts from the time at which the request
// was due. So with a rate it includes the time for which the request waited for a free
// connection.
func (l *load) run(ctx context.Context) *measured {
	each := make([]*measured, len(l.clients))
	before := generatorCPU()
	started := time.Now()
	end := started.Add(l.lasts)
	var due, under atomic.Int64
	var all sync.WaitGroup
	for w := range l.clients {
		each[w] = newMeasured()
		all.Go(func() {
			m := each[w]
			for ctx.Err() == nil {
				at := time.Now()
				if l.rate > 0 {
					at = started.Add(time.Duration(float64(due.Add(1)-1) / l.rate * float64(time.Second)))
				}
				if !at.Before(end) || l.most > 0 && under.Add(1) > l.most || !sleepUntil(ctx, at) {
					return
				}
				err := l.do(w, l.asked.Add(1)-1)
				if err != nil {
					m.faults[err.Error()]++
					continue
				}
				record(m.latencies, time.Since(at))
			}
		})
	}
	all.Wait()
	sum := newMeasured()
	for _, m := range each {
		sum.add(m)
	}
	sum.took, sum.generator = time.Since(started), generatorCPU()-before
	return sum
}

// sleepUntil waits until a time. It reports false if ctx ends first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// generatorCPU returns the CPU time that this process has used so far.
func generatorCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// statusFault is the error for an answer with another status than expected.
func statusFault(status int, body []byte) error {
	return answerError(fmt.Sprintf("%d %s", status, textAfter(body, `"error":"`)))
}
