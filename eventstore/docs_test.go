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

This page has every event of the log, with an example of its data. The bytes are those of the golden files in
` + "`eventstore/testdata/events`" + `, which pin them. An event's name and schema version never change their meaning.
` + "`go test ./eventstore -run Docs -update`" + ` writes this page.

| stream | what its events say |
|---|---|
| ` + "`<kind>-<id without its prefix>`" + ` | the history of a distribution |
| ` + "`organization-…`" + ` | the history of an organization and its keys |
| ` + "`claim-…`" + ` | which id a repeatable creation made |
| ` + "`signing-keys`" + ` | the keys that sign tokens |
| ` + "`seal-check`" + ` | the check value of the master key |
| ` + "`sink-…`" + ` | which node sends to a message broker, and up to where everything is sent |
| ` + "`clock-comparisons`" + ` | events that nodes wrote to compare their clocks with the store's |

` + "`at`" + ` is the time at which the event counts. Sealed values begin with ` + "`v1.`" + `: [integrity.md](integrity.md).

| metadata | |
|---|---|
| ` + "`schemaVersion`" + ` | the version of the data's shape |
| ` + "`commandId`" + ` | the command that the event follows from; the same for all events of one command |
| ` + "`$correlationId`" + `, ` + "`$causationId`" + ` | EventStoreDB's own names: the request or timer, and the command |
| ` + "`actor`" + ` | the id of the key, ` + "`consumer`" + ` for the consumer whom the event is about, ` + "`clock`" + `, or ` + "`operator`" + ` |
| ` + "`onBehalfOf`" + ` | the consumer for whom a key acts |
| ` + "`requestId`" + `, ` + "`bodyHash`" + ` | the request's id; the SHA-256 of its body if it had an ` + "`Idempotency-Key`" + ` |
| ` + "`traceparent`" + ` | the command's place in a trace ([W3C Trace Context](https://www.w3.org/TR/trace-context/)), if it was traced |
| ` + "`hash`" + ` | the link of the hash chain: [integrity.md](integrity.md) |
`)
	b.WriteString(`
## Messages

Every event of a distribution is published as a CloudEvent (` + "`specversion`" + ` 1.0, in JSON). The message has the event's ` + "`id`" + `, its name as
` + "`type`" + `, the distribution's id as ` + "`subject`" + `, ` + "`at`" + ` as ` + "`time`" + ` and the stored bytes as ` + "`data`" + `. Its topic is the kind:
` + "`queue`" + `, ` + "`draw`" + ` or ` + "`auction`" + `. When the schedule is set or changed, a message of the type ` + "`distribution.updated`" + ` follows on the
topic of that name. Its id is the UUIDv5 of the event's id and the type. On NATS the subjects are these topics with the prefix
` + "`lotline.`" + `, and ` + "`Nats-Msg-Id`" + ` is the id. A message that is too large for the broker comes without ` + "`data`" + `.
[asyncapi.yaml](../httpapi/asyncapi.yaml), which an engine serves at ` + "`/asyncapi.yaml`" + `, has the schema of each message.

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
			b.WriteString("\nor, with the optional fields that were added later:\n")
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
