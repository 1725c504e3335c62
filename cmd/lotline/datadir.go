package main

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// dataDir is a data directory. Only the process that holds its lock may use it.
type dataDir struct {
	path string
	lock *os.File
}

// errLocked means that another process has locked the data directory.
var errLocked = errors.New("another process is using it")

// openDataDir creates the directory if it is missing, and locks it. The lock ends with
// the process, even if that is killed.
func openDataDir(path string) (*dataDir, error) {
	if path == "" {
		return nil, badConfig("LOTLINE_DATA_DIR is empty")
	}
	// The socket is addressed by this path, whatever the working directory is.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	if err := checkPermissions(path); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(path, lockFile), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, badConfig("data directory %s: %w", path, errors.Join(err, lock.Close()))
	}
	return &dataDir{path, lock}, nil
}

// Close unlocks the directory at once. Closing the file alone would not: a child
// process that is being started has a copy of the file for a moment.
func (d *dataDir) Close() error {
	return errors.Join(unix.Flock(int(d.lock.Fd()), unix.LOCK_UN), d.lock.Close())
}

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// The files of a data directory.
const (
	lockFile      = "lock"
	eventsFile    = "events.db"
	viewsFile     = "views.db"
	masterKeyFile = "master.key"
	socketFile    = "store.sock"
)
