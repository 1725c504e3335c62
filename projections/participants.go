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
	// foldsAtOnce bounds the histories that are folded at the same time.
	foldsAtOnce = 2
	// foldWait is how long a read waits for one. Then it is refused, and the folding
	// goes on for whoever asks again.
	foldWait = 2 * time.Second
	// maxFolded is how many entries the folded distributions may have together, beside
	// the last one.
	maxFolded = 1_000_000
	// foldTimeout bounds one of them.
	foldTimeout = 10 * time.Minute
)

// distribution is the distribution that a state is about, a deleted one as well, or
// nil.
func (s *state) distribution() domain.Distribution {
	if s == nil || s.history == nil {
		return nil
	}
	d, _ := s.history.Aggregate.(domain.Distribution)
	return d
}

// Participants returns a distribution that knows its participants. While something
// can happen to them they are in memory. Later they are folded from the log when a
// caller asks for them, and dropped when callers ask for others. Errors: ErrNotFound,
// the *domain.HistoryError of a stream in quarantine, and ErrBehind when the fold
// takes longer than a read waits. The caller must not change the distribution.
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

// folds are the distributions that were folded on demand. Nothing more happens to
// their participants, so they do not change any more.
type folds struct {
	ctx     context.Context // ended by close
	cancel  context.CancelFunc
	working sync.WaitGroup
	slots   chan struct{} // one for each that is under way
	max     int64         // maxFolded, but for tests

	mu     sync.Mutex // guards the fields below
	closed bool
	known  map[string]*foldedDistribution
	order  []string // the least recently asked for first
}

// folding folds a whole stream.
type folding func(ctx context.Context) (*domain.History, error)

// foldedDistribution is one fold, or one on its way.
type foldedDistribution struct {
	done         chan struct{} // closed when the fields below are set
	distribution domain.Distribution
	err          error
}

func newFolds() *folds {
	f := &folds{slots: make(chan struct{}, foldsAtOnce), max: maxFolded, known: map[string]*foldedDistribution{}}
	f.ctx, f.cancel = context.WithCancel(context.Background())
	return f
}

// close ends what is under way.
func (f *folds) close() {
	f.cancel()
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.working.Wait()
}

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

// ask returns the fold of a stream, which it starts when there is none.
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

// touch makes stream the one that was asked for last.
func (f *folds) touch(stream string) {
	f.order = append(without(f.order, stream), stream)
}

func without(order []string, stream string) []string {
	return slices.DeleteFunc(order, func(s string) bool { return s == stream })
}

// make folds a stream. It ends by itself: whoever waits for it may not.
func (f *folds) make(by folding, stream string, d *foldedDistribution) {
	f.slots <- struct{}{}
	defer func() { <-f.slots }()
	ctx, cancel := context.WithTimeout(f.ctx, foldTimeout)
	defer cancel()
	h, err := by(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	defer close(d.done)
	if d.err = err; err != nil {
		// It may be the store; whoever asks again finds out.
		f.drop(stream)
		return
	}
	d.distribution = h.Aggregate.(domain.Distribution)
	f.shrink()
}

// shrink drops the distributions that were asked for longest ago.
func (f *folds) shrink() {
	var entries int64
	latest := slices.Clone(f.order)
	slices.Reverse(latest)
	for i, stream := range latest {
		d := f.known[stream]
		if d.distribution == nil {
			continue // on its way
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
