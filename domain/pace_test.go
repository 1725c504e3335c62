package domain_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// paced is a queue in which consumers wait, with the times of the admissions.
type paced struct {
	t       domaintest.TB
	h       *domain.History
	changed domain.Instant   // when the rate was changed last
	all     []domain.Instant // admissions since then
}

// newPaced is a queue that opened at 09:00 with a rate ("null" for none). That many
// consumers entered at 09:00 and wait.
func newPaced(t domaintest.TB, rate string, waiting int) *paced {
	p := &paced{t: t, h: domaintest.Fold(t, queue, queueOf(0, 0, 0))}
	p.change(at("09:00"), rate)
	for i := range waiting {
		p.carry(at("09:00"), domain.Enter{ConsumerID: fmt.Sprint(i)})
	}
	return p
}

func (p *paced) wake() domain.Instant {
	w := p.h.Aggregate.Wake()
	if w == p.h.Aggregate.(*domain.Queue).CloseAt {
		return 0
	}
	return w
}

func (p *paced) carry(now domain.Instant, cmd domain.Command) {
	p.t.Helper()
	due, err := domaintest.Advance(p.h, now)
	if err != nil {
		p.t.Fatalf("%v", err)
	}
	events, err := domaintest.Carry(p.h, now, cmd)
	if err != nil {
		p.t.Fatalf("%T: %v", cmd, err)
	}
	for _, e := range slices.Concat(due, events) {
		if _, ok := e.(domain.ConsumerAdmitted); ok {
			p.all = append(p.all, e.When())
		}
	}
}

func (p *paced) change(now domain.Instant, rate string) {
	p.t.Helper()
	p.carry(now, update(fmt.Sprintf(`{"admissionRate": %s}`, rate)))
	p.changed, p.all = now, nil
}

// promptly lets time pass with timers that are on time.
func (p *paced) promptly(until domain.Instant) {
	p.t.Helper()
	for w := p.wake(); w != 0 && w <= until; w = p.wake() {
		p.carry(w, domain.Advance{})
	}
}

// since returns the time from the last change of the rate to each later admission.
func (p *paced) since() (all []time.Duration) {
	for _, t := range p.all {
		all = append(all, t.Time().Sub(p.changed.Time()))
	}
	return all
}

// The rate changes while consumers wait. When timers are on time, the first admission
// comes at the time that follows from the new rate, and the others follow evenly. When
// a timer is late, the queue makes up for at most one second at the new rate, whatever
// the old rate was.
func TestQueue_aChangedRateWhileConsumersWait(t *testing.T) {
	t.Parallel()
	const s, ms = time.Second, time.Millisecond
	every := func(first, step time.Duration, n int) (all []time.Duration) {
		for i := range n {
			all = append(all, first+time.Duration(i)*step)
		}
		return all
	}
	for name, c := range map[string]struct {
		from   string
		change string
		to     []string
		prompt []time.Duration // of twelve
		late   int             // at once, when the timer comes 28 s after the change
	}{
		"none to 60":         {"null", "09:00:28", []string{"60"}, every(s, s, 12), 1},
		"1 to 600":           {"1", "09:00:28", []string{"600"}, every(54*ms, 100*ms, 12), 10}, // of one admission 28/60 are earned
		"60 to 600":          {"60", "09:00:00.500", []string{"600"}, every(50*ms, 100*ms, 12), 10},
		"600 to 1":           {"600", "09:00:00.040", []string{"1"}, every(36*s, 60*s, 12), 0},
		"600 to 60":          {"600", "09:00:00.040", []string{"60"}, every(600*ms, s, 12), 1},
		"600 to none to 600": {"600", "09:00:00.040", []string{"null", "600"}, every(100*ms, 100*ms, 12), 10},
		"6000 to 1 to 6000":  {"6000", "09:00", []string{"1", "6000"}, append(every(10*ms, 0, 1), 60*ms, 60*ms, 60*ms, 60*ms, 60*ms, 110*ms, 110*ms, 110*ms, 110*ms, 110*ms, 160*ms), 12},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := at(c.change)
			changedQueue := func() *paced {
				p := newPaced(t, c.from, 12)
				p.promptly(changed)
				for _, rate := range c.to {
					p.change(changed, rate)
				}
				return p
			}
			prompt := changedQueue()
			prompt.promptly(at("10:30"))
			if got := prompt.since(); !slices.Equal(got, c.prompt) {
				t.Errorf("admitted\n%v, want\n%v", got, c.prompt)
			}
			late := changedQueue()
			late.carry(changed.Add(28*s), domain.Advance{})
			if got := len(late.since()); got != c.late {
				t.Errorf("%d are admitted at once when the timer is late, want %d", got, c.late)
			}
		})
	}
}

// After a change of the rate, a minute has at most a sixtieth more admissions than the
// new rate, whatever the old rate was and even if timers are late. When timers are on
// time, the time between two admissions is no longer than the rate or the gap between
// wakes requires.
func TestQueue_aChangedRateIsSmooth(t *testing.T) {
	t.Parallel()
	rates := map[string]int64{"null": 0, "1": 1, "7": 7, "60": 60, "100": 100, "600": 600, "1000": 1000, "6000": 6000}
	names := []string{"null", "1", "7", "60", "100", "600", "1000", "6000"}
	rapid.Check(t, func(t *rapid.T) {
		p := newPaced(t, rapid.SampledFrom(names).Draw(t, "first"), 500)
		now := at("09:00")
		prompt := rapid.Bool().Draw(t, "timers on time")
		for range rapid.IntRange(1, 5).Draw(t, "changes") {
			name := rapid.SampledFrom(names).Draw(t, "rate")
			rate := rates[name]
			p.change(now, name)
			for range rapid.IntRange(0, 6).Draw(t, "steps") {
				now += domain.Instant(rapid.SampledFrom([]int{1, 49, 50, 99, 100, 999, 1000, 5000, 30_000}).Draw(t, "ms"))
				if prompt {
					p.promptly(now)
				} else {
					p.carry(now, domain.Advance{})
				}
			}
			got := p.since()
			for i, from := range got {
				n := 0
				for _, to := range got[i:] {
					if to-from < time.Minute {
						n++
					}
				}
				if int64(n) > (rate*61+59)/60 {
					t.Fatalf("%d are admitted in a minute at a rate of %d", n, rate)
				}
			}
			left := p.h.Aggregate.(*domain.Queue).Tally.Waiting
			if !prompt || rate == 0 || left == 0 {
				continue
			}
			longest := max(50*time.Millisecond, (time.Minute+time.Duration(rate)*time.Millisecond)/time.Duration(rate))
			last := time.Duration(0)
			for _, d := range append(got, now.Time().Sub(p.changed.Time())) {
				if d-last > longest {
					t.Fatalf("nobody is admitted from %s to %s after the change to %d a minute", last, d, rate)
				}
				last = d
			}
		}
	})
}
