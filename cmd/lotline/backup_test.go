package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// restore follows docs/operations.md: it makes a new data directory with the copy as
// events.db and the master key beside it.
func restore(t testing.TB, copied, masterKey string) string {
	t.Helper()
	dir := dataDirectory(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{copied: eventsFile, masterKey: masterKeyFile} {
		content, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, to), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestBackup_anotherEngineGoesOnFromIt(t *testing.T) {
	t.Parallel()
	lotline, dir := testBinary(t), dataDirectory(t)
	e := lotline.serve(t, dir)
	key := e.secretKey()
	objects := map[string]string{}
	for kind, own := range map[string]string{
		"queues": `"name":"one"`, "draws": body(`"drawAt":%q,"winnerCount":3`, in(3_600_000)), "auctions": body(`"settleAt":%q,"startingBid":1`, in(3_600_000)),
	} {
		path := e.must(201, "POST", "/api/v1/"+kind, key, body(`{"sequenceId":"s",%s}`, own)).header.Get("Location")
		e.must(200, "PUT", path, key, `{"name":"two"}`)
		objects[path] = ""
	}
	for path := range objects {
		a := e.must(200, "GET", path, key, "")
		objects[path] = a.header.Get("ETag") + string(a.body)
	}

	copied := filepath.Join(t.TempDir(), "copy.db")
	stdout, stderr, code := lotline.run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "backup", copied)
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, part := range []string{copied, " events in ", " streams, to position ", "recorded at 2", filepath.Join(dir, masterKeyFile)} {
		if !strings.Contains(stdout, part) {
			t.Errorf("it does not say %q: %s", part, stdout)
		}
	}

	// The engine goes on, and its later writes are not in the copy.
	later := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	second := lotline.serve(t, restore(t, copied, filepath.Join(dir, masterKeyFile)))
	for path, was := range objects {
		a := second.must(200, "GET", path, key, "")
		if is := a.header.Get("ETag") + string(a.body); is != was {
			t.Errorf("%s was\n%s\nand is\n%s", path, was, is)
		}
		second.must(200, "PUT", path, key, `{"name":"three"}`)
	}
	second.must(404, "GET", later, key, "")
	e.must(200, "GET", later, key, "")

	// A second backup to the same file is refused and leaves the file unchanged.
	before, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	stdout, stderr, code = lotline.run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "backup", copied)
	after, err := os.ReadFile(copied)
	if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, "file already exists") || err != nil || string(after) != string(before) {
		t.Errorf("exit %d, stdout %q, stderr %q, %v", code, stdout, stderr, err)
	}
}

// Backup creates no file if there is no log.
func TestBackup_badConfiguration(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ env, says string }{
		"no data directory": {"LOTLINE_BUS=", "no such file or directory"},
		"a store elsewhere": {"LOTLINE_EVENTSTORE=esdb://admin:horse@localhost", "LOTLINE_EVENTSTORE names another server"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, copied := dataDirectory(t), filepath.Join(t.TempDir(), "copy.db")
			stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir, c.env}, "backup", copied)
			if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.says) || strings.Contains(stderr, "horse") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			for _, path := range []string{dir, copied} {
				if _, err := os.Stat(path); err == nil {
					t.Errorf("%s was made", path)
				}
			}
		})
	}
}

// After a declared restore the engine drops read models that are ahead of the log or come
// from another log.
func TestBackup_afterARestoreTheLogDecides(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir)
	key := e.secretKey()
	create := func() string {
		return e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	}
	kept := create()
	before := e.must(200, "GET", kept, key, "")
	e.terminate()
	// Without the read models' file the engine answers the same.
	if err := os.Remove(filepath.Join(dir, viewsFile)); err != nil {
		t.Fatal(err)
	}
	e = lotline.serve(t, dir)
	if after := e.must(200, "GET", kept, key, ""); string(after.body) != string(before.body) || after.header.Get("ETag") != before.header.Get("ETag") {
		t.Errorf("was %s and is %s", before.body, after.body)
	}
	e.terminate()
	events := filepath.Join(dir, eventsFile)
	backup, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	e = lotline.serve(t, dir)
	lost := create()
	e.must(200, "PUT", kept, key, `{"name":"lost as well"}`)
	e.terminate()
	if err := os.WriteFile(events, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	e = lotline.serveWith(t, dir, restored)
	e.must(404, "GET", lost, key, "")
	if got := e.must(200, "GET", kept, key, "").object(t)["name"]; got != nil {
		t.Errorf("the name is %v", got)
	}
	e.must(200, "GET", create(), key, "")
	e.terminate()
	if err := os.Remove(events); err != nil {
		t.Fatal(err)
	}
	e = lotline.serveWith(t, dir, restored)
	e.must(401, "GET", kept, key, "")
	fresh := e.secretKey()
	e.must(404, "GET", kept, fresh, "")
	if list := e.must(200, "GET", "/api/v1/queues", fresh, "").object(t)["data"].([]any); len(list) != 0 {
		t.Errorf("a new log lists %v", list)
	}
}
