package embedded

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"sync"

	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// groupsStream holds the settings of all groups, in its newest event.
const groupsStream = "$persistentSubscriptionConfig"

// persistent is the service of persistent subscriptions: groups of consumers that share
// the events of a stream, or of the whole log. The store remembers a group's progress.
// Everything that must survive a restart is an event in a system stream. The streams have
// the names that a real server gives them.
type persistent struct {
	persistentpb.UnimplementedPersistentSubscriptionsServer

	store   *store
	closing <-chan struct{} // closed when the calls of consumers have to end
	log     zerolog.Logger

	mu     sync.Mutex // guards the fields below; held while groups are changed in the log
	groups map[string]*group
	// failure is why the groups could not be read. Every call fails with it until
	// RestartSubsystem can read the groups.
	failure error
}

func openPersistent(s *store, closing <-chan struct{}, log zerolog.Logger) *persistent {
	p := &persistent{store: s, closing: closing, log: log}
	p.load()
	return p
}

// groupsVersion is the version of groupsEvent that this program reads and writes.
const groupsVersion = "2"

// groupsEvent is the data of an event of groupsStream.
type groupsEvent struct {
	Version string          `json:"version"`
	Groups  []groupSettings `json:"entries"`
}

// load starts the groups that are in the log. The caller holds mu, or p is not shared
// yet.
func (p *persistent) load() {
	p.groups, p.failure = make(map[string]*group), nil
	stored, err := p.read(context.Background())
	if err != nil {
		p.failure = fmt.Errorf("read %s: %w", groupsStream, err)
		p.log.Error().Err(err).Str("stream", groupsStream).Msg("persistent subscriptions cannot be read")
		return
	}
	for _, settings := range stored {
		p.groups[settings.id()] = startGroup(p.store, settings, p.log)
	}
}

// read returns the settings of all groups. It checks them, because any client can append
// to the stream.
func (p *persistent) read(ctx context.Context) ([]groupSettings, error) {
	newest, err := p.store.newest(ctx, groupsStream)
	if err != nil || newest == nil {
		return nil, err
	}
	var stored groupsEvent
	if err := json.Unmarshal(newest.data, &stored); err != nil {
		return nil, err
	}
	if stored.Version != groupsVersion {
		return nil, fmt.Errorf("the newest event has version %q, not %q", stored.Version, groupsVersion)
	}
	seen := make(map[string]bool)
	for _, settings := range stored.Groups {
		if seen[settings.id()] {
			return nil, fmt.Errorf("the newest event has %s twice", settings.id())
		}
		seen[settings.id()] = true
		if err := settings.check(); err != nil {
			return nil, fmt.Errorf("%s: %w", settings.id(), err)
		}
	}
	return stored.Groups, nil
}

// close stops all groups, which write their progress to disk. The calls of their
// consumers must have ended.
func (p *persistent) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		g.stop(closingStatus())
	}
}

// save writes the settings of all groups to the log. It leaves out the group whose id is
// without, and adds the group with, unless they are empty. The caller holds mu. save
// ignores the end of ctx: otherwise the log and the memory could differ.
func (p *persistent) save(ctx context.Context, without string, with *groupSettings) error {
	stored := groupsEvent{Version: groupsVersion}
	for _, id := range slices.Sorted(maps.Keys(p.groups)) {
		if id != without {
			stored.Groups = append(stored.Groups, p.groups[id].settings)
		}
	}
	if with != nil {
		stored.Groups = append(stored.Groups, *with)
	}
	data, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	return p.store.appendOne(context.WithoutCancel(ctx), groupsStream, proposed{kind: "$PersistentConfig", json: true, data: data})
}

func (p *persistent) Create(ctx context.Context, request *persistentpb.CreateReq) (*persistentpb.CreateResp, error) {
	settings, err := createdSettings(request.GetOptions())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return nil, failedStatus(settings, p.failure)
	}
	if p.groups[settings.id()] != nil {
		return nil, groupStatus(codes.AlreadyExists, "persistent-subscription-exists", settings, "exists")
	}
	// The deletion of a group of the same name may have been interrupted.
	if err := p.clear(ctx, settings); err != nil {
		return nil, toStatus(err)
	}
	if err := p.save(ctx, "", &settings); err != nil {
		return nil, toStatus(err)
	}
	g := startGroup(p.store, settings, p.log)
	p.groups[settings.id()] = g
	return &persistentpb.CreateResp{}, g.failure
}

// Update disconnects the group's consumers, as a real server does. The group continues
// from its checkpoint: its start position is used at its creation only.
func (p *persistent) Update(ctx context.Context, request *persistentpb.UpdateReq) (*persistentpb.UpdateResp, error) {
	settings, err := updatedSettings(request.GetOptions())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.find(settings)
	if err != nil {
		return nil, err
	}
	settings.Filter = g.settings.Filter
	if err := p.save(ctx, settings.id(), &settings); err != nil {
		return nil, toStatus(err)
	}
	g.stop(droppedStatus(settings))
	g = startGroup(p.store, settings, p.log)
	p.groups[settings.id()] = g
	return &persistentpb.UpdateResp{}, g.failure
}

func (p *persistent) Delete(ctx context.Context, request *persistentpb.DeleteReq) (*persistentpb.DeleteResp, error) {
	named, err := nameGroup(request.GetOptions())
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	g, err := p.find(named)
	if err != nil {
		return nil, err
	}
	if err := p.save(ctx, named.id(), nil); err != nil {
		return nil, toStatus(err)
	}
	delete(p.groups, named.id())
	g.stop(missingStatus(named))
	if err := p.clear(ctx, named); err != nil {
		return nil, toStatus(err)
	}
	return &persistentpb.DeleteResp{}, nil
}

// clear deletes the streams of a group.
func (p *persistent) clear(ctx context.Context, settings groupSettings) error {
	for _, stream := range []string{settings.checkpointStream(), settings.parkedStream()} {
		h, err := p.store.state(ctx, stream)
		if err != nil {
			return err
		}
		if h.last == noRevision || h.limits.before == deletedBefore {
			continue
		}
		if _, err := p.store.delete(ctx, stream, expectAny); err != nil {
			return err
		}
	}
	return nil
}

// find returns a group. The caller holds mu.
func (p *persistent) find(named groupSettings) (*group, error) {
	if p.failure != nil {
		return nil, failedStatus(named, p.failure)
	}
	g := p.groups[named.id()]
	if g == nil {
		return nil, missingStatus(named)
	}
	return g, nil
}

// locate returns a group. It is for calls that change no group.
func (p *persistent) locate(options namesGroup) (*group, error) {
	named, err := nameGroup(options)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.find(named)
}

func (p *persistent) GetInfo(ctx context.Context, request *persistentpb.GetInfoReq) (*persistentpb.GetInfoResp, error) {
	g, err := p.locate(request.GetOptions())
	if err != nil {
		return nil, err
	}
	info, err := g.info(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	return &persistentpb.GetInfoResp{SubscriptionInfo: info}, nil
}

func (p *persistent) List(ctx context.Context, request *persistentpb.ListReq) (*persistentpb.ListResp, error) {
	source := ""
	if only := request.GetOptions().GetListForStream(); only.GetAll() != nil {
		source = allStream
	} else if only != nil {
		var err error
		if source, err = streamName(only.GetStream()); err != nil {
			return nil, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failure != nil {
		return nil, failedStatus(groupSettings{Stream: source}, p.failure)
	}
	response := &persistentpb.ListResp{}
	for _, id := range slices.Sorted(maps.Keys(p.groups)) {
		g := p.groups[id]
		if source != "" && g.settings.Stream != source {
			continue
		}
		info, err := g.info(ctx)
		if err != nil {
			return nil, toStatus(err)
		}
		response.Subscriptions = append(response.Subscriptions, info)
	}
	if source != "" && len(response.Subscriptions) == 0 {
		return nil, missingStatus(groupSettings{Stream: source})
	}
	return response, nil
}

func (p *persistent) ReplayParked(ctx context.Context, request *persistentpb.ReplayParkedReq) (*persistentpb.ReplayParkedResp, error) {
	options := request.GetOptions()
	stopAt := int64(math.MaxInt64)
	if limited, ok := options.GetStopAtOption().(*persistentpb.ReplayParkedReq_Options_StopAt); ok {
		stopAt = limited.StopAt
	}
	if stopAt < 0 {
		return nil, status.Error(codes.InvalidArgument, "parked events are replayed up to a revision of 0 or more")
	}
	g, err := p.locate(options)
	if err != nil {
		return nil, err
	}
	if err := g.replay(ctx, stopAt); err != nil {
		return nil, toStatus(err)
	}
	return &persistentpb.ReplayParkedResp{}, nil
}

// RestartSubsystem disconnects all consumers and reads the groups from the log again.
func (p *persistent) RestartSubsystem(context.Context, *shared.Empty) (*shared.Empty, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, g := range p.groups {
		g.stop(droppedStatus(g.settings))
	}
	p.load()
	if p.failure != nil {
		return nil, toStatus(p.failure)
	}
	return &shared.Empty{}, nil
}

// Read connects a consumer for as long as the call lasts.
func (p *persistent) Read(call persistentpb.PersistentSubscriptions_ReadServer) error {
	request, err := call.Recv()
	if err != nil {
		return err
	}
	options := request.GetOptions()
	if options == nil {
		return status.Error(codes.InvalidArgument, "the first request of a consumer must have its options")
	}
	if size := options.GetBufferSize(); size <= 0 || size > slotsLimit {
		return status.Errorf(codes.InvalidArgument, "the buffer size must be from 1 to %d", slotsLimit)
	}
	g, err := p.locate(options)
	if err != nil {
		return err
	}
	asUUID := structuredUUID
	if _, asText := options.GetUuidOption().GetContent().(*persistentpb.ReadReq_Options_UUIDOption_String_); asText {
		asUUID = stringUUID
	}
	from := ""
	if caller, ok := peer.FromContext(call.Context()); ok {
		from = caller.Addr.String()
	}
	c := newConsumer(from, int(options.GetBufferSize()))
	if given := metadata.ValueFromIncomingContext(call.Context(), "connection-name"); len(given) > 0 {
		c.name = given[0]
	}
	if err := g.join(call.Context(), c); err != nil {
		return toStatus(err)
	}
	defer g.leave(c)
	err = call.Send(&persistentpb.ReadResp{Content: &persistentpb.ReadResp_SubscriptionConfirmation_{
		SubscriptionConfirmation: &persistentpb.ReadResp_SubscriptionConfirmation{SubscriptionId: g.settings.id()},
	}})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- receiveSettlements(call, g, c) }()
	for {
		select {
		case d := <-c.out:
			if err := call.Send(deliveryResponse(d, asUUID)); err != nil {
				return err
			}
		case err := <-ended:
			return toStatus(err)
		case err := <-c.dropped:
			return err
		case <-p.closing:
			return closingStatus()
		}
	}
}

// receiveSettlements passes a consumer's acknowledgements and refusals to its group.
func receiveSettlements(call persistentpb.PersistentSubscriptions_ReadServer, g *group, c *consumer) error {
	for {
		request, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		named, settle := request.GetAck().GetIds(), g.ack
		if refusal := request.GetNack(); refusal != nil {
			named, settle = refusal.GetIds(), func(c *consumer, ids []uuid.UUID) {
				g.nack(c, ids, refusal.GetAction(), refusal.GetReason())
			}
		}
		ids := make([]uuid.UUID, len(named))
		for i, id := range named {
			if ids[i], err = parseUUID(id); err != nil {
				return status.Errorf(codes.InvalidArgument, "the event's id is not valid: %v", err)
			}
		}
		if err := g.do(call.Context(), func() { settle(c, ids) }); err != nil {
			return err
		}
	}
}

func deliveryResponse(d delivery, asUUID func(uuid.UUID) *shared.UUID) *persistentpb.ReadResp {
	event, link := d.pair()
	return &persistentpb.ReadResp{Content: &persistentpb.ReadResp_Event{Event: &persistentpb.ReadResp_ReadEvent{
		Event:    persistentEvent(event, asUUID),
		Link:     persistentEvent(link, asUUID),
		Position: &persistentpb.ReadResp_ReadEvent_CommitPosition{CommitPosition: uint64(d.position)},
		Count:    &persistentpb.ReadResp_ReadEvent_RetryCount{RetryCount: d.retries},
	}}}
}

func persistentEvent(e *recorded, asUUID func(uuid.UUID) *shared.UUID) *persistentpb.ReadResp_ReadEvent_RecordedEvent {
	if e == nil {
		return nil
	}
	return &persistentpb.ReadResp_ReadEvent_RecordedEvent{
		Id:               asUUID(e.id),
		StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(e.stream)},
		StreamRevision:   uint64(e.revision),
		PreparePosition:  uint64(e.position),
		CommitPosition:   uint64(e.position),
		Metadata:         systemMetadata(e),
		CustomMetadata:   e.metadata,
		Data:             e.data,
	}
}

// newest returns the newest event of a stream, or nil if it has none.
func (s *store) newest(ctx context.Context, stream string) (*recorded, error) {
	p, err := s.readStream(ctx, stream, math.MaxInt64, true, false, 1)
	if errors.Is(err, errNoStream) || err == nil && len(p.events) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &p.events[0].recorded, nil
}

// appendOne appends an event that the store itself makes.
func (s *store) appendOne(ctx context.Context, stream string, event proposed) error {
	event.id = uuid.New()
	_, err := s.append(ctx, stream, expectAny, []proposed{event})
	return err
}
