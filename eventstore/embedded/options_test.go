package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Every option of a request has its effect or is refused. None is ignored silently.

func (r *running) rawConnection(t testing.TB) *grpc.ClientConn {
	t.Helper()
	connection, err := grpc.NewClient("unix:"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return connection
}

// plainGroup returns a request for a group on $all.
func plainGroup(name string, all *persistentpb.CreateReq_AllOptions) *persistentpb.CreateReq {
	return &persistentpb.CreateReq{Options: &persistentpb.CreateReq_Options{
		StreamOption: &persistentpb.CreateReq_Options_All{All: all}, GroupName: name,
		Settings: &persistentpb.CreateReq_Settings{
			MaxCheckpointCount: 1, LiveBufferSize: 1, ReadBatchSize: 10, HistoryBufferSize: 10, ConsumerStrategy: strategyRoundRobin,
		},
	}}
}

func TestOptions_thatContradictEachOtherAreRefused(t *testing.T) {
	t.Parallel()
	server := start(t)
	mustAppend(t, server.connect(t), "s", esdb.NoStream{}, newEvents(3)...)
	connection := server.rawConnection(t)
	read := func(change func(*streamspb.ReadReq_Options)) func(context.Context) error {
		return func(ctx context.Context) error {
			options := &streamspb.ReadReq_Options{
				StreamOption: &streamspb.ReadReq_Options_All{All: &streamspb.ReadReq_Options_AllOptions{AllOption: &streamspb.ReadReq_Options_AllOptions_Start{}}},
				CountOption:  &streamspb.ReadReq_Options_Count{Count: 1},
			}
			change(options)
			call, err := streamspb.NewStreamsClient(connection).Read(ctx, &streamspb.ReadReq{Options: options})
			if err != nil {
				return err
			}
			_, err = call.Recv()
			return err
		}
	}
	create := func(all *persistentpb.CreateReq_AllOptions) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := persistentpb.NewPersistentSubscriptionsClient(connection).Create(ctx, plainGroup(uuid.NewString(), all))
			return err
		}
	}
	both := &streamspb.ReadReq_Options_Filter{Filter: &streamspb.ReadReq_Options_FilterOptions{
		CheckpointIntervalMultiplier: 1,
		Filter: &streamspb.ReadReq_Options_FilterOptions_EventType{
			EventType: &streamspb.ReadReq_Options_FilterOptions_Expression{Regex: "^a", Prefix: []string{"b"}},
		},
	}}
	const unequal, two = "commit and prepare position", "both"
	position := &streamspb.ReadReq_Options_AllOptions{
		AllOption: &streamspb.ReadReq_Options_AllOptions_Position{Position: &streamspb.ReadReq_Options_Position{CommitPosition: 2, PreparePosition: 1}},
	}
	for _, c := range []struct {
		claim string
		call  func(context.Context) error
		says  string
	}{
		{"a filter by prefixes and by a regular expression", read(func(o *streamspb.ReadReq_Options) { o.FilterOption = both }), two},
		{"the same in a subscription", read(func(o *streamspb.ReadReq_Options) {
			o.FilterOption, o.CountOption = both, &streamspb.ReadReq_Options_Subscription{}
		}), two},
		{"the same for a group", create(&persistentpb.CreateReq_AllOptions{FilterOption: &persistentpb.CreateReq_AllOptions_Filter{
			Filter: &persistentpb.CreateReq_AllOptions_FilterOptions{Filter: &persistentpb.CreateReq_AllOptions_FilterOptions_StreamIdentifier{
				StreamIdentifier: &persistentpb.CreateReq_AllOptions_FilterOptions_Expression{Regex: "^a", Prefix: []string{"b"}},
			}},
		}}), two},
		{"a position that no event has", read(func(o *streamspb.ReadReq_Options) {
			o.StreamOption = &streamspb.ReadReq_Options_All{All: position}
		}), unequal},
		{"the same in a subscription", read(func(o *streamspb.ReadReq_Options) {
			o.StreamOption, o.CountOption = &streamspb.ReadReq_Options_All{All: position}, &streamspb.ReadReq_Options_Subscription{}
		}), unequal},
		{"the same for a group", create(&persistentpb.CreateReq_AllOptions{
			AllOption: &persistentpb.CreateReq_AllOptions_Position{Position: &persistentpb.CreateReq_Position{CommitPosition: 1, PreparePosition: 2}},
		}), unequal},
		{"the same for a group that is changed", func(ctx context.Context) error {
			groups := persistentpb.NewPersistentSubscriptionsClient(connection)
			if _, err := groups.Create(ctx, plainGroup("changed", &persistentpb.CreateReq_AllOptions{})); err != nil {
				return err
			}
			_, err := groups.Update(ctx, &persistentpb.UpdateReq{Options: &persistentpb.UpdateReq_Options{
				StreamOption: &persistentpb.UpdateReq_Options_All{All: &persistentpb.UpdateReq_AllOptions{
					AllOption: &persistentpb.UpdateReq_AllOptions_Position{Position: &persistentpb.UpdateReq_Position{CommitPosition: 2}},
				}},
				GroupName: "changed",
				Settings:  &persistentpb.UpdateReq_Settings{MaxCheckpointCount: 1, LiveBufferSize: 1, ReadBatchSize: 10, HistoryBufferSize: 10},
			}})
			return err
		}, unequal},
		{"more events ahead than a consumer is given", func(ctx context.Context) error {
			groups := persistentpb.NewPersistentSubscriptionsClient(connection)
			if _, err := groups.Create(ctx, plainGroup("full", &persistentpb.CreateReq_AllOptions{})); err != nil {
				return err
			}
			call, err := groups.Read(ctx)
			if err != nil {
				return err
			}
			err = call.Send(&persistentpb.ReadReq{Content: &persistentpb.ReadReq_Options_{Options: &persistentpb.ReadReq_Options{
				StreamOption: &persistentpb.ReadReq_Options_All{All: &shared.Empty{}}, GroupName: "full", BufferSize: slotsLimit + 1,
			}}})
			if err != nil {
				return err
			}
			_, err = call.Recv()
			return err
		}, "buffer size"},
	} {
		ctx, cancel := context.WithCancel(within(t))
		if err := c.call(ctx); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.claim, err)
		}
		cancel()
	}
}

// Newer clients ask for the last revision of the stream that they read.
func TestRead_tellsTheLastRevisionToClientsThatAsk(t *testing.T) {
	t.Parallel()
	server := start(t)
	mustAppend(t, server.connect(t), "s", esdb.NoStream{}, newEvents(5)...)
	raw := server.rawClient(t)
	for _, direction := range []streamspb.ReadReq_Options_ReadDirection{streamspb.ReadReq_Options_Forwards, streamspb.ReadReq_Options_Backwards} {
		for compatibility, want := range map[uint32][]string{0: {"3"}, 1: {"3", "last 4"}, 2: {"3", "last 4"}} {
			for _, stream := range []string{"s", "none"} {
				read, err := raw.Read(within(t), &streamspb.ReadReq{Options: &streamspb.ReadReq_Options{
					StreamOption: &streamspb.ReadReq_Options_Stream{Stream: &streamspb.ReadReq_Options_StreamOptions{
						StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)},
						RevisionOption:   &streamspb.ReadReq_Options_StreamOptions_Revision{Revision: 3},
					}},
					ReadDirection: direction,
					CountOption:   &streamspb.ReadReq_Options_Count{Count: 1},
					ControlOption: &streamspb.ReadReq_Options_ControlOption{Compatibility: compatibility},
				}})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for {
					response, err := read.Recv()
					if errors.Is(err, io.EOF) {
						break
					}
					switch content := response.GetContent().(type) {
					case *streamspb.ReadResp_Event:
						got = append(got, fmt.Sprint(content.Event.GetEvent().GetStreamRevision()))
					case *streamspb.ReadResp_LastStreamPosition:
						got = append(got, fmt.Sprint("last ", content.LastStreamPosition))
					case *streamspb.ReadResp_StreamNotFound_:
						got = append(got, "not found")
					default:
						t.Fatalf("got %v, %v", response, err)
					}
				}
				want := want
				if stream == "none" {
					want = []string{"not found"}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s of %s, compatibility %d: got %q, want %q", direction, stream, compatibility, got, want)
				}
			}
		}
	}
}

// The options of an append are in its first piece. Later pieces may repeat them.
func TestBatchAppend_optionsDoNotChange(t *testing.T) {
	t.Parallel()
	server := start(t)
	call, err := server.rawClient(t).BatchAppend(within(t))
	if err != nil {
		t.Fatal(err)
	}
	to := func(stream string) *streamspb.BatchAppendReq_Options {
		return &streamspb.BatchAppendReq_Options{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)}, ExpectedStreamPosition: &streamspb.BatchAppendReq_Options_Any{},
		}
	}
	for claim, c := range map[string]struct {
		later *streamspb.BatchAppendReq_Options
		taken bool
	}{
		"none": {nil, true}, "the same": {to("s"), true}, "another stream": {to("other"), false}, "another revision": {
			&streamspb.BatchAppendReq_Options{
				StreamIdentifier: to("s").StreamIdentifier, ExpectedStreamPosition: &streamspb.BatchAppendReq_Options_StreamPosition{StreamPosition: 7},
			}, false,
		},
	} {
		id := structuredUUID(uuid.New())
		event := &streamspb.BatchAppendReq_ProposedMessage{
			Id: structuredUUID(uuid.New()), Metadata: map[string]string{"type": "x", "content-type": contentTypeJSON},
		}
		for _, piece := range []*streamspb.BatchAppendReq{
			{CorrelationId: id, Options: to("s"), ProposedMessages: []*streamspb.BatchAppendReq_ProposedMessage{event}},
			{CorrelationId: id, Options: c.later, IsFinal: true},
		} {
			if err := call.Send(piece); err != nil {
				t.Fatal(err)
			}
		}
		response, err := call.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if c.taken != (response.GetSuccess() != nil) || !c.taken && !strings.Contains(response.GetError().GetMessage(), "options") {
			t.Errorf("%s: %v", claim, response)
		}
	}
}

// A time of less than a millisecond does not become 0, which means none.
func TestPersistent_shortTimesAreRoundedUp(t *testing.T) {
	t.Parallel()
	server := start(t)
	groups := persistentpb.NewPersistentSubscriptionsClient(server.rawConnection(t))
	for ticks, want := range map[int64]int32{0: 0, 1: 1, 9_999: 1, 10_000: 1, 10_001: 2, 300_000: 30} {
		request := plainGroup(fmt.Sprint(ticks), &persistentpb.CreateReq_AllOptions{})
		request.Options.Settings.MessageTimeout = &persistentpb.CreateReq_Settings_MessageTimeoutTicks{MessageTimeoutTicks: ticks}
		request.Options.Settings.CheckpointAfter = &persistentpb.CreateReq_Settings_CheckpointAfterTicks{CheckpointAfterTicks: ticks}
		if _, err := groups.Create(within(t), request); err != nil {
			t.Fatal(err)
		}
		response, err := groups.GetInfo(within(t), &persistentpb.GetInfoReq{Options: &persistentpb.GetInfoReq_Options{
			StreamOption: &persistentpb.GetInfoReq_Options_All{All: &shared.Empty{}}, GroupName: fmt.Sprint(ticks),
		}})
		info := response.GetSubscriptionInfo()
		if err != nil || info.GetMessageTimeoutMilliseconds() != want || info.GetCheckPointAfterMilliseconds() != want {
			t.Errorf("%d ticks: %d and %d ms, want %d, %v", ticks, info.GetMessageTimeoutMilliseconds(), info.GetCheckPointAfterMilliseconds(), want, err)
		}
	}
}

// GetInfo returns the connection name that a consumer's client set.
func TestPersistent_consumersHaveTheNamesOfTheirConnections(t *testing.T) {
	t.Parallel()
	server := start(t)
	groups := persistentpb.NewPersistentSubscriptionsClient(server.rawConnection(t))
	if _, err := groups.Create(within(t), plainGroup("g", &persistentpb.CreateReq_AllOptions{})); err != nil {
		t.Fatal(err)
	}
	call, err := groups.Read(metadata.AppendToOutgoingContext(within(t), "connection-name", "billing"))
	if err != nil {
		t.Fatal(err)
	}
	err = call.Send(&persistentpb.ReadReq{Content: &persistentpb.ReadReq_Options_{Options: &persistentpb.ReadReq_Options{
		StreamOption: &persistentpb.ReadReq_Options_All{All: &shared.Empty{}}, GroupName: "g", BufferSize: 1,
	}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := call.Recv(); err != nil {
		t.Fatal(err)
	}
	info, err := server.connect(t).GetPersistentSubscriptionInfoToAll(within(t), "g", esdb.GetPersistentSubscriptionOptions{})
	if err != nil || len(info.Connections) != 1 || info.Connections[0].ConnectionName != "billing" {
		t.Errorf("got %+v, %v", info, err)
	}
}

// The extra statistics are how long a consumer takes to acknowledge, in milliseconds.
func TestGroup_extraStatistics(t *testing.T) {
	t.Parallel()
	for _, extra := range []bool{true, false} {
		inBubble(t, groupSettings{ExtraStatistics: extra}, func(g testGroup) {
			c := g.join(1)
			g.append("s", 100)
			for n := range 100 {
				ids := g.wantGiven(c, fmt.Sprint(n))
				time.Sleep(time.Duration(n+1) * time.Millisecond) //nolint:forbidigo // in a synctest bubble
				if n%2 == 0 {
					g.acks(c, ids...)
				} else if err := g.do(g.Context(), func() { g.nack(c, ids, persistentpb.ReadReq_Nack_Skip, "") }); err != nil {
					g.Fatal(err)
				}
				synctest.Wait()
			}
			info, err := g.info(g.Context())
			if err != nil {
				g.Fatal(err)
			}
			var got []string
			for _, m := range info.GetConnections()[0].GetObservedMeasurements() {
				got = append(got, fmt.Sprint(m.GetKey(), " ", m.GetValue()))
			}
			want := []string{
				"Mean 50", "Median 51", "Fastest 1", "Quintile 1 1", "Quintile 2 21", "Quintile 3 41", "Quintile 4 61", "Quintile 5 81",
				"90% 91", "95% 96", "99% 100", "99.5% 100", "99.9% 100", "Highest 100",
			}
			if !extra {
				want = nil
			}
			if !slices.Equal(got, want) {
				g.Errorf("extra statistics %t:\n got %q\nwant %q", extra, got, want)
			}
		})
	}
}
