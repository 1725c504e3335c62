package bench

import (
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// With a rate, one slow answer delays the requests that are due after it. Their latencies
// include that delay.
func TestBenchLoad_aStallIsNotHidden(t *testing.T) {
	t.Parallel()
	for rate, slow := range map[float64]int64{0: 1, 100: 20} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := load{
					clients: []*client{{}}, rate: rate, lasts: 400 * time.Millisecond, asked: new(atomic.Int64),
					do: func(_ int, n int64) error {
						took := time.Millisecond
						if n == 0 {
							took = 300 * time.Millisecond
						}
						time.Sleep(took) //nolint:forbidigo // synctest
						return nil
					},
				}
				late := int64(0)
				for _, b := range l.run(t.Context()).latencies.Distribution() {
					if b.From >= 100_000 {
						late += b.Count
					}
				}
				if late < slow || rate == 0 && late > slow {
					t.Errorf("%d took over 100 ms, of %d", late, slow)
				}
			})
		})
	}
}

// A latency beyond the scale of the histogram is counted, as the longest of the scale.
func TestBench_countsWhatTakesLongerThanItsScale(t *testing.T) {
	t.Parallel()
	h := newLatencies()
	for _, d := range []time.Duration{0, time.Millisecond, time.Hour} {
		record(h, d)
	}
	if h.TotalCount() != 3 || h.Max() < (10*time.Minute).Microseconds() {
		t.Errorf("%d are counted, the longest as %d µs", h.TotalCount(), h.Max())
	}
}
