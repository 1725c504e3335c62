package esdb_test

// The client's tests read from a database of 20 million bytes that comes with a
// Docker image. This file makes the part of the database that the tests read. It
// takes the events from the JSON files that the client's module has of the expected
// results. The positions have gaps, like those of a real server.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/eventstore/embedded"
)

// populate makes the file of a store with that data set. It inserts the rows into the
// file directly, because the store would choose the times and positions itself.
func populate(path string) error {
	server, err := embedded.Open(path, zerolog.Nop())
	if err != nil {
		return err
	}
	if err := server.Close(); err != nil {
		return err
	}
	events, err := dataset()
	if err != nil {
		return err
	}
	db, err := sqlite3.Open(path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := db.Exec(`BEGIN`); err != nil {
		return err
	}
	streams := make(map[string]int64)
	created := int64(0)
	for _, e := range events {
		if streams[e.StreamID] == 0 {
			streams[e.StreamID] = int64(len(streams) + 1)
			if err := execute(db, `INSERT INTO streams (id, name) VALUES (?, ?)`, streams[e.StreamID], e.StreamID); err != nil {
				return err
			}
		}
		created = max(created, e.Created.Seconds*10_000_000+int64(e.Created.Nanos)/100)
		isJSON := int64(0)
		if e.ContentType == "application/json" {
			isJSON = 1
		}
		err := execute(db, `INSERT INTO events (position, stream, revision, id, type, is_json, created, data, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			int64(e.Position.Commit), streams[e.StreamID], int64(e.StreamRevision.Value), e.EventID[:], e.EventType, isJSON, created,
			string(e.EventData), string(e.UserMetadata))
		if err != nil {
			return fmt.Errorf("event at %d: %w", e.Position.Commit, err)
		}
	}
	return db.Exec(`COMMIT`)
}

func execute(db *sqlite3.Conn, sql string, values ...any) error {
	statement, _, err := db.Prepare(sql)
	if err != nil {
		return err
	}
	defer statement.Close()
	for i, value := range values {
		switch value := value.(type) {
		case int64:
			err = statement.BindInt64(i+1, value)
		case string:
			err = statement.BindText(i+1, value)
		case []byte:
			err = statement.BindBlob(i+1, value)
		}
		if err != nil {
			return err
		}
	}
	return statement.Exec()
}

// storedEvent is an event in the form of the JSON files.
type storedEvent struct {
	EventID        uuid.UUID `json:"eventId"`
	EventType      string    `json:"eventType"`
	StreamID       string    `json:"streamId"`
	StreamRevision struct {
		Value uint64 `json:"value"`
	} `json:"streamRevision"`
	Created struct {
		Seconds int64 `json:"seconds"`
		Nanos   int   `json:"nanos"`
	} `json:"created"`
	Position     Position       `json:"position"`
	ContentType  string         `json:"contentType"`
	EventData    bytesAsNumbers `json:"eventData"`
	UserMetadata bytesAsNumbers `json:"userMetadata"`
}

// bytesAsNumbers are bytes that JSON has as an array of numbers.
type bytesAsNumbers []byte

func (b *bytesAsNumbers) UnmarshalJSON(data []byte) error {
	var numbers []uint16
	if err := json.Unmarshal(data, &numbers); err != nil {
		return err
	}
	*b = make([]byte, len(numbers))
	for i, number := range numbers {
		(*b)[i] = byte(number)
	}
	return nil
}

const resources = "../resources/test"

func readResource(name string, into any) error {
	data, err := os.ReadFile(filepath.Join(resources, name))
	if err != nil {
		return err
	}
	return json.Unmarshal(data, into)
}

// dataset returns the events in the order of their positions.
func dataset() ([]storedEvent, error) {
	at := make(map[uint64]storedEvent)
	for _, name := range []string{
		"all-e0-e10.json", "all-c1788-p1788.json", "all-back-c3386-p3386.json", "all-back-e0-e10.json",
		"dataset20M-1800-e0-e10.json", "dataset20M-1800-e1999-e1990.json",
	} {
		var expected []struct {
			Event storedEvent `json:"event"`
		}
		if err := readResource(name, &expected); err != nil {
			return nil, err
		}
		for _, e := range expected {
			at[e.Event.Position.Commit] = e.Event
		}
	}

	// The files have only the positions and revisions of the events of type eventType-194.
	var positions []Position
	var revisions []uint64
	if err := readResource("all-positions-filtered-stream-194-e0-e30.json", &positions); err != nil {
		return nil, err
	}
	if err := readResource("all-versions-filtered-stream-194-e0-e30.json", &revisions); err != nil {
		return nil, err
	}
	for i, position := range positions {
		at[position.Commit] = madeEvent(fmt.Sprintf("dataset20M-at-%d", position.Commit), "eventType-194", revisions[i], position.Commit)
	}

	// dataset20M-0 has 6,000 events. No other events have these positions.
	for revision := range uint64(6000) {
		position := 13_000_000 + 100*revision
		at[position] = madeEvent("dataset20M-0", "eventType-0", revision, position)
	}

	events := make([]storedEvent, 0, len(at))
	for _, e := range at {
		events = append(events, e)
	}
	slices.SortFunc(events, func(a, b storedEvent) int { return cmp.Compare(a.Position.Commit, b.Position.Commit) })
	return events, nil
}

func madeEvent(stream, kind string, revision, position uint64) storedEvent {
	e := storedEvent{
		EventID: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Append(nil, stream, revision)), EventType: kind, StreamID: stream,
		Position: Position{Prepare: position, Commit: position}, ContentType: "application/json", EventData: []byte("{}"),
	}
	e.StreamRevision.Value = revision
	return e
}
