package projections

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

const (
	// foldsAtOnce is how many histories are folded at the same time.
	foldsAtOnce = 2
	// foldWait is how long a read waits for a fold. Then it gets ErrBehind, and the fold
	// continues for later reads.
	foldWait = 2 * time.Second
	// maxFolded is how many entries the folded distributions in memory may have together.
	// The last one is kept even if it alone has more.
	maxFolded = 1_000_000
	// foldTimeout bounds one fold.
	foldTimeout = 10 * time.Minute
)

// distribution returns the distribution of a state, also a deleted one, or nil when there is
// none.
func (s *state) distribution() domain.Distribution {
	if s == nil || s.history == nil {
		return nil
	}
	d, _ := s.history.Aggregate.(domain.Distribution)
	return d
}

// Participants returns a distribution that knows its participants. While something can still
// happen to the participants, they are in memory. After that, a call folds them from the log,
// and the distributions that were used last stay in memory. Errors: ErrNotFound, the
// *domain.HistoryError of a stream in quarantine, and ErrBehind when the fold takes longer
// than 2 seconds. The caller must not change the distribution.
func (v *Views) Participants(ctx context.Context, organization, id domain.ID) (domain.Distribution, error) {
	row, err := v.Get(organization, id)
	if err != nil {
		return nil, err
	}
	if row.Distribution.KnowsParticipants() {
		return row.Distribution, nil
	}
	return v.folds.get(ctx, func(ctx context.Context) (*domain.History, error) {
		h, err := v.fold(ctx, row.state, wholeStream, ReadAgain(ctx))
		if broken, ok := errors.AsType[*domain.HistoryError](err); ok {
			v.Quarantine(broken)
		}
		return h, err
	}, id.Stream())
}

// folds are the distributions that Participants has folded. Nothing more happens to their
// participants, so they do not change any more.
type folds struct {
	ctx     context.Context // close cancels it
	cancel  context.CancelFunc
	working sync.WaitGroup
	limit   chan struct{} // holds one value for each fold in progress
	max     int64         // maxFolded; tests change it

	mu     sync.Mutex // guards the fields below
	closed bool
	known  map[string]*foldedDistribution
	order  []string // the streams of known, the least recently used first
}

// folding folds a whole stream.
type folding func(ctx context.Context) (*domain.History, error)

// foldedDistribution is a fold, done or in progress.
type foldedDistribution struct {
	done         chan struct{} // closed when the fields below are set
	distribution domain.Distribution
	err          error
}

func newFolds() *folds {
	f := &folds{limit: make(chan struct{}, foldsAtOnce), max: maxFolded, known: map[string]*foldedDistribution{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// close cancels the folds in progress and waits for them to end.
func (f *folds) close() {
	f.cancel()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.working.Wait()
}

// get returns the folded distribution of a stream. It waits for foldWait at most.
func (f *folds) get(ctx context.Context, by folding, stream string) (domain.Distribution, error) {
	d := f.ask(by, stream)
	wait := time.NewTimer(foldWait)
	defer wait.Stop()
	select {
	case <-d.done:
		return d.distribution, d.err
	case <-wait.C:
		return nil, ErrBehind
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ask returns the fold of a stream. It starts one when there is none.
func (f *folds) ask(by folding, stream string) *foldedDistribution {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.known[stream]
	if !ok && f.closed {
		d = &foldedDistribution{done: make(chan struct{}), err: context.Canceled}
		close(d.done)
		return d
	}
	if !ok {
		d = &foldedDistribution{done: make(chan struct{})}
		f.known[stream] = d
		f.working.Go(func() { f.make(by, stream, d) })
	}
	f.touch(stream)
	return d
}

// touch makes stream the most recently used one.
func (f *folds) touch(stream string) {
	f.order = append(without(f.order, stream), stream)
}

func without(order []string, stream string) []string {
	return slices.DeleteFunc(order, func(s string) bool { return s == stream })
}

// make folds a stream. It continues when the reads that wait for it give up.
func (f *folds) make(by folding, stream string, d *foldedDistribution) {
	f.limit <- struct{}{}
	defer func() { <-f.limit }()
	ctx, cancel := context.WithTimeout(f.ctx, foldTimeout)
	defer cancel()
	h, err := by(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(d.done)
	if d.err = err; err != nil {
		// The store may have failed, so the next read tries again.
		f.drop(stream)
		return
	}
	d.distribution = h.Aggregate.(domain.Distribution)
	f.shrink()
}

// shrink drops the least recently used distributions until the others have at most max
// entries.
func (f *folds) shrink() {
	var entries int64
	latest := slices.Clone(f.order)
	slices.Reverse(latest)
	for i, stream := range latest {
		d := f.known[stream]
		if d.distribution == nil {
			continue // in progress
		}
		if entries += d.distribution.Entries(); entries > f.max && i > 0 {
			f.drop(stream)
		}
	}
}

func (f *folds) drop(stream string) {
	delete(f.known, stream)
	f.order = without(f.order, stream)
}
