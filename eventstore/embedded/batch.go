package embedded

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"
)

const (
	// batchesOpen limits the incomplete appends of one call, batchesCommitting the
	// appends of one call that are being committed.
	batchesOpen       = 64
	batchesCommitting = 256
)

// batchCall is one BatchAppend call. It carries many appends. Each append has an id,
// which its response repeats, and arrives in one or more pieces. Pieces of different
// appends may be interleaved.
type batchCall struct {
	store *store
	call  streamspb.Streams_BatchAppendServer
	open  map[uuid.UUID]*batchedAppend // owned by the goroutine of the call

	expired    chan *batchedAppend // appends whose deadline passed before they were complete
	committing chan struct{}       // holds a value for each append that is being committed
	responding sync.WaitGroup
	sending    sync.Mutex // guards sends on call
}

type batchedAppend struct {
	write     *write
	options   *streamspb.BatchAppendReq_Options
	size      int
	refusal   *status.Status
	response  *streamspb.BatchAppendResp
	responded bool // a response was sent or will be; owned by the goroutine of the call

	deadline context.Context //nolint:containedctx // the append's own, within that of the call
	release  func()          // releases the deadline's resources
}

func (s *streams) BatchAppend(call streamspb.Streams_BatchAppendServer) error {
	b := &batchCall{
		store: s.store, call: call, open: make(map[uuid.UUID]*batchedAppend),
		expired: make(chan *batchedAppend), committing: make(chan struct{}, batchesCommitting),
	}
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
	defer b.responding.Wait()
	defer func() {
		for _, a := range b.open {
			a.release()
		}
	}()
	for {
		select {
		case request := <-requests:
			if err := b.receive(request); err != nil {
				return err
			}
		case a := <-b.expired:
			if err := b.expire(a); err != nil {
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

// receive adds a piece to its append. If that completes the append, it begins to commit
// it.
func (b *batchCall) receive(request *streamspb.BatchAppendReq) error {
	id, err := parseUUID(request.GetCorrelationId())
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "the correlation id is not valid: %v", err)
	}
	a, options := b.open[id], request.GetOptions()
	if a != nil && options != nil && !proto.Equal(options, a.options) {
		a.refuseWith(status.Error(codes.InvalidArgument, "the first piece of an append has its options, and later pieces must have the same or none"))
	}
	if a == nil {
		if len(b.open) == batchesOpen {
			return status.Errorf(codes.ResourceExhausted, "more than %d appends are incomplete", batchesOpen)
		}
		a = b.prepare(request.GetCorrelationId(), options)
		b.open[id] = a
	}
	a.add(request.GetProposedMessages())
	if !request.GetIsFinal() {
		return nil
	}
	delete(b.open, id)
	return b.begin(a)
}

// prepare returns a new append with the given options. If the options are not valid, the
// append is refused once it is complete, and the call continues.
func (b *batchCall) prepare(id *shared.UUID, options *streamspb.BatchAppendReq_Options) *batchedAppend {
	a := &batchedAppend{
		write:    &write{},
		options:  options,
		response: &streamspb.BatchAppendResp{CorrelationId: id, StreamIdentifier: options.GetStreamIdentifier()},
		deadline: b.call.Context(),
		release:  func() {},
	}
	var err error
	if a.write.stream, err = writableStream(options.GetStreamIdentifier()); err != nil {
		a.refuseWith(err)
	}
	switch expected := options.GetExpectedStreamPosition().(type) {
	case *streamspb.BatchAppendReq_Options_StreamPosition:
		a.write.expected = expectation(clamp(expected.StreamPosition))
		a.response.ExpectedStreamPosition = &streamspb.BatchAppendResp_StreamPosition{StreamPosition: expected.StreamPosition}
	case *streamspb.BatchAppendReq_Options_NoStream:
		a.write.expected = expectNoStream
		a.response.ExpectedStreamPosition = &streamspb.BatchAppendResp_NoStream{NoStream: expected.NoStream}
	case *streamspb.BatchAppendReq_Options_Any:
		a.write.expected = expectAny
		a.response.ExpectedStreamPosition = &streamspb.BatchAppendResp_Any{Any: expected.Any}
	case *streamspb.BatchAppendReq_Options_StreamExists:
		a.write.expected = expectStreamExists
		a.response.ExpectedStreamPosition = &streamspb.BatchAppendResp_StreamExists{StreamExists: expected.StreamExists}
	default:
		a.refuseWith(status.Error(codes.InvalidArgument, "the expected revision is missing"))
	}
	if left, limited := b.timeLeft(options); limited {
		deadline, cancel := context.WithTimeout(b.call.Context(), left)
		stop := context.AfterFunc(deadline, func() {
			select {
			case b.expired <- a:
			case <-b.call.Context().Done():
			}
		})
		a.deadline, a.release = deadline, func() {
			stop()
			cancel()
		}
	}
	return a
}

// timeLeft returns how long the client waits for an append. The clients for NodeJS send
// the time at which they give up. The protocol has a duration as well, since release
// 21.10.
func (b *batchCall) timeLeft(options *streamspb.BatchAppendReq_Options) (left time.Duration, limited bool) {
	switch deadline := options.GetDeadlineOption().(type) {
	case *streamspb.BatchAppendReq_Options_Deadline:
		return deadline.Deadline.AsDuration(), true
	case *streamspb.BatchAppendReq_Options_Deadline_21_10_0:
		return deadline.Deadline_21_10_0.AsTime().Sub(b.store.now()), true
	}
	return 0, false
}

func (a *batchedAppend) add(messages []*streamspb.BatchAppendReq_ProposedMessage) {
	defer func() {
		if a.refusal != nil {
			a.write.events = nil
		}
	}()
	for _, message := range messages {
		if a.refusal != nil {
			return
		}
		event, err := proposedEvent(message.GetId(), message.GetMetadata(), message.GetData(), message.GetCustomMetadata())
		if err != nil {
			a.refuseWith(err)
			return
		}
		if a.size += event.size(); a.size > maxAppendBytes {
			a.refuse(codes.InvalidArgument, "the append is too large", &shared.MaximumAppendSizeExceeded{MaxAppendSize: maxAppendBytes})
			return
		}
		a.write.events = append(a.write.events, event)
	}
}

// expire responds to an append that is incomplete at its deadline. Its remaining pieces
// are received and dropped.
func (b *batchCall) expire(a *batchedAppend) error {
	if a.responded {
		return nil
	}
	a.responded, a.write.events = true, nil
	a.refuseWith(context.DeadlineExceeded)
	return b.respond(a)
}

// refuse sets the error that the response will have. Clients tell errors apart by the
// type of the detail.
func (a *batchedAppend) refuse(code codes.Code, message string, detail protoadapt.MessageV1) {
	a.refusal = status.New(code, message)
	// WithDetails fails only for details that cannot be encoded. These can.
	if detailed, err := a.refusal.WithDetails(detail); err == nil {
		a.refusal = detailed
	}
}

// begin gives an append to the committer, in the order of arrival, and starts a goroutine
// that waits for the result.
func (b *batchCall) begin(a *batchedAppend) error {
	if a.responded {
		return nil
	}
	// From here on the goroutine that waits for the result handles the deadline.
	a.responded = true
	if a.refusal == nil && a.deadline.Err() != nil {
		a.refuseWith(a.deadline.Err())
	}
	if a.refusal != nil {
		a.release()
		return b.respond(a)
	}
	select {
	case b.committing <- struct{}{}:
	case <-b.call.Context().Done():
		a.release()
		return b.call.Context().Err()
	}
	err := b.store.begin(a.deadline, a.write)
	if errors.Is(err, errClosed) {
		a.release()
		return toStatus(err)
	}
	b.responding.Go(func() {
		defer a.release()
		var result receipt
		if err == nil {
			result, err = b.store.finish(a.deadline, a.write)
		}
		<-b.committing
		if err != nil {
			a.refuseWith(err)
		} else {
			a.response.Result = &streamspb.BatchAppendResp_Success_{Success: batchSuccess(result)}
		}
		// If sending fails, the call has ended, and its receiving side returns the error.
		_ = b.respond(a)
	})
	return nil
}

// respond sends the response to an append.
func (b *batchCall) respond(a *batchedAppend) error {
	if a.refusal != nil {
		a.response.Result = &streamspb.BatchAppendResp_Error{Error: a.refusal.Proto()}
	}
	b.sending.Lock()
	defer b.sending.Unlock()
	return b.call.Send(a.response)
}

func (a *batchedAppend) refuseWith(err error) {
	if refusal, ok := errors.AsType[*revisionError](err); ok {
		a.refuse(codes.AlreadyExists, "WrongExpectedVersion", wrongExpectedDetail(refusal))
		return
	}
	if deleted, ok := errors.AsType[*deletedError](err); ok {
		a.refuse(codes.NotFound, "StreamDeleted", &shared.StreamDeleted{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(deleted.stream)},
		})
		return
	}
	refused := status.Convert(toStatus(err))
	var detail protoadapt.MessageV1 = &shared.Unknown{}
	switch refused.Code() {
	case codes.InvalidArgument:
		detail = &shared.BadRequest{Message: refused.Message()}
	case codes.PermissionDenied:
		detail = &shared.AccessDenied{}
	case codes.DeadlineExceeded:
		detail = &shared.Timeout{}
	}
	a.refuse(refused.Code(), refused.Message(), detail)
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
