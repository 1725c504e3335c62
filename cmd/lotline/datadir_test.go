package main

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestDataDir_isFreeAtOnceThoughAChildHasACopyOfTheLock(t *testing.T) {
	t.Parallel()
	path := dataDirectory(t)
	dir, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	child, err := unix.FcntlInt(dir.lock.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	copied := os.NewFile(uintptr(child), "copy")
	defer copied.Close()
	if _, err := openDataDir(path); err == nil {
		t.Error("two have it")
	}
	if err := dir.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := openDataDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
