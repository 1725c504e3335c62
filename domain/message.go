package domain

import (
	"crypto/sha1" // UUIDv5 is defined over it
	"encoding/hex"
	"encoding/json"
	"fmt"
)

// TopicDistributionUpdated is the topic of the message bus for changed schedules.
// The topic of a public event is the name of its kind.
const TopicDistributionUpdated = "distribution.updated"

// CloudEvent is a public event or a message derived from one, in the JSON format
// of CloudEvents 1.0 (https://cloudevents.io).
type CloudEvent struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"` // the distribution's id
	Time            Instant         `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Data            json.RawMessage `json:"data,omitempty"`
}

// NewCloudEvent returns a message about the distribution subject. The caller chooses an
// id that no other message has.
func NewCloudEvent(id, messageType string, subject ID, at Instant, data json.RawMessage) CloudEvent {
	return CloudEvent{
		SpecVersion: "1.0", ID: id, Source: "lotline", Type: messageType, Subject: string(subject),
		Time: at, DataContentType: "application/json", Data: data,
	}
}

// AppendJSON appends the event. It copies the data unchanged, so they must be JSON.
func (e CloudEvent) AppendJSON(dst []byte) []byte {
	for _, member := range [...]struct{ name, value string }{
		{`{"specversion":`, e.SpecVersion}, {`,"id":`, e.ID}, {`,"source":`, e.Source}, {`,"type":`, e.Type}, {`,"subject":`, e.Subject},
	} {
		dst = append(dst, member.name...)
		dst = appendString(dst, member.value)
	}
	dst = append(dst, `,"time":`...)
	dst = e.Time.appendJSON(dst)
	dst = append(dst, `,"datacontenttype":`...)
	dst = appendString(dst, e.DataContentType)
	if len(e.Data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, e.Data...)
	}
	return append(dst, '}')
}

// Message is a CloudEvent for subscribers, and the topic that it belongs to.
type Message struct {
	Topic   string
	Event   CloudEvent
	Payload []byte // Event in JSON
}

// WithoutData returns the message without its data, for a channel on which the whole
// message is too large.
func (m Message) WithoutData() Message {
	m.Event.Data = nil
	m.encode()
	return m
}

func (m *Message) encode() {
	m.Payload = m.Event.AppendJSON(make([]byte, 0, 320+len(m.Event.Data)))
}

// Messages returns the messages of a distribution's event: the event itself on its
// kind's topic, and the messages that are derived from it. The id of a derived
// message is the UUIDv5 of the event's id and the message's type. The
// messages depend on the event alone, so every node makes the same messages.
func Messages(r *Recorded) ([]Message, error) {
	subject, err := StreamID(r.Stream)
	if err != nil {
		return nil, err
	}
	at := r.Event.When()
	kind := string(StreamKind(r.Stream))
	out := []Message{{Topic: kind, Event: NewCloudEvent(uuidText(r.ID), r.Type, subject, at, r.Data)}}
	if timing, ok := TimingOf(subject, r.Event); ok {
		data, err := json.Marshal(timing)
		if err != nil {
			return nil, fmt.Errorf("encode a timing change of %s: %w", subject, err)
		}
		derived := uuidV5(r.ID, TopicDistributionUpdated)
		out = append(out, Message{
			Topic: TopicDistributionUpdated,
			Event: NewCloudEvent(uuidText(derived), TopicDistributionUpdated, subject, at, data),
		})
	}
	for i := range out {
		out[i].encode()
	}
	return out, nil
}

// uuidV5 is the UUIDv5 (RFC 9562) of a name in a namespace.
func uuidV5(namespace [16]byte, name string) (id [16]byte) {
	sum := sha1.Sum(append(namespace[:], name...))
	copy(id[:], sum[:])
	id[6] = id[6]&0x0f | 0x50 // the version
	id[8] = id[8]&0x3f | 0x80 // the variant
	return id
}

// uuidText writes a UUID in its usual form (RFC 9562).
func uuidText(id [16]byte) string {
	out := make([]byte, 0, 36)
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		if i > 0 {
			out = append(out, '-')
		}
		start := [...]int{0, 4, 6, 8, 10}[i]
		out = hex.AppendEncode(out, id[start:end])
	}
	return string(out)
}

// TimingChanged is the data of a message on TopicDistributionUpdated: which of
// openAt, closeAt, drawAt and settleAt were set or changed, and why.
type TimingChanged struct {
	DistributionID   ID                `json:"distributionId"`
	DistributionType Kind              `json:"distributionType"`
	Changed          map[string]Change `json:"changed"`
	Cause            Cause             `json:"cause"`
}

// TimingOf returns what e, an event of the distribution id, sets or changes of
// the schedule, and false when it leaves the schedule alone.
func TimingOf(id ID, e Event) (TimingChanged, bool) {
	t := TimingChanged{DistributionID: id, DistributionType: id.Kind(), Changed: map[string]Change{}}
	set := func(name string, i Instant) {
		if i != 0 {
			t.Changed[name] = Change{Old: []byte("null"), New: i.appendJSON(nil)}
		}
	}
	switch e := e.(type) {
	case *QueueCreated:
		t.Cause = CauseCreate
		set("openAt", e.OpenAt)
		set("closeAt", e.CloseAt)
	case *DrawCreated:
		t.Cause = CauseCreate
		set("openAt", e.OpenAt)
		set("closeAt", e.CloseAt)
		set("drawAt", e.DrawAt)
	case *AuctionCreated:
		t.Cause = CauseCreate
		set("openAt", e.OpenAt)
		set("closeAt", e.CloseAt)
		set("settleAt", e.SettleAt)
	case Updated:
		t.Cause = e.Cause
		for _, name := range []string{"openAt", "closeAt", "drawAt", "settleAt"} {
			if c, ok := e.Changed[name]; ok {
				t.Changed[name] = c
			}
		}
	}
	return t, len(t.Changed) > 0
}
