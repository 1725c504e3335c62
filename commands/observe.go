package commands

import (
	"context"
	"time"

	"github.com/lotline/lotline/domain"
)

// Observer is told of the commands that a Handler carries out. Several goroutines
// call it at once, and commands wait for it.
type Observer interface {
	// Begun is told of a command that comes in. The command goes on with the context
	// that it returns; the metadata of the events that follow from it has traceparent,
	// if there is one.
	Begun(ctx context.Context, k domain.Kind, c domain.Command) (_ context.Context, traceparent string)
	// Answered is told how a command ended, with the context that Begun returned.
	Ended(ctx context.Context, a Outcome)
	// Appended is told of each append.
	Appended(a Append)
}

// Answer is how a command ended: as Handle and Create say by Replayed and Err.
type Outcome struct {
	Kind     domain.Kind // of the stream
	Command  domain.Command
	Took     time.Duration
	Replayed bool
	Err      error
}

// Append is one call to the log, for all commands that were decided together.
type Append struct {
	Kind     domain.Kind       // of the stream
	Commands []context.Context // of the commands that wait for it, as Begun returned them
	Events   int
	Attempt  int // from 1; more when the commands had to be decided again
	Took     time.Duration
	Err      error // as Log's
}

// Observe tells o of what happens from now on. It comes before the first command.
func (h *Handler) Observe(o Observer) { h.observer = o }

// observed tells the observer, if there is one, of a command that carry carries out.
func (h *Handler) withObserver(ctx context.Context, k domain.Kind, c domain.Command, caller *Caller, carry func(context.Context) (Result, error)) (Result, error) {
	if h.observer == nil {
		return carry(ctx)
	}
	started := h.clock()
	ctx, caller.Traceparent = h.observer.Begun(ctx, k, c)
	result, err := carry(ctx)
	h.observer.Ended(ctx, Outcome{k, c, h.clock().Sub(started), result.Replayed, err})
	return result, err
}

// appended tells the observer, if there is one, of an append for a.
func (w *writer) observeAppend(a *attempt, number int, took time.Duration, err error) {
	if w.handler.observer == nil {
		return
	}
	var waiting []context.Context
	for _, r := range a.replies {
		if r.request.Command != nil {
			waiting = append(waiting, r.request.ctx)
		}
	}
	if a.unfinished != nil && a.unfinished.Command != nil {
		waiting = append(waiting, a.unfinished.ctx)
	}
	w.handler.observer.Appended(Append{domain.StreamKind(w.stream), waiting, len(a.events), number, took, err})
}

// Occupancy is how much a Handler holds.
type Occupancy struct {
	Writers int // streams whose state is in memory, or on its way there
	Waiting int // commands that no writer has taken up yet
}

// Occupancy returns how much h holds now.
func (h *Handler) Occupancy() Occupancy {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Occupancy{len(h.writers), h.waiting}
}
