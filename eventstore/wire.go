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

// checkedCodec is gRPC's codec for protocol buffers, which in addition refuses
// answers of an event store that would end this process: the official client
// calls log.Fatalf for an event whose time of creation it cannot read, and panics
// for other mistakes of a server, of which some are out of reach of a recover. A
// refused answer is an error of the call that it is for.
type checkedCodec struct{ encoding.CodecV2 }

// The official client lets nobody set the options of its connections, so the codec
// is put in the place of the one that all connections of this process use.
func init() { //nolint:gochecknoinits // gRPC takes codecs at no other time
	encoding.RegisterCodecV2(checkedCodec{encoding.GetCodecV2(proto.Name)})
}

func (c checkedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if err := c.CodecV2.Unmarshal(data, v); err != nil {
		return err
	}
	switch answer := v.(type) {
	case *streamspb.ReadResp:
		return checkRead(answer)
	case *gossip.ClusterInfo:
		return checkCluster(answer)
	}
	return nil
}

func checkRead(answer *streamspb.ReadResp) error {
	switch content := answer.GetContent().(type) {
	case *streamspb.ReadResp_Event:
		e := content.Event
		if e.GetEvent() == nil && e.GetLink() == nil {
			return errors.New("an event without content")
		}
		return errors.Join(checkEvent(e.GetEvent()), checkEvent(e.GetLink()))
	case *streamspb.ReadResp_StreamNotFound_:
		if content.StreamNotFound.GetStreamIdentifier() == nil {
			return errors.New("no stream is said to be missing")
		}
	}
	return nil
}

func checkEvent(e *streamspb.ReadResp_ReadEvent_RecordedEvent) error {
	if e == nil {
		return nil
	}
	if e.GetStreamIdentifier() == nil {
		return errors.New("an event of no stream")
	}
	if _, err := strconv.ParseInt(e.GetMetadata()["created"], 10, 64); err != nil {
		return fmt.Errorf("the time of %s@%d: %w", e.GetStreamIdentifier().GetStreamName(), e.GetStreamRevision(), err)
	}
	return nil
}

// checkCluster refuses addresses that gRPC cannot read: the official client closes
// the connection that it then does not have, in a goroutine of its own.
func checkCluster(answer *gossip.ClusterInfo) error {
	for _, m := range answer.GetMembers() {
		if _, err := url.Parse("dns:///" + m.GetHttpEndPoint().GetAddress()); err != nil {
			return fmt.Errorf("the address of a cluster's member: %w", err)
		}
	}
	return nil
}
