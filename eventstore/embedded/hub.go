package embedded

import "sync"

// hub tells those who follow a stream, or the whole log under the name "", that
// something was committed. It carries no events: a follower reads them from the
// file, at its own pace, so that a slow one holds nobody up and none can miss or
// repeat an event where history ends and news begin.
type hub struct {
	mu       sync.Mutex // guards watchers
	watchers map[string]map[*watcher]struct{}
}

// watcher is signalled after each commit that concerns it. Signals that were not
// taken yet are one.
type watcher struct {
	signal chan struct{}
}

// watch starts signalling; stop ends it. What was committed before is not
// signalled, so a follower must read after it began to watch.
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
