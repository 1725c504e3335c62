package sink

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestSink_sendsWhatHappenedAndWhatHappensInOrder(t *testing.T) {
	inWorld(t, func(w *world) {
		w.happen(1000) // before the sink starts
		n := w.start()
		w.happen(10)
		w.once(w.arrives(time.Second))
		for range 30 {
			w.happen(7)
			sleep(300 * time.Millisecond)
		}
		w.once(w.arrives(2 * time.Second))
		if e := w.newest(); e.Position != w.last() || e.Holder == "" {
			t.Errorf("the lease is %+v, the last event at %v", e, w.last())
		}
		state := n.State()
		if state.Err != nil || !state.Sending || state.Messages != 1220 || state.UpTo != w.happened[1219].RecordedAt {
			t.Errorf("the state is %+v", state)
		}
		if w.kept != keptEvents {
			t.Errorf("%d leases are kept", w.kept)
		}
	})
}

func TestSink_sendsEveryMessageThatTheRelayMakes(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.start()
		n.Follow(&domain.Recorded{Stream: "organization-01h455vb4pex5vsknk084sn02q", Position: domain.Position{Commit: 1 << 40}})
		created := &domain.QueueCreated{Stamp: domain.Stamp{At: nine}}
		created.OpenAt = nine + 1000
		w.record(created, nil)
		all := w.arrives(time.Second)
		if len(all) != 2 || all[0].topic != "queue" || all[1].topic != "distribution.updated" || all[1].event.Type != "distribution.updated" {
			t.Errorf("got %+v", all)
		}
	})
}

func TestSink_writesNothingWhileThereIsNothingToSend(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.happen(1)
		w.arrives(3 * time.Second)
		before := w.writes()
		if before != 2 {
			t.Errorf("%d writes for one event", before)
		}
		w.start() // the log now ends with the lease, not with an event of a distribution
		sleep(time.Hour)
		w.start()
		sleep(time.Hour)
		if got := w.writes(); got != before {
			t.Errorf("%d writes for nothing", got-before)
		}
		// The node that sent before continues.
		w.happen(1)
		if all := w.arrives(time.Minute); all[1].node != 0 {
			t.Errorf("node %d took over", all[1].node)
		}
	})
}

func TestSink_oneNodeSends(t *testing.T) {
	inWorld(t, func(w *world) {
		// The nodes' clocks differ.
		w.start()
		w.start(func(n *node) { n.skew = 3 * time.Hour })
		w.start(func(n *node) { n.skew = -3 * time.Hour })
		for range 600 {
			w.happen(3)
			sleep(100 * time.Millisecond)
		}
		all := w.arrives(2 * time.Second)
		w.once(all)
		for _, m := range all {
			if m.node != all[0].node {
				t.Fatalf("nodes %d and %d sent", all[0].node, m.node)
			}
		}
		for _, n := range w.nodes {
			if n.number != all[0].node && n.looks > 70 {
				t.Errorf("node %d read the lease %d times in a minute while the other node sent", n.number, n.looks)
			}
		}
	})
}

func TestSink_anotherNodeGoesOnWhenOneIsKilled(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start(func(n *node) { n.skew = time.Hour })
		w.happen(1)
		w.arrives(500 * time.Millisecond)
		w.start()
		w.start(func(n *node) { n.skew = -time.Hour })
		for range 20 {
			w.happen(3)
			sleep(100 * time.Millisecond)
		}
		w.nodes[0].kill()
		died := time.Now()
		w.happen(500)
		all := w.arrives(takeOverAfter + 3*checkEvery)
		for _, m := range all {
			if d := m.at.Sub(died); m.node != 0 && d < takeOverAfter-checkEvery {
				t.Errorf("node %d began to send %s after the other node was killed", m.node, d)
			}
		}
		if first := all[len(all)-1].node; first == 0 {
			t.Error("the killed node sent")
		}
	})
}

func TestSink_anotherNodeGoesOnAtOnceWhenOneStops(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.happen(1)
		w.arrives(500 * time.Millisecond)
		w.start()
		w.happen(300)
		sleep(time.Millisecond)
		w.nodes[0].stop()
		if e := w.newest(); e.Holder != "" {
			t.Errorf("the lease is %+v", e)
		}
		w.happen(300)
		w.once(w.arrives(2 * checkEvery))
	})
}

// A node that is suspended for longer than its lease while it sends finishes only the
// message in flight.
func TestSink_aLeaseLostWhileSendingEndsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		var stands atomic.Bool
		first := w.start(func(n *node) {
			n.publish = func() (error, error) {
				if stands.CompareAndSwap(true, false) {
					sleep(time.Minute)
				}
				return nil, nil
			}
		})
		w.happen(10)
		w.arrives(3 * time.Second)
		w.start()
		stands.Store(true)
		w.happen(1000)
		sleep(30 * time.Second)
		if _, complete := w.arrived(); !complete {
			t.Error("no node took over")
		}
		w.happen(10)
		all := w.arrives(time.Minute)
		others, late := false, 0
		for _, m := range all {
			others = others || m.node == 1
			if others && m.node == 0 {
				late++
			}
		}
		if late != 1 {
			t.Errorf("it sent %d messages after it lost the lease", late)
		}
		if first.State().Sending {
			t.Error("the state says that it still holds the lease")
		}
	})
}

func TestSink_nothingIsMissingAfterTheBusWasAway(t *testing.T) {
	inWorld(t, func(w *world) {
		for range 2 {
			w.start()
		}
		w.happen(10)
		w.arrives(3 * time.Second)
		for _, n := range w.nodes {
			n.set(func() { n.cut = true })
		}
		before := w.writes()
		began := time.Now()
		w.happen(3 * windowEvents)
		if took := time.Since(began); took != 0 {
			t.Errorf("appends waited %s for the bus", took)
		}
		sleep(time.Hour)
		synctest.Wait()
		for _, n := range w.nodes {
			if err := n.State().Err; err == nil {
				t.Error("the state has no error")
			}
			if got := len(n.window.events); got > windowEvents {
				t.Errorf("%d events are held in memory", got)
			}
		}
		if got := w.writes() - before; got > 2 {
			t.Errorf("%d writes while the bus was away", got)
		}
		for _, n := range w.nodes {
			n.set(func() { n.cut = false })
		}
		w.happen(10)
		w.arrives(longestPause + 2*checkEvery + takeOverAfter)
		for _, n := range w.nodes {
			if err := n.State().Err; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestSink_aNodeThatReachesTheBusTakesOverFromOneThatDoesNot(t *testing.T) {
	inWorld(t, func(w *world) {
		w.start()
		w.happen(10)
		w.arrives(3 * time.Second)
		sleep(checkEvery / 2) // otherwise it reads the lease just when it is given back
		w.start()
		// The node notices only by a failed write.
		w.nodes[0].set(func() {
			w.nodes[0].publish = func() (error, error) {
				sleep(PublishTimeout)
				return errCut, nil
			}
		})
		w.happen(10)
		w.once(w.arrives(PublishTimeout + writeEvery + 2*checkEvery))
	})
}

// Calls fail in every possible place, before or after they took effect. No message may be
// missing.
func TestSink_faultsCostRepeatsOnly(t *testing.T) {
	type fault func() (before, behind error)
	every := func(k int, before, behind error) fault {
		n := 0
		return func() (error, error) {
			if n++; n%k == 0 {
				return before, behind
			}
			return nil, nil
		}
	}
	for name, c := range map[string]struct{ publish, append fault }{
		"a message is not taken":               {publish: every(7, errCut, nil)},
		"a message's acknowledgement is lost":  {publish: every(7, nil, errCut)},
		"a write is not done":                  {append: every(2, domain.ErrUnavailable, nil)},
		"it is not known whether one was done": {append: every(2, nil, domain.ErrOutcomeUnknown)},
		"nor was it":                           {append: every(2, domain.ErrOutcomeUnknown, nil)},
		"much at once":                         {every(5, nil, errCut), every(3, nil, domain.ErrOutcomeUnknown)},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				w.start(func(n *node) { n.publish, n.append = c.publish, c.append })
				for range 10 {
					w.happen(2)
					sleep(time.Second)
				}
				w.arrives(2 * time.Minute)
			})
		})
	}
}

func TestSink_aStoreTooSlowForTheLeaseIsNotReliedOn(t *testing.T) {
	inWorld(t, func(w *world) {
		var slow atomic.Int64
		w.start(func(n *node) {
			n.append = func() (error, error) {
				sleep(time.Duration(slow.Load()))
				return nil, nil
			}
		})
		slow.Store(int64(leaseLasts))
		w.happen(10)
		sleep(time.Minute)
		if all, _ := w.arrived(); len(all) > 0 {
			t.Errorf("%d messages were sent with expired leases", len(all))
		}
		slow.Store(int64(leaseLasts - time.Millisecond))
		w.arrives(time.Minute)
	})
}

func TestSink_aMessageTooLargeIsSentWithoutData(t *testing.T) {
	inWorld(t, func(w *world) {
		calls := 0
		n := w.start(func(n *node) {
			n.publish = func() (error, error) {
				if calls++; calls == 2 {
					return fmt.Errorf("%w: it is", ErrTooLarge), nil
				}
				return nil, nil
			}
		})
		w.happen(3)
		all := w.arrives(3 * time.Second)
		if len(all) != 3 || all[0].event.Data == nil || all[1].event.Data != nil || all[2].event.Data == nil {
			t.Errorf("got %+v", all)
		}
		n.stop()
		if logged := n.logged.String(); strings.Count(logged, "an event is sent without its data") != 1 {
			t.Errorf("logged %s", logged)
		}
	})
}

// A message that is too large even without its data is retried, and the state says so.
func TestSink_aMessageThatIsNeverTakenIsNotSilent(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.start(func(n *node) { n.publish = func() (error, error) { return ErrTooLarge, nil } })
		w.happen(3)
		sleep(time.Minute)
		synctest.Wait()
		if err := n.State().Err; err == nil || !strings.Contains(err.Error(), w.happened[0].Stream) {
			t.Errorf("the state says %v", err)
		}
		n.set(func() { n.publish = nil })
		w.arrives(2 * longestPause)
		n.stop()
		if logged := n.logged.String(); strings.Count(logged, "the sink does not send") < 5 {
			t.Errorf("logged %s", logged)
		}
	})
}

func TestSink_anEventThatCannotBeReadIsPassedOver(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.start()
		w.happen(1)
		w.record(nil, []byte(`nonsense`))
		w.happen(1)
		sleep(3 * time.Second)
		synctest.Wait()
		if len(w.taken) != 2 || w.newest().Position != w.last() {
			t.Errorf("got %+v, the lease is %+v", w.taken, w.newest())
		}
		n.stop()
		if logged := n.logged.String(); strings.Count(logged, "an event was not sent") != 1 {
			t.Errorf("logged %s", logged)
		}
	})
}

// Events that the read models have quarantined are not sent, neither at once nor from the
// log after a restart.
func TestSink_anEventInQuarantineIsPassedOver(t *testing.T) {
	inWorld(t, func(w *world) {
		threeOfWhichOneIsDoubted := func() {
			w.happen(1)
			w.mu.Lock()
			w.doubted[domain.Position{Commit: w.position + 1, Prepare: w.position + 1}] = true
			w.mu.Unlock()
			w.happen(2)
		}
		n := w.start()
		threeOfWhichOneIsDoubted()
		sleep(3 * time.Second)
		n.stop()
		threeOfWhichOneIsDoubted()
		sleep(3 * time.Second)
		again := w.start()
		sleep(10 * time.Second)
		again.stop()
		for _, n := range []*node{n, again} {
			if logged := n.logged.String(); strings.Count(logged, "an event was not sent") != 1 {
				t.Errorf("logged %s", logged)
			}
		}
		if len(w.taken) != 4 || w.newest().Position != w.last() {
			t.Errorf("got %+v, the lease is %+v", w.taken, w.newest())
		}
	})
}

// A stream that somebody else wrote into cannot tell which node sends and up to where
// everything is sent.
func TestSink_aDamagedLeaseEndsSendingAndIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.start()
		w.happen(1)
		w.arrives(3 * time.Second)
		n.set(func() { n.spoilt = true })
		w.happen(1)
		sleep(time.Minute)
		if err := n.State().Err; err == nil || !strings.Contains(err.Error(), "sink-bus@99 is not a lease") {
			t.Errorf("the state says %v", err)
		}
		if len(w.taken) != 1 {
			t.Errorf("got %+v", w.taken)
		}
	})
}

// The sink reads from a server that lags behind the server that delivered the live events.
// It says that the log ends before an event that this node has seen.
func TestSink_aServerThatLagsBehindHidesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.start(func(n *node) { n.cut = true })
		w.happen(2 * windowEvents)
		n.set(func() { n.cut, n.lagging = false, true })
		w.record(domain.Opened{}, make([]byte, windowBytes+1)) // larger than the window
		sleep(time.Minute)
		if _, complete := w.arrived(); complete {
			t.Error("the sink has sent everything already")
		}
		if e := w.newest(); !e.Position.Before(w.last()) {
			t.Errorf("the lease is %+v", e)
		}
		n.set(func() { n.lagging = false })
		w.mu.Lock()
		w.happened[len(w.happened)-1].Data = []byte(`{}`)
		w.mu.Unlock()
		w.arrives(longestPause + 2*time.Second)
	})
}

func TestSink_aLeaseThatCannotBeReadStopsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.leases = append(w.leases, &domain.Recorded{Type: "sink.leased"})
		n := w.start()
		w.happen(1)
		sleep(time.Minute)
		synctest.Wait()
		if err := n.State().Err; err == nil || !strings.Contains(err.Error(), "sink-bus@0") || len(w.taken) > 0 {
			t.Errorf("the state says %v, %d messages were sent", err, len(w.taken))
		}
		w.leases = nil
	})
}

// A sink that catches up pauses between chunks. One that has caught up does not.
func TestSink_pausesWhileItCatchesUp(t *testing.T) {
	inWorld(t, func(w *world) {
		slow := func() (error, error) {
			sleep(time.Millisecond)
			return nil, nil
		}
		w.happen(10 * chunk)
		n := w.start(func(n *node) { n.publish = slow })
		w.happen(1)
		sleep(time.Minute)
		synctest.Wait()
		spent := func(all []taken) time.Duration { return all[len(all)-1].at.Sub(all[0].at) }
		all, _ := w.arrived()
		if d, work := spent(all), time.Duration(len(all))*time.Millisecond; d < work*14/10 {
			t.Errorf("it was at work for %s of %s", work, d)
		}
		before := n.State().Messages
		w.happen(10 * chunk)
		sleep(time.Minute)
		synctest.Wait()
		all, _ = w.arrived()
		live := all[before:]
		if d, work := spent(live), time.Duration(len(live))*time.Millisecond; d > work*11/10 {
			t.Errorf("it took %s for work of %s", d, work)
		}
	})
}
