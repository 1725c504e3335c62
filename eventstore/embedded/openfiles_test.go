package embedded

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// Once any of its files is no longer at its path, a store accepts no more events.
func TestStore_aFileThatIsNotAtItsPathTakesNoEvents(t *testing.T) {
	t.Parallel()
	for name, displace := range map[string]func(path string) error{
		"removed": os.Remove,
		"renamed": func(path string) error { return os.Rename(path, path+".away") },
		"replaced": func(path string) error {
			content, err := os.ReadFile(path)
			return errors.Join(err, os.WriteFile(path+".copy", content, 0o600), os.Rename(path+".copy", path))
		},
	} {
		for _, suffix := range []string{"", "-wal", "-shm"} {
			t.Run("events.db"+suffix+" "+name, func(t *testing.T) {
				t.Parallel()
				base := filepath.Join(t.TempDir(), "events.db")
				s := newStoreAt(t, base)
				if _, err := s.append(t.Context(), "s", expectAny, proposals(1, 10)); err != nil {
					t.Fatal(err)
				}
				path := base + suffix
				if err := displace(path); err != nil {
					t.Fatal(err)
				}
				failed := func() {
					t.Helper()
					_, err := s.append(t.Context(), "s", expectAny, proposals(1, 10))
					_, readErr := s.lastPosition(t.Context())
					for _, err := range []error{err, readErr} {
						if err == nil || !strings.Contains(err.Error(), path+" was removed, renamed or replaced") {
							t.Errorf("got %v", err)
						}
					}
				}
				failed()
				// A file that is put back lacks what was written meanwhile.
				if name == "renamed" {
					if err := os.Rename(path+".away", path); err != nil {
						t.Fatal(err)
					}
				}
				failed()
				if told, _ := s.tail.read(1, false, nil, 10); len(told.events) != 1 {
					t.Errorf("subscribers were told of %d events", len(told.events))
				}
			})
		}
	}
}

// Closing a store whose file was replaced does not change the new file.
func TestClose_leavesAFileThatReplacedTheStoreUnchanged(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	s, err := openStore(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.append(t.Context(), "s", expectAny, proposals(1, 10)); err != nil {
		t.Fatal(err)
	}
	another := []byte("another log")
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := errors.Join(os.WriteFile(path+".copy", another, 0o600), os.Rename(path+".copy", path+suffix)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.append(t.Context(), "s", expectAny, proposals(1, 10)); err == nil {
		t.Error("an append succeeded")
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if content, err := os.ReadFile(path + suffix); err != nil || !bytes.Equal(content, another) {
			t.Errorf("%s holds %q, %v", suffix, content, err)
		}
	}
}

// A lost store is not created anew unless the operator says so.
func TestOpen_aStoreThatWasLostIsNotMadeAnew(t *testing.T) {
	t.Parallel()
	for name, lose := range map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.db")
			for range 2 {
				server, err := Open(path, zerolog.Nop())
				if err != nil {
					t.Fatal(err)
				}
				if err := server.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if err := lose(path); err != nil {
				t.Fatal(err)
			}
			if server, err := Open(path, zerolog.Nop()); !errors.Is(err, ErrLost) {
				t.Fatalf("got %v, %v", server, err)
			}
			if info, err := os.Stat(path); err == nil && info.Size() > 0 || err != nil && name == "empty" {
				t.Errorf("the file is %+v, %v", info, err)
			}
			if err := Forget(path); err != nil {
				t.Fatal(err)
			}
			server, err := Open(path, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// SQLite would delete a write-ahead log that has no database.
func TestOpen_aWriteAheadLogAloneIsKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	wal := []byte("the newest events")
	if err := os.WriteFile(path+"-wal", wal, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Forget(path); err != nil {
		t.Fatal(err)
	}
	if server, err := Open(path, zerolog.Nop()); !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), "-wal") {
		t.Fatalf("got %v, %v", server, err)
	}
	if content, err := os.ReadFile(path + "-wal"); err != nil || !bytes.Equal(content, wal) {
		t.Errorf("it holds %q, %v", content, err)
	}
}

// The first start may be interrupted at any moment.
func TestOpen_aCrashDuringTheFirstStartLeavesNoLostStore(t *testing.T) {
	t.Parallel()
	for name, left := range map[string][]string{
		"the lock":      {".lock"},
		"an empty file": {".lock", ""},
		"all files":     {".lock", "", "-wal", "-shm"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "events.db")
			for _, suffix := range left {
				if err := os.WriteFile(path+suffix, nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			server, err := Open(path, zerolog.Nop())
			if err != nil {
				t.Fatal(err)
			}
			if err := server.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestServer_leavesTheFilesAsTheyAre(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "events.db")
	server, err := Open(path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := server.store.append(t.Context(), "s", expectAny, proposals(3, 1000)); err != nil {
		t.Fatal(err)
	}
	before := map[string][]byte{}
	for _, suffix := range []string{"", "-wal"} {
		if before[suffix], err = os.ReadFile(path + suffix); err != nil {
			t.Fatal(err)
		}
	}
	server.LeaveAsItIs()
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	for suffix, content := range before {
		if is, err := os.ReadFile(path + suffix); err != nil || !bytes.Equal(is, content) {
			t.Errorf("%s was changed: %v", suffix, err)
		}
	}
	s := newStoreAt(t, path)
	if last, err := s.lastPosition(t.Context()); err != nil || last != 3 {
		t.Errorf("it ends at %d, %v", last, err)
	}
}

func newStoreAt(t *testing.T, path string) *store {
	t.Helper()
	s, err := openStore(path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Each commit and each page that is read does one check.
func BenchmarkOpenFiles_check(b *testing.B) {
	s := newStore(b)
	for b.Loop() {
		if err := s.files.check(); err != nil {
			b.Fatal(err)
		}
	}
}
