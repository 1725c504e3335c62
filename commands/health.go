package commands

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lotline/lotline/domain"
)

// unhealthyFor is how long the handler is unhealthy after an append that failed.
const unhealthyFor = 30 * time.Second

// health remembers why the last append failed. It is healthy when the last append
// succeeded, and as the zero value.
type health struct{ fault atomic.Pointer[appendFault] }

type appendFault struct {
	err error
	at  time.Time
}

func (h *health) record(err error, now time.Time) {
	_, broken := errors.AsType[*domain.HistoryError](err)
	switch {
	case errors.Is(err, domain.ErrWrongRevision) || broken:
		// The store read the stream and wrote nothing. That does not say whether it
		// could have written.
	case err != nil:
		h.fault.Store(&appendFault{err, now})
	case h.fault.Load() != nil:
		h.fault.Store(nil)
	}
}

func (h *health) err(now time.Time) error {
	f := h.fault.Load()
	if f == nil || now.Sub(f.at) > unhealthyFor {
		return nil
	}
	return fmt.Errorf("the last write failed: %w", f.err)
}
