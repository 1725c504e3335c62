package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lotline/lotline/domain"
)

// Restore folds the distributions anew that are under way: the file does not hold
// their participants. It comes before the first Follow. After an error it can be called
// again, and goes on where it stopped.
func (v *Views) Restore(ctx context.Context) error {
	v.mu.RLock()
	var unfinished []*streamSlot
	for _, slot := range v.indexes.streams {
		if d := slot.current.distribution(); d != nil && slot.current.broken == nil && !d.ParticipantsDone() && !d.KnowsParticipants() {
			unfinished = append(unfinished, slot)
		}
	}
	v.mu.RUnlock()
	slots := make(chan struct{}, foldsAtOnce)
	var working sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed []error
	for _, slot := range unfinished {
		slots <- struct{}{}
		working.Go(func() {
			defer func() { <-slots }()
			if err := v.restore(ctx, slot); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	working.Wait()
	return errors.Join(failed...)
}

func (v *Views) restore(ctx context.Context, slot *streamSlot) error {
	was := slot.current
	last := was.history.Head.Revision
	// The server has just said that the log holds all that the views do.
	h, err := v.fold(ctx, was, last, domain.Once)
	var next *state
	broken, isBroken := errors.AsType[*domain.HistoryError](err)
	switch {
	case isBroken:
		next = was.quarantined(broken)
	case err != nil:
		return fmt.Errorf("restore %s: %w", was.stream(), err)
	default:
		next = newState(h)
		next.folded = true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.publish(slot, next)
	return nil
}
