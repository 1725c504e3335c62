package queuemodel_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain/queuemodel"
)

// Pace finds exactly the admissions that a search through all windows finds.
func TestPace_findsWhatASearchThroughAllWindowsFinds(t *testing.T) {
	t.Parallel()
	found := [2]int{}
	rapid.Check(t, func(t *rapid.T) {
		type admission struct {
			at           queuemodel.Time
			rate, earned int64
			since        int // the number of rates before the one in force
		}
		var rates []int64
		var all []admission
		now, earned, pace := queuemodel.Time(1_800_000_000_000), int64(0), &queuemodel.Pace{}
		change := func() {
			rates = append(rates, rapid.SampledFrom([]int64{0, 1, 60, 100, 6000}).Draw(t, "rate"))
			pace.Rate(now, rates[len(rates)-1])
		}
		change()
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			passed := rapid.SampledFrom([]int64{0, 1, 10, 600, 1000, 20_000, 59_999}).Draw(t, "ms")
			now += queuemodel.Time(passed)
			earned += passed * rates[len(rates)-1]
			if rapid.IntRange(0, 9).Draw(t, "change") == 0 {
				change()
				continue
			}
			all = append(all, admission{now, rates[len(rates)-1], earned, len(rates) - 1})
			window, minute := pace.Admit(now)
			kept, keptMinute := true, true
			for i, from := range all {
				n, highest := int64(len(all)-i), int64(0)
				for _, r := range rates[from.since:] {
					highest = max(highest, r)
				}
				kept = kept && n*60_000 <= max(60_000, from.rate*1000)+earned-from.earned
				keptMinute = keptMinute && (now-from.at >= 60_000 || n*60 <= highest*61+59)
			}
			if window.Kept() != kept || minute.Kept() != keptMinute {
				t.Fatalf("at %d: %+v, %+v; a search says %t, %t", now, window, minute, kept, keptMinute)
			}
			for i, k := range []bool{kept, keptMinute} {
				if !k {
					found[i]++
				}
			}
		}
	})
	if found[0] == 0 || found[1] == 0 {
		t.Errorf("too many admissions were found %d and %d times", found[0], found[1])
	}
}
