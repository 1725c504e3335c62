package claims

import (
	"strconv"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/queuemodel"
)

// Event is an event of a queue as the API returns it in the queue's history.
type Event struct {
	ID         string         `json:"id"`
	Type       string         `json:"type"`
	Revision   int64          `json:"revision"`
	RecordedAt domain.Instant `json:"recordedAt"`
	Data       Data           `json:"data"`
	Metadata   Metadata       `json:"metadata"`
}

// Data has the data of an event. The event's type decides which fields are set.
type Data struct {
	At         domain.Instant `json:"at"`
	ConsumerID string         `json:"consumerId,omitempty"`
	Entry      int64          `json:"entry,omitempty"`
	ByHand     bool           `json:"byHand,omitempty"`
	ExpiresAt  domain.Instant `json:"expiresAt,omitzero"`
	Reason     string         `json:"reason,omitempty"`

	CloseAt                domain.Instant    `json:"closeAt,omitzero"`
	MaxCapacity            int64             `json:"maxCapacity,omitempty"`
	AdmissionRate          int64             `json:"admissionRate,omitempty"`
	SessionDurationSeconds int64             `json:"sessionDurationSeconds,omitempty"`
	Changed                map[string]Change `json:"changed,omitempty"`
}

// Change is how an update changed a field.
type Change struct {
	New Value `json:"new"`
}

// Value is the value of a field that the rules of a queue depend on: a number or a
// time. It is 0 for null, and for the values of all other fields.
type Value int64

// UnmarshalJSON implements json.Unmarshaler.
func (v *Value) UnmarshalJSON(text []byte) error {
	*v = 0
	if n, err := strconv.ParseInt(string(text), 10, 64); err == nil {
		*v = Value(n)
	} else if s, err := strconv.Unquote(string(text)); err == nil {
		at, _ := domain.ParseInstant(s, "")
		*v = Value(at)
	}
	return nil
}

// Metadata is the metadata of an event.
type Metadata struct {
	Hash      string `json:"hash"`
	PrevHash  string `json:"prevHash"`
	RequestID string `json:"requestId,omitempty"`
}

// Automatic reports whether the event is an admission that no request asked for.
func (e *Event) Automatic() bool {
	return e.Type == queuemodel.ConsumerAdmitted && !e.Data.ByHand
}

// model returns the event in the types of package queuemodel.
func (e *Event) model() queuemodel.Event {
	m := queuemodel.Event{
		Type: e.Type, At: queuemodel.Time(e.Data.At), ByHand: e.Data.ByHand,
		Consumer: e.Data.ConsumerID, Entry: e.Data.Entry, Reason: e.Data.Reason, ExpiresAt: queuemodel.Time(e.Data.ExpiresAt),
	}
	switch e.Type {
	case queuemodel.QueueCreated:
		m.Settings = queuemodel.Settings{
			Capacity: e.Data.MaxCapacity, Rate: e.Data.AdmissionRate, Session: e.Data.SessionDurationSeconds, CloseAt: queuemodel.Time(e.Data.CloseAt),
		}
	case queuemodel.QueueUpdated:
		m.Changes = map[string]int64{}
		for field, change := range e.Data.Changed {
			m.Changes[field] = int64(change.New)
		}
	}
	return m
}

// History replays the history of a queue, event by event.
type History struct {
	Queue queuemodel.Queue // the queue after the events so far

	next int64 // the revision of the next event
	hash string
}

// Take applies the next event. It checks the claims that it can check without the answers
// to requests: Whole, Once, Turn and Life. It reports whether the event fits the history.
func (h *History) Take(e *Event, v *Verdicts) bool {
	v.Of(Whole).Hold(e.Revision == h.next && e.Metadata.PrevHash == h.hash,
		"%s has revision %d in the place of %d, or another hash before it", e.Type, e.Revision, h.next)
	h.next, h.hash = e.Revision+1, e.Metadata.Hash
	m := e.model()
	fits := h.Queue.Fits(m)
	switch {
	case e.Type == queuemodel.ConsumerEntered:
		v.Of(Once).Hold(fits, "%s entered again while %s", e.Data.ConsumerID, h.Standing(e.Data.ConsumerID))
	case queuemodel.Moves(e.Type):
		v.Of(Life).Hold(fits, "%s for %s, who is %s", e.Type, e.Data.ConsumerID, h.Standing(e.Data.ConsumerID))
	}
	if fits && e.Automatic() {
		first, _ := h.Queue.First()
		v.Of(Turn).Hold(first.Consumer == e.Data.ConsumerID, "%s before %s", e.Data.ConsumerID, first.Consumer)
	}
	h.Queue.Apply(m)
	return fits
}

// Standing returns the standing of a consumer's newest entry, as text for a message.
func (h *History) Standing(consumer string) string {
	if e, ok := h.Queue.Newest(consumer); ok {
		return string(e.Standing)
	}
	return "nowhere"
}
