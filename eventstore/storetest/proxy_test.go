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

// faults says what a proxy changes in the calls that it passes on. With the zero value it
// changes nothing.
type faults struct {
	append func(*appendCall) (*streamspb.AppendResp, error)
	// read is called for each read and subscription before it is passed on, and returns
	// the sieve for its response.
	read func(*streamspb.ReadReq) sieve
	// end is called at the end of a response, and returns the error to end it with. It
	// may send a last message.
	end func(r *streamspb.ReadReq, err error, send func(*streamspb.ReadResp) error) error
}

// appendCall is an append that was received completely.
type appendCall struct {
	context.Context
	requests []*streamspb.AppendReq // options, then events
	forward  func(context.Context) (*streamspb.AppendResp, error)
}

func (c *appendCall) options() *streamspb.AppendReq_Options { return c.requests[0].GetOptions() }

func (c *appendCall) stream() string {
	return string(c.options().GetStreamIdentifier().GetStreamName())
}

// sieve is called for each message of a response and sends what the client should get. It
// ends the response early by returning errEnd, as if it was complete, or another error.
type sieve func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error

// errEnd ends a response without an error.
var errEnd = errors.New("that is all")

// proxy passes the calls of clients on to a store, and the responses back.
type proxy struct {
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

// newProxy returns a proxy for the store at an address (host:port).
func newProxy(t testing.TB, address string, f faults) *proxy {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage)))
	if err != nil {
		t.Fatal(err)
	}
	m := &proxy{faults: f, streams: streamspb.NewStreamsClient(conn), features: serverfeatures.NewServerFeaturesClient(conn)}
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

// acceptor remembers the accepted connections, for cut.
type acceptor struct {
	net.Listener
	m *proxy
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

// cut closes all connections of clients.
func (m *proxy) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.conns = nil
}

func (m *proxy) GetSupportedMethods(ctx context.Context, r *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	return m.features.GetSupportedMethods(ctx, r)
}

func (m *proxy) Append(call streamspb.Streams_AppendServer) error {
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
				break // CloseAndRecv returns the reason
			}
		}
		response, err := to.CloseAndRecv()
		trailer = to.Trailer()
		return response, err
	}
	handle := m.append
	if handle == nil {
		handle = func(c *appendCall) (*streamspb.AppendResp, error) { return c.forward(c) }
	}
	response, err := handle(c)
	if err != nil {
		call.SetTrailer(trailer)
		return err
	}
	return call.SendAndClose(response)
}

func (m *proxy) Read(r *streamspb.ReadReq, call streamspb.Streams_ReadServer) error {
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
		response, err := from.Recv()
		if err == nil {
			err = pass(response, call.Send)
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

func (m *proxy) Delete(ctx context.Context, r *streamspb.DeleteReq) (*streamspb.DeleteResp, error) {
	var trailer metadata.MD
	response, err := m.streams.Delete(ctx, r, grpc.Trailer(&trailer))
	return response, errors.Join(err, grpc.SetTrailer(ctx, trailer))
}

func (m *proxy) Tombstone(ctx context.Context, r *streamspb.TombstoneReq) (*streamspb.TombstoneResp, error) {
	var trailer metadata.MD
	response, err := m.streams.Tombstone(ctx, r, grpc.Trailer(&trailer))
	return response, errors.Join(err, grpc.SetTrailer(ctx, trailer))
}

// errCut is the error of calls that are still served after their connection was cut.
var errCut = status.Error(codes.Unavailable, "the connection was cut")
