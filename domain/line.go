package domain

import (
	"hash/maphash"
	"iter"
	"strings"
	"sync/atomic"
)

// line is everybody who ever entered a queue: entries in order, found by number
// and by consumer, with the rank of those who wait and the ends of sessions. It is
// a persistent structure: a fork costs nothing, and what a fork changes is copied
// by the node, once. The zero value is empty.
//
// Entries are in a radix tree whose nodes count who waits below them, so that a rank
// and the next who wait are found in a few steps at any length. The index is a hash
// trie with buckets, the sessions are a leftist heap (Okasaki, Purely Functional
// Data Structures, 1998).
type line struct {
	own      *ownership
	count    int64 // of entries ever made, numbered from 1
	levels   int   // of nodes above the leaves
	root     *lineNode
	index    *indexNode
	sessions *sessionHeap // may hold some that are over, but not on top
}

// ownership tells the nodes that one line made since its last fork: nobody else
// knows them, so it may change them in place.
type ownership struct{ lost atomic.Bool }

// A node has 16 children: with more of them copying one takes longer, with fewer the
// way down does.
const (
	nodeBits  = 4
	nodeWidth = 1 << nodeBits
	nodeMask  = nodeWidth - 1
)

// lineNode has kids or, in a leaf, entries.
type lineNode struct {
	own     *ownership
	kids    *[nodeWidth]*lineNode
	entries *[nodeWidth]*entry
	waiting [nodeWidth]int32 // below each of them
}

// entry is what became of one entering. It is never changed. A million of them are
// in memory, so it is kept small.
type entry struct {
	consumer  string
	enteredAt Instant
	session   *session // nil when never admitted
	number    int64
	status    Standing
	reason    denial
}

// session is what began with an admission. It is never changed.
type session struct {
	admittedAt Instant
	expiresAt  Instant // 0: no limit
	endedAt    Instant // 0 while it lasts
	event      [16]byte
}

// fork returns a copy. Neither of the two changes any more what both can see.
func (l *line) fork() line {
	if l.own != nil {
		l.own.lost.Store(true)
	}
	return *l
}

// mine is the ownership under which l may make and change nodes.
func (l *line) mine() *ownership {
	if l.own == nil || l.own.lost.Load() {
		l.own = &ownership{}
	}
	return l.own
}

// at returns the entry of a number, from 1 to count.
func (l *line) at(number int64) *entry {
	i := number - 1
	n := l.root
	for level := l.levels; level > 0; level-- {
		n = n.kids[i>>(nodeBits*level)&nodeMask]
	}
	return n.entries[i&nodeMask]
}

// latest returns a consumer's last entry, or nil.
func (l *line) latest(consumer string) *entry { return l.index.find(l, hashOf(consumer), consumer) }

// add appends an entry, which becomes its consumer's latest.
func (l *line) add(consumer string, t Instant) {
	if l.count == int64(nodeWidth)<<(nodeBits*l.levels) {
		above := &lineNode{own: l.mine(), kids: &[nodeWidth]*lineNode{l.root}}
		for _, n := range l.root.waiting {
			above.waiting[0] += n
		}
		l.root, l.levels = above, l.levels+1
	}
	l.count++
	// The text may be a part of a larger one, which is not to be kept.
	e := &entry{consumer: strings.Clone(consumer), enteredAt: t, number: l.count, status: StandingQueued}
	l.put(e)
	l.index = l.index.with(l, l.mine(), 0, hashOf(consumer), e)
}

// put makes e the entry of its number.
func (l *line) put(e *entry) { l.root, _ = l.root.set(l.mine(), l.levels, e) }

// set returns n with e in it, and how many more wait there.
func (n *lineNode) set(own *ownership, level int, e *entry) (_ *lineNode, more int32) {
	n = n.owned(own, level)
	i := (e.number - 1) >> (nodeBits * level) & nodeMask
	if level > 0 {
		n.kids[i], more = n.kids[i].set(own, level-1, e)
		n.waiting[i] += more
		return n, more
	}
	more = -n.waiting[i]
	n.waiting[i] = 0
	if e.status == StandingQueued {
		n.waiting[i] = 1
	}
	n.entries[i] = e
	return n, more + n.waiting[i]
}

// owned returns n, or a copy that own may change.
func (n *lineNode) owned(own *ownership, level int) *lineNode {
	if n != nil && n.own == own {
		return n
	}
	c := &lineNode{own: own}
	switch {
	case n != nil && level > 0:
		kids := *n.kids
		c.kids, c.waiting = &kids, n.waiting
	case n != nil:
		entries := *n.entries
		c.entries, c.waiting = &entries, n.waiting
	case level > 0:
		c.kids = &[nodeWidth]*lineNode{}
	default:
		c.entries = &[nodeWidth]*entry{}
	}
	return c
}

// rank is how many wait before the entry of a number.
func (l *line) rank(number int64) (before int64) {
	n := l.root
	for level := l.levels; level >= 0; level-- {
		at := (number - 1) >> (nodeBits * level) & nodeMask
		for _, waiting := range n.waiting[:at] {
			before += int64(waiting)
		}
		if level > 0 {
			n = n.kids[at]
		}
	}
	return before
}

// queued yields who waits, the first one first.
func (l *line) queued() iter.Seq[*entry] {
	return func(yield func(*entry) bool) { l.root.queued(yield) }
}

func (n *lineNode) queued(yield func(*entry) bool) (more bool) {
	if n == nil {
		return true
	}
	for i, waiting := range n.waiting {
		switch {
		case waiting == 0:
		case n.kids != nil && !n.kids[i].queued(yield), n.kids == nil && !yield(n.entries[i]):
			return false
		}
	}
	return true
}

// all yields every entry in order.
func (l *line) all() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for n := int64(1); n <= l.count; n++ {
			if !yield(l.at(n)) {
				return
			}
		}
	}
}

// indexNode finds a consumer's latest entry by a few bits of a hash a level. It has
// kids or, below them, slots in no order.
type indexNode struct {
	own   *ownership
	kids  *[nodeWidth]*indexNode
	slots []indexSlot
}

// indexSlot is an entry's number, and the hash by which most others are told from
// it without looking.
type indexSlot struct {
	hash   uint32
	number uint32 // more than that have no room in memory
}

const (
	// hashBits is how many bits of a hash there are to go by.
	hashBits = 32
	// maxSlots is how many slots a node has before they are spread over kids, while
	// there are bits to go by.
	maxSlots = 32
)

var lineSeed = maphash.MakeSeed()

// hashOf differs from process to process. Nothing is decided by it.
func hashOf(consumer string) uint32 { return uint32(maphash.String(lineSeed, consumer)) }

// find returns the latest entry of a consumer, or nil.
func (n *indexNode) find(l *line, hash uint32, consumer string) *entry {
	for shift := 0; n != nil; shift += nodeBits {
		if n.kids == nil {
			e, _ := n.slot(l, hash, consumer)
			return e
		}
		n = n.kids[hash>>shift&nodeMask]
	}
	return nil
}

// slot returns the latest entry of a consumer and the slot that it is in, or nil.
func (n *indexNode) slot(l *line, hash uint32, consumer string) (*entry, int) {
	for i, s := range n.slots {
		if s.hash == hash {
			if e := l.at(int64(s.number)); e.consumer == consumer {
				return e, i
			}
		}
	}
	return nil, -1
}

// with returns n with e as its consumer's latest.
func (n *indexNode) with(l *line, own *ownership, shift int, hash uint32, e *entry) *indexNode {
	n = n.owned(own)
	if n.kids == nil {
		put := indexSlot{hash, uint32(e.number)}
		if _, i := n.slot(l, hash, e.consumer); i >= 0 {
			n.slots[i] = put
			return n
		}
		n.slots = append(n.slots, put)
		if len(n.slots) > maxSlots && shift < hashBits {
			n.spread(shift)
		}
		return n
	}
	i := hash >> shift & nodeMask
	n.kids[i] = n.kids[i].with(l, own, shift+nodeBits, hash, e)
	return n
}

// spread gives a node's slots to kids.
func (n *indexNode) spread(shift int) {
	n.kids = &[nodeWidth]*indexNode{}
	for _, s := range n.slots {
		i := s.hash >> shift & nodeMask
		if n.kids[i] == nil {
			n.kids[i] = &indexNode{own: n.own}
		}
		n.kids[i].slots = append(n.kids[i].slots, s)
	}
	n.slots = nil
}

// owned returns n, or a copy that own may change.
func (n *indexNode) owned(own *ownership) *indexNode {
	switch {
	case n == nil:
		return &indexNode{own: own}
	case n.own == own:
		return n
	case n.kids == nil:
		return &indexNode{own: own, slots: append(make([]indexSlot, 0, len(n.slots)+1), n.slots...)}
	}
	kids := *n.kids
	return &indexNode{own: own, kids: &kids}
}

// sessionHeap has the session that ends first on top; of those that end at once,
// who entered first. It is never changed.
type sessionHeap struct {
	ends        Instant
	number      int64 // of the entry
	depth       int   // of the right spine, which is the shortest way down
	left, right *sessionHeap
}

func (h *sessionHeap) merge(o *sessionHeap) *sessionHeap {
	if h == nil {
		return o
	}
	if o == nil {
		return h
	}
	if o.ends < h.ends || o.ends == h.ends && o.number < h.number {
		h, o = o, h
	}
	m := &sessionHeap{ends: h.ends, number: h.number, left: h.left, right: h.right.merge(o)}
	if m.left.spine() < m.right.spine() {
		m.left, m.right = m.right, m.left
	}
	m.depth = m.right.spine() + 1
	return m
}

func (h *sessionHeap) spine() int {
	if h == nil {
		return 0
	}
	return h.depth
}

// begin notes that the session of an entry has begun that ends by itself.
func (l *line) begin(ends Instant, number int64) {
	l.sessions = l.sessions.merge(&sessionHeap{ends: ends, number: number, depth: 1})
}

// settle drops the sessions that are over from the top of the heap.
func (l *line) settle() {
	for l.sessions != nil && l.at(l.sessions.number).status != StandingAdmitted {
		l.sessions = l.sessions.left.merge(l.sessions.right)
	}
}

// nextEnd is the entry whose session is the next to end by itself, and when; 0 for
// never.
func (l *line) nextEnd() (number int64, at Instant) {
	if l.sessions == nil {
		return 0, 0
	}
	return l.sessions.number, l.sessions.ends
}

// ended yields the sessions that have ended by t, in order.
func (l *line) ended(t Instant) iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		for h := l.sessions; h != nil && h.ends <= t; h = h.left.merge(h.right) {
			if e := l.at(h.number); e.status == StandingAdmitted && !yield(e) {
				return
			}
		}
	}
}
