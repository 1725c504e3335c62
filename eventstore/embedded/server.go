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
	// receiveLimit lets an append that is too large come in whole, so that it can
	// be told so. It is the limit that clients set on their side.
	receiveLimit = 17 << 20

	// callsLimit is how many calls a connection may have under way, and headerLimit
	// how large the header of each may be. A client without a password can have
	// that much kept for it.
	callsLimit  = 1000
	headerLimit = 64 << 10

	// pingInterval is after which silence a client is asked whether it is there,
	// and how long it has to answer.
	pingInterval = 30 * time.Second

	// idleLimit is after how long without a call a connection is closed, which
	// costs clients no more than connecting anew, and connectionsLimit how many a
	// listener has room for at once beside those that are pending. Later ones wait.
	idleLimit        = time.Minute
	connectionsLimit = 1000

	// closeGrace is how long Close waits for calls whose clients neither take
	// what is sent nor go away.
	closeGrace = 2 * time.Second
)

// Server is an event store that clients of EventStoreDB can talk to. Its methods
// may be called from any goroutine.
type Server struct {
	store      *store
	persistent *persistent
	grpc       *grpc.Server
	entrance   *entrance
	closing    <-chan struct{}
	announce   func() // closes closing
	close      func() error
	log        zerolog.Logger
}

// Open opens the store in the file at path, and creates it when there is none.
// Beside it stand a lock file and, while it is open, SQLite's write-ahead log;
// the file may be read by other programs meanwhile. Open fails when another
// process has the store open, when the file is something else, and when it was
// written by a newer release. It fails with ErrLost when there was a store at path
// before and the file is missing or empty; see Forget.
func Open(path string, log zerolog.Logger) (*Server, error) {
	return open(path, log, time.Now)
}

func open(path string, log zerolog.Logger, now func() time.Time) (*Server, error) {
	store, err := openStore(path, now)
	if err != nil {
		return nil, err
	}
	closing, announce := context.WithCancel(context.Background())
	entrance := &entrance{TransportCredentials: insecure.NewCredentials(), closing: closing}
	s := &Server{
		store:    store,
		entrance: entrance,
		closing:  closing.Done(),
		announce: announce,
		log:      log,
		grpc: grpc.NewServer(
			grpc.Creds(entrance),
			grpc.ForceServerCodecV2(newCodec()),
			grpc.ConnectionTimeout(entranceTimeout),
			grpc.MaxRecvMsgSize(receiveLimit),
			// Clients ping every ten seconds, idle or not; by default that would
			// have them thrown out after half a minute.
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
			// A client that vanished without a word would hold its subscriptions
			// for two hours.
			grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingInterval, Timeout: pingInterval, MaxConnectionIdle: idleLimit}),
			grpc.MaxConcurrentStreams(callsLimit),
			grpc.MaxHeaderListSize(headerLimit),
			grpc.ChainStreamInterceptor(authorizeCall, sendTrailers),
			grpc.WaitForHandlers(true),
		),
	}
	entrance.visitors.open(http.HandlerFunc(s.health))
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

// registrar registers all methods as such that stream. A client sees no difference,
// but gRPC takes the request of one that does not before it asks whether the call
// is allowed.
type registrar struct{ *grpc.Server }

func (r registrar) RegisterService(service *grpc.ServiceDesc, server any) {
	streaming := *service
	streaming.Methods, streaming.Streams = nil, slices.Clone(service.Streams)
	for _, method := range service.Methods {
		// What everybody may call has nothing to be told, and does not listen.
		deaf := public["/"+service.ServiceName+"/"+method.MethodName]
		streaming.Streams = append(streaming.Streams, grpc.StreamDesc{
			StreamName:    method.MethodName,
			ServerStreams: true, // or it goes past the interceptors
			Handler: func(server any, call grpc.ServerStream) error {
				take := call.RecvMsg
				if deaf {
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

// Serve answers clients that come in on l until Close, and then returns nil. It
// closes l, and may be called for several listeners. Clients get in as access says;
// when it is nil, everybody who can connect does. Besides gRPC it answers HTTP/1
// requests for /health/live, as a real server does, and that to everybody.
func (s *Server) Serve(l net.Listener, access *Access) error {
	if access == nil {
		access = &Access{}
	}
	limited := netutil.LimitListener(l, connectionsLimit+pendingLimit)
	err := s.grpc.Serve(door{limited, access, s.entrance, newPending(access.crowds)})
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// LeaveAsItIs has Close leave the files as they are, the write-ahead log included: it
// may hold events that SQLite does not show because the file is damaged, and that
// somebody may still save.
func (s *Server) LeaveAsItIs() { s.store.asItIs.Store(true) }

// Close stops taking calls, ends subscriptions, finishes the appends that are
// under way and closes the file. It returns when all of that is done; calling it
// again waits for the same and gives the same result.
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
	err := errors.Join(s.entrance.visitors.close(), s.store.close())
	s.log.Debug().Msg("event store closed")
	return err
}
