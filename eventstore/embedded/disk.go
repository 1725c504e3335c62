package embedded

import (
	"errors"
	"io/fs"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/ncruces/go-sqlite3/vfs"
)

// diskVFS is the name under which SQLite finds disk.
const diskVFS = "lotline"

// disk is the system's file layer with one error corrected: a write for which there is no
// room fails with SQLITE_FULL. The layer below reports an I/O error without a cause. The
// store could then not tell a full disk, after which nothing was written, from a broken
// disk, after which the outcome is unknown.
type disk struct{ vfs.VFSFilename }

func registerDisk() {
	vfs.Register(diskVFS, disk{vfs.Find("").(vfs.VFSFilename)})
}

func (d disk) OpenFilename(name *vfs.Filename, flags vfs.OpenFlag) (vfs.File, vfs.OpenFlag, error) {
	file, flags, err := d.VFSFilename.OpenFilename(name, flags)
	if err != nil {
		return nil, flags, err
	}
	return diskFile{file.(systemFile)}, flags, nil
}

// systemFile has all optional interfaces that SQLite uses of a system file, so that
// diskFile hides none of them, and Stat to identify the file.
type systemFile interface {
	vfs.File
	vfs.FileHasMoved
	vfs.FileLockState
	vfs.FileMemoryMapper
	vfs.FilePersistWAL
	vfs.FilePowersafeOverwrite
	vfs.FileSharedMemory
	vfs.FileSizeHint

	Stat() (fs.FileInfo, error)
}

type diskFile struct{ systemFile }

func (f diskFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.systemFile.WriteAt(p, offset)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = vfs.SystemError(err, sqlite3.FULL)
	}
	return n, err
}
