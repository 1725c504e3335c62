package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	persistentpb "github.com/EventStore/EventStore-Client-Go/v4/protos/persistent"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// eachChecked returns settings with a checkpoint after every acknowledgement.
func eachChecked() *esdb.PersistentSubscriptionSettings {
	settings := esdb.SubscriptionSettingsDefault()
	settings.CheckpointLowerBound, settings.CheckpointUpperBound = 1, 1
	return &settings
}

func createGroup(t testing.TB, client *esdb.Client, stream, group string, from esdb.StreamPosition, settings *esdb.PersistentSubscriptionSettings) {
	t.Helper()
	err := client.CreatePersistentSubscription(within(t), stream, group, esdb.PersistentStreamSubscriptionOptions{StartFrom: from, Settings: settings})
	if err != nil {
		t.Fatalf("create %s on %s: %v", group, stream, err)
	}
}

func consume(t testing.TB, client *esdb.Client, stream, group string, buffer uint32) *esdb.PersistentSubscription {
	t.Helper()
	subscription, err := client.SubscribeToPersistentSubscription(within(t), stream, group, esdb.SubscribeToPersistentSubscriptionOptions{BufferSize: buffer})
	if err != nil {
		t.Fatalf("consume %s on %s: %v", group, stream, err)
	}
	t.Cleanup(func() { subscription.Close() })
	return subscription
}

// deliver receives the next event of a consumer.
func deliver(t testing.TB, subscription *esdb.PersistentSubscription) *esdb.EventAppeared {
	t.Helper()
	said := subscription.Recv()
	if said.EventAppeared == nil {
		t.Fatalf("consumer dropped: %v", said.SubscriptionDropped.Error)
	}
	return said.EventAppeared
}

// deliverAll receives events and compares their revisions.
func deliverAll(t testing.TB, subscription *esdb.PersistentSubscription, want ...uint64) []*esdb.ResolvedEvent {
	t.Helper()
	var events []*esdb.ResolvedEvent
	var got []uint64
	for range want {
		event := deliver(t, subscription).Event
		events = append(events, event)
		got = append(got, event.Event.EventNumber)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("delivered %v, want %v", got, want)
	}
	return events
}

func ack(t testing.TB, subscription *esdb.PersistentSubscription, events ...*esdb.ResolvedEvent) {
	t.Helper()
	if err := subscription.Ack(events...); err != nil {
		t.Fatal(err)
	}
}

func nack(t testing.TB, subscription *esdb.PersistentSubscription, action esdb.NackAction, events ...*esdb.ResolvedEvent) {
	t.Helper()
	if err := subscription.Nack("for a test", action, events...); err != nil {
		t.Fatal(err)
	}
}

// awaitInfo calls GetInfo until the result is as wanted: acknowledgements have no
// response to wait for.
func awaitInfo(t testing.TB, client *esdb.Client, stream, group string, wanted func(*esdb.PersistentSubscriptionInfo) bool) {
	t.Helper()
	ctx := within(t)
	for {
		info, err := client.GetPersistentSubscriptionInfo(ctx, stream, group, esdb.GetPersistentSubscriptionOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if wanted(info) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("the group stays at %+v", info.Stats)
		}
	}
}

func checkpointIs(revision uint64) func(*esdb.PersistentSubscriptionInfo) bool {
	return func(info *esdb.PersistentSubscriptionInfo) bool {
		return info.Stats.LastCheckpointedEventRevision != nil && *info.Stats.LastCheckpointedEventRevision == revision
	}
}

func inFlightIs(count int64) func(*esdb.PersistentSubscriptionInfo) bool {
	return func(info *esdb.PersistentSubscriptionInfo) bool { return info.Stats.TotalInFlightMessages == count }
}

func parkedIs(count int64) func(*esdb.PersistentSubscriptionInfo) bool {
	return func(info *esdb.PersistentSubscriptionInfo) bool { return info.Stats.ParkedMessagesCount == count }
}

// dropped waits until a consumer is dropped and returns the reason.
func dropped(t testing.TB, subscription *esdb.PersistentSubscription) error {
	t.Helper()
	for {
		if said := subscription.Recv(); said.SubscriptionDropped != nil {
			return said.SubscriptionDropped.Error
		}
	}
}

// servedEnvironment is the environment variable that makes
// TestPersistent_servedForAnother serve the file that it names.
const servedEnvironment = "LOTLINE_EMBEDDED_TEST_SERVE"

// This is not a test but the process that TestPersistent_killRedelivers kills.
func TestPersistent_servedForAnother(t *testing.T) {
	path := os.Getenv(servedEnvironment)
	if path == "" {
		t.Skip("only as a process of another test")
	}
	server, err := Open(path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(os.Stdout, "serving "+listener.Addr().String())
	t.Fatal(server.Serve(listener, nil))
}

func TestPersistent_killRedelivers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPersistent_servedForAnother$", "-test.v")
	child.Env = append(os.Environ(), servedEnvironment+"="+path)
	child.Stderr = os.Stderr
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines, address, found := bufio.NewScanner(output), "", false
	for !found && lines.Scan() {
		address, found = strings.CutPrefix(lines.Text(), "serving ")
	}
	if !found {
		t.Fatal("the child does not serve")
	}

	client := connectTo(t, address)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(10)...)
	createGroup(t, client, "s", "each", esdb.Start{}, eachChecked())
	createGroup(t, client, "s", "some", esdb.Start{}, nil)
	createGroup(t, client, "s", "end", esdb.End{}, nil)
	each, some := consume(t, client, "s", "each", 10), consume(t, client, "s", "some", 10)
	ack(t, each, deliverAll(t, each, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)[:4]...)
	ack(t, some, deliverAll(t, some, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)[:4]...)
	awaitInfo(t, client, "s", "each", checkpointIs(3))
	awaitInfo(t, client, "s", "some", inFlightIs(6))
	mustAppend(t, client, "s", esdb.Revision(9), newEvent("last", "{}"))
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := child.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}

	client = startAt(t, path, time.Now).connect(t)
	// Exactly the events that were not acknowledged come again.
	deliverAll(t, consume(t, client, "s", "each", 100), 4, 5, 6, 7, 8, 9, 10)
	awaitInfo(t, client, "s", "each", inFlightIs(7))
	// With these settings four acknowledgements make no checkpoint, so these events come
	// again.
	deliverAll(t, consume(t, client, "s", "some", 100), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
	// Events from between the creation and the crash, and none from before.
	deliverAll(t, consume(t, client, "s", "end", 100), 10)
}

func TestPersistent_restartGoesOnBeforeTheFirstUnacknowledged(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(6)...)
	settings := esdb.SubscriptionSettingsDefault()
	settings.MaxSubscriberCount, settings.MessageTimeout, settings.ConsumerStrategyName = 7, 12_345, esdb.ConsumerStrategyPinned
	createGroup(t, client, "s", "g", esdb.Start{}, &settings)
	subscription := consume(t, client, "s", "g", 10)
	events := deliverAll(t, subscription, 0, 1, 2, 3, 4, 5)
	ack(t, subscription, events[1], events[3], events[0])
	awaitInfo(t, client, "s", "g", inFlightIs(3))
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := dropped(t, subscription); status.Code(err) != codes.Unavailable {
		t.Errorf("dropped for %v, want unavailable", err)
	}

	client = startAt(t, server.path, time.Now).connect(t)
	awaitInfo(t, client, "s", "g", checkpointIs(1))
	info, err := client.GetPersistentSubscriptionInfo(within(t), "s", "g", esdb.GetPersistentSubscriptionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Settings; got.MaxSubscriberCount != 7 || got.MessageTimeout != 12_345 || got.ConsumerStrategyName != esdb.ConsumerStrategyPinned {
		t.Errorf("the settings came back as %+v", got)
	}
	deliverAll(t, consume(t, client, "s", "g", 10), 2, 3, 4, 5)
}

func TestPersistent_nack(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(5)...)
	settings := eachChecked()
	settings.MaxRetryCount = 2
	createGroup(t, client, "s", "g", esdb.Start{}, settings)
	subscription := consume(t, client, "s", "g", 1)

	nack(t, subscription, esdb.NackActionSkip, deliverAll(t, subscription, 0)...)
	awaitInfo(t, client, "s", "g", checkpointIs(0))
	nack(t, subscription, esdb.NackActionPark, deliverAll(t, subscription, 1)...)
	awaitInfo(t, client, "s", "g", parkedIs(1))
	for want, action := range []esdb.NackAction{esdb.NackActionRetry, esdb.NackActionUnknown, esdb.NackActionRetry} {
		again := deliver(t, subscription)
		if again.Event.Event.EventNumber != 2 || again.RetryCount != want {
			t.Fatalf("revision %d came with retry count %d, want 2 with %d", again.Event.Event.EventNumber, again.RetryCount, want)
		}
		nack(t, subscription, action, again.Event)
	}
	// Two retries are allowed.
	stopped := deliverAll(t, subscription, 3)
	awaitInfo(t, client, "s", "g", parkedIs(2))
	awaitInfo(t, client, "s", "g", checkpointIs(2))
	nack(t, subscription, esdb.NackActionStop, stopped...)
	if err := dropped(t, subscription); status.Code(err) != codes.Canceled {
		t.Errorf("dropped for %v, want cancelled", err)
	}
	if again := deliver(t, consume(t, client, "s", "g", 1)); again.Event.Event.EventNumber != 3 || again.RetryCount != 0 {
		t.Errorf("after a stop came revision %d with retry count %d, want 3 with 0", again.Event.Event.EventNumber, again.RetryCount)
	}
}

func TestPersistent_replayParked(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(4)...)
	createGroup(t, client, "s", "g", esdb.Start{}, nil)
	subscription := consume(t, client, "s", "g", 10)
	nack(t, subscription, esdb.NackActionPark, deliverAll(t, subscription, 0, 1, 2, 3)[1:]...)
	awaitInfo(t, client, "s", "g", parkedIs(3))

	replay := func(stopAt int) {
		t.Helper()
		if err := client.ReplayParkedMessages(within(t), "s", "g", esdb.ReplayParkedMessagesOptions{StopAt: stopAt}); err != nil {
			t.Fatal(err)
		}
	}
	replay(2)
	events := deliverAll(t, subscription, 1, 2)
	if link := events[0].Link; link == nil || string(link.Data) != "1@s" {
		t.Errorf("the replayed event came by the link %+v", link)
	}
	ack(t, subscription, events...)
	awaitInfo(t, client, "s", "g", parkedIs(1))
	replay(0)
	deliverAll(t, subscription, 3)
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}

	// It was delivered but not acknowledged, so it is still parked. So is revision 0,
	// which is not finished either.
	client = startAt(t, server.path, time.Now).connect(t)
	awaitInfo(t, client, "s", "g", parkedIs(1))
	subscription = consume(t, client, "s", "g", 10)
	deliverAll(t, subscription, 0, 1, 2, 3)
	replay(0)
	ack(t, subscription, deliverAll(t, subscription, 3)...)
	awaitInfo(t, client, "s", "g", parkedIs(0))
	// Newly parked events follow those that were replayed.
	mustAppend(t, client, "s", esdb.Revision(3), newEvent("x", "{}"))
	nack(t, subscription, esdb.NackActionPark, deliverAll(t, subscription, 4)...)
	awaitInfo(t, client, "s", "g", parkedIs(1))
	replay(0)
	deliverAll(t, subscription, 4)
}

func TestPersistent_consumersShareWithoutDuplicates(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	const total = 300
	createGroup(t, client, "s", "g", esdb.Start{}, nil)
	got := make(chan uint64, 2*total)
	var wait sync.WaitGroup
	for range 2 {
		subscription := consume(t, client, "s", "g", 5)
		wait.Go(func() {
			for {
				said := subscription.Recv()
				if said.SubscriptionDropped != nil {
					return
				}
				got <- said.EventAppeared.Event.Event.EventNumber
				if err := subscription.Ack(said.EventAppeared.Event); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range total / 3 {
		mustAppend(t, client, "s", esdb.Any{}, newEvents(3)...)
	}
	seen := make(map[uint64]bool)
	for len(seen) < total {
		select {
		case revision := <-got:
			if seen[revision] {
				t.Fatalf("revision %d was delivered twice", revision)
			}
			seen[revision] = true
		case <-within(t).Done():
			t.Fatalf("%d of %d were delivered", len(seen), total)
		}
	}
	awaitInfo(t, client, "s", "g", func(info *esdb.PersistentSubscriptionInfo) bool {
		return info.Stats.TotalInFlightMessages == 0 && info.Stats.TotalItems == total &&
			len(info.Connections) == 2 && info.Connections[0].TotalItemsProcessed > 0 && info.Connections[1].TotalItemsProcessed > 0
	})
	if err := client.DeletePersistentSubscription(within(t), "s", "g", esdb.DeletePersistentSubscriptionOptions{}); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if len(got) > 0 {
		t.Errorf("revision %d was delivered twice", <-got)
	}
}

func TestPersistent_aLeavingConsumerGivesItsMessagesBack(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(4)...)
	settings := esdb.SubscriptionSettingsDefault()
	settings.MaxSubscriberCount = 2
	createGroup(t, client, "s", "g", esdb.Start{}, &settings)
	first := consume(t, client, "s", "g", 2)
	deliverAll(t, first, 0, 1)
	second := consume(t, client, "s", "g", 10)
	deliverAll(t, second, 2, 3)
	_, err := client.SubscribeToPersistentSubscription(within(t), "s", "g", esdb.SubscribeToPersistentSubscriptionOptions{})
	if err == nil || !strings.Contains(err.Error(), "as many consumers as it may have") {
		t.Errorf("a third consumer got %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	deliverAll(t, second, 0, 1)
	// Its place in the group is free again.
	consume(t, client, "s", "g", 1)
}

func TestPersistent_deleteAndUpdateDropConsumers(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(4)...)
	createGroup(t, client, "s", "g", esdb.Start{}, nil)
	subscription := consume(t, client, "s", "g", 10)
	ack(t, subscription, deliverAll(t, subscription, 0, 1, 2, 3)[:2]...)
	awaitInfo(t, client, "s", "g", inFlightIs(2))
	settings := esdb.SubscriptionSettingsDefault()
	settings.MaxRetryCount = 77
	// The default start is End, but the client sends Start in its place.
	err := client.UpdatePersistentSubscription(within(t), "s", "g", esdb.PersistentStreamSubscriptionOptions{Settings: &settings})
	if err != nil {
		t.Fatal(err)
	}
	if err := dropped(t, subscription); status.Code(err) != codes.Canceled {
		t.Errorf("an update dropped the consumer with %v, want cancelled", err)
	}
	awaitInfo(t, client, "s", "g", func(info *esdb.PersistentSubscriptionInfo) bool { return info.Settings.MaxRetryCount == 77 })
	subscription = consume(t, client, "s", "g", 10)
	nack(t, subscription, esdb.NackActionPark, deliverAll(t, subscription, 2, 3)[0])
	awaitInfo(t, client, "s", "g", parkedIs(1))

	if err := client.DeletePersistentSubscription(within(t), "s", "g", esdb.DeletePersistentSubscriptionOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := dropped(t, subscription); status.Code(err) != codes.NotFound {
		t.Errorf("a deletion dropped the consumer with %v, want not found", err)
	}
	// A new group of the same name does not continue the old one.
	createGroup(t, client, "s", "g", esdb.Revision(1), nil)
	awaitInfo(t, client, "s", "g", parkedIs(0))
	subscription = consume(t, client, "s", "g", 10)
	nack(t, subscription, esdb.NackActionPark, deliverAll(t, subscription, 1, 2, 3)[0])
	awaitInfo(t, client, "s", "g", parkedIs(1))
}

func TestPersistentToAll_filterAndOwnStreams(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "before-1", esdb.NoStream{}, newEvent("wanted", "{}"))
	create := func(group string, from esdb.AllPosition, filter *esdb.SubscriptionFilter) {
		t.Helper()
		err := client.CreatePersistentSubscriptionToAll(within(t), group, esdb.PersistentAllSubscriptionOptions{
			StartFrom: from, Filter: filter, Settings: eachChecked(),
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	create("types", esdb.Start{}, &esdb.SubscriptionFilter{Type: esdb.EventFilterType, Prefixes: []string{"want"}})
	create("streams", esdb.End{}, &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Regex: "^a-[0-9]$"})
	create("everything", esdb.End{}, nil)
	if err := client.CreatePersistentSubscriptionToAll(within(t), "bad", esdb.PersistentAllSubscriptionOptions{
		Filter: &esdb.SubscriptionFilter{Type: esdb.StreamFilterType, Regex: "("},
	}); err == nil || !strings.Contains(err.Error(), "regular expression") {
		t.Errorf("a bad filter got %v", err)
	}
	read := func(group string, want ...string) *esdb.PersistentSubscription {
		t.Helper()
		subscription, err := client.SubscribeToPersistentSubscriptionToAll(within(t), group, esdb.SubscribeToPersistentSubscriptionOptions{BufferSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { subscription.Close() })
		for _, place := range want {
			event := deliver(t, subscription).Event
			if got := fmt.Sprintf("%s/%s", event.Event.StreamID, event.Event.EventType); got != place {
				t.Fatalf("%s was given %s, want %s", group, got, place)
			}
			ack(t, subscription, event)
		}
		return subscription
	}
	mustAppend(t, client, "a-1", esdb.NoStream{}, newEvent("wanted", "{}"), newEvent("other", "{}"))
	mustAppend(t, client, "b-1", esdb.NoStream{}, newEvent("wanted", "{}"))
	mustAppend(t, client, "a-2", esdb.NoStream{}, newEvent("last", "{}"))
	read("types", "before-1/wanted", "a-1/wanted", "b-1/wanted")
	read("streams", "a-1/wanted", "a-1/other", "a-2/last")
	// The creation of a group is an event for groups on $all. Checkpoints of groups are
	// not, because each would cause another one without end.
	everything := read("everything", "a-1/wanted", "a-1/other", "b-1/wanted", "a-2/last")
	mustAppend(t, client, "a-3", esdb.NoStream{}, newEvent("marker", "{}"))
	if got := deliver(t, everything).Event.Event.StreamID; got != "a-3" {
		t.Errorf("after the last came an event of %s", got)
	}
	infos, err := client.ListPersistentSubscriptionsToAll(within(t), esdb.ListPersistentSubscriptionsOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, info := range infos {
		names = append(names, info.GroupName)
	}
	if !slices.Equal(names, []string{"everything", "streams", "types"}) {
		t.Errorf("the groups on $all are %v", names)
	}
}

func TestPersistent_resolvesLinks(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "target", esdb.NoStream{}, newEvents(2)...)
	link := newEvent(linkType, "1@target")
	link.ContentType = esdb.ContentTypeBinary
	nowhere := newEvent(linkType, "7@target")
	mustAppend(t, client, "links", esdb.NoStream{}, link, nowhere)
	for _, resolve := range []bool{true, false} {
		settings := eachChecked()
		settings.ResolveLinkTos = resolve
		group := fmt.Sprint(resolve)
		createGroup(t, client, "links", group, esdb.Start{}, settings)
		subscription := consume(t, client, "links", group, 2)
		first, second := deliver(t, subscription).Event, deliver(t, subscription).Event
		if resolve && (first.Event == nil || first.Event.StreamID != "target" || first.Event.EventNumber != 1 ||
			second.Event != nil || second.Link == nil) {
			t.Errorf("links came as %+v and %+v", first, second)
		}
		if !resolve && (first.Link != nil || first.Event.StreamID != "links") {
			t.Errorf("a link that was not to be resolved came as %+v", first)
		}
		ack(t, subscription, first, second)
		awaitInfo(t, client, "links", group, checkpointIs(1))
	}
}

// groupIn returns the only group in the data of an event of groupsStream.
func groupIn(data []byte) string {
	_, rest, _ := strings.Cut(string(data), "[")
	group, _, _ := strings.Cut(rest, "]")
	return group
}

func TestPersistent_restartSubsystemReadsTheGroupsAgain(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(2)...)
	createGroup(t, client, "s", "g", esdb.Start{}, nil)
	subscription := consume(t, client, "s", "g", 1)
	ack(t, subscription, deliverAll(t, subscription, 0)...)
	awaitInfo(t, client, "s", "g", func(info *esdb.PersistentSubscriptionInfo) bool { return info.Stats.TotalItems == 2 })
	restart := func() error {
		return client.RestartPersistentSubscriptionSubsystem(within(t), esdb.RestartPersistentSubscriptionSubsystemOptions{})
	}
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	if err := dropped(t, subscription); status.Code(err) != codes.Canceled {
		t.Errorf("dropped with %v, want cancelled", err)
	}
	deliverAll(t, consume(t, client, "s", "g", 1), 1)

	// Any client can write to the stream that holds the settings.
	good, err := readStream(t, client, groupsStream, esdb.ReadStreamOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, rubbish := range []string{
		"[", "{}", `{"version":"2","entries":[{"stream":"s","group":"g"}]}`,
		strings.Replace(string(good[0].Data), `"entries":[`, `"entries":[`+groupIn(good[0].Data)+`,`, 1),
	} {
		mustAppend(t, client, groupsStream, esdb.Any{}, newEvent("rubbish", rubbish))
		if err := restart(); err == nil {
			t.Errorf("%s was accepted as settings", rubbish)
		}
	}
	_, err = client.GetPersistentSubscriptionInfo(within(t), "s", "g", esdb.GetPersistentSubscriptionOptions{})
	if err == nil || !strings.Contains(err.Error(), groupsStream) {
		t.Errorf("asked for a group: %v", err)
	}
	if err := client.CreatePersistentSubscription(within(t), "s", "h", esdb.PersistentStreamSubscriptionOptions{}); err == nil {
		t.Error("a group was created over settings that could not be read")
	}
	mustAppend(t, client, groupsStream, esdb.Any{}, newEvent(good[0].EventType, string(good[0].Data)))
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	deliverAll(t, consume(t, client, "s", "g", 1), 1)

	// A group with an unreadable checkpoint delivers no events and refuses consumers.
	createGroup(t, client, "s", "lost", esdb.Start{}, nil)
	mustAppend(t, client, "$persistentsubscription-s::lost-checkpoint", esdb.Any{}, newEvent("rubbish", "[]"))
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	_, err = client.SubscribeToPersistentSubscription(within(t), "s", "lost", esdb.SubscribeToPersistentSubscriptionOptions{})
	if err == nil || !strings.Contains(err.Error(), "failed") {
		t.Errorf("a group with an unreadable checkpoint accepted a consumer: %v", err)
	}
	awaitInfo(t, client, "s", "lost", func(info *esdb.PersistentSubscriptionInfo) bool { return info.Status == "Failed" })
	// If its checkpoint is deleted, it starts over.
	if _, err := client.DeleteStream(within(t), "$persistentsubscription-s::lost-checkpoint", esdb.DeleteStreamOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := restart(); err != nil {
		t.Fatal(err)
	}
	deliverAll(t, consume(t, client, "s", "lost", 2), 0, 1)
}

func TestPersistent_aGroupIsMadeAndChangedByTheOldFields(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	connection, err := grpc.NewClient("unix:"+server.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	raw := persistentpb.NewPersistentSubscriptionsClient(connection)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	stream := &shared.StreamIdentifier{StreamName: []byte("s")}
	//nolint:staticcheck // they are deprecated but still in use
	create := func(group string, revision uint64) {
		t.Helper()
		_, err := raw.Create(within(t), &persistentpb.CreateReq{Options: &persistentpb.CreateReq_Options{
			StreamIdentifier: stream, GroupName: group, Settings: &persistentpb.CreateReq_Settings{
				Revision: revision, MaxCheckpointCount: 1, LiveBufferSize: 1, ReadBatchSize: 10, HistoryBufferSize: 10, ConsumerStrategy: strategyRoundRobin,
			},
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
	create("all of it", 0)
	create("the last", 2)
	create("what comes", math.MaxUint64)
	create("changed", math.MaxUint64)
	//nolint:staticcheck // as above
	_, err = raw.Update(within(t), &persistentpb.UpdateReq{Options: &persistentpb.UpdateReq_Options{
		StreamIdentifier: stream, GroupName: "changed", Settings: &persistentpb.UpdateReq_Settings{
			Revision: 1, MaxCheckpointCount: 1, LiveBufferSize: 1, ReadBatchSize: 10, HistoryBufferSize: 10,
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	deliverAll(t, consume(t, client, "s", "all of it", 3), 0, 1, 2)
	deliverAll(t, consume(t, client, "s", "the last", 3), 2)
	awaitInfo(t, client, "s", "changed", func(info *esdb.PersistentSubscriptionInfo) bool { return info.Settings.StartFrom == esdb.Revision(1) })
	coming := consume(t, client, "s", "what comes", 3)
	mustAppend(t, client, "s", esdb.Any{}, newEvents(1)...)
	deliverAll(t, coming, 3)
}

func TestPersistent_refusals(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	settings := eachChecked()
	settings.MaxSubscriberCount = 1
	createGroup(t, client, "s", "g", esdb.Start{}, settings)
	consume(t, client, "s", "g", 1)
	createGroup(t, client, "ended", "g", esdb.Start{}, nil)
	if err := client.DeletePersistentSubscription(within(t), "ended", "g", esdb.DeletePersistentSubscriptionOptions{}); err != nil {
		t.Fatal(err)
	}

	connection, err := grpc.NewClient("unix:"+server.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	raw := persistentpb.NewPersistentSubscriptionsClient(connection)
	identifier := func(stream string) *shared.StreamIdentifier {
		return &shared.StreamIdentifier{StreamName: []byte(stream)}
	}
	read := func(stream, group string, buffer int32) func(context.Context, ...grpc.CallOption) error {
		return func(ctx context.Context, options ...grpc.CallOption) error {
			call, err := raw.Read(ctx, options...)
			if err != nil {
				return err
			}
			err = call.Send(&persistentpb.ReadReq{Content: &persistentpb.ReadReq_Options_{Options: &persistentpb.ReadReq_Options{
				StreamOption: &persistentpb.ReadReq_Options_StreamIdentifier{StreamIdentifier: identifier(stream)}, GroupName: group, BufferSize: buffer,
			}}})
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			_, err = call.Recv()
			return err
		}
	}
	create := func(change func(*persistentpb.CreateReq_Options, *persistentpb.CreateReq_Settings)) func(context.Context, ...grpc.CallOption) error {
		return func(ctx context.Context, options ...grpc.CallOption) error {
			s := &persistentpb.CreateReq_Settings{
				MaxRetryCount: 1, MinCheckpointCount: 1, MaxCheckpointCount: 1, LiveBufferSize: 1, ReadBatchSize: 1, HistoryBufferSize: 1,
				ConsumerStrategy: strategyRoundRobin,
			}
			o := &persistentpb.CreateReq_Options{
				StreamOption: &persistentpb.CreateReq_Options_Stream{Stream: &persistentpb.CreateReq_StreamOptions{StreamIdentifier: identifier("new")}},
				GroupName:    "g", Settings: s,
			}
			change(o, s)
			_, err := raw.Create(ctx, &persistentpb.CreateReq{Options: o}, options...)
			return err
		}
	}
	type options = persistentpb.CreateReq_Options
	type setting = persistentpb.CreateReq_Settings
	for claim, test := range map[string]struct {
		call      func(context.Context, ...grpc.CallOption) error
		code      codes.Code
		exception string
	}{
		"a consumer of no group":      {read("none", "g", 1), codes.NotFound, "persistent-subscription-does-not-exist"},
		"a consumer of a deleted one": {read("ended", "g", 1), codes.NotFound, "persistent-subscription-does-not-exist"},
		"one consumer too many":       {read("s", "g", 1), codes.FailedPrecondition, "maximum-subscribers-reached"},
		"a consumer without room":     {read("s", "g", 0), codes.InvalidArgument, ""},
		"a consumer without a stream": {read("", "g", 1), codes.InvalidArgument, ""},
		"a consumer without a group":  {read("s", "", 1), codes.InvalidArgument, ""},
		"a group that exists":         {create(func(o *options, _ *setting) { o.GetStream().StreamIdentifier = identifier("s") }), codes.AlreadyExists, "persistent-subscription-exists"},
		"a group without a stream":    {create(func(o *options, _ *setting) { o.StreamOption = nil }), codes.InvalidArgument, ""},
		"a stream called $all":        {create(func(o *options, _ *setting) { o.GetStream().StreamIdentifier = identifier("$all") }), codes.InvalidArgument, ""},
		"a group on $all by the former field": {create(func(o *options, _ *setting) {
			o.StreamOption, o.StreamIdentifier = nil, identifier("$all") //nolint:staticcheck // tests the deprecated field
		}), codes.InvalidArgument, ""},
		"a long name": {create(func(o *options, _ *setting) { o.GroupName = strings.Repeat("g", maxStreamName) }), codes.InvalidArgument, ""},
		"a negative timeout": {create(func(_ *options, s *setting) {
			s.MessageTimeout = &persistentpb.CreateReq_Settings_MessageTimeoutMs{MessageTimeoutMs: -1}
		}), codes.InvalidArgument, ""},
		"a timeout of a year": {create(func(_ *options, s *setting) {
			s.MessageTimeout = &persistentpb.CreateReq_Settings_MessageTimeoutTicks{MessageTimeoutTicks: 365 * 24 * 36e9}
		}), codes.InvalidArgument, ""},
		"negative checkpoint time": {create(func(_ *options, s *setting) {
			s.CheckpointAfter = &persistentpb.CreateReq_Settings_CheckpointAfterMs{CheckpointAfterMs: -1}
		}), codes.InvalidArgument, ""},
		"a negative retry count":      {create(func(_ *options, s *setting) { s.MaxRetryCount = -1 }), codes.InvalidArgument, ""},
		"a negative checkpoint count": {create(func(_ *options, s *setting) { s.MinCheckpointCount = -1 }), codes.InvalidArgument, ""},
		"a maximum below the minimum": {create(func(_ *options, s *setting) { s.MinCheckpointCount = 2 }), codes.InvalidArgument, ""},
		"a maximum of no checkpoint":  {create(func(_ *options, s *setting) { s.MinCheckpointCount, s.MaxCheckpointCount = 0, 0 }), codes.InvalidArgument, ""},
		"less than no consumer":       {create(func(_ *options, s *setting) { s.MaxSubscriberCount = -1 }), codes.InvalidArgument, ""},
		"no live buffer":              {create(func(_ *options, s *setting) { s.LiveBufferSize = 0 }), codes.InvalidArgument, ""},
		"no read batch":               {create(func(_ *options, s *setting) { s.ReadBatchSize = 0 }), codes.InvalidArgument, ""},
		"a history below one batch":   {create(func(_ *options, s *setting) { s.ReadBatchSize = 2 }), codes.InvalidArgument, ""},
		"a strategy nobody has":       {create(func(_ *options, s *setting) { s.ConsumerStrategy = "Fastest" }), codes.InvalidArgument, ""},
		"a replay below the beginning": {func(ctx context.Context, o ...grpc.CallOption) error {
			_, err := raw.ReplayParked(ctx, &persistentpb.ReplayParkedReq{Options: &persistentpb.ReplayParkedReq_Options{
				StreamOption: &persistentpb.ReplayParkedReq_Options_StreamIdentifier{StreamIdentifier: identifier("s")}, GroupName: "g",
				StopAtOption: &persistentpb.ReplayParkedReq_Options_StopAt{StopAt: -1},
			}}, o...)
			return err
		}, codes.InvalidArgument, ""},
		"an update of no group": {func(ctx context.Context, o ...grpc.CallOption) error {
			_, err := raw.Update(ctx, &persistentpb.UpdateReq{Options: &persistentpb.UpdateReq_Options{
				StreamOption: &persistentpb.UpdateReq_Options_All{All: &persistentpb.UpdateReq_AllOptions{}}, GroupName: "g",
				Settings: &persistentpb.UpdateReq_Settings{MaxCheckpointCount: 1, LiveBufferSize: 1, ReadBatchSize: 1, HistoryBufferSize: 1},
			}}, o...)
			return err
		}, codes.NotFound, "persistent-subscription-does-not-exist"},
		"a list of a stream without groups": {func(ctx context.Context, o ...grpc.CallOption) error {
			_, err := raw.List(ctx, &persistentpb.ListReq{Options: &persistentpb.ListReq_Options{ListOption: &persistentpb.ListReq_Options_ListForStream{
				ListForStream: &persistentpb.ListReq_StreamOption{StreamOption: &persistentpb.ListReq_StreamOption_Stream{Stream: identifier("none")}},
			}}}, o...)
			return err
		}, codes.NotFound, "persistent-subscription-does-not-exist"},
	} {
		t.Run(claim, func(t *testing.T) {
			var trailer metadata.MD
			err := test.call(within(t), grpc.Trailer(&trailer))
			exception := strings.Join(trailer.Get(trailerException), "")
			if status.Code(err) != test.code || exception != test.exception {
				t.Errorf("got %v with exception %q, want %v with %q", err, exception, test.code, test.exception)
			}
		})
	}
}
