package eventstore

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// eventsPage returns what docs/events.md must contain.
func eventsPage(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(`# Stored events

Every event of the log, with an example of its data: the bytes are those of the golden files in
` + "`eventstore/testdata/events`" + `, which pin them. An event's name and schema version never change their meaning. This page
is written by ` + "`go test ./eventstore -run Docs -update`" + `.

A distribution's events are in the stream ` + "`<kind>-<id without its prefix>`" + `, an organization's in ` + "`organization-…`" + `. ` + "`claim-…`" + `
streams hold which id a repeatable creation made, ` + "`seal-check`" + ` the check value of the master key, ` + "`sink-…`" + ` streams who sends
what leaves the system, and up to where it is sent, ` + "`signing-keys`" + ` the keys by which tokens are signed, ` + "`clock-comparisons`" + ` what nodes
wrote to compare their clocks with the store's. ` + "`at`" + ` is when the event counts. Sealed values begin with ` + "`v1.`" + `: [integrity.md](integrity.md).

| metadata | |
|---|---|
| ` + "`schemaVersion`" + ` | the version of the data's shape |
| ` + "`commandId`" + ` | the command that the event follows from; the same for all events of one command |
| ` + "`$correlationId`" + `, ` + "`$causationId`" + ` | EventStoreDB's own names: the request or timer, and the command |
| ` + "`actor`" + `, ` + "`onBehalfOf`" + ` | the key's id, ` + "`consumer`" + ` for the one whom the event is about, ` + "`clock`" + ` or ` + "`operator`" + `; the consumer that a key acts for |
| ` + "`requestId`" + `, ` + "`bodyHash`" + ` | the request's id; the SHA-256 of its body when it had an ` + "`Idempotency-Key`" + ` |
| ` + "`traceparent`" + ` | where the command stands in a trace ([W3C Trace Context](https://www.w3.org/TR/trace-context/)), when it was traced |
| ` + "`hash`" + ` | the link of the hash chain: [integrity.md](integrity.md) |
`)
	b.WriteString(`
## Messages

Every event of a distribution is published as a CloudEvent (` + "`specversion`" + ` 1.0, in JSON) with the event's ` + "`id`" + `, its name as
` + "`type`" + `, the distribution's id as ` + "`subject`" + `, ` + "`at`" + ` as ` + "`time`" + ` and the stored bytes as ` + "`data`" + `, on its kind's topic:
` + "`queue`" + `, ` + "`draw`" + ` or ` + "`auction`" + `. When the schedule is set or changed, a message of the type ` + "`distribution.updated`" + ` follows on the
topic of that name, whose id is the UUIDv5 of the event's id and the type. On NATS the subjects are these topics behind
` + "`lotline.`" + `, ` + "`Nats-Msg-Id`" + ` is the id, and a message that is too large for the broker comes without ` + "`data`" + `.
[asyncapi.yaml](../httpapi/asyncapi.yaml), which an engine serves at ` + "`/asyncapi.yaml`" + `, has the schema of each.

` + "```json" + `
`)
	for _, m := range sampleMessages(t) {
		fmt.Fprintf(&b, "%s\n", m.Payload)
	}
	b.WriteString("```\n")
	var last schema
	for _, g := range goldens() {
		data, err := os.ReadFile(g.file)
		if err != nil {
			t.Fatal(err)
		}
		if g.schema == last {
			b.WriteString("\nor, with what may be left out and was not known at first:\n")
		} else {
			fmt.Fprintf(&b, "\n## %s, version %d\n", g.name, g.version)
		}
		fmt.Fprintf(&b, "\n```json\n%s```\n", data)
		last = g.schema
	}
	return b.String()
}

// sampleMessages returns the messages for the creation of a queue with a schedule.
func sampleMessages(t *testing.T) []domain.Message {
	t.Helper()
	e := queueCreated()
	e.EncryptionSeed.Sealed = "v1.c2VhbGVk"
	e.OpenAt = e.At + 1000
	data, err := newCodec().encode(e)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := domain.Messages(&domain.Recorded{
		ID: uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057"), Type: "queue.created", Stream: stream, Data: data, Event: e,
	})
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func TestDocs_listEveryStoredEvent(t *testing.T) {
	t.Parallel()
	const path = "../docs/events.md"
	want := eventsPage(t)
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not up to date: go test ./eventstore -run Docs -update", path)
	}
}
