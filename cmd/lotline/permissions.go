package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The bits of a file mode that give rights to users other than the owner.
const (
	othersWrite  fs.FileMode = 0o022
	othersAtAll  fs.FileMode = 0o077
	privateUmask             = 0o077
)

// checkPermissions returns an error if other users can change the data directory, if
// other users can read or change one of the engine's files in it, or if one of them is
// a symbolic link. The directory may be empty.
func checkPermissions(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return badConfig("data directory: %w", err)
	}
	if mode := info.Mode().Perm(); mode&othersWrite != 0 {
		return badConfig("data directory: %s can be changed by others (mode %04o): chmod go-w %s", dir, mode, dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return badConfig("data directory: %w", err)
	}
	for _, e := range entries {
		if !isEngineFile(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Mode().IsRegular() && strings.HasSuffix(path, "-shm") {
			// Earlier releases left this file's mode to the umask. It holds no data.
			err = os.Chmod(path, 0o600)
		} else if err == nil {
			err = requirePrivate(path, info)
		}
		if err != nil {
			return badConfig("data directory: %w", err)
		}
	}
	return nil
}

// isEngineFile reports whether a file in the data directory is the engine's own. The
// socket does not count: each start makes a new one.
func isEngineFile(name string) bool {
	return name == lockFile || strings.HasPrefix(name, masterKeyFile) || strings.HasPrefix(name, eventsFile) || strings.HasPrefix(name, viewsFile)
}

// requirePrivate returns an error if users other than the owner can read or change the
// file, or if it is a symbolic link.
func requirePrivate(path string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.Type() == fs.ModeSymlink:
		return symlinkError(path)
	case mode.Perm()&othersAtAll != 0:
		return fmt.Errorf("%s is open to others (mode %04o): chmod go= %s", path, mode.Perm(), path)
	}
	return nil
}

// readPrivate reads a file. It returns an error if users other than the owner can read
// or change it.
func readPrivate(path string) (content []byte, err error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, unix.ELOOP) {
		return nil, symlinkError(path)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err == nil {
		err = requirePrivate(path, info)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

func symlinkError(path string) error {
	return fmt.Errorf("%s is a symbolic link: put the file itself there", path)
}

// listenPrivately listens on a Unix socket that only this user can connect to,
// whatever the umask and the directory's mode are. It sets the socket's mode between
// bind and listen, when nobody can connect yet.
func listenPrivately(path string) (_ net.Listener, err error) {
	// The lock keeps a child process that is being started from getting a copy.
	syscall.ForkLock.RLock()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		unix.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	// The listener has its own copy of the descriptor.
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return nil, &fs.PathError{Op: "bind", Path: path, Err: err}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Listen(fd, unix.SOMAXCONN); err != nil {
		return nil, &fs.PathError{Op: "listen", Path: path, Err: err}
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(true)
	return l, nil
}
