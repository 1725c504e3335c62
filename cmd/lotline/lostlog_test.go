package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// restored are the flags of a start that declares a restore.
var restored = []string{"--restored"}

// refusesToStart checks that each command prints one line that says why it cannot open
// the log, and ends with exit code 2.
func refusesToStart(t *testing.T, commands [][]string, env []string, says ...string) {
	t.Helper()
	for _, command := range commands {
		stdout, stderr, code := testBinary(t).run(t, append([]string{"LOTLINE_LISTEN=127.0.0.1:0"}, env...), command...)
		if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Fatalf("%v: exit %d, stdout %q, stderr %q", command, code, stdout, stderr)
		}
		for _, part := range append(says, "--restored") {
			if !strings.Contains(stderr, part) {
				t.Errorf("%v: it does not say %q: %s", command, part, stderr)
			}
		}
	}
}

// whatNeedsTheLog are commands that open the log of a data directory.
var whatNeedsTheLog = [][]string{{"serve"}, {"keys", "list"}, {"org", "create", "--name=x"}, {"signing", "list"}}

// endOf returns the position of the last event in the store of a running engine's
// directory.
func endOf(t testing.TB, dir string) domain.Position {
	t.Helper()
	c := dialSocket(t, dir)
	defer c.Close()
	all, err := c.ReadAll(t.Context(), esdb.ReadAllOptions{Direction: esdb.Backwards, From: esdb.End{}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	e, err := all.Recv()
	if err != nil {
		t.Fatal(err)
	}
	p := e.OriginalEvent().Position
	return domain.Position{Commit: p.Commit, Prepare: p.Prepare}
}

// keptBy waits until the mark in a node's directory has reached a position, and returns
// the mark.
func keptBy(t testing.TB, dir string, p domain.Position) projections.Mark {
	t.Helper()
	var m projections.Mark
	eventually(t, fmt.Sprintf("views.db says that position %v was seen", p), func() bool {
		var err error
		if m, err = projections.ReadMark(filepath.Join(dir, viewsFile)); err != nil {
			t.Fatal(err)
		}
		return !m.Position.Before(p)
	})
	return m
}

// readFiles returns the contents of the files in a directory whose names have a prefix.
func readFiles(t testing.TB, dir, prefix string) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, path := range paths {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			files[path] = readFile(t, path)
		}
	}
	return files
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func writeFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t testing.TB, paths ...string) {
	t.Helper()
	for _, path := range paths {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}

// An engine was killed after it had revoked a key. Then the revocation is removed from
// the write-ahead log.
func TestLostLog_aWriteAheadLogWithoutItsEndStopsTheStart(t *testing.T) {
	t.Parallel()
	const lacksEvent = "does not hold its last event"
	for name, c := range map[string]struct {
		spoil func(wal []byte, before int) []byte
		says  string
	}{
		"one bit is flipped": {func(wal []byte, before int) []byte {
			wal = bytes.Clone(wal)
			wal[before+1000] ^= 1
			return wal
		}, lacksEvent},
		"its end is cut off": {func(wal []byte, before int) []byte { return wal[:before] }, lacksEvent},
		// The write-ahead log held all events.
		"it is gone": {func([]byte, int) []byte { return nil }, "the store holds no log"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lotline := dataDirectory(t), testBinary(t)
			e := lotline.serve(t, dir)
			key := e.secretKey()
			made := e.must(201, "POST", "/api/v1/keys", key, `{"level":"secret"}`)
			revoked := made.object(t)["key"].(string)
			wal := filepath.Join(dir, eventsFile+"-wal")
			before := len(readFile(t, wal))
			e.must(204, "DELETE", made.header.Get("Location"), key, "")
			m := keptBy(t, dir, endOf(t, dir))
			e.kill()
			whole := readFile(t, wal)
			if spoiled := c.spoil(whole, before); spoiled == nil {
				remove(t, wal)
			} else {
				writeFile(t, wal, spoiled)
			}
			left := readFiles(t, dir, eventsFile)

			refusesToStart(t, whatNeedsTheLog, []string{"LOTLINE_DATA_DIR=" + dir},
				fmt.Sprintf("up to position %d, at 20", m.Position.Commit), m.Log, c.says)
			// The damaged files stay unchanged: an operator may still recover them.
			for path, content := range left {
				if is, err := os.ReadFile(path); !strings.HasSuffix(path, "-shm") && (err != nil || !bytes.Equal(is, content)) {
					t.Errorf("%s was changed: %v", path, err)
				}
			}
			// When the whole log is put back, the engine starts again.
			writeFile(t, wal, whole)
			e = lotline.serve(t, dir)
			e.must(401, "GET", "/api/v1/keys", revoked, "")
			e.must(200, "GET", "/api/v1/keys", key, "")
			if checks := e.readyChecks(key); checks["restored"] != nil {
				t.Errorf("/readyz tells of a restore: %v", checks)
			}
		})
	}
}

// An earlier copy of the log is put in the log's place. The start finds out even if the
// copy has grown past all positions that the node has seen.
func TestLostLog_anOlderLogInItsPlaceStopsTheStart(t *testing.T) {
	t.Parallel()
	for name, grown := range map[string]bool{"as it was": false, "grown since": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lotline := dataDirectory(t), testBinary(t)
			events := filepath.Join(dir, eventsFile)
			e := lotline.serve(t, dir)
			key := e.secretKey()
			kept := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
			if code := e.terminate(); code != 0 {
				t.Fatalf("exit %d", code)
			}
			copied := filepath.Join(t.TempDir(), "copy.db")
			writeFile(t, copied, readFile(t, events))
			e = lotline.serve(t, dir)
			lost := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"lost"}`).header.Get("Location")
			e.must(200, "PUT", kept, key, `{"name":"lost"}`)
			end := endOf(t, dir)
			if code := e.terminate(); code != 0 {
				t.Fatalf("exit %d", code)
			}
			writeFile(t, events, readFile(t, copied))
			if grown {
				elsewhere := restore(t, copied, filepath.Join(dir, masterKeyFile))
				e = lotline.serveWith(t, elsewhere, restored)
				// Another event gets the revision of the event that was lost.
				e.must(200, "PUT", kept, key, `{"name":"other"}`)
				for !end.Before(endOf(t, elsewhere)) {
					e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"other"}`)
				}
				e.terminate()
				writeFile(t, events, readFile(t, filepath.Join(elsewhere, eventsFile)))
			}
			refusesToStart(t, whatNeedsTheLog, []string{"LOTLINE_DATA_DIR=" + dir},
				fmt.Sprintf("up to position %d, at 20", end.Commit), "does not hold its last event")

			// After a declared restore the log decides. The declaration holds for one start.
			e = lotline.serveWith(t, dir, restored, "LOTLINE_LOG_FORMAT=json")
			e.must(404, "GET", lost, key, "")
			ready := e.readyChecks(key)["restored"].(map[string]any)
			if ready["ok"] != false || !strings.Contains(ready["error"].(string), "does not hold its last event") {
				t.Errorf("/readyz says %v", ready)
			}
			eventually(t, "it is logged", func() bool {
				logged := e.stderr.String()
				return strings.Contains(logged, `"level":"warn"`) && strings.Contains(logged, restoreDeclared)
			})
			e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`)
			keptBy(t, dir, endOf(t, dir))
			e.kill()
			e = lotline.serve(t, dir)
			if checks := e.readyChecks(key); checks["restored"] != nil {
				t.Errorf("/readyz tells of a restore: %v", checks)
			}
		})
	}
}

// The mark includes events that an admin command appended while no engine ran.
func TestLostLog_aRevocationByTheCommandLineIsMissed(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	env := []string{"LOTLINE_DATA_DIR=" + dir}
	e := lotline.serve(t, dir)
	made := e.must(201, "POST", "/api/v1/keys", e.secretKey(), `{"level":"secret"}`)
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	events := filepath.Join(dir, eventsFile)
	before := readFile(t, events)
	if _, stderr, code := lotline.run(t, env, "keys", "revoke", filepath.Base(made.header.Get("Location"))); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	writeFile(t, events, before)
	refusesToStart(t, whatNeedsTheLog, env, "does not hold its last event")
}

// No command creates a new log in a directory that had one.
func TestLostLog_aMissingLogIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	store := [][]string{{"store"}}
	for name, c := range map[string]struct {
		remove  []string
		refused [][]string
		key     bool // the engine is given its master key
		says    string
	}{
		"events.db":                          {remove: []string{"events.db"}, refused: append(store, whatNeedsTheLog...), says: "had a log"},
		"all files of the store":             {remove: []string{"events.db", "events.db-wal", "events.db-shm", "events.db.lock"}, refused: append(store, whatNeedsTheLog...), says: "master.key is there"},
		"all but the master key":             {remove: []string{"events.db", "events.db.lock", "views.db", "views.db.participants"}, refused: append(store, whatNeedsTheLog...), says: "master.key is there"},
		"all but the read models":            {remove: []string{"events.db", "events.db.lock"}, refused: append(store, whatNeedsTheLog...), key: true, says: "views.db is there"},
		"the log of a store of its own":      {remove: []string{"events.db", "views.db"}, refused: store, key: true, says: "there was an event store here"},
		"the log, with its newest events":    {remove: []string{"events.db", "events.db.lock", "master.key", "views.db"}, refused: store, key: true, says: "events.db-wal is still there"},
		"what is in the log of a store":      {remove: []string{"views.db"}, refused: store, key: true, says: "there was an event store here"},
		"what is in the log, and the engine": {refused: whatNeedsTheLog, key: true, says: "there was an event store here"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lotline := dataDirectory(t), testBinary(t)
			env := []string{"LOTLINE_DATA_DIR=" + dir}
			if c.key {
				env = append(env, "LOTLINE_MASTER_KEY="+testMasterKey)
			}
			e := lotline.serve(t, dir, env...)
			e.secretKey()
			if !strings.Contains(c.says, "-wal") {
				e.terminate()
			}
			e.kill()
			for _, name := range c.remove {
				remove(t, filepath.Join(dir, name))
			}
			events := filepath.Join(dir, eventsFile)
			if _, err := os.Stat(events); err == nil {
				writeFile(t, events, nil)
			}
			before := readFiles(t, dir, "")
			refusesToStart(t, c.refused, env, c.says)
			for path := range readFiles(t, dir, "") {
				if _, ok := before[path]; !ok && filepath.Base(path) != "lock" && !strings.HasSuffix(path, ".lock") {
					t.Errorf("%s was made", path)
				}
			}
			if strings.Contains(c.says, "-wal") {
				return
			}
			e = lotline.serveWith(t, dir, restored, env...)
			e.secretKey()
			e.terminate()
			lotline.serve(t, dir, env...)
		})
	}
}

// A first start that crashed before it made a log can be repeated.
func TestLostLog_aFirstStartThatCrashedIsNone(t *testing.T) {
	t.Parallel()
	for name, files := range map[string][]string{
		"nothing":           nil,
		"the locks":         {"lock", "events.db.lock"},
		"an empty log":      {"lock", "events.db.lock", "events.db"},
		"with its WAL":      {"lock", "events.db.lock", "events.db", "events.db-wal", "events.db-shm"},
		"a key that is new": {"lock", "events.db.lock", "events.db", "master.key.new"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDirectory(t)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range files {
				writeFile(t, filepath.Join(dir, name), nil)
			}
			testBinary(t).serve(t, dir).secretKey()
		})
	}
}

// A configured server may hold another log, no log, or an older state of the log.
func TestLostLog_anotherLogInTheStoreStopsTheStart(t *testing.T) {
	t.Parallel()
	p := newProcesses(t)
	p.at = freeAddress(t)
	p.store = startStore(t, testBinary(t), p.dir, p.at)
	node := dataDirectory(t)
	first := p.nodeIn(node)
	first.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"s"}`)
	p.nodeIn(dataDirectory(t))
	if code := first.terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	if code := p.store.terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	before := readFile(t, filepath.Join(p.dir, eventsFile))
	p.store = startStore(t, testBinary(t), p.dir, p.at)
	first = p.nodeIn(node)
	lost := first.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"lost"}`).header.Get("Location")
	end := endOf(t, p.dir)
	if code := first.terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}

	empty, other := freeAddress(t), freeAddress(t)
	emptyDir := dataDirectory(t)
	startStore(t, testBinary(t), emptyDir, empty)
	startStore(t, testBinary(t), dataDirectory(t), other)
	env := func(at string) []string {
		return []string{"LOTLINE_EVENTSTORE=esdb://" + at + "?tls=false", "LOTLINE_MASTER_KEY=" + testMasterKey, "LOTLINE_SECRET_KEY=" + testSecretKey}
	}
	testBinary(t).serve(t, dataDirectory(t), env(other)...)
	for at, says := range map[string]string{empty: "the store holds no log", other: "the store holds another log"} {
		refusesToStart(t, whatNeedsTheLog, append(env(at), "LOTLINE_DATA_DIR="+node), says, fmt.Sprintf("up to position %d, at 20", end.Commit))
	}
	all, err := officialClient(t, emptyDir).ReadAll(t.Context(), esdb.ReadAllOptions{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	if e, err := all.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the store that was empty has %v, %v", e, err)
	}
	p.store.terminate()
	writeFile(t, filepath.Join(p.dir, eventsFile), before)
	p.store = startStore(t, testBinary(t), p.dir, p.at)
	refusesToStart(t, whatNeedsTheLog, append(env(p.at), "LOTLINE_DATA_DIR="+node), "does not hold its last event")
	// A node that has not seen the lost events starts. So does this one with a declared
	// restore.
	p.nodeIn(dataDirectory(t))
	e := testBinary(t).serveWith(t, node, restored, env(other)...)
	e.must(404, "GET", lost, testSecretKey, "")
}

// If the mark in the read models is damaged, the engine starts and logs that it cannot
// check the log.
func TestLostLog_aMarkThatCannotBeReadIsReported(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir)
	key := e.secretKey()
	if code := e.terminate(); code != 0 {
		t.Fatalf("exit %d", code)
	}
	writeFile(t, filepath.Join(dir, viewsFile), bytes.Repeat([]byte("no database "), 1000))
	e = lotline.serve(t, dir, "LOTLINE_LOG_FORMAT=json")
	e.must(200, "GET", "/api/v1/keys", key, "")
	eventually(t, "it is logged", func() bool {
		return strings.Contains(e.stderr.String(), "cannot check whether the log holds all events that this node has seen")
	})
}

// If a file of the store is moved away while the engine runs, the engine acknowledges
// no more writes, even if the file comes back.
func TestLostLog_aLogThatIsNotAtItsPathTakesNothing(t *testing.T) {
	t.Parallel()
	for name, displace := range map[string]func(t *testing.T, dir string) (back func()){
		"events.db is removed":      unlink(eventsFile),
		"events.db-wal is removed":  unlink(eventsFile + "-wal"),
		"events.db-shm is removed":  unlink(eventsFile + "-shm"),
		"events.db is renamed":      rename(eventsFile),
		"the directory is renamed":  rename(""),
		"events.db is replaced":     replace(eventsFile),
		"events.db-wal is replaced": replace(eventsFile + "-wal"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lotline := dataDirectory(t), testBinary(t)
			e := lotline.serve(t, dir)
			key := e.secretKey()
			path := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
			back := displace(t, dir)
			for range 3 {
				if a := e.call("POST", "/api/v1/queues", key, `{"sequenceId":"s"}`); a.status != 503 {
					t.Errorf("%d %s", a.status, a.body)
				}
			}
			unready := func() {
				t.Helper()
				a := e.must(503, "GET", "/readyz", key, "")
				if store := a.object(t)["checks"].(map[string]any)["eventStore"].(map[string]any); store["ok"] != false || !strings.Contains(store["error"].(string), "was removed, renamed or replaced") {
					t.Errorf("/readyz says %v", store)
				}
			}
			unready()
			e.must(200, "GET", path, key, "")
			back()
			unready()
			if a := e.call("POST", "/api/v1/queues", key, `{"sequenceId":"s"}`); a.status != 503 {
				t.Errorf("%d %s", a.status, a.body)
			}
			left := readFiles(t, dir, eventsFile)
			e.terminate()
			// The engine does not touch the files that replaced its own.
			for path, content := range left {
				if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, content) {
					t.Errorf("%s was changed: %v", path, err)
				}
			}
		})
	}
}

func unlink(name string) func(*testing.T, string) func() {
	return func(t *testing.T, dir string) func() {
		t.Helper()
		remove(t, filepath.Join(dir, name))
		return func() {}
	}
}

func rename(name string) func(*testing.T, string) func() {
	return func(t *testing.T, dir string) func() {
		t.Helper()
		path := filepath.Join(dir, name)
		move := func(from, to string) {
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		move(path, path+".away")
		return func() { move(path+".away", path) }
	}
}

func replace(name string) func(*testing.T, string) func() {
	return func(t *testing.T, dir string) func() {
		t.Helper()
		path := filepath.Join(dir, name)
		writeFile(t, path+".copy", readFile(t, path))
		if err := os.Rename(path+".copy", path); err != nil {
			t.Fatal(err)
		}
		return func() {}
	}
}
