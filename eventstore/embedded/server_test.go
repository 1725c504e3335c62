package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnvironment); path != "" {
		runChild(path)
		return
	}
	goleak.VerifyTestMain(m)
}

// running is a server on a Unix socket with its store file.
type running struct {
	*Server
	path   string
	socket string
}

// start opens a store in a new directory and serves it until the test ends.
func start(t testing.TB) *running {
	t.Helper()
	return startAt(t, filepath.Join(t.TempDir(), "events.db"), time.Now)
}

func startAt(t testing.TB, path string, now func() time.Time) *running {
	t.Helper()
	server, err := open(path, zerolog.Nop(), now)
	if err != nil {
		t.Fatal(err)
	}
	// The path of a Unix socket is limited to about a hundred bytes. The path of a test's
	// directory can be longer.
	directory, err := os.MkdirTemp("", "es")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(directory) })
	r := &running{Server: server, path: path, socket: filepath.Join(directory, "s")}
	listener, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener, nil) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

// listenTCP serves on another listener and returns its address.
func (r *running) listenTCP(t testing.TB, access *Access) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(listener, access) }()
	t.Cleanup(func() {
		if err := errors.Join(r.Close(), <-served); err != nil {
			t.Errorf("serve TCP: %v", err)
		}
	})
	return listener.Addr().String()
}

// connect returns an official client of the server.
func (r *running) connect(t testing.TB) *esdb.Client {
	t.Helper()
	return connectTo(t, "unix:"+r.socket)
}

func connectTo(t testing.TB, address string) *esdb.Client {
	t.Helper()
	config, err := esdb.ParseConnectionString("esdb://localhost:2113?tls=false")
	if err != nil {
		t.Fatal(err)
	}
	config.Address = address
	config.Logger = esdb.NoopLogging()
	client, err := esdb.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// within returns a context that limits how long a test waits.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func newEvent(kind string, data string) esdb.EventData {
	return esdb.EventData{EventID: uuid.New(), EventType: kind, ContentType: esdb.ContentTypeJson, Data: []byte(data), Metadata: []byte(`{"m":1}`)}
}

func newEvents(count int) []esdb.EventData {
	events := make([]esdb.EventData, count)
	for i := range events {
		events[i] = newEvent("counted", fmt.Sprintf(`{"n":%d}`, i))
	}
	return events
}

func mustAppend(t testing.TB, client *esdb.Client, stream string, expected esdb.ExpectedRevision, events ...esdb.EventData) *esdb.WriteResult {
	t.Helper()
	result, err := client.AppendToStream(within(t), stream, esdb.AppendToStreamOptions{ExpectedRevision: expected}, events...)
	if err != nil {
		t.Fatalf("append to %s: %v", stream, err)
	}
	return result
}

// codeOf returns the client's code for an error. Only some calls wrap it.
func codeOf(err error) esdb.ErrorCode {
	if known, ok := errors.AsType[*esdb.Error](err); ok {
		return known.Code()
	}
	return -1
}

func readStream(t testing.TB, client *esdb.Client, stream string, options esdb.ReadStreamOptions, count uint64) ([]*esdb.RecordedEvent, error) {
	t.Helper()
	events, err := client.ReadStream(within(t), stream, options, count)
	if err != nil {
		return nil, err
	}
	return drain(events)
}

func readAll(t testing.TB, client *esdb.Client, options esdb.ReadAllOptions, count uint64) []*esdb.RecordedEvent {
	t.Helper()
	events, err := client.ReadAll(within(t), options, count)
	if err != nil {
		t.Fatal(err)
	}
	got, err := drain(events)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func drain(events *esdb.ReadStream) ([]*esdb.RecordedEvent, error) {
	defer events.Close()
	var got []*esdb.RecordedEvent
	for {
		event, err := events.Recv()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, event.OriginalEvent())
	}
}

func revisions(events []*esdb.RecordedEvent) []uint64 {
	numbers := make([]uint64, len(events))
	for i, event := range events {
		numbers[i] = event.EventNumber
	}
	return numbers
}

// nextEvent receives the next event of a subscription and ignores its other messages.
func nextEvent(t testing.TB, subscription *esdb.Subscription) *esdb.RecordedEvent {
	t.Helper()
	for {
		switch said := subscription.Recv(); {
		case said.EventAppeared != nil:
			return said.EventAppeared.OriginalEvent()
		case said.SubscriptionDropped != nil:
			t.Fatalf("subscription dropped: %v", said.SubscriptionDropped.Error)
		}
	}
}

func TestServer_appendReadSubscribe(t *testing.T) {
	t.Parallel()
	client := start(t).connect(t)
	subscription, err := client.SubscribeToAll(within(t), esdb.SubscribeToAllOptions{From: esdb.Start{}})
	if err != nil {
		t.Fatal(err)
	}
	defer subscription.Close()
	sent := newEvents(3)
	sent[1].ContentType, sent[1].Data, sent[1].Metadata = esdb.ContentTypeBinary, []byte{0, 0xff, 'a'}, nil
	before := time.Now()
	result := mustAppend(t, client, "order-1", esdb.NoStream{}, sent...)
	if result.NextExpectedVersion != 2 || result.CommitPosition != 3 {
		t.Errorf("append returned revision %d, position %d", result.NextExpectedVersion, result.CommitPosition)
	}
	got, err := readStream(t, client, "order-1", esdb.ReadStreamOptions{From: esdb.Start{}}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(sent) {
		t.Fatalf("read %d events, want %d", len(got), len(sent))
	}
	for i, event := range got {
		wantType := "application/json"
		if i == 1 {
			wantType = "application/octet-stream"
		}
		switch {
		case event.EventID != sent[i].EventID, event.EventType != "counted", event.StreamID != "order-1",
			string(event.Data) != string(sent[i].Data), string(event.UserMetadata) != string(sent[i].Metadata),
			event.ContentType != wantType, event.EventNumber != uint64(i), event.Position.Commit != uint64(i+1),
			event.CreatedDate.Before(before.Add(-time.Millisecond)), event.CreatedDate.After(time.Now().Add(time.Millisecond)):
			t.Errorf("event %d came back as %+v", i, event)
		}
		if live := nextEvent(t, subscription); live.EventID != event.EventID || live.Position != event.Position {
			t.Errorf("subscription: event %d came as %+v", i, live)
		}
	}
}
