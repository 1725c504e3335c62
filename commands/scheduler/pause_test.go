package scheduler

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
)

// While the clock is wrong, the scheduler sends nothing. When it is right again, the
// scheduler sends Advance within a second to the streams that are due by it, although their
// wakes were far ahead before.
func TestScheduler_doesNothingWhileTheClockIsWrong(t *testing.T) {
	t.Parallel()
	for name, by := range map[string]time.Duration{"ahead": time.Hour, "behind": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := newFakeNode()
				var wrong atomic.Int64
				s := New(n, n, func() time.Time { return time.Now().Add(time.Duration(wrong.Load())) }, zerolog.Nop())
				s.PauseWhile(func() error {
					if wrong.Load() != 0 {
						return errors.New("it is wrong")
					}
					return nil
				})
				n.set(a, n.in(10*time.Minute))
				stop := running(s)
				defer stop()
				pass(time.Minute)
				wrong.Store(int64(by))
				pass(9*time.Minute + 500*time.Millisecond)
				if asked := n.noted(); len(asked) > 0 {
					t.Errorf("with a wrong clock it calls %v", asked)
				}
				wrong.Store(0)
				pass(time.Second)
				if asked := n.noted(); !slices.ContainsFunc(asked, func(n string) bool { return n == "advance "+a+" at 10m0.5s" || n == "advance "+a+" at 10m1s" }) {
					t.Errorf("with the right clock it calls %v", asked)
				}
			})
		})
	}
}
