package projections

import (
	"context"
	"errors"
	"iter"
	"math"
	"time"

	"github.com/lotline/lotline/domain"
)

// Histories reads the events of a stream after a revision from the log.
type Histories interface {
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

// wholeStream, as the last revision to fold, means to the end of the stream.
const wholeStream domain.Revision = math.MaxInt64

// ReadAgain returns a domain.Again for domain.ReadWhole. It waits for a server that may lag
// behind another one, one second at most.
func ReadAgain(ctx context.Context) domain.Again {
	const attempts, pause = 20, 50 * time.Millisecond
	return func(attempt int) (bool, error) {
		wait := time.NewTimer(pause)
		defer wait.Stop()
		select {
		case <-wait.C:
			return attempt < attempts, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		}
	}
}

// fold folds the stream of known up to the revision last. It begins with a snapshot if there
// is a usable one. The log must still hold the last event of known: otherwise the error is a
// *domain.HistoryError. again is passed to domain.ReadWhole.
func (v *Views) fold(ctx context.Context, known *state, last domain.Revision, again domain.Again) (*domain.History, error) {
	stream := known.stream()
	h := v.snapshots.load(stream)
	usable := h != nil && h.Head.Revision <= last
	if usable && last == wholeStream {
		var err error
		if usable, err = v.inLog(ctx, h); err != nil {
			return nil, err
		}
	}
	if !usable {
		h = domain.NewHistory(stream)
	}
	from := h.Head.Revision
	err := v.foldOn(ctx, h, known, last, again)
	if _, broken := errors.AsType[*domain.HistoryError](err); broken && from != domain.NoStream {
		// The snapshot may be wrong, not the history.
		h = domain.NewHistory(stream)
		err = v.foldOn(ctx, h, known, last, again)
	}
	if err != nil {
		return nil, err
	}
	if h.Head.Revision-from > longFold {
		v.keep(h)
	}
	return h, nil
}

// inLog reports whether the log holds the last event of a snapshot. Without this check, a
// stream that is shorter than the snapshot would not contradict it.
func (v *Views) inLog(ctx context.Context, h *domain.History) (bool, error) {
	for r, err := range v.histories.Read(ctx, h.Stream, h.Head.Revision-1) {
		if _, cut := errors.AsType[*domain.HistoryError](err); cut {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		_, hash, ok := domain.SplitHash(r.RawMetadata)
		return ok && r.Revision == h.Head.Revision && hash == h.Head.Hash, nil
	}
	return false, nil
}

// foldOn applies to h the events of its stream up to the revision last.
func (v *Views) foldOn(ctx context.Context, h *domain.History, known *state, last domain.Revision, again domain.Again) error {
	if h.Head.Revision == last {
		return known.contradictedBy(h)
	}
	read := func(after domain.Revision) iter.Seq2[*domain.Recorded, error] {
		return v.histories.Read(ctx, h.Stream, after)
	}
	for r, err := range domain.ReadWhole(h.Stream, h.Head.Revision, known.history.Head.Revision, read, again) {
		if err == nil {
			err = h.Apply(r)
		}
		if err != nil {
			return err
		}
		if r.Revision == last {
			break
		}
	}
	return known.contradictedBy(h)
}
