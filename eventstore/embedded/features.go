package embedded

import (
	"context"
	"strings"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"google.golang.org/grpc"
)

// serverVersion is the release of EventStoreDB whose behaviour is offered.
// Clients parse it: three numbers and nothing else.
const serverVersion = "23.10.0"

// features tells clients what they may call.
type features struct {
	serverfeatures.UnimplementedServerFeaturesServer

	offered func() map[string]grpc.ServiceInfo
}

const persistentService = "event_store.client.persistent_subscriptions.persistentsubscriptions/"

// variants are what a method can do beyond what it always could.
var variants = map[string][]string{
	"event_store.client.streams.streams/batchappend": {"deadline_duration"},
	persistentService + "create":                     {"stream", "all"},
	persistentService + "update":                     {"stream", "all"},
	persistentService + "delete":                     {"stream", "all"},
	persistentService + "read":                       {"stream", "all"},
	persistentService + "getinfo":                    {"stream", "all"},
	persistentService + "list":                       {"stream", "all"},
	persistentService + "replayparked":               {"stream", "all"},
}

// GetSupportedMethods names the services and methods that are registered, in lower
// case, as clients compare them.
func (f *features) GetSupportedMethods(context.Context, *shared.Empty) (*serverfeatures.SupportedMethods, error) {
	methods := &serverfeatures.SupportedMethods{EventStoreServerVersion: serverVersion}
	for service, info := range f.offered() {
		for _, method := range info.Methods {
			offered := &serverfeatures.SupportedMethod{ServiceName: strings.ToLower(service), MethodName: strings.ToLower(method.Name)}
			offered.Features = variants[offered.GetServiceName()+"/"+offered.GetMethodName()]
			methods.Methods = append(methods.Methods, offered)
		}
	}
	return methods, nil
}
