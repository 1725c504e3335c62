package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// rateChanges are changes of a rate while consumers wait. With each new rate the first
// admission is due long before the wake of the old rate.
var rateChanges = []struct{ from, to, waiting int }{{0, 60, 3}, {1, 600, 10}, {60, 600, 10}}

// soonEnough is how late the first admission may be on a busy machine. If the scheduler
// misses the change, the admission waits up to 30 s for the sweep.
const soonEnough = 5 * time.Second

// rateBody returns a request's body with an admission rate. A rate of 0 is null.
func rateBody(rest string, rate int) string {
	if rate == 0 {
		return body(`{%s"admissionRate":null}`, rest)
	}
	return body(`{%s"admissionRate":%d}`, rest, rate)
}

// paceAfter checks the events after the first change of a queue's rate: no admission waits
// for the sweep, and none comes earlier than the new rate allows.
func paceAfter(t *testing.T, events []domain.Event, to int) {
	t.Helper()
	var changed domain.Instant
	var admitted []domain.Instant
	for _, e := range events {
		switch e := e.(type) {
		case domain.Updated:
			if _, ok := e.Changed["admissionRate"]; ok && changed == 0 {
				changed = e.At
			}
		case domain.ConsumerAdmitted:
			if changed != 0 {
				admitted = append(admitted, e.At)
			}
		}
	}
	if len(admitted) == 0 {
		t.Fatal("nobody is admitted after the change")
	}
	first, last := admitted[0].Time().Sub(changed.Time()), admitted[len(admitted)-1].Time().Sub(changed.Time())
	even := time.Duration(len(admitted)) * time.Minute / time.Duration(to)
	if first > soonEnough || last > soonEnough+even {
		t.Errorf("%d are admitted from %s to %s after the change to %d a minute", len(admitted), first, last, to)
	}
	most := max(1, to/60) // the size of the bucket
	for i := most; i < len(admitted); i++ {
		if gap, least := admitted[i]-admitted[i-most], domain.Instant(most*60_000/to); gap < least-1 {
			t.Errorf("%d are admitted within %d ms at a rate of %d", most+1, gap, to)
		}
	}
}

// A queue gets a faster rate while consumers wait. The first admission comes when it is due
// by the new rate, not at the next sweep.
func TestRate_aRiseAdmitsWithoutWaitingForTheSweep(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	for _, c := range rateChanges {
		t.Run(fmt.Sprint(c.from, " to ", c.to), func(t *testing.T) {
			t.Parallel()
			path := e.must(201, "POST", "/api/v1/queues", key, rateBody(body(`"sequenceId":"s","openAt":%q,`, in(-1000)), c.from)).header.Get("Location")
			for i := range c.waiting {
				e.must(200, "POST", path+"/enter", key, "", "X-Consumer-Id", fmt.Sprint("c-", i))
			}
			e.must(200, "PUT", path, key, rateBody("", c.to))
			eventually(t, "all are admitted", func() bool {
				return e.must(200, "GET", path+"/status", key, "", "X-Consumer-Id", fmt.Sprint("c-", c.waiting-1)).object(t)["status"] == "ADMITTED"
			})
			var events []domain.Event
			for _, r := range eventsOf(t, officialClient(t, dir), filepath.Base(path)) {
				switch r.EventType {
				case "queue.updated":
					events = append(events, decoded[domain.Updated](t, r.Data))
				case "queue.consumer.admitted":
					events = append(events, decoded[domain.ConsumerAdmitted](t, r.Data))
				}
			}
			paceAfter(t, events, c.to)
		})
	}
}

func decoded[E domain.Event](t *testing.T, data []byte) (e E) {
	t.Helper()
	if err := json.Unmarshal(data, &e); err != nil {
		t.Fatal(err)
	}
	return e
}

// A node's timers learn of changes by another node. Here the node that gets the change has
// no timers.
func TestRate_aRiseOnAnotherNodeAdmitsWithoutWaitingForTheSweep(t *testing.T) {
	t.Parallel()
	c := newCluster(t, 2)
	c.nodes[0].stopScheduler()
	ask := asking(t, c)
	for _, change := range rateChanges {
		t.Run(fmt.Sprint(change.from, " to ", change.to), func(t *testing.T) {
			t.Parallel()
			made := ask(0, http.MethodPost, "/api/v1/queues", rateBody(body(`"sequenceId":"s","openAt":%q,`, in(-1000)), change.from), "")
			path, stream := made.header.Get("Location"), domain.ID(made.object(t)["id"].(string)).Stream()
			for i := range change.waiting {
				if a := ask(0, http.MethodPost, path+"/enter", "", fmt.Sprint("c-", i)); a.status != http.StatusOK {
					t.Fatalf("%d: %s", a.status, a.body)
				}
			}
			if a := ask(0, http.MethodPut, path, rateBody("", change.to), ""); a.status != http.StatusOK {
				t.Fatalf("%d: %s", a.status, a.body)
			}
			l := c.nodes[1].log
			eventually(t, "all are admitted", func() bool {
				return inTheLog(t, l, stream).Aggregate.(*domain.Queue).Tally.Waiting == 0
			})
			var events []domain.Event
			for r, err := range l.Read(t.Context(), stream, domain.NoStream) {
				if err != nil {
					t.Fatal(err)
				}
				events = append(events, r.Event)
			}
			paceAfter(t, events, change.to)
		})
	}
}
