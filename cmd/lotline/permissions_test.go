package main

import (
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// openToAll returns the program, started with umask 0.
func openToAll(t testing.TB) program {
	t.Helper()
	p := testBinary(t)
	script := filepath.Join(t.TempDir(), "lotline")
	if err := os.WriteFile(script, fmt.Appendf(nil, "#!/bin/sh\numask 0\nexec '%s' \"$@\"\n", p.path), 0o700); err != nil {
		t.Fatal(err)
	}
	p.path = script
	return p
}

// chmod gives a file a mode, whatever the umask.
func chmod(t testing.TB, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

// Files in the data directory can be read by their owner only, even if others can read
// the directory and the umask is 0.
func TestPermissions_newFilesAreForTheirOwnerAlone(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), openToAll(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	chmod(t, dir, 0o755)
	look := func(when string) {
		t.Helper()
		files := 0
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || path == dir {
				return err
			}
			files++
			info, err := e.Info()
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s %s has the mode %s", when, path, info.Mode())
			}
			return err
		})
		if err != nil || files < 6 {
			t.Errorf("%s there are %d files, %v", when, files, err)
		}
	}
	e := lotline.serve(t, dir)
	e.secretKey()
	look("while it runs")
	if info, err := os.Lstat(filepath.Join(dir, socketFile)); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %+v, %v", info, err)
	}
	env := []string{"LOTLINE_DATA_DIR=" + dir}
	backup := filepath.Join(dir, "backup.db")
	if _, stderr, code := lotline.run(t, env, "backup", backup); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	e.kill()
	look("after it was killed")
	if _, stderr, code := lotline.run(t, env, "keys", "list"); code != 0 {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	writeFile(t, filepath.Join(dir, viewsFile), []byte("no database"))
	lotline.serve(t, dir).terminate()
	look("when views.db was put aside")
}

// The engine refuses such files, as ssh refuses such keys. The command in the message
// repairs the mode.
func TestPermissions_filesThatAreOpenToOthersStopTheStart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		file string
		mode fs.FileMode
		says string
	}{
		"the directory is the group's":    {"", 0o770, "can be changed by others (mode 0770): chmod go-w "},
		"the directory is everybody's":    {"", 0o777, "can be changed by others (mode 0777): chmod go-w "},
		"the master key, to the group":    {masterKeyFile, 0o640, "is open to others (mode 0640): chmod go= "},
		"the master key, to everybody":    {masterKeyFile, 0o644, "is open to others (mode 0644): chmod go= "},
		"the log":                         {eventsFile, 0o644, "is open to others (mode 0644): chmod go= "},
		"the log's newest events":         {eventsFile + "-wal", 0o604, "is open to others (mode 0604): chmod go= "},
		"the log's lock":                  {eventsFile + ".lock", 0o666, "is open to others (mode 0666): chmod go= "},
		"the read models":                 {viewsFile, 0o644, "is open to others (mode 0644): chmod go= "},
		"read models that were put aside": {viewsFile + ".unusable", 0o644, "is open to others (mode 0644): chmod go= "},
		"who is in the queues":            {viewsFile + ".participants", 0o711, "is open to others (mode 0711): chmod go= "},
		"the lock":                        {lockFile, 0o660, "is open to others (mode 0660): chmod go= "},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lotline := dataDirectory(t), testBinary(t)
			lotline.serve(t, dir).kill()
			path := filepath.Join(dir, c.file)
			switch filepath.Ext(path) {
			case ".unusable":
				writeFile(t, path, nil)
			case ".participants":
				if err := os.MkdirAll(path, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			chmod(t, path, c.mode)
			env := []string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=127.0.0.1:0"}
			var stderr string
			for _, command := range [][]string{{"serve"}, {"store"}, {"keys", "list"}} {
				var stdout string
				var code int
				stdout, stderr, code = lotline.run(t, env, command...)
				if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, path+" "+c.says+path+"\n") {
					t.Fatalf("%v: exit %d, stdout %q, stderr %q", command, code, stdout, stderr)
				}
			}
			_, mend, _ := strings.Cut(strings.TrimSpace(stderr), "): ")
			if out, err := exec.CommandContext(t.Context(), "sh", "-c", mend).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", mend, err, out)
			}
			lotline.serve(t, dir)
		})
	}
}

// Admin commands read the master key too, while the engine runs.
func TestPermissions_aMasterKeyThatIsOpenToOthersIsNotUsed(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	lotline.serve(t, dir)
	path := filepath.Join(dir, masterKeyFile)
	chmod(t, path, 0o644)
	stdout, stderr, code := lotline.run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "keys", "list")
	if code != exitConfig || stdout != "" || !strings.Contains(stderr, "chmod go= "+path) {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	key, err := readPrivate(path)
	if err == nil {
		t.Errorf("got %q", key)
	}
}

// The engine does not follow symbolic links in the data directory.
func TestPermissions_symbolicLinksInTheDataDirectoryStopTheStart(t *testing.T) {
	t.Parallel()
	for _, name := range []string{masterKeyFile, masterKeyFile + ".new", eventsFile, eventsFile + "-wal", eventsFile + ".lock", viewsFile, viewsFile + ".participants", lockFile} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := dataDirectory(t)
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path, target := filepath.Join(dir, name), filepath.Join(t.TempDir(), "target")
			if err := os.Symlink(target, path); err != nil {
				t.Fatal(err)
			}
			stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=127.0.0.1:0"}, "serve")
			if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, path+" is a symbolic link") {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
			}
			if _, err := os.Lstat(target); err == nil {
				t.Error("what the link leads to was made")
			}
		})
	}
}

// The socket replaces a link or a foreign file at its path.
func TestPermissions_theSocketReplacesWhatIsInItsPlace(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Symlink(target, filepath.Join(dir, socketFile)); err != nil {
		t.Fatal(err)
	}
	e := testBinary(t).serve(t, dir)
	if info, err := os.Lstat(filepath.Join(dir, socketFile)); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("the socket is %+v, %v", info, err)
	}
	if _, err := os.Lstat(target); err == nil {
		t.Error("what the link leads to was made")
	}
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Lstat(filepath.Join(dir, socketFile)); err == nil {
		t.Error("the socket is still there")
	}
}

// Earlier releases left the mode of the write-ahead log's index to the umask.
func TestPermissions_anIndexThatAnEarlierReleaseLeftIsMended(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	lotline.serve(t, dir).kill()
	for _, name := range []string{eventsFile + "-shm", viewsFile + "-shm"} {
		chmod(t, filepath.Join(dir, name), 0o644)
	}
	lotline.serve(t, dir)
	for _, name := range []string{eventsFile + "-shm", viewsFile + "-shm"} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s is %v, %v", name, info, err)
		}
	}
}

// Nobody can connect to the socket before it has its mode.
func TestPermissions_nobodyConnectsBeforeTheSocketHasItsMode(t *testing.T) {
	t.Parallel()
	dir := filepath.Dir(dataDirectory(t))
	var clients sync.WaitGroup
	for round := range 100 {
		path := filepath.Join(dir, fmt.Sprint(round))
		connected := make(chan struct{})
		clients.Go(func() {
			for {
				c, err := (&net.Dialer{}).DialContext(t.Context(), "unix", path)
				if err != nil && t.Context().Err() == nil {
					continue
				}
				if info, statErr := os.Lstat(path); err != nil || statErr != nil {
					t.Error(err, statErr)
				} else if info.Mode() != fs.ModeSocket|0o600 {
					t.Errorf("connected to a socket of the mode %s", info.Mode())
				}
				if c != nil {
					if err := c.Close(); err != nil {
						t.Error(err)
					}
				}
				close(connected)
				return
			}
		})
		l, err := listenPrivately(path)
		if err != nil {
			t.Fatal(err)
		}
		<-connected
		if _, err := listenPrivately(path); err == nil {
			t.Error("another one listens at the same path")
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Error("the socket is still there")
		}
	}
	clients.Wait()
}

// A TLS key may be readable by its owner and its group, but not by others.
func TestPermissions_aTLSKeyThatIsOpenToOthersStopsTheStart(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t)
	env := []string{"LOTLINE_EMBEDDED_LISTEN=127.0.0.1:0", "LOTLINE_EMBEDDED_TLS_CERT=" + certFile, "LOTLINE_EMBEDDED_TLS_KEY=" + keyFile}
	chmod(t, keyFile, 0o644)
	stdout, stderr, code := testBinary(t).run(t, append(env, "LOTLINE_DATA_DIR="+dataDirectory(t), "LOTLINE_LISTEN=127.0.0.1:0"), "serve")
	if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, keyFile+" is open to others (mode 0644): chmod g-wx,o= "+keyFile) {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	chmod(t, keyFile, 0o640)
	testBinary(t).serve(t, dataDirectory(t), env...)
}
