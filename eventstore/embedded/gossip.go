package embedded

import (
	"context"
	"net"
	"time"

	gossippb "github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/google/uuid"
	"google.golang.org/grpc/peer"
)

// gossip tells clients that look for a cluster that there is one member, and
// that it leads.
type gossip struct {
	gossippb.UnimplementedGossipServer

	instance uuid.UUID
	now      func() time.Time
}

// Read gives the address that the client has come in by: it is the one that is
// sure to be reachable for that client.
func (g *gossip) Read(ctx context.Context, _ *shared.Empty) (*gossippb.ClusterInfo, error) {
	endpoint := &gossippb.EndPoint{}
	if caller, ok := peer.FromContext(ctx); ok && caller.LocalAddr != nil {
		switch address := caller.LocalAddr.(type) {
		case *net.TCPAddr:
			endpoint.Address, endpoint.Port = address.IP.String(), uint32(address.Port)
		default:
			endpoint.Address = address.String()
		}
	}
	return &gossippb.ClusterInfo{Members: []*gossippb.MemberInfo{{
		InstanceId:   structuredUUID(g.instance),
		TimeStamp:    g.now().UnixNano() / 100,
		State:        gossippb.MemberInfo_Leader,
		IsAlive:      true,
		HttpEndPoint: endpoint,
	}}}, nil
}
