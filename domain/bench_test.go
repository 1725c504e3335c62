package domain_test

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"

	"github.com/lotline/lotline/domain"
)

// consumerID returns an id of 36 characters.
func consumerID(n int) string { return fmt.Sprintf("%08d-0000-4000-8000-000000000000", n) }

// lineOf is an open queue in which n consumers wait.
func lineOf(tb testing.TB, n int) *domain.History {
	tb.Helper()
	h := domain.NewHistory("queue-" + uuid32)
	for _, e := range queueOf(0, 60, 600) {
		if err := h.Aggregate.Evolve(e); err != nil {
			tb.Fatal(err)
		}
	}
	enter(tb, h, 0, n)
	return h
}

// enter makes n consumers enter, from the consumer with the number from.
func enter(tb testing.TB, h *domain.History, from, n int) {
	tb.Helper()
	for i := from; i < from+n; i++ {
		if _, err := h.Decide(stamp09.At, domain.Enter{ConsumerID: consumerID(i)}); err != nil {
			tb.Fatal(err)
		}
	}
}

var sizes = []int{1_000, 1_000_000}

// BenchmarkQueue_enter decides and applies an entry. After that it forks the queue, as
// the writer does for the answer.
func BenchmarkQueue_enter(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("waiting=%d", n), func(b *testing.B) {
			const each = 1000
			h := lineOf(b, n)
			ids := make([]string, each)
			for i := range ids {
				ids[i] = consumerID(n + i)
			}
			b.ReportAllocs()
			before := cpu()
			for b.Loop() {
				h := h.Fork()
				for _, id := range ids {
					if _, err := h.Decide(stamp09.At, domain.Enter{ConsumerID: id}); err != nil {
						b.Fatal(err)
					}
					_ = h.Fork()
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N)/each, "cpu-ns/entry")
		})
	}
}

// BenchmarkQueue_forkAndEvolve is what a read model does for each event.
func BenchmarkQueue_forkAndEvolve(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("waiting=%d", n), func(b *testing.B) {
			h := lineOf(b, n)
			b.ReportAllocs()
			i, before := 0, cpu()
			for b.Loop() {
				f := h.Fork()
				i = (i + 7919) % n
				e := domain.ConsumerLeft{Stamp: stamp09, Participant: who(consumerID(i), int64(i+1)), From: domain.StandingQueued}
				if err := f.Aggregate.Evolve(e); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

var stamp09 = stamp("09:00")

// BenchmarkQueue_participation reads the status and the exact position of consumers all
// over the line.
func BenchmarkQueue_participation(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("waiting=%d", n), func(b *testing.B) {
			q := lineOf(b, n).Aggregate.(*domain.Queue)
			ids := make([]string, 4096)
			at := make([]int64, len(ids))
			for i := range ids {
				at[i] = int64(i * 7919 % n)
				ids[i] = consumerID(int(at[i]))
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				i = (i + 1) % len(ids)
				if p, ok := q.Place(ids[i]); !ok || p.Position != at[i]+1 {
					b.Fatalf("%+v", p)
				}
			}
		})
	}
}

// BenchmarkQueue_heap measures how much memory one copy of a line takes. The metric is
// for all consumers together.
func BenchmarkQueue_heap(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := heapInUse()
		h := lineOf(b, n)
		b.ReportMetric(float64(heapInUse()-before)/(1<<20), "MiB")
		runtime.KeepAlive(h)
	}
}

// cpu returns how much processor time this process has used, in nanoseconds. It
// includes the garbage collector.
func cpu() int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// heapInUse is how many bytes of the heap are in use.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
