package projections

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

// Histories reads what the log holds of a stream, from the revision behind after on.
type Histories interface {
	Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error]
}

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
		h, err := v.fold(ctx, row.state, all, ReadAgain(ctx))
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

// all is the revision up to which a whole stream is folded.
const all domain.Revision = math.MaxInt64

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

// ReadAgain is what domain.ReadWhole asks before it reads on: it waits for a
// server that seems to lag behind, one second at most.
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

// fold folds the stream of a state up to a revision, on from a snapshot if there is
// one. What the state holds has to be in it; again is that of domain.ReadWhole.
func (v *Views) fold(ctx context.Context, known *state, last domain.Revision, again domain.Again) (*domain.History, error) {
	stream := known.stream()
	h := v.snapshots.load(stream)
	usable := h != nil && h.Head.Revision <= last
	if usable && last == all {
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
		// It may be the snapshot that the history does not continue.
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

// inLog reports whether the log holds the last event of a snapshot. A stream that is
// read to its end, and is shorter than the snapshot, has no event that contradicts
// the snapshot.
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

func (v *Views) foldOn(ctx context.Context, h *domain.History, known *state, last domain.Revision, again domain.Again) error {
	if h.Head.Revision == last {
		return known.keptBy(h)
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
	return known.keptBy(h)
}

// Restore folds the distributions anew that are under way: the file does not hold
// their participants. It comes before the first Follow. After an error it can be called
// again, and goes on where it stopped.
func (v *Views) Restore(ctx context.Context) error {
	v.mu.RLock()
	var left []*entry
	for _, e := range v.models.streams {
		if d := e.current.distribution(); d != nil && e.current.broken == nil && !d.ParticipantsDone() && !d.KnowsParticipants() {
			left = append(left, e)
		}
	}
	v.mu.RUnlock()
	slots := make(chan struct{}, foldsAtOnce)
	var working sync.WaitGroup
	var mu sync.Mutex // guards failed
	var failed []error
	for _, e := range left {
		slots <- struct{}{}
		working.Go(func() {
			defer func() { <-slots }()
			if err := v.restore(ctx, e); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	working.Wait()
	return errors.Join(failed...)
}

func (v *Views) restore(ctx context.Context, e *entry) error {
	was := e.current
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
	v.publish(e, next)
	return nil
}
