package main

import (
	"os"
	"runtime"
	"runtime/debug"
	rtmetrics "runtime/metrics"
)

// garbageFloor is how much garbage may gather however little is live: 128 MiB.
const garbageFloor = 128 << 20

// collectSeldom lets as much garbage gather as is live, as Go does, but at least
// garbageFloor. An engine with small queues has some 20 MiB live and makes as much
// in a twentieth of a second under load, so it would collect all the time. With
// GOGC set it does nothing.
func collectSeldom() {
	if os.Getenv("GOGC") == "" {
		setGarbage()
	}
}

// setGarbage sets what may gather until the next collection, and sees to it that
// it is set again after that.
func setGarbage() {
	debug.SetGCPercent(garbagePercent(live()))
	// It is garbage at once, so the next collection finds it.
	runtime.AddCleanup(new(sentinel), func(struct{}) { setGarbage() }, struct{}{})
}

// sentinel holds a pointer, or the allocator would put it beside what lives longer.
type sentinel struct{ _ *sentinel }

// live is how many bytes the last collection found in use, 0 before the first.
func live() uint64 {
	sample := []rtmetrics.Sample{{Name: "/gc/heap/live:bytes"}}
	rtmetrics.Read(sample)
	return sample[0].Value.Uint64()
}

// garbagePercent is the garbage that may gather in percent of what is live.
func garbagePercent(live uint64) int {
	const least = 4 << 20 // what Go starts from
	return int(max(100, garbageFloor*100/max(live, least)))
}
