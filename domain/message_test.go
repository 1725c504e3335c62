package domain_test

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

const nine = domain.Instant(1_795_000_000_000)

var recordedID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

func recorded(n uint64, eventType string, e domain.Event) *domain.Recorded {
	return &domain.Recorded{ID: recordedID, Type: eventType, Stream: idOf(queue).Stream(), Data: fmt.Appendf(nil, `{"n":%d}`, n), Event: e}
}

func TestMessages_anEventIsACloudEventOnItsKindsTopic(t *testing.T) {
	t.Parallel()
	got, err := domain.Messages(recorded(1, "queue.opened", domain.Opened{Stamp: domain.Stamp{At: nine}}))
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
		got, err := domain.Messages(recorded(1, "queue.x", c.event))
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
		if want := uuid.NewSHA1(recordedID, []byte("distribution.updated")).String(); m.Event.ID != want {
			t.Errorf("%s: id %s, want %s", name, m.Event.ID, want)
		}
	}
	for name, e := range map[string]domain.Event{"a name": domain.Updated{Changed: map[string]domain.Change{"name": {Old: []byte(`null`), New: []byte(`"x"`)}}}, "a step": domain.Opened{}, "a creation without times": &domain.QueueCreated{}} {
		got, err := domain.Messages(recorded(1, "queue.x", e))
		if err != nil || len(got) != 1 {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestMessage_withoutDataIsTheSameEvent(t *testing.T) {
	t.Parallel()
	got, err := domain.Messages(recorded(1, "queue.opened", domain.Opened{Stamp: domain.Stamp{At: nine}}))
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
