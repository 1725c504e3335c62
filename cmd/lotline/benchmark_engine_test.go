package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/embedded/rawlog"
)

// The sizes of the engine's benchmarks. With these defaults each takes a second or two.
// The published figures come from `make bench-large`.
var (
	benchEvents        = flag.Int("events", 10_000, "how many events the benchmark of catching up has")
	benchTimers        = flag.Int("timers", 500, "how many timers the benchmark of timers has")
	benchSingleTimers  = flag.Int("singletimers", 10, "how many timers the benchmark of single timers has, one after another")
	benchDistributions = flag.Int("distributions", 1_000, "how many distributions the benchmark of restarts has")
)

// target reports a figure together with its target.
func target(b *testing.B, figure float64, unit string, wanted float64) {
	b.Helper()
	b.ReportMetric(figure, unit)
	b.ReportMetric(wanted, unit+"-target")
}

// concurrently runs do(0) to do(callers-1) concurrently and returns how long that took.
func concurrently(b *testing.B, callers int, do func(caller int) error) time.Duration {
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

func rawLog(b *testing.B) *rawlog.Log {
	b.Helper()
	raw, err := rawlog.Create(filepath.Join(b.TempDir(), "raw"))
	if err != nil {
		b.Fatal(err)
	}
	closeAtEnd(b, raw)
	return raw
}

// newQueue returns the events of a queue's creation, which are not appended yet.
func newQueue(b *testing.B, organization domain.ID, openAt domain.Instant) (stream string, events []domain.Event) {
	b.Helper()
	id, err := newID(domain.KindQueue.IDPrefix())
	if err != nil {
		b.Fatal(err)
	}
	fields := domain.Fields{"sequenceId": []byte(`"bench"`), "name": []byte(`"A drop of the season"`)}
	if openAt != 0 {
		fields["openAt"] = fmt.Appendf(nil, "%q", openAt)
	}
	h := domain.NewHistory(id.Stream())
	events, err = domaintest.Carry(h, domain.InstantOf(time.Now()), domain.Create{
		ID: id, OrganizationID: organization, Fields: fields, Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"},
		Seed: "WAOSIGNXPX7S33M22JHJXLFN5Y",
	})
	if err != nil {
		b.Fatal(err)
	}
	return id.Stream(), events
}

// encode encodes events for an append.
func encode(b *testing.B, l *eventstore.Log, stream string, events []domain.Event) []domain.Proposed {
	b.Helper()
	command := uuid.NewString()
	all := make([]domain.Proposed, len(events))
	for i, e := range events {
		p, err := l.Encode(stream, e, domain.Metadata{
			CommandID: command, CorrelationID: command, CausationID: command, Actor: domain.ActorOperator,
		})
		if err != nil {
			b.Fatal(err)
		}
		p.ID = uuid.New()
		all[i] = p
	}
	return all
}

// fill appends n queues, each in its own stream. It returns the streams in the order of
// openAt(0), openAt(1), ….
func fill(b *testing.B, l *eventstore.Log, organization domain.ID, n int, openAt func(i int) domain.Instant) []string {
	b.Helper()
	const callers = 64
	streams := make([]string, n)
	concurrently(b, callers, func(caller int) error {
		for i := caller; i < n; i += callers {
			stream, events := newQueue(b, organization, openAt(i))
			if _, _, err := l.Append(b.Context(), stream, domain.EmptyHead(), encode(b, l, stream, events)); err != nil {
				return err
			}
			streams[i] = stream
		}
		return nil
	})
	return streams
}

func never(int) domain.Instant { return 0 }

// Callers append batches through the official client on the socket, each to its own
// stream. In turn with that, the same bytes go to a raw log.
func BenchmarkAppend_client(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		for _, batch := range []int{1, 100, 1000} {
			if callers*batch > 10_000 {
				continue
			}
			b.Run(fmt.Sprintf("callers=%d/batch=%d", callers, batch), func(b *testing.B) {
				c := newClusterStore(b)
				l, raw := c.connect(b), rawLog(b)
				stream, created := newQueue(b, "org_01h455vb4pex5vsknk084sn02r", 0)
				events := slices.Repeat(encode(b, l, stream, created), batch)
				record := bytes.Repeat(bytesOf(events[0]), batch)
				each := max(1, 20/batch)
				heads := make([]domain.Head, callers)
				for i := range heads {
					heads[i] = domain.EmptyHead()
				}
				var inLog, inRaw time.Duration
				turns := 0
				for b.Loop() {
					inRaw += concurrently(b, callers, func(int) error {
						for range each {
							if err := raw.Append(record); err != nil {
								return err
							}
						}
						return nil
					})
					inLog += concurrently(b, callers, func(caller int) (err error) {
						for range each {
							next := slices.Clone(events)
							for i := range next {
								next[i].ID = uuid.New()
							}
							if heads[caller], _, err = l.Append(b.Context(), fmt.Sprintf("queue-%d", caller), heads[caller], next); err != nil {
								return err
							}
						}
						return nil
					})
					turns++
				}
				reportOfRaw(b, float64(turns*callers*each*batch), inLog, inRaw)
			})
		}
	}
}

// bytesOf returns the bytes that a raw log keeps of an event.
func bytesOf(e domain.Proposed) []byte {
	return slices.Concat(e.ID[:], []byte(e.Type), e.Data, domain.WithHash(e.Metadata, string(bytes.Repeat([]byte("h"), 43))))
}

func reportOfRaw(b *testing.B, events float64, took, raw time.Duration) {
	b.Helper()
	b.ReportMetric(events/raw.Seconds(), "raw-events/s")
	b.ReportMetric(events/took.Seconds(), "events/s")
	target(b, raw.Seconds()/took.Seconds(), "of-raw", 0.25)
}

// Callers change one queue through its writer. Each sends one command at a time.
func BenchmarkWriter(b *testing.B) {
	for _, callers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			c := newClusterStore(b)
			l, raw := c.connect(b), rawLog(b)
			stream := fill(b, l, "org_01h455vb4pex5vsknk084sn02r", 1, never)[0]
			handler := commands.NewHandler(l, nil, time.Now)
			if err := changeOften(b, handler, stream, 0, 1); err != nil {
				b.Fatal(err)
			}
			record := lastRecord(b, l, stream)
			const each = 20
			var inWriter, inRaw time.Duration
			turns := 0
			for b.Loop() {
				inRaw += concurrently(b, callers, func(int) error {
					for range each {
						if err := raw.Append(record); err != nil {
							return err
						}
					}
					return nil
				})
				inWriter += concurrently(b, callers, func(caller int) error { return changeOften(b, handler, stream, caller, each) })
				turns++
			}
			reportOfRaw(b, float64(turns*callers*each), inWriter, inRaw)
		})
	}
}

// changeOften gives a queue one new name after another.
func changeOften(b *testing.B, h *commands.Handler, stream string, caller, times int) error {
	for range times {
		_, err := h.Handle(b.Context(), commands.Request{
			Stream: stream, Caller: commands.Caller{Actor: domain.ActorOperator},
			Command: domain.Update{Fields: domain.Fields{"name": fmt.Appendf(nil, `"%d %s"`, caller, uuid.NewString())}},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// lastRecord returns the bytes that a raw log keeps of a stream's last event.
func lastRecord(b *testing.B, l *eventstore.Log, stream string) []byte {
	b.Helper()
	var last *domain.Recorded
	for r, err := range l.Read(b.Context(), stream, domain.NoStream) {
		if err != nil {
			b.Fatal(err)
		}
		last = r
	}
	return slices.Concat(last.ID[:], []byte(last.Type), last.Data, last.RawMetadata)
}

// A stream's state is loaded from the store. The cost of an event does not depend on the
// number of events.
func BenchmarkLoad(b *testing.B) {
	c := newClusterStore(b)
	l := c.connect(b)
	for _, n := range []int{1, 10, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			stream := fill(b, l, "org_01h455vb4pex5vsknk084sn02r", 1, never)[0]
			const callers = 64
			writer := commands.NewHandler(l, nil, time.Now)
			concurrently(b, callers, func(caller int) error {
				return changeOften(b, writer, stream, caller, (n-1+callers-1-caller)/callers)
			})
			for b.Loop() {
				if err := commands.NewHandler(l, nil, time.Now).Load(b.Context(), stream); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}

// A node without read models follows the log from its beginning.
func BenchmarkCatchUp(b *testing.B) {
	c := newClusterStore(b)
	l := c.connect(b)
	// Each queue has one append of two events, and two of one event, the most common size.
	streams := fill(b, l, "org_01h455vb4pex5vsknk084sn02r", *benchEvents/4, func(int) domain.Instant { return domain.InstantOf(time.Now().AddDate(1, 0, 0)) })
	handler := commands.NewHandler(l, nil, time.Now)
	const callers = 64
	concurrently(b, callers, func(caller int) error {
		for i := caller; i < len(streams); i += callers {
			if err := changeOften(b, handler, streams[i], caller, 2); err != nil {
				return err
			}
		}
		return nil
	})
	for b.Loop() {
		b.StopTimer()
		n := c.openNode(b, lockedDir(b))
		b.StartTimer()
		if !n.catchUp(b.Context()) {
			b.Fatal(b.Context().Err())
		}
	}
	target(b, float64(len(streams)*4*b.N)/b.Elapsed().Seconds(), "events/s", 100_000)
}

// Many queues open within one second while a client reads.
func BenchmarkTimers(b *testing.B) {
	for b.Loop() {
		lead := 300*time.Millisecond + time.Duration(*benchTimers)*500*time.Microsecond
		for !manyTimers(b, *benchTimers, lead) {
			lead *= 2
		}
	}
}

// manyTimers reports false if the first timer was due before all queues were made.
func manyTimers(b *testing.B, timers int, lead time.Duration) bool {
	b.Helper()
	c := newCluster(b, 1)
	n := c.nodes[0]
	began := time.Now().Add(lead)
	due := func(i int) domain.Instant {
		return domain.InstantOf(began.Add(time.Second * time.Duration(i) / time.Duration(timers)))
	}
	streams := fill(b, c.connect(b), n.organization(b), timers, due)
	head, err := n.log.Head(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if err := n.views.WaitFor(b.Context(), head); err != nil {
		b.Fatal(err)
	}
	if time.Now().After(began) {
		return false
	}
	stopReading, reads := readOften(b, n, streams)
	after(b, time.Until(began))
	for i := 0; i < len(streams); {
		id, _ := domain.StreamID(streams[i])
		row, err := n.views.Get(n.organization(b), id)
		if err != nil {
			b.Fatal(err)
		}
		if row.Distribution.Shared().Status == domain.StatusOpen {
			i++
			continue
		}
		if time.Since(began) > 2*time.Minute {
			b.Fatalf("%d of %d are open", i, len(streams))
		}
		after(b, time.Millisecond)
	}
	took := time.Since(began)
	stopReading()
	target(b, took.Seconds(), "s-until-all-open", 2*math.Ceil(float64(timers)/10_000))
	target(b, percentile(*reads, 0.99).Seconds()*1000, "ms-p99-GET", 50)
	b.ReportMetric(outOfOrder(b, c, streams, due).Seconds()*1000, "ms-out-of-order")
	return true
}

// readOften reads one queue after another until it is stopped, and records how long each
// read took.
func readOften(b *testing.B, n *clusterNode, streams []string) (stop func(), took *[]time.Duration) {
	b.Helper()
	caller := newCaller(b).unchecked()
	took = &[]time.Duration{}
	stop = start(func(ctx context.Context) {
		for i := 0; ctx.Err() == nil; i++ {
			id, _ := domain.StreamID(streams[i*7919%len(streams)])
			started := time.Now()
			a, err := caller.call(ctx, http.MethodGet, n.url+"/api/v1/queues/"+string(id), "", http.Header{})
			switch {
			case ctx.Err() != nil:
				return
			case err != nil || a.status != http.StatusOK:
				b.Errorf("%d, %v", a.status, err)
				return
			}
			*took = append(*took, time.Since(started))
			after(b, 2*time.Millisecond)
		}
	})
	return stop, took
}

func percentile(all []time.Duration, p float64) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return all[min(len(all)-1, int(float64(len(all))*p))]
}

// outOfOrder returns the longest time by which a queue opened before another one that was
// due earlier.
func outOfOrder(b *testing.B, c *cluster, streams []string, due func(int) domain.Instant) time.Duration {
	b.Helper()
	order := make(map[string]domain.Instant, len(streams))
	for i, s := range streams {
		order[s] = due(i)
	}
	var latest domain.Instant
	var worst time.Duration
	opened := 0
	for _, e := range allEvents(b, c) {
		if e.EventType != "queue.opened" {
			continue
		}
		opened++
		latest = max(latest, order[e.StreamID])
		worst = max(worst, latest.Time().Sub(order[e.StreamID].Time()))
	}
	if opened != len(streams) {
		b.Errorf("%d of %d were opened", opened, len(streams))
	}
	return worst
}

func allEvents(b *testing.B, c *cluster) []*esdb.RecordedEvent {
	b.Helper()
	read, err := officialClient(b, c.dir.path).ReadAll(b.Context(), esdb.ReadAllOptions{From: esdb.Start{}}, math.MaxInt64)
	if err != nil {
		b.Fatal(err)
	}
	defer read.Close()
	var all []*esdb.RecordedEvent
	for {
		e, err := read.Recv()
		if err != nil {
			return all
		}
		all = append(all, e.Event)
	}
}

// One queue after another opens while nothing else happens.
func BenchmarkTimers_single(b *testing.B) {
	for b.Loop() {
		c := newCluster(b, 1)
		n := c.nodes[0]
		began := time.Now().Add(200 * time.Millisecond)
		due := func(i int) domain.Instant {
			return domain.InstantOf(began.Add(time.Duration(i) * 37 * time.Millisecond))
		}
		streams := fill(b, c.connect(b), n.organization(b), *benchSingleTimers, due)
		last, _ := domain.StreamID(streams[len(streams)-1])
		eventually(b, "the last one is open", func() bool {
			row, err := n.views.Get(n.organization(b), last)
			return err == nil && row.Distribution.Shared().Status == domain.StatusOpen
		})
		var late []time.Duration
		for _, e := range allEvents(b, c) {
			if i := slices.Index(streams, e.StreamID); i >= 0 && e.EventType == "queue.opened" {
				late = append(late, e.CreatedDate.Sub(due(i).Time()))
			}
		}
		if len(late) != len(streams) {
			b.Errorf("%d of %d were opened", len(late), len(streams))
		}
		b.ReportMetric(percentile(late, 0.5).Seconds()*1000, "ms-p50-late")
		target(b, percentile(late, 0.99).Seconds()*1000, "ms-p99-late", 25)
	}
}

// The program starts on a log with many distributions: first without saved read models,
// then with them.
func BenchmarkRestart(b *testing.B) {
	for b.Loop() {
		dir := dataDirectory(b)
		prepareRestart(b, dir)
		lotline := testBinary(b)
		started := time.Now()
		e := lotline.serve(b, dir)
		rebuilt := time.Since(started)
		key := e.secretKey()
		if code := e.terminate(); code != 0 {
			b.Fatalf("exit %d: %s", code, e.stderr)
		}
		started = time.Now()
		e = lotline.serve(b, dir)
		eventually(b, "it is ready", func() bool { return e.call("GET", "/readyz", "", "").status == 200 })
		loaded := time.Since(started)
		e.must(200, "GET", "/api/v1/queues", key, "")
		e.kill()
		b.ReportMetric(rebuilt.Seconds(), "s-from-nothing")
		target(b, loaded.Seconds(), "s-until-ready", 10)
	}
}

// prepareRestart makes a data directory with a log.
func prepareRestart(b *testing.B, path string) {
	b.Helper()
	dir, err := openDataDir(path)
	if err != nil {
		b.Fatal(err)
	}
	s := &settings{DataDir: path}
	l, err := openLog(b.Context(), s, dir, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	far := domain.InstantOf(time.Now().AddDate(1, 0, 0))
	fill(b, l.Log, "org_01h455vb4pex5vsknk084sn02r", *benchDistributions, func(i int) domain.Instant {
		if i%2 == 0 {
			return 0
		}
		return far + domain.Instant(i)
	})
	if err := errors.Join(l.Close(), dir.Close()); err != nil {
		b.Fatal(err)
	}
}

// Two nodes write to one hot stream, compared with one node.
func BenchmarkTwoNodes(b *testing.B) {
	b.Run("updates", func(b *testing.B) { benchTwoNodes(b, never, changeOften) })
	b.Run("entries", func(b *testing.B) { benchTwoNodes(b, now, enterOften) })
}

func now(int) domain.Instant { return domain.InstantOf(time.Now()) }

func benchTwoNodes(b *testing.B, openAt func(i int) domain.Instant, write func(b *testing.B, h *commands.Handler, stream string, caller, times int) error) {
	b.Helper()
	const callers, each = 64, 20
	c := newClusterStore(b)
	logs := []*eventstore.Log{c.connect(b), c.connect(b)}
	var one, two time.Duration
	for b.Loop() {
		for nodes, took := range map[int]*time.Duration{1: &one, 2: &two} {
			stream := fill(b, logs[0], "org_01h455vb4pex5vsknk084sn02r", 1, openAt)[0]
			handlers := []*commands.Handler{commands.NewHandler(logs[0], nil, time.Now), commands.NewHandler(logs[1], nil, time.Now)}
			*took += concurrently(b, callers, func(caller int) error {
				return write(b, handlers[caller%nodes], stream, caller, each)
			})
		}
	}
	b.ReportMetric(float64(b.N*callers*each)/one.Seconds(), "one-node/s")
	b.ReportMetric(float64(b.N*callers*each)/two.Seconds(), "two-nodes/s")
	target(b, one.Seconds()/two.Seconds(), "of-one-node", 0.5)
}

func enterOften(b *testing.B, h *commands.Handler, stream string, caller, times int) error {
	b.Helper()
	for i := range times {
		_, err := h.Handle(b.Context(), commands.Request{
			Stream: stream, Caller: commands.Caller{Actor: domain.ActorConsumer},
			Command: domain.Enter{ConsumerID: fmt.Sprintf("consumer-%d-%d", caller, i)},
		})
		if err != nil {
			return err
		}
	}
	return nil
}
