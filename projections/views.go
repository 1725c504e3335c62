package projections

import (
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
	backlogFull chan struct{}

	writeFailures atomic.Int64
	seen          newest // of what the log is known to hold

	held unpublished // a state that nobody has been shown, if there is one; owned by Follow and Passed

	mu       sync.RWMutex // guards the fields below; only Follow, Passed and Quarantine change them once the views are open
	indexes  indexes
	position domain.Position        // of the last event that was handled
	passed   domain.Position        // nothing of ours stands between position and here
	dirty    map[*streamSlot]*state // what changed since Run took these last
	waiters  *btree.BTreeG[*waiter]
	waited   uint64 // numbers the waiters
}

// crowd is how many changed streams are written at once rather than at the next
// second.
const backlogLimit = 20_000

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
		log:         log,
		file:        f,
		folds:       newFolds(),
		backlogFull: make(chan struct{}, 1),
		indexes:     l.indexes,
		position:    l.position,
		passed:      l.position,
		dirty:       map[*streamSlot]*state{},
		waiters:     newTree(compareWaiters),
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
