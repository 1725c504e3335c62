package embedded

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/ncruces/go-sqlite3/vfs"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// faultyDisk is the system's file layer with limited space and with faults that a test
// sets.
type faultyDisk struct {
	vfs.VFSFilename
	room    atomic.Int64 // bytes that can still be written to the write-ahead log
	syncErr atomic.Pointer[error]
}

func (d *faultyDisk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, flags, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil || flags&vfs.OPEN_WAL == 0 {
		return file, flags, err
	}
	return faultyFile{file.(systemFile), d}, flags, nil
}

type faultyFile struct {
	systemFile
	disk *faultyDisk
}

// WriteAt writes as much as there is room for, as a file system does.
func (f faultyFile) WriteAt(p []byte, offset int64) (int, error) {
	left := f.disk.room.Add(-int64(len(p)))
	if left >= 0 {
		return f.systemFile.WriteAt(p, offset)
	}
	n, err := f.systemFile.WriteAt(p[:max(0, int64(len(p))+left)], offset)
	if err == nil {
		err = &fs.PathError{Op: "write", Path: "wal", Err: syscall.ENOSPC}
	}
	return n, err
}

func (f faultyFile) Sync(flags vfs.SyncFlag) error {
	if err := f.disk.syncErr.Load(); err != nil {
		return *err
	}
	return f.systemFile.Sync(flags)
}

func openOnFaultyDisk(t *testing.T) (*store, *faultyDisk, string) {
	t.Helper()
	faulty := &faultyDisk{VFSFilename: vfs.Find("").(vfs.VFSFilename)}
	faulty.room.Store(1 << 40)
	name := strings.ToLower(t.Name())
	vfs.Register(name, disk{faulty})
	t.Cleanup(func() { vfs.Unregister(name) })
	path := filepath.Join(t.TempDir(), "events.db")
	s, err := openStoreOn(name, path, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	})
	return s, faulty, path
}

// The disk fills up at every point while a transaction is written to the write-ahead log.
// Each result matches what is in the store, and what is in the files when they are
// recovered after a crash.
func TestCommit_aFullDiskWritesNothingAndSaysSo(t *testing.T) {
	t.Parallel()
	s, faulty, path := openOnFaultyDisk(t)
	written := int64(0)
	for room := int64(0); ; room += 1999 {
		faulty.room.Store(room)
		result, err := s.append(t.Context(), "s", expectation(written-1), proposals(2, 5_000))
		if err == nil {
			if room < 10_000 || result.position != 2 {
				t.Fatalf("with room for %d bytes: %+v", room, result)
			}
			break
		}
		if got := status.Convert(toStatus(err)); got.Code() != codes.ResourceExhausted || !strings.Contains(got.Message(), "the disk is full, nothing was written") {
			t.Fatalf("with room for %d bytes: %v", room, got)
		}
		if last := lastAfterACrash(t, path); last != written {
			t.Fatalf("with room for %d bytes, the log ends at %d after a crash", room, last)
		}
	}
	// Once there is room again, appends succeed.
	faulty.room.Store(1 << 40)
	if result, err := s.append(t.Context(), "s", 1, proposals(1, 5_000)); err != nil || result.position != 3 {
		t.Errorf("afterwards: %+v, %v", result, err)
	}
	if last := lastAfterACrash(t, path); last != 3 {
		t.Errorf("the log ends at %d after a crash", last)
	}
}

// lastAfterACrash copies a store's files as they are, and returns the last position in
// the copy.
func lastAfterACrash(t *testing.T, path string) int64 {
	t.Helper()
	crashed := filepath.Join(t.TempDir(), "events.db")
	for _, suffix := range []string{"", "-wal"} {
		content, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(crashed+suffix, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := openStore(crashed, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	last, err := s.lastPosition(t.Context())
	if err != nil {
		t.Error(err)
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	return last
}

// After a failed sync the contents of the disk are unknown, even if the disk was full as
// well.
func TestCommit_afterAFailedSyncTheOutcomeIsUnknown(t *testing.T) {
	t.Parallel()
	s, faulty, _ := openOnFaultyDisk(t)
	for _, errno := range []error{syscall.EIO, syscall.ENOSPC} {
		faulty.syncErr.Store(&errno)
		_, err := s.append(t.Context(), "s", expectAny, proposals(1, 10))
		if got := status.Convert(toStatus(err)); got.Code() != codes.Internal || !strings.Contains(got.Message(), "the outcome is unknown") {
			t.Errorf("%v: %v", errno, err)
		}
	}
	faulty.syncErr.Store(nil)
	if _, err := s.append(t.Context(), "s", expectAny, proposals(1, 10)); err != nil {
		t.Error(err)
	}
}

func TestRead_aDamagedFileIsReportedAsSuch(t *testing.T) {
	t.Parallel()
	server := start(t)
	client := server.connect(t)
	for i := range 50 {
		mustAppend(t, client, fmt.Sprint("s-", i), esdb.NoStream{}, newEvent("x", strings.Repeat("x", 3_000)))
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(server.path)
	if err != nil {
		t.Fatal(err)
	}
	// The damage spares the pages with the schema and with the newest events, which are
	// read on opening.
	from, to := len(content)/3, len(content)/2
	copy(content[from:to], bytes.Repeat([]byte{0xa5}, to-from))
	if err := os.WriteFile(server.path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	damaged, err := Open(server.path, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer damaged.Close()
	_, err = damaged.store.readAll(t.Context(), 0, false, false, nil, 100, pageRows)
	if got := status.Convert(toStatus(err)); got.Code() != codes.DataLoss || !strings.Contains(got.Message(), "read $all: ") {
		t.Errorf("got %v", err)
	}
}
