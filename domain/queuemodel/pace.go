package queuemodel

// Pace checks that the automatic admissions of a queue keep to the rates that were in
// force. The caller must report every change of the rate and every automatic admission,
// in order.
type Pace struct {
	now    Time
	earned int64         // credit since the beginning; an admission costs 60,000
	count  int64         // of admissions
	rates  []int64       // all that were in force, one after another
	firsts []firstAtRate // of the rates in force in the last 60 seconds
	minute []Time        // the admissions of the last 60 seconds

	// The window that allows the fewest further admissions, and the part of its limit that
	// does not depend on the time: see Admit.
	tightest Window
	limit    int64
}

// firstAtRate is the first admission while a rate was in force.
type firstAtRate struct {
	rate   int   // the index in rates
	number int64 // of the admission, from 0
}

// Window is the time from one automatic admission to another one.
type Window struct {
	From  Time
	Count int64 // the automatic admissions in it
	Most  int64 // how many it may have
}

// Kept reports whether the window has no more admissions than it may have.
func (w Window) Kept() bool { return w.Count <= w.Most }

// Rate reports that a rate is in force from a time on.
func (p *Pace) Rate(at Time, rate int64) {
	p.pass(at)
	p.rates = append(p.rates, rate)
}

// rate returns the rate that is in force.
func (p *Pace) rate() int64 {
	if len(p.rates) == 0 {
		return 0
	}
	return p.rates[len(p.rates)-1]
}

// pass lets time pass.
func (p *Pace) pass(to Time) {
	p.earned += p.rate() * int64(to-p.now)
	p.now = to
}

// Admit reports an automatic admission. It returns the two worst windows that end with
// this admission. The limit of a window is the number of admissions that its credit
// pays for: the credit that could be saved before the window, and the credit that was
// earned in it. The first result is the window that comes closest to its limit, or
// exceeds it most. The second is the same for windows of less than 60 seconds. Their
// limit is a sixtieth more than the highest rate that was in force in the window.
func (p *Pace) Admit(at Time) (window, minute Window) {
	p.pass(at)
	// The credit that was saved before the first admission and the credit that was earned
	// since pay for n admissions. limit leaves out what is the same for all windows.
	if limit := bucket(p.rate()) - p.earned + p.count*admission; p.count == 0 || limit < p.limit {
		p.limit, p.tightest = limit, Window{From: at, Count: p.count}
	}
	if rate := len(p.rates) - 1; len(p.firsts) == 0 || p.firsts[len(p.firsts)-1].rate != rate {
		p.firsts = append(p.firsts, firstAtRate{rate, p.count})
	}
	p.count++
	window = Window{From: p.tightest.From, Count: p.count - p.tightest.Count}
	window.Most = (p.limit + p.earned - p.tightest.Count*admission) / admission
	return window, p.lastMinute(at)
}

// lastMinute returns the window of less than 60 seconds that Admit returns. A window that
// begins later has fewer admissions and the same limit, unless it begins at a lower rate.
// So it is enough to check one window for each rate.
func (p *Pace) lastMinute(at Time) (tightest Window) {
	p.minute = append(p.minute, at)
	for at-p.minute[0] >= 60_000 {
		p.minute = p.minute[1:]
	}
	oldest := p.count - int64(len(p.minute))
	for len(p.firsts) > 1 && p.firsts[1].number <= oldest {
		p.firsts = p.firsts[1:]
	}
	for i, first := range p.firsts {
		var highest int64
		for _, rate := range p.rates[max(0, first.rate):] {
			highest = max(highest, rate)
		}
		number := max(first.number, oldest)
		w := Window{From: p.minute[number-oldest], Count: p.count - number, Most: (highest*61 + 59) / 60}
		if i == 0 || w.Count-w.Most > tightest.Count-tightest.Most {
			tightest = w
		}
	}
	return tightest
}
