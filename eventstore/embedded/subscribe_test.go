package embedded

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
)

func subscribeToAll(t testing.TB, client *esdb.Client, options esdb.SubscribeToAllOptions) *esdb.Subscription {
	t.Helper()
	subscription, err := client.SubscribeToAll(within(t), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { subscription.Close() })
	return subscription
}

func TestSubscribeToAll_everyEventOnceInOrder(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	const writers, appends = 8, 100
	total := make(chan uint64, 1)
	written := make(chan struct{}, writers*appends)
	follow := func(subscription *esdb.Subscription, from uint64) <-chan error {
		done := make(chan error, 1)
		go func() {
			want, last := from, uint64(0)
			for {
				said := subscription.Recv()
				switch {
				case said.SubscriptionDropped != nil:
					done <- said.SubscriptionDropped.Error
					return
				case said.EventAppeared != nil:
					if got := said.EventAppeared.OriginalEvent().Position.Commit; got != want {
						done <- fmt.Errorf("got position %d, want %d", got, want)
						return
					}
					want++
				}
				if last == 0 {
					select {
					case last = <-total:
						total <- last
					default:
					}
				}
				if want == last+1 {
					done <- nil
					return
				}
			}
		}()
		return done
	}
	fromStart := follow(subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}}), 1)

	var wait sync.WaitGroup
	for writer := range writers {
		wait.Go(func() {
			for i := range appends {
				events := newEvents(1 + rand.IntN(3))
				_, err := client.AppendToStream(within(t), fmt.Sprintf("s-%d-%d", writer, i%7), esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, events...)
				if err != nil {
					t.Error(err)
				}
				written <- struct{}{}
			}
		})
	}
	for range writers * appends / 3 {
		<-written
	}
	// While appends go on: from the start, and from the present end of the log.
	midway := follow(subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}}), 1)
	resumed := follow(subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Position{Commit: 100, Prepare: 100}}), 101)
	wait.Wait()
	last, err := server.store.lastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	total <- uint64(last) + 1
	// The last event is appended after total is known, so that every follower sees it.
	mustAppend(t, client, "last", esdb.Any{}, newEvent("last", "{}"))
	for name, done := range map[string]<-chan error{"from the start": fromStart, "midway": midway, "resumed": resumed} {
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case <-within(t).Done():
			t.Errorf("%s: has not got all %d events", name, last+1)
		}
	}
	got := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 1<<63)
	next := make(map[string]uint64)
	for i, event := range got {
		if event.Position.Commit != uint64(i+1) || event.EventNumber != next[event.StreamID] {
			t.Fatalf("event %d: position %d, revision %d of %s", i, event.Position.Commit, event.EventNumber, event.StreamID)
		}
		next[event.StreamID]++
	}
}

func TestSubscribeToStream_historyThenLiveEvents(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	subscribe := func(from esdb.StreamPosition) *esdb.Subscription {
		t.Helper()
		subscription, err := client.SubscribeToStream(within(t), "s", esdb.SubscribeToStreamOptions{From: from})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { subscription.Close() })
		return subscription
	}
	early := subscribe(esdb.Start{}) // before the stream exists
	if said := early.Recv(); said.CaughtUp == nil {
		t.Fatalf("an empty stream begins with %+v", said)
	}
	mustAppend(t, client, "other", esdb.NoStream{}, newEvents(5)...)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(5)...)
	after, end := subscribe(esdb.Revision(2)), subscribe(esdb.End{})
	if said := end.Recv(); said.CaughtUp == nil {
		t.Fatalf("from the end begins with %+v", said)
	}
	mustAppend(t, client, "s", esdb.Revision(4), newEvents(2)...)
	for claim, test := range map[string]struct {
		subscription *esdb.Subscription
		first        uint64
	}{"from the start": {early, 0}, "after a revision": {after, 3}, "from the end": {end, 5}} {
		for want := test.first; want < 7; want++ {
			if event := nextEvent(t, test.subscription); event.EventNumber != want || event.StreamID != "s" {
				t.Errorf("%s: got %s at %d, want %d", claim, event.StreamID, event.EventNumber, want)
			}
		}
	}
	if _, err := client.TombstoneStream(within(t), "s", esdb.TombstoneStreamOptions{}); err != nil {
		t.Fatal(err)
	}
	if said := early.Recv(); said.SubscriptionDropped == nil {
		t.Errorf("after the tombstone: %+v", said)
	}
}

func TestSubscribeToAll_filters(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	// 100 considered events: streams apple-0, berry-1, cherry-2, apple-3…
	names, kinds := []string{"apple", "berry", "cherry"}, []string{"made", "moved"}
	for i := range 100 {
		mustAppend(t, client, fmt.Sprintf("%s-%d", names[i%3], i), esdb.NoStream{}, newEvent(kinds[i%2], "{}"))
	}
	for _, test := range []struct {
		claim  string
		filter esdb.SubscriptionFilter
		wanted func(i int) bool
	}{
		{"stream prefixes", esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{"apple-", "ch"}}, func(i int) bool { return i%3 != 1 }},
		{"type prefix", esdb.SubscriptionFilter{Type: esdb.EventFilterType, Prefixes: []string{"mov"}}, func(i int) bool { return i%2 == 1 }},
		{"stream pattern", esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Regex: `-\d$`}, func(i int) bool { return i < 10 }},
		{"type pattern", esdb.SubscriptionFilter{Type: esdb.EventFilterType, Regex: "^m.d"}, func(i int) bool { return i%2 == 0 }},
		{"nothing matches", esdb.SubscriptionFilter{Type: esdb.EventFilterType, Prefixes: []string{"zzz"}}, func(int) bool { return false }},
		{"system events are left out", *esdb.ExcludeSystemEventsFilter(), func(int) bool { return true }},
	} {
		t.Run(test.claim, func(t *testing.T) {
			t.Parallel()
			subscription := subscribeToAll(t, client, esdb.SubscribeToAllOptions{
				From: esdb.Start{}, Filter: &test.filter, MaxSearchWindow: 5, CheckpointInterval: 3,
			})
			var got, want, checkpoints []uint64
			for i := range 100 {
				if test.wanted(i) {
					want = append(want, uint64(i+1))
				}
			}
			for caughtUp := false; !caughtUp; {
				switch said := subscription.Recv(); {
				case said.EventAppeared != nil:
					got = append(got, said.EventAppeared.OriginalEvent().Position.Commit)
				case said.CheckPointReached != nil:
					checkpoint := said.CheckPointReached.Commit
					if len(got) > 0 && checkpoint < got[len(got)-1] {
						t.Errorf("checkpoint %d after event %d", checkpoint, got[len(got)-1])
					}
					if skipped := slices.ContainsFunc(want[len(got):], func(p uint64) bool { return p <= checkpoint }); skipped {
						t.Errorf("checkpoint %d is ahead of events that were not sent", checkpoint)
					}
					checkpoints = append(checkpoints, checkpoint)
				case said.CaughtUp != nil:
					caughtUp = true
				default:
					t.Fatalf("got %+v", said)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if !slices.Equal(checkpoints, []uint64{15, 30, 45, 60, 75, 90, 100}) {
				t.Errorf("checkpoints %v", checkpoints)
			}
		})
	}
}

func TestSubscribeToAll_checkpointsGoOnWhileLive(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	subscription := subscribeToAll(t, client, esdb.SubscribeToAllOptions{
		From: esdb.Start{}, MaxSearchWindow: 10, CheckpointInterval: 1,
		Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Prefixes: []string{"wanted"}},
	})
	for subscription.Recv().CaughtUp == nil {
	}
	mustAppend(t, client, "unwanted", esdb.NoStream{}, newEvents(14)...)
	if said := subscription.Recv(); said.CheckPointReached == nil || said.CheckPointReached.Commit != 10 {
		t.Errorf("got %+v, want a checkpoint at 10", said)
	}
	mustAppend(t, client, "wanted", esdb.NoStream{}, newEvent("x", "{}"))
	if event := nextEvent(t, subscription); event.Position.Commit != 15 {
		t.Errorf("got position %d, want 15", event.Position.Commit)
	}
}

// A subscriber that does not receive must not slow other clients down, and must get every
// event once it receives again.
func TestSubscribeToAll_slowSubscriber(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	slow := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	quick := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	// Much more than all buffers between server and client hold.
	const events, size = 24, 512 << 10
	for i := range events {
		mustAppend(t, client, "s", esdb.Any{}, newEvent("large", strings.Repeat("x", size)))
		if event := nextEvent(t, quick); event.EventNumber != uint64(i) {
			t.Fatalf("the quick one got %d, want %d", event.EventNumber, i)
		}
	}
	for i := range events {
		if event := nextEvent(t, slow); event.EventNumber != uint64(i) || len(event.Data) != size {
			t.Fatalf("the slow one got %d with %d bytes, want %d", event.EventNumber, len(event.Data), i)
		}
	}
}

// Clients ping every ten seconds, even without calls. A gRPC server with default settings
// disconnects them at the third ping. This test sends the few HTTP/2 frames that show it,
// without waiting for half a minute.
func TestServer_acceptsPingsWhileIdle(t *testing.T) {
	t.Parallel()
	connection, err := net.Dial("unix", start(t).socket)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	const (
		settingsFrame, pingFrame, goAwayFrame = 4, 6, 7
		acknowledged                          = 1
		pings                                 = 5
	)
	frame := func(kind, flags byte, payload ...byte) {
		t.Helper()
		if _, err := connection.Write(append([]byte{0, 0, byte(len(payload)), kind, flags, 0, 0, 0, 0}, payload...)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(connection, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	frame(settingsFrame, 0)
	frame(settingsFrame, acknowledged)
	responses := make(chan byte)
	go func() {
		defer close(responses)
		header := make([]byte, 9)
		for {
			if _, err := io.ReadFull(connection, header); err != nil {
				return
			}
			length := int64(header[0])<<16 | int64(header[1])<<8 | int64(header[2])
			if _, err := io.CopyN(io.Discard, connection, length); err != nil {
				return
			}
			if kind, flags := header[3], header[4]; kind == pingFrame && flags == acknowledged || kind == goAwayFrame {
				responses <- kind
			}
		}
	}()
	// A little longer than the shortest allowed interval.
	ticker := time.NewTicker(1100 * time.Millisecond)
	defer ticker.Stop()
	for i := range pings {
		<-ticker.C
		frame(pingFrame, 0, 0, 0, 0, 0, 0, 0, 0, byte(i))
		if kind := <-responses; kind != pingFrame {
			t.Fatalf("ping %d got frame %d", i, kind)
		}
	}
	if err := connection.Close(); err != nil {
		t.Error(err)
	}
	for range responses {
	}
}

func TestClose_endsSubscriptions(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	subscription := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	for subscription.Recv().CaughtUp == nil {
	}
	begun := time.Now()
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took >= closeGrace {
		t.Errorf("closing took %v", took)
	}
	if said := subscription.Recv(); said.SubscriptionDropped == nil {
		t.Errorf("got %+v", said)
	}
}

// A client that does not receive cannot even be told the end of its call.
func TestClose_dropsASubscriberThatDoesNotReceive(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	for range 20 {
		mustAppend(t, client, "s", esdb.Any{}, newEvent("large", strings.Repeat("x", 512<<10)))
	}
	closed := make(chan error, 1)
	go func() { closed <- server.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(closeGrace + 6*time.Second):
		t.Fatal("closing hangs")
	}
}
