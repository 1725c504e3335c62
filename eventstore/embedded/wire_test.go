package embedded

import (
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

// The protocol's own decoder reads what is sent for an event as that event.
func TestEncode_isReadAsTheEvent(t *testing.T) {
	t.Parallel()
	var encoder eventEncoder // for all cases: nothing may remain of the case before
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`\PM{1,300}`)
		number := rapid.OneOf(rapid.Just[int64](0), rapid.Int64Min(0))
		content := rapid.SliceOf(rapid.Byte())
		event := func(name string) recorded {
			return recorded{
				position: number.Draw(t, name+"'s position"),
				stream:   text.Draw(t, name+"'s stream"),
				revision: number.Draw(t, name+"'s revision"),
				id:       uuid.UUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, name+"'s id")),
				kind:     text.Draw(t, name+"'s kind"),
				json:     rapid.Bool().Draw(t, name+"'s json"),
				created:  number.Draw(t, name+"'s created"),
				data:     content.Draw(t, name+"'s data"),
				metadata: content.Draw(t, name+"'s metadata"),
			}
		}
		encoder.uuidAsText = rapid.Bool().Draw(t, "uuidAsText")
		message := func(e *recorded) *streamspb.ReadResp_ReadEvent_RecordedEvent {
			id := structuredUUID(e.id)
			if encoder.uuidAsText {
				id = stringUUID(e.id)
			}
			return &streamspb.ReadResp_ReadEvent_RecordedEvent{
				Id:               id,
				StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(e.stream)},
				StreamRevision:   uint64(e.revision),
				PreparePosition:  uint64(e.position),
				CommitPosition:   uint64(e.position),
				Metadata:         systemMetadata(e),
				CustomMetadata:   e.metadata,
				Data:             e.data,
			}
		}
		e := &resolved{recorded: event("event"), link: rapid.Bool().Draw(t, "link")}
		both := &streamspb.ReadResp_ReadEvent{
			Position: &streamspb.ReadResp_ReadEvent_CommitPosition{CommitPosition: uint64(e.position)},
		}
		switch {
		case !e.link:
			both.Event = message(&e.recorded)
		case rapid.Bool().Draw(t, "target"):
			target := event("target")
			e.target = &target
			both.Event, both.Link = message(&target), message(&e.recorded)
		default:
			both.Link = message(&e.recorded)
		}
		want := &streamspb.ReadResp{Content: &streamspb.ReadResp_Event{Event: both}}
		encoded := encoder.encode(e)
		buffers, err := newCodec().Marshal(encoded)
		if err != nil {
			t.Fatal(err)
		}
		got := &streamspb.ReadResp{}
		if err := proto.Unmarshal(buffers.Materialize(), got); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, want) {
			t.Errorf("%v\nis read as\n%v", want, got)
		}
		if cap(encoded) != len(encoded) {
			t.Errorf("%d bytes were made room for, for %d", cap(encoded), len(encoded))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := &resolved{recorded: recorded{
		position: 1 << 40, stream: "queue-01h455vb4pex5vsknk084sn02r", revision: 1000, id: uuid.New(), kind: "consumer.entered", json: true,
		created: 17956549945329542, data: make([]byte, 200), metadata: make([]byte, 350),
	}}
	var encoder eventEncoder
	b.ReportAllocs()
	for b.Loop() {
		if _, err := newCodec().Marshal(encoder.encode(e)); err != nil {
			b.Fatal(err)
		}
	}
}
