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

// The bits of a mode that let others than the owner do something.
const (
	othersWrite  fs.FileMode = 0o022
	othersAtAll  fs.FileMode = 0o077
	privateUmask             = 0o077
)

// checkRights refuses a data directory that others can change, and files of ours in
// it that others can read or change, or that are symbolic links. There may be none
// yet.
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
		if !ours(e.Name()) {
			continue
		}
		path := filepath.Join(dir, e.Name())
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil && info.Mode().IsRegular() && strings.HasSuffix(path, "-shm") {
			// Earlier releases left its mode to the umask. It holds no data.
			err = os.Chmod(path, 0o600)
		} else if err == nil {
			err = private(path, info)
		}
		if err != nil {
			return badConfig("data directory: %w", err)
		}
	}
	return nil
}

// ours reports whether a file in the data directory is the engine's own. The socket
// is not among them: each start makes a new one.
func ours(name string) bool {
	return name == lockFile || strings.HasPrefix(name, masterKeyFile) || strings.HasPrefix(name, eventsFile) || strings.HasPrefix(name, viewsFile)
}

// private refuses what others than its owner can read or change.
func private(path string, info fs.FileInfo) error {
	mode := info.Mode()
	switch {
	case mode.Type() == fs.ModeSymlink:
		return symlinkError(path)
	case mode.Perm()&othersAtAll != 0:
		return fmt.Errorf("%s is open to others (mode %04o): chmod go= %s", path, mode.Perm(), path)
	}
	return nil
}

// readPrivate reads a file that only its owner may read.
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
		err = private(path, info)
	}
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f)
}

func symlinkError(path string) error {
	return fmt.Errorf("%s is a symbolic link: put the file itself there", path)
}

// listenPrivately listens on a Unix socket that nobody but this user can connect to,
// whatever the umask and the directory's mode. Nobody at all can connect between
// bind and listen, and by then the socket has its mode.
func listenPrivately(path string) (_ net.Listener, err error) {
	// A child that is being started must not get a copy.
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
	// The listener has a copy.
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
