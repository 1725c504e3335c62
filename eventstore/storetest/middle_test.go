package storetest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// faults are what a middle does beside passing on. The zero value is none.
type faults struct {
	append func(*appendCall) (*streamspb.AppendResp, error)
	// read is asked for each read and subscription, before it is passed on.
	read func(*streamspb.ReadReq) sieve
	// end is asked what to make of an answer's end, and may send a last message.
	end func(r *streamspb.ReadReq, err error, send func(*streamspb.ReadResp) error) error
}

// appendCall is an append that came in whole.
type appendCall struct {
	context.Context
	requests []*streamspb.AppendReq // options, then events
	forward  func(context.Context) (*streamspb.AppendResp, error)
}

func (c *appendCall) options() *streamspb.AppendReq_Options { return c.requests[0].GetOptions() }

func (c *appendCall) stream() string {
	return string(c.options().GetStreamIdentifier().GetStreamName())
}

// sieve sends on what it thinks fit of an answer's messages. It ends the answer
// early with errEnd, as if it was whole, or with another error.
type sieve func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error

// errEnd ends an answer and says that all is well.
var errEnd = errors.New("that is all")

// middle stands between clients and a store, and passes on what each says.
type middle struct {
	streamspb.UnimplementedStreamsServer
	serverfeatures.UnimplementedServerFeaturesServer

	faults
	listener net.Listener
	streams  streamspb.StreamsClient
	features serverfeatures.ServerFeaturesClient

	mu    sync.Mutex // guards the field below
	conns []net.Conn
}

const largestMessage = 17 << 20

// newMiddle stands in front of the store at an address (host:port).
func newMiddle(t testing.TB, address string, f faults) *middle {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage)))
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{faults: f, streams: streamspb.NewStreamsClient(conn), features: serverfeatures.NewServerFeaturesClient(conn)}
	if m.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.MaxRecvMsgSize(largestMessage), grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}))
	streamspb.RegisterStreamsServer(server, m)
	serverfeatures.RegisterServerFeaturesServer(server, m)
	served := make(chan error, 1)
	go func() { served <- server.Serve(acceptor{m.listener, m}) }()
	t.Cleanup(func() {
		server.Stop()
		if err := errors.Join(<-served, conn.Close()); err != nil {
			t.Error(err)
		}
	})
	return m
}

// acceptor remembers the connections, for cut.
type acceptor struct {
	net.Listener
	m *middle
}

func (a acceptor) Accept() (net.Conn, error) {
	c, err := a.Listener.Accept()
	if err == nil {
		a.m.mu.Lock()
		a.m.conns = append(a.m.conns, c)
		a.m.mu.Unlock()
	}
	return c, err
}

// cut breaks all connections of clients.
func (m *middle) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
}

func (m *middle) GetSupportedMethods(ctx context.Context, r *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	return m.features.GetSupportedMethods(ctx, r)
}

func (m *middle) Append(call streamspb.Streams_AppendServer) error {
	c := &appendCall{Context: call.Context()}
	for {
		r, err := call.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		c.requests = append(c.requests, r)
	}
	var trailer metadata.MD
	c.forward = func(ctx context.Context) (*streamspb.AppendResp, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		to, err := m.streams.Append(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range c.requests {
			if err := to.Send(r); err != nil {
				break // CloseAndRecv says why
			}
		}
		answer, err := to.CloseAndRecv()
		trailer = to.Trailer()
		return answer, err
	}
	handle := m.append
	if handle == nil {
		handle = func(c *appendCall) (*streamspb.AppendResp, error) { return c.forward(c) }
	}
	answer, err := handle(c)
	if err != nil {
		call.SetTrailer(trailer)
		return err
	}
	return call.SendAndClose(answer)
}

func (m *middle) Read(r *streamspb.ReadReq, call streamspb.Streams_ReadServer) error {
	pass := sieve(func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error { return send(m) })
	if m.read != nil {
		if s := m.read(r); s != nil {
			pass = s
		}
	}
	from, err := m.streams.Read(call.Context(), r)
	if err != nil {
		return err
	}
	for {
		answer, err := from.Recv()
		if err == nil {
			err = pass(answer, call.Send)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) || errors.Is(err, errEnd) {
			err = nil
		}
		if m.end != nil {
			err = m.end(r, err, call.Send)
		}
		if err != nil {
			call.SetTrailer(from.Trailer())
		}
		return err
	}
}

func (m *middle) Delete(ctx context.Context, r *streamspb.DeleteReq) (*streamspb.DeleteResp, error) {
	var trailer metadata.MD
	answer, err := m.streams.Delete(ctx, r, grpc.Trailer(&trailer))
	return answer, errors.Join(err, grpc.SetTrailer(ctx, trailer))
}

func (m *middle) Tombstone(ctx context.Context, r *streamspb.TombstoneReq) (*streamspb.TombstoneResp, error) {
	var trailer metadata.MD
	answer, err := m.streams.Tombstone(ctx, r, grpc.Trailer(&trailer))
	return answer, errors.Join(err, grpc.SetTrailer(ctx, trailer))
}

// errCut is for whoever hears it in spite of a broken connection.
var errCut = status.Error(codes.Unavailable, "the connection was cut")
