package embedded

import (
	"errors"
	"net"
	"sync"
	"time"

	gossippb "github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	// receiveLimit lets an append that is too large come in whole, so that it can
	// be told so. It is the limit that clients set on their side.
	receiveLimit = 17 << 20

	// closeGrace is how long Close waits for calls whose clients neither take
	// what is sent nor go away.
	closeGrace = 2 * time.Second
)

// Server is an event store that clients of EventStoreDB can talk to. Its methods
// may be called from any goroutine.
type Server struct {
	store   *store
	grpc    *grpc.Server
	closing chan struct{}
	close   func() error
	log     zerolog.Logger
}

// Open opens the store in the file at path, and creates it when there is none.
// Beside it stand a lock file and, while it is open, SQLite's write-ahead log;
// the file may be read by other programs meanwhile. Open fails when another
// process has the store open, when the file is something else, and when it was
// written by a newer release.
func Open(path string, log zerolog.Logger) (*Server, error) {
	return open(path, log, time.Now)
}

func open(path string, log zerolog.Logger, now func() time.Time) (*Server, error) {
	store, err := openStore(path, now)
	if err != nil {
		return nil, err
	}
	s := &Server{
		store:   store,
		closing: make(chan struct{}),
		log:     log,
		grpc: grpc.NewServer(
			grpc.MaxRecvMsgSize(receiveLimit),
			// Clients ping every ten seconds, idle or not; by default that would
			// have them thrown out after half a minute.
			grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
			grpc.UnaryInterceptor(unaryTrailers),
			grpc.StreamInterceptor(streamTrailers),
			grpc.WaitForHandlers(true),
		),
	}
	s.close = sync.OnceValue(s.shutDown)
	streamspb.RegisterStreamsServer(s.grpc, &streams{store: store, closing: s.closing})
	serverfeatures.RegisterServerFeaturesServer(s.grpc, features{})
	gossippb.RegisterGossipServer(s.grpc, &gossip{instance: uuid.New(), now: now})
	log.Debug().Str("path", path).Int64("position", store.writer.position).Msg("event store opened")
	return s, nil
}

// Serve answers clients that come in on l until Close, and then returns nil. It
// closes l, and may be called for several listeners.
func (s *Server) Serve(l net.Listener) error {
	err := s.grpc.Serve(l)
	if errors.Is(err, grpc.ErrServerStopped) {
		return nil
	}
	return err
}

// Close stops taking calls, ends subscriptions, finishes the appends that are
// under way and closes the file. It returns when all of that is done; calling it
// again waits for the same and gives the same result.
func (s *Server) Close() error {
	return s.close()
}

func (s *Server) shutDown() error {
	close(s.closing)
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
	err := s.store.close()
	s.log.Debug().Msg("event store closed")
	return err
}
