// Package storetest holds what Lotline relies on in an event store, as tests. They
// run against the embedded store, and against the server that
// LOTLINE_TEST_EVENTSTORE names (esdb://…) when it is set: each uses streams of its
// own and supposes nothing about what else the log holds.
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
	// patience is how long something may take that has to happen.
	patience time.Duration
	// small asks for as little work as shows what is to be shown.
	small bool
}

const plenty = time.Minute

// embeddedStore starts an embedded store in a directory of its own.
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

// behind puts a middle in front of the store.
func (s store) behind(t testing.TB, f faults) (store, *middle) {
	t.Helper()
	config, err := esdb.ParseConnectionString(s.connection)
	if err != nil {
		t.Fatal(err)
	}
	if !config.DisableTLS {
		t.Skip("nobody can stand between a client and a store that speak TLS")
	}
	m := newMiddle(t, config.Address, f)
	s.connection = "esdb://" + m.listener.Addr().String() + "?tls=false"
	return s, m
}

// log is the store as the program sees it.
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

// client is the store as the official client shows it.
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

// within is a context for what has to happen.
func (s store) within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), s.patience)
	t.Cleanup(cancel)
	return ctx
}

// newName is the name of a stream that is not there yet. Any suffix may follow it.
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

// forClient is what Log makes of events, but for the hash.
func forClient(events []domain.Proposed) []esdb.EventData {
	out := make([]esdb.EventData, len(events))
	for i, e := range events {
		out[i] = esdb.EventData{EventID: e.ID, EventType: e.Type, ContentType: esdb.ContentTypeJson, Data: e.Data, Metadata: e.Metadata}
	}
	return out
}

// readWhole reads a stream to its end, and checks that its revisions have no gap
// and its hash chain holds.
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

// expectIDs checks that a stream holds events, all of them and once.
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
