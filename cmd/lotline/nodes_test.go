package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// Two nodes get the same request at the same time. Both answer what the log holds. A
// draw's commitment is the hardest case: it is random, and each node makes its own before
// it knows the other's.
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

// A consumer that enters a queue on two nodes at once has one place in it, and both nodes
// answer with that place.
func TestNodes_aConsumerThatEntersOnTwoNodesAtOnceHasOnePlace(t *testing.T) {
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

// Without any request, consumers are admitted and sessions end on time. This happens once,
// although two nodes run timers.
func TestNodes_timersRunAQueueWithoutRequests(t *testing.T) {
	t.Parallel()
	// latest is well before the next sweep, so only the timers can be the reason.
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

func TestNodes_twoEnginesOnOneStoreActAsOne(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	later := in(3_600_000)

	// same sends one request to both nodes at once.
	same := func(d *request, status int) (location string) {
		t.Helper()
		var replies [2]*reply
		d.Attempts = 2
		both(func(i int) {
			var err error
			if replies[i], err = d.SendAttempt(i+1, p.http, p.nodes[i].url, testSecretKey); err != nil {
				t.Error(err)
			}
		})
		if t.Failed() {
			t.FailNow()
		}
		if replies[0].Replayed {
			slices.Reverse(replies[:])
		}
		d.Reply, d.Again = replies[0], []reply{*replies[1]}
		if d.Reply.Status != status {
			t.Fatalf("%d %s", d.Reply.Status, d.Reply.Body)
		}
		return d.Reply.Location
	}
	for range 20 {
		for _, collection := range collections {
			path := same(p.request("created", "POST", collection, `{"sequenceId":"s"`+ends(collection, later)+`}`), 201)
			same(p.request("updated", "POST", path+"/open", ""), 200)
			// An update needs no key: the second one finds nothing to change.
			same(p.request("updated", "PUT", path, `{"name":"said at both"}`), 200)

			// Two updates have the same condition, which only one of them can meet.
			var updates [2]*reply
			tag := p.nodes[0].must(200, "GET", path, testSecretKey, "").header.Get("ETag")
			both(func(i int) {
				d := p.request("updated", "PUT", path, body(`{"name":"of %d"}`, i))
				d.IfMatch = tag
				updates[i] = p.do(i, d)
			})
			if got := []int{updates[0].Status, updates[1].Status}; !slices.Equal(got, []int{200, 412}) && !slices.Equal(got, []int{412, 200}) {
				t.Errorf("two updates of one state: %v", got)
			}

			// A write at one node is read at the other.
			a := p.do(0, p.request("updated", "PUT", path, body(`{"name":%q}`, in(0))))
			b := p.nodes[1].must(200, "GET", path, testSecretKey, "", "X-Position", a.Position)
			if a.Body != string(b.body) {
				t.Errorf("written\n%s\nand read\n%s", a.Body, b.body)
			}

			// An update races with the close. It comes before the close or is refused.
			both(func(i int) {
				if i == 0 {
					p.do(0, p.request("updated", "POST", path+"/close", ""))
				} else {
					p.do(1, p.request("updated", "PUT", path, `{"name":"just in time"}`))
				}
			})

			// A deletion races with the opening. Only one of them succeeds.
			other := p.create(0, collection, ends(collection, later))
			var won [2]int
			both(func(i int) {
				if i == 0 {
					won[0] = p.do(0, p.request("deleted", "DELETE", other, "")).Status
				} else {
					won[1] = p.do(1, p.request("updated", "POST", other+"/open", "")).Status
				}
			})
			if won != [2]int{204, 404} && won != [2]int{409, 200} {
				t.Errorf("deleted %d, opened %d", won[0], won[1])
			}
		}
	}

	// The timers of both nodes race for the same steps.
	opens, closes := in(3000), in(4000)
	both(func(i int) {
		for n := range 150 {
			collection := collections[n%3]
			p.create(i, collection, body(`,"openAt":%q`, opens)+ends(collection, closes))
		}
	})
	p.check()

	// One node dies, and the other runs all timers.
	opens, closes = in(700), in(1200)
	var paths []string
	for n := range 30 {
		paths = append(paths, p.create(0, collections[n%3], body(`,"openAt":%q`, opens)+ends(collections[n%3], closes)))
	}
	p.nodes[0].kill()
	for _, path := range paths {
		if r := p.do(1, p.request("updated", "PUT", path, `{"name":"by the other"}`)); r.Status != 200 && r.Status != 409 {
			t.Errorf("%d %s", r.Status, r.Body)
		}
	}
	p.check()
}
