package embedded

import (
	"cmp"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
)

// testGroup is a group in a synctest bubble, where a test decides how time passes.
type testGroup struct {
	*testing.T
	*group
}

func inBubble(t *testing.T, settings groupSettings, test func(testGroup)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		settings.Stream, settings.Group = "s", "g"
		settings.ConsumerStrategy = cmp.Or(settings.ConsumerStrategy, strategyRoundRobin)
		settings.MaxCheckpointCount = max(settings.MaxCheckpointCount, 1)
		settings.ReadBatchSize = max(settings.ReadBatchSize, 10)
		settings.HistoryBufferSize = max(settings.HistoryBufferSize, settings.ReadBatchSize)
		g := testGroup{t, startGroup(bubbleStore(t), settings, zerolog.Nop())}
		defer g.stop(closingStatus())
		test(g)
	})
}

// bubbleStore returns a store with all connections open. Opening one during a commit
// would wait by SQLite's clock, which does not end in a bubble.
func bubbleStore(t *testing.T) *store {
	t.Helper()
	s := newStore(t)
	for range readConnections {
		if _, err := s.lastPosition(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (g testGroup) append(stream string, count int) {
	g.Helper()
	if _, err := g.store.append(g.Context(), stream, expectAny, proposals(count, 10)); err != nil {
		g.Fatal(err)
	}
}

func (g testGroup) join(slots int) *consumer {
	g.Helper()
	c := newConsumer("", slots)
	if err := g.group.join(g.Context(), c); err != nil {
		g.Fatal(err)
	}
	return c
}

// given receives what a consumer was sent so far, each as "revision" or
// "revision+retries".
func (g testGroup) given(c *consumer) (places []string, ids []uuid.UUID) {
	synctest.Wait()
	for len(c.out) > 0 {
		d := <-c.out
		event, _ := d.pair()
		place := fmt.Sprint(event.revision)
		if d.retries > 0 {
			place += fmt.Sprintf("+%d", d.retries)
		}
		places, ids = append(places, place), append(ids, d.id)
	}
	return places, ids
}

func (g testGroup) wantGiven(c *consumer, want ...string) []uuid.UUID {
	g.Helper()
	got, ids := g.given(c)
	if !slices.Equal(got, want) {
		g.Fatalf("the consumer was given %v, want %v", got, want)
	}
	return ids
}

func (g testGroup) acks(c *consumer, ids ...uuid.UUID) {
	g.Helper()
	if err := g.do(g.Context(), func() { g.ack(c, ids) }); err != nil {
		g.Fatal(err)
	}
}

// wantCheckpoint checks the checkpoint on disk.
func (g testGroup) wantCheckpoint(want string) {
	g.Helper()
	synctest.Wait()
	e, err := g.store.newest(g.Context(), g.settings.checkpointStream())
	if err != nil || e == nil {
		g.Fatalf("there is no checkpoint: %v", err)
	}
	if string(e.data) != want {
		g.Errorf("the checkpoint says %s, want %s", e.data, want)
	}
}

func (g testGroup) sleep(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // synctest
	synctest.Wait()
}

func TestGroup_timeoutRedeliversAndThenParks(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{MessageTimeout: 30_000, MaxRetryCount: 2}, func(g testGroup) {
		g.append("s", 3)
		c := g.join(2)
		first := g.wantGiven(c, "0", "1")
		g.sleep(10 * time.Second)
		g.acks(c, first[0])
		g.wantGiven(c, "2")
		g.sleep(20*time.Second - 1)
		g.wantGiven(c)
		g.sleep(1)
		g.wantGiven(c, "1+1")
		// A late acknowledgement is ignored, because another consumer may have the
		// message by now.
		g.sleep(10 * time.Second)
		third := g.wantGiven(c, "2+1")
		g.acks(c, third...)
		g.wantGiven(c)
		g.sleep(20 * time.Second)
		g.wantGiven(c, "1+2")
		g.sleep(30 * time.Second)
		g.wantGiven(c)
		parked, err := g.store.newest(g.Context(), g.settings.parkedStream())
		if err != nil || parked == nil || string(parked.data) != "1@s" {
			t.Errorf("parked is %+v, %v", parked, err)
		}
		g.wantCheckpoint(`"2"`)
	})
}

func TestGroup_withoutTimeoutNothingComesBack(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{}, func(g testGroup) {
		g.append("s", 1)
		c := g.join(1)
		ids := g.wantGiven(c, "0")
		g.sleep(1000 * time.Hour)
		g.wantGiven(c)
		g.acks(c, ids...)
		g.wantCheckpoint(`"0"`)
	})
}

func TestGroup_checkpointsByCountAndTime(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{MinCheckpointCount: 2, MaxCheckpointCount: 4, CheckpointAfter: 5000}, func(g testGroup) {
		g.append("s", 10)
		c := g.join(10)
		ids := g.wantGiven(c, "0", "1", "2", "3", "4", "5", "6", "7", "8", "9")
		g.acks(c, ids[0])
		g.sleep(time.Hour)
		g.wantCheckpoint(`"-1"`) // fewer than the minimum
		g.acks(c, ids[1])
		g.wantCheckpoint(`"1"`) // the minimum is reached, and enough time has passed
		g.acks(c, ids[2], ids[3])
		g.sleep(5*time.Second - 1)
		g.wantCheckpoint(`"1"`)
		g.sleep(1)
		g.wantCheckpoint(`"3"`)
		// The maximum is written at once, but never passes an in-flight message.
		g.acks(c, ids[4], ids[6], ids[7], ids[8])
		g.wantCheckpoint(`"4"`)
	})
}

func TestGroup_readsAheadNoMoreThanItsBuffer(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{ReadBatchSize: 10, HistoryBufferSize: 25}, func(g testGroup) {
		g.append("s", 100)
		open := func() (count int) {
			if err := g.do(g.Context(), func() { count = g.source.unfinished.Len() }); err != nil {
				t.Fatal(err)
			}
			return count
		}
		synctest.Wait()
		if got := open(); got != 0 {
			t.Errorf("%d events were read without a consumer", got)
		}
		c := g.join(3)
		g.wantGiven(c, "0", "1", "2")
		if got := open(); got > 25+3 {
			t.Errorf("%d events were read for a consumer of 3 with a buffer of 25", got)
		}
	})
	// Large events count by size.
	inBubble(t, groupSettings{ReadBatchSize: 10, HistoryBufferSize: 1000}, func(g testGroup) {
		for range 6 {
			if _, err := g.store.append(g.Context(), "s", expectAny, proposals(1, pageBytes/2)); err != nil {
				t.Fatal(err)
			}
		}
		g.join(1)
		synctest.Wait()
		var bytes int
		if err := g.do(g.Context(), func() { bytes = g.source.bytes }); err != nil {
			t.Fatal(err)
		}
		if bytes == 0 || bytes > 2*pageBytes {
			t.Errorf("%d bytes wait for a consumer of 1", bytes)
		}
	})
}

// A consumer that does not receive holds no more memory with large events than with small
// ones, even if its messages time out and others follow.
func TestGroup_aConsumerThatDoesNotReceiveHoldsLittle(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{MessageTimeout: 1000}, func(g testGroup) {
		const size = flightBytes / 4
		for range 12 {
			if _, err := g.store.append(g.Context(), "s", expectAny, proposals(1, size)); err != nil {
				t.Fatal(err)
			}
		}
		c := g.join(slotsLimit)
		g.sleep(100 * time.Second)
		g.wantGiven(c, "0", "1", "2", "3")
		// A consumer that receives gets the others, four at a time.
		for next := 4; next < 12; next += 4 {
			g.append("another", 1)
			if err := g.do(g.Context(), func() {}); err != nil {
				t.Fatal(err)
			}
			g.acks(c, g.wantGiven(c, fmt.Sprint(next), fmt.Sprint(next+1), fmt.Sprint(next+2), fmt.Sprint(next+3))...)
		}
		var held int
		if err := g.do(g.Context(), func() { held = c.bytes + c.lateBytes }); err != nil || held != 0 {
			t.Errorf("%d bytes are in flight, %v", held, err)
		}
	})
	// An event larger than the limit is sent nevertheless, and events without data count
	// as well.
	inBubble(t, groupSettings{}, func(g testGroup) {
		if _, err := g.store.append(g.Context(), "s", expectAny, proposals(1, flightBytes)); err != nil {
			t.Fatal(err)
		}
		g.append("s", 1)
		c := g.join(2)
		g.acks(c, g.wantGiven(c, "0")...)
		g.acks(c, g.wantGiven(c, "1")...)
		if (&message{delivery: delivery{resolved: &resolved{}}}).size() == 0 {
			t.Error("an event without data is nothing")
		}
	})
}

func TestGroup_strategies(t *testing.T) {
	t.Parallel()
	t.Run("one after another", func(t *testing.T) {
		t.Parallel()
		inBubble(t, groupSettings{ConsumerStrategy: strategyRoundRobin}, func(g testGroup) {
			a, b := g.join(2), g.join(10)
			g.append("s", 6)
			g.wantGiven(a, "0", "2")
			g.wantGiven(b, "1", "3", "4", "5") // a has no room
		})
	})
	t.Run("the first as long as it has room", func(t *testing.T) {
		t.Parallel()
		inBubble(t, groupSettings{ConsumerStrategy: strategyDispatchToSingle}, func(g testGroup) {
			a, b := g.join(2), g.join(10)
			g.append("s", 3)
			ids := g.wantGiven(a, "0", "1")
			g.wantGiven(b, "2")
			g.acks(a, ids...)
			g.append("s", 1)
			g.wantGiven(a, "3")
			g.leave(a)
			g.wantGiven(b, "3")
		})
	})
	t.Run("each stream to one", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			g := testGroup{t, startGroup(bubbleStore(t), groupSettings{
				Stream: allStream, Group: "g", ConsumerStrategy: strategyPinned, MaxCheckpointCount: 1, ReadBatchSize: 20, HistoryBufferSize: 200,
			}, zerolog.Nop())}
			defer g.stop(closingStatus())
			consumers := []*consumer{g.join(100), g.join(100), g.join(100)}
			for range 3 {
				for stream := range 20 {
					g.append(fmt.Sprintf("s-%d", stream), 1)
				}
			}
			synctest.Wait()
			owner := make(map[string]int)
			busy := 0
			for i, c := range consumers {
				if len(c.out) > 0 {
					busy++
				}
				for len(c.out) > 0 {
					stream := (<-c.out).stream
					if before, known := owner[stream]; known && before != i {
						t.Errorf("%s went to consumers %d and %d", stream, before, i)
					}
					owner[stream] = i
				}
			}
			if len(owner) != 20 || busy < 2 {
				t.Errorf("%d streams went to %d consumers", len(owner), busy)
			}
		})
	})
}

// Two events with the same id are two messages.
func TestGroup_sameIDTwice(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{}, func(g testGroup) {
		twice := proposals(2, 1)
		twice[1].id = twice[0].id
		if _, err := g.store.append(g.Context(), "s", expectNoStream, twice); err != nil {
			t.Fatal(err)
		}
		c := g.join(2)
		ids := g.wantGiven(c, "0", "1")
		g.acks(c, ids[0])
		g.wantCheckpoint(`"0"`)
		g.acks(c, ids[0])
		g.wantCheckpoint(`"1"`)
	})
}

// Messages that cannot be parked because the disk is full are not lost.
func TestGroup_cannotPark(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{}, func(g testGroup) {
		g.append("s", 1)
		c := g.join(1)
		ids := g.wantGiven(c, "0")
		g.store.limitPages(t, 1)
		park := func(reason string) {
			t.Helper()
			if err := g.do(g.Context(), func() { g.nack(c, ids, persistentpb.ReadReq_Nack_Park, reason) }); err != nil {
				t.Fatal(err)
			}
		}
		park(string(make([]byte, 1<<16)))
		g.wantGiven(c, "0")
		g.wantCheckpoint(`"-1"`)
		g.store.limitPages(t, 1<<20)
		park("there is room")
		g.wantGiven(c)
		g.wantCheckpoint(`"0"`)
	})
}

// A consumer that was dropped and keeps refusing messages before it knows must not block
// its group.
func TestGroup_severalRefusalsWithStop(t *testing.T) {
	t.Parallel()
	inBubble(t, groupSettings{}, func(g testGroup) {
		g.append("s", 4)
		c := g.join(4)
		for _, id := range g.wantGiven(c, "0", "1", "2", "3") {
			refuse := func() { g.nack(c, []uuid.UUID{id}, persistentpb.ReadReq_Nack_Stop, "") }
			if err := g.do(g.Context(), refuse); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.dropped) != 1 {
			t.Errorf("it was dropped %d times", len(c.dropped))
		}
		g.wantGiven(g.join(4), "0", "1", "2", "3")
	})
}
