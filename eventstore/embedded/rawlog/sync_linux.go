package rawlog

import (
	"os"
	"syscall"
)

// flush syncs the file without metadata that a reader does not need, such as the
// modification time.
func flush(file *os.File) error { return syscall.Fdatasync(int(file.Fd())) }
