package ledger

import "github.com/google/uuid"

// Evidence is what a client and an engine left behind: everything that a ledger
// compares. The planted-fault tests start from evidence that was recorded.
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
