package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lockPath is where the lock of the store at path is.
func lockPath(path string) string { return path + ".lock" }

// lockFile takes the exclusive lock that keeps a second process from writing to
// the same store. The lock is on a file of its own, since SQLite locks the
// database file itself and lets go of all locks on it when any handle closes.
// It ends with the process, however that ends.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		err = errors.New("already open in another process")
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return file, nil
}

// checkOwner refuses a file of somebody else. Who has the rights to open it
// nevertheless, as root has, would leave an index of the write-ahead log beside it
// that its owner cannot open.
func checkOwner(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w: it belongs to the user with the id %d, who alone can do this without leaving files that stop its engine (this is %d)", fs.ErrPermission, owner, os.Geteuid())}
	}
	return nil
}
