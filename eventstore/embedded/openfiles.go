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

// openFiles checks that the files that a store has open are still the files at their
// paths. A file that was removed, renamed or replaced still accepts writes, but the next
// start will not open it.
type openFiles struct {
	list []openFile
	// lost is why the store has failed, nil as long as it has not. The failure is
	// permanent: a file that is put back lacks what was written to the lost one.
	lost atomic.Pointer[error]
}

// openFile is one of the files.
type openFile struct {
	path string
	info fs.FileInfo // of the file that is open
}

// findOpenFiles returns the files that a connection has open.
func findOpenFiles(path string, conn *sqlite3.Conn) (*openFiles, error) {
	p := &openFiles{}
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
		p.list = append(p.list, openFile{path + suffix, info})
	}
	// SQLite does not give access to the file of its write-ahead log's index. It matters
	// as well: processes with different indexes do not see each other's locks.
	info, err := os.Stat(path + "-shm")
	if err != nil {
		return nil, err
	}
	p.list = append(p.list, openFile{path + "-shm", info})
	return p, nil
}

// check fails if a file is no longer at its path, and always fails after that. It costs
// one system call per file.
func (p *openFiles) check() error {
	if lost := p.lost.Load(); lost != nil {
		return *lost
	}
	for _, f := range p.list {
		now, err := os.Stat(f.path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
			return err
		}
		if err != nil || !os.SameFile(now, f.info) {
			lost := fmt.Errorf("%s was removed, renamed or replaced while the event store had it open: nothing more is written, start again once the right file is there", f.path)
			p.lost.CompareAndSwap(nil, &lost)
			return *p.lost.Load()
		}
	}
	return nil
}

// note is the content of the lock file once there is a store beside it. It tells a store
// that was lost from a store whose creation was interrupted by a crash.
const note = "There is an event store beside this file. If it is missing or empty, it was lost.\n"

// ErrLost says that there was a store at this path, and that its file is missing or
// empty.
var ErrLost = errors.New("there was an event store here, and its file is missing or empty")

// checkNotLost refuses to create a store where there was one before.
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

// Forget lets Open create a store at path although a store was lost there. If the
// write-ahead log of the lost store is still there, the operator has to move it away
// first.
func Forget(path string) error {
	err := os.Truncate(lockPath(path), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
