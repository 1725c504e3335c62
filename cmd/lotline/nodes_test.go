package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
)

// twoNodes are the command handlers of two engines on one real store.
func twoNodes(t *testing.T) (*log, []*commands.Handler) {
	t.Helper()
	s := &settings{DataDir: dataDirectory(t)}
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	second, err := eventstore.ConnectSocket(dir.file(socketFile), l.keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, c := range []interface{ Close() error }{second, l} {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	// Their clocks differ, as clocks do.
	late := func() time.Time { return time.Now().Add(7 * time.Millisecond) }
	return l, []*commands.Handler{commands.NewHandler(l, nil, time.Now), commands.NewHandler(second, nil, late)}
}

// inTheLog folds a stream as it is stored, and so checks it.
func inTheLog(t *testing.T, l *log, stream string) *domain.History {
	t.Helper()
	h := domain.NewHistory(stream)
	for r, err := range l.Read(t.Context(), stream, domain.NoStream) {
		if err == nil {
			err = h.Apply(r)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// Whichever node answers a repeated request, and however close together, the
// answer is what the log holds. A draw's commitment is the hardest case: it is
// random, and each node makes one of its own before it knows of the other's.
func TestNodes_thatGetTheSameRequestAtOnceAnswerTheSame(t *testing.T) {
	t.Parallel()
	l, nodes := twoNodes(t)
	draw := domain.Fields{
		"sequenceId": json.RawMessage(`"s"`), "drawAt": json.RawMessage(`"2199-01-01T00:00:00Z"`), "winnerCount": json.RawMessage(`1`),
	}
	for round := range 100 {
		key := func(name string) commands.IdempotencyKey {
			return commands.IdempotencyKey{CommandID: uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%s %d", name, round)), BodyHash: "b"}
		}
		var made [2]*domain.History
		both(func(i int) {
			r, err := nodes[i].Create(t.Context(), commands.Creation{
				Kind: domain.KindDraw, Organization: "org_01h455vb4pex5vsknk084sn02r", Fields: draw,
				Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"}, IdempotencyKey: key("create"),
			})
			if err != nil {
				t.Error(err)
				return
			}
			made[i] = r.History
		})
		if t.Failed() {
			return
		}
		stream := made[0].Stream
		stored := inTheLog(t, l, stream).Aggregate.(*domain.Draw)
		for i := range made {
			if got := made[i].Aggregate.(*domain.Draw).SeedCommitment; made[i].Stream != stream || got != stored.SeedCommitment {
				t.Fatalf("node %d answers %s with the commitment %s, the log has %s with %s", i, made[i].Stream, got, stream, stored.SeedCommitment)
			}
		}
		for _, to := range []domain.Status{domain.StatusOpen, domain.StatusClosed} {
			var updated [2]domain.Instant
			both(func(i int) {
				r, err := nodes[i].Handle(t.Context(), commands.Request{Stream: stream, Command: domain.Step{To: to}, IdempotencyKey: key(string(to))})
				if err != nil {
					t.Error(err)
					return
				}
				updated[i] = r.History.Aggregate.(*domain.Draw).UpdatedAt
			})
			if at := inTheLog(t, l, stream).Aggregate.(*domain.Draw).UpdatedAt; updated[0] != at || updated[1] != at {
				t.Fatalf("%s at %v, the log says %s", to, updated, at)
			}
		}
	}
}

// both runs f for 0 and 1 at once.
func both(f func(i int)) {
	var all sync.WaitGroup
	for i := range 2 {
		all.Go(func() { f(i) })
	}
	all.Wait()
}

// Whoever waits for the address of an engine with nothing overdue finds it ready.
func TestNode_isReadyOnceItSaysWhereItListens(t *testing.T) {
	t.Parallel()
	n := newCluster(t, 1).nodes[0]
	if !n.scheduler.CaughtUp() {
		t.Error("it does not know whether anything is overdue")
	}
	for _, check := range n.ready(t.Context()) {
		if check.Err != nil {
			t.Errorf("%s: %v", check.Name, check.Err)
		}
	}
}

// asking asks the nodes of a cluster, for a consumer or for nobody.
func asking(t *testing.T, c *cluster) func(node int, method, path, body, consumer string) answer {
	t.Helper()
	caller := newCaller(t)
	header := http.Header{"Authorization": {"Bearer " + clusterKey}, "Content-Type": {"application/json"}}
	return func(node int, method, path, body, consumer string) answer {
		h := header.Clone()
		if consumer != "" {
			h.Set("X-Consumer-Id", consumer)
		}
		a, err := caller.call(t.Context(), method, c.nodes[node].url+path, body, h)
		if err != nil {
			t.Error(err)
		}
		return a
	}
}

// Whoever enters a queue on two nodes at once has one place in it, and both nodes say
// which.
func TestNodes_whoEntersOnTwoNodesAtOnceHasOnePlace(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	ask := asking(t, c)
	made := ask(0, http.MethodPost, "/api/v1/queues", `{"sequenceId":"drop"}`, "")
	path := made.header.Get("Location")
	ask(0, http.MethodPost, path+"/open", "", "")
	const consumers = 40
	var all sync.WaitGroup
	tickets := make([][2]string, consumers)
	for i := range consumers {
		for node := range c.nodes {
			all.Go(func() {
				a := ask(node, http.MethodPost, path+"/enter", "", fmt.Sprint("c-", i))
				if a.status != http.StatusOK {
					t.Errorf("%d: %s", a.status, a.body)
					return
				}
				tickets[i][node] = a.object(t)["ticket"].(string)
			})
		}
	}
	all.Wait()
	h := inTheLog(t, c.nodes[0].log, domain.ID(made.object(t)["id"].(string)).Stream())
	if q := h.Aggregate.(*domain.Queue); q.Tally != (domain.Tally{Waiting: consumers}) {
		t.Errorf("in the history are %+v", q.Tally)
	}
	for i, both := range tickets {
		if both[0] != both[1] || both[0] == "" {
			t.Errorf("consumer %d has the tickets %q", i, both)
		}
	}
}

// Who waits is admitted, and a session ends, on time and once, though nobody asks and
// two nodes keep the time.
func TestNodes_whatIsDueInAQueueHappensThoughNobodyAsks(t *testing.T) {
	t.Parallel()
	// How late it may be: well before the next sweep, so that the timers were told.
	const latest = 10 * time.Second
	c := newCluster(t, 2)
	ask := asking(t, c)
	made := ask(0, http.MethodPost, "/api/v1/queues", `{"sequenceId":"drop","admissionRate":600,"sessionDurationSeconds":1}`, "")
	path := made.header.Get("Location")
	ask(0, http.MethodPost, path+"/open", "", "")
	const consumers = 6
	for i := range consumers {
		if a := ask(0, http.MethodPost, path+"/enter", "", fmt.Sprint("c-", i)); a.status != http.StatusOK {
			t.Fatalf("%d: %s", a.status, a.body)
		}
	}
	l, stream := c.nodes[0].log, domain.ID(made.object(t)["id"].(string)).Stream()
	within(t, latest, "all sessions have ended", func() bool {
		return inTheLog(t, l, stream).Aggregate.(*domain.Queue).Tally == domain.Tally{Expired: consumers}
	})
	var turn int64
	ends := map[int64]domain.Instant{}
	for r, err := range l.Read(t.Context(), stream, domain.NoStream) {
		if err != nil {
			t.Fatal(err)
		}
		switch e := r.Event.(type) {
		case domain.ConsumerAdmitted:
			if turn++; e.Entry != turn || e.ByHand {
				t.Errorf("entry %d is admitted in the place of %d, by hand: %t", e.Entry, turn, e.ByHand)
			}
			ends[e.Entry] = e.ExpiresAt
		case domain.ConsumerExpired:
			if e.At != ends[e.Entry] {
				t.Errorf("the session of entry %d ended at %s, due %s", e.Entry, e.At, ends[e.Entry])
			}
		}
	}
}
