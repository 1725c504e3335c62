// Package storetest tests what Lotline relies on in an event store. The tests run against
// the embedded store, and also against the server that LOTLINE_TEST_EVENTSTORE names
// (esdb://…), if it is set. Each test uses its own streams and assumes nothing about
// other events in the log.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/embedded"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// store is an event store to be tested.
type store struct {
	connection string // esdb://…
	// patience is how long a test waits for something that must happen.
	patience time.Duration
	// small asks a test to do only as much work as it needs to find its planted bugs.
	small bool
}

const plenty = time.Minute

// embeddedStore starts an embedded store in a new directory.
func embeddedStore(t testing.TB) store {
	t.Helper()
	server, err := embedded.Open(filepath.Join(t.TempDir(), "events.db"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l, nil) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return store{connection: "esdb://" + l.Addr().String() + "?tls=false", patience: plenty}
}

// throughProxy puts a proxy in front of the store.
func (s store) throughProxy(t testing.TB, f faults) (store, *proxy) {
	t.Helper()
	config, err := esdb.ParseConnectionString(s.connection)
	if err != nil {
		t.Fatal(err)
	}
	if !config.DisableTLS {
		t.Skip("the test needs a proxy, and a proxy cannot read a connection with TLS")
	}
	m := newProxy(t, config.Address, f)
	s.connection = "esdb://" + m.listener.Addr().String() + "?tls=false"
	return s, m
}

// log returns the store as the engine uses it.
func (s store) log(t testing.TB) *eventstore.Log {
	t.Helper()
	keys, err := eventstore.NewKeyring(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventstore.Connect(s.connection, keys)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// client returns the official client of the store.
func (s store) client(t testing.TB) *esdb.Client {
	t.Helper()
	config, err := esdb.ParseConnectionString(s.connection)
	if err != nil {
		t.Fatal(err)
	}
	config.Logger = esdb.NoopLogging()
	c, err := esdb.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// within returns a context for something that must happen within the store's patience.
func (s store) within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.patience)
	t.Cleanup(cancel)
	return ctx
}

// newName returns the name of a stream that does not exist. Callers may append any
// suffix.
func newName() string {
	return string(domain.KindQueue) + "-" + strings.ReplaceAll(uuid.NewString(), "-", "")
}

func newEvent(data string) domain.Proposed {
	text, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	return domain.Proposed{ID: uuid.New(), Type: "storetest.happened", Data: text, Metadata: []byte(`{"schemaVersion":1}`)}
}

func newEvents(n int) []domain.Proposed {
	out := make([]domain.Proposed, n)
	for i := range out {
		out[i] = newEvent(fmt.Sprint(i))
	}
	return out
}

// forClient converts events as Log does, but without the hash.
func forClient(events []domain.Proposed) []esdb.EventData {
	out := make([]esdb.EventData, len(events))
	for i, e := range events {
		out[i] = esdb.EventData{EventID: e.ID, EventType: e.Type, ContentType: esdb.ContentTypeJson, Data: e.Data, Metadata: e.Metadata}
	}
	return out
}

// readWhole reads all of a stream, and checks that its revisions have no gap and that its
// hash chain verifies.
func readWhole(ctx context.Context, t testing.TB, l *eventstore.Log, stream string) []*domain.Recorded {
	t.Helper()
	var out []*domain.Recorded
	last := domain.EmptyHead()
	for r, err := range l.Read(ctx, stream, domain.NoStream) {
		if err != nil {
			t.Fatalf("read: %v", err)
		}
		metadata, hash, ok := domain.SplitHash(r.RawMetadata)
		if r.Revision != last.Revision+1 {
			t.Errorf("revision %d follows %d", r.Revision, last.Revision)
		}
		if !ok || hash != domain.EventHash(r.ID, r.Type, stream, r.Revision, r.Data, metadata, last.Hash) {
			t.Errorf("the hash of revision %d does not verify", r.Revision)
		}
		last = domain.Head{Revision: r.Revision, Hash: hash}
		out = append(out, r)
	}
	return out
}

// expectIDs checks that a stream holds the wanted events, each once and in order.
func expectIDs(t testing.TB, got []*domain.Recorded, want []domain.Proposed) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("the stream holds %d events of %d", len(got), len(want))
		return
	}
	for i, r := range got {
		if r.ID != want[i].ID {
			t.Errorf("revision %d holds another event than was appended", i)
		}
	}
}
