package domain

const (
	// admissionCost is what one automatic admission takes of the credit. A rate of r
	// a minute earns r for each millisecond.
	admissionCost = 60_000
	// wakeGap is how far apart automatic admissions are that do not happen at once,
	// in milliseconds.
	wakeGap = 50
)

// Pace is the state of automatic admission: a token bucket. It starts empty at the
// opening, fills at the rate in force and holds one second's worth, at least one
// admission. So any 60 seconds hold at most ceil(rate × 61/60) admissions.
type Pace struct {
	Credit int64   `json:"credit"` // at Since; an admission costs admissionCost
	Since  Instant `json:"since"`
	Last   Instant `json:"last"` // when somebody was admitted automatically, or 0
}

// most is what the bucket holds.
func most(rate Count) int64 { return max(admissionCost, int64(rate)*1000) }

// credit is what the bucket holds at t, while rate is in force.
func (p Pace) credit(rate Count, t Instant) int64 {
	// After a minute it is full at any rate.
	passed := min(int64(t-p.Since), 60_000)
	return min(p.Credit+int64(rate)*passed, most(rate))
}

// next is when the next admission is due, for who waits since before now; 0 for
// never. latest is the latest time in the stream.
func (p Pace) next(rate Count, latest Instant) Instant {
	if rate == 0 {
		return 0
	}
	if p.Last != 0 && p.Last == latest && p.credit(rate, latest) >= admissionCost {
		// It is one of several at once, of which not all are written yet.
		return latest
	}
	t := p.Since
	if missing := admissionCost - p.Credit; missing > 0 {
		t += Instant((missing + int64(rate) - 1) / int64(rate))
	}
	if p.Last != 0 {
		t = max(t, p.Last+wakeGap)
	}
	return t
}

// spend takes n admissions at t.
func (p *Pace) spend(rate Count, t Instant, n int64) {
	p.Credit, p.Since, p.Last = p.credit(rate, t)-n*admissionCost, t, t
}

// change goes over to another rate at t. What that one's bucket does not hold of the
// credit is lost when it is looked at next.
func (p *Pace) change(from, to Count, t Instant) {
	p.Credit, p.Since = p.credit(from, t), t
	if to == 0 {
		p.Credit = 0
	}
}
