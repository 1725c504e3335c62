package embedded

import (
	"context"
	"strings"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"google.golang.org/grpc"
)

// serverVersion is the release of EventStoreDB whose behaviour this server has. Clients
// parse it and accept only three numbers.
const serverVersion = "23.10.0"

// features tells clients which methods they can call.
type features struct {
	serverfeatures.UnimplementedServerFeaturesServer

	offered func() map[string]grpc.ServiceInfo
}

const persistentService = "event_store.client.persistent_subscriptions.persistentsubscriptions/"

// variants lists, by method, the options that the protocol gained later. Clients ask for
// this list before they use such an option.
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

// GetSupportedMethods returns the registered services and methods, in lower case, because
// clients compare them in lower case.
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
