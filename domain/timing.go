package domain

// Timing is what an event says about when a distribution opens, closes, is drawn
// or settled: the fields that were set or changed, and why.
type Timing struct {
	Changed map[string]Change
	Cause   Cause
}

// TimingOf returns what e sets or changes of the schedule, and false when it
// leaves the schedule alone.
func TimingOf(e Event) (Timing, bool) {
	t := Timing{Changed: map[string]Change{}}
	set := func(name string, i Instant) {
		if i != 0 {
			t.Changed[name] = Change{Old: []byte("null"), New: i.appendJSON(nil)}
		}
	}
	switch e := e.(type) {
	case *QueueCreated:
		t.Cause = CauseCreate
		set("openAt", e.OpenAt)
		set("closeAt", e.CloseAt)
	case *DrawCreated:
		t.Cause = CauseCreate
		set("openAt", e.OpenAt)
		set("closeAt", e.CloseAt)
		set("drawAt", e.DrawAt)
	case *AuctionCreated:
		t.Cause = CauseCreate
		set("openAt", e.OpenAt)
		set("closeAt", e.CloseAt)
		set("settleAt", e.SettleAt)
	case Updated:
		t.Cause = e.Cause
		for _, name := range []string{"openAt", "closeAt", "drawAt", "settleAt"} {
			if c, ok := e.Changed[name]; ok {
				t.Changed[name] = c
			}
		}
	}
	return t, len(t.Changed) > 0
}
