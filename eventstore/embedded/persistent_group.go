package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strconv"
	"strings"
	"time"

	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"github.com/tidwall/btree"
)

const (
	// slotsLimit is how many events a consumer may ask to be given ahead.
	slotsLimit = 4096

	// flightBytes is how large what one consumer has in flight may be before it
	// gets no more. It always gets one event.
	flightBytes = 8 << 20

	// eventOverhead is about what an event takes besides what is in it.
	eventOverhead = 512

	// readPause is how long a group waits after it could not read.
	readPause = time.Second
)

// delivery is an event on its way to a consumer. The consumer answers by the id of
// the event that was read, which is a link's own, not its target's.
type delivery struct {
	*resolved
	retries int32
}

// message is an event that a group has read and not done with.
type message struct {
	delivery

	lane     *lane
	place    int64     // in what the lane reads
	given    time.Time // when a consumer got it
	deadline time.Time // of the consumer that has it, zero for none
}

func (m *message) size() int {
	size := eventOverhead + m.resolved.size()
	if m.target != nil {
		size += eventOverhead
	}
	return size
}

// lane is a stream that a group works through, by revision, or the whole log, by
// position.
type lane struct {
	next    int64                      // first place that was not read
	open    btree.Map[int64, *message] // what was read and is not done with
	waiting btree.Map[int64, *message] // the part of open that no consumer has
	bytes   int                        // size of what waits
}

// floor is the first place that is not done with. It never rises above a message
// that a consumer has not answered for.
func (l *lane) floor() int64 {
	if first, _, found := l.open.Min(); found {
		return first
	}
	return l.next
}

func (l *lane) wait(m *message) {
	m.deadline = time.Time{}
	l.waiting.Set(m.place, m)
	l.bytes += m.size()
}

func (l *lane) unwait(m *message) {
	l.waiting.Delete(m.place)
	l.bytes -= m.size()
}

// consumer is one call of Read. Its channels are between the call and the group;
// the fields below them belong to the group's goroutine.
type consumer struct {
	id      uuid.UUID
	from    string
	name    string // of its connection, as its client says
	slots   int
	out     chan delivery
	dropped chan error

	inFlight []*message
	bytes    int // size of what is in flight
	late     int // size of what timed out and may not have been sent yet
	total    int64
	measured int64 // total when it was last asked for
	timings  timings
}

func newConsumer(from string, slots int) *consumer {
	return &consumer{id: uuid.New(), from: from, slots: slots, out: make(chan delivery, slots), dropped: make(chan error, 1)}
}

// free is how much more the consumer can be given. Sending that much never
// blocks, also when deliveries that timed out were not sent yet.
func (c *consumer) free() int {
	if len(c.out) == 0 {
		c.late = 0
	}
	if c.bytes+c.late >= flightBytes {
		return 0
	}
	return min(c.slots-len(c.inFlight), cap(c.out)-len(c.out))
}

// answer removes the message that the consumer got under an id and now answers for.
// It is nil when there is none, as after it timed out.
func (c *consumer) answer(id uuid.UUID) *message {
	i := slices.IndexFunc(c.inFlight, func(m *message) bool { return m.id == id })
	if i < 0 {
		return nil
	}
	m := c.inFlight[i]
	c.inFlight = slices.Delete(c.inFlight, i, i+1)
	c.bytes -= m.size()
	c.timings.add(time.Since(m.given))
	return m
}

// group is one persistent subscription. One goroutine owns its state; others ask
// it by do.
type group struct {
	settings groupSettings
	matching *filter
	store    *store
	log      zerolog.Logger
	// failure is why the group cannot work, for good.
	failure error

	calls   chan func()
	quit    chan error
	stopped chan struct{} // closed when run has ended
	ending  error         // why, once stopped is closed

	// The fields below are owned by run.

	consumers []*consumer
	turn      int          // of the consumer that is next, by RoundRobin
	seed      maphash.Seed // of who gets a stream, by Pinned

	source lane
	behind bool // source may have more than was read
	parked lane
	// replayTo is the first parked event that was not asked for again.
	replayTo int64
	// truncated is up to where parked events are hidden, being done with.
	truncated int64

	resume       time.Time // not to be read before
	expiry       time.Time // no message times out before; zero for none
	checkpointed int64     // the place that the newest checkpoint says
	checkpointAt time.Time // when it was written
	done         int32     // how many messages were done with since

	total, measured int64
	measuredAt      time.Time
}

// startGroup starts the group of the given settings from what the log remembers
// of it. When that cannot be read, the group answers all calls with the reason.
func startGroup(s *store, settings groupSettings, log zerolog.Logger) *group {
	now := time.Now()
	g := &group{
		settings: settings, store: s,
		log:   log.With().Str("stream", settings.Stream).Str("group", settings.Group).Logger(),
		calls: make(chan func()), quit: make(chan error), stopped: make(chan struct{}),
		behind: true, seed: maphash.MakeSeed(), checkpointAt: now, measuredAt: now,
	}
	if err := g.load(context.Background()); err != nil {
		g.failure = failedStatus(settings, err)
		g.log.Error().Err(err).Msg("persistent subscription cannot be started")
	}
	go g.run()
	return g
}

func (g *group) load(ctx context.Context) (err error) {
	if g.matching, err = g.settings.Filter.compile(); err != nil {
		return err
	}
	checkpoint, err := g.store.newest(ctx, g.settings.checkpointStream())
	if err != nil {
		return err
	}
	if checkpoint != nil {
		var text string
		if err := json.Unmarshal(checkpoint.data, &text); err != nil {
			return err
		}
		if g.checkpointed, err = g.settings.parse(text); err != nil {
			return err
		}
	} else if err := g.begin(ctx); err != nil {
		return err
	}
	g.source.next = after(g.checkpointed)

	h, err := g.store.state(ctx, g.settings.parkedStream())
	if err != nil {
		return err
	}
	g.parked.next = min(h.firstShown(), after(h.last))
	g.truncated = g.parked.next
	return nil
}

// begin writes where a new group starts, so that one that starts from the end
// has a place to return to before its first event.
func (g *group) begin(ctx context.Context) error {
	start := g.settings.StartFrom
	if start == startFromEnd {
		last, err := g.store.lastPosition(ctx)
		if !g.settings.ofAll() {
			var h head
			h, err = g.store.state(ctx, g.settings.Stream)
			last = h.last
		}
		if err != nil {
			return err
		}
		start = after(last)
	}
	return g.writeCheckpoint(start - 1)
}

// stop lets the consumers go with err, writes down where the group is, and ends
// its goroutine. It is called once.
func (g *group) stop(err error) {
	g.quit <- err
	<-g.stopped
}

// do runs f in the group's goroutine.
func (g *group) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case g.calls <- func() { f(); close(done) }:
		<-done
		return nil
	case <-g.stopped:
		return g.ending
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *group) run() {
	followed := g.settings.Stream
	if g.settings.ofAll() {
		followed = ""
	}
	watcher, unwatch := g.store.hub.watch(followed)
	defer unwatch()
	timer := time.NewTimer(0)
	defer timer.Stop()
	ready := make(chan struct{})
	close(ready)
	for {
		var more <-chan struct{}
		if g.failure == nil && g.work() {
			more = ready
		}
		timer.Reset(g.idle())
		select {
		case call := <-g.calls:
			call()
		case <-watcher.signal:
			g.behind = true
		case <-timer.C:
		case <-more:
		case err := <-g.quit:
			g.end(err)
			return
		}
	}
}

func (g *group) end(err error) {
	for len(g.consumers) > 0 {
		g.drop(g.consumers[0], err)
	}
	if g.failure == nil {
		g.checkpoint(time.Now())
		g.truncateParked(g.parked.floor())
	}
	g.ending = err
	close(g.stopped)
}

// work does what can be done now, except that it reads no more than a page. It
// reports whether it could go on at once.
func (g *group) work() (more bool) {
	now := time.Now()
	g.expire(now)
	if g.canRead(now) {
		if err := g.read(context.Background()); err != nil {
			g.log.Error().Err(err).Msg("persistent subscription cannot read")
			g.resume = now.Add(readPause)
		}
	}
	g.dispatch(now)
	if g.checkpointDue(now) {
		g.checkpoint(now)
	}
	if g.parked.open.Len() == 0 {
		g.truncateParked(g.parked.next)
	}
	return g.canRead(now)
}

// idle is how long there will be nothing to do, unless something happens.
func (g *group) idle() time.Duration {
	wait := time.Hour
	if !g.expiry.IsZero() {
		wait = min(wait, time.Until(g.expiry))
	}
	if pause := time.Until(g.resume); pause > 0 {
		wait = min(wait, pause)
	}
	if g.done > 0 && g.done >= g.settings.MinCheckpointCount {
		wait = min(wait, time.Until(g.checkpointAt.Add(milliseconds(g.settings.CheckpointAfter))))
	}
	return max(wait, 0)
}

func milliseconds(count int32) time.Duration {
	return time.Duration(count) * time.Millisecond
}

// canRead says whether there is something to read and somebody to read it for.
// Read ahead is bounded by count and by bytes.
func (g *group) canRead(now time.Time) bool {
	return len(g.consumers) > 0 && !now.Before(g.resume) &&
		(g.behind && g.hasRoom(&g.source) || g.parked.next < g.replayTo && g.hasRoom(&g.parked))
}

func (g *group) hasRoom(l *lane) bool {
	return l.waiting.Len()+int(g.settings.ReadBatchSize) <= int(g.settings.HistoryBufferSize) && l.bytes < pageBytes
}

func (g *group) read(ctx context.Context) error {
	if g.parked.next < g.replayTo && g.hasRoom(&g.parked) {
		return g.readParked(ctx)
	}
	var p page
	var err error
	if g.settings.ofAll() {
		p, err = g.store.readAll(ctx, g.source.next, false, g.settings.ResolveLinks, g.matching, int64(g.settings.ReadBatchSize), pageRows)
	} else {
		p, err = g.store.readStream(ctx, g.settings.Stream, g.source.next, false, g.settings.ResolveLinks, int64(g.settings.ReadBatchSize))
	}
	if isGone(err) {
		g.behind = false
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range p.events {
		// What groups on the whole log write would be news for all of them, for ever.
		name, _ := strings.CutPrefix(e.stream, metadataPrefix)
		if g.settings.ofAll() && strings.HasPrefix(name, bookkeeping) {
			continue
		}
		g.open(&g.source, &e)
	}
	if p.considered > 0 {
		g.source.next = after(p.last)
	}
	g.behind = !p.complete
	return nil
}

// readParked reads parked events that are to be replayed. They stay parked until
// they are done with.
func (g *group) readParked(ctx context.Context) error {
	count := min(int64(g.settings.ReadBatchSize), g.replayTo-g.parked.next)
	p, err := g.store.readStream(ctx, g.settings.parkedStream(), g.parked.next, false, true, count)
	if err != nil && !isGone(err) {
		return err
	}
	for _, e := range p.events {
		// There is nothing to replay of an event that is deleted by now.
		if e.target != nil {
			g.open(&g.parked, &e)
		}
	}
	if p.considered > 0 {
		g.parked.next = after(p.last)
	}
	if p.complete || isGone(err) {
		g.parked.next = max(g.parked.next, g.replayTo)
	}
	return nil
}

// open takes an event that was read from a lane up, unless it has it already from
// a page that could not be finished.
func (g *group) open(l *lane, e *resolved) {
	place := e.revision
	if l == &g.source && g.settings.ofAll() {
		place = e.position
	}
	if _, known := l.open.Get(place); known {
		return
	}
	m := &message{delivery: delivery{resolved: e}, lane: l, place: place}
	l.open.Set(place, m)
	l.wait(m)
}

// isGone says that a stream has no events, which is not an error for who waits
// for them.
func isGone(err error) bool {
	_, deleted := errors.AsType[*deletedError](err)
	return deleted || errors.Is(err, errNoStream)
}

// dispatch gives consumers what they have room for, replayed events first.
func (g *group) dispatch(now time.Time) {
	free := 0
	for _, c := range g.consumers {
		free += max(c.free(), 0)
	}
	for _, l := range []*lane{&g.parked, &g.source} {
		var given []*message
		l.waiting.Scan(func(_ int64, m *message) bool {
			if free == 0 {
				return false
			}
			if c := g.choose(m); c != nil {
				g.give(c, m, now)
				given = append(given, m)
				free--
			}
			return true
		})
		for _, m := range given {
			l.unwait(m)
		}
	}
}

func (g *group) give(c *consumer, m *message, now time.Time) {
	if g.settings.MessageTimeout > 0 {
		m.deadline = now.Add(milliseconds(g.settings.MessageTimeout))
		if g.expiry.IsZero() {
			g.expiry = m.deadline
		}
	}
	m.given = now
	c.inFlight = append(c.inFlight, m)
	c.bytes += m.size()
	c.out <- m.delivery
	c.total++
	g.total++
}

// choose finds the consumer for a message, nil when it has to wait.
func (g *group) choose(m *message) *consumer {
	switch g.settings.ConsumerStrategy {
	case strategyPinned:
		return g.pinned(m)
	case strategyDispatchToSingle:
		g.turn = 0
	}
	for i := range g.consumers {
		if c := g.consumers[(g.turn+i)%len(g.consumers)]; c.free() > 0 {
			g.turn = (g.turn + i + 1) % len(g.consumers)
			return c
		}
	}
	return nil
}

// pinned finds the one consumer that gets the events of a message's stream. When
// another comes or goes, most streams stay with theirs.
func (g *group) pinned(m *message) *consumer {
	stream := m.stream
	if m.target != nil {
		stream = m.target.stream
	}
	var chosen *consumer
	var highest uint64
	for _, c := range g.consumers {
		if hash := maphash.String(g.seed, c.id.String()+stream); chosen == nil || hash > highest {
			chosen, highest = c, hash
		}
	}
	if chosen == nil || chosen.free() <= 0 {
		return nil
	}
	return chosen
}

// finish is done with messages: they will not come again.
func (g *group) finish(messages ...*message) {
	for _, m := range messages {
		m.lane.open.Delete(m.place)
		if m.lane == &g.source {
			g.done++
		}
	}
}

func (g *group) ack(c *consumer, ids []uuid.UUID) {
	for _, id := range ids {
		if m := c.answer(id); m != nil {
			g.finish(m)
		}
	}
}

func (g *group) nack(c *consumer, ids []uuid.UUID, action persistentpb.ReadReq_Nack_Action, reason string) {
	var refused []*message
	for _, id := range ids {
		if m := c.answer(id); m != nil {
			refused = append(refused, m)
		}
	}
	switch action {
	case persistentpb.ReadReq_Nack_Park:
		g.park(refused, "Client explicitly NAK'ed message.\n"+reason)
	case persistentpb.ReadReq_Nack_Skip:
		g.finish(refused...)
	case persistentpb.ReadReq_Nack_Stop:
		for _, m := range refused {
			m.lane.wait(m)
		}
		g.drop(c, droppedStatus(g.settings))
	default:
		g.retry(refused)
	}
}

// retry has messages delivered again, or parks those that were often enough.
func (g *group) retry(messages []*message) {
	var spent []*message
	for _, m := range messages {
		if m.retries >= g.settings.MaxRetryCount {
			spent = append(spent, m)
			continue
		}
		m.retries++
		m.lane.wait(m)
	}
	g.park(spent, fmt.Sprintf("Reached retry count of %d", g.settings.MaxRetryCount))
}

// park puts messages aside until somebody asks for them.
func (g *group) park(messages []*message, reason string) {
	if len(messages) == 0 {
		return
	}
	links := make([]proposed, len(messages))
	for i, m := range messages {
		link := m.data
		if event, _ := m.pair(); event != nil {
			link = fmt.Appendf(nil, "%d@%s", event.revision, event.stream)
		}
		// Nothing in it can fail to be encoded.
		why, _ := json.Marshal(struct { //nolint:errchkjson // see above
			Reason   string `json:"reason"`
			Original int64  `json:"subscriptionEventNumber"`
		}{reason, m.revision})
		links[i] = proposed{id: uuid.New(), kind: linkType, data: link, metadata: why}
	}
	if _, err := g.store.append(context.Background(), g.settings.parkedStream(), expectAny, links); err != nil {
		g.log.Error().Err(err).Msg("persistent subscription cannot park")
		for _, m := range messages {
			m.lane.wait(m)
		}
		return
	}
	g.finish(messages...)
}

// expire takes back what consumers have had for too long.
func (g *group) expire(now time.Time) {
	if g.expiry.IsZero() || now.Before(g.expiry) {
		return
	}
	g.expiry = time.Time{}
	for _, c := range g.consumers {
		var late []*message
		c.inFlight = slices.DeleteFunc(c.inFlight, func(m *message) bool {
			if !now.Before(m.deadline) {
				late = append(late, m)
				c.bytes -= m.size()
				c.late += m.size()
				return true
			}
			if g.expiry.IsZero() || m.deadline.Before(g.expiry) {
				g.expiry = m.deadline
			}
			return false
		})
		g.retry(late)
	}
}

func (g *group) join(ctx context.Context, c *consumer) error {
	var refusal error
	err := g.do(ctx, func() {
		limit := int(g.settings.MaxSubscriberCount)
		switch {
		case g.failure != nil:
			refusal = g.failure
		case limit > 0 && len(g.consumers) >= limit:
			refusal = fullStatus(g.settings)
		default:
			g.consumers = append(g.consumers, c)
		}
	})
	return errors.Join(err, refusal)
}

// leave gives back what the consumer had in flight. It may have been dropped.
func (g *group) leave(c *consumer) {
	// A group that has stopped has let go of all its consumers.
	_ = g.do(context.Background(), func() { g.remove(c) })
}

// drop lets a consumer go. One that does not know of it yet may give cause for it
// again, and is not told twice: nobody would listen.
func (g *group) drop(c *consumer, err error) {
	if !slices.Contains(g.consumers, c) {
		return
	}
	g.remove(c)
	c.dropped <- err
}

func (g *group) remove(c *consumer) {
	for _, m := range c.inFlight {
		m.lane.wait(m)
	}
	c.inFlight, c.bytes = nil, 0
	g.consumers = slices.DeleteFunc(g.consumers, func(other *consumer) bool { return other == c })
	g.turn = 0
}

func (g *group) checkpointDue(now time.Time) bool {
	return g.done >= g.settings.MaxCheckpointCount ||
		g.done > 0 && g.done >= g.settings.MinCheckpointCount &&
			!now.Before(g.checkpointAt.Add(milliseconds(g.settings.CheckpointAfter)))
}

// checkpoint writes down how far the group is done. After a failure it waits for
// more messages: no progress is lost by that but what would be repeated.
func (g *group) checkpoint(now time.Time) {
	g.done, g.checkpointAt = 0, now
	place := g.source.floor() - 1
	if place <= g.checkpointed {
		return
	}
	if err := g.writeCheckpoint(place); err != nil {
		g.log.Error().Err(err).Msg("persistent subscription cannot write its checkpoint")
	}
}

func (g *group) writeCheckpoint(place int64) error {
	err := g.store.appendOne(context.Background(), g.settings.checkpointStream(), proposed{
		kind: "$SubscriptionCheckpoint", json: true, data: strconv.AppendQuote(nil, g.settings.format(place)),
	})
	if err == nil {
		g.checkpointed = place
	}
	return err
}

// truncateParked hides the parked events below a revision.
func (g *group) truncateParked(before int64) {
	if before <= g.truncated {
		return
	}
	err := g.store.appendOne(context.Background(), metadataPrefix+g.settings.parkedStream(), proposed{
		kind: metadataType, json: true, data: fmt.Appendf(nil, `{"$tb":%d}`, before),
	})
	if err != nil {
		g.log.Error().Err(err).Msg("persistent subscription cannot mark parked events as replayed")
		return
	}
	g.truncated = before
}

// replay has the parked events below a revision delivered again.
func (g *group) replay(ctx context.Context, stopAt int64) error {
	if g.failure != nil {
		return g.failure
	}
	h, err := g.store.state(ctx, g.settings.parkedStream())
	if err != nil {
		return err
	}
	return g.do(ctx, func() { g.replayTo = max(g.replayTo, min(stopAt, after(h.last))) })
}
