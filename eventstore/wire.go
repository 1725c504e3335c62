package eventstore

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// checkedCodec is gRPC's protobuf codec with one addition: it refuses responses of an
// event store that would end this process. The official client calls log.Fatalf for an
// event whose creation time it cannot parse. For other invalid responses it panics,
// sometimes in a goroutine where this package cannot recover. The call that receives a
// refused response fails with an error.
type checkedCodec struct{ encoding.CodecV2 }

// The official client has no option to set a codec for its connections. So this codec
// replaces the default one, for all gRPC connections of this process.
func init() { //nolint:gochecknoinits // gRPC takes codecs at no other time
	encoding.RegisterCodecV2(checkedCodec{encoding.GetCodecV2(proto.Name)})
}

func (c checkedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if err := c.CodecV2.Unmarshal(data, v); err != nil {
		return err
	}
	switch response := v.(type) {
	case *streamspb.ReadResp:
		return checkRead(response)
	case *gossip.ClusterInfo:
		return checkCluster(response)
	}
	return nil
}

func checkRead(response *streamspb.ReadResp) error {
	switch content := response.GetContent().(type) {
	case *streamspb.ReadResp_Event:
		e := content.Event
		if e.GetEvent() == nil && e.GetLink() == nil {
			return errors.New("an event has neither content nor a link")
		}
		return errors.Join(checkEvent(e.GetEvent()), checkEvent(e.GetLink()))
	case *streamspb.ReadResp_StreamNotFound_:
		if content.StreamNotFound.GetStreamIdentifier() == nil {
			return errors.New("a stream is missing, but the response does not name it")
		}
	}
	return nil
}

func checkEvent(e *streamspb.ReadResp_ReadEvent_RecordedEvent) error {
	if e == nil {
		return nil
	}
	if e.GetStreamIdentifier() == nil {
		return errors.New("an event has no stream")
	}
	if _, err := strconv.ParseInt(e.GetMetadata()["created"], 10, 64); err != nil {
		return fmt.Errorf("the creation time of %s@%d: %w", e.GetStreamIdentifier().GetStreamName(), e.GetStreamRevision(), err)
	}
	return nil
}

// checkCluster refuses member addresses that gRPC cannot parse. With such an address the
// official client has no connection but still closes it, which panics in a goroutine of
// the client.
func checkCluster(response *gossip.ClusterInfo) error {
	for _, m := range response.GetMembers() {
		if _, err := url.Parse("dns:///" + m.GetHttpEndPoint().GetAddress()); err != nil {
			return fmt.Errorf("the address of a cluster member: %w", err)
		}
	}
	return nil
}
