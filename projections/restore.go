package projections

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/lotline/lotline/domain"
)

// Restore folds each distribution in whose participants something can still happen, because
// the file does not hold participants. It must be called before the first Follow. After an
// error it can be called again, and continues with the distributions that are left.
func (v *Views) Restore(ctx context.Context) error {
	v.mu.RLock()
	var unfinished []*streamSlot
	for _, slot := range v.indexes.streams {
		if d := slot.current.distribution(); d != nil && slot.current.broken == nil && !d.ParticipantsDone() && !d.KnowsParticipants() {
			unfinished = append(unfinished, slot)
		}
	}
	v.mu.RUnlock()
	limit := make(chan struct{}, foldsAtOnce)
	var working sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed []error
	for _, slot := range unfinished {
		limit <- struct{}{}
		working.Go(func() {
			defer func() { <-limit }()
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

// restore folds the distribution of a slot. A damaged history puts it into quarantine.
func (v *Views) restore(ctx context.Context, slot *streamSlot) error {
	was := slot.current
	last := was.history.Head.Revision
	// The server has just said that the log reaches the views' position, so it does not lag
	// behind.
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
