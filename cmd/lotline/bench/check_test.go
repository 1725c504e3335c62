package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain/queuemodel"
)

// story is a run with one queue. It has the answers to its clients, and the history that
// the server returns afterwards.
type story struct {
	run    *runner
	queue  *queue
	events []map[string]any
	count  int
}

// newStory returns a story in which the server tells the truth. Three consumers enter one
// after another. The first is admitted and completes. The second is admitted.
func newStory() *story {
	r := &runner{prefix: "01234567-89ab-4cde-8f01-", program: Program{Err: io.Discard}, report: &Report{}}
	s := &story{run: r, queue: newQueue("queue_1", 1), count: 1}
	s.queue.rate = 60
	s.happens("queue.created", -1, 0)
	for n := range int64(3) {
		s.happens("queue.consumer.entered", n, n)
		s.queue.acknowledged[0] = append(s.queue.acknowledged[0], entry{
			consumer: n, sent: time.Duration(2*n) * time.Second, acknowledged: time.Duration(2*n+1) * time.Second, position: n + 1,
		})
	}
	s.happens("queue.consumer.admitted", 0, 10)
	s.happens("queue.consumer.completed", 0, 11)
	s.happens("queue.consumer.admitted", 1, 12)
	s.queue.end(0, queuemodel.Completed)
	return s
}

// happens appends an event at a second.
func (s *story) happens(name string, consumer, second int64) {
	data := map[string]any{"at": time.Unix(1_800_000_000+second, 0).UTC().Format("2006-01-02T15:04:05.000Z")}
	if consumer >= 0 {
		data["consumerId"] = s.run.consumerID(consumer)
	}
	s.events = append(s.events, map[string]any{"type": name, "data": data})
}

// data returns the data of an event.
func (s *story) data(i int) map[string]any { return s.events[i]["data"].(map[string]any) } //nolint:forcetypeassert // made above

// ServeHTTP answers as an engine with these events does.
func (s *story) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !strings.HasSuffix(r.URL.Path, "/events") {
		fmt.Fprintf(w, `{"consumerCount":%d}`, s.count)
		return
	}
	hash := ""
	for i, e := range s.events {
		e["revision"] = i
		previous := hash
		hash = fmt.Sprintf("hash%d", i)
		if e["metadata"] == nil {
			e["metadata"] = map[string]any{"hash": hash, "prevHash": previous}
		}
		line, err := json.Marshal(e)
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(w, "%s\n", line)
	}
}

// The check finds each planted lie, and nothing else.
func TestBench_findsPlantedLies(t *testing.T) {
	t.Parallel()
	const entered, admitted, completed, second = 1, 4, 5, 6
	lies := map[string]struct {
		plant  func(s *story)
		broken []string
	}{
		"none": {func(*story) {}, nil},
		"a lost entry": {func(s *story) {
			s.events = slices.Delete(s.events, entered+2, entered+3)
			s.count = 0
		}, []string{claims.Once}},
		"an entry made twice": {func(s *story) {
			s.events = slices.Insert(s.events, entered+3, s.events[entered+2])
			s.events[entered+3] = map[string]any{"type": "queue.consumer.entered", "data": s.data(entered + 2)}
			s.count = 2
		}, []string{claims.Once, claims.Asked}},
		"a stranger": {func(s *story) {
			s.happens("queue.consumer.entered", 77, 20)
			s.count = 2
		}, []string{claims.Asked}},
		"a place taken over": {func(s *story) {
			s.events[entered+1], s.events[entered+2] = s.events[entered+2], s.events[entered+1]
			s.data(second)["consumerId"] = s.run.consumerID(2)
			s.queue.acknowledged[0][1].position, s.queue.acknowledged[0][2].position = 3, 2
		}, []string{claims.Order}},
		"a wrong position": {func(s *story) {
			s.events = s.events[:entered+3]
			s.count = 3
			clear(s.queue.ends)
			s.queue.acknowledged[0][1].position = 1
		}, []string{claims.Position}},
		"out of turn": {func(s *story) {
			s.data(second)["consumerId"] = s.run.consumerID(2)
		}, []string{claims.Turn}},
		"out of turn by hand": {func(s *story) {
			s.data(second)["consumerId"], s.data(second)["byHand"] = s.run.consumerID(2), true
		}, nil},
		"a double admission": {func(s *story) {
			s.data(second)["consumerId"] = s.run.consumerID(0)
			s.events[second], s.events[completed] = s.events[completed], s.events[second]
			s.count = 2
		}, []string{claims.Life}},
		"too fast":            {func(s *story) { s.queue.rate = 1; s.happens("queue.consumer.admitted", 2, 13); s.count = 0 }, []string{claims.Rate}},
		"another count":       {func(s *story) { s.count = 2 }, []string{claims.Tally}},
		"another end":         {func(s *story) { s.queue.end(1, queuemodel.Left) }, []string{claims.End}},
		"a gap in the hashes": {func(s *story) { s.events[admitted]["metadata"] = map[string]any{"hash": "hash4", "prevHash": "x"} }, []string{claims.Whole}},
	}
	for name, lie := range lies {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStory()
			lie.plant(s)
			server := httptest.NewServer(s)
			t.Cleanup(server.Close)
			s.run.api = &api{base: server.URL}
			none := func(context.Context, *claims.Verdicts) error { return nil }
			if err := s.run.check(t.Context(), "story", []*queue{s.queue}, none); err != nil {
				t.Fatal(err)
			}
			var broken []string
			for _, v := range s.run.report.Checks[0].Verdicts {
				if v.Broken > 0 {
					broken = append(broken, v.Claim)
					t.Logf("%s: %s", v.Claim, v.Example)
				}
			}
			slices.Sort(broken)
			slices.Sort(lie.broken)
			if !slices.Equal(broken, lie.broken) || s.run.report.Failed() != (len(lie.broken) > 0) {
				t.Errorf("found %q, of %q", broken, lie.broken)
			}
		})
	}
}

// The check looks at each of a million admissions within a minute once, not at each
// pair of them. Otherwise it would not end after a launch of that size.
func TestBench_checksTheRateOfAMillionAdmissions(t *testing.T) {
	t.Parallel()
	const admissions = 1_000_000
	line := &line{}
	for i := range admissions {
		line.admitted = append(line.admitted, queuemodel.Time(time.UnixMicro(int64(i)*50).UnixMilli()))
	}
	for _, c := range []struct{ rate, broken int64 }{
		{admissions, 0},
		{10_000, admissions - 10_167}, // 10,167 are allowed
	} {
		v := &claims.Verdicts{}
		line.checkRate(c.rate, v)
		if got := v.Of(claims.Rate); got.Looked != admissions || got.Broken != c.broken {
			t.Errorf("with %d a minute: %+v", c.rate, got)
		}
	}
}
