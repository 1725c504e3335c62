package ledger

import "github.com/google/uuid"

// Evidence is everything that a ledger compares: a client's requests, the log, and an
// engine's answers. The tests that plant mistakes start from recorded evidence.
type Evidence struct {
	Log      []Event
	Requests []*Request
	Shown    map[string]*Reply // the engine's answers with objects, by id
}

// Event is an event of a recorded log. It has no revision and no position: a store assigns
// both when the event is appended.
type Event struct {
	Stream         string
	ID             uuid.UUID
	Type           string
	Data, Metadata string // JSON, byte for byte as it was stored
}
