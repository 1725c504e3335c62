package embedded

import "sync"

const (
	// newsEvents and newsBytes bound what is kept of the newest events. It is enough
	// for a subscriber that is a commit or two behind; all others read the file.
	newsEvents = 4096
	newsBytes  = 4 << 20
)

// news are the newest events of the log in memory: whoever follows the log live is
// handed them without asking the file for what was just written to it. The zero
// value is empty.
type news struct {
	mu     sync.RWMutex // guards the fields below
	events []recorded   // of positions without a gap
	bytes  int
}

// add appends what a commit has written.
func (n *news) add(events []recorded) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if last := len(n.events) - 1; last >= 0 && len(events) > 0 && n.events[last].position+1 != events[0].position {
		// A commit of unknown outcome lies between.
		n.events, n.bytes = nil, 0
	}
	for _, e := range events {
		n.bytes += len(e.data) + len(e.metadata)
	}
	n.events = append(n.events, events...)
	drop := 0
	for len(n.events)-drop > newsEvents || n.bytes > newsBytes {
		n.bytes -= len(n.events[drop].data) + len(n.events[drop].metadata)
		drop++
	}
	clear(n.events[:drop])
	n.events = n.events[drop:]
}

// read returns what readAll would, forwards from a position. It reports false when
// that is in the file only: older events, and the targets of links.
func (n *news) read(from int64, resolve bool, matching *filter, limit int64) (page, bool) {
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
