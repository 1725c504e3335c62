package embedded

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
)

// info returns the settings and the progress of a group, for operators.
func (g *group) info(ctx context.Context) (*persistentpb.SubscriptionInfo, error) {
	known, err := g.store.lastPosition(ctx)
	if err != nil {
		return nil, err
	}
	if !g.settings.ofAll() {
		h, err := g.store.state(ctx, g.settings.Stream)
		if err != nil {
			return nil, err
		}
		known = h.last
	}
	parked, err := g.store.state(ctx, g.settings.parkedStream())
	if err != nil {
		return nil, err
	}
	s := &g.settings
	info := &persistentpb.SubscriptionInfo{
		EventSource:                 s.Stream,
		GroupName:                   s.Group,
		StartFrom:                   s.format(s.StartFrom),
		ResolveLinkTos:              s.ResolveLinks,
		ExtraStatistics:             s.ExtraStatistics,
		MessageTimeoutMilliseconds:  s.MessageTimeout,
		MaxRetryCount:               s.MaxRetryCount,
		LiveBufferSize:              s.LiveBufferSize,
		BufferSize:                  s.HistoryBufferSize,
		ReadBatchSize:               s.ReadBatchSize,
		CheckPointAfterMilliseconds: s.CheckpointAfter,
		MinCheckPointCount:          s.MinCheckpointCount,
		MaxCheckPointCount:          s.MaxCheckpointCount,
		MaxSubscriberCount:          s.MaxSubscriberCount,
		NamedConsumerStrategy:       s.ConsumerStrategy,
		ParkedMessageCount:          max(0, after(parked.last)-min(parked.firstVisible(), after(parked.last))),
	}
	if known >= 0 {
		info.LastKnownEventPosition = s.format(known)
	}
	return info, g.do(ctx, func() { g.describe(info, time.Now()) })
}

// describe adds the values that belong to the group's goroutine, in which it runs.
func (g *group) describe(info *persistentpb.SubscriptionInfo, now time.Time) {
	switch {
	case g.failure != nil:
		info.Status = "Failed"
	case g.mayHaveMore:
		info.Status = "Behind"
	default:
		info.Status = "Live"
	}
	if g.checkpointed >= 0 {
		info.LastCheckpointedEventPosition = g.settings.format(g.checkpointed)
	}
	seconds := now.Sub(g.measuredAt).Seconds()
	perSecond := func(count int64) int32 {
		if seconds <= 0 {
			return 0
		}
		return int32(min(float64(count)/seconds, math.MaxInt32))
	}
	info.TotalItems = g.total
	info.CountSinceLastMeasurement = g.total - g.measured
	info.AveragePerSecond = perSecond(g.total - g.measured)
	g.measured, g.measuredAt = g.total, now
	for _, c := range g.consumers {
		connection := &persistentpb.SubscriptionInfo_ConnectionInfo{
			From:                      c.from,
			ConnectionName:            c.name,
			TotalItems:                c.total,
			CountSinceLastMeasurement: c.total - c.measured,
			AverageItemsPerSecond:     perSecond(c.total - c.measured),
			AvailableSlots:            int32(c.slots - len(c.inFlight)),
			InFlightMessages:          int32(len(c.inFlight)),
		}
		if g.settings.ExtraStatistics {
			connection.ObservedMeasurements = c.timings.measurements()
		}
		info.Connections = append(info.Connections, connection)
		c.measured = c.total
		info.TotalInFlightMessages += int32(len(c.inFlight))
	}
	info.ReadBufferCount = int32(g.source.waiting.Len())
	info.RetryBufferCount = int32(g.parked.waiting.Len())
	info.OutstandingMessagesCount = int32(g.source.unfinished.Len() + g.parked.unfinished.Len())
}

// timingsKept is how many of a consumer's newest acknowledgements and refusals the extra
// statistics cover.
const timingsKept = 1000

// timings holds how many milliseconds a consumer took for each of its newest
// acknowledgements and refusals, up to timingsKept.
type timings struct {
	kept []int64
	next int // index of the oldest once timingsKept are kept
}

func (t *timings) add(took time.Duration) {
	if len(t.kept) < timingsKept {
		t.kept = append(t.kept, took.Milliseconds())
		return
	}
	t.kept[t.next] = took.Milliseconds()
	t.next = (t.next + 1) % timingsKept
}

// measurements returns the same figures as a real server, under the same names.
func (t *timings) measurements() []*persistentpb.SubscriptionInfo_Measurement {
	if len(t.kept) == 0 {
		return nil
	}
	sorted := slices.Sorted(slices.Values(t.kept))
	var sum int64
	for _, took := range sorted {
		sum += took
	}
	var all []*persistentpb.SubscriptionInfo_Measurement
	add := func(key string, value int64) {
		all = append(all, &persistentpb.SubscriptionInfo_Measurement{Key: key, Value: value})
	}
	perMille := func(share int) int64 { return sorted[min(share*len(sorted)/1000, len(sorted)-1)] }
	add("Mean", sum/int64(len(sorted)))
	add("Median", perMille(500))
	add("Fastest", sorted[0])
	for i := range 5 {
		add(fmt.Sprint("Quintile ", i+1), perMille(200*i))
	}
	add("90%", perMille(900))
	add("95%", perMille(950))
	add("99%", perMille(990))
	add("99.5%", perMille(995))
	add("99.9%", perMille(999))
	add("Highest", sorted[len(sorted)-1])
	return all
}
