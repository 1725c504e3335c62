package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The files may not grow. Every user on every system can set such a limit, unlike a full
// disk, which the next test has.
func TestDisk_aLogThatCannotGrowLosesNothingAndSaysSo(t *testing.T) {
	t.Parallel()
	c := newProcesses(t)
	c.embedded(spaceLeft + "=10000")
	c.fullDisk(c.send(c.nodes[0], syscall.SIGUSR1), c.send(c.nodes[0], syscall.SIGUSR2))
}

func TestDisk_aFullDiskLosesNothingAndSaysSo(t *testing.T) {
	t.Parallel()
	c := newProcesses(t)
	mountSmall(t, c.dir)
	c.embedded()
	ballast := filepath.Join(c.dir, "ballast")
	c.fullDisk(func() {
		f, err := os.Create(ballast)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 64<<10); len(block) > 0; {
			n, err := f.Write(block)
			if errors.Is(err, syscall.ENOSPC) {
				// Smaller blocks fill the disk to the last byte.
				block = block[:len(block)/2]
			} else if err != nil || n == 0 {
				t.Fatal(err)
			}
		}
	}, func() {
		if err := os.Remove(ballast); err != nil {
			t.Error(err)
		}
	})
}

// mountSmall mounts a file system of a few megabytes at dir.
func mountSmall(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("a disk that is full needs root on Linux, to mount one; TestDisk_aLogThatCannotGrowLosesNothingAndSaysSo runs for everybody")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "lotline-test", dir).CombinedOutput(); err != nil {
		t.Skipf("a file system cannot be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// embedded starts an engine with an embedded store.
func (p *processes) embedded(env ...string) {
	p.t.Helper()
	p.nodes = []*engine{testBinary(p.t).serve(p.t, p.dir, append(env, "LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey)...)}
}

// fullDisk sends requests to the engine while the disk is full, and afterwards.
func (p *processes) fullDisk(fill, free func()) {
	t := p.t
	t.Helper()
	opens := in(2000)
	var paths, shared []string
	for n := range 12 {
		paths = append(paths, p.create(0, collections[n%3], body(`,"openAt":%q`, opens)+ends(collections[n%3], in(3_600_000))))
		shared = append(shared, p.create(0, "/api/v1/queues", ""))
	}
	finish := p.keepWriting(8, 20*time.Millisecond)
	fill()
	e := p.nodes[0]
	eventually(t, "writes are refused", func() bool { return p.tryCreate(0) == 503 })
	waiting := p.writeAtOnce(shared)
	for range 20 {
		for _, path := range []string{paths[0], "/api/v1/distributions", "/livez"} {
			e.must(200, "GET", path, testSecretKey, "")
		}
		<-time.After(100 * time.Millisecond)
	}
	eventually(t, "/readyz says so", func() bool {
		a := e.call("GET", "/readyz", "", "")
		state := a.object(t)["checks"].(map[string]any)["eventStore"].(map[string]any)
		return a.status == 503 && state["ok"] == false
	})
	// A small write may still fit.
	slowest, taken := waiting()
	if taken > 32 {
		t.Errorf("%d of 128 writes were taken", taken)
	}
	t.Logf("the slowest of 128 writes was answered after %s, and %d were taken", slowest.Round(time.Millisecond), taken)
	free()
	freed := time.Now()
	eventually(t, "it writes again", func() bool { return p.tryCreate(0) == 201 })
	t.Logf("it writes again %s after there is space", time.Since(freed).Round(time.Millisecond))
	eventually(t, "it is ready", func() bool { return e.call("GET", "/readyz", "", "").status == 200 })
	finish()
	eventually(t, "what came due meanwhile is done", func() bool {
		p.ledger.ReadLog()
		return opened(p.ledger, paths) == len(paths)
	})
	p.check()
	e.kill()
	p.embedded()
	p.check()
}

// The file of the read models is only a copy. Without space for it the engine goes on.
func TestDisk_readModelsThatCannotBeWrittenStopNothing(t *testing.T) {
	t.Parallel()
	p := newProcesses(t)
	p.at = freeAddress(t)
	p.store = startStore(t, testBinary(t), p.dir, p.at)
	// The log is not in the engine's directory, so the limit is less than one page for all
	// files there.
	node := dataDirectory(t)
	p.nodes = []*engine{p.nodeIn(node, spaceLeft+"=100")}
	e := p.nodes[0]
	p.send(e, syscall.SIGUSR1)()
	written := func() int64 {
		info, err := os.Stat(filepath.Join(node, viewsFile+"-wal"))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	var path string
	for n := range 50 {
		path = p.create(0, collections[n%3], ends(collections[n%3], in(3_600_000)))
		e.must(200, "GET", path, testSecretKey, "")
	}
	eventually(t, "it says so", func() bool { return strings.Count(e.stderr.String(), "views were not written") > 1 })
	if r := p.do(0, p.request("updated", "PUT", path, `{"name":"still here"}`)); r.Status != 200 {
		t.Errorf("%d %s", r.Status, r.Body)
	}
	e.must(200, "GET", "/readyz", "", "")
	before := written()
	p.send(e, syscall.SIGUSR2)()
	eventually(t, "they are written", func() bool { return written() > before })
	p.check()
	want := e.must(200, "GET", path, testSecretKey, "")
	e.kill()
	p.nodes[0] = p.nodeIn(node)
	if got := p.nodes[0].must(200, "GET", path, testSecretKey, ""); string(got.body) != string(want.body) {
		t.Errorf("it was %s and is %s", want.body, got.body)
	}
	p.check()
}
