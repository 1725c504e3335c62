package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// lockPath returns the path of the lock file of the store at path.
func lockPath(path string) string { return path + ".lock" }

// lockFile takes the exclusive lock that keeps a second process from opening the same
// store. It locks a file of its own: SQLite locks the database file itself, and closing
// any handle of a file releases all its locks. The lock ends with the process, however
// the process ends.
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

// unlockFile ends the lock at once. Closing the file alone would not: a child process that
// is being started has a copy of the file for a moment.
func unlockFile(lock *os.File) error {
	return errors.Join(syscall.Flock(int(lock.Fd()), syscall.LOCK_UN), lock.Close())
}

// checkOwner refuses a file that belongs to another user. Some users, such as root, could
// open it nevertheless. They would leave an index of the write-ahead log beside it that
// its owner cannot open.
func checkOwner(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() {
		return &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("%w: it belongs to the user with the id %d: another user would leave files that stop the owner's engine (this process has the id %d)", fs.ErrPermission, owner, os.Geteuid())}
	}
	return nil
}
