package embedded

import "sync"

const (
	// tailEvents and tailBytes limit the cache. That is enough for a subscriber that is a
	// commit or two behind. All others read the file.
	tailEvents = 4096
	tailBytes  = 4 << 20
)

// tailCache holds the newest events of the log in memory. Live subscribers read from it
// the events that were just committed, without reading the file. The zero value is empty.
type tailCache struct {
	mu     sync.RWMutex // guards the fields below
	events []recorded   // their positions have no gap
	bytes  int
}

// add appends the events of a commit.
func (n *tailCache) add(events []recorded) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := len(n.events) - 1; last >= 0 && len(events) > 0 && n.events[last].position+1 != events[0].position {
		// A commit of unknown outcome lies between them.
		n.events, n.bytes = nil, 0
	}
	for _, e := range events {
		n.bytes += len(e.data) + len(e.metadata)
	}
	n.events = append(n.events, events...)
	drop := 0
	for len(n.events)-drop > tailEvents || n.bytes > tailBytes {
		n.bytes -= len(n.events[drop].data) + len(n.events[drop].metadata)
		drop++
	}
	clear(n.events[:drop])
	n.events = n.events[drop:]
}

// read returns what readAll would return forwards from a position. It reports false if
// only the file has that: events that are older than the cache, and targets of links.
func (n *tailCache) read(from int64, resolve bool, matching *filter, limit int64) (page, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if len(n.events) == 0 || from < n.events[0].position || from > n.events[len(n.events)-1].position {
		return page{}, false
	}
	p := page{complete: true}
	left := n.events[from-n.events[0].position:]
	var bytesHeld int
	for i := range left {
		e := &left[i]
		wanted := matching == nil || matching.matches([]byte(e.stream), []byte(e.kind))
		if wanted && resolve && e.kind == linkType {
			p.complete = false
			break
		}
		p.considered++
		p.last = e.position
		if wanted {
			p.events = append(p.events, resolved{recorded: *e})
			bytesHeld += len(e.data) + len(e.metadata)
		}
		if bytesHeld >= pageBytes || int64(p.considered) == min(limit, pageRows) {
			p.complete = i+1 == len(left)
			break
		}
	}
	return p, p.considered > 0
}
