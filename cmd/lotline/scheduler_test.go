package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/commands/scheduler"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/projections"
)

// bubble is a synctest bubble with several nodes on one log in memory. Each node has read
// models, a command handler and a scheduler as in the program. Time in the bubble costs
// nothing.
type bubble struct {
	t       *testing.T
	encoder *eventstore.Log // encodes events; it is never connected
	dir     string
	keys    *eventstore.Keyring

	mu      sync.Mutex // guards the fields below
	streams map[string][]*domain.Recorded
	all     []*domain.Recorded
	events  map[string]domain.Event    // by type and stored bytes
	truth   map[string]*domain.History // each stream's state by the log
	touched map[string]domain.Instant  // when each stream was last appended to
	grown   chan struct{}              // closed at the next append
	latest  time.Duration              // the lateness of the latest step of a timer
}

// inBubble runs a test in a bubble without nodes.
func inBubble(t *testing.T, test func(b *bubble)) {
	t.Helper()
	keys, err := eventstore.NewKeyring(make([]byte, eventstore.MasterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	encoder, err := eventstore.Connect("esdb://127.0.0.1:1?tls=false", keys)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, encoder)
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		test(&bubble{
			t: t, encoder: encoder, keys: keys, dir: dir,
			streams: map[string][]*domain.Recorded{}, events: map[string]domain.Event{}, truth: map[string]*domain.History{},
			touched: map[string]domain.Instant{}, grown: make(chan struct{}),
		})
	})
}

func elapse(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // in a synctest bubble
	synctest.Wait()
}

func clockNow() domain.Instant { return domain.InstantOf(time.Now()) }

// Encode implements commands.Log.
func (b *bubble) Encode(stream string, e domain.Event, m domain.Metadata) (domain.Proposed, error) {
	p, err := b.encoder.Encode(stream, e, m)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events[p.Type+string(p.Data)] = e
	return p, err
}

// Append implements commands.Log.
func (b *bubble) Append(_ context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if head.Revision != domain.Revision(len(b.streams[stream])-1) {
		return domain.Head{}, domain.Position{}, fmt.Errorf("append to %s: %w", stream, domain.ErrWrongRevision)
	}
	h, ok := b.truth[stream]
	if !ok {
		h = domain.NewHistory(stream)
		b.truth[stream] = h
	}
	b.overdue(h)
	for _, p := range events {
		head.Revision++
		head.Hash = domain.EventHash(p.ID, p.Type, stream, head.Revision, p.Data, p.Metadata, head.Hash)
		at := uint64(len(b.all) + 1)
		r := &domain.Recorded{
			ID: p.ID, Type: p.Type, Stream: stream, Revision: head.Revision, Position: domain.Position{Commit: at, Prepare: at},
			RecordedAt: time.Now(), Data: p.Data, RawMetadata: domain.WithHash(p.Metadata, head.Hash), Event: b.events[p.Type+string(p.Data)],
		}
		err := json.Unmarshal(p.Metadata, &r.Metadata)
		if err = errors.Join(err, h.Apply(r)); err != nil {
			b.t.Error(err)
		}
		b.streams[stream], b.all = append(b.streams[stream], r), append(b.all, r)
	}
	b.touched[stream] = clockNow()
	close(b.grown)
	b.grown = make(chan struct{})
	return head, b.all[len(b.all)-1].Position, nil
}

// overdue records by how much the next step of a stream is overdue, counted from the time
// when it was due or, if that is later, from the event that made it due. The caller must
// hold mu.
func (b *bubble) overdue(h *domain.History) {
	if due := h.Aggregate.Wake(); due != 0 {
		b.latest = max(b.latest, clockNow().Time().Sub(max(due, b.touched[h.Stream]).Time()))
	}
}

// Read implements commands.Log.
func (b *bubble) Read(_ context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		b.mu.Lock()
		events := b.streams[stream][min(int(after+1), len(b.streams[stream])):]
		b.mu.Unlock()
		for _, r := range events {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// bubbleNode is a node in a bubble.
type bubbleNode struct {
	views   *projections.Views
	handler *commands.Handler
}

// node starts a node whose read models lag behind the log. It calls lag for the lag of
// each event. The returned function stops the node.
func (b *bubble) node(lag func() time.Duration, keepsTime bool) (*bubbleNode, func()) {
	b.t.Helper()
	origin := projections.Origin{ID: "log", Head: domain.Position{Commit: 1 << 60}, Log: b}
	path := filepath.Join(b.dir, fmt.Sprint("views-", rand.Uint64()))
	views, err := projections.Open(path, origin, b.keys, zerolog.Nop())
	if err != nil {
		b.t.Fatal(err)
	}
	n := &bubbleNode{views, commands.NewHandler(b, views, time.Now)}
	stops := []func(){start(func(ctx context.Context) { b.follow(ctx, views, lag) })}
	if keepsTime {
		s := scheduler.New(views, n.handler, time.Now, zerolog.Nop())
		s.Begin()
		stops = append(stops, start(s.Run))
	}
	return n, func() {
		for _, stop := range slices.Backward(stops) {
			stop()
		}
		if err := errors.Join(n.handler.Close(context.Background()), views.Close()); err != nil {
			b.t.Error(err)
		}
	}
}

// follow lets read models follow the log.
func (b *bubble) follow(ctx context.Context, v *projections.Views, lag func() time.Duration) {
	for next := 0; ; {
		b.mu.Lock()
		events, grown := b.all[next:], b.grown
		b.mu.Unlock()
		for _, r := range events {
			v.Follow(r)
		}
		if next += len(events); len(events) > 0 {
			v.Passed(events[len(events)-1].Position)
		}
		select {
		case <-grown:
			time.Sleep(lag()) //nolint:forbidigo // in a synctest bubble
		case <-ctx.Done():
			return
		}
	}
}

// handle carries out a command on a node. It may be refused.
func (b *bubble) handle(n *bubbleNode, stream string, c domain.Command) {
	b.t.Helper()
	_, err := n.handler.Handle(b.t.Context(), commands.Request{Stream: stream, Command: c, Caller: commands.Caller{Actor: "key"}})
	if _, refused := errors.AsType[*domain.Error](err); err != nil && !refused {
		b.t.Errorf("%T on %s: %v", c, stream, err)
	}
}

// requestFields returns the fields of a request's body.
func requestFields(format string, args ...any) domain.Fields {
	var f domain.Fields
	if err := json.Unmarshal(fmt.Appendf(nil, format, args...), &f); err != nil {
		panic(err)
	}
	return f
}

// create makes a distribution with the schedule and the fields of a body.
func (b *bubble) create(n *bubbleNode, k domain.Kind, format string, args ...any) (stream string) {
	b.t.Helper()
	r, err := n.handler.Create(b.t.Context(), commands.Creation{
		Kind: k, Organization: "org_01h455vb4pex5vsknk084sn02q", Fields: requestFields(format, args...),
		Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"}, Caller: commands.Caller{Actor: "key"},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return r.History.Stream
}

// admissions returns the times of a queue's automatic admissions, counted from an instant.
func (b *bubble) admissions(stream string, from domain.Instant) (all []time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.streams[stream] {
		if e, ok := r.Event.(domain.ConsumerAdmitted); ok && !e.ByHand && e.At >= from {
			all = append(all, e.At.Time().Sub(from.Time()))
		}
	}
	return all
}

// level is the lag of read models that do not lag.
func level() time.Duration { return 0 }

// every returns n durations: first, first+step and so on.
func every(first, step time.Duration, n int) (all []time.Duration) {
	for i := range n {
		all = append(all, first+time.Duration(i)*step)
	}
	return all
}

// One node changes the rate of a queue while consumers wait, and another node runs the
// timers. The first admission comes when it is due by the new rate, and the others follow
// evenly.
func TestScheduler_aChangedRateIsKeptToTheMillisecond(t *testing.T) {
	t.Parallel()
	const s, ms = time.Second, time.Millisecond
	for name, c := range map[string]struct {
		from  string
		after time.Duration // since the opening
		to    []string      // the new rates, one second apart
		want  []time.Duration
	}{
		"none to 60":         {"null", 28 * s, []string{"60"}, every(1*s, 1*s, 20)},
		"1 to 600":           {"1", 28 * s, []string{"600"}, every(54*ms, 100*ms, 20)}, // 28 of 60 s had passed
		"60 to 600":          {"60", 5*s + 500*ms, []string{"600"}, every(50*ms, 100*ms, 15)},
		"600 to 1":           {"600", 1*s + 40*ms, []string{"1"}, every(36*s, 60*s, 10)}, // 40 of 100 ms had passed
		"600 to none to 600": {"600", 1*s + 40*ms, []string{"null", "600"}, every(1100*ms, 100*ms, 10)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(b *bubble) {
				first, stop := b.node(level, false)
				defer stop()
				_, stop = b.node(level, true)
				defer stop()
				queue := b.create(first, domain.KindQueue, `{"sequenceId":"s","openAt":%q,"admissionRate":%s}`, clockNow(), c.from)
				for i := range 20 {
					b.handle(first, queue, domain.Enter{ConsumerID: fmt.Sprint("c-", i)})
				}
				elapse(c.after)
				from := clockNow()
				for i, rate := range c.to {
					if i > 0 {
						elapse(s)
					}
					b.handle(first, queue, domain.Update{Fields: requestFields(`{"admissionRate":%s}`, rate)})
				}
				elapse(time.Hour)
				if got := b.admissions(queue, from); !slices.Equal(got, c.want) {
					t.Errorf("admitted %v after the change, want %v", got, c.want)
				}
			})
		})
	}
}

// A node dies between the two appends of a large outcome, and nothing else is appended. The
// other node appends the rest.
func TestScheduler_finishesAnOutcomeAfterTheDeathOfANode(t *testing.T) {
	t.Parallel()
	inBubble(t, func(b *bubble) {
		n, stop := b.node(level, true)
		defer stop()
		queue := b.create(n, domain.KindQueue, `{"sequenceId":"s","openAt":%q}`, clockNow())
		elapse(time.Minute)
		h := b.truth[queue].Fork()
		head := h.Head
		events, err := h.Decide(clockNow(), domain.Step{To: domain.StatusClosed})
		for due, dueErr := range h.Advance(clockNow()) {
			events, err = append(events, due...), errors.Join(err, dueErr)
		}
		if _, completed := events[len(events)-1].(domain.Completed); err != nil || !completed {
			t.Fatalf("%v, %v", events, err)
		}
		var part []domain.Proposed
		for i, e := range events[:len(events)-1] {
			p, err := b.Encode(queue, e, domain.Metadata{Actor: "key"})
			if err != nil {
				t.Fatal(err)
			}
			p.ID[0] = byte(i + 1)
			part = append(part, p)
		}
		if _, _, err := b.Append(t.Context(), queue, head, part); err != nil {
			t.Fatal(err)
		}
		elapse(300 * time.Millisecond)
		if status := b.truth[queue].Aggregate.(*domain.Queue).Status; status != domain.StatusCompleted {
			t.Errorf("it is %s", status)
		}
	})
}

// everything sends random commands to each stream, of all types that the stream's kind
// accepts.
type everything struct {
	*bubble
	random *rand.Rand
	orgs   []domain.ID
	made   map[domain.Kind][]string
	serial int
}

func (e *everything) pick(from ...string) string { return from[e.random.IntN(len(from))] }

// soon returns a random time within the next seconds.
func (e *everything) soon() domain.Instant {
	return clockNow().Add(time.Duration(e.random.IntN(8000)) * time.Millisecond)
}

// step carries out a random command on a node.
func (e *everything) step(n *bubbleNode) {
	kind := domain.Kind(e.pick("queue", "queue", "queue", "queue", "queue", "queue", "draw", "draw", "auction", "auction", "organization", "signing"))
	if kind == domain.KindOrganization || kind == domain.KindSigning {
		e.account(n, kind)
		return
	}
	if len(e.made[kind]) == 0 || e.random.IntN(16) == 0 {
		fields := `{"sequenceId":"s","openAt":` + e.pick("null", body("%q", clockNow()), body("%q", e.soon()), body("%q", clockNow().Add(time.Minute)))
		end := clockNow().Add(75 * time.Second)
		fields += map[domain.Kind]string{
			domain.KindQueue:   `,"admissionRate":` + e.pick("null", "1", "60", "600", "6000") + `,"sessionDurationSeconds":` + e.pick("null", "1", "90") + `}`,
			domain.KindDraw:    body(`,"drawAt":%q,"winnerCount":1,"entropySource":`, end) + e.pick("null", `"dice"`) + `}`,
			domain.KindAuction: body(`,"settleAt":%q}`, end),
		}[kind]
		e.made[kind] = append(e.made[kind], e.create(n, kind, "%s", json.RawMessage(fields)))
		return
	}
	latest := e.made[kind][max(0, len(e.made[kind])-2):]
	e.handle(n, latest[e.random.IntN(len(latest))], e.command(kind))
}

func (e *everything) command(kind domain.Kind) domain.Command {
	consumer := fmt.Sprint("c-", e.random.IntN(5))
	if kind == domain.KindQueue && e.random.IntN(6) > 0 {
		switch e.random.IntN(12) {
		case 0:
			return domain.Leave{ConsumerID: consumer}
		case 1:
			return domain.Complete{ConsumerID: consumer}
		case 2:
			return domain.Deny{ConsumerID: consumer, Reason: domain.DenyReasons()[0]}
		case 3:
			return domain.Admit{ConsumerID: consumer}
		case 4:
			return domain.Admit{Count: 2}
		case 5, 6:
			return domain.Update{Fields: requestFields(`{"admissionRate":%s}`, e.pick("null", "1", "60", "600", "6000"))}
		case 7:
			return domain.Update{Fields: requestFields(`{"sessionDurationSeconds":%s}`, e.pick("null", "1", "90"))}
		}
		return domain.Enter{ConsumerID: consumer}
	}
	switch e.random.IntN(8) {
	case 0:
		return domain.Delete{}
	case 1:
		return domain.Step{To: domain.StatusOpen}
	case 2:
		statuses := domain.Statuses()
		return domain.Step{To: statuses[e.random.IntN(len(statuses))]}
	case 3:
		return domain.SupplyEntropy{Fields: requestFields(`{"value":"7 12 40"}`)}
	case 4:
		return domain.Update{Fields: requestFields(`{"closeAt":%q}`, e.soon())}
	case 5:
		return domain.Update{Fields: requestFields(`{"name":"%d"}`, e.random.IntN(1000))}
	}
	return domain.Update{Fields: requestFields(`{"openAt":%s}`, e.pick("null", body("%q", e.soon())))}
}

// account sends a random command to an organization or to the signing keys.
func (e *everything) account(n *bubbleNode, kind domain.Kind) {
	e.serial++
	random := fmt.Sprint("random", e.serial)
	secret := [32]byte([]byte(fmt.Sprintf("%032d", e.serial)))
	key := func(i int) domain.ID { return domain.ID(fmt.Sprint("key_", i)) }
	if kind == domain.KindSigning {
		keys := e.signingKeys()
		if len(keys) > 0 && e.random.IntN(2) == 0 {
			e.handle(n, domain.SigningStream, domain.RevokeSigningKey{KeyID: keys[e.random.IntN(len(keys))].ID, Secret: secret})
			return
		}
		e.handle(n, domain.SigningStream, domain.MakeSigningKey{Secret: secret})
		return
	}
	if len(e.orgs) == 0 {
		e.orgs = []domain.ID{"org_01h455vb4pex5vsknk084sn02q"}
		e.handle(n, e.orgs[0].Stream(), domain.CreateOrganization{ID: e.orgs[0], Name: "Acme", TimeZone: "UTC", CurrencyCode: "USD"})
	}
	org := e.orgs[0].Stream()
	switch e.random.IntN(5) {
	case 0:
		e.handle(n, org, domain.RevokeKey{KeyID: key(e.random.IntN(e.serial)), EvenLast: true})
	case 1:
		e.handle(n, org, domain.Update{Fields: requestFields(`{"name":%q}`, random)})
	default:
		ends := e.pick("null", body("%q", e.soon()), body("%q", clockNow().Add(time.Hour)))
		e.handle(n, org, domain.CreateKey{KeyID: key(e.serial), Fields: requestFields(`{"level":"secret","expiresAt":%s}`, ends), Random: random})
	}
}

func (e *everything) signingKeys() []domain.SigningKey {
	e.mu.Lock()
	defer e.mu.Unlock()
	h, ok := e.truth[domain.SigningStream]
	if !ok {
		return nil
	}
	return slices.Clone(h.Aggregate.(*domain.SigningKeys).Keys)
}

// After any event of any kind, on either of two nodes whose read models lag, the stream's
// next step comes within 100 ms of the time at which it is due.
func TestScheduler_keepsEveryWakeOfEveryEvent(t *testing.T) {
	t.Parallel()
	const latest = 100 * time.Millisecond
	happened := map[string]bool{}
	for seed := range uint64(6) {
		inBubble(t, func(b *bubble) {
			random := rand.New(rand.NewPCG(seed, 0))
			var lags sync.Mutex // guards the random numbers, which the nodes share
			of := rand.New(rand.NewPCG(seed, 1))
			lag := func() time.Duration {
				lags.Lock()
				defer lags.Unlock()
				return time.Duration(of.IntN(60)) * time.Millisecond
			}
			first, stopFirst := b.node(lag, true)
			defer stopFirst()
			second, stopSecond := b.node(lag, true)
			defer stopSecond()
			nodes := []*bubbleNode{first, second}
			e := &everything{bubble: b, random: random, made: map[domain.Kind][]string{}}
			for range 500 {
				e.step(nodes[random.IntN(2)])
				elapse(time.Duration([]int{0, 1, 40, 300, 2000}[random.IntN(5)]) * time.Millisecond)
			}
			// Signing keys last for 30 days.
			elapse(domain.SigningPeriod + time.Hour)
			b.mu.Lock()
			defer b.mu.Unlock()
			for _, h := range b.truth {
				b.overdue(h)
			}
			if b.latest > latest {
				t.Errorf("seed %d: a step of the clock is %s late", seed, b.latest)
			}
			for _, r := range b.all {
				happened[r.Type] = true
			}
		})
	}
	samples, err := os.ReadDir(filepath.Join(root, "eventstore", "testdata", "events"))
	if err != nil {
		t.Fatal(err)
	}
	version := regexp.MustCompile(`\.v\d+(\.\w+)?\.json$`)
	for _, s := range samples {
		name := version.ReplaceAllString(s.Name(), "")
		kind, _, _ := strings.Cut(name, ".")
		if slices.Contains(followedKinds(), domain.Kind(kind)) && !happened[name] {
			t.Errorf("%s never happened: have a command of this test lead to it", name)
		}
	}
}
