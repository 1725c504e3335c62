package projections

import (
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
)

// toldWakes returns the new wakes since its last call, by stream.
func toldWakes(v *Views) map[string]domain.Wake {
	all := map[string]domain.Wake{}
	for _, w := range v.NewWakes() {
		all[w.Stream] = w
	}
	return all
}

// wakes returns the streams that have a wake, the earliest first.
func wakes(v *Views) (all []string) {
	v.Wakes(func(w domain.Wake) bool {
		all = append(all, w.Stream)
		return true
	})
	return all
}

// drawQueueCommand draws a command of a consumer or an admin client that leaves the queue open.
func drawQueueCommand(t *rapid.T) domain.Command {
	consumer := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "consumer")
	switch rapid.IntRange(0, 8).Draw(t, "command") {
	case 0:
		return domain.Leave{ConsumerID: consumer}
	case 1:
		return domain.Admit{ConsumerID: consumer}
	case 2:
		return domain.Admit{Count: 2}
	case 3:
		return domain.Complete{ConsumerID: consumer}
	case 4:
		return domain.Deny{ConsumerID: consumer, Reason: domain.DenyReasons()[0]}
	case 5:
		return fields("admissionRate", rapid.SampledFrom([]string{"null", "1", "60", "600"}).Draw(t, "rate"))
	case 6:
		return fields("sessionDurationSeconds", rapid.SampledFrom([]string{"null", "1", "100"}).Draw(t, "session"))
	}
	return domain.Enter{ConsumerID: consumer}
}

// After every event of every stream, the views tell the stream's wake with the event's
// revision, whether or not the event is visible by then.
func TestNewWakes_tellOfEveryEvent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		l, v := newLog(), emptyViews()
		v.NewWakes()
		followed := 0
		truth := map[string]*domain.History{}
		check := func() {
			t.Helper()
			told := map[string]domain.Wake{}
			for _, r := range l.events[followed:] {
				v.Follow(r)
				if rapid.Bool().Draw(t, "at hand") {
					continue // the next event is at hand, and both may become visible together
				}
				v.Passed(r.Position)
				maps.Copy(told, toldWakes(v))
			}
			if n := len(l.events); n > 0 {
				v.Passed(l.events[n-1].Position)
			}
			maps.Copy(told, toldWakes(v))
			for _, r := range l.events[followed:] {
				if !projected(r.Stream) {
					continue
				}
				h, ok := truth[r.Stream]
				if !ok {
					h = domain.NewHistory(r.Stream)
					truth[r.Stream] = h
				}
				if h == nil {
					continue // in quarantine
				}
				want := domain.Wake{Stream: r.Stream, Revision: r.Revision}
				if err := h.Apply(r); err != nil {
					truth[r.Stream], want.At = nil, 0
				} else {
					want.At = h.Aggregate.Wake()
					want.Unfinished = want.At != 0 && want.At <= h.At(0)
				}
				if r.Revision != l.ends[r.Stream]-1 {
					continue // not the stream's last
				}
				if got := told[r.Stream]; got != want {
					t.Fatalf("after %s@%d, %s: told of %+v, want %+v", r.Stream, r.Revision, r.Type, got, want)
				}
			}
			followed = len(l.events)
		}
		drawLog(t, l)
		check()
		org := l.id("org")
		queue := l.id("queue")
		l.try(queue.Stream(), domain.Create{
			ID: queue, OrganizationID: org, Seed: "seed", Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"},
			Fields: domain.Fields{"sequenceId": json.RawMessage(`"s"`), "openAt": json.RawMessage(instant(l.now)), "admissionRate": json.RawMessage("60")},
		})
		draw := l.id("draw")
		l.try(draw.Stream(), domain.Create{
			ID: draw, OrganizationID: org, Seed: "seed", Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"},
			Fields: domain.Fields{
				"sequenceId": json.RawMessage(`"s"`), "openAt": json.RawMessage(instant(l.now)), "closeAt": json.RawMessage(instant(l.now + 1000)),
				"drawAt": json.RawMessage(instant(l.now + 2000)), "winnerCount": json.RawMessage("1"), "entropySource": json.RawMessage(`"dice"`),
			},
		})
		check()
		for range rapid.IntRange(0, 30).Draw(t, "commands") {
			l.now += domain.Instant(rapid.SampledFrom([]int{0, 1, 50, 1000, 2000}).Draw(t, "ms"))
			switch rapid.IntRange(0, 9).Draw(t, "stream") {
			case 0:
				l.try(draw.Stream(), domain.Advance{})
			case 1:
				l.try(draw.Stream(), domain.SupplyEntropy{Fields: domain.Fields{"value": json.RawMessage(`"7 12 40"`)}})
			case 2:
				l.try(domain.SigningStream, domain.MakeSigningKey{Secret: [32]byte{byte(len(l.events)), byte(len(l.events) >> 8), 1}})
			case 3:
				keys := l.history(domain.SigningStream).Aggregate.(*domain.SigningKeys).Keys
				if len(keys) > 0 {
					l.try(domain.SigningStream, domain.RevokeSigningKey{KeyID: keys[len(keys)-1].ID, Secret: [32]byte{byte(len(l.events)), byte(len(l.events) >> 8), 2}})
				}
			case 4:
				l.try(queue.Stream(), fields("closeAt", instant(l.now+domain.Instant(rapid.IntRange(0, 5000).Draw(t, "close")))))
			default:
				l.try(queue.Stream(), drawQueueCommand(t))
			}
			if rapid.IntRange(0, 2).Draw(t, "check") > 0 {
				check()
			}
		}
		check()
	})
}

// New wakes are kept only after the first call of NewWakes. Before that, millions of events
// may be followed while no scheduler takes the wakes.
func TestNewWakes_areKeptFromTheFirstCallOn(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	l.create(t, l.id("org"), domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:03Z"`})
	follow(v, l)
	if got := v.NewWakes(); len(got) != 0 {
		t.Errorf("got %+v", got)
	}
	select {
	case <-v.Woken():
		t.Error("signalled without a wake")
	default:
	}
	later := l.create(t, l.id("org"), domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:09Z"`})
	follow(v, l)
	select {
	case <-v.Woken():
	default:
		t.Error("not signalled")
	}
	if got := toldWakes(v); len(got) != 1 || got[later.Stream()] != v.wake(later.Stream()) {
		t.Errorf("got %+v", got)
	}
	if got := v.NewWakes(); len(got) != 0 {
		t.Errorf("told again: %+v", got)
	}
}

// An organization has a wake when an API key expires.
func TestWakes_organization(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	v, path := testViews(t, l)
	v.NewWakes()
	wakes := func(want domain.Instant) {
		t.Helper()
		follow(v, l)
		if w := toldWakes(v)[org.Stream()]; w != (domain.Wake{Stream: org.Stream(), Revision: l.ends[org.Stream()] - 1, At: want}) {
			t.Errorf("told of %+v, want %s", w, want)
		}
		save(t, v)
		restarted := openViews(t, path)
		defer restarted.Close()
		for _, v := range []*Views{v, restarted} {
			var next domain.Wake
			v.Wakes(func(w domain.Wake) bool { next = w; return w.Stream != org.Stream() })
			if got := v.wake(org.Stream()); got.At != want || next.At != want || next.At != 0 && next != got {
				t.Errorf("wakes at %+v, and among all at %+v, want %s", got, next, want)
			}
		}
	}
	l.apiKey(t, org, "key_1", "lasting", 0)
	wakes(0)
	end := l.now.Add(time.Minute)
	l.apiKey(t, org, "key_2", "ending", end)
	wakes(end)
	l.apiKey(t, org, "key_3", "sooner", end-1)
	wakes(end - 1)
	l.now = end
	l.must(t, org, domain.Advance{})
	wakes(0)
}

func TestWakes(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	org := l.id("org")
	late := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:03Z"`})
	soon := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:01Z"`})
	l.create(t, org, domain.KindQueue, nil)
	follow(v, l)
	wakes := func() (all []string) {
		v.Wakes(func(w domain.Wake) bool {
			if w != v.wake(w.Stream) { // the views may be used while Wakes runs
				t.Errorf("%+v, not %+v", w, v.wake(w.Stream))
			}
			all = append(all, w.Stream)
			return true
		})
		return all
	}
	if got := wakes(); !slices.Equal(got, []string{soon.Stream(), late.Stream()}) {
		t.Fatalf("got %v", got)
	}
	l.must(t, soon, fields("openAt", `"2100-01-01T00:00:09Z"`))
	follow(v, l)
	if got := wakes(); !slices.Equal(got, []string{late.Stream(), soon.Stream()}) {
		t.Fatalf("got %v", got)
	}
	if v.wake("queue-unknown").At != 0 {
		t.Fatal("an unknown stream is woken")
	}
	n := 0
	v.Wakes(func(domain.Wake) bool { n++; return false })
	if n != 1 {
		t.Fatalf("went on after false: %d", n)
	}
}

// A crash may leave only a part of an outcome in the log. The part becomes visible only when
// the log is known to end there, but its wake is told at once, so that the scheduler finishes
// the outcome.
func TestCaughtUp_anOutcomeCutByACrashIsDueAtOnce(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	v.NewWakes()
	org := l.id("org")
	id := l.create(t, org, domain.KindQueue, nil)
	l.must(t, id, domain.Step{To: domain.StatusOpen})
	l.must(t, id, domain.Step{To: domain.StatusClosed})
	if last := l.events[len(l.events)-1]; last.Type != "queue.domain.Completed" {
		t.Fatalf("the last event is %s", last.Type)
	}
	l.events = l.events[:len(l.events)-1]
	follow(v, l)
	want := domain.Wake{Stream: id.Stream(), Revision: domain.Revision(len(l.events) - 1), At: l.now, Unfinished: true}
	if got := toldWakes(v); got[id.Stream()] != want || v.wake(id.Stream()).At != 0 {
		t.Errorf("before the log is known to end, told of %+v, and visible is %+v", got, v.wake(id.Stream()))
	}
	v.CaughtUp()
	if got := toldWakes(v); got[id.Stream()] != want || v.wake(id.Stream()) != want {
		t.Errorf("told of %+v, and visible is %+v", got, v.wake(id.Stream()))
	}
}

// Damage may be reported from any goroutine while the log is followed and WakeBefore called.
func TestWakeBefore_whileDamageIsReported(t *testing.T) {
	t.Parallel()
	l, v := newLog(), emptyViews()
	var streams []string
	for range 200 {
		streams = append(streams, l.id("queue").Stream())
	}
	var reporting sync.WaitGroup
	reporting.Go(func() {
		for _, stream := range streams {
			v.Quarantine(damaged(stream, 0))
		}
	})
	for _, stream := range streams {
		v.WakeBefore(stream)
	}
	reporting.Wait()
	for _, stream := range streams {
		if w := v.WakeBefore(stream); w.At != 0 {
			t.Errorf("%s in quarantine has the wake %+v", stream, w)
		}
	}
}
