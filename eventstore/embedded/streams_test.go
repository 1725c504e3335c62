package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestAppend_expectedRevision(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "three", esdb.NoStream{}, newEvents(3)...)
	mustAppend(t, client, "deleted", esdb.NoStream{}, newEvents(3)...)
	if _, err := client.DeleteStream(within(t), "deleted", esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(2)}); err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		claim    string
		stream   string
		expected esdb.ExpectedRevision
		want     uint64 // revision after appending one event
		refused  bool
	}{
		{claim: "no stream, and there is none", stream: "a", expected: esdb.NoStream{}, want: 0},
		{claim: "no stream, but there is one", stream: "three", expected: esdb.NoStream{}, refused: true},
		{claim: "a revision that is too low", stream: "three", expected: esdb.Revision(1), refused: true},
		{claim: "a revision that is too high", stream: "three", expected: esdb.Revision(3), refused: true},
		{claim: "a revision of a stream that is not there", stream: "b", expected: esdb.Revision(0), refused: true},
		{claim: "the exact revision", stream: "three", expected: esdb.Revision(2), want: 3},
		{claim: "any, and there is no stream", stream: "c", expected: esdb.Any{}, want: 0},
		{claim: "any, and there is one", stream: "c", expected: esdb.Any{}, want: 1},
		{claim: "exists, and it does", stream: "c", expected: esdb.StreamExists{}, want: 2},
		{claim: "exists, but it does not", stream: "d", expected: esdb.StreamExists{}, refused: true},
		{claim: "a low revision of a deleted stream", stream: "deleted", expected: esdb.Revision(0), refused: true},
		{claim: "no stream, and it is deleted", stream: "deleted", expected: esdb.NoStream{}, want: 3},
		{claim: "no stream, and it was brought back", stream: "deleted", expected: esdb.NoStream{}, refused: true},
	} {
		// Each case builds on the ones before it.
		result, err := client.AppendToStream(within(t), test.stream, esdb.AppendToStreamOptions{ExpectedRevision: test.expected}, newEvent("x", fmt.Sprint(i)))
		switch {
		case test.refused && codeOf(err) != esdb.ErrorCodeWrongExpectedVersion:
			t.Errorf("%s: got %v, %v, want a wrong expected version", test.claim, result, err)
		case !test.refused && err != nil:
			t.Errorf("%s: %v", test.claim, err)
		case !test.refused && result.NextExpectedVersion != test.want:
			t.Errorf("%s: revision %d, want %d", test.claim, result.NextExpectedVersion, test.want)
		}
	}
}

func TestAppend_nothing(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	if result := mustAppend(t, client, "s", esdb.Revision(2)); result.NextExpectedVersion != 2 {
		t.Errorf("returned revision %d", result.NextExpectedVersion)
	}
	mustAppend(t, client, "none", esdb.Any{})
	_, err := client.AppendToStream(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(1)})
	if codeOf(err) != esdb.ErrorCodeWrongExpectedVersion {
		t.Errorf("at a wrong revision: %v", err)
	}
}

func TestAppend_wrongRevisionTellsBoth(t *testing.T) {
	t.Parallel()
	refused := wrongExpectedVersion(&revisionError{expected: 7, actual: 3}).GetWrongExpectedVersion()
	if refused.GetCurrentRevision() != 3 || refused.GetExpectedRevision() != 7 {
		t.Errorf("revisions: %v", refused)
	}
	refused = wrongExpectedVersion(&revisionError{expected: expectStreamExists, actual: noRevision}).GetWrongExpectedVersion()
	if refused.GetCurrentNoStream() == nil || refused.GetExpectedStreamExists() == nil {
		t.Errorf("no stream: %v", refused)
	}
}

func TestAppend_oneOfManyWritersWinsEachRevision(t *testing.T) {
	t.Parallel()
	server := start(t)
	const writers, rounds = 16, 25
	clients := []*esdb.Client{server.connect(t), server.connect(t)}
	mustAppend(t, clients[0], "raced", esdb.NoStream{}, newEvent("first", "{}"))
	for round := range uint64(rounds) {
		var won, lost atomic.Int64
		var wait sync.WaitGroup
		begin := make(chan struct{})
		for writer := range writers {
			wait.Go(func() {
				<-begin
				_, err := clients[writer%2].AppendToStream(within(t), "raced",
					esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(round)}, newEvent("next", "{}"))
				switch {
				case err == nil:
					won.Add(1)
				case codeOf(err) == esdb.ErrorCodeWrongExpectedVersion:
					lost.Add(1)
				default:
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		close(begin)
		wait.Wait()
		if won.Load() != 1 || lost.Load() != writers-1 {
			t.Fatalf("round %d: %d won and %d lost", round, won.Load(), lost.Load())
		}
	}
}

func TestAppend_sentAgainIsStoredOnce(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	for _, test := range []struct {
		claim    string
		existing int
		expected esdb.ExpectedRevision
	}{
		{"no stream", 0, esdb.NoStream{}},
		{"exact revision", 2, esdb.Revision(1)},
		{"any", 2, esdb.Any{}},
		{"stream exists", 2, esdb.StreamExists{}},
	} {
		stream := "again-" + test.claim
		if test.existing > 0 {
			mustAppend(t, client, stream, esdb.NoStream{}, newEvents(test.existing)...)
		}
		events := newEvents(3)
		first := mustAppend(t, client, stream, test.expected, events...)
		again := mustAppend(t, client, stream, test.expected, events...)
		if *again != *first {
			t.Errorf("%s: got %+v, then %+v", test.claim, *first, *again)
		}
		// Other writers may have appended meanwhile.
		mustAppend(t, client, stream, esdb.Any{}, newEvent("later", "{}"))
		if again := mustAppend(t, client, stream, test.expected, events...); *again != *first {
			t.Errorf("%s: got %+v, then %+v after a later event", test.claim, *first, *again)
		}
		got, err := readStream(t, client, stream, esdb.ReadStreamOptions{From: esdb.Start{}}, 100)
		if err != nil || len(got) != test.existing+3+1 {
			t.Errorf("%s: %d events, %v", test.claim, len(got), err)
		}
		mixed := []esdb.EventData{events[0], newEvent("other", "{}"), events[2]}
		_, err = client.AppendToStream(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: test.expected}, mixed...)
		if codeOf(err) != esdb.ErrorCodeWrongExpectedVersion {
			t.Errorf("%s: an append that repeats another only in part: %v", test.claim, err)
		}
	}
}

func TestAppend_tooLarge(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	const overhead = len("counted")*2 + len(`{"m":1}`)
	fits := newEvent("counted", strings.Repeat("x", maxAppendBytes-overhead))
	mustAppend(t, client, "large", esdb.NoStream{}, fits)
	for claim, events := range map[string][]esdb.EventData{
		"one event": {newEvent("counted", strings.Repeat("x", maxAppendBytes-overhead+1))},
		// More than all buffers on the way hold, so that the client would notice if the
		// server stopped receiving.
		"many events": slices.Repeat([]esdb.EventData{newEvent("counted", strings.Repeat("x", 900_000))}, 8),
		"a huge one":  {newEvent("counted", strings.Repeat("x", 8<<20))},
	} {
		_, err := client.AppendToStream(within(t), "large", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(0)}, events...)
		if err == nil || !strings.Contains(err.Error(), "Maximum Append Size of 1048576 Exceeded") {
			t.Errorf("%s: %v", claim, err)
		}
	}
	got, err := readStream(t, client, "large", esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	if err != nil || len(got) != 1 || !bytes.Equal(got[0].Data, fits.Data) {
		t.Errorf("read %d events, %v", len(got), err)
	}
}

func TestAppend_refusesInvalidEvents(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	for claim, test := range map[string]struct{ stream, kind string }{
		"no stream name":      {"", "x"},
		"long stream name":    {strings.Repeat("n", maxStreamName+1), "x"},
		"a name not in UTF-8": {"\xff", "x"},
		"no type":             {"s", ""},
	} {
		_, err := client.AppendToStream(within(t), test.stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, newEvent(test.kind, "{}"))
		if err == nil {
			t.Errorf("%s was accepted", claim)
		}
	}
	if got := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 10); len(got) != 0 {
		t.Errorf("%d events were stored", len(got))
	}
}

func TestRead_directionsAndStarts(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(10)...)
	for _, test := range []struct {
		claim   string
		options esdb.ReadStreamOptions
		count   uint64
		want    []uint64
	}{
		{"from the start", esdb.ReadStreamOptions{From: esdb.Start{}}, 3, []uint64{0, 1, 2}},
		{"from a revision, including it", esdb.ReadStreamOptions{From: esdb.Revision(7)}, 100, []uint64{7, 8, 9}},
		{"from behind the end", esdb.ReadStreamOptions{From: esdb.Revision(10)}, 100, nil},
		{"from the end backwards", esdb.ReadStreamOptions{From: esdb.End{}, Direction: esdb.Backwards}, 3, []uint64{9, 8, 7}},
		{"from a revision backwards, including it", esdb.ReadStreamOptions{From: esdb.Revision(1), Direction: esdb.Backwards}, 100, []uint64{1, 0}},
		{"from far behind the end backwards", esdb.ReadStreamOptions{From: esdb.Revision(1 << 63), Direction: esdb.Backwards}, 1, []uint64{9}},
	} {
		got, err := readStream(t, client, "s", test.options, test.count)
		if err != nil || !slices.Equal(revisions(got), test.want) {
			t.Errorf("stream %s: %v, %v, want %v", test.claim, revisions(got), err, test.want)
		}
	}
	at := func(position uint64) esdb.Position { return esdb.Position{Commit: position, Prepare: position} }
	for _, test := range []struct {
		claim   string
		options esdb.ReadAllOptions
		count   uint64
		want    []uint64
	}{
		{"from the start", esdb.ReadAllOptions{From: esdb.Start{}}, 2, []uint64{0, 1}},
		{"from a position, including it", esdb.ReadAllOptions{From: at(9)}, 100, []uint64{8, 9}},
		{"from the end", esdb.ReadAllOptions{From: esdb.End{}}, 100, nil},
		{"from the end backwards", esdb.ReadAllOptions{From: esdb.End{}, Direction: esdb.Backwards}, 2, []uint64{9, 8}},
		{"from a position backwards, excluding it", esdb.ReadAllOptions{From: at(3), Direction: esdb.Backwards}, 100, []uint64{1, 0}},
		{"from the start backwards", esdb.ReadAllOptions{From: esdb.Start{}, Direction: esdb.Backwards}, 100, nil},
	} {
		if got := readAll(t, client, test.options, test.count); !slices.Equal(revisions(got), test.want) {
			t.Errorf("$all %s: %v, want %v", test.claim, revisions(got), test.want)
		}
	}
}

// Several pages because of the number of events, and several because of their size.
func TestRead_longAndLarge(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	const small, large = 2*pageRows + 7, 9
	mustAppend(t, client, "long", esdb.NoStream{}, newEvents(small)...)
	for i := range large {
		mustAppend(t, client, "large", esdb.Any{}, newEvent("large", strings.Repeat(fmt.Sprint(i), 700_000)))
	}
	if p, err := server.store.readStream(t.Context(), "large", 0, false, false, large); err != nil || len(p.events) != 2 || p.complete {
		t.Errorf("a page held %d large events, %v", len(p.events), err)
	}
	for _, direction := range []esdb.Direction{esdb.Forwards, esdb.Backwards} {
		options := esdb.ReadStreamOptions{From: esdb.Start{}}
		if direction == esdb.Backwards {
			options = esdb.ReadStreamOptions{From: esdb.End{}, Direction: direction}
		}
		for stream, count := range map[string]int{"long": small, "large": large} {
			got, err := readStream(t, client, stream, options, 1<<63)
			if err != nil || len(got) != count {
				t.Fatalf("%s: %d events, %v", stream, len(got), err)
			}
			for i, event := range got {
				want := i
				if direction == esdb.Backwards {
					want = count - 1 - i
				}
				if event.EventNumber != uint64(want) || stream == "large" && (len(event.Data) != 700_000 || string(event.Data[:1]) != fmt.Sprint(want)) {
					t.Fatalf("%s: event %d has revision %d and %d bytes", stream, i, event.EventNumber, len(event.Data))
				}
			}
		}
	}
	got := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 1<<63)
	for i, event := range got {
		if event.Position.Commit != uint64(i+1) {
			t.Fatalf("$all: event %d has position %d", i, event.Position.Commit)
		}
	}
	if len(got) != small+large {
		t.Errorf("$all: %d events", len(got))
	}
}

func TestRead_noStream(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	if _, err := readStream(t, client, "nobody", esdb.ReadStreamOptions{From: esdb.Start{}}, 1); codeOf(err) != esdb.ErrorCodeResourceNotFound {
		t.Errorf("a stream that never was: %v", err)
	}
	if _, err := client.SetStreamMetadata(within(t), "described", esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, esdb.StreamMetadata{}); err != nil {
		t.Fatal(err)
	}
	if _, err := readStream(t, client, "described", esdb.ReadStreamOptions{From: esdb.Start{}}, 1); codeOf(err) != esdb.ErrorCodeResourceNotFound {
		t.Errorf("a stream with metadata only: %v", err)
	}
	mustAppend(t, client, "described", esdb.StreamExists{}, newEvent("x", "{}"))
}

func TestDelete_hidesAndBringsBack(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(3)...)
	custom := esdb.StreamMetadata{}
	custom.AddCustomProperty("kept", "yes")
	if _, err := client.SetStreamMetadata(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}}, custom); err != nil {
		t.Fatal(err)
	}
	if _, err := client.DeleteStream(within(t), "s", esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(1)}); err == nil {
		t.Error("deleted at a wrong revision")
	}
	result, err := client.DeleteStream(within(t), "s", esdb.DeleteStreamOptions{ExpectedRevision: esdb.Revision(2)})
	if err != nil || result.Position.Commit != 5 {
		t.Fatalf("delete: %+v, %v", result, err)
	}
	if _, err := readStream(t, client, "s", esdb.ReadStreamOptions{From: esdb.Start{}}, 1); codeOf(err) != esdb.ErrorCodeResourceNotFound {
		t.Errorf("read of a deleted stream: %v", err)
	}
	if result := mustAppend(t, client, "s", esdb.Any{}, newEvent("back", "{}")); result.NextExpectedVersion != 3 {
		t.Errorf("append to a deleted stream: revision %d", result.NextExpectedVersion)
	}
	got, err := readStream(t, client, "s", esdb.ReadStreamOptions{From: esdb.Start{}}, 10)
	if err != nil || !slices.Equal(revisions(got), []uint64{3}) {
		t.Errorf("read of a stream brought back: %v, %v", revisions(got), err)
	}
	described, err := client.GetStreamMetadata(within(t), "s", esdb.ReadStreamOptions{})
	if err != nil || described.TruncateBefore() == nil || *described.TruncateBefore() != 3 || described.CustomProperty("kept") != "yes" {
		t.Errorf("metadata: %+v, %v", described, err)
	}
}

func TestTombstone_endsAStream(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	const name = "größe\n" // a header must escape this name
	mustAppend(t, client, name, esdb.NoStream{}, newEvents(2)...)
	if _, err := client.TombstoneStream(within(t), name, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Revision(1)}); err != nil {
		t.Fatal(err)
	}
	_, err := readStream(t, client, name, esdb.ReadStreamOptions{From: esdb.Start{}}, 1)
	if codeOf(err) != esdb.ErrorCodeStreamDeleted {
		t.Errorf("read: %v", err)
	}
	_, err = client.AppendToStream(within(t), name, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, newEvent("x", "{}"))
	if codeOf(err) != esdb.ErrorCodeStreamDeleted {
		t.Errorf("append: %v", err)
	}
	_, err = client.SetStreamMetadata(within(t), name, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, esdb.StreamMetadata{})
	if codeOf(err) != esdb.ErrorCodeStreamDeleted {
		t.Errorf("set metadata: %v", err)
	}
	_, err = client.TombstoneStream(within(t), name, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}})
	if codeOf(err) != esdb.ErrorCodeStreamDeleted {
		t.Errorf("tombstone again: %v", err)
	}
	all := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 10)
	if len(all) != 3 || all[2].EventType != "$streamDeleted" {
		t.Errorf("$all has %d events", len(all))
	}
}

func TestMetadata_limitsWhatIsVisible(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(time.Now().UnixNano())
	server := startAt(t, t.TempDir()+"/events.db", func() time.Time { return time.Unix(0, clock.Load()) })
	client := server.connect(t)
	describe := func(change func(*esdb.StreamMetadata)) {
		t.Helper()
		var m esdb.StreamMetadata
		change(&m)
		if _, err := client.SetStreamMetadata(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, m); err != nil {
			t.Fatal(err)
		}
	}
	visible := func(claim string, want ...uint64) {
		t.Helper()
		forwards, err := readStream(t, client, "s", esdb.ReadStreamOptions{From: esdb.Start{}}, 100)
		if err != nil || !slices.Equal(revisions(forwards), want) {
			t.Errorf("%s: %v, %v, want %v", claim, revisions(forwards), err, want)
		}
		backwards, err := readStream(t, client, "s", esdb.ReadStreamOptions{From: esdb.End{}, Direction: esdb.Backwards}, 100)
		slices.Reverse(backwards)
		if err != nil || !slices.Equal(revisions(backwards), want) {
			t.Errorf("%s, backwards: %v, %v, want %v", claim, revisions(backwards), err, want)
		}
	}
	describe(func(m *esdb.StreamMetadata) { m.SetMaxCount(2) })
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(4)...)
	visible("at most two", 2, 3)
	describe(func(m *esdb.StreamMetadata) { m.SetTruncateBefore(1) })
	visible("from the second on", 1, 2, 3)
	describe(func(m *esdb.StreamMetadata) { m.SetMaxAge(10 * time.Second) })
	clock.Add(int64(11 * time.Second))
	mustAppend(t, client, "s", esdb.Revision(3), newEvent("young", "{}"))
	visible("ten seconds", 4)
	describe(func(*esdb.StreamMetadata) {})
	visible("no limits", 0, 1, 2, 3, 4)
}

func TestRecorded_timeNeverRunsBackwards(t *testing.T) {
	t.Parallel()
	var clock atomic.Int64
	clock.Store(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano())
	path := t.TempDir() + "/events.db"
	now := func() time.Time { return time.Unix(0, clock.Load()) }
	server := startAt(t, path, now)
	client := server.connect(t)
	mustAppend(t, client, "s", esdb.Any{}, newEvent("x", "{}"))
	clock.Add(-int64(time.Hour))
	mustAppend(t, client, "s", esdb.Any{}, newEvent("x", "{}"))
	if err := errors.Join(client.Close(), server.Close()); err != nil {
		t.Fatal(err)
	}
	client = startAt(t, path, now).connect(t)
	mustAppend(t, client, "s", esdb.Any{}, newEvent("x", "{}"))
	for _, event := range readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 10) {
		if event.CreatedDate.Year() != 2030 {
			t.Errorf("event %d was recorded at %v", event.EventNumber, event.CreatedDate)
		}
	}
}

// Requests that the client for Go cannot send.
func TestProtocol_raw(t *testing.T) {
	t.Parallel()
	server := start(t)
	mustAppend(t, server.connect(t), "some", esdb.NoStream{}, newEvents(40)...)
	connection, err := grpc.NewClient("unix:"+server.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := streamspb.NewStreamsClient(connection)
	all := func(from *streamspb.ReadReq_Options_AllOptions, filter *streamspb.ReadReq_Options_FilterOptions) *streamspb.ReadReq_Options {
		return &streamspb.ReadReq_Options{
			StreamOption: &streamspb.ReadReq_Options_All{All: from},
			CountOption:  &streamspb.ReadReq_Options_Count{Count: 5},
			FilterOption: &streamspb.ReadReq_Options_Filter{Filter: filter},
			UuidOption:   &streamspb.ReadReq_Options_UUIDOption{Content: &streamspb.ReadReq_Options_UUIDOption_String_{String_: &shared.Empty{}}},
		}
	}
	end := &streamspb.ReadReq_Options_AllOptions{AllOption: &streamspb.ReadReq_Options_AllOptions_End{End: &shared.Empty{}}}

	t.Run("a filtered read backwards with ids as text", func(t *testing.T) {
		options := all(end, &streamspb.ReadReq_Options_FilterOptions{Filter: &streamspb.ReadReq_Options_FilterOptions_StreamIdentifier{
			StreamIdentifier: &streamspb.ReadReq_Options_FilterOptions_Expression{Regex: "^so.e$"},
		}})
		options.ReadDirection = streamspb.ReadReq_Options_Backwards
		read, err := client.Read(within(t), &streamspb.ReadReq{Options: options})
		if err != nil {
			t.Fatal(err)
		}
		for want := uint64(40); want > 35; want-- {
			response, err := read.Recv()
			if err != nil {
				t.Fatal(err)
			}
			event := response.GetEvent().GetEvent()
			if event.GetCommitPosition() != want || len(event.GetId().GetString_()) != 36 {
				t.Errorf("got %v, want position %d", event, want)
			}
		}
		if response, err := read.Recv(); err == nil {
			t.Errorf("one too many: %v", response)
		}
	})
	for claim, options := range map[string]*streamspb.ReadReq_Options{
		"a pattern that is none": all(end, &streamspb.ReadReq_Options_FilterOptions{Filter: &streamspb.ReadReq_Options_FilterOptions_EventType{
			EventType: &streamspb.ReadReq_Options_FilterOptions_Expression{Regex: "(?!x)"},
		}}),
		"an empty filter": all(end, &streamspb.ReadReq_Options_FilterOptions{}),
		"no start":        all(&streamspb.ReadReq_Options_AllOptions{}, nil),
		"nothing":         {},
	} {
		t.Run(claim, func(t *testing.T) {
			read, err := client.Read(within(t), &streamspb.ReadReq{Options: options})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := read.Recv(); !strings.Contains(fmt.Sprint(err), "InvalidArgument") {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("trailers of a refused deletion", func(t *testing.T) {
		var trailer metadata.MD
		_, err := client.Delete(within(t), &streamspb.DeleteReq{Options: &streamspb.DeleteReq_Options{
			StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte("some")},
			ExpectedStreamRevision: &streamspb.DeleteReq_Options_Revision{Revision: 7},
		}}, grpc.Trailer(&trailer))
		if err == nil || trailer.Get("exception")[0] != "wrong-expected-version" || trailer.Get("expected-version")[0] != "7" ||
			trailer.Get("actual-version")[0] != "39" || trailer.Get("stream-name")[0] != "some" {
			t.Errorf("%v with %v", err, trailer)
		}
	})
	t.Run("trailers of an append that is too large", func(t *testing.T) {
		var trailer metadata.MD
		call, err := client.Append(within(t), grpc.Trailer(&trailer))
		if err != nil {
			t.Fatal(err)
		}
		sent := []*streamspb.AppendReq{
			{Content: &streamspb.AppendReq_Options_{Options: &streamspb.AppendReq_Options{
				StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte("some")},
				ExpectedStreamRevision: &streamspb.AppendReq_Options_Any{Any: &shared.Empty{}},
			}}},
			{Content: &streamspb.AppendReq_ProposedMessage_{ProposedMessage: &streamspb.AppendReq_ProposedMessage{
				Id:       &shared.UUID{Value: &shared.UUID_String_{String_: "6ba7b810-9dad-11d1-80b4-00c04fd430c8"}},
				Metadata: map[string]string{"type": "x", "content-type": contentTypeBytes},
				Data:     make([]byte, maxAppendBytes),
			}}},
		}
		for _, message := range sent {
			if err := call.Send(message); err != nil {
				t.Fatal(err)
			}
		}
		_, err = call.CloseAndRecv()
		if err == nil || trailer.Get("exception")[0] != "maximum-append-size-exceeded" || trailer.Get("maximum-append-size")[0] != "1048576" {
			t.Errorf("%v with %v", err, trailer)
		}
	})
}

func TestBatchAppend(t *testing.T) {
	t.Parallel()
	server := start(t)
	connection, err := grpc.NewClient("unix:"+server.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	call, err := streamspb.NewStreamsClient(connection).BatchAppend(within(t))
	if err != nil {
		t.Fatal(err)
	}
	piece := func(id string, expected uint64, final bool, events ...string) {
		t.Helper()
		request := &streamspb.BatchAppendReq{
			CorrelationId: &shared.UUID{Value: &shared.UUID_String_{String_: id}},
			Options: &streamspb.BatchAppendReq_Options{
				StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte("s")},
				ExpectedStreamPosition: &streamspb.BatchAppendReq_Options_StreamPosition{StreamPosition: expected},
			},
			IsFinal: final,
		}
		for _, data := range events {
			request.ProposedMessages = append(request.ProposedMessages, &streamspb.BatchAppendReq_ProposedMessage{
				Id: structuredUUID(uuid.New()), Metadata: map[string]string{"type": "x", "content-type": contentTypeJSON}, Data: []byte(data),
			})
		}
		if err := call.Send(request); err != nil {
			t.Fatal(err)
		}
	}
	const first, second, third, fourth = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222",
		"33333333-3333-4333-8333-333333333333", "44444444-4444-4444-8444-444444444444"
	mustAppend(t, server.connect(t), "s", esdb.NoStream{}, newEvent("x", "{}"))
	piece(first, 0, false, "1")
	piece(second, 2, false, "3")
	piece(first, 0, true, "2")
	piece(second, 2, true)
	piece(third, 9, true, "4")
	piece(fourth, 3, true, strings.Repeat("5", maxAppendBytes))
	if err := call.CloseSend(); err != nil {
		t.Fatal(err)
	}
	responses := make(map[string]*streamspb.BatchAppendResp)
	for range 4 {
		response, err := call.Recv()
		if err != nil {
			t.Fatal(err)
		}
		responses[response.GetCorrelationId().GetString_()] = response
	}
	for id, response := range responses {
		if refused := response.GetError() != nil; refused != (id == third || id == fourth) || refused && len(response.GetError().GetDetails()) != 1 {
			t.Fatalf("%s got the response %v", id, response)
		}
	}
	if got := responses[first].GetSuccess(); got.GetCurrentRevision() != 2 || got.GetPosition().GetCommitPosition() != 3 {
		t.Errorf("first: %v", responses[first])
	}
	if got := responses[second]; got.GetSuccess().GetCurrentRevision() != 3 || got.GetStreamPosition() != 2 || string(got.GetStreamIdentifier().GetStreamName()) != "s" {
		t.Errorf("second: %v", got)
	}
	var wrong shared.WrongExpectedVersion
	if err := responses[third].GetError().GetDetails()[0].UnmarshalTo(&wrong); err != nil || wrong.GetCurrentStreamRevision() != 3 || wrong.GetExpectedStreamPosition() != 9 {
		t.Errorf("third: %v, %v", responses[third], err)
	}
	var tooLarge shared.MaximumAppendSizeExceeded
	if err := responses[fourth].GetError().GetDetails()[0].UnmarshalTo(&tooLarge); err != nil || tooLarge.GetMaxAppendSize() != maxAppendBytes {
		t.Errorf("fourth: %v, %v", responses[fourth], err)
	}
	if _, err := call.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the call ended with %v", err)
	}
	got, err := readStream(t, server.connect(t), "s", esdb.ReadStreamOptions{From: esdb.Revision(1)}, 10)
	if err != nil || len(got) != 3 || string(got[0].Data)+string(got[1].Data)+string(got[2].Data) != "123" {
		t.Errorf("the stream holds %d events, %v", len(got), err)
	}
}

func TestGossip_clientDiscoversTheOneMember(t *testing.T) {
	t.Parallel()
	server := start(t)
	address := server.listenTCP(t, &Access{})
	config, err := esdb.ParseConnectionString("esdb+discover://" + address + "?tls=false")
	if err != nil {
		t.Fatal(err)
	}
	config.Logger = esdb.NoopLogging()
	client, err := esdb.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	mustAppend(t, client, "s", esdb.NoStream{}, newEvent("x", "{}"))
	version, err := client.GetServerVersion()
	if err != nil || version.Major != 23 {
		t.Errorf("version %v, %v", version, err)
	}
}

// rawClient returns a gRPC client without the official client.
func (r *running) rawClient(t testing.TB) streamspb.StreamsClient {
	t.Helper()
	connection, err := grpc.NewClient("unix:"+r.socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { connection.Close() })
	return streamspb.NewStreamsClient(connection)
}

func TestBatchAppend_deadlines(t *testing.T) {
	t.Parallel()
	server := start(t)
	call, err := server.rawClient(t).BatchAppend(within(t))
	if err != nil {
		t.Fatal(err)
	}
	request := func(id byte, final bool, deadline any) *streamspb.BatchAppendReq {
		r := &streamspb.BatchAppendReq{
			CorrelationId: structuredUUID(uuid.UUID{id}), IsFinal: final,
			Options: &streamspb.BatchAppendReq_Options{
				StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte{'s', id}},
				ExpectedStreamPosition: &streamspb.BatchAppendReq_Options_Any{},
			},
			ProposedMessages: []*streamspb.BatchAppendReq_ProposedMessage{{
				Id: structuredUUID(uuid.New()), Metadata: map[string]string{"type": "x", "content-type": contentTypeJSON},
			}},
		}
		switch deadline := deadline.(type) {
		case time.Duration:
			r.Options.DeadlineOption = &streamspb.BatchAppendReq_Options_Deadline{Deadline: durationpb.New(deadline)}
		case time.Time:
			r.Options.DeadlineOption = &streamspb.BatchAppendReq_Options_Deadline_21_10_0{Deadline_21_10_0: timestamppb.New(deadline)}
		}
		return r
	}
	timedOut := map[byte]bool{1: false, 2: false, 3: true, 4: true, 5: true, 6: true}
	for _, r := range []*streamspb.BatchAppendReq{
		request('1', true, time.Minute),
		request('2', true, time.Now().Add(time.Minute)),
		request('3', true, time.Duration(0)),
		request('4', true, time.Now().Add(-time.Minute)),
		// These two are still incomplete at their deadlines.
		request('5', false, 20*time.Millisecond),
		request('6', false, time.Now().Add(20*time.Millisecond)),
	} {
		if err := call.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	for range len(timedOut) {
		response, err := call.Recv()
		if err != nil {
			t.Fatal(err)
		}
		id, err := parseUUID(response.GetCorrelationId())
		if err != nil {
			t.Fatal(err)
		}
		var timeout shared.Timeout
		details := response.GetError().GetDetails()
		got := len(details) == 1 && details[0].UnmarshalTo(&timeout) == nil
		if want, asked := timedOut[id[0]-'0']; !asked || got != want || got == (response.GetSuccess() != nil) {
			t.Errorf("append %c got the response %v", id[0], response)
		}
		delete(timedOut, id[0]-'0')
	}
	// Late pieces are dropped, and the call continues.
	for _, r := range []*streamspb.BatchAppendReq{request('5', true, nil), request('7', true, nil)} {
		if err := call.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	response, err := call.Recv()
	if id, _ := parseUUID(response.GetCorrelationId()); err != nil || id[0] != '7' || response.GetSuccess() == nil {
		t.Errorf("got %v, %v", response, err)
	}
	var streams []string
	for _, event := range readAll(t, server.connect(t), esdb.ReadAllOptions{From: esdb.Start{}}, 100) {
		streams = append(streams, event.StreamID)
	}
	slices.Sort(streams)
	if want := []string{"s1", "s2", "s7"}; !slices.Equal(streams, want) {
		t.Errorf("written to %v, want %v", streams, want)
	}
}

// If its deadline passes while an append waits for its transaction, the client gets a
// response, and the outcome is unknown.
func TestBatchAppend_deadlineDuringTheCommit(t *testing.T) {
	t.Parallel()
	server := start(t)
	blocker, err := connect(server.store.uri)
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Close()
	if err := blocker.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	call, err := server.rawClient(t).BatchAppend(within(t))
	if err != nil {
		t.Fatal(err)
	}
	err = call.Send(&streamspb.BatchAppendReq{
		CorrelationId: structuredUUID(uuid.New()), IsFinal: true,
		Options: &streamspb.BatchAppendReq_Options{
			StreamIdentifier:       &shared.StreamIdentifier{StreamName: []byte("s")},
			ExpectedStreamPosition: &streamspb.BatchAppendReq_Options_Any{},
			DeadlineOption:         &streamspb.BatchAppendReq_Options_Deadline{Deadline: durationpb.New(20 * time.Millisecond)},
		},
		ProposedMessages: []*streamspb.BatchAppendReq_ProposedMessage{{
			Id: structuredUUID(uuid.New()), Metadata: map[string]string{"type": "x", "content-type": contentTypeJSON},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	response, err := call.Recv()
	if err != nil || codes.Code(response.GetError().GetCode()) != codes.DeadlineExceeded {
		t.Errorf("got %v, %v", response, err)
	}
	if err := blocker.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
}

// A bad append is refused alone, and the call continues.
func TestBatchAppend_refusesOneAndGoesOn(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	mustAppend(t, client, "ended", esdb.NoStream{}, newEvent("x", "{}"))
	if _, err := client.TombstoneStream(within(t), "ended", esdb.TombstoneStreamOptions{}); err != nil {
		t.Fatal(err)
	}
	call, err := server.rawClient(t).BatchAppend(within(t))
	if err != nil {
		t.Fatal(err)
	}
	stream := func(name string) *streamspb.BatchAppendReq_Options {
		return &streamspb.BatchAppendReq_Options{
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(name)}, ExpectedStreamPosition: &streamspb.BatchAppendReq_Options_Any{},
		}
	}
	event := func(id uuid.UUID, metadata map[string]string) *streamspb.BatchAppendReq_ProposedMessage {
		return &streamspb.BatchAppendReq_ProposedMessage{Id: structuredUUID(id), Metadata: metadata}
	}
	whole := map[string]string{"type": "x", "content-type": contentTypeJSON}
	for _, c := range []struct {
		claim   string
		options *streamspb.BatchAppendReq_Options
		event   *streamspb.BatchAppendReq_ProposedMessage
		detail  proto.Message
	}{
		{"no options", nil, event(uuid.New(), whole), &shared.BadRequest{}},
		{"no name", stream(""), event(uuid.New(), whole), &shared.BadRequest{}},
		{"no expected revision", &streamspb.BatchAppendReq_Options{StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte("s")}}, event(uuid.New(), whole), &shared.BadRequest{}},
		{"no event id", stream("s"), event(uuid.Nil, whole), &shared.BadRequest{}},
		{"no content type", stream("s"), event(uuid.New(), map[string]string{"type": "x"}), &shared.BadRequest{}},
		{"the whole log", stream("$all"), event(uuid.New(), whole), &shared.AccessDenied{}},
		{"an ended stream", stream("ended"), event(uuid.New(), whole), &shared.StreamDeleted{}},
		{"nothing", stream("s"), event(uuid.New(), whole), nil},
	} {
		err := call.Send(&streamspb.BatchAppendReq{
			CorrelationId: structuredUUID(uuid.New()), IsFinal: true, Options: c.options, ProposedMessages: []*streamspb.BatchAppendReq_ProposedMessage{c.event},
		})
		if err != nil {
			t.Fatal(err)
		}
		response, err := call.Recv()
		if err != nil {
			t.Fatalf("%s: %v", c.claim, err)
		}
		if c.detail == nil {
			if response.GetSuccess() == nil {
				t.Errorf("%s wrong, but the response is %v", c.claim, response)
			}
			continue
		}
		if details := response.GetError().GetDetails(); len(details) != 1 || details[0].UnmarshalTo(c.detail) != nil {
			t.Errorf("%s: got the response %v", c.claim, response)
		}
	}
}
