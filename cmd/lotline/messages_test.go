package main

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/natsbus"
	"github.com/lotline/lotline/httpapi/apitest"
)

// messages returns the AsyncAPI document that all messages on a bus are compared with.
func (e *engine) messages() *apitest.Messages {
	e.t.Helper()
	m, err := apitest.NewMessages(e.must(200, "GET", "/asyncapi.yaml", "", "").body)
	if err != nil {
		e.t.Fatal(err)
	}
	return m
}

// withBroker starts an engine that sends to a broker.
func withBroker(t *testing.T) (*engine, *broker) {
	t.Helper()
	bus := newBroker(t)
	bus.start()
	return testBinary(t).serve(t, dataDirectory(t), "LOTLINE_SECRET_KEY="+testSecretKey, "LOTLINE_BUS="+bus.url()), bus
}

// received returns the messages of everything that was done so far. It adds one more
// event and waits for its message: messages come in the order of the log.
func (b *broker) received(e *engine) []*nats.Msg {
	b.t.Helper()
	last := e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"last"}`).object(b.t)["id"].(string)
	var got []*nats.Msg
	eventually(b.t, "the broker has everything", func() bool {
		got, _ = b.stored()
		return len(got) > 0 && strings.Contains(string(got[len(got)-1].Data), last)
	})
	return got[:len(got)-1]
}

// Distributions of all three kinds go through every event that is possible without
// participants.
func TestMessages_areAsTheDocumentSays(t *testing.T) {
	t.Parallel()
	e, bus := withBroker(t)
	do := func(status int, method, path, body string) string {
		t.Helper()
		return e.must(status, method, path, testSecretKey, body).header.Get("Location")
	}
	for collection, rest := range map[string]string{
		"queues":   `"maxCapacity":5,"admissionRate":60,"sessionDurationSeconds":60`,
		"draws":    `"drawAt":"2198-03-01T00:00:00Z","winnerCount":1,"maxEntries":5,"entropySource":"drand"`,
		"auctions": `"settleAt":"2198-03-01T00:00:00Z","startingBid":1.5,"minimumIncrement":"0.25","reservePrice":2,"buyNowPrice":999999999999.99`,
	} {
		body := `{"sequenceId":"s","name":"Ünï <b>","metadata":{"a":[1,null]},"openAt":"2198-01-01T00:00:00Z","closeAt":"2198-02-01T00:00:00Z",` + rest + `}`
		path := do(201, "POST", "/api/v1/"+collection, body)
		do(200, "PUT", path, `{"openAt":null,"name":null,"metadata":null}`)
		do(200, "PUT", path, `{"openAt":"2198-01-02T00:00:00Z"}`)
		do(200, "POST", path+"/open", "")
		do(200, "POST", path+"/close", "")
		switch collection {
		case "draws":
			do(200, "PUT", path+"/entropy", `{"value":"b3c4d5"}`)
			do(200, "POST", path+"/draw", "")
		case "auctions":
			do(200, "POST", path+"/settle", "")
		}
		do(204, "DELETE", path, "")
	}
	do(201, "POST", "/api/v1/auctions", `{"sequenceId":"s","settleAt":"2198-03-01T00:00:00Z","auctionType":"dutch","startPrice":9,"floorPrice":1,"priceDropAmount":1,"priceDropIntervalSeconds":60}`)
	do(201, "POST", "/api/v1/draws", `{"sequenceId":"s","openAt":"2020-01-01T00:00:00Z","drawAt":"2020-01-02T00:00:00Z","winnerCount":1,"backfill":false}`)

	m := e.messages()
	seen := map[string]bool{}
	for _, got := range bus.received(e) {
		headers := map[string]string{}
		for name := range got.Header {
			headers[name] = got.Header.Get(name)
		}
		if err := m.Check(got.Subject, headers, got.Data); err != nil {
			t.Errorf("%s %v %s: %v", got.Subject, headers, got.Data, err)
		}
		var event domain.CloudEvent
		if err := json.Unmarshal(got.Data, &event); err != nil {
			t.Fatal(err)
		}
		seen[event.Type] = true
	}
	for address, types := range m.Types() {
		for _, name := range types {
			if !seen[name] && !strings.Contains(name, ".consumer.") {
				t.Errorf("nothing of %s came on %s", name, address)
			}
		}
	}
}

// Every change that sets or moves a time of the schedule is published as a message of its
// own, with the old time, the new time and the cause. No other change is.
func TestMessages_everyChangeOfTheScheduleIsPublished(t *testing.T) {
	t.Parallel()
	e, bus := withBroker(t)
	const (
		queue   = `{"sequenceId":"s","openAt":"2198-01-01T00:00:00Z","closeAt":"2198-02-01T00:00:00Z"}`
		draw    = `{"sequenceId":"s","openAt":"2198-01-01T00:00:00Z","closeAt":"2198-02-01T00:00:00Z","drawAt":"2198-03-01T00:00:00Z","winnerCount":1}`
		auction = `{"sequenceId":"s","openAt":"2198-01-01T00:00:00Z","closeAt":"2198-02-01T00:00:00Z","settleAt":"2198-03-01T00:00:00Z"}`
		past    = `{"sequenceId":"s","openAt":"2020-01-01T00:00:00Z","settleAt":"2020-02-01T00:00:00Z"}`
	)
	type timing struct {
		DistributionID, DistributionType string
		Changed                          map[string]map[string]any
		Cause                            string
	}
	want, got, names := map[string][]timing{}, map[string][]timing{}, map[string]string{} // by id
	for name, row := range map[string]struct {
		collection, made   string
		before             []string // steps by hand before the change
		method, call, body string   // the change; empty if it is the creation
		fields             []string // the fields that change
		cause              string
	}{
		"a queue is made":                 {collection: "queues", made: queue, fields: []string{"openAt", "closeAt"}, cause: "create"},
		"a queue is made without times":   {collection: "queues", made: `{"sequenceId":"s"}`},
		"a draw is made":                  {collection: "draws", made: draw, fields: []string{"openAt", "closeAt", "drawAt"}, cause: "create"},
		"a draw is made as a draft":       {collection: "draws", made: `{"sequenceId":"s","drawAt":"2198-03-01T00:00:00Z","winnerCount":1}`, fields: []string{"drawAt"}, cause: "create"},
		"an auction is made":              {collection: "auctions", made: auction, fields: []string{"openAt", "closeAt", "settleAt"}, cause: "create"},
		"an auction is made that is over": {collection: "auctions", made: past, fields: []string{"openAt", "settleAt"}, cause: "create"},
		"an opening is moved":             {collection: "queues", made: queue, method: "PUT", body: `{"openAt":"2198-01-02T00:00:00Z"}`, fields: []string{"openAt"}, cause: "update"},
		"an opening is taken back":        {collection: "draws", made: draw, method: "PUT", body: `{"openAt":null}`, fields: []string{"openAt"}, cause: "update"},
		"an opening is set":               {collection: "queues", made: `{"sequenceId":"s"}`, method: "PUT", body: `{"openAt":"2198-01-02T00:00:00Z"}`, fields: []string{"openAt"}, cause: "update"},
		"a close is cleared":              {collection: "auctions", made: auction, method: "PUT", body: `{"closeAt":null}`, fields: []string{"closeAt"}, cause: "update"},
		"a close is moved while open":     {collection: "queues", made: queue, before: []string{"/open"}, method: "PUT", body: `{"closeAt":"2198-02-02T00:00:00Z"}`, fields: []string{"closeAt"}, cause: "update"},
		"a draw is moved":                 {collection: "draws", made: draw, method: "PUT", body: `{"drawAt":"2198-03-02T00:00:00Z"}`, fields: []string{"drawAt"}, cause: "update"},
		"a settlement is moved":           {collection: "auctions", made: auction, method: "PUT", body: `{"settleAt":"2198-03-02T00:00:00Z"}`, fields: []string{"settleAt"}, cause: "update"},
		"all times are moved, and more":   {collection: "auctions", made: auction, method: "PUT", body: `{"name":"x","openAt":"2198-01-02T00:00:00Z","closeAt":"2198-02-02T00:00:00Z","settleAt":"2198-03-02T00:00:00Z"}`, fields: []string{"openAt", "closeAt", "settleAt"}, cause: "update"},
		"another field changes":           {collection: "queues", made: queue, method: "PUT", body: `{"name":"x","maxCapacity":5}`},
		"a time zone changes":             {collection: "queues", made: queue, method: "PUT", body: `{"timeZone":"Asia/Tokyo"}`},
		"nothing changes":                 {collection: "queues", made: queue, method: "PUT", body: queue},
		"a queue is opened by hand":       {collection: "queues", made: queue, method: "POST", call: "/open", fields: []string{"openAt"}, cause: "hand"},
		"a draft is opened by hand":       {collection: "queues", made: `{"sequenceId":"s"}`, method: "POST", call: "/open", fields: []string{"openAt"}, cause: "hand"},
		"a queue is closed by hand":       {collection: "queues", made: queue, before: []string{"/open"}, method: "POST", call: "/close", fields: []string{"closeAt"}, cause: "hand"},
		"a draw is closed by hand":        {collection: "draws", made: draw, before: []string{"/open"}, method: "POST", call: "/close", fields: []string{"closeAt"}, cause: "hand"},
		"a draw is drawn by hand":         {collection: "draws", made: draw, before: []string{"/open", "/close"}, method: "POST", call: "/draw", fields: []string{"drawAt"}, cause: "hand"},
		"an auction is opened by hand":    {collection: "auctions", made: auction, method: "POST", call: "/open", fields: []string{"openAt"}, cause: "hand"},
		"an auction is settled by hand":   {collection: "auctions", made: auction, before: []string{"/open", "/close"}, method: "POST", call: "/settle", fields: []string{"settleAt"}, cause: "hand"},
		"it is deleted":                   {collection: "queues", made: queue, method: "DELETE"},
	} {
		made := e.must(201, "POST", "/api/v1/"+row.collection, testSecretKey, row.made)
		path, before, after := made.header.Get("Location"), map[string]any{}, made.object(t)
		id := after["id"].(string)
		names[id] = name
		tell := func(cause string, fields ...string) {
			told := timing{id, after["type"].(string), map[string]map[string]any{}, cause}
			for _, field := range fields {
				told.Changed[field] = map[string]any{"old": before[field], "new": after[field]}
			}
			if len(fields) > 0 {
				want[id] = append(want[id], told)
			}
		}
		if row.method == "" {
			tell(row.cause, row.fields...)
			continue
		}
		tell("create", setIn(row.made)...)
		for _, step := range row.before {
			before, after = after, e.must(200, "POST", path+step, testSecretKey, "").object(t)
			tell("hand", step[1:]+"At")
		}
		a := e.call(row.method, path+row.call, testSecretKey, row.body)
		if a.status != 200 && a.status != 204 {
			t.Fatalf("%s: %d %s", name, a.status, a.body)
		}
		if before = after; a.status == 200 {
			after = a.object(t)
		}
		tell(row.cause, row.fields...)
	}
	for _, m := range bus.received(e) {
		if m.Subject != natsbus.SubjectPrefix+domain.TopicDistributionUpdated {
			continue
		}
		var event struct {
			Subject string
			Data    timing
		}
		if err := json.Unmarshal(m.Data, &event); err != nil {
			t.Fatal(err)
		}
		got[event.Subject] = append(got[event.Subject], event.Data)
	}
	for id, name := range names {
		if !reflect.DeepEqual(got[id], want[id]) {
			t.Errorf("%s: published is %v\nwant %v", name, got[id], want[id])
		}
	}
}

// setIn returns the times of the schedule that a body sets.
func setIn(body string) []string {
	return slices.DeleteFunc([]string{"openAt", "closeAt", "drawAt", "settleAt"}, func(field string) bool {
		return !strings.Contains(body, field)
	})
}
