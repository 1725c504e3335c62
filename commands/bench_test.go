package commands

import (
	"fmt"
	"testing"
)

func BenchmarkHandler_update(b *testing.B) {
	bench := newBench()
	stream := bench.queue(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if err := bench.update(b, stream, "admissionRate", fmt.Sprint(i%1000+1)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHandler_load(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			bench := newBench()
			stream := bench.queue(b)
			for i := range n - 1 {
				if err := bench.update(b, stream, "admissionRate", fmt.Sprint(i%1000+1)); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := NewHandler(bench.log, nil, bench.clock.time).Load(b.Context(), stream); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}
