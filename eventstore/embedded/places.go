package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync/atomic"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/util/vfsutil"
	"github.com/ncruces/go-sqlite3/vfs"
)

// places tells whether the files that a store has open are still the files at their
// paths. A file that was removed, renamed or replaced goes on taking what is
// written to it, and then is gone.
type places struct {
	files []placed
	// lost says why the store has failed, nil as long as it has not. It has failed
	// for good: what was written to the lost file is not in one that is put back.
	lost atomic.Pointer[error]
}

// placed is one of the files.
type placed struct {
	path string
	file fs.FileInfo // of the file that is open
}

// findPlaces takes the files that a connection has open.
func findPlaces(path string, conn *sqlite3.Conn) (*places, error) {
	p := &places{}
	for suffix, pointer := range map[string]sqlite3.FcntlOpcode{"": sqlite3.FCNTL_FILE_POINTER, "-wal": sqlite3.FCNTL_JOURNAL_POINTER} {
		opened, err := conn.FileControl("main", pointer)
		if err != nil {
			return nil, err
		}
		file, ok := vfsutil.UnwrapFile[systemFile](opened.(vfs.File))
		if !ok {
			return nil, fmt.Errorf("%s%s is not a file of the system", path, suffix)
		}
		info, err := file.Stat()
		if err != nil {
			return nil, err
		}
		p.files = append(p.files, placed{path + suffix, info})
	}
	// SQLite gives no access to the index of the write-ahead log. Processes that have
	// different ones do not see each other's locks.
	info, err := os.Stat(path + "-shm")
	if err != nil {
		return nil, err
	}
	p.files = append(p.files, placed{path + "-shm", info})
	return p, nil
}

// check fails when a file is not at its path, and from then on always. It costs one
// call of the system for each file.
func (p *places) check() error {
	if lost := p.lost.Load(); lost != nil {
		return *lost
	}
	for _, f := range p.files {
		now, err := os.Stat(f.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		if err != nil || !os.SameFile(now, f.file) {
			lost := fmt.Errorf("%s was removed, renamed or replaced while the event store had it open: nothing more is written, start again once the right file is there", f.path)
			p.lost.CompareAndSwap(nil, &lost)
			return *p.lost.Load()
		}
	}
	return nil
}

// note is written into the lock file once there is a store beside it. It tells a
// store that was lost from one that a crash kept from being created.
const note = "There is an event store beside this file. If it is missing or empty, it was lost.\n"

// ErrLost says that a store was here before and that its file is missing or empty.
var ErrLost = errors.New("there was an event store here, and its file is missing or empty")

// checkNotLost refuses to create a store where there was one.
func checkNotLost(path string, lock *os.File) error {
	if info, err := os.Stat(path); err == nil && info.Size() > 0 {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// SQLite would delete a write-ahead log beside an empty database.
	if info, err := os.Stat(path + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("%w; %s-wal is still there and holds its newest events", ErrLost, path)
	}
	if info, err := lock.Stat(); err != nil || info.Size() > 0 {
		return errors.Join(err, ErrLost)
	}
	return nil
}

func leaveNote(lock *os.File) error {
	if info, err := lock.Stat(); err != nil || info.Size() > 0 {
		return err
	}
	if _, err := lock.WriteString(note); err != nil {
		return err
	}
	return lock.Sync()
}

// Forget lets Open create a store at path although one was lost there. A
// write-ahead log that is left of that one still has to be moved away.
func Forget(path string) error {
	err := os.Truncate(lockPath(path), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
