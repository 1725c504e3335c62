package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
)

// writers append to a store until they are stopped. They remember the acknowledged events
// and how long each append took.
type writers struct {
	mu           sync.Mutex // guards the fields below
	acknowledged []uuid.UUID
	took         []time.Duration
}

func (w *writers) run(ctx context.Context, t *testing.T, s *store, writer int) {
	for i := 0; ctx.Err() == nil; i++ {
		events := proposals(1+i%3, 300)
		begun := time.Now()
		// Not with ctx, which would leave the outcome of the last append unknown.
		if _, err := s.append(context.Background(), fmt.Sprintf("s-%d-%d", writer, i%50), expectAny, events); err != nil {
			t.Error(err)
			return
		}
		w.mu.Lock()
		w.took = append(w.took, time.Since(begun))
		for j := range events {
			w.acknowledged = append(w.acknowledged, events[j].id)
		}
		w.mu.Unlock()
	}
}

// before returns the ids acknowledged so far.
func (w *writers) before() []uuid.UUID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.acknowledged)
}

// p99 returns the 99th percentile of the append times since the last call.
func (w *writers) p99() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	slices.Sort(w.took)
	took := w.took[len(w.took)*99/100]
	w.took = w.took[:0]
	return took
}

func TestBackup_holdsAllThatWasAcknowledgedBeforeIt(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	// Enough data for a copy in several steps.
	for range 17 {
		if _, err := s.append(t.Context(), "ballast", expectAny, proposals(1, 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	var w writers
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	for writer := range 16 {
		running.Go(func() { w.run(ctx, t, s, writer) })
	}
	defer running.Wait()
	defer stop()
	for len(w.before()) < 1000 {
		// This append may wait as long as any other.
		if _, err := s.append(t.Context(), "waiting", expectAny, proposals(1, 1)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("without a backup the writers' p99 is %v", w.p99())
	dir := t.TempDir()
	for round := range 3 {
		before := w.before()
		target := filepath.Join(dir, fmt.Sprint("copy-", round, ".db"))
		begun := time.Now()
		contents, err := Backup(t.Context(), s.path(), target)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("backup %d took %v, the writers' p99 meanwhile was %v: %+v", round, time.Since(begun), w.p99(), contents)
		if info, err := os.Stat(target); err != nil || info.Mode().Perm() != 0o600 || info.Size() != contents.Bytes {
			t.Errorf("the copy: %v, %v", info, err)
		}
		lookInto(t, target, contents, before)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*partial*")); err != nil || len(left) > 0 {
		t.Errorf("%v was left behind, %v", left, err)
	}
}

// lookInto opens a copy as a store and checks that it holds everything it should.
func lookInto(t *testing.T, path string, contents Contents, acknowledged []uuid.UUID) {
	t.Helper()
	header, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// With version 2 SQLite would expect a write-ahead log beside the copy, and could not
	// read the copy in a directory without write permission.
	if header[18] != 1 || header[19] != 1 {
		t.Errorf("the copy is of the formats %d and %d", header[18], header[19])
	}
	s, err := openStore(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	missing := make(map[uuid.UUID]bool, len(acknowledged))
	for _, id := range acknowledged {
		missing[id] = true
	}
	want, streams := int64(1), make(map[string]bool)
	var newest int64
	for complete := false; !complete; {
		p, err := s.readAll(t.Context(), want, false, false, nil, 1<<62, pageRows)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range p.events {
			if event.position != want {
				t.Fatalf("position %d follows %d", event.position, want-1)
			}
			want++
			streams[event.stream] = true
			newest = event.created
			delete(missing, event.id)
		}
		complete = p.complete
	}
	if len(missing) > 0 {
		t.Errorf("%d of %d events that were acknowledged before the backup are not in it", len(missing), len(acknowledged))
	}
	if contents.Events != want-1 || contents.Position != want-1 || contents.Streams != int64(len(streams)) || contents.Newest.UnixNano()/100 != newest {
		t.Errorf("it holds %d events of %d streams, the newest of %d, and reports %+v", want-1, len(streams), newest, contents)
	}
	if _, err := s.append(t.Context(), "goes on", expectNoStream, proposals(1, 1)); err != nil {
		t.Error(err)
	}
}

// Events that a killed process left in the write-ahead log are in the copy.
func TestBackup_ofAStoreThatIsNotOpen(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.append(t.Context(), "s", expectAny, proposals(3, 10)); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	killed := filepath.Join(dir, "killed.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(s.path() + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(killed+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(killed); err != nil || info.Size() > 4096 {
		t.Fatalf("the events are not in the write-ahead log alone: %v, %v", info, err)
	}
	for i := range 2 {
		contents, err := Backup(t.Context(), killed, filepath.Join(dir, fmt.Sprint("copy-", i, ".db")))
		if err != nil || contents.Events != 3 {
			t.Errorf("%+v, %v", contents, err)
		}
	}
}

// SQLite resolves file names from the root directory.
func TestBackup_toARelativePath(t *testing.T) {
	s := newStore(t)
	if _, err := s.append(t.Context(), "s", expectAny, proposals(3, 10)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	contents, err := Backup(t.Context(), s.path(), "copy.db")
	if err != nil || contents.Events != 3 {
		t.Fatalf("%+v, %v", contents, err)
	}
	if info, err := os.Stat("copy.db"); err != nil || info.Size() == 0 || info.Size() != contents.Bytes {
		t.Errorf("the copy: %v, %v", info, err)
	}
	if left, err := filepath.Glob("*partial*"); err != nil || len(left) > 0 {
		t.Errorf("%v was left behind, %v", left, err)
	}
}

// The file that was checked must be the file that is kept.
func TestCheckCopy_refusesAReplacedFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "copy.db")
	kept, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer kept.Close()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(t.Context(), newStore(t).path(), path); err != nil {
		t.Fatal(err)
	}
	if _, err := checkCopy(t.Context(), kept); err == nil || !strings.Contains(err.Error(), "bytes that were read") {
		t.Error(err)
	}
}

func TestBackup_ofAnEmptyStore(t *testing.T) {
	t.Parallel()
	contents, err := Backup(t.Context(), newStore(t).path(), filepath.Join(t.TempDir(), "copy.db"))
	if err != nil || contents.Events != 0 || contents.Position != 0 || !contents.Newest.IsZero() {
		t.Errorf("%+v, %v", contents, err)
	}
}

func TestBackup_refusals(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	if _, err := s.append(t.Context(), "s", expectAny, proposals(3, 10)); err != nil {
		t.Fatal(err)
	}
	change := func(sql string) func(t *testing.T, dir string) (string, string) {
		return func(t *testing.T, dir string) (string, string) {
			changed := filepath.Join(dir, "changed.db")
			if _, err := Backup(t.Context(), s.path(), changed); err != nil {
				t.Fatal(err)
			}
			conn, err := sqlite3.Open(changed)
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(conn.Exec(sql), conn.Close()); err != nil {
				t.Fatal(err)
			}
			return changed, filepath.Join(dir, "copy.db")
		}
	}
	for claim, c := range map[string]struct {
		prepare func(t *testing.T, dir string) (source, target string)
		says    string
		is      error
	}{
		"the target is there": {prepare: func(t *testing.T, dir string) (string, string) {
			target := filepath.Join(dir, "copy.db")
			if err := os.WriteFile(target, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			return s.path(), target
		}, is: fs.ErrExist},
		"the target is a link to nowhere": {prepare: func(t *testing.T, dir string) (string, string) {
			target := filepath.Join(dir, "copy.db")
			if err := os.Symlink(filepath.Join(dir, "nowhere"), target); err != nil {
				t.Fatal(err)
			}
			return s.path(), target
		}, is: fs.ErrExist},
		"no directory for the target": {prepare: func(_ *testing.T, dir string) (string, string) {
			return s.path(), filepath.Join(dir, "none", "copy.db")
		}, is: fs.ErrNotExist},
		"no store": {prepare: func(_ *testing.T, dir string) (string, string) {
			return filepath.Join(dir, "none.db"), filepath.Join(dir, "copy.db")
		}, is: fs.ErrNotExist},
		"an empty file": {prepare: func(t *testing.T, dir string) (string, string) {
			source := filepath.Join(dir, "empty.db")
			if err := os.WriteFile(source, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return source, filepath.Join(dir, "copy.db")
		}, says: "the file is empty"},
		"somebody else's": {prepare: func(t *testing.T, dir string) (string, string) {
			if os.Geteuid() != 0 {
				return "/etc/passwd", filepath.Join(dir, "copy.db")
			}
			source, target := change(`ANALYZE`)(t, dir)
			if err := os.Chown(source, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			return source, target
		}, is: fs.ErrPermission, says: "it belongs to the user with the id"},
		"another database":  {prepare: change(`PRAGMA application_id = 1`), says: "not an event store"},
		"an event is gone":  {prepare: change(`DELETE FROM events WHERE position = 2`), says: "2 events have the positions 1 to 3"},
		"a stream is torn":  {prepare: change(`UPDATE events SET revision = 7 WHERE position = 3`), says: "1 streams have gaps"},
		"an index is wrong": {prepare: change(`PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'stream, revision', 'revision, stream') WHERE name = 'events_by_stream'`), says: "the file is damaged"},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			source, target := c.prepare(t, dir)
			before, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Backup(t.Context(), source, target); err == nil || !strings.Contains(err.Error(), c.says) || c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v", err)
			}
			after, err := os.ReadDir(dir)
			if err != nil || len(after) != len(before) {
				t.Errorf("there was %v and is %v, %v", before, after, err)
			}
			if content, err := os.ReadFile(target); err == nil && string(content) != "precious" {
				t.Error("the existing file was replaced")
			}
		})
	}
	t.Run("it was called off", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		dir := t.TempDir()
		if _, err := Backup(ctx, s.path(), filepath.Join(dir, "copy.db")); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%v was left behind, %v", left, err)
		}
	})
}
