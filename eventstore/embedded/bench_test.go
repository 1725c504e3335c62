package embedded

import (
	"bytes"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"github.com/lotline/lotline/eventstore/embedded/rawlog"
)

// benchmarkData is as large as most events.
var benchmarkData = `{"consumer":"` + strings.Repeat("c", 360) + `"}`

func reportEvents(b *testing.B, each int) {
	b.ReportMetric(float64(b.N)*float64(each)/b.Elapsed().Seconds(), "events/s")
}

// Callers append batches through the Go API to their own streams, at the exact revision,
// and wait for each result. In turns with that, they append the same bytes to a raw log.
// The metric of-raw is the rate of the store divided by the rate of the raw log.
func BenchmarkAppend_ofRaw(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		for _, batch := range []int{1, 100, 1000} {
			if callers*batch > 100_000 {
				continue // 150 MB a turn show nothing more
			}
			b.Run(fmt.Sprintf("callers=%d/batch=%d", callers, batch), func(b *testing.B) {
				each := max(1, 20/batch) // appends per caller and turn
				s, raw := newStore(b), newRawLog(b)
				record := bytes.Repeat([]byte(benchmarkData+benchmarkMetadata+"queue.consumer.entered"+strings.Repeat("i", 16)), batch)
				var inStore, inRaw time.Duration
				turn := int64(0)
				for b.Loop() {
					inRaw += together(b, callers, func(int) error {
						for range each {
							if err := raw.Append(record); err != nil {
								return err
							}
						}
						return nil
					})
					inStore += together(b, callers, func(caller int) error {
						for i := range int64(each) {
							events := make([]proposed, batch)
							for j := range events {
								events[j] = benchmarkEvent()
							}
							next := (turn*int64(each) + i) * int64(batch)
							if _, err := s.append(b.Context(), fmt.Sprintf("queue-%d", caller), expectation(next-1), events); err != nil {
								return err
							}
						}
						return nil
					})
					turn++
				}
				events := float64(turn) * float64(callers*each*batch)
				b.ReportMetric(events/inRaw.Seconds(), "raw-events/s")
				b.ReportMetric(events/inStore.Seconds(), "events/s")
				b.ReportMetric(inRaw.Seconds()/inStore.Seconds(), "of-raw")
			})
		}
	}
}

const benchmarkMetadata = `{"commandId":"x"}`

func benchmarkEvent() proposed {
	return proposed{
		id: uuid.New(), kind: "queue.consumer.entered", json: true, data: []byte(benchmarkData), metadata: []byte(benchmarkMetadata),
	}
}

func newRawLog(b *testing.B) *rawlog.Log {
	b.Helper()
	raw, err := rawlog.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := raw.Close(); err != nil {
			b.Error(err)
		}
	})
	return raw
}

// together runs do for all callers concurrently and returns how long that took.
func together(b *testing.B, callers int, do func(caller int) error) time.Duration {
	b.Helper()
	var all sync.WaitGroup
	started := time.Now()
	for i := range callers {
		all.Go(func() {
			if err := do(i); err != nil {
				b.Error(err)
			}
		})
	}
	all.Wait()
	return time.Since(started)
}

// Each caller appends one event at a time to its own streams, at the exact revision, and
// waits for the response.
func BenchmarkAppend(b *testing.B) {
	for _, callers := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("client/callers=%d", callers), func(b *testing.B) {
			client := start(b).connect(b)
			spread(b, callers, func(stream string, revision int64) error {
				var expected esdb.ExpectedRevision = esdb.NoStream{}
				if revision > 0 {
					expected = esdb.Revision(uint64(revision - 1))
				}
				_, err := client.AppendToStream(b.Context(), stream, esdb.AppendToStreamOptions{ExpectedRevision: expected}, esdb.EventData{
					EventID: uuid.New(), EventType: "queue.consumer.entered", ContentType: esdb.ContentTypeJson, Data: []byte(benchmarkData), Metadata: []byte(`{"commandId":"x"}`),
				})
				return err
			})
		})
	}
}

// spread divides b.N appends among callers. Ten appends go to each stream.
func spread(b *testing.B, callers int, do func(stream string, revision int64) error) {
	b.ReportAllocs()
	b.SetParallelism(max(1, callers/runtime.GOMAXPROCS(0)))
	var ids atomic.Int64
	work := func(next func() bool) {
		id := ids.Add(1)
		for i := int64(0); next(); i++ {
			if err := do(fmt.Sprintf("queue-%d-%d", id, i/10), i%10); err != nil {
				b.Error(err)
				return
			}
		}
	}
	if callers == 1 {
		work(b.Loop)
	} else {
		b.RunParallel(func(pb *testing.PB) { work(pb.Next) })
	}
	reportEvents(b, 1)
}

// benchmarkLog starts a store with count events in streams of equal length.
func benchmarkLog(b *testing.B, count, length int) *running {
	b.Helper()
	server := start(b)
	for i := range count / length {
		events := make([]proposed, length)
		for j := range events {
			events[j] = proposed{id: uuid.New(), kind: "queue.consumer.entered", json: true, data: []byte(benchmarkData), metadata: []byte(`{"commandId":"x"}`)}
		}
		if _, err := server.store.append(b.Context(), fmt.Sprintf("queue-%d", i), expectNoStream, events); err != nil {
			b.Fatal(err)
		}
	}
	return server
}

func BenchmarkReadStream(b *testing.B) {
	for _, length := range []int{20, 1000} {
		server := benchmarkLog(b, 20_000, length)
		client := server.connect(b)
		streams := 20_000 / length
		b.Run(fmt.Sprintf("store/events=%d", length), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				p, err := server.store.readStream(b.Context(), fmt.Sprintf("queue-%d", i%streams), 0, false, false, int64(length))
				if err != nil || len(p.events) != length {
					b.Fatalf("%d events, %v", len(p.events), err)
				}
			}
			reportEvents(b, length)
		})
		b.Run(fmt.Sprintf("client/events=%d", length), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				events, err := client.ReadStream(b.Context(), fmt.Sprintf("queue-%d", i%streams), esdb.ReadStreamOptions{From: esdb.Start{}}, uint64(length))
				if err != nil {
					b.Fatal(err)
				}
				if got, err := drain(events); err != nil || len(got) != length {
					b.Fatalf("%d events, %v", len(got), err)
				}
			}
			reportEvents(b, length)
		})
	}
}

func BenchmarkReadAll(b *testing.B) {
	const count = 50_000
	server := benchmarkLog(b, count, 100)
	client := server.connect(b)
	matching := &filter{prefixes: [][]byte{[]byte("queue-7")}}
	for name, f := range map[string]*filter{"store": nil, "store/filtered": matching} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for next, complete := int64(0), false; !complete; {
					p, err := server.store.readAll(b.Context(), next, false, false, f, 1<<62, pageRows)
					if err != nil {
						b.Fatal(err)
					}
					next, complete = p.last+1, p.complete
				}
			}
			reportEvents(b, count)
		})
	}
	b.Run("client/subscription", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			subscription, err := client.SubscribeToAll(b.Context(), esdb.SubscribeToAllOptions{From: esdb.Start{}})
			if err != nil {
				b.Fatal(err)
			}
			for range count {
				nextEvent(b, subscription)
			}
			if err := subscription.Close(); err != nil {
				b.Fatal(err)
			}
		}
		reportEvents(b, count)
	})
}
