package eventstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/embedded"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeDirectory); dir != "" {
		if err := beStore(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// testStore is an embedded store that a test can stop and start again.
type testStore struct {
	t      testing.TB
	dir    string
	server *embedded.Server
	served chan error
}

func newTestStore(t testing.TB) *testStore {
	t.Helper()
	// The paths of t.TempDir can be too long for a Unix socket.
	dir, err := os.MkdirTemp("", "lotline-test-")
	if err != nil {
		t.Fatal(err)
	}
	s := &testStore{t: t, dir: dir}
	t.Cleanup(func() {
		s.stop()
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.start()
	return s
}

func (s *testStore) socket() string { return filepath.Join(s.dir, "s") }

func (s *testStore) start() {
	s.t.Helper()
	l, err := net.Listen("unix", s.socket())
	if err != nil {
		s.t.Fatal(err)
	}
	if s.server, err = embedded.Open(filepath.Join(s.dir, "events.db"), zerolog.Nop()); err != nil {
		s.t.Fatal(err)
	}
	s.served = make(chan error, 1)
	go func(server *embedded.Server, served chan error) { served <- server.Serve(l, nil) }(s.server, s.served)
}

func (s *testStore) stop() {
	if s.server == nil {
		return
	}
	if err := errors.Join(s.server.Close(), <-s.served); err != nil {
		s.t.Error(err)
	}
	s.server = nil
}

func (s *testStore) log(k *Keyring) *Log {
	s.t.Helper()
	l, err := ConnectSocket(s.socket(), k)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if err := l.Close(); err != nil {
			s.t.Error(err)
		}
	})
	return l
}

func newTestLog(t testing.TB) *Log {
	t.Helper()
	return newTestStore(t).log(testKeyring(t, 1))
}

const stream = "queue-01h455vb4pex5vsknk084sn02q"

func queueCreated() *domain.QueueCreated {
	return &domain.QueueCreated{
		Stamp:    domain.Stamp{At: 1_795_000_000_000},
		Identity: domain.Identity{ID: "queue_01h455vb4pex5vsknk084sn02q", OrganizationID: "org_01h455vb4pex5vsknk084sn02r"},
		Common:   domain.Common{SequenceID: "s", TimeZone: "UTC", EncryptionSeed: domain.Secret{Plain: "tell-nobody"}},
	}
}

func deleted() domain.Deleted { return domain.Deleted{Stamp: domain.Stamp{At: 1_795_000_000_001}} }

func encode(t testing.TB, l *Log, stream string, events ...domain.Event) []domain.Proposed {
	t.Helper()
	out := make([]domain.Proposed, len(events))
	for i, e := range events {
		id := uuid.New()
		var err error
		out[i], err = l.Encode(stream, e, domain.Metadata{
			CommandID: id.String(), CorrelationID: "request-1", CausationID: id.String(), Actor: "key_1", RequestID: "request-1",
		})
		if err != nil {
			t.Fatal(err)
		}
		out[i].ID = id
	}
	return out
}

func read(t testing.TB, l *Log, stream string, after domain.Revision) []*domain.Recorded {
	t.Helper()
	var out []*domain.Recorded
	for r, err := range l.Read(t.Context(), stream, after) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func TestLog_givesBackWhatWasAppended(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	proposed := encode(t, l, stream, queueCreated(), deleted())
	head, position, err := l.Append(t.Context(), stream, domain.EmptyHead(), proposed)
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, l, stream, domain.NoStream)
	if len(got) != 2 {
		t.Fatalf("%d events", len(got))
	}
	created := got[0].Event.(*domain.QueueCreated)
	if created.EncryptionSeed.Plain != "tell-nobody" {
		t.Errorf("the seed was opened as %q", created.EncryptionSeed.Plain)
	}
	if bytes.Contains(got[0].Data, []byte("tell-nobody")) {
		t.Errorf("the seed is stored unsealed: %s", got[0].Data)
	}
	if got[1].Event != deleted() || got[1].Type != "queue.deleted" || got[1].Revision != 1 || got[1].Position != position {
		t.Errorf("got %+v", got[1])
	}
	if m := got[0].Metadata; m.SchemaVersion != 1 || m.Actor != "key_1" || m.RequestID != "request-1" || m.CorrelationID != "request-1" {
		t.Errorf("metadata %+v", m)
	}
	h := domain.NewHistory(stream)
	for _, r := range got {
		if err := h.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	if h.Head != head {
		t.Errorf("head %+v, Append said %+v", h.Head, head)
	}
	if rest := read(t, l, stream, 0); len(rest) != 1 || rest[0].Revision != 1 {
		t.Errorf("behind revision 0: %v", rest)
	}
	if none := read(t, l, "queue-00000000000000000000000000", domain.NoStream); len(none) != 0 {
		t.Errorf("a stream that does not exist has %d events", len(none))
	}
}

func TestLog_storedMetadataIsJSONWithTheHashLast(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	if _, _, err := l.Append(t.Context(), stream, domain.EmptyHead(), encode(t, l, stream, queueCreated())); err != nil {
		t.Fatal(err)
	}
	r := read(t, l, stream, domain.NoStream)[0]
	var m map[string]any
	if err := json.Unmarshal(r.RawMetadata, &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"schemaVersion", "commandId", "$correlationId", "$causationId", "actor", "requestId", "hash"} {
		if m[name] == nil {
			t.Errorf("%s is missing in %s", name, r.RawMetadata)
		}
	}
	without, hash, ok := domain.SplitHash(r.RawMetadata)
	if !ok || hash != m["hash"] || hash != domain.EventHash(r.ID, r.Type, stream, 0, r.Data, without, "") {
		t.Errorf("the hash does not verify: %s", r.RawMetadata)
	}
}

func TestLog_refusesAppendsAtAnotherRevision(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	head, _, err := l.Append(t.Context(), stream, domain.EmptyHead(), encode(t, l, stream, queueCreated()))
	if err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]domain.Head{
		"no stream": domain.EmptyHead(), "too high": {Revision: 7}, "too high by one": {Revision: 1},
	} {
		if _, _, err := l.Append(t.Context(), stream, at, encode(t, l, stream, deleted())); !errors.Is(err, domain.ErrWrongRevision) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := l.Append(t.Context(), stream, head, encode(t, l, stream, deleted())); err != nil {
		t.Error(err)
	}
}

func TestLog_aRepeatedAppendIsTheSameAppend(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	proposed := encode(t, l, stream, queueCreated())
	first, firstAt, err := l.Append(t.Context(), stream, domain.EmptyHead(), proposed)
	if err != nil {
		t.Fatal(err)
	}
	second, secondAt, err := l.Append(t.Context(), stream, domain.EmptyHead(), proposed)
	if err != nil || first != second || firstAt != secondAt {
		t.Errorf("%v %v and %v %v, %v", first, firstAt, second, secondAt, err)
	}
	if got := read(t, l, stream, domain.NoStream); len(got) != 1 {
		t.Errorf("%d events", len(got))
	}
}

func TestLog_sixteenWritersOfOneStreamOneWins(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	var won sync.Map
	var all sync.WaitGroup
	gate := make(chan struct{})
	for i := range 16 {
		all.Go(func() {
			proposed := encode(t, l, stream, queueCreated())
			<-gate
			_, _, err := l.Append(t.Context(), stream, domain.EmptyHead(), proposed)
			switch {
			case err == nil:
				won.Store(i, true)
			case !errors.Is(err, domain.ErrWrongRevision):
				t.Error(err)
			}
		})
	}
	close(gate)
	all.Wait()
	n := 0
	won.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d writers won", n)
	}
}

func TestLog_anUndecodableEventIsPassedOnWithTheReason(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	foreign := []esdb.EventData{
		{EventID: uuid.New(), EventType: "queue.exploded", ContentType: esdb.ContentTypeJson, Data: []byte(`{}`), Metadata: []byte(`{"schemaVersion":1}`)},
		{EventID: uuid.New(), EventType: "queue.opened", ContentType: esdb.ContentTypeBinary, Data: []byte{0xff}},
		{EventID: uuid.New(), EventType: "queue.created", ContentType: esdb.ContentTypeJson, Data: []byte(`{"at":"2026-12-15T09:00:00.000Z","encryptionSeed":"plain"}`), Metadata: []byte(`{"schemaVersion":1}`)},
	}
	err := l.client.do(t.Context(), func(ctx context.Context, c *esdb.Client) error {
		_, err := c.AppendToStream(ctx, stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, foreign...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := read(t, l, stream, domain.NoStream)
	if len(got) != len(foreign) {
		t.Fatalf("%d events", len(got))
	}
	for _, r := range got {
		if r.Undecoded == nil {
			t.Errorf("%s was read as %+v", r.Type, r.Event)
		}
	}
}

func TestLog_aDeletedStreamIsAnInconsistentHistory(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	if _, _, err := l.Append(t.Context(), stream, domain.EmptyHead(), encode(t, l, stream, queueCreated())); err != nil {
		t.Fatal(err)
	}
	err := l.client.do(t.Context(), func(ctx context.Context, c *esdb.Client) error {
		_, err := c.TombstoneStream(ctx, stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range l.Read(t.Context(), stream, domain.NoStream) {
		if _, ok := errors.AsType[*domain.HistoryError](err); !ok {
			t.Errorf("got %v", err)
		}
	}
	_, _, err = l.Append(t.Context(), stream, domain.Head{Revision: 0}, encode(t, l, stream, deleted()))
	if _, ok := errors.AsType[*domain.HistoryError](err); !ok {
		t.Errorf("append: %v", err)
	}
}

func TestLog_largeReadsComeWhole(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	head := domain.EmptyHead()
	const batches, each = 6, 100
	for range batches {
		events := make([]domain.Event, each)
		for i := range events {
			events[i] = deleted()
		}
		var err error
		if head, _, err = l.Append(t.Context(), stream, head, encode(t, l, stream, events...)); err != nil {
			t.Fatal(err)
		}
	}
	got := read(t, l, stream, domain.NoStream)
	if len(got) != batches*each {
		t.Fatalf("%d events", len(got))
	}
	for i, r := range got {
		if r.Revision != domain.Revision(i) {
			t.Fatalf("event %d has revision %d", i, r.Revision)
		}
	}
	// A reader that stops early must not leave a goroutine, which goleak checks.
	for _, err := range l.Read(t.Context(), stream, domain.NoStream) {
		if err != nil {
			t.Error(err)
		}
		break
	}
}

func TestLog_callsHonourTheirContextWhileThereIsNoServer(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	l := s.log(testKeyring(t, 1))
	if _, err := l.Head(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.stop()
	// One caller is not enough: the official client returns from the first call in time,
	// and blocks the others.
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			_, _, err := l.Append(ctx, stream, domain.EmptyHead(), encode(t, l, stream, queueCreated()))
			if !errors.Is(err, domain.ErrOutcomeUnknown) && !errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("append: %v", err)
			}
			for _, err := range l.Read(ctx, stream, domain.NoStream) {
				if !errors.Is(err, domain.ErrUnavailable) {
					t.Errorf("read: %v", err)
				}
			}
			if _, err := l.Head(ctx); !errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("head: %v", err)
			}
			// By now the log knows that there is no server.
			_, _, err = l.Append(ctx, stream, domain.EmptyHead(), encode(t, l, stream, queueCreated()))
			if !errors.Is(err, domain.ErrUnavailable) || errors.Is(err, domain.ErrOutcomeUnknown) {
				t.Errorf("an append that was not sent: %v", err)
			}
		})
	}
	all.Wait()
	s.start()
	if _, err := l.Head(t.Context()); err != nil {
		t.Errorf("after the server came back: %v", err)
	}
	if got := read(t, l, stream, domain.NoStream); len(got) != 0 {
		t.Errorf("%d events were written while there was no server", len(got))
	}
}

func TestLog_callsWhileThereIsNoServerLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	l := s.log(testKeyring(t, 1))
	s.stop()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	for range 3_000 {
		all.Go(func() {
			if _, err := l.Head(ctx); !errors.Is(err, domain.ErrUnavailable) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// Without a server no call has been sent, and the waiting calls have ended.
	l.client.current.calls.Wait()
	s.start()
	if _, err := l.Head(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestLog_refusesAnotherMasterKey(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	now := time.Unix(1_795_000_000, 0)
	var ids [2]string
	for i := range ids {
		l := s.log(testKeyring(t, 1))
		if sealed, err := l.Sealed(t.Context()); err != nil || sealed != (i > 0) {
			t.Errorf("sealed: %t, %v", sealed, err)
		}
		var err error
		if ids[i], err = l.CheckMasterKey(t.Context(), now); err != nil {
			t.Fatal(err)
		}
	}
	if ids[0] != ids[1] || ids[0] == "" {
		t.Errorf("the log is called %q", ids)
	}
	if _, err := s.log(testKeyring(t, 2)).CheckMasterKey(t.Context(), now); !errors.Is(err, ErrMasterKey) {
		t.Errorf("got %v", err)
	}
	if other, err := newTestLog(t).CheckMasterKey(t.Context(), now); err != nil || other == ids[0] {
		t.Errorf("another log is called %q, %v", other, err)
	}
}

// A damaged check value is neither taken for one of another master key nor accepted.
func TestLog_tellsADamagedCheckValueFromAnotherMasterKey(t *testing.T) {
	t.Parallel()
	seal := &domain.SealChecked{Stamp: domain.Stamp{At: 1_795_000_000_000}, Value: domain.Secret{Plain: sealCheck}}
	for name, c := range map[string]struct {
		spoil func(p *domain.Proposed)
		key   byte
		want  bool // reported as damaged
	}{
		"it is sound":                    {func(*domain.Proposed) {}, 1, false},
		"another key":                    {func(*domain.Proposed) {}, 2, false},
		"another event":                  {func(p *domain.Proposed) { p.Type = "queue.opened" }, 1, true},
		"another key and another event":  {func(p *domain.Proposed) { p.Type = "junk" }, 2, true},
		"a value that nobody has sealed": {func(p *domain.Proposed) { p.Data = []byte(`{"at":"2026-12-15T09:00:00.000Z","value":"v1.AAAA"}`) }, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newTestStore(t)
			l := s.log(testKeyring(t, 1))
			p := encode(t, l, domain.SealStream, seal)[0]
			stored := p
			c.spoil(&stored)
			hash := domain.EventHash(p.ID, p.Type, domain.SealStream, 0, p.Data, p.Metadata, "")
			r := l.decode(&esdb.RecordedEvent{
				EventID: p.ID, EventType: stored.Type, StreamID: domain.SealStream, Data: stored.Data, UserMetadata: domain.WithHash(p.Metadata, hash),
			})
			if c.key != 1 {
				r = s.log(testKeyring(t, c.key)).decode(&esdb.RecordedEvent{
					EventID: p.ID, EventType: stored.Type, StreamID: domain.SealStream, Data: stored.Data, UserMetadata: domain.WithHash(p.Metadata, hash),
				})
			}
			err := checkSeal(r)
			if _, damaged := errors.AsType[*domain.HistoryError](err); damaged != c.want {
				t.Errorf("got %v", err)
			}
			if wrong := errors.Is(err, ErrMasterKey); wrong != (name == "another key") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestLog_nodesThatStartTogetherAgreeOnTheMasterKey(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	var all sync.WaitGroup
	for range 8 {
		l := s.log(testKeyring(t, 1))
		all.Go(func() {
			if _, err := l.CheckMasterKey(t.Context(), time.Unix(1_795_000_000, 0)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}

func BenchmarkLog_append(b *testing.B) {
	l := newTestLog(b)
	head := domain.EmptyHead()
	for b.Loop() {
		var err error
		if head, _, err = l.Append(b.Context(), stream, head, encode(b, l, stream, queueCreated())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCodec(b *testing.B) {
	c, l := newCodec(), &Log{codec: newCodec(), keys: testKeyring(b, 1)}
	e := queueCreated()
	p := encode(b, l, stream, e)[0]
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.encode(e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.decode(schema{p.Type, 1}, p.Data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("seal and encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.Encode(stream, e, domain.Metadata{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode and open", func(b *testing.B) {
		sealed, err := l.Encode(stream, e, domain.Metadata{})
		if err != nil {
			b.Fatal(err)
		}
		recorded := &esdb.RecordedEvent{StreamID: stream, EventType: sealed.Type, Data: sealed.Data, UserMetadata: sealed.Metadata}
		b.ReportAllocs()
		for b.Loop() {
			if r := l.decode(recorded); r.Undecoded != nil {
				b.Fatal(r.Undecoded)
			}
		}
	})
}

// Deleting a stream removes no event from the log.
func TestLog_atAPositionIsTheEventThere(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	_, first := appendTo(t, l, stream, domain.EmptyHead(), queueCreated())
	_, second := appendTo(t, l, otherStream, domain.EmptyHead(), queueCreated())
	err := l.client.do(t.Context(), func(ctx context.Context, c *esdb.Client) error {
		_, err := c.TombstoneStream(ctx, stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[domain.Position]string{first: stream, second: otherStream} {
		if r, err := l.At(t.Context(), p); err != nil || r == nil || r.Stream != want || r.Position != p {
			t.Errorf("at %v: %+v, %v, want an event of %s", p, r, err, want)
		}
	}
	head, err := l.Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head.Commit, head.Prepare = head.Commit+100, head.Prepare+100
	if r, err := l.At(t.Context(), head); err != nil || r != nil {
		t.Errorf("behind the end: %+v, %v", r, err)
	}
}
