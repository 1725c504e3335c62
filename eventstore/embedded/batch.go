package embedded

import (
	"errors"
	"io"
	"sync"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// batchesOpen bounds the appends of one call that have begun to arrive and
	// are not complete, batchesCommitting those that are being committed.
	batchesOpen       = 64
	batchesCommitting = 256
)

// batchCall is one BatchAppend: many appends over one call, each with an id by
// which it is answered, in pieces that may be interleaved.
type batchCall struct {
	store *store
	call  streamspb.Streams_BatchAppendServer
	open  map[uuid.UUID]*batchedAppend // owned by the goroutine of the call

	committing chan struct{} // holds a value for each append that was begun
	answering  sync.WaitGroup
	sending    sync.Mutex // guards sends on call
}

type batchedAppend struct {
	options *streamspb.BatchAppendReq_Options
	events  []proposed
	size    int
	refusal *status.Status
}

func (s *streams) BatchAppend(call streamspb.Streams_BatchAppendServer) error {
	b := &batchCall{store: s.store, call: call, open: make(map[uuid.UUID]*batchedAppend), committing: make(chan struct{}, batchesCommitting)}
	requests, ended := make(chan *streamspb.BatchAppendReq), make(chan error, 1)
	go func() {
		for {
			request, err := call.Recv()
			if err != nil {
				ended <- err
				return
			}
			select {
			case requests <- request:
			case <-call.Context().Done():
				return
			}
		}
	}()
	defer b.answering.Wait()
	for {
		select {
		case request := <-requests:
			if err := b.take(request); err != nil {
				return err
			}
		case err := <-ended:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-s.closing:
			return closingStatus()
		}
	}
}

// take adds a piece to its append and begins the append when it is complete.
func (b *batchCall) take(request *streamspb.BatchAppendReq) error {
	id, err := parseUUID(request.GetCorrelationId())
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "the correlation id is not valid: %v", err)
	}
	a := b.open[id]
	if a == nil {
		if len(b.open) == batchesOpen {
			return status.Errorf(codes.ResourceExhausted, "more than %d appends are incomplete", batchesOpen)
		}
		a = &batchedAppend{options: request.GetOptions()}
		b.open[id] = a
	}
	a.add(request.GetProposedMessages())
	if !request.GetIsFinal() {
		return nil
	}
	delete(b.open, id)
	return b.begin(request.GetCorrelationId(), a)
}

func (a *batchedAppend) add(messages []*streamspb.BatchAppendReq_ProposedMessage) {
	for _, message := range messages {
		if a.refusal != nil {
			return
		}
		event, err := proposedEvent(message.GetId(), message.GetMetadata(), message.GetData(), message.GetCustomMetadata())
		if err != nil {
			a.refuse(codes.InvalidArgument, status.Convert(err).Message(), &shared.BadRequest{Message: status.Convert(err).Message()})
			return
		}
		if a.size += event.size(); a.size > maxAppendBytes {
			a.refuse(codes.InvalidArgument, "the append is too large", &shared.MaximumAppendSizeExceeded{MaxAppendSize: maxAppendBytes})
			return
		}
		a.events = append(a.events, event)
	}
}

// refuse drops the events and remembers what to answer. Clients tell refusals
// apart by the type of the detail.
func (a *batchedAppend) refuse(code codes.Code, message string, detail protoadapt.MessageV1) {
	a.events, a.refusal = nil, status.New(code, message)
	// It fails only for what cannot be encoded, which these details can.
	if detailed, err := a.refusal.WithDetails(detail); err == nil {
		a.refusal = detailed
	}
}

// begin hands an append to the committer in the order in which it came, and
// leaves waiting for it to another goroutine.
func (b *batchCall) begin(id *shared.UUID, a *batchedAppend) error {
	response := &streamspb.BatchAppendResp{CorrelationId: id, StreamIdentifier: a.options.GetStreamIdentifier()}
	stream, err := streamName(a.options.GetStreamIdentifier())
	if err != nil {
		return err
	}
	w := &write{stream: stream, events: a.events}
	switch expected := a.options.GetExpectedStreamPosition().(type) {
	case *streamspb.BatchAppendReq_Options_StreamPosition:
		w.expected = expectation(clamp(expected.StreamPosition))
		response.ExpectedStreamPosition = &streamspb.BatchAppendResp_StreamPosition{StreamPosition: expected.StreamPosition}
	case *streamspb.BatchAppendReq_Options_NoStream:
		w.expected = expectNoStream
		response.ExpectedStreamPosition = &streamspb.BatchAppendResp_NoStream{NoStream: expected.NoStream}
	case *streamspb.BatchAppendReq_Options_Any:
		w.expected = expectAny
		response.ExpectedStreamPosition = &streamspb.BatchAppendResp_Any{Any: expected.Any}
	case *streamspb.BatchAppendReq_Options_StreamExists:
		w.expected = expectStreamExists
		response.ExpectedStreamPosition = &streamspb.BatchAppendResp_StreamExists{StreamExists: expected.StreamExists}
	default:
		return status.Error(codes.InvalidArgument, "the expected revision is missing")
	}
	if a.refusal != nil {
		response.Result = &streamspb.BatchAppendResp_Error{Error: a.refusal.Proto()}
		return b.send(response)
	}
	select {
	case b.committing <- struct{}{}:
	case <-b.call.Context().Done():
		return b.call.Context().Err()
	}
	if err := b.store.begin(b.call.Context(), w); err != nil {
		return toStatus(err)
	}
	b.answering.Go(func() {
		result, err := b.store.finish(b.call.Context(), w)
		<-b.committing
		if err != nil {
			a.refuseFor(err)
			response.Result = &streamspb.BatchAppendResp_Error{Error: a.refusal.Proto()}
		} else {
			response.Result = &streamspb.BatchAppendResp_Success_{Success: batchSuccess(result)}
		}
		// When this fails the call is over, and its receiving side says so.
		_ = b.send(response)
	})
	return nil
}

func (b *batchCall) send(response *streamspb.BatchAppendResp) error {
	b.sending.Lock()
	defer b.sending.Unlock()
	return b.call.Send(response)
}

func (a *batchedAppend) refuseFor(err error) {
	if refusal, ok := errors.AsType[*revisionError](err); ok {
		a.refuse(codes.FailedPrecondition, "WrongExpectedVersion", wrongExpectedDetail(refusal))
		return
	}
	if deleted, ok := errors.AsType[*deletedError](err); ok {
		a.refuse(codes.FailedPrecondition, "StreamDeleted", &shared.StreamDeleted{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(deleted.stream)},
		})
		return
	}
	a.refuse(codes.Unknown, err.Error(), &shared.Unknown{})
}

func wrongExpectedDetail(refusal *revisionError) *shared.WrongExpectedVersion {
	wrong := &shared.WrongExpectedVersion{
		CurrentStreamRevisionOption: &shared.WrongExpectedVersion_CurrentStreamRevision{CurrentStreamRevision: uint64(refusal.actual)},
	}
	if refusal.actual == noRevision {
		wrong.CurrentStreamRevisionOption = &shared.WrongExpectedVersion_CurrentNoStream{CurrentNoStream: &emptypb.Empty{}}
	}
	switch refusal.expected {
	case expectNoStream:
		wrong.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedNoStream{ExpectedNoStream: &emptypb.Empty{}}
	case expectAny:
		wrong.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedAny{ExpectedAny: &emptypb.Empty{}}
	case expectStreamExists:
		wrong.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedStreamExists{ExpectedStreamExists: &emptypb.Empty{}}
	default:
		wrong.ExpectedStreamPositionOption = &shared.WrongExpectedVersion_ExpectedStreamPosition{ExpectedStreamPosition: uint64(refusal.expected)}
	}
	return wrong
}

func batchSuccess(r receipt) *streamspb.BatchAppendResp_Success {
	success := &streamspb.BatchAppendResp_Success{
		CurrentRevisionOption: &streamspb.BatchAppendResp_Success_CurrentRevision{CurrentRevision: uint64(r.revision)},
		PositionOption: &streamspb.BatchAppendResp_Success_Position{Position: &shared.AllStreamPosition{
			CommitPosition: uint64(r.position), PreparePosition: uint64(r.position),
		}},
	}
	if r.revision == noRevision {
		success.CurrentRevisionOption = &streamspb.BatchAppendResp_Success_NoStream{NoStream: &emptypb.Empty{}}
	}
	if r.position == 0 {
		success.PositionOption = &streamspb.BatchAppendResp_Success_NoPosition{NoPosition: &emptypb.Empty{}}
	}
	return success
}
