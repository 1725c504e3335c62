package projections

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/tidwall/btree"

	"github.com/lotline/lotline/domain"
)

// ErrBehind says that the views did not reach a position in time.
var ErrBehind = errors.New("the read model is behind")

// Opener opens sealed secrets. It is called from several goroutines at once.
type Opener interface {
	Open(stream, eventType, field, sealed string) (string, error)
}

// Views are the read models. Follow and Passed are for one goroutine at a time,
// the one that reads the log; Run and Close are for one each; everything else may be
// called from any. What they return is never changed afterwards, and must not be.
type Views struct {
	log       zerolog.Logger
	file      *file
	histories Histories
	folds     *folds
	snapshots *snapshots
	// crowded says that more than crowd streams wait to be written.
	crowded chan struct{}

	writeFailures atomic.Int64
	seen          newest // of what the log is known to hold

	held shown // a state that nobody has been shown, if there is one; owned by Follow and Passed

	mu       sync.RWMutex // guards the fields below; only Follow, Passed and Quarantine change them once the views are open
	models   models
	position domain.Position   // of the last event that was handled
	passed   domain.Position   // nothing of ours stands between position and here
	dirty    map[*entry]*state // what changed since Run took these last
	waiters  *btree.BTreeG[*waiter]
	waited   uint64 // numbers the waiters
}

// crowd is how many changed streams are written at once rather than at the next
// second.
const crowd = 20_000

// Origin is the log that views are made from, as it is when they are opened.
type Origin struct {
	ID   string // tells it from every other log
	Head domain.Position
	Log  Histories
	Seen Mark // an event that the log is known to hold; zero for none
}

// Open loads the views from the file at path, which is made when there is none.
// What they miss of the log comes through Follow, from Position on. A file that
// cannot be used, because it is damaged, of another format, of another log or of
// more than the log holds, is put aside under a name ending in .unusable; then
// the views are empty and the whole log is to be followed.
//
// Restore comes next, before the first Follow.
func Open(path string, origin Origin, seals Opener, log zerolog.Logger) (*Views, error) {
	file, loaded, err := openFile(path, origin, seals, program(), log)
	if err != nil {
		return nil, err
	}
	v := newViews(file, loaded, log)
	for _, broken := range v.Quarantined() {
		v.logQuarantine(&broken)
	}
	v.histories = origin.Log
	v.seen.mark = origin.Seen
	v.seen.mark.Log = origin.ID
	v.snapshots = newSnapshots(path, origin.ID, seals)
	// The file may be a new one.
	if origin.Seen != (Mark{}) {
		if err := v.saveSeen(); err != nil {
			return nil, errors.Join(err, v.Close())
		}
	}
	return v, nil
}

func newViews(f *file, l loaded, log zerolog.Logger) *Views {
	return &Views{
		log:      log,
		file:     f,
		folds:    newFolds(),
		crowded:  make(chan struct{}, 1),
		models:   l.models,
		position: l.position,
		passed:   l.position,
		dirty:    map[*entry]*state{},
		waiters:  newTree(compareWaiters),
	}
}

// Close closes the file. What Run has not written by then is read from the log
// again.
func (v *Views) Close() error {
	v.folds.close()
	return v.file.close()
}

// Position is the place of the last event that was handled: following goes on
// behind it.
func (v *Views) Position() domain.Position {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.position
}

// Follow handles the next event of the log. One that was followed before is
// ignored. One that its stream's history refuses puts that stream into
// quarantine: from then on nothing is served from it and nothing more of it is
// believed.
//
// What was appended together is shown together: an event behind which more is due at
// its own time waits for what follows, and Position with it. So does what
// participants do, of which many events may come at once: it is shown when another
// stream is followed, when Passed or CaughtUp say that no more is at hand, and after
// a few hundred events.
func (v *Views) Follow(r *domain.Recorded) {
	v.Saw(r.Stream, r.Revision, r.ID, r.Position, r.RecordedAt)
	if !v.position.Before(r.Position) || !v.held.position.Before(r.Position) {
		return
	}
	if v.held.state != nil && v.held.state.stream() != r.Stream {
		// There was no more to it.
		v.show(v.held)
	}
	next := shown{position: r.Position, events: v.held.events + 1}
	if !projected(r.Stream) {
		v.show(next)
		return
	}
	was, mine := v.held.state, true
	if next.entry = v.held.entry; next.entry == nil {
		next.entry, was = v.find(r.Stream)
		mine = false
	}
	next.state = was.after(r, mine)
	if next.state.partial() || next.state.distribution() != nil && !domain.ChangesObject(r.Event) && next.events < heldAtOnce {
		v.held = next
		return
	}
	v.show(next)
}

// heldAtOnce is how many events are held back for more to come.
const heldAtOnce = 256

// shown is what the next events lead to: the state of an entry, unless they are not
// for the views.
type shown struct {
	entry    *entry
	state    *state
	position domain.Position
	events   int
}

// show makes it what queries are answered from.
func (v *Views) show(s shown) {
	v.held = shown{}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.position = s.position
	v.reach(s.position)
	if s.entry == nil {
		return
	}
	if e, known := v.models.streams[s.state.stream()]; known && e.current.broken != nil {
		// Quarantine came first. The only thing left to learn is whose stream it is.
		s.entry, s.state = e, e.current.ownedBy(s.state.owner)
	}
	if s.state == s.entry.current {
		return
	}
	v.publish(s.entry, s.state)
	if len(v.dirty) >= crowd {
		signal(v.crowded)
	}
}

// find returns the entry of a stream and its state.
func (v *Views) find(stream string) (*entry, *state) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e := v.models.find(stream)
	return e, e.current
}

// publish makes next the state of an entry, and has it written. The caller holds mu.
func (v *Views) publish(e *entry, next *state) {
	if next.broken != nil && e.current.broken == nil {
		v.logQuarantine(next.broken)
	}
	v.models.publish(e, next)
	v.dirty[e] = next
}

// projected reports whether the stream is one that the views are about.
func projected(stream string) bool {
	k := domain.StreamKind(stream)
	return k.Distribution() || k == domain.KindOrganization || stream == domain.SigningStream
}

// Passed says that the log was read up to p, and that what was not given to
// Follow is not for the views. It lets those go on who wait for p; following
// does not resume there.
func (v *Views) Passed(p domain.Position) {
	if s := v.held.state; s != nil {
		if !v.held.position.Before(p) && s.partial() {
			// Nobody is shown it, but if its writer has died somebody has to finish it.
			v.models.newWakes.tell(s.nextWake())
			return
		}
		v.show(v.held)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.reach(p)
}

// CaughtUp says that the log ends behind the last event. A state that waits for what
// follows is shown then, as the one that a crash between the parts of an outcome
// left: its wake is due, and so a timer goes on with it.
func (v *Views) CaughtUp() {
	if v.held.state != nil {
		v.show(v.held)
	}
}

// reach lets those go on who wait for p or an earlier position.
func (v *Views) reach(p domain.Position) {
	if !v.passed.Before(p) {
		return
	}
	v.passed = p
	for {
		w, ok := v.waiters.Min()
		if !ok || p.Before(w.position) {
			return
		}
		v.waiters.PopMin()
		close(w.reached)
	}
}

// waiter is a call of WaitFor.
type waiter struct {
	position domain.Position
	number   uint64 // tells those apart who wait for one position
	reached  chan struct{}
}

func compareWaiters(a, b *waiter) int {
	switch {
	case a.position.Before(b.position):
		return -1
	case b.position.Before(a.position):
		return 1
	}
	return cmp.Compare(a.number, b.number)
}

// WaitFor returns when everything up to p is in the views, or ErrBehind when ctx
// ends first.
func (v *Views) WaitFor(ctx context.Context, p domain.Position) error {
	if v.reached(p) {
		return nil
	}
	w := v.wait(p)
	select {
	case <-w.reached:
		return nil
	case <-ctx.Done():
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, waiting := v.waiters.Delete(w); !waiting {
		return nil
	}
	return ErrBehind
}

func (v *Views) reached(p domain.Position) bool {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return !v.passed.Before(p)
}

func (v *Views) wait(p domain.Position) *waiter {
	v.mu.Lock()
	defer v.mu.Unlock()
	w := &waiter{position: p, number: v.waited, reached: make(chan struct{})}
	v.waited++
	if v.passed.Before(p) {
		v.waiters.Set(w)
	} else {
		close(w.reached)
	}
	return w
}
