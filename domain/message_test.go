package domain_test

import (
	"testing"

	"github.com/lotline/lotline/domain"
)

const nine = domain.Instant(1_795_000_000_000)

// recordedID is 01890a5d-ac96-774b-bcce-b302099a8057.
var recordedID = [16]byte{0x01, 0x89, 0x0a, 0x5d, 0xac, 0x96, 0x77, 0x4b, 0xbc, 0xce, 0xb3, 0x02, 0x09, 0x9a, 0x80, 0x57}

func recorded(eventType string, e domain.Event) *domain.Recorded {
	return &domain.Recorded{ID: recordedID, Type: eventType, Stream: idOf(queue).Stream(), Data: []byte(`{"n":1}`), Event: e}
}

func TestMessages_anEventIsACloudEventOnItsKindsTopic(t *testing.T) {
	t.Parallel()
	got, err := domain.Messages(recorded("queue.opened", domain.Opened{Stamp: domain.Stamp{At: nine}}))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 1 || got[0].Topic != "queue" {
		t.Fatalf("got %+v", got)
	}
	const want = `{"specversion":"1.0","id":"01890a5d-ac96-774b-bcce-b302099a8057","source":"lotline","type":"queue.opened",` +
		`"subject":"queue_01h455vb4pex5vsknk084sn02q","time":"2026-11-18T11:06:40.000Z","datacontenttype":"application/json","data":{"n":1}}`
	if string(got[0].Payload) != want {
		t.Errorf("got %s", got[0].Payload)
	}
}

func TestMessages_everyTimingChangeIsDistributionUpdated(t *testing.T) {
	t.Parallel()
	moved := domain.Updated{Stamp: domain.Stamp{At: nine}, Cause: domain.CauseHand, Changed: map[string]domain.Change{
		"closeAt": {Old: []byte(`null`), New: []byte(`"2026-12-15T09:00:00.000Z"`)},
		"name":    {Old: []byte(`null`), New: []byte(`"x"`)},
	}}
	for name, c := range map[string]struct {
		event domain.Event
		data  string
	}{
		"creation": {opensLater(), `{"distributionId":"queue_01h455vb4pex5vsknk084sn02q","distributionType":"queue","changed":{"openAt":{"old":null,"new":"2026-11-18T11:06:41.000Z"}},"cause":"create"}`},
		"by hand":  {moved, `{"distributionId":"queue_01h455vb4pex5vsknk084sn02q","distributionType":"queue","changed":{"closeAt":{"old":null,"new":"2026-12-15T09:00:00.000Z"}},"cause":"hand"}`},
	} {
		got, err := domain.Messages(recorded("queue.x", c.event))
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 {
			t.Fatalf("%s: got %+v", name, got)
		}
		m := got[1]
		if m.Topic != "distribution.updated" || m.Event.Type != "distribution.updated" || string(m.Event.Data) != c.data {
			t.Errorf("%s: got %s %s", name, m.Topic, m.Payload)
		}
		if want := "da0c4a65-43c7-5e06-9541-515bfd36bc7e"; m.Event.ID != want {
			t.Errorf("%s: id %s, want %s", name, m.Event.ID, want)
		}
	}
	for name, e := range map[string]domain.Event{"a name": domain.Updated{Changed: map[string]domain.Change{"name": {Old: []byte(`null`), New: []byte(`"x"`)}}}, "a step": domain.Opened{}, "a creation without times": &domain.QueueCreated{}} {
		got, err := domain.Messages(recorded("queue.x", e))
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestMessage_withoutDataIsTheSameEvent(t *testing.T) {
	t.Parallel()
	got, err := domain.Messages(recorded("queue.opened", domain.Opened{Stamp: domain.Stamp{At: nine}}))
	if err != nil {
		t.Fatal(err)
	}
	m := got[0].WithoutData()
	const want = `{"specversion":"1.0","id":"01890a5d-ac96-774b-bcce-b302099a8057","source":"lotline","type":"queue.opened",` +
		`"subject":"queue_01h455vb4pex5vsknk084sn02q","time":"2026-11-18T11:06:40.000Z","datacontenttype":"application/json"}`
	if m.Topic != "queue" || string(m.Payload) != want {
		t.Errorf("got %s on %s", m.Payload, m.Topic)
	}
}

// opensLater is the creation of a queue that opens a second after nine.
func opensLater() *domain.QueueCreated {
	e := &domain.QueueCreated{Stamp: domain.Stamp{At: nine}}
	e.OpenAt = nine + 1000
	return e
}
