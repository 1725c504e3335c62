package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// newLatencies counts durations of 1 µs to 10 minutes, to three digits.
func newLatencies() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
}

// record counts a duration. One beyond the range counts as the longest: it must not
// be missing just because it is the worst.
func record(h *hdrhistogram.Histogram, d time.Duration) {
	within := min(max(h.LowestTrackableValue(), d.Microseconds()), h.HighestTrackableValue())
	if err := h.RecordValue(within); err != nil {
		panic("a value within the range is counted: " + err.Error())
	}
}

// benchError is an answer that is not as it should be. Faults of the same text are
// counted together.
type benchError string

func (f benchError) Error() string { return string(f) }

// benchLoad is what is asked of a server, and how fast.
type benchLoad struct {
	clients []*benchClient
	// rate is how many requests are started in a second, whether those before them
	// are answered or not; 0: each connection asks again when it is answered.
	rate float64
	// It ends after this time, or this many requests if that is not 0.
	lasts time.Duration
	most  int64
	// do asks for the n-th time, on the connection of the caller w.
	do func(w int, n int64) error
	// asked counts how often do was called, here and in other loads that share it.
	asked *atomic.Int64
}

// benchMeasured is what a load met with.
type benchMeasured struct {
	took      time.Duration
	latencies *hdrhistogram.Histogram // in µs; of what was answered as it should be
	faults    map[string]int64
	generator time.Duration // CPU
	server    time.Duration // CPU, until it had nothing more to do
}

func newBenchMeasured() *benchMeasured {
	return &benchMeasured{latencies: newLatencies(), faults: map[string]int64{}}
}

func (m *benchMeasured) add(o *benchMeasured) {
	m.took += o.took
	m.latencies.Merge(o.latencies)
	for k, n := range o.faults {
		m.faults[k] += n
	}
	m.generator += o.generator
	m.server += o.server
}

func (m *benchMeasured) perSecond() float64 {
	if m.took == 0 {
		return 0
	}
	return float64(m.latencies.TotalCount()) / m.took.Seconds()
}

// run puts the load on the server. A latency counts from when the request should
// have been started: with a rate, one that has to wait for a connection because the
// server is slow is late from the beginning.
func (l *benchLoad) run(ctx context.Context) *benchMeasured {
	each := make([]*benchMeasured, len(l.clients))
	before := generatorCPU()
	started := time.Now()
	end := started.Add(l.lasts)
	var due, under atomic.Int64
	var all sync.WaitGroup
	for w := range l.clients {
		each[w] = newBenchMeasured()
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
				// Nothing takes longer than the histogram has room for.
				record(m.latencies, time.Since(at))
			}
		})
	}
	all.Wait()
	sum := newBenchMeasured()
	for _, m := range each {
		sum.add(m)
	}
	sum.took, sum.generator = time.Since(started), generatorCPU()-before
	return sum
}

// sleepUntil reports false when ctx ended before.
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

// generatorCPU is what this process has used so far.
func generatorCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// statusFault says what a status means that was not hoped for.
func statusFault(status int, body []byte) error {
	return benchError(fmt.Sprintf("%d %s", status, benchText(body, `"error":"`)))
}
