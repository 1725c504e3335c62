package embedded

import (
	"path/filepath"
	"syscall"
	"testing"
)

// A child process that is being started has a copy of each open file for a moment.
func TestUnlockFile_endsTheLockAlthoughAChildProcessHasACopyOfTheFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	lock, err := lockFile(path)
	if err != nil {
		t.Fatal(err)
	}
	child, err := syscall.Dup(int(lock.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(child) })
	if _, err := lockFile(path); err == nil {
		t.Error("a second lock was taken while the first was held")
	}
	if err := unlockFile(lock); err != nil {
		t.Error(err)
	}
	again, err := lockFile(path)
	if err != nil {
		t.Fatal("the lock was not ended:", err)
	}
	if err := unlockFile(again); err != nil {
		t.Error(err)
	}
}
