//go:build !linux

package rawlog

import "os"

func flush(file *os.File) error { return file.Sync() }
