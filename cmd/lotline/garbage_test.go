package main

import (
	"runtime"
	rtmetrics "runtime/metrics"
	"testing"
)

func TestGarbage_gathersUpToTheFloorOrAsMuchAsIsLive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		live    uint64
		percent int
	}{
		{0, 3200},
		{16 << 20, 800},
		{100 << 20, 128},
		{128 << 20, 100},
		{3 << 30, 100},
	} {
		if got := garbagePercent(c.live); got != c.percent {
			t.Errorf("with %d MiB live it is %d %%, not %d", c.live>>20, got, c.percent)
		}
	}
}

// Each collection says how much may gather until the next. Not parallel: what the
// other tests hold counts.
func TestGarbage_isMeasuredByWhatTheLastCollectionFound(t *testing.T) {
	collected := func(what string, as func(percent uint64) bool) {
		t.Helper()
		runtime.GC()
		eventually(t, what, func() bool {
			sample := []rtmetrics.Sample{{Name: "/gc/gogc:percent"}}
			rtmetrics.Read(sample)
			return as(sample[0].Value.Uint64())
		})
	}
	seldom := func(percent uint64) bool { return percent > 100 }
	collected("seldom while little is live", seldom)
	large := make([]byte, 2*garbageFloor)
	collected("as Go does it while much is", func(percent uint64) bool { return percent == 100 })
	runtime.KeepAlive(large)
	collected("seldom again", seldom)
}
