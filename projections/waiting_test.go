package projections

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestWaitFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, v := newLog(), emptyViews()
		org := l.id("org")
		for range 4 {
			l.create(t, org, domain.KindQueue, nil)
		}
		wait := func(p domain.Position) chan error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			done := make(chan error, 1)
			go func() {
				defer cancel()
				done <- v.WaitFor(ctx, p)
			}()
			synctest.Wait()
			return done
		}
		at := func(i int) domain.Position { return l.events[i].Position }
		second, again, fourth := wait(at(1)), wait(at(1)), wait(at(3))
		late := wait(domain.Position{Commit: at(3).Commit + 1})

		v.Follow(l.events[0])
		synctest.Wait()
		if len(second)+len(again)+len(fourth) != 0 {
			t.Fatal("woken too early")
		}
		v.Follow(l.events[1])
		synctest.Wait()
		if len(second) != 1 || len(again) != 1 || len(fourth) != 0 {
			t.Fatal("the second event does not wake its waiters, or wakes others")
		}
		if err := errors.Join(<-second, <-again); err != nil {
			t.Fatal(err)
		}
		v.Passed(at(3))
		if err := <-fourth; err != nil {
			t.Fatal(err)
		}
		if v.Position() != at(1) {
			t.Fatalf("following would resume at %v", v.Position())
		}
		if err := v.WaitFor(t.Context(), at(2)); err != nil {
			t.Fatal(err)
		}
		if err := <-late; !errors.Is(err, ErrBehind) || errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		if n := v.waiters.Len(); n != 0 {
			t.Fatalf("%d still wait", n)
		}
	})
}
