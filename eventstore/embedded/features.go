package embedded

import (
	"context"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
)

// serverVersion is the release of EventStoreDB whose behaviour is offered.
// Clients parse it: three numbers and nothing else.
const serverVersion = "23.10.0"

// features tells clients what they may call.
type features struct {
	serverfeatures.UnimplementedServerFeaturesServer
}

// GetSupportedMethods names services and methods in lower case, as clients
// compare them.
func (features) GetSupportedMethods(context.Context, *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	methods := &serverfeatures.SupportedMethods{EventStoreServerVersion: serverVersion}
	for _, offered := range []struct {
		service string
		methods []string
	}{
		{"event_store.client.streams.streams", []string{"read", "append", "batchappend", "delete", "tombstone"}},
		{"event_store.client.gossip.gossip", []string{"read"}},
		{"event_store.client.server_features.serverfeatures", []string{"getsupportedmethods"}},
	} {
		for _, method := range offered.methods {
			methods.Methods = append(methods.Methods, &serverfeatures.SupportedMethod{ServiceName: offered.service, MethodName: method})
		}
	}
	return methods, nil
}
