package main

import (
	"os"
	"path/filepath"
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

// A path may contain characters that a socket's address may not.
func TestDataDir_takesAnyPath(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"a%b", "what?", "number#1", "two words", "ünï", "a:b,c"} {
		dir := filepath.Join(filepath.Dir(dataDirectory(t)), name)
		e := testBinary(t).serve(t, dir)
		e.must(201, "POST", "/api/v1/queues", e.secretKey(), `{"sequenceId":"s"}`)
		if code := e.terminate(); code != 0 {
			t.Errorf("%s: exit %d: %s", name, code, e.stderr)
		}
	}
}
