package embedded

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// These tests expect what a real server does in each case.

func mustDelete(t testing.TB, client *esdb.Client, stream string) {
	t.Helper()
	if _, err := client.DeleteStream(within(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Any{}}); err != nil {
		t.Fatal(err)
	}
}

func mustTombstone(t testing.TB, client *esdb.Client, stream string) {
	t.Helper()
	if _, err := client.TombstoneStream(within(t), stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}}); err != nil {
		t.Fatal(err)
	}
}

func mustDescribe(t testing.TB, client *esdb.Client, stream string, change func(*esdb.StreamMetadata)) {
	t.Helper()
	var m esdb.StreamMetadata
	change(&m)
	if _, err := client.SetStreamMetadata(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, m); err != nil {
		t.Fatal(err)
	}
}

func TestDeleteAndTombstone_expectedRevision(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	const fine, wrong, ended = "", "wrong", "ended"
	for _, operation := range []string{"delete", "tombstone"} {
		for i, c := range []struct {
			claim    string
			prepare  func(stream string)
			expected esdb.ExpectedRevision
			want     string
		}{
			{"no stream, and there is none", nil, esdb.NoStream{}, fine},
			{"any, and there is none", nil, esdb.Any{}, fine},
			{"exists, but there is none", nil, esdb.StreamExists{}, wrong},
			{"a revision, but there is none", nil, esdb.Revision(0), wrong},
			{"no stream, but there is one", func(s string) { mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...) }, esdb.NoStream{}, wrong},
			{"any, and there is one", func(s string) { mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...) }, esdb.Any{}, fine},
			{"exists, and it does", func(s string) { mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...) }, esdb.StreamExists{}, fine},
			{"a low revision", func(s string) { mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...) }, esdb.Revision(1), wrong},
			{"a high revision", func(s string) { mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...) }, esdb.Revision(3), wrong},
			{"the exact revision", func(s string) { mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...) }, esdb.Revision(2), fine},
			{"exists, but it is deleted", func(s string) {
				mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...)
				mustDelete(t, client, s)
			}, esdb.StreamExists{}, ended},
			{"any, and it is deleted", func(s string) {
				mustAppend(t, client, s, esdb.NoStream{}, newEvents(3)...)
				mustDelete(t, client, s)
			}, esdb.Any{}, fine},
			{"any, but it is ended", func(s string) { mustTombstone(t, client, s) }, esdb.Any{}, ended},
			{"no stream, but it is ended", func(s string) { mustTombstone(t, client, s) }, esdb.NoStream{}, ended},
		} {
			stream := fmt.Sprint(operation, "-", i)
			if c.prepare != nil {
				c.prepare(stream)
			}
			var err error
			if operation == "delete" {
				_, err = client.DeleteStream(within(t), stream, esdb.DeleteStreamOptions{ExpectedRevision: c.expected})
			} else {
				_, err = client.TombstoneStream(within(t), stream, esdb.TombstoneStreamOptions{ExpectedRevision: c.expected})
			}
			got := fine
			switch {
			case err == nil:
			// The client has no error code for it in these two calls.
			case strings.Contains(err.Error(), "WrongExpectedVersion"):
				got = wrong
			case codeOf(err) == esdb.ErrorCodeStreamDeleted:
				got = ended
			default:
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("%s, %s: %q, want %q", operation, c.claim, got, c.want)
				continue
			}
			if got != fine {
				continue
			}
			want := esdb.ErrorCodeResourceNotFound
			if operation == "tombstone" {
				want = esdb.ErrorCodeStreamDeleted
			}
			if _, err := readStream(t, client, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 1); codeOf(err) != want {
				t.Errorf("%s, %s: reading it afterwards: %v", operation, c.claim, err)
			}
		}
	}
	mustAppend(t, client, "deleted", esdb.NoStream{}, newEvents(3)...)
	mustDelete(t, client, "deleted")
	_, err := client.AppendToStream(within(t), "deleted", esdb.AppendToStreamOptions{ExpectedRevision: esdb.StreamExists{}}, newEvent("x", "{}"))
	if codeOf(err) != esdb.ErrorCodeStreamDeleted {
		t.Errorf("append to a deleted stream that is to exist: %v", err)
	}
}

func TestTrailers_nameTheStream(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	const name, escaped = "größe 100%\n", "gr%C3%B6%C3%9Fe 100%%0A"
	mustTombstone(t, client, name)
	raw := server.rawClient(t)
	identifier := &shared.StreamIdentifier{StreamName: []byte(name)}
	var trailer metadata.MD
	read, err := raw.Read(within(t), &streamspb.ReadReq{Options: &streamspb.ReadReq_Options{
		StreamOption: &streamspb.ReadReq_Options_Stream{Stream: &streamspb.ReadReq_Options_StreamOptions{
			StreamIdentifier: identifier, RevisionOption: &streamspb.ReadReq_Options_StreamOptions_Start{},
		}},
		CountOption: &streamspb.ReadReq_Options_Count{Count: 1},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := read.Recv(); err == nil {
		t.Error("an ended stream was read")
	}
	calls := map[string]metadata.MD{"read": read.Trailer()}
	if _, err := raw.Delete(within(t), &streamspb.DeleteReq{Options: &streamspb.DeleteReq_Options{
		StreamIdentifier: identifier, ExpectedStreamRevision: &streamspb.DeleteReq_Options_Any{},
	}}, grpc.Trailer(&trailer)); err == nil {
		t.Error("an ended stream was deleted")
	}
	calls["delete"] = trailer
	for call, trailer := range calls {
		if got := fmt.Sprint(trailer.Get("exception"), trailer.Get("stream-name")); got != "[stream-deleted] ["+escaped+"]" {
			t.Errorf("%s: %s", call, got)
		}
	}
}

// A stream's metadata limits what readers of the stream see. Readers of the whole log see
// everything.
func TestReadAll_returnsEventsThatStreamsHide(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "short", esdb.NoStream{}, newEvents(5)...)
	mustDescribe(t, client, "short", func(m *esdb.StreamMetadata) { m.SetMaxCount(1) })
	mustAppend(t, client, "deleted", esdb.NoStream{}, newEvents(2)...)
	mustDelete(t, client, "deleted")
	mustAppend(t, client, "ended", esdb.NoStream{}, newEvents(2)...)
	mustTombstone(t, client, "ended")
	var read []string
	for _, event := range readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 100) {
		read = append(read, fmt.Sprint(event.StreamID, "@", event.EventNumber))
	}
	want := []string{
		"short@0", "short@1", "short@2", "short@3", "short@4", "$$short@0", "deleted@0", "deleted@1", "$$deleted@0",
		"ended@0", "ended@1", fmt.Sprint("ended@", uint64(math.MaxInt64)),
	}
	if !slices.Equal(read, want) {
		t.Errorf("read %v\nwant %v", read, want)
	}
	subscription := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	for _, want := range want {
		if event := nextEvent(t, subscription); fmt.Sprint(event.StreamID, "@", event.EventNumber) != want {
			t.Fatalf("the subscription got %s@%d, want %s", event.StreamID, event.EventNumber, want)
		}
	}
}

func subscribeTo(t testing.TB, client *esdb.Client, stream string, from esdb.StreamPosition) *esdb.Subscription {
	t.Helper()
	subscription, err := client.SubscribeToStream(within(t), stream, esdb.SubscribeToStreamOptions{From: from})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { subscription.Close() })
	return subscription
}

// next returns the next message of a subscription: a revision, or the kind of message.
func next(subscription *esdb.Subscription) string {
	switch said := subscription.Recv(); {
	case said.EventAppeared != nil:
		return fmt.Sprint(said.EventAppeared.OriginalEvent().EventNumber)
	case said.CaughtUp != nil:
		return "caught up"
	case said.SubscriptionDropped != nil:
		if codeOf(said.SubscriptionDropped.Error) == esdb.ErrorCodeStreamDeleted || strings.Contains(said.SubscriptionDropped.Error.Error(), "is deleted") {
			return "ended"
		}
		return said.SubscriptionDropped.Error.Error()
	default:
		return fmt.Sprintf("%+v", said)
	}
}

func expectNext(t testing.TB, claim string, subscription *esdb.Subscription, want ...string) {
	t.Helper()
	for _, want := range want {
		if got := next(subscription); got != want {
			t.Fatalf("%s: got %s, want %s of %v", claim, got, want, want)
		}
	}
}

// While it catches up, a subscription gets only what a reader can see.
func TestSubscribeToStream_historyIsLimitedByMetadata(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	for stream, change := range map[string]func(*esdb.StreamMetadata){
		"counted":   func(m *esdb.StreamMetadata) { m.SetMaxCount(2) },
		"truncated": func(m *esdb.StreamMetadata) { m.SetTruncateBefore(3) },
	} {
		mustAppend(t, client, stream, esdb.NoStream{}, newEvents(5)...)
		mustDescribe(t, client, stream, change)
		subscription := subscribeTo(t, client, stream, esdb.Start{})
		expectNext(t, stream, subscription, "3", "4", "caught up")
		mustAppend(t, client, stream, esdb.Revision(4), newEvent("x", "{}"))
		expectNext(t, stream, subscription, "5")
	}
	// All events are hidden, and are not sent after the subscription is live either.
	mustAppend(t, client, "gone", esdb.NoStream{}, newEvents(3)...)
	mustDescribe(t, client, "gone", func(m *esdb.StreamMetadata) { m.SetTruncateBefore(10) })
	mustAppend(t, client, "deleted", esdb.NoStream{}, newEvents(3)...)
	mustDelete(t, client, "deleted")
	for _, stream := range []string{"gone", "deleted"} {
		subscription := subscribeTo(t, client, stream, esdb.Start{})
		expectNext(t, stream, subscription, "caught up")
		mustAppend(t, client, stream, esdb.Any{}, newEvent("x", "{}"))
		expectNext(t, stream, subscription, "3")
	}
	mustTombstone(t, client, "ended")
	expectNext(t, "ended", subscribeTo(t, client, "ended", esdb.Start{}), "ended")
}

// A live subscription gets every committed event, even if the event is hidden, deleted or
// followed by a tombstone before the subscription reads it.
func TestSubscribeToStream_liveEventsAreComplete(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	mustDescribe(t, client, "s", func(m *esdb.StreamMetadata) { m.SetMaxCount(1) })
	subscription := subscribeTo(t, client, "s", esdb.Start{})
	expectNext(t, "at first", subscription, "caught up")
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	expectNext(t, "more than are visible", subscription, "0", "1", "2")
	// One commit appends events and hides them again.
	server.store.commitTogether(t, []*write{
		{stream: "s", expected: 2, events: proposals(2, 1)},
		{operation: softDelete, stream: "s", expected: expectAny},
	})
	expectNext(t, "deleted at once", subscription, "3", "4")
	server.store.commitTogether(t, []*write{
		{stream: "s", expected: expectAny, events: proposals(2, 1)},
		{operation: tombstone, stream: "s", expected: expectAny},
	})
	expectNext(t, "ended at once", subscription, "5", "6", "ended")
}

func TestSubscribe_fromBehindTheEnd(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	beyond := subscribeTo(t, client, "s", esdb.Revision(5))
	expectNext(t, "beyond", beyond, "caught up")
	never := subscribeTo(t, client, "s", esdb.Revision(math.MaxUint64))
	expectNext(t, "at the highest there is", never, "caught up")
	none := subscribeTo(t, client, "none", esdb.End{})
	expectNext(t, "the end of nothing", none, "caught up")
	all := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Position{Commit: 9, Prepare: 9}})
	expectNext(t, "$all", all, "caught up")
	end := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.End{}})
	expectNext(t, "the end of $all", end, "caught up")
	mustAppend(t, client, "s", esdb.Revision(2), newEvents(6)...)
	mustAppend(t, client, "none", esdb.NoStream{}, newEvents(2)...)
	expectNext(t, "beyond", beyond, "6", "7", "8")
	expectNext(t, "the end of nothing", none, "0", "1")
	expectNext(t, "$all", all, "0", "1") // positions 10 and 11
	expectNext(t, "the end of $all", end, "3", "4", "5", "6", "7", "8", "0", "1")
}

// The metadata of a metadata stream is stored and limits nothing: only the newest
// metadata is visible, whatever it says.
func TestMetadata_ofMetadata(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	for count := range uint64(3) {
		mustDescribe(t, client, "s", func(m *esdb.StreamMetadata) { m.SetMaxCount(count + 1) })
	}
	mustDescribe(t, client, "$$s", func(m *esdb.StreamMetadata) { m.SetTruncateBefore(100) })
	got, err := readStream(t, client, "$$s", esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	if err != nil || !slices.Equal(revisions(got), []uint64{2}) {
		t.Errorf("the metadata: %v, %v", revisions(got), err)
	}
	got, err = readStream(t, client, "s", esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	if err != nil || !slices.Equal(revisions(got), []uint64{0, 1, 2}) {
		t.Errorf("the stream: %v, %v", revisions(got), err)
	}
	described, err := client.GetStreamMetadata(within(t), "$$s", esdb.ReadStreamOptions{})
	if err != nil || described.TruncateBefore() == nil || *described.TruncateBefore() != 100 {
		t.Errorf("the metadata's: %+v, %v", described, err)
	}
}

func TestMetadata_thatIsNotJSON(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	for _, data := range []string{"", "no JSON", "[1]", "null", `{"$maxCount":"two"}`, `{"$maxCount":-1,"$tb":-1,"$maxAge":-1}`, `{"$maxAge":9223372036854775807}`} {
		mustAppend(t, client, "$$s", esdb.Any{}, newEvent("$metadata", data))
		mustAppend(t, client, "s", esdb.Any{}, newEvent("x", "{}"))
		if got, err := readStream(t, client, "s", esdb.ReadStreamOptions{From: esdb.Start{}}, 100); err != nil || len(got) == 0 || got[0].EventNumber != 0 {
			t.Errorf("with %q as its metadata: %v, %v", data, revisions(got), err)
		}
	}
	mustDelete(t, client, "s")
}

func TestNames_mayContainAnything(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	for _, name := range []string{
		"with spaces", "\x00", "a\x00b", "new\nline", "größe", "🎟", "a/b?c#d%20", "'; DROP TABLE events; --", "$system", "$ce-category", "$>", "-", "$$$all",
		strings.Repeat("n", maxStreamName),
	} {
		event := newEvent(name, "{}")
		mustAppend(t, client, name, esdb.NoStream{}, event)
		got, err := readStream(t, client, name, esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
		if err != nil || len(got) != 1 || got[0].StreamID != name || got[0].EventType != name {
			t.Errorf("%.20q: %d events, %v", name, len(got), err)
		}
	}
	for _, name := range []string{"$all", "$$"} {
		_, appending := client.AppendToStream(within(t), name, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, newEvent("x", "{}"))
		_, deleting := client.DeleteStream(within(t), name, esdb.DeleteStreamOptions{ExpectedRevision: esdb.Any{}})
		_, ending := client.TombstoneStream(within(t), name, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}})
		for _, err := range []error{appending, deleting, ending} {
			if err == nil || name == "$all" && codeOf(err) != esdb.ErrorCodeAccessDenied {
				t.Errorf("writing to %s: %v", name, err)
			}
		}
	}
	if _, err := readStream(t, client, "$all", esdb.ReadStreamOptions{From: esdb.Start{}}, 1); codeOf(err) != esdb.ErrorCodeResourceNotFound {
		t.Errorf("a stream of the name $all: %v", err)
	}
}

// Data, metadata and twice the length of the type count towards the limit, summed over
// all events of an append.
func TestAppend_sizeAtTheLimitAndOneOver(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	const kind = "a type"
	event := func(data, metadata int) esdb.EventData {
		e := newEvent(kind, strings.Repeat("d", data))
		e.Metadata = []byte(strings.Repeat("m", metadata))
		return e
	}
	long := newEvent(strings.Repeat("t", 1000), strings.Repeat("d", maxAppendBytes-2000))
	long.Metadata = nil
	longer := long
	longer.Data = append(slices.Clone(long.Data), 'd')
	const half = maxAppendBytes/2 - 2*len(kind)
	for claim, c := range map[string]struct {
		events []esdb.EventData
		taken  bool
	}{
		"data alone, at the limit":  {[]esdb.EventData{event(maxAppendBytes-2*len(kind), 0)}, true},
		"data alone, over it":       {[]esdb.EventData{event(maxAppendBytes-2*len(kind)+1, 0)}, false},
		"metadata, at the limit":    {[]esdb.EventData{event(1, maxAppendBytes-2*len(kind)-1)}, true},
		"metadata, over it":         {[]esdb.EventData{event(1, maxAppendBytes-2*len(kind))}, false},
		"two events, at the limit":  {[]esdb.EventData{event(half, 0), event(half-5, 5)}, true},
		"two events, over it":       {[]esdb.EventData{event(half, 0), event(half-5, 6)}, false},
		"a long type, at the limit": {[]esdb.EventData{long}, true},
		"a long type, over it":      {[]esdb.EventData{longer}, false},
	} {
		_, err := client.AppendToStream(within(t), claim, esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, c.events...)
		if c.taken != (err == nil) || err != nil && !strings.Contains(err.Error(), "Maximum Append Size") {
			t.Errorf("%s: %v", claim, err)
		}
		got, err := readStream(t, client, claim, esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
		if c.taken && (err != nil || len(got) != len(c.events)) || !c.taken && codeOf(err) != esdb.ErrorCodeResourceNotFound {
			t.Errorf("%s: %d events are there, %v", claim, len(got), err)
		}
	}
}

// A filtered read continues until it has the requested number of events or the log ends,
// however far apart they are.
func TestReadAll_filteredCounts(t *testing.T) {
	t.Parallel()
	server := start(t)
	const apart, wanted = 700, 5 // several pages
	for range wanted {
		for stream, count := range map[string]int{"noise": apart, "signal": 1} {
			if _, err := server.store.append(t.Context(), stream, expectAny, proposals(count, 1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	raw := server.rawClient(t)
	for _, direction := range []streamspb.ReadReq_Options_ReadDirection{streamspb.ReadReq_Options_Forwards, streamspb.ReadReq_Options_Backwards} {
		from := &streamspb.ReadReq_Options_AllOptions{AllOption: &streamspb.ReadReq_Options_AllOptions_Start{}}
		if direction == streamspb.ReadReq_Options_Backwards {
			from.AllOption = &streamspb.ReadReq_Options_AllOptions_End{}
		}
		for count, want := range map[uint64]int{0: 0, 1: 1, 4: 4, 5: 5, 6: 5, math.MaxUint64: 5} {
			read, err := raw.Read(within(t), &streamspb.ReadReq{Options: &streamspb.ReadReq_Options{
				StreamOption:  &streamspb.ReadReq_Options_All{All: from},
				ReadDirection: direction,
				CountOption:   &streamspb.ReadReq_Options_Count{Count: count},
				FilterOption: &streamspb.ReadReq_Options_Filter{Filter: &streamspb.ReadReq_Options_FilterOptions{
					// A search window smaller than the distance does not end the read.
					Window: &streamspb.ReadReq_Options_FilterOptions_Max{Max: 10},
					Filter: &streamspb.ReadReq_Options_FilterOptions_StreamIdentifier{
						StreamIdentifier: &streamspb.ReadReq_Options_FilterOptions_Expression{Prefix: []string{"signal"}},
					},
				}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			got := 0
			for ; ; got++ {
				response, err := read.Recv()
				if err != nil {
					break
				}
				revision := got
				if direction == streamspb.ReadReq_Options_Backwards {
					revision = wanted - 1 - got
				}
				if event := response.GetEvent().GetEvent(); event.GetStreamRevision() != uint64(revision) || string(event.GetStreamIdentifier().GetStreamName()) != "signal" {
					t.Fatalf("%v: %v at %d", direction, event, got)
				}
			}
			if got != want {
				t.Errorf("%v: %d of at most %d came, want %d", direction, got, count, want)
			}
		}
	}
}

func TestFeatures_areTheServedMethods(t *testing.T) {
	t.Parallel()
	server := start(t)
	connection, err := grpc.NewClient("unix:"+server.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	said, err := serverfeatures.NewServerFeaturesClient(connection).GetSupportedMethods(within(t), &shared.Empty{})
	if err != nil {
		t.Fatal(err)
	}
	offered := make(map[string][]string)
	for _, method := range said.GetMethods() {
		offered[method.GetServiceName()+"/"+method.GetMethodName()] = method.GetFeatures()
	}
	served := 0
	for service, info := range server.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			served++
			if _, ok := offered[strings.ToLower(service+"/"+method.Name)]; !ok {
				t.Errorf("%s/%s is not offered", service, method.Name)
			}
		}
	}
	if len(offered) != served || len(said.GetMethods()) != served {
		t.Errorf("%d methods are served and offered are %v", served, offered)
	}
	if !slices.Equal(offered["event_store.client.streams.streams/batchappend"], []string{"deadline_duration"}) {
		t.Errorf("batch appends can %v", offered["event_store.client.streams.streams/batchappend"])
	}
	for name := range variants {
		if _, ok := offered[name]; !ok {
			t.Errorf("variants of %s, which is not served", name)
		}
	}
	// Without these features the clients for NodeJS call over HTTP, or do not call at
	// all.
	for _, method := range []string{"create", "update", "delete", "read", "getinfo", "list", "replayparked"} {
		if name := persistentService + method; !slices.Equal(offered[name], []string{"stream", "all"}) {
			t.Errorf("%s can %v", name, offered[name])
		}
	}
}

// A slow reader costs the memory of one page and of what is on the way, not of the whole
// stream.
func TestRead_slowReadersOfLargeEventsCostLittle(t *testing.T) {
	t.Parallel()
	server := start(t)
	const events, readers, bound = 24, 12, 220 << 20
	for range events {
		if _, err := server.store.append(t.Context(), "large", expectAny, proposals(1, 1<<20-100)); err != nil {
			t.Fatal(err)
		}
	}
	raw := server.rawClient(t)
	for reader := range readers {
		options := &streamspb.ReadReq_Options{
			StreamOption: &streamspb.ReadReq_Options_Stream{Stream: &streamspb.ReadReq_Options_StreamOptions{
				StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("large")}, RevisionOption: &streamspb.ReadReq_Options_StreamOptions_Start{},
			}},
			CountOption: &streamspb.ReadReq_Options_Count{Count: events},
		}
		if reader%2 == 1 {
			options.StreamOption = &streamspb.ReadReq_Options_All{All: &streamspb.ReadReq_Options_AllOptions{AllOption: &streamspb.ReadReq_Options_AllOptions_Start{}}}
			options.CountOption = &streamspb.ReadReq_Options_Subscription{}
		}
		read, err := raw.Read(within(t), &streamspb.ReadReq{Options: options})
		if err != nil {
			t.Fatal(err)
		}
		// Once the first event arrives, one page has been read, and the rest waits.
		for {
			response, err := read.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if response.GetEvent() != nil {
				break
			}
		}
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if memory.HeapAlloc > bound {
		t.Errorf("%d readers of %d MiB hold %d MiB", readers, events, memory.HeapAlloc>>20)
	}
	t.Logf("%d readers of %d MiB hold %d MiB, with all else", readers, events, memory.HeapAlloc>>20)
}
