package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

var benchEntries = flag.Int("entries", 2_000, "how many entries the benchmark of a long queue has")

// cpuTime returns the CPU time that this process has used, of all cores together.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// consumerID returns an id of 36 characters, the length of a UUID.
func consumerID(i int64) string { return fmt.Sprintf("consumer-%027d", i) }

// liveHeap returns the size of the live heap in MiB.
func liveHeap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

// openQueue makes an open queue.
func (n *clusterNode) openQueue(b *testing.B) domain.ID {
	b.Helper()
	made, err := n.handler.Create(b.Context(), commands.Creation{
		Kind: domain.KindQueue, Organization: n.organization(b), Fields: domain.Fields{"sequenceId": []byte(`"bench"`)},
		Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"},
	})
	if err != nil {
		b.Fatal(err)
	}
	id := made.History.Aggregate.(domain.Distribution).Shared().ID
	if _, err := n.handler.Handle(b.Context(), commands.Request{Stream: id.Stream(), Command: domain.Step{To: domain.StatusOpen}}); err != nil {
		b.Fatal(err)
	}
	return id
}

// enter enters consumers in a queue with 64 callers and waits until the read models have
// them. It returns the CPU time per entry.
func (n *clusterNode) enter(b *testing.B, queue domain.ID, next *atomic.Int64, count int) time.Duration {
	b.Helper()
	const callers = 64
	end := next.Load() + int64(count)
	before := cpuTime(b)
	concurrently(b, callers, func(int) error {
		for {
			i := next.Add(1)
			if i > end {
				return nil
			}
			if _, err := n.handler.Handle(b.Context(), commands.Request{Stream: queue.Stream(), Command: domain.Enter{ConsumerID: consumerID(i)}}); err != nil {
				return err
			}
		}
	})
	next.Store(end)
	within(b, time.Minute, "everybody is seen", func() bool {
		q, err := n.views.Participants(b.Context(), n.organization(b), queue)
		return err == nil && q.(*domain.Queue).Tally.Waiting >= end
	})
	return (cpuTime(b) - before) / time.Duration(count)
}

// A queue fills up. The benchmark reports the cost of an entry in a short and in a long
// line, the memory per entry, and the time to the first entry after a restart, with and
// without a snapshot.
func BenchmarkQueue_long(b *testing.B) {
	for b.Loop() {
		c := newClusterStore(b)
		dir := lockedDir(b)
		n := c.openNode(b, dir)
		n.bringUp(b)
		empty := liveHeap()
		queue := n.openQueue(b)
		var next, other atomic.Int64
		rest := *benchEntries
		part := min(20_000, rest/2)
		// Short lines: the same number of entries, in queues of a thousand each.
		var short time.Duration
		for left := part; left > 0; left -= 1_000 {
			another := n.openQueue(b)
			other.Store(0)
			short += n.enter(b, another, &other, min(left, 1_000)) * time.Duration(min(left, 1_000))
		}
		short /= time.Duration(part)
		n.enter(b, queue, &next, rest-part)
		long := n.enter(b, queue, &next, part)
		b.ReportMetric(short.Seconds()*1e6, "us-CPU-an-entry-short")
		b.ReportMetric(long.Seconds()*1e6, "us-CPU-an-entry-long")
		target(b, float64(long)/float64(short), "long-of-short", 1.3)
		target(b, liveHeap()-empty, "MiB-heap", 500)

		last := consumerID(next.Load())
		started := time.Now()
		const positions = 10_000
		q, err := n.views.Participants(b.Context(), n.organization(b), queue)
		if err != nil {
			b.Fatal(err)
		}
		for range positions {
			if p, ok := q.(*domain.Queue).Place(last); !ok || p.Position != next.Load() {
				b.Fatalf("got %+v", p)
			}
		}
		b.ReportMetric(time.Since(started).Seconds()*1e6/positions, "us-a-position")
	}
}

// The engine restarts on a queue in which many consumers wait: with its snapshot, without
// it, and without any read models.
func BenchmarkQueue_restart(b *testing.B) {
	for b.Loop() {
		dir := dataDirectory(b)
		lotline := testBinary(b)
		e := lotline.serve(b, dir)
		key := e.secretKey()
		organization := domain.ID(e.must(200, "GET", "/api/v1/organization", key, "").object(b)["id"].(string))
		stop := func() {
			if code := e.terminate(); code != 0 {
				b.Fatalf("exit %d: %s", code, e.stderr)
			}
		}
		stop()
		queue := waitingQueue(b, dir, organization, *benchEntries)
		n := 0
		again := func() float64 {
			n++
			started := time.Now()
			e = lotline.serve(b, dir)
			eventually(b, "the first enters", func() bool {
				return e.call("POST", "/api/v1/queues/"+string(queue)+"/enter", key, "", "X-Consumer-Id", fmt.Sprintf("late-%d", n)).status == 200
			})
			took := time.Since(started).Seconds()
			a := e.must(200, "GET", "/api/v1/queues/"+string(queue)+"/status", key, "", "X-Consumer-Id", fmt.Sprintf("late-%d", n))
			if got := a.object(b)["position"].(float64); int(got) != *benchEntries+n {
				b.Fatalf("the position is %f", got)
			}
			stop()
			return took
		}
		forget := func(pattern string) {
			files, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				b.Fatal(err)
			}
			for _, f := range files {
				if err := os.RemoveAll(f); err != nil {
					b.Fatal(err)
				}
			}
		}
		b.ReportMetric(again(), "s-catching-up")
		target(b, again(), "s-until-entered", 10)
		if _, err := os.Stat(filepath.Join(dir, "views.db.participants")); err != nil && *benchEntries >= 20_000 {
			b.Fatalf("the end of the process has kept nobody: %v", err)
		}
		forget("views.db.participants*")
		target(b, again(), "s-without-snapshot", 10)
		forget("views.db*")
		b.ReportMetric(again(), "s-from-nothing")
	}
}

// waitingQueue appends a queue with many waiting consumers to the log of a data
// directory.
func waitingQueue(b *testing.B, path string, organization domain.ID, entries int) domain.ID {
	b.Helper()
	dir, err := openDataDir(path)
	if err != nil {
		b.Fatal(err)
	}
	l, err := openLog(b.Context(), &settings{DataDir: path}, dir, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	now := domain.InstantOf(time.Now())
	stream, events := newQueue(b, organization, now)
	opened := events[len(events)-1].When()
	for n := 1; n <= entries; n++ {
		events = append(events, domain.ConsumerEntered{
			Stamp: domain.Stamp{At: opened}, Participant: domain.Participant{ConsumerID: consumerID(int64(n)), Entry: int64(n)},
		})
	}
	head := domain.EmptyHead()
	for len(events) > 0 {
		some := min(1_000, len(events))
		if head, _, err = l.Append(b.Context(), stream, head, encode(b, l.Log, stream, events[:some])); err != nil {
			b.Fatal(err)
		}
		events = events[some:]
	}
	if err := errors.Join(l.Close(), dir.Close()); err != nil {
		b.Fatal(err)
	}
	id, err := domain.StreamID(stream)
	if err != nil {
		b.Fatal(err)
	}
	return id
}
