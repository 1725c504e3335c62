package crowd

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/queuemodel"
)

// honest returns the recorded calls to an engine without a planted mistake, and the
// history of the queue. To record it anew, run
// LOTLINE_TEST_RECORD=$PWD/cmd/lotline/crowd/testdata/honest.json LOTLINE_TEST_SEED=1 \
// go test -run '^TestCrowd_oneNode$' ./cmd/lotline
func honest(t *testing.T) *Evidence {
	t.Helper()
	text, err := os.ReadFile("testdata/honest.json")
	if err != nil {
		t.Fatal(err)
	}
	e := &Evidence{}
	if err := json.Unmarshal(text, e); err != nil {
		t.Fatal(err)
	}
	return e
}

// Judge finds each mistake that is planted in honest evidence. It finds no mistake in the
// honest evidence itself.
func TestCrowd_findsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	verdicts := honest(t).Judge()
	for _, claim := range Claims() {
		if v := verdicts.Of(claim); v.Looked == 0 || v.Broken > 0 {
			t.Fatalf("of the honest evidence: %+v", v)
		}
	}
	for name, c := range map[string]struct {
		plant func(*Evidence)
		found []string // at least one of them does not hold
	}{
		"an entry is admitted twice": {func(e *Evidence) {
			i := e.index((*claims.Event).Automatic)
			again := *e.Events[i]
			e.Events = slices.Insert(e.Events, i, &again)
		}, []string{claims.Life}},
		"an acknowledged entry is lost": {func(e *Evidence) {
			lost := e.Events[e.caused[e.call(e.entered).ID][0]].Data
			e.Events = slices.DeleteFunc(e.Events, func(o *claims.Event) bool {
				return o.Data.ConsumerID == lost.ConsumerID && o.Data.Entry == lost.Entry
			})
		}, []string{Explained}},
		"an entry is another's": {func(e *Evidence) {
			taken := e.Events[e.caused[e.call(e.entered).ID][0]].Data
			for _, o := range e.Events {
				if o.Data.ConsumerID == taken.ConsumerID && o.Data.Entry == taken.Entry {
					o.Data.ConsumerID = "thief"
				}
			}
		}, []string{claims.Asked}},
		"two entries change places": {func(e *Evidence) {
			i := e.pair(func(a, b *claims.Event) bool {
				return a.Type == "queue.consumer.entered" && b.Type == a.Type && a.Data.ConsumerID != b.Data.ConsumerID
			})
			a, b := e.Events[i], e.Events[i+1]
			a.Data.ConsumerID, b.Data.ConsumerID = b.Data.ConsumerID, a.Data.ConsumerID
			a.Metadata.RequestID, b.Metadata.RequestID = b.Metadata.RequestID, a.Metadata.RequestID
		}, []string{Explained}},
		"a consumer is admitted out of turn": {func(e *Evidence) {
			i := e.index(func(o *claims.Event) bool { return o.Automatic() && len(e.lineBefore(o)) > 1 })
			second := e.lineBefore(e.Events[i])[1]
			e.Events[i].Data.ConsumerID, e.Events[i].Data.Entry = second.Consumer, second.Number
		}, []string{claims.Turn}},
		"admission by hand is recorded as automatic": {func(e *Evidence) {
			e.Events[e.index(func(o *claims.Event) bool {
				return o.Data.ByHand && len(e.lineBefore(o)) > 1 && o.Data.Entry != e.lineBefore(o)[0].Number
			})].Data.ByHand = false
		}, []string{claims.Turn}},
		"more are admitted than the rate allows": {func(e *Evidence) {
			e.neverChanged().AdmissionRate = 1
		}, []string{Pace}},
		"more wait than there is room for": {func(e *Evidence) {
			e.neverChanged().MaxCapacity = 1
		}, []string{Capacity}},
		"an empty queue is said to be full": {func(e *Evidence) {
			at := e.Calls[0].Called
			e.Calls = append(e.Calls, &Call{
				ID: "planted", Op: Enter, Consumer: "refused", Called: at, Returned: at,
				Status: http.StatusTooManyRequests, Code: domain.Full(domain.KindQueue).Identifier(),
			})
		}, []string{Explained}},
		"a consumer that left still has a place": {func(e *Evidence) {
			// The consumer is told its place again, after it was told that it left.
			left := e.call(func(c *Call) bool { return c.Op == Leave && len(e.caused[c.ID]) > 0 })
			enter := e.call(func(c *Call) bool { return e.entered(c) && c.Consumer == left.Consumer })
			again := *enter
			again.ID, again.Op, again.Called, again.Returned = "planted", Status, left.Returned.Add(1), left.Returned.Add(1)
			e.Calls = append(e.Calls, &again)
		}, []string{Explained}},
		"a consumer that entered is unknown": {func(e *Evidence) {
			enter := e.call(e.entered)
			at := enter.Returned.Add(time.Microsecond)
			e.Calls = append(e.Calls, &Call{
				ID: "planted", Op: Status, Consumer: enter.Consumer, Called: at, Returned: at,
				Status: http.StatusNotFound, Code: domain.NotIn(domain.KindQueue).Identifier(),
			})
		}, []string{Explained}},
		"a session does not end": {func(e *Evidence) {
			i := e.index(func(o *claims.Event) bool { return o.Type == "queue.consumer.expired" })
			e.Events = slices.Delete(e.Events, i, i+1)
		}, []string{Session}},
		"a session ends too early": {func(e *Evidence) {
			e.Events[e.index((*claims.Event).Automatic)].Data.ExpiresAt++
		}, []string{Session}},
		"a token outlives its session": {func(e *Evidence) {
			shown := &e.call(func(c *Call) bool { return len(c.Shown) == 1 && c.Shown[0].Token != "" }).Shown[0]
			parts := strings.Split(shown.Token, ".")
			token := claimsOf(shown.Token)
			token.Expires++
			text, _ := json.Marshal(token)
			parts[1] = base64.RawURLEncoding.EncodeToString(text)
			shown.Token = strings.Join(parts, ".")
		}, []string{Token}},
		"a token counts after its end": {func(e *Evidence) {
			c := e.call(func(c *Call) bool { return c.Valid })
			c.Called = claimsOf(c.Checked).end().Time()
			c.Returned = c.Called
		}, []string{Token, Explained}},
		"a read has something recorded": {func(e *Evidence) {
			read := e.call(func(c *Call) bool { return c.Op == Status })
			e.Events[e.index((*claims.Event).Automatic)].Metadata.RequestID = read.ID
		}, []string{Refusal}},
		"a refused request is carried out": {func(e *Evidence) {
			c := e.call(e.entered)
			c.Status, c.Code, c.Shown = http.StatusTooManyRequests, domain.Full(domain.KindQueue).Identifier(), nil
		}, []string{Refusal}},
		"no call asked for an entry": {func(e *Evidence) {
			e.Events[e.index(func(o *claims.Event) bool { return o.Type == "queue.consumer.entered" })].Metadata.RequestID = ""
		}, []string{claims.Asked}},
		"a repeat is carried out again": {func(e *Evidence) {
			for _, c := range e.Calls {
				if e.entered(c) {
					c.Key = "planted"
				}
			}
		}, []string{Repeat}},
		"a position is wrong": {func(e *Evidence) {
			*e.call(func(c *Call) bool { return e.entered(c) && c.Shown[0].Position != nil }).Shown[0].Position += 1000
		}, []string{Explained}},
		"a ticket changes": {func(e *Evidence) {
			one := e.call(func(c *Call) bool { return c.Op == Status && c.Status == http.StatusOK })
			other := e.call(func(c *Call) bool { return e.entered(c) && c.Consumer != one.Consumer })
			one.Shown[0].Ticket, other.Shown[0].Ticket = "AAAAAAAA", "AAAAAAAA"
		}, []string{Ticket}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := honest(t)
			e.Judge() // plants look at the states and at what calls caused
			c.plant(e)
			e.relink()
			verdicts := e.Judge()
			if !slices.ContainsFunc(c.found, func(claim string) bool { return verdicts.Of(claim).Broken > 0 }) {
				t.Errorf("not found by %q", c.found)
			}
		})
	}
}

// relink numbers and chains the events again. Otherwise the broken chain alone would
// give every planted mistake away.
func (e *Evidence) relink() {
	before := ""
	for i, event := range e.Events {
		event.Revision = int64(i)
		event.Metadata.PrevHash, event.Metadata.Hash = before, strconv.Itoa(i)
		before = strconv.Itoa(i)
	}
}

// neverChanged takes the changes of the queue's fields out of its updates. It returns
// the data of the creation, so that a field can have another value all the time.
func (e *Evidence) neverChanged() *claims.Data {
	for _, event := range e.Events {
		event.Data.Changed = nil
	}
	return &e.Events[0].Data
}

// lineBefore returns the entries that were queued before an event.
func (e *Evidence) lineBefore(event *claims.Event) []queuemodel.Entry {
	return slices.Collect(e.states[event.Revision-1].Line())
}

// entered reports whether a call made an entry and the answer was 200.
func (e *Evidence) entered(c *Call) bool {
	return c.Op == Enter && c.Status == http.StatusOK && len(e.caused[c.ID]) > 0
}

// index returns the index of the first event for which a condition holds.
func (e *Evidence) index(holds func(*claims.Event) bool) int {
	return e.pair(func(event, _ *claims.Event) bool { return holds(event) })
}

// pair returns the index of the first event that meets a condition together with the event
// after it.
func (e *Evidence) pair(hold func(a, b *claims.Event) bool) int {
	for i := range e.Events[1:] {
		if hold(e.Events[i], e.Events[i+1]) {
			return i
		}
	}
	panic("the history has no such event")
}

// call returns the first call for which a condition holds.
func (e *Evidence) call(holds func(*Call) bool) *Call {
	if i := slices.IndexFunc(e.Calls, holds); i >= 0 {
		return e.Calls[i]
	}
	panic("there is no such call")
}
