package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// The variables by which a test asks for faults in a process that it starts.
// They work in the test binary only.
const (
	// faultAt is before:K or after:K. SIGUSR1 arms it, and then the process kills
	// itself right before its K-th append is sent, or after it was done and before
	// anybody is told.
	faultAt = "LOTLINE_TEST_FAULT"
	// spaceLeft is how many bytes more than it has now the log's file may have
	// from SIGUSR1 on, as on a disk that is nearly full, until SIGUSR2.
	spaceLeft = "LOTLINE_TEST_SPACE"
	// clockFile names a file that holds by how much the clock is wrong. It is read
	// whenever the time is.
	clockFile = "LOTLINE_TEST_CLOCK"
)

const (
	beforeAppend = "before"
	afterAppend  = "after"
)

// installFaults is called in a process that runs as the program.
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

// limitSpace bounds the size of files. Go takes no notice of SIGXFSZ, so writes
// behind the bound end with EFBIG.
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

// deadlyLog ends the process at an append.
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

// killSelf is kill -9: no deferred call, no signal handler.
func killSelf() {
	if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
		panic(fmt.Sprintf("kill -9: %v", err))
	}
	select {}
}
