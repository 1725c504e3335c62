package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// The environment variables that plant faults in a process that a test starts. They
// work only in the test binary.
const (
	// faultAt is before:K or after:K. SIGUSR1 arms it. From then on the process counts
	// its appends, and kills itself right before it sends the K-th, or after the K-th
	// was written and before any caller gets the result.
	faultAt = "LOTLINE_TEST_FAULT"
	// spaceLeft is by how many bytes the log's file may still grow, as on a disk that
	// is nearly full. The limit holds from SIGUSR1 to SIGUSR2.
	spaceLeft = "LOTLINE_TEST_SPACE"
	// clockFile names a file that holds by how much the clock is wrong. The process
	// reads it whenever it reads the clock.
	clockFile = "LOTLINE_TEST_CLOCK"
)

const (
	beforeAppend = "before"
	afterAppend  = "after"
)

// installFaults plants the faults that the environment asks for. The test binary calls
// it when it runs as the program.
func installFaults() {
	if fault := os.Getenv(faultAt); fault != "" {
		when, count, _ := strings.Cut(fault, ":")
		k, err := strconv.ParseInt(count, 10, 64)
		if err != nil {
			panic(err)
		}
		commandsLog = func(l commands.Log) commands.Log {
			d := &deadlyLog{Log: l, when: when}
			d.left.Store(k)
			arm := make(chan os.Signal, 1)
			signal.Notify(arm, syscall.SIGUSR1)
			go func() {
				<-arm
				d.armed.Store(true)
			}()
			return d
		}
	}
	if space := os.Getenv(spaceLeft); space != "" {
		left, err := strconv.ParseUint(space, 10, 64)
		if err != nil {
			panic(err)
		}
		go limitSpace(left)
	}
	if name := os.Getenv(clockFile); name != "" {
		clock = func() time.Time {
			text, err := os.ReadFile(name)
			if err != nil {
				panic(err)
			}
			wrong, err := time.ParseDuration(string(text))
			if err != nil {
				panic(err)
			}
			return time.Now().Add(wrong)
		}
	}
}

// limitSpace limits the size of files. Go ignores SIGXFSZ, so writes beyond the limit
// fail with EFBIG.
func limitSpace(left uint64) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGUSR2)
	var usual unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_FSIZE, &usual)
	for s := range signals {
		limit := usual
		if s == syscall.SIGUSR1 {
			limit.Cur = left
			for _, suffix := range []string{"", "-wal"} {
				if info, err := os.Stat(filepath.Join(os.Getenv("LOTLINE_DATA_DIR"), eventsFile+suffix)); err == nil {
					limit.Cur = max(limit.Cur, uint64(info.Size())+left)
				}
			}
		}
		if err = errors.Join(err, unix.Setrlimit(unix.RLIMIT_FSIZE, &limit)); err != nil {
			panic(err)
		}
	}
}

// deadlyLog kills the process at an append.
type deadlyLog struct {
	commands.Log
	when  string
	armed atomic.Bool
	left  atomic.Int64
}

func (d *deadlyLog) Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	if d.when == beforeAppend && d.reached() {
		killSelf()
	}
	after, position, err := d.Log.Append(ctx, stream, head, events)
	if d.when == afterAppend && err == nil && d.reached() {
		killSelf()
	}
	return after, position, err
}

func (d *deadlyLog) reached() bool { return d.armed.Load() && d.left.Add(-1) == 0 }

// killSelf ends the process as kill -9 does: it runs no deferred calls and no signal
// handlers.
func killSelf() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(fmt.Sprintf("kill -9: %v", err))
	}
	select {}
}

// wrongClock is the file that says by how much the clock of a process is wrong.
type wrongClock struct {
	t    *testing.T
	path string
}

func newWrongClock(t *testing.T) *wrongClock {
	t.Helper()
	c := &wrongClock{t, filepath.Join(t.TempDir(), "clock")}
	c.set(0)
	return c
}

// set makes the clock wrong by that much. It replaces the file as a whole, so that the
// process never reads half of it.
func (c *wrongClock) set(by time.Duration) {
	c.t.Helper()
	err := os.WriteFile(c.path+".new", []byte(by.String()), 0o600)
	if err == nil {
		err = os.Rename(c.path+".new", c.path)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// show sets the clock to the first of January of a year.
func (c *wrongClock) show(year int) {
	c.t.Helper()
	// A time.Duration holds at most 292 years.
	c.set(time.Until(time.Date(year, 1, 1, 0, 0, 10, 0, time.UTC)))
}

func (c *wrongClock) env() string { return clockFile + "=" + c.path }

// link is a Unix socket at path that forwards connections to another socket. While it
// is cut it accepts connections and closes them.
type link struct {
	path, to string
	listener net.Listener
	passing  sync.WaitGroup

	mu    sync.Mutex // guards the fields below
	conns map[net.Conn]struct{}
	down  bool
}

func newLink(t testing.TB, path, to string) *link {
	t.Helper()
	listener, err := listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l := &link{path: path, to: to, listener: listener, conns: map[net.Conn]struct{}{}}
	l.passing.Go(l.accept)
	t.Cleanup(func() {
		if err := listener.Close(); err != nil {
			t.Error(err)
		}
		l.cut()
		l.passing.Wait()
	})
	return l
}

func (l *link) accept() {
	for {
		from, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.passing.Go(func() { l.pass(from) })
	}
}

func (l *link) pass(from net.Conn) {
	defer from.Close()
	to, err := (&net.Dialer{}).DialContext(context.Background(), "unix", l.to)
	if err != nil {
		return
	}
	defer to.Close()
	l.mu.Lock()
	if l.down {
		l.mu.Unlock()
		return
	}
	l.conns[from] = struct{}{}
	l.mu.Unlock()
	// When one side closes, the other is closed too.
	end := func() { _ = errors.Join(to.Close(), from.Close()) }
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(to, from)
		end()
	})
	_, _ = io.Copy(from, to)
	end()
	both.Wait()
	l.mu.Lock()
	delete(l.conns, from)
	l.mu.Unlock()
}

// cut breaks the connections and refuses new ones until mend is called.
func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = true
	for c := range l.conns {
		_ = c.Close() // requests in flight must fail
	}
}

func (l *link) mend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.down = false
}
