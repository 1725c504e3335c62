package ledger

import "github.com/google/uuid"

// Evidence is everything that a ledger compares: a client's requests, the log, and an
// engine's answers. The tests that plant mistakes start from recorded evidence.
type Evidence struct {
	Log      []Event
	Requests []*Request
	Shown    map[string]*Reply // the objects that the engine shows, by id
}

// Event is an event of a recorded log. A store that takes it gives it a revision and a
// position.
type Event struct {
	Stream         string
	ID             uuid.UUID
	Type           string
	Data, Metadata string // JSON, byte for byte as it was stored
}
