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
	if path == "" {
		return nil, badConfig("LOTLINE_DATA_DIR is empty")
	}
	// The socket is reached from wherever the command line is used.
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	if err := checkRights(path); err != nil {
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

// Close lets another process have the directory at once. Closing the file alone
// would not: a child that is being started has a copy of it for a moment.
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

// masterKey returns the key that is given or the one in the directory. When there
// is neither it makes one, which is not in the directory yet.
func masterKey(s *settings, dir *dataDir) (key []byte, made bool, err error) {
	if key, err := s.masterKey(); key != nil || err != nil {
		return key, false, err
	}
	name := dir.file(masterKeyFile)
	raw, err := readPrivate(name)
	if errors.Is(err, fs.ErrNotExist) {
		key = make([]byte, eventstore.MasterKeySize)
		rand.Read(key)
		return key, true, nil
	}
	if err != nil {
		return nil, false, badConfig("master key: %w", err)
	}
	key, ok := decodeMasterKey(string(raw))
	if !ok {
		return nil, false, badConfig("%s does not hold a master key", name)
	}
	return key, false, nil
}

// saveMasterKey writes a new master key so that it is either there as a whole and
// on disk, or not there.
func saveMasterKey(dir *dataDir, key []byte) error {
	name := dir.file(masterKeyFile)
	// A crash may have left one.
	if err := os.Remove(name + ".new"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return badConfig("master key: %w", err)
	}
	// Nothing that is there already is written to, nor what a link there leads to.
	f, err := os.OpenFile(name+".new", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return badConfig("master key: %w", err)
	}
	_, err = fmt.Fprintln(f, base64.StdEncoding.EncodeToString(key))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return badConfig("master key: %w", err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		return badConfig("master key: %w", err)
	}
	folder, err := os.Open(dir.path)
	if err != nil {
		return badConfig("master key: %w", err)
	}
	return errors.Join(folder.Sync(), folder.Close())
}
