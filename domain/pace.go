package domain

const (
	// admissionCost is the credit that one automatic admission costs. At a rate of r
	// admissions a minute, the credit grows by r in each millisecond.
	admissionCost = 60_000
	// wakeGap is the shortest time between automatic admissions at different times, in
	// milliseconds.
	wakeGap = 50
)

// Pace is the state of automatic admission: a token bucket. It is empty at the opening
// and fills at the rate in force. It holds the credit of one second, but at least that
// of one admission. So there are at most ceil(rate × 61/60) admissions in any 60
// seconds.
type Pace struct {
	Credit int64   `json:"credit"` // at Since; an admission costs admissionCost
	Since  Instant `json:"since"`
	Last   Instant `json:"last"` // when somebody was admitted automatically, or 0
}

// most is the largest credit that the bucket can hold.
func most(rate Count) int64 { return max(admissionCost, int64(rate)*1000) }

// credit is the credit in the bucket at t, while rate is in force.
func (p Pace) credit(rate Count, t Instant) int64 {
	// After a minute it is full at any rate.
	passed := min(int64(t-p.Since), 60_000)
	return min(p.Credit+int64(rate)*passed, most(rate))
}

// next is when the next admission is due, or 0 for never, given that consumers wait
// already. latest is the latest time in the stream.
func (p Pace) next(rate Count, latest Instant) Instant {
	if rate == 0 {
		return 0
	}
	if p.Last != 0 && p.Last == latest && p.credit(rate, latest) >= admissionCost {
		// Several admissions are due at the same time, and some of them are not made
		// yet.
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

// spend takes the credit for n admissions at t.
func (p *Pace) spend(rate Count, t Instant, n int64) {
	p.Credit, p.Since, p.Last = p.credit(rate, t)-n*admissionCost, t, t
}

// change switches to another rate at t. Credit that does not fit into the bucket of the
// new rate is lost: the next call of credit leaves it out.
func (p *Pace) change(from, to Count, t Instant) {
	p.Credit, p.Since = p.credit(from, t), t
	if to == 0 {
		p.Credit = 0
	}
}
