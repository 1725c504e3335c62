// Package backoff spaces out repeated attempts: every pause is twice as long as the
// one before it, up to a limit.
package backoff

import (
	"context"
	"time"
)

// Backoff computes the pauses between attempts at one task. It is for one goroutine.
type Backoff struct {
	First time.Duration // the pause after the first failure
	Limit time.Duration // the longest pause, unless First or Raise asks for a longer one

	next time.Duration // 0 for First
}

// Next returns the pause before the next attempt.
func (b *Backoff) Next() time.Duration {
	pause := max(b.next, b.First)
	b.next = min(2*pause, b.Limit)
	return pause
}

// Raise makes the next pause at least as long as pause, even if that exceeds Limit.
func (b *Backoff) Raise(pause time.Duration) { b.next = max(b.next, b.First, pause) }

// Reset makes First the next pause. Call it after a success.
func (b *Backoff) Reset() { b.next = 0 }

// Sleep waits for d, or until ctx ends. It reports whether it waited for all of d.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
