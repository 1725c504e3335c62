package rawlog

import (
	"os"
	"syscall"
)

// flush leaves out what a reader does not need, such as the time of the change.
func flush(file *os.File) error { return syscall.Fdatasync(int(file.Fd())) }
