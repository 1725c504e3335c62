package embedded

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxAppendBytes is the default of a real server. With a higher limit appends could fail
// after a move to a real server.
const maxAppendBytes = 1 << 20

// streams is the gRPC service of the same name.
type streams struct {
	streamspb.UnimplementedStreamsServer

	store   *store
	closing <-chan struct{} // closed when reads and subscriptions have to end
}

func (s *streams) Append(call streamspb.Streams_AppendServer) error {
	request, err := call.Recv()
	if err != nil {
		return err
	}
	options := request.GetOptions()
	if options == nil {
		return status.Error(codes.InvalidArgument, "the first request of an append must have its options")
	}
	stream, err := writableStream(options.GetStreamIdentifier())
	if err != nil {
		return err
	}
	expected, err := expectedOf(options.GetExpectedStreamRevision())
	if err != nil {
		return err
	}
	events, err := receiveEvents(call)
	if err != nil {
		return err
	}
	result, err := s.store.append(call.Context(), stream, expected, events)
	if refusal, ok := errors.AsType[*revisionError](err); ok {
		return call.SendAndClose(wrongExpectedVersion(refusal))
	}
	if err != nil {
		return toStatus(err)
	}
	return call.SendAndClose(&streamspb.AppendResp{Result: &streamspb.AppendResp_Success_{Success: appendSuccess(result)}})
}

// receiveEvents receives the events of an append. After it has refused one, it receives
// and drops the rest: a client whose call ends while it sends does not look at the
// reason.
func receiveEvents(call streamspb.Streams_AppendServer) ([]proposed, error) {
	var events []proposed
	var refusal error
	size := 0
	for {
		request, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return events, refusal
		}
		if err != nil {
			return nil, err
		}
		if refusal != nil {
			continue
		}
		message := request.GetProposedMessage()
		if message == nil {
			refusal = status.Error(codes.InvalidArgument, "every request of an append after the first must have an event")
			continue
		}
		event, err := proposedEvent(message.GetId(), message.GetMetadata(), message.GetData(), message.GetCustomMetadata())
		if err != nil {
			refusal = err
			continue
		}
		if size += event.size(); size > maxAppendBytes {
			refusal, events = tooLargeStatus(), nil
			continue
		}
		events = append(events, event)
	}
}

func appendSuccess(r receipt) *streamspb.AppendResp_Success {
	success := &streamspb.AppendResp_Success{
		CurrentRevisionOption: &streamspb.AppendResp_Success_CurrentRevision{CurrentRevision: uint64(r.revision)},
		PositionOption: &streamspb.AppendResp_Success_Position{Position: &streamspb.AppendResp_Position{
			CommitPosition: uint64(r.position), PreparePosition: uint64(r.position),
		}},
	}
	if r.revision == noRevision {
		success.CurrentRevisionOption = &streamspb.AppendResp_Success_NoStream{NoStream: &shared.Empty{}}
	}
	if r.position == 0 {
		success.PositionOption = &streamspb.AppendResp_Success_NoPosition{NoPosition: &shared.Empty{}}
	}
	return success
}

// wrongExpectedVersion is the response to an append whose expected revision is wrong.
func wrongExpectedVersion(refusal *revisionError) *streamspb.AppendResp {
	wrong := &streamspb.AppendResp_WrongExpectedVersion{}
	if refusal.actual == noRevision {
		wrong.CurrentRevisionOption = &streamspb.AppendResp_WrongExpectedVersion_CurrentNoStream{CurrentNoStream: &shared.Empty{}}
	} else {
		wrong.CurrentRevisionOption = &streamspb.AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: uint64(refusal.actual)}
	}
	switch refusal.expected {
	case expectAny:
		wrong.ExpectedRevisionOption = &streamspb.AppendResp_WrongExpectedVersion_ExpectedAny{ExpectedAny: &shared.Empty{}}
	case expectStreamExists:
		wrong.ExpectedRevisionOption = &streamspb.AppendResp_WrongExpectedVersion_ExpectedStreamExists{ExpectedStreamExists: &shared.Empty{}}
	case expectNoStream:
		wrong.ExpectedRevisionOption = &streamspb.AppendResp_WrongExpectedVersion_ExpectedNoStream{ExpectedNoStream: &shared.Empty{}}
	default:
		wrong.ExpectedRevisionOption = &streamspb.AppendResp_WrongExpectedVersion_ExpectedRevision{ExpectedRevision: uint64(refusal.expected)}
	}
	return &streamspb.AppendResp{Result: &streamspb.AppendResp_WrongExpectedVersion_{WrongExpectedVersion: wrong}}
}

func (s *streams) Delete(ctx context.Context, request *streamspb.DeleteReq) (*streamspb.DeleteResp, error) {
	options := request.GetOptions()
	position, err := s.deleteWith(ctx, "Delete", s.store.delete, options.GetStreamIdentifier(), options.GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	return &streamspb.DeleteResp{PositionOption: &streamspb.DeleteResp_Position_{Position: &streamspb.DeleteResp_Position{
		CommitPosition: position, PreparePosition: position,
	}}}, nil
}

func (s *streams) Tombstone(ctx context.Context, request *streamspb.TombstoneReq) (*streamspb.TombstoneResp, error) {
	options := request.GetOptions()
	position, err := s.deleteWith(ctx, "Tombstone", s.store.tombstone, options.GetStreamIdentifier(), options.GetExpectedStreamRevision())
	if err != nil {
		return nil, err
	}
	return &streamspb.TombstoneResp{PositionOption: &streamspb.TombstoneResp_Position_{Position: &streamspb.TombstoneResp_Position{
		CommitPosition: position, PreparePosition: position,
	}}}, nil
}

func (s *streams) deleteWith(
	ctx context.Context,
	operation string,
	do func(context.Context, string, expectation) (receipt, error),
	identifier *shared.StreamIdentifier,
	expectedOption any,
) (position uint64, err error) {
	stream, err := writableStream(identifier)
	if err != nil {
		return 0, err
	}
	expected, err := expectedOf(expectedOption)
	if err != nil {
		return 0, err
	}
	result, err := do(ctx, stream, expected)
	if refusal, ok := errors.AsType[*revisionError](err); ok {
		return 0, revisionStatus(operation, refusal)
	}
	if err != nil {
		return 0, toStatus(err)
	}
	return uint64(result.position), nil
}

// expectedOf returns the expected revision from the options of any call that has one.
func expectedOf(option any) (expectation, error) {
	switch expected := option.(type) {
	case *streamspb.AppendReq_Options_Revision:
		return expectation(clamp(expected.Revision)), nil
	case *streamspb.DeleteReq_Options_Revision:
		return expectation(clamp(expected.Revision)), nil
	case *streamspb.TombstoneReq_Options_Revision:
		return expectation(clamp(expected.Revision)), nil
	case *streamspb.AppendReq_Options_NoStream, *streamspb.DeleteReq_Options_NoStream, *streamspb.TombstoneReq_Options_NoStream:
		return expectNoStream, nil
	case *streamspb.AppendReq_Options_Any, *streamspb.DeleteReq_Options_Any, *streamspb.TombstoneReq_Options_Any:
		return expectAny, nil
	case *streamspb.AppendReq_Options_StreamExists, *streamspb.DeleteReq_Options_StreamExists, *streamspb.TombstoneReq_Options_StreamExists:
		return expectStreamExists, nil
	}
	return 0, status.Error(codes.InvalidArgument, "the expected revision is missing")
}

// readCall is one call of Read: a read or a subscription.
type readCall struct {
	*streams
	streamspb.Streams_ReadServer
	eventEncoder
	resolve   bool // the client asked to resolve links
	wantsLast bool // the client asked for the last revision of the stream that it reads
}

func (s *streams) Read(request *streamspb.ReadReq, server streamspb.Streams_ReadServer) error {
	options := request.GetOptions()
	call := &readCall{streams: s, Streams_ReadServer: server, resolve: options.GetResolveLinks()}
	// Clients set this to 1 or more if they understand messages that the protocol gained
	// later, such as the one with the last revision.
	call.wantsLast = options.GetControlOption().GetCompatibility() >= 1
	_, call.uuidAsText = options.GetUuidOption().GetContent().(*streamspb.ReadReq_Options_UUIDOption_String_)
	return toStatus(call.dispatch(options))
}

func (c *readCall) dispatch(options *streamspb.ReadReq_Options) error {
	backwards := options.GetReadDirection() == streamspb.ReadReq_Options_Backwards
	counted, isCounted := options.GetCountOption().(*streamspb.ReadReq_Options_Count)
	_, isSubscription := options.GetCountOption().(*streamspb.ReadReq_Options_Subscription)
	if !isCounted && !isSubscription {
		return status.Error(codes.InvalidArgument, "the read has no count and is not a subscription")
	}
	if isSubscription && backwards {
		return status.Error(codes.InvalidArgument, "a subscription cannot read backwards")
	}
	switch source := options.GetStreamOption().(type) {
	case *streamspb.ReadReq_Options_Stream:
		stream, err := streamName(source.Stream.GetStreamIdentifier())
		if err != nil {
			return err
		}
		if options.GetFilter() != nil {
			return status.Error(codes.InvalidArgument, "only $all can be filtered")
		}
		if isSubscription {
			return c.subscribeToStream(stream, source.Stream)
		}
		return c.readStream(stream, source.Stream, backwards, clamp(counted.Count))
	case *streamspb.ReadReq_Options_All:
		var matching *filter
		if options.GetFilter() != nil {
			var err error
			if matching, err = newFilter(options.GetFilter()); err != nil {
				return err
			}
		}
		if isSubscription {
			return c.subscribeToAll(source.All, matching, options.GetFilter())
		}
		return c.readAll(source.All, matching, backwards, clamp(counted.Count))
	}
	return status.Error(codes.InvalidArgument, "the read has neither a stream nor $all")
}

func (c *readCall) readStream(stream string, options *streamspb.ReadReq_Options_StreamOptions, backwards bool, count int64) error {
	next := int64(0)
	switch from := options.GetRevisionOption().(type) {
	case *streamspb.ReadReq_Options_StreamOptions_Revision:
		next = clamp(from.Revision)
	case *streamspb.ReadReq_Options_StreamOptions_Start:
	case *streamspb.ReadReq_Options_StreamOptions_End:
		next = math.MaxInt64
	default:
		return status.Error(codes.InvalidArgument, "the read has no start")
	}
	for {
		p, err := c.store.readStream(c.Context(), stream, next, backwards, c.resolve, count)
		if errors.Is(err, errNoStream) {
			return c.Send(&streamspb.ReadResp{Content: &streamspb.ReadResp_StreamNotFound_{
				StreamNotFound: &streamspb.ReadResp_StreamNotFound{StreamIdentifier: options.GetStreamIdentifier()},
			}})
		}
		if err != nil {
			return err
		}
		if err := c.sendEvents(p.events); err != nil {
			return err
		}
		count -= int64(len(p.events))
		if next = p.last + 1; backwards {
			next = p.last - 1
		}
		if p.complete || count == 0 || next < 0 {
			return c.endStream(p.newest)
		}
		if err := c.checkClosing(); err != nil {
			return err
		}
	}
}

// endStream sends the last message of a stream's read.
func (c *readCall) endStream(newest int64) error {
	if !c.wantsLast {
		return nil
	}
	return c.Send(&streamspb.ReadResp{Content: &streamspb.ReadResp_LastStreamPosition{LastStreamPosition: uint64(newest)}})
}

func (c *readCall) readAll(options *streamspb.ReadReq_Options_AllOptions, matching *filter, backwards bool, count int64) error {
	next := int64(0)
	switch from := options.GetAllOption().(type) {
	case *streamspb.ReadReq_Options_AllOptions_Position:
		var err error
		if next, err = positionOf(from.Position); err != nil {
			return err
		}
		if backwards {
			// A read backwards from a position begins with the event before it.
			next--
		}
	case *streamspb.ReadReq_Options_AllOptions_Start:
	case *streamspb.ReadReq_Options_AllOptions_End:
		next = math.MaxInt64
	default:
		return status.Error(codes.InvalidArgument, "the read has no start")
	}
	for count > 0 && next >= 0 {
		p, err := c.store.readAll(c.Context(), next, backwards, c.resolve, matching, count, pageRows)
		if err != nil {
			return err
		}
		if err := c.sendEvents(p.events); err != nil {
			return err
		}
		count -= int64(len(p.events))
		if p.complete {
			return nil
		}
		if next = p.last + 1; backwards {
			next = p.last - 1
		}
		if err := c.checkClosing(); err != nil {
			return err
		}
	}
	return nil
}

// sendEvents sends events. It blocks while the client does not receive.
func (c *readCall) sendEvents(events []resolved) error {
	for i := range events {
		if err := c.SendMsg(c.encode(&events[i])); err != nil {
			return err
		}
	}
	return nil
}

// checkClosing returns an error if the server is closing. It is called between pages.
func (c *readCall) checkClosing() error {
	select {
	case <-c.closing:
		return closingStatus()
	default:
		return nil
	}
}
