package embedded

import (
	"context"
	"strconv"
	"strings"
	"time"

	gossippb "github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/google/uuid"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
)

// gossip responds to clients that discover a cluster: there is one member, and it is the
// leader.
type gossip struct {
	gossippb.UnimplementedGossipServer

	instance uuid.UUID
	now      func() time.Time
}

// Read returns the address that the client itself used. The client can reach that
// address, and has checked the certificate against it.
func (g *gossip) Read(ctx context.Context, _ *shared.Empty) (*gossippb.ClusterInfo, error) {
	endpoint := &gossippb.EndPoint{}
	if asked := metadata.ValueFromIncomingContext(ctx, ":authority"); len(asked) == 1 {
		if host, port, ok := splitAuthority(asked[0]); ok {
			endpoint.Address, endpoint.Port = host, uint32(port)
		}
	}
	if caller, ok := peer.FromContext(ctx); ok && endpoint.Address == "" && caller.LocalAddr != nil {
		endpoint.Address = caller.LocalAddr.String()
		if host, port, ok := splitAuthority(endpoint.Address); ok {
			endpoint.Address, endpoint.Port = host, uint32(port)
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

// splitAuthority splits host:port. An IPv6 address keeps its brackets, because clients
// append a colon and the port to it.
func splitAuthority(authority string) (host string, port uint16, ok bool) {
	at := strings.LastIndexByte(authority, ':')
	if at <= 0 {
		return "", 0, false
	}
	number, err := strconv.ParseUint(authority[at+1:], 10, 16)
	return authority[:at], uint16(number), err == nil && number > 0
}
