package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"
)

func newStore(t testing.TB) *store {
	t.Helper()
	s, err := openStore(filepath.Join(t.TempDir(), "events.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func proposals(count, size int) []proposed {
	events := make([]proposed, count)
	for i := range events {
		events[i] = proposed{id: uuid.New(), kind: "proposed", data: bytes.Repeat([]byte("x"), size)}
	}
	return events
}

func TestOpen_findsEverythingAgain(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	for i := range 20 {
		mustAppend(t, client, fmt.Sprintf("s-%d", i%4), esdb.Any{}, newEvents(3)...)
	}
	before := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 1000)
	if err := errors.Join(client.Close(), server.Close(), server.Close()); err != nil {
		t.Fatal(err)
	}
	for _, left := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(server.path + left); err == nil {
			t.Errorf("%s was left behind", left)
		}
	}
	client = startAt(t, server.path, time.Now).connect(t)
	after := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 1000)
	if len(before) != 60 || len(after) != len(before) {
		t.Fatalf("%d events before, %d after", len(before), len(after))
	}
	for i := range before {
		if before[i].EventID != after[i].EventID || before[i].Position != after[i].Position || !before[i].CreatedDate.Equal(after[i].CreatedDate) {
			t.Errorf("event %d was %+v, is %+v", i, before[i], after[i])
		}
	}
	if result := mustAppend(t, client, "s-1", esdb.Revision(14), newEvent("x", "{}")); result.CommitPosition != 61 {
		t.Errorf("the log went on at %d", result.CommitPosition)
	}
}

func TestOpen_refusals(t *testing.T) {
	t.Parallel()
	script := func(t *testing.T, path, sql string) {
		t.Helper()
		conn, err := sqlite3.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(conn.Exec(sql), conn.Close()); err != nil {
			t.Fatal(err)
		}
	}
	for claim, test := range map[string]struct {
		prepare func(t *testing.T, path string)
		want    string
	}{
		"a newer format": {func(t *testing.T, path string) {
			server, err := Open(path, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Close(); err != nil {
				t.Fatal(err)
			}
			script(t, path, `PRAGMA user_version = 2`)
		}, "use a newer release"},
		"another database": {func(t *testing.T, path string) { script(t, path, `CREATE TABLE t (x)`) }, "not an event store"},
		"no database": {func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "not a database"},
		"a store in use": {func(t *testing.T, path string) {
			server, err := Open(path, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { server.Close() })
		}, "already open"},
		"no directory": {func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, "no such file"},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.db")
			test.prepare(t, path)
			server, err := Open(path, zerolog.Nop())
			if err == nil {
				err = server.Close()
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestOpen_oddPath(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "a+b c?d#e%20&f=g")
	if err := os.Mkdir(directory, 0o700); err != nil {
		t.Fatal(err)
	}
	server, err := Open(filepath.Join(directory, "events.db"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.store.append(t.Context(), "s", expectAny, proposals(1, 1)); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"events.db", "events.db-wal"} {
		if info, err := os.Stat(filepath.Join(directory, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
}

// What the sqlite3 tool shows while the store is in use.
func TestFile_isReadableWhileOpen(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	event := newEvent("order.made", `{"n":42}`)
	mustAppend(t, client, "order-1", esdb.NoStream{}, event)
	bytes := newEvent("order.scanned", "a\x00b")
	mustAppend(t, client, "order-1", esdb.Revision(0), bytes)
	conn, err := sqlite3.OpenFlags(server.path, sqlite3.OPEN_READONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for sql, want := range map[string]string{
		`SELECT stream || ' ' || revision || ' ' || type FROM log WHERE position = 1`: "order-1 0 order.made",
		`SELECT id FROM log WHERE position = 1`:                                       strings.ReplaceAll(event.EventID.String(), "-", ""),
		`SELECT data ->> 'n' FROM events WHERE position = 1`:                          "42",
		`SELECT typeof(data) || ' ' || typeof(metadata) FROM log WHERE position = 2`:  "blob text",
		`SELECT substr(created, 1, 10) FROM log WHERE position = 1`:                   time.Now().UTC().Format(time.DateOnly),
		`SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'`:    "1",
	} {
		if got, err := queryText(conn, sql); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", sql, got, err, want)
		}
	}
}

func TestConnections_syncEveryCommit(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.lastPosition(t.Context()); err != nil {
		t.Fatal(err)
	}
	err := s.withReader(t.Context(), func(r *reader) error {
		const full = 2
		for _, conn := range []*sqlite3.Conn{s.writer.conn, r.conn} {
			if level, err := queryInt(conn, `PRAGMA synchronous`); err != nil || level != full {
				t.Errorf("synchronous is %d, %v", level, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestCommit_oneRefusalInABatch(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	batch := []*write{
		{stream: "a", expected: expectNoStream, events: proposals(2, 10)},
		{stream: "a", expected: expectNoStream, events: proposals(1, 10)},
		{stream: "a", expected: 1, events: proposals(1, 10)},
		{stream: "b", expected: expectStreamExists, events: proposals(1, 10)},
		{stream: "b", expected: expectAny, events: proposals(1, 10)},
	}
	s.commitTogether(t, batch)
	for i, want := range []int64{2, 0, 3, 0, 4} {
		var refusal *revisionError
		if w := batch[i]; w.receipt.position != want || errors.As(w.err, &refusal) != (want == 0) {
			t.Errorf("write %d: %+v, %v", i, w.receipt, w.err)
		}
	}
}

// commitTogether blocks the committer until all writes are queued, so that they share a
// transaction.
func (s *store) commitTogether(t testing.TB, batch []*write) {
	t.Helper()
	blocker, err := connect(s.uri)
	if err != nil {
		t.Fatal(err)
	}
	if err := blocker.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	held := &write{stream: "held", expected: expectAny, done: make(chan struct{})}
	for _, w := range append([]*write{held}, batch...) {
		if w.done == nil {
			w.done = make(chan struct{})
		}
		if err := s.enqueue(t.Context(), w); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(blocker.Exec(`ROLLBACK`), blocker.Close()); err != nil {
		t.Fatal(err)
	}
	<-held.done
	for _, w := range batch {
		<-w.done
	}
}

// A full disk, simulated by SQLite's own limit on the file size.
func TestCommit_fullDisk(t *testing.T) {
	t.Parallel()
	server := start(t)
	s := server.store
	client := server.connect(t)
	subscription := subscribeToAll(t, client, esdb.SubscribeToAllOptions{From: esdb.Start{}})
	mustAppend(t, client, "s", esdb.NoStream{}, newEvents(2)...)
	mustAppend(t, client, "t", esdb.NoStream{}, newEvent("x", "{}"))
	s.limitPages(t, 40)
	events := newEvent("large", strings.Repeat("x", 500_000))
	_, err := client.AppendToStream(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(1)}, events)
	if err == nil || !strings.Contains(err.Error(), "full") {
		t.Fatalf("an append to a full disk: %v", err)
	}
	// In the same batch as the write that does not fit: a write to another stream, and a
	// repeated append.
	small := proposals(1, 10)
	batch := []*write{
		{stream: "t", expected: expectAny, events: small},
		{stream: "s", expected: 1, events: proposals(1, 500_000)},
	}
	s.commitTogether(t, batch)
	for _, w := range batch {
		if w.err == nil {
			t.Errorf("append to %s was acknowledged", w.stream)
		}
	}
	s.limitPages(t, 1<<30)
	if got := readAll(t, client, esdb.ReadAllOptions{From: esdb.Start{}}, 100); len(got) != 3 {
		t.Errorf("%d events are there after the failures", len(got))
	}
	if result, err := s.append(within(t), "t", expectAny, small); err != nil || result.position != 4 || result.revision != 1 {
		t.Errorf("the small append afterwards: %+v, %v", result, err)
	}
	if result := mustAppend(t, client, "s", esdb.Revision(1), events); result.CommitPosition != 5 {
		t.Errorf("the large append afterwards: %+v", result)
	}
	for want := range uint64(5) {
		if event := nextEvent(t, subscription); event.Position.Commit != want+1 {
			t.Errorf("subscription: got %d, want %d", event.Position.Commit, want+1)
		}
	}
}

// Unlike a full disk, a failed statement leaves its transaction open.
func TestCommit_failsHalfway(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	limit := s.writer.conn.Limit(sqlite3.LIMIT_LENGTH, 10_000)
	events := proposals(3, 100)
	events[2].data = bytes.Repeat([]byte("x"), 20_000)
	if _, err := s.append(t.Context(), "s", expectNoStream, events); err == nil {
		t.Fatal("the append was acknowledged")
	}
	s.writer.conn.Limit(sqlite3.LIMIT_LENGTH, limit)
	if state, err := s.state(t.Context(), "s"); err != nil || state.last != noRevision {
		t.Errorf("the stream is at revision %d, %v", state.last, err)
	}
	if result, err := s.append(t.Context(), "s", expectNoStream, events); err != nil || result.position != 3 {
		t.Errorf("afterwards: %+v, %v", result, err)
	}
}

// limitPages limits the size of the file. The committer must be idle.
func (s *store) limitPages(t testing.TB, pages int64) {
	t.Helper()
	if err := s.writer.conn.Exec(fmt.Sprintf(`PRAGMA max_page_count = %d`, pages)); err != nil {
		t.Fatal(err)
	}
}

// Another program locks the file for longer than the store waits.
func TestCommit_fileLockedByAnotherProgram(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if err := s.writer.conn.BusyTimeout(time.Millisecond); err != nil {
		t.Fatal(err)
	}
	blocker, err := connect(s.uri)
	if err != nil {
		t.Fatal(err)
	}
	defer blocker.Close()
	if err := blocker.Exec(`BEGIN IMMEDIATE`); err != nil {
		t.Fatal(err)
	}
	if _, err := s.append(t.Context(), "s", expectNoStream, proposals(1, 1)); err == nil {
		t.Error("an append was acknowledged while another program had locked the file")
	}
	if err := blocker.Exec(`ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	if result, err := s.append(t.Context(), "s", expectNoStream, proposals(1, 1)); err != nil || result.position != 1 {
		t.Errorf("afterwards: %+v, %v", result, err)
	}
}

func TestCommit_headsFallOutOfTheCache(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	s.writer.heads = newHeadCache(3)
	for round := range int64(3) {
		for i := range 10 {
			result, err := s.append(t.Context(), fmt.Sprint(i), expectation(round-1), proposals(1, 1))
			if err != nil || result.revision != round {
				t.Fatalf("round %d, stream %d: %+v, %v", round, i, result, err)
			}
		}
	}
	if cached := len(s.writer.heads.byKey); cached != 3 {
		t.Errorf("%d heads are cached", cached)
	}
}

func TestRecentIDs_bounded(t *testing.T) {
	t.Parallel()
	recent := newRecentIDs(3)
	ids := make([]uuid.UUID, 10)
	for i := range ids {
		ids[i] = uuid.New()
		recent.add(ids[i], place{revision: int64(i)})
	}
	for i, id := range ids {
		if _, found := recent.places[id]; found != (i >= 7) {
			t.Errorf("id %d: found is %v", i, found)
		}
	}
	if len(recent.places) != 3 || len(recent.ring) != 3 {
		t.Errorf("%d places, %d in the ring", len(recent.places), len(recent.ring))
	}
}

func TestClose_finishesAppends(t *testing.T) {
	t.Parallel()
	s, err := openStore(filepath.Join(t.TempDir(), "events.db"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	var mu sync.Mutex
	var acknowledged int64
	started := make(chan struct{}, 64)
	for i := range 64 {
		wait.Go(func() {
			for {
				_, err := s.append(context.Background(), fmt.Sprint(i), expectAny, proposals(1, 10))
				if errors.Is(err, errClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				acknowledged++
				mu.Unlock()
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	<-started
	path := s.path()
	if err := errors.Join(s.close(), s.close()); err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	if _, err := s.lastPosition(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("read after close: %v", err)
	}
	s, err = openStore(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if last, err := s.lastPosition(t.Context()); err != nil || last != acknowledged {
		t.Errorf("%d events, %v, but %d were acknowledged", last, err, acknowledged)
	}
}

func (s *store) path() string { return strings.TrimSuffix(s.lock.Name(), ".lock") }
