package embedded

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// startFromEnd is the start of a group that gets only events from after its creation.
const startFromEnd = -1

const (
	strategyRoundRobin       = "RoundRobin"
	strategyDispatchToSingle = "DispatchToSingle"
	strategyPinned           = "Pinned"
)

// groupSettings are the settings of a group. Times are in milliseconds, as in the
// protocol and in the log of a real server.
type groupSettings struct {
	Stream             string       `json:"stream"` // or allStream
	Group              string       `json:"group"`
	Filter             *groupFilter `json:"filter,omitempty"`
	StartFrom          int64        `json:"startFrom"`
	ResolveLinks       bool         `json:"resolveLinkTos"`
	ExtraStatistics    bool         `json:"extraStatistics"` // measure how long consumers take
	MessageTimeout     int32        `json:"messageTimeout"`  // 0 for none
	MaxRetryCount      int32        `json:"maxRetryCount"`
	CheckpointAfter    int32        `json:"checkPointAfter"`
	MinCheckpointCount int32        `json:"minCheckPointCount"`
	MaxCheckpointCount int32        `json:"maxCheckPointCount"`
	MaxSubscriberCount int32        `json:"maxSubscriberCount"` // 0 for any number
	// LiveBufferSize is stored because GetInfo returns it. It has no effect: a group
	// reads live events from the file, as it reads old ones, so there is no second
	// buffer.
	LiveBufferSize    int32  `json:"liveBufferSize"`
	ReadBatchSize     int32  `json:"readBatchSize"`
	HistoryBufferSize int32  `json:"historyBufferSize"`
	ConsumerStrategy  string `json:"namedConsumerStrategy"`
}

// groupFilter is the stored form of filter.
type groupFilter struct {
	ByType   bool     `json:"byType"`
	Regex    string   `json:"regex,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
}

func (f *groupFilter) compile() (*filter, error) {
	if f == nil {
		return nil, nil
	}
	expression := &streamspb.ReadReq_Options_FilterOptions_Expression{Regex: f.Regex, Prefix: f.Prefixes}
	if f.ByType {
		return newFilter(&streamspb.ReadReq_Options_FilterOptions{
			Filter: &streamspb.ReadReq_Options_FilterOptions_EventType{EventType: expression},
		})
	}
	return newFilter(&streamspb.ReadReq_Options_FilterOptions{
		Filter: &streamspb.ReadReq_Options_FilterOptions_StreamIdentifier{StreamIdentifier: expression},
	})
}

// id is also part of the names of the group's streams. So two groups that would share
// streams have the same id and cannot both exist.
func (s *groupSettings) id() string { return s.Stream + "::" + s.Group }

func (s *groupSettings) checkpointStream() string { return groupStreamPrefix + s.id() + "-checkpoint" }
func (s *groupSettings) parkedStream() string     { return groupStreamPrefix + s.id() + "-parked" }
func (s *groupSettings) ofAll() bool              { return s.Stream == allStream }

// groupStreamPrefix is the prefix of the streams that hold checkpoints and parked events.
const groupStreamPrefix = "$persistentsubscription-"

// format returns a revision, or a position for a group on the whole log, as a real server
// writes it.
func (s *groupSettings) format(place int64) string {
	if s.ofAll() {
		return fmt.Sprintf("C:%[1]d/P:%[1]d", place)
	}
	return strconv.FormatInt(place, 10)
}

func (s *groupSettings) parse(text string) (place int64, err error) {
	if s.ofAll() {
		_, err = fmt.Sscanf(text, "C:%d/", &place)
		return place, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// namesGroup is what the options of most calls have in common. Options without a stream
// have All.
type namesGroup interface {
	GetStreamIdentifier() *shared.StreamIdentifier
	GetAll() *shared.Empty
	GetGroupName() string
}

func nameGroup(options namesGroup) (groupSettings, error) {
	if options.GetAll() != nil {
		return namedGroup(allStream, options.GetGroupName())
	}
	stream, err := streamName(options.GetStreamIdentifier())
	if err != nil {
		return groupSettings{}, err
	}
	return namedGroup(stream, options.GetGroupName())
}

func namedGroup(stream, name string) (groupSettings, error) {
	switch {
	case name == "":
		return groupSettings{}, status.Error(codes.InvalidArgument, "the group has no name")
	case len(stream)+len(name) > maxStreamName/2:
		return groupSettings{}, status.Error(codes.InvalidArgument, "the names of stream and group are too long")
	}
	return groupSettings{Stream: stream, Group: name}, nil
}

// sharedStream returns the name of a stream that a group can be on. Requests name the
// whole log in a field of its own, not as a stream.
func sharedStream(identifier *shared.StreamIdentifier) (string, error) {
	stream, err := streamName(identifier)
	if err == nil && stream == allStream {
		err = status.Error(codes.InvalidArgument, "$all is not a stream: the request has another field for it")
	}
	return stream, err
}

// oldSource reads the stream and the start of a group from the old fields of the
// protocol, from before groups could be on $all. The clients for NodeJS use only these
// for groups on a stream.
func oldSource(identifier *shared.StreamIdentifier, revision uint64) (stream string, from int64, err error) {
	if from = clamp(revision); revision == math.MaxUint64 {
		from = startFromEnd
	}
	stream, err = sharedStream(identifier)
	return stream, from, err
}

func createdSettings(options *persistentpb.CreateReq_Options) (groupSettings, error) {
	var stream string
	var from int64
	var chosen *groupFilter
	switch source := options.GetStreamOption().(type) {
	case nil:
		var err error
		//nolint:staticcheck // see oldSource
		if stream, from, err = oldSource(options.GetStreamIdentifier(), options.GetSettings().GetRevision()); err != nil {
			return groupSettings{}, err
		}
	case *persistentpb.CreateReq_Options_Stream:
		var err error
		if stream, err = sharedStream(source.Stream.GetStreamIdentifier()); err != nil {
			return groupSettings{}, err
		}
		switch start := source.Stream.GetRevisionOption().(type) {
		case *persistentpb.CreateReq_StreamOptions_Revision:
			from = clamp(start.Revision)
		case *persistentpb.CreateReq_StreamOptions_End:
			from = startFromEnd
		}
	case *persistentpb.CreateReq_Options_All:
		stream = allStream
		switch start := source.All.GetAllOption().(type) {
		case *persistentpb.CreateReq_AllOptions_Position:
			var err error
			if from, err = positionOf(start.Position); err != nil {
				return groupSettings{}, err
			}
		case *persistentpb.CreateReq_AllOptions_End:
			from = startFromEnd
		}
		if options := source.All.GetFilter(); options != nil {
			by, byType := options.GetFilter().(*persistentpb.CreateReq_AllOptions_FilterOptions_EventType)
			expression := options.GetStreamIdentifier()
			if byType {
				expression = by.EventType
			}
			chosen = &groupFilter{ByType: byType, Regex: expression.GetRegex(), Prefixes: expression.GetPrefix()}
		}
	}
	strategy := options.GetSettings().GetConsumerStrategy()
	if strategy == "" {
		// Some clients, the one for Go among them, send the strategy as a number.
		strategy = options.GetSettings().GetNamedConsumerStrategy().String() //nolint:staticcheck // see above
	}
	settings, err := newSettings(stream, options.GetGroupName(), from, options.GetSettings(), strategy)
	settings.Filter = chosen
	if err == nil {
		_, err = chosen.compile()
	}
	return settings, err
}

func updatedSettings(options *persistentpb.UpdateReq_Options) (groupSettings, error) {
	var stream string
	var from int64
	switch source := options.GetStreamOption().(type) {
	case nil:
		var err error
		//nolint:staticcheck // see oldSource
		if stream, from, err = oldSource(options.GetStreamIdentifier(), options.GetSettings().GetRevision()); err != nil {
			return groupSettings{}, err
		}
	case *persistentpb.UpdateReq_Options_Stream:
		var err error
		if stream, err = sharedStream(source.Stream.GetStreamIdentifier()); err != nil {
			return groupSettings{}, err
		}
		switch start := source.Stream.GetRevisionOption().(type) {
		case *persistentpb.UpdateReq_StreamOptions_Revision:
			from = clamp(start.Revision)
		case *persistentpb.UpdateReq_StreamOptions_End:
			from = startFromEnd
		}
	case *persistentpb.UpdateReq_Options_All:
		stream = allStream
		switch start := source.All.GetAllOption().(type) {
		case *persistentpb.UpdateReq_AllOptions_Position:
			var err error
			if from, err = positionOf(start.Position); err != nil {
				return groupSettings{}, err
			}
		case *persistentpb.UpdateReq_AllOptions_End:
			from = startFromEnd
		}
	}
	return newSettings(stream, options.GetGroupName(), from, options.GetSettings(), options.GetSettings().GetNamedConsumerStrategy().String())
}

// settingsMessage is what the settings of Create and Update have in common.
type settingsMessage interface {
	GetResolveLinks() bool
	GetExtraStatistics() bool
	GetMaxRetryCount() int32
	GetMinCheckpointCount() int32
	GetMaxCheckpointCount() int32
	GetMaxSubscriberCount() int32
	GetLiveBufferSize() int32
	GetReadBatchSize() int32
	GetHistoryBufferSize() int32
	GetMessageTimeoutTicks() int64
	GetMessageTimeoutMs() int32
	GetCheckpointAfterTicks() int64
	GetCheckpointAfterMs() int32
}

func newSettings(stream, name string, from int64, message settingsMessage, strategy string) (groupSettings, error) {
	if _, err := namedGroup(stream, name); err != nil {
		return groupSettings{}, err
	}
	// A request sets one of the two units.
	timeout := int64(message.GetMessageTimeoutMs()) + ticksToMilliseconds(message.GetMessageTimeoutTicks())
	after := int64(message.GetCheckpointAfterMs()) + ticksToMilliseconds(message.GetCheckpointAfterTicks())
	if max(timeout, after) > math.MaxInt32 {
		return groupSettings{}, status.Error(codes.InvalidArgument, "times must be less than 25 days")
	}
	s := groupSettings{
		Stream: stream, Group: name, StartFrom: from,
		ResolveLinks: message.GetResolveLinks(), ExtraStatistics: message.GetExtraStatistics(),
		MessageTimeout: int32(max(timeout, -1)), MaxRetryCount: message.GetMaxRetryCount(),
		CheckpointAfter: int32(max(after, -1)), MinCheckpointCount: message.GetMinCheckpointCount(), MaxCheckpointCount: message.GetMaxCheckpointCount(),
		MaxSubscriberCount: message.GetMaxSubscriberCount(),
		LiveBufferSize:     message.GetLiveBufferSize(), ReadBatchSize: message.GetReadBatchSize(), HistoryBufferSize: message.GetHistoryBufferSize(),
		ConsumerStrategy: strategy,
	}
	return s, s.check()
}

// ticksToMilliseconds converts ticks of 100 ns. It rounds away from 0, because 0 means
// that no time is set.
func ticksToMilliseconds(ticks int64) int64 {
	const ticksPerMillisecond = 10_000
	whole := ticks / ticksPerMillisecond
	switch rest := ticks % ticksPerMillisecond; {
	case rest > 0:
		whole++
	case rest < 0:
		whole--
	}
	return whole
}

// check returns an error for settings that no group can work with.
func (s *groupSettings) check() error {
	for _, rule := range []struct {
		kept  bool
		claim string
	}{
		{s.MessageTimeout >= 0, "the message timeout must be 0 or more"},
		{s.CheckpointAfter >= 0, "the time between checkpoints must be 0 or more"},
		{s.MaxRetryCount >= 0, "the maximum retry count must be 0 or more"},
		{s.MinCheckpointCount >= 0, "the minimum checkpoint count must be 0 or more"},
		{s.MaxCheckpointCount >= max(s.MinCheckpointCount, 1), "the maximum checkpoint count must be greater than 0 and not below the minimum"},
		{s.MaxSubscriberCount >= 0, "the maximum subscriber count must be 0 or more"},
		{s.LiveBufferSize > 0, "the live buffer size must be greater than 0"},
		{s.ReadBatchSize > 0, "the read batch size must be greater than 0"},
		{s.HistoryBufferSize >= s.ReadBatchSize, "the history buffer size must not be below the read batch size"},
		{
			slices.Contains([]string{strategyRoundRobin, strategyDispatchToSingle, strategyPinned}, s.ConsumerStrategy),
			"the consumer strategy must be RoundRobin, DispatchToSingle or Pinned",
		},
	} {
		if !rule.kept {
			return status.Error(codes.InvalidArgument, rule.claim)
		}
	}
	return nil
}

// groupStatus returns an error about a group. fate ends the message, for example "does not
// exist".
func groupStatus(code codes.Code, exception string, s groupSettings, fate string) error {
	return &statusError{
		status.Newf(code, "Subscription group %s on stream %s %s.", s.Group, s.Stream, fate),
		metadata.Pairs(trailerException, exception, "stream-name", printable(s.Stream), "group-name", printable(s.Group)),
	}
}

func missingStatus(s groupSettings) error {
	return groupStatus(codes.NotFound, "persistent-subscription-does-not-exist", s, "does not exist")
}

func droppedStatus(s groupSettings) error {
	return groupStatus(codes.Canceled, "persistent-subscription-dropped", s, "was dropped")
}

func fullStatus(s groupSettings) error {
	return groupStatus(codes.FailedPrecondition, "maximum-subscribers-reached", s, "has as many consumers as it may have")
}

func failedStatus(s groupSettings, reason error) error {
	return groupStatus(codes.Internal, "persistent-subscription-failed", s, "failed: "+reason.Error())
}
