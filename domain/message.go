package domain

import (
	"encoding/json"
)

// TopicDistributionUpdated is the topic of the message bus for changed schedules.
// Public events are on the topics that are called like their kinds.
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

// NewCloudEvent is a message about a distribution. Source and id together are
// unique.
func NewCloudEvent(id, messageType string, subject ID, at Instant, data json.RawMessage) CloudEvent {
	return CloudEvent{
		SpecVersion: "1.0", ID: id, Source: "lotline", Type: messageType, Subject: string(subject),
		Time: at, DataContentType: "application/json", Data: data,
	}
}

// AppendJSON appends the event. The data are taken as they are.
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
