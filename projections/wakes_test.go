package projections

import (
	"encoding/json"
	"maps"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/lotline/lotline/domain"
)

// toldWakes are the wakes that the views have told of since it was called last, by stream.
func toldWakes(v *Views) map[string]domain.Wake {
	all := map[string]domain.Wake{}
	for _, w := range v.NewWakes() {
		all[w.Stream] = w
	}
	return all
}

// wakes are the streams that have a wake, the earliest first.
func wakes(v *Views) (all []string) {
	v.Wakes(func(w domain.Wake) bool {
		all = append(all, w.Stream)
		return true
	})
	return all
}

// taking are commands of those who take part in a queue, and of those who run it, that
// leave it open.
func taking(t *rapid.T) domain.Command {
	who := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "consumer")
	switch rapid.IntRange(0, 8).Draw(t, "command") {
	case 0:
		return domain.Leave{ConsumerID: who}
	case 1:
		return domain.Admit{ConsumerID: who}
	case 2:
		return domain.Admit{Count: 2}
	case 3:
		return domain.Complete{ConsumerID: who}
	case 4:
		return domain.Deny{ConsumerID: who, Reason: domain.DenyReasons()[0]}
	case 5:
		return fields("admissionRate", rapid.SampledFrom([]string{"null", "1", "60", "600"}).Draw(t, "rate"))
	case 6:
		return fields("sessionDurationSeconds", rapid.SampledFrom([]string{"null", "1", "100"}).Draw(t, "session"))
	}
	return domain.Enter{ConsumerID: who}
}

// After any event of any stream, whoever keeps time is told of the stream's wake with
// the event's revision, whether or not the views show the event by then.
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
					continue // more, so that it may be handled together
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
		world(t, l)
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
				l.try(queue.Stream(), taking(t))
			}
			if rapid.IntRange(0, 2).Draw(t, "check") > 0 {
				check()
			}
		}
		check()
	})
}

// Wakes are kept from when somebody keeps time: before that, when millions of events may
// be followed, nobody takes them.
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
		t.Error("told for nothing")
	default:
	}
	later := l.create(t, l.id("org"), domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:09Z"`})
	follow(v, l)
	select {
	case <-v.Woken():
	default:
		t.Error("nobody is told")
	}
	if got := toldWakes(v); len(got) != 1 || got[later.Stream()] != v.wake(later.Stream()) {
		t.Errorf("got %+v", got)
	}
	if got := v.NewWakes(); len(got) != 0 {
		t.Errorf("told again: %+v", got)
	}
}

// Damage may be reported by any part of the node while the log is followed.
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
