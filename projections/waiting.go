package projections

import (
	"cmp"
	"context"

	"github.com/lotline/lotline/domain"
)

// reach wakes the calls of WaitFor for p and earlier positions. The caller holds mu.
func (v *Views) reach(p domain.Position) {
	if !v.passed.Before(p) {
		return
	}
	v.passed = p
	for {
		w, ok := v.waiters.Min()
		if !ok || p.Before(w.position) {
			return
		}
		v.waiters.PopMin()
		close(w.reached)
	}
}

// waiter is a call of WaitFor that waits.
type waiter struct {
	position domain.Position
	number   uint64 // tells apart the waiters for one position
	reached  chan struct{}
}

func compareWaiters(a, b *waiter) int {
	switch {
	case a.position.Before(b.position):
		return -1
	case b.position.Before(a.position):
		return 1
	}
	return cmp.Compare(a.number, b.number)
}

// WaitFor returns when the views have handled all events up to p. It returns ErrBehind when
// ctx ends first.
func (v *Views) WaitFor(ctx context.Context, p domain.Position) error {
	if v.reached(p) {
		return nil
	}
	w := v.wait(p)
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, waiting := v.waiters.Delete(w); !waiting {
		return nil
	}
	return ErrBehind
}

func (v *Views) reached(p domain.Position) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return !v.passed.Before(p)
}

// wait adds a waiter for p. If p is reached already, the waiter need not wait.
func (v *Views) wait(p domain.Position) *waiter {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := &waiter{position: p, number: v.waited, reached: make(chan struct{})}
	v.waited++
	if v.passed.Before(p) {
		v.waiters.Set(w)
	} else {
		close(w.reached)
	}
	return w
}
