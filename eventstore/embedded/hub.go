package embedded

import "sync"

// hub signals followers of a stream, or of the whole log under the name "", that
// something was committed. It carries no events: each follower reads them at its own
// pace. So a slow follower delays nobody, and no follower misses or repeats an event
// between its history and the live events.
type hub struct {
	mu       sync.Mutex // guards watchers
	watchers map[string]map[*watcher]struct{}
}

// watcher receives a signal after each commit to its stream. Signals that it did not
// receive yet are merged into one.
type watcher struct {
	signal chan struct{}
}

// watch starts the signals of a new watcher, and stop ends them. Commits from before are
// not signalled, so a follower must read after it called watch.
func (h *hub) watch(stream string) (w *watcher, stop func()) {
	w = &watcher{signal: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watchers[stream] == nil {
		h.watchers[stream] = make(map[*watcher]struct{})
	}
	h.watchers[stream][w] = struct{}{}
	return w, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.watchers[stream], w)
		if len(h.watchers[stream]) == 0 {
			delete(h.watchers, stream)
		}
	}
}

func (h *hub) wake(touched []*head) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watchers) == 0 {
		return
	}
	h.wakeName("")
	for _, stream := range touched {
		h.wakeName(stream.name)
	}
}

func (h *hub) wakeName(stream string) {
	for w := range h.watchers[stream] {
		select {
		case w.signal <- struct{}{}:
		default:
		}
	}
}
