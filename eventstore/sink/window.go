package sink

import (
	"slices"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

// Bounds of the window. Events that the bus does not take must not fill the memory: they
// can be read from the log.
const (
	windowEvents = 4096
	windowBytes  = 4 << 20
)

// chunk is how many events are taken from the window under one lock, and how many are
// read from the log between two pauses.
const chunk = 256

// window holds the newest events of the log.
type window struct {
	logEnd domain.Position // the end of the log when the window was made
	news   chan struct{}   // holds a value after an event was added

	mu     sync.Mutex // guards the fields below
	events []*domain.Recorded
	bytes  int
	floor  domain.Position // the window holds every event after it
	last   domain.Position
}

func newWindow(at domain.Position) *window {
	return &window{logEnd: at, news: make(chan struct{}, 1), floor: at, last: at}
}

func size(e *domain.Recorded) int { return len(e.Data) + len(e.RawMetadata) }

func (w *window) add(e *domain.Recorded) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.last.Before(e.Position) {
		return
	}
	w.last = e.Position
	w.events = append(w.events, e)
	w.bytes += size(e)
	for len(w.events) > windowEvents || w.bytes > windowBytes {
		oldest := w.events[0]
		w.floor = oldest.Position
		w.bytes -= size(oldest)
		w.events[0] = nil
		w.events = w.events[1:]
	}
	select {
	case w.news <- struct{}{}:
	default:
	}
}

func (w *window) newest() domain.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// after returns the first events after p. It reports false if the window no longer holds
// all of them.
func (w *window) after(p domain.Position) ([]*domain.Recorded, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p.Before(w.floor) {
		return nil, false
	}
	from := w.find(p)
	return slices.Clone(w.events[from:min(from+chunk, len(w.events))]), true
}

// oldest returns when the first event after p was recorded, or zero.
func (w *window) oldest(p domain.Position) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	if from := w.find(p); from < len(w.events) {
		return w.events[from].RecordedAt
	}
	return time.Time{}
}

// find returns the index of the first event after p. The caller holds the lock.
func (w *window) find(p domain.Position) int {
	from, _ := slices.BinarySearchFunc(w.events, p, func(e *domain.Recorded, p domain.Position) int {
		if p.Before(e.Position) {
			return 1
		}
		return -1
	})
	return from
}
