package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/lotline/lotline/eventstore"
)

// dataDir is a data directory that this process has for itself.
type dataDir struct {
	path string
	lock *os.File
}

// errLocked says that another process has the data directory.
var errLocked = errors.New("another process is using it")

// openDataDir makes the directory when there is none and locks it. The lock goes
// with the process, however that ends.
func openDataDir(path string) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
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

func (d *dataDir) Close() error { return d.lock.Close() }

func (d *dataDir) file(name string) string { return filepath.Join(d.path, name) }

// The files of a data directory beside the lock.
const (
	eventsFile    = "events.db"
	viewsFile     = "views.db"
	masterKeyFile = "master.key"
	socketFile    = "store.sock"
)

// masterKey returns the key that is given, or the one in the directory, which is
// made when there is neither it nor a log that needs it.
func masterKey(s *settings, path string) ([]byte, error) {
	key, err := s.masterKey()
	if key != nil || err != nil {
		return key, err
	}
	name := filepath.Join(path, masterKeyFile)
	raw, err := os.ReadFile(name)
	switch {
	case err == nil:
		key, ok := decodeMasterKey(string(raw))
		if !ok {
			return nil, badConfig("%s does not hold a master key", name)
		}
		return key, nil
	case !errors.Is(err, fs.ErrNotExist):
		return nil, badConfig("master key: %w", err)
	case s.EventStore != "":
		return nil, badConfig("with LOTLINE_EVENTSTORE the master key must be given: set LOTLINE_MASTER_KEY, the same for all nodes, or put it into %s", name)
	}
	if _, err := os.Stat(filepath.Join(path, eventsFile)); err == nil {
		return nil, badConfig("%s is missing, and the log beside it was sealed under it: put it back or set LOTLINE_MASTER_KEY", name)
	}
	return makeMasterKey(name)
}

// makeMasterKey writes a new master key so that it is either there as a whole
// and on disk, or not there.
func makeMasterKey(name string) ([]byte, error) {
	key := make([]byte, eventstore.MasterKeySize)
	rand.Read(key)
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, badConfig("master key: %w", err)
	}
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(key))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return nil, badConfig("master key: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return nil, badConfig("master key: %w", err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return nil, badConfig("master key: %w", err)
	}
	return key, errors.Join(dir.Sync(), dir.Close())
}
