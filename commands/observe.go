package commands

import (
	"context"
	"time"

	"github.com/lotline/lotline/domain"
)

// Observer is told of the commands that a Handler carries out. Its methods are called
// from several goroutines at once, and commands wait until they return.
type Observer interface {
	// Begun is called when a command comes in. The handler continues with the context
	// that Begun returns, and writes traceparent into the metadata of the command's
	// events, unless it is "".
	Begun(ctx context.Context, k domain.Kind, c domain.Command) (_ context.Context, traceparent string)
	// Ended is called when a command has ended, with the context that Begun returned.
	Ended(ctx context.Context, o Outcome)
	// Appended is called after each append.
	Appended(a Append)
}

// Outcome is how a command ended. Replayed and Err are those that Handle and Create
// return.
type Outcome struct {
	Kind     domain.Kind // of the stream
	Command  domain.Command
	Took     time.Duration
	Replayed bool
	Err      error
}

// Append is one call of Log.Append, for all commands that were decided together.
type Append struct {
	Kind     domain.Kind       // of the stream
	Commands []context.Context // of the commands in the append, as Begun returned them
	Events   int
	Attempt  int // 1, or more when the commands had to be decided again
	Took     time.Duration
	Err      error // the one that Log.Append returned
}

// Observe makes the handler tell o of its commands and appends. It must be called before
// the first command.
func (h *Handler) Observe(o Observer) { h.observer = o }

// withObserver carries out a command by calling carryOut, and tells the observer of it
// if there is one.
func (h *Handler) withObserver(ctx context.Context, k domain.Kind, c domain.Command, caller *Caller, carryOut func(context.Context) (Result, error)) (Result, error) {
	if h.observer == nil {
		return carryOut(ctx)
	}
	started := h.clock()
	ctx, caller.Traceparent = h.observer.Begun(ctx, k, c)
	result, err := carryOut(ctx)
	h.observer.Ended(ctx, Outcome{k, c, h.clock().Sub(started), result.Replayed, err})
	return result, err
}

// observeAppend tells the observer, if there is one, of the append of a.
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
	if a.continued != nil && a.continued.Command != nil {
		waiting = append(waiting, a.continued.ctx)
	}
	w.handler.observer.Appended(Append{domain.StreamKind(w.stream), waiting, len(a.events), number, took, err})
}

// Occupancy is how much a Handler holds in memory.
type Occupancy struct {
	Writers int // streams whose state is in memory or being read
	Waiting int // commands that no writer has taken yet
}

// Occupancy returns how much h holds now.
func (h *Handler) Occupancy() Occupancy {
	h.mu.Lock()
	defer h.mu.Unlock()
	return Occupancy{len(h.writers), h.waiting}
}
