package projections

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/tidwall/btree"

	"github.com/lotline/lotline/domain"
)

// ErrBehind says that the views do not have the wanted events yet.
var ErrBehind = errors.New("the read model is behind")

// Opener opens sealed secrets. It is called from several goroutines at once.
type Opener interface {
	Open(stream, eventType, field, sealed string) (string, error)
}

// Views are the read models. One goroutine at a time may call Follow, Passed, CaughtUp and
// WakeBefore: the one that reads the log. Run and Close may be called once. All other methods
// are safe for concurrent use. The views never change a value that they have returned, and
// the caller must not change it either.
type Views struct {
	log       zerolog.Logger
	file      *file
	histories Histories
	folds     *folds
	snapshots *snapshots
	// backlogFull receives a value when backlogLimit streams wait to be written.
	backlogFull chan struct{}

	writeFailures atomic.Int64
	seen          newest // the newest event that the log is known to hold

	held unpublished // the state that is held back, if there is one; owned by the goroutine that calls Follow

	mu       sync.RWMutex // guards the fields below; only the goroutine that calls Follow changes position and passed
	indexes  indexes
	position domain.Position        // of the last event that is visible
	passed   domain.Position        // the log has no events for the views between position and passed
	dirty    map[*streamSlot]*state // the states that changed since Run took them last
	waiters  *btree.BTreeG[*waiter]
	waited   uint64 // how many waiters there were, to number them
}

// backlogLimit is the number of changed streams at which Run writes at once, without waiting
// for the second to end.
const backlogLimit = 20_000

// Origin is the log that the views follow, as it is when they are opened.
type Origin struct {
	ID   string // the log's id, which no other log has
	Head domain.Position
	Log  Histories
	Seen Mark // an event that the log is known to hold, or zero
}

// Open loads the views from the file at path. When there is no file, it creates one and the
// views are empty. The caller then gives Follow the events after Position.
//
// Open cannot use a file that is damaged, of another format or of another log, or that holds
// more than the log does. It renames such a file to a name that ends in .unusable, and begins
// with empty views.
//
// The caller must call Restore before the first Follow.
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
	// A new file has no mark yet.
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

// Close closes the file. The next start reads from the log the events that Run has not
// written.
func (v *Views) Close() error {
	v.folds.close()
	return v.file.close()
}

// Position returns the position of the last event that is visible. Following resumes after
// it.
func (v *Views) Position() domain.Position {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return v.position
}
