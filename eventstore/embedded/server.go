package embedded

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	gossippb "github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// receiveLimit is higher than the limit on appends, so that an append that is too
	// large arrives whole and gets the right error. Clients have the same limit for what
	// they receive.
	receiveLimit = 17 << 20

	// callsLimit is how many calls a connection may have in flight, and headerLimit how
	// large each header may be. A client without a password can make the server hold that
	// much.
	callsLimit  = 1000
	headerLimit = 64 << 10

	// pingInterval is how long a client may be silent before it is pinged, and how long
	// it then has to respond.
	pingInterval = 30 * time.Second

	// idleLimit is how long a connection without calls stays open. Reconnecting costs a
	// client little. connectionsLimit is how many connections a listener accepts at once
	// beside the pending ones; further clients wait.
	idleLimit        = time.Minute
	connectionsLimit = 1000

	// closeGrace is how long Close waits for calls whose clients neither receive nor
	// disconnect.
	closeGrace = 2 * time.Second
)

// Server is an event store for clients of EventStoreDB. Any goroutine may call its
// methods.
type Server struct {
	store      *store
	persistent *persistent
	grpc       *grpc.Server
	handshaker *handshaker
	closing    <-chan struct{}
	announce   func() // closes closing
	close      func() error
	log        zerolog.Logger
}

// Open opens the store in the file at path, and creates it if there is none. It also
// creates a lock file beside it and, while the store is open, SQLite's write-ahead log.
// Other programs may read the file meanwhile.
//
// Open fails if another process has the store open, if the file is not a store, or if a
// newer release wrote it. It fails with ErrLost if there was a store at path before and
// the file is now missing or empty; see Forget.
func Open(path string, log zerolog.Logger) (*Server, error) {
	return open(path, log, time.Now)
}

func open(path string, log zerolog.Logger, now func() time.Time) (*Server, error) {
	store, err := openStore(path, now)
	if err != nil {
		return nil, err
	}
	closing, announce := context.WithCancel(context.Background())
	handshake := &handshaker{TransportCredentials: insecure.NewCredentials(), closing: closing}
	s := &Server{
		store:      store,
		handshaker: handshake,
		closing:    closing.Done(),
		announce:   announce,
		log:        log,
		grpc: grpc.NewServer(
			grpc.Creds(handshake),
			grpc.ForceServerCodecV2(newCodec()),
			grpc.ConnectionTimeout(handshakeTimeout),
			grpc.MaxRecvMsgSize(receiveLimit),
			// Clients ping every ten seconds, idle or not. With gRPC's defaults the
			// server would disconnect them after half a minute.
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
			// With gRPC's defaults a client that vanished without notice would keep its
			// subscriptions for two hours.
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingInterval, MaxConnectionIdle: idleLimit}),
			grpc.MaxConcurrentStreams(callsLimit),
			grpc.MaxHeaderListSize(headerLimit),
			grpc.ChainStreamInterceptor(authorizeCall, sendTrailers),
			grpc.WaitForHandlers(true),
		),
	}
	handshake.http.open(http.HandlerFunc(s.health))
	s.close = sync.OnceValue(s.shutDown)
	calls := registrar{s.grpc}
	streamspb.RegisterStreamsServer(calls, &streams{store: store, closing: s.closing})
	s.persistent = openPersistent(store, s.closing, log)
	persistentpb.RegisterPersistentSubscriptionsServer(calls, s.persistent)
	serverfeatures.RegisterServerFeaturesServer(calls, &features{offered: s.grpc.GetServiceInfo})
	gossippb.RegisterGossipServer(calls, &gossip{instance: uuid.New(), now: now})
	log.Debug().Str("path", path).Int64("position", store.writer.position).Msg("event store opened")
	return s, nil
}

// registrar registers all methods as streaming methods. Clients see no difference. For a
// unary method gRPC would read the request before an interceptor can refuse the call.
type registrar struct{ *grpc.Server }

func (r registrar) RegisterService(service *grpc.ServiceDesc, server any) {
	streaming := *service
	streaming.Methods, streaming.Streams = nil, slices.Clone(service.Streams)
	for _, method := range service.Methods {
		// Methods without credentials take no options, so their requests are not read.
		ignoresRequest := public["/"+service.ServiceName+"/"+method.MethodName]
		streaming.Streams = append(streaming.Streams, grpc.StreamDesc{
			StreamName:    method.MethodName,
			ServerStreams: true, // otherwise the stream interceptors are skipped
			Handler: func(server any, call grpc.ServerStream) error {
				take := call.RecvMsg
				if ignoresRequest {
					take = func(any) error { return nil }
				}
				response, err := method.Handler(server, call.Context(), take, nil)
				if err != nil {
					return err
				}
				return call.SendMsg(response)
			},
		})
	}
	r.Server.RegisterService(&streaming, server)
}

// Serve serves the clients that connect to l until Close, and then returns nil. It closes
// l. It may be called for several listeners. access says what clients need; nil means
// that every client that can connect has access. Serve also responds to HTTP/1 requests
// for /health/live, as a real server does, and needs no credentials for these.
func (s *Server) Serve(l net.Listener, access *Access) error {
	if access == nil {
		access = &Access{}
	}
	limited := netutil.LimitListener(l, connectionsLimit+pendingLimit)
	err := s.grpc.Serve(accessListener{limited, access, s.handshaker, newPending(access.evictions)})
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// LeaveAsItIs makes Close leave the files as they are, including the write-ahead log. If
// the file is damaged, that log may hold events that SQLite cannot show but an operator
// can still save.
func (s *Server) LeaveAsItIs() { s.store.leaveFiles.Store(true) }

// Close refuses new calls, ends subscriptions, finishes the appends in flight and closes
// the file. It returns when that is done. A second call waits for the first and returns
// the same error.
func (s *Server) Close() error {
	return s.close()
}

func (s *Server) shutDown() error {
	s.announce()
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	timer := time.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-graceful:
	case <-timer.C:
		s.log.Warn().Msg("event store drops calls whose clients do not answer")
		s.grpc.Stop()
		<-graceful
	}
	s.persistent.close()
	err := errors.Join(s.handshaker.http.close(), s.store.close())
	s.log.Debug().Msg("event store closed")
	return err
}
