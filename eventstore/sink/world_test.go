package sink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a log, a broker and the nodes between them, in a synctest bubble: time
// advances when every goroutine waits.
type world struct {
	t *testing.T

	mu       sync.Mutex // guards the fields below
	position uint64
	happened []*domain.Recorded       // events of distributions
	doubted  map[domain.Position]bool // events that the read models refuse
	leases   []*domain.Recorded
	written  []time.Time // when each lease was written
	kept     uint64
	taken    []taken // messages that the broker took, repeats included
	nodes    []*node
}

// taken is a message that the broker took.
type taken struct {
	node  int
	at    time.Time
	topic string
	event domain.CloudEvent
}

// node is a sink with its connections to the log and to the broker.
type node struct {
	*Sink
	w      *world
	number int
	skew   time.Duration // of its clock
	logged bytes.Buffer
	cancel context.CancelFunc
	ended  chan struct{}

	// Faults that a test injects, guarded by w.mu. A fault "before" makes a call fail
	// without effect, one "behind" makes it fail after it took effect.
	dead    bool
	cut     bool // the broker is unreachable, and Ready says so
	spoilt  bool // another program wrote into the sink's stream
	lagging bool // the server that the node reads from lacks the last event
	looks   int  // how often it read the lease
	publish func() (before, behind error)
	append  func() (before, behind error)
}

var errCut = errors.New("cut off")

// The read models have followed everything, and refuse only the doubted events.
func (n *node) WaitFor(context.Context, domain.Position) error { return nil }

func (n *node) Believes(r *domain.Recorded) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return !n.w.doubted[r.Position]
}

func inWorld(t *testing.T, f func(w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, doubted: map[domain.Position]bool{}}
		defer func() {
			for _, n := range w.nodes {
				n.stop()
			}
			w.checkWrites()
		}()
		f(w)
	})
}

// sleep advances the time of the bubble.
func sleep(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // synctest

// start adds a node that starts now. change may modify it first.
func (w *world) start(change ...func(*node)) *node {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := &node{w: w, number: len(w.nodes), ended: make(chan struct{})}
	for _, c := range change {
		c(n)
	}
	head := domain.Position{Commit: w.position, Prepare: w.position}
	n.Sink = New("bus", n, n, n, head, func() time.Time { return time.Now().Add(n.skew) }, zerolog.New(&n.logged))
	w.nodes = append(w.nodes, n)
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	go func() {
		defer close(n.ended)
		n.Run(ctx)
	}()
	return n
}

func (n *node) stop() {
	n.cancel()
	<-n.ended
}

// kill acts like kill -9: nothing that the node does has an effect any more.
func (n *node) kill() {
	n.set(func() { n.dead = true })
	n.stop()
}

func (n *node) set(change func()) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	change()
}

const nine = domain.Instant(1_795_000_000_000)

// happen appends n events to three queues in turn, and delivers them to all nodes.
func (w *world) happen(n int) {
	w.t.Helper()
	for range n {
		w.record(domain.Opened{Stamp: domain.Stamp{At: nine}}, nil)
	}
}

func (w *world) record(e domain.Event, data []byte) {
	w.mu.Lock()
	w.position++
	i := len(w.happened)
	if data == nil {
		data = fmt.Appendf(nil, `{"n":%d}`, i)
	}
	r := &domain.Recorded{
		ID: uuid.New(), Type: "queue.opened", Stream: fmt.Sprintf("queue-01h455vb4pex5vsknk084sn02%c", "qrs"[i%3]),
		Position: domain.Position{Commit: w.position, Prepare: w.position}, RecordedAt: time.Now(), Data: data, Event: e,
	}
	w.happened = append(w.happened, r)
	nodes := w.nodes
	w.mu.Unlock()
	for _, n := range nodes {
		n.Follow(r)
		n.Follow(r) // delivered again, as after a reconnection
	}
}

// Between implements Log.
func (n *node) Between(ctx context.Context, after, until domain.Position, _ []domain.Kind) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		n.w.mu.Lock()
		all, dead := n.w.happened, n.dead
		if n.lagging {
			all = all[:len(all)-1]
		}
		n.w.mu.Unlock()
		if dead || ctx.Err() != nil {
			yield(nil, domain.ErrUnavailable)
			return
		}
		for _, r := range all {
			if after.Before(r.Position) && !until.Before(r.Position) && !yield(r, nil) {
				return
			}
		}
	}
}

// Newest implements Log.
func (n *node) Newest(_ context.Context, stream string) (*domain.Recorded, error) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.looks++
	if n.dead {
		return nil, domain.ErrUnavailable
	}
	if stream != "sink-bus" || len(n.w.leases) == 0 {
		return nil, nil
	}
	if n.spoilt {
		return &domain.Recorded{Stream: stream, Revision: 99, Type: "junk"}, nil
	}
	return n.w.leases[len(n.w.leases)-1], nil
}

// KeepNewest implements Log.
func (n *node) KeepNewest(_ context.Context, _ string, kept uint64) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.w.kept = kept
	return nil
}

// Encode implements Log.
func (n *node) Encode(_ string, e domain.Event, _ domain.Metadata) (domain.Proposed, error) {
	data, err := json.Marshal(e)
	return domain.Proposed{Type: "sink.leased", Data: data}, err
}

// testHash has the form of a hash.
func testHash(revision int) string { return fmt.Sprintf("%043d", revision) }

// Append implements Log.
func (n *node) Append(ctx context.Context, _ string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	n.w.mu.Lock()
	fault := n.append
	n.w.mu.Unlock()
	var before, behind error
	if fault != nil {
		before, behind = fault()
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if before == nil && (n.dead || ctx.Err() != nil) {
		before = domain.ErrUnavailable
	}
	if before != nil {
		return domain.Head{}, domain.Position{}, before
	}
	end := domain.EmptyHead()
	if last := len(n.w.leases) - 1; last >= 0 {
		end = domain.Head{Revision: domain.Revision(last), Hash: testHash(last)}
	}
	if head != end {
		return domain.Head{}, domain.Position{}, domain.ErrWrongRevision
	}
	var e domain.Leased
	if err := json.Unmarshal(events[0].Data, &e); err != nil {
		return domain.Head{}, domain.Position{}, err
	}
	end = domain.Head{Revision: end.Revision + 1, Hash: testHash(int(end.Revision) + 1)}
	n.w.position++
	n.w.leases = append(n.w.leases, &domain.Recorded{
		ID: events[0].ID, Revision: end.Revision, Event: e, RawMetadata: domain.WithHash([]byte(`{"a":1}`), end.Hash),
	})
	n.w.written = append(n.w.written, time.Now())
	return end, domain.Position{}, behind
}

// Ready implements Bus.
func (n *node) Ready(context.Context) error {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if n.cut {
		return errCut
	}
	return nil
}

// Publish implements Bus.
func (n *node) Publish(topic string, messages ...*message.Message) error {
	n.w.mu.Lock()
	fault := n.publish
	n.w.mu.Unlock()
	var before, behind error
	if fault != nil {
		before, behind = fault()
	}
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if before == nil && (n.dead || n.cut) {
		before = errCut
	}
	if before != nil {
		return before
	}
	for _, m := range messages {
		var e domain.CloudEvent
		if err := json.Unmarshal(m.Payload, &e); err != nil || e.ID != m.UUID {
			n.w.t.Errorf("%s is published under %s: %v", m.Payload, m.UUID, err)
		}
		n.w.taken = append(n.w.taken, taken{n.number, time.Now(), topic, e})
	}
	return behind
}

// arrived returns what the broker took. complete says that, without the repeats, this is
// everything that happened, in the order of the log.
func (w *world) arrived() (all []taken, complete bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, next := map[string]bool{}, 0
	for _, m := range w.taken {
		if seen[m.event.ID] {
			continue
		}
		seen[m.event.ID] = true
		if m.topic != "queue" {
			continue
		}
		if next == len(w.happened) || m.event.ID != uuid.UUID(w.happened[next].ID).String() {
			w.t.Errorf("after %d events in order came %s %s", next, m.event.ID, m.event.Data)
			return w.taken, false
		}
		next++
	}
	return w.taken, next == len(w.happened)
}

// arrives fails the test if the broker does not have everything that happened after d.
func (w *world) arrives(d time.Duration) []taken {
	w.t.Helper()
	sleep(d)
	synctest.Wait()
	all, complete := w.arrived()
	if !complete {
		w.t.Fatalf("after %s %d messages have come of %d events; node 0: %s", d, len(all), len(w.happened), w.nodes[0].logged.String())
	}
	return all
}

// once fails the test if a message arrived twice.
func (w *world) once(all []taken) {
	w.t.Helper()
	seen := map[string]int{}
	for _, m := range all {
		if seen[m.event.ID]++; seen[m.event.ID] == 2 {
			w.t.Errorf("%s came twice", m.event.Data)
		}
	}
}

// newest returns the present lease.
func (w *world) newest() domain.Leased {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.leases) == 0 {
		return domain.Leased{}
	}
	return w.leases[len(w.leases)-1].Event.(domain.Leased)
}

// last returns the position of the last event.
func (w *world) last() domain.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.happened[len(w.happened)-1].Position
}

func (w *world) writes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.leases)
}

// checkWrites checks two rules for all leases: a holder writes at most once a second, and
// a checkpoint is never ahead of what was sent and never goes back.
func (w *world) checkWrites() {
	w.t.Helper()
	sent := map[string]time.Time{}
	for _, m := range w.taken {
		if _, ok := sent[m.event.ID]; !ok {
			sent[m.event.ID] = m.at
		}
	}
	var before domain.Leased
	for i, r := range w.leases {
		e := r.Event.(domain.Leased)
		if e.Position.Before(before.Position) {
			w.t.Errorf("checkpoint %d goes back from %d to %d", i, before.Position.Commit, e.Position.Commit)
		}
		if i > 0 && e.Holder != "" && e.Holder == before.Holder && w.written[i].Sub(w.written[i-1]) < writeEvery {
			w.t.Errorf("checkpoint %d was written %s after the one before", i, w.written[i].Sub(w.written[i-1]))
		}
		for _, h := range w.happened {
			if e.Position.Before(h.Position) || h.Event == nil || w.doubted[h.Position] {
				continue
			}
			if at, ok := sent[uuid.UUID(h.ID).String()]; !ok || at.After(w.written[i]) {
				w.t.Errorf("checkpoint %d is ahead of what was sent: %d", i, h.Position.Commit)
				return
			}
		}
		before = e
	}
}
