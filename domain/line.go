package domain

import (
	"hash/maphash"
	"iter"
	"math/bits"
	"sync/atomic"
)

// line is everybody who ever entered a queue: entries in order, found by number
// and by consumer, with the rank of those who wait and the ends of sessions. It is
// a persistent structure: a fork costs nothing, and what a fork changes is copied
// by the node, once. The zero value is empty.
//
// Entries are in a radix tree whose inner nodes count who waits below them, so
// that a rank and the n-th who waits are found in a few steps at any length. The
// index is a hash trie (Bagwell, Ideal Hash Trees, 2001), the sessions are a
// leftist heap (Okasaki, Purely Functional Data Structures, 1998).
type line struct {
	own      *ownership
	count    int64 // of entries ever made, numbered from 1
	levels   int   // of branches above the leaves
	root     any   // *branch or, without levels, *leaf
	waiting  int64
	index    *indexNode
	sessions *sessionHeap // may hold some that are over
}

// ownership tells the nodes that one line made since its last fork: nobody else
// knows them, so it may change them in place.
type ownership struct{ lost atomic.Bool }

const (
	lineBits  = 5
	lineWidth = 1 << lineBits
	lineMask  = lineWidth - 1
)

type leaf struct {
	own     *ownership
	waiting uint32 // a bit for each entry that waits
	entries [lineWidth]*entry
}

type branch struct {
	own     *ownership
	waiting [lineWidth]int32 // below each child
	kids    [lineWidth]any   // *branch or *leaf
}

// entry is what became of one entering. It is never changed.
type entry struct {
	consumer  string
	enteredAt Instant
	endedAt   Instant  // 0 while QUEUED or ADMITTED
	session   *session // nil when never admitted
	number    int64
	status    Standing
	reason    DenyReason
}

// session is what began with an admission. It is never changed.
type session struct {
	admittedAt Instant
	expiresAt  Instant // 0: no limit
	event      [16]byte
	byHand     bool
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
	node := l.root
	for level := l.levels; level > 0; level-- {
		node = node.(*branch).kids[i>>(lineBits*level)&lineMask]
	}
	return node.(*leaf).entries[i&lineMask]
}

// latest returns a consumer's last entry, or nil.
func (l *line) latest(consumer string) *entry {
	if number, ok := l.index.find(l, hashOf(consumer), consumer); ok {
		return l.at(number)
	}
	return nil
}

// add appends an entry, which becomes its consumer's latest.
func (l *line) add(e entry) {
	if l.count == int64(lineWidth)<<(lineBits*l.levels) {
		above := &branch{own: l.mine()}
		above.kids[0], above.waiting[0] = l.root, int32(l.waiting)
		l.root, l.levels = above, l.levels+1
	}
	l.count++
	e.number = l.count
	l.put(&e)
	l.index = l.index.with(l, l.mine(), 0, hashOf(e.consumer), &e)
}

// put makes e the entry of its number.
func (l *line) put(e *entry) {
	root, more := l.set(l.root, l.levels, e)
	l.root = root
	l.waiting += int64(more)
}

// set returns node with e in it, and how many more wait there.
func (l *line) set(node any, level int, e *entry) (_ any, more int32) {
	own := l.mine()
	i := (e.number - 1) >> (lineBits * level) & lineMask
	if level > 0 {
		b, _ := node.(*branch)
		switch {
		case b == nil:
			b = &branch{own: own}
		case b.own != own:
			c := *b
			c.own = own
			b = &c
		}
		b.kids[i], more = l.set(b.kids[i], level-1, e)
		b.waiting[i] += more
		return b, more
	}
	f, _ := node.(*leaf)
	switch {
	case f == nil:
		f = &leaf{own: own}
	case f.own != own:
		c := *f
		c.own = own
		f = &c
	}
	before := f.waiting
	f.waiting &^= 1 << i
	if e.status == StandingQueued {
		f.waiting |= 1 << i
	}
	f.entries[i] = e
	return f, int32(bits.OnesCount32(f.waiting) - bits.OnesCount32(before))
}

// rank is how many wait before the entry of a number.
func (l *line) rank(number int64) (before int64) {
	i := number - 1
	node := l.root
	for level := l.levels; level > 0; level-- {
		b, at := node.(*branch), i>>(lineBits*level)&lineMask
		for _, n := range b.waiting[:at] {
			before += int64(n)
		}
		node = b.kids[at]
	}
	f := node.(*leaf)
	return before + int64(bits.OnesCount32(f.waiting&(1<<(i&lineMask)-1)))
}

// queued yields who waits, the first one first.
func (l *line) queued() iter.Seq[*entry] {
	return func(yield func(*entry) bool) {
		if l.waiting > 0 {
			walkQueued(l.root, yield)
		}
	}
}

func walkQueued(node any, yield func(*entry) bool) bool {
	switch n := node.(type) {
	case *branch:
		for i, waiting := range n.waiting {
			if waiting > 0 && !walkQueued(n.kids[i], yield) {
				return false
			}
		}
	case *leaf:
		for left := n.waiting; left != 0; left &= left - 1 {
			if !yield(n.entries[bits.TrailingZeros32(left)]) {
				return false
			}
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

// indexNode finds a consumer's latest entry by five bits of a hash a level.
type indexNode struct {
	own   *ownership
	nodes uint32 // a bit for each of kids
	items uint32 // a bit for each of slots
	kids  []*indexNode
	slots []indexSlot
}

// indexSlot is an entry's number, and the hash by which most others are told from
// it without looking.
type indexSlot struct {
	hash   uint64
	number int64
}

// hashBits is how many bits of a hash there are to go by. Below that, slots are
// just a list.
const hashBits = 60

var lineSeed = maphash.MakeSeed()

// hashOf differs from process to process. Nothing is decided by it.
func hashOf(consumer string) uint64 { return maphash.String(lineSeed, consumer) }

func (n *indexNode) find(l *line, hash uint64, consumer string) (int64, bool) {
	for shift := 0; n != nil; shift += lineBits {
		if shift >= hashBits {
			for _, s := range n.slots {
				if l.at(s.number).consumer == consumer {
					return s.number, true
				}
			}
			return 0, false
		}
		bit := uint32(1) << (hash >> shift & lineMask)
		if n.items&bit != 0 {
			s := n.slots[bits.OnesCount32(n.items&(bit-1))]
			return s.number, s.hash == hash && l.at(s.number).consumer == consumer
		}
		if n.nodes&bit == 0 {
			return 0, false
		}
		n = n.kids[bits.OnesCount32(n.nodes&(bit-1))]
	}
	return 0, false
}

// with returns n with e as its consumer's latest.
func (n *indexNode) with(l *line, own *ownership, shift int, hash uint64, e *entry) *indexNode {
	n = n.owned(own)
	slot := indexSlot{hash, e.number}
	if shift >= hashBits {
		for i, s := range n.slots {
			if l.at(s.number).consumer == e.consumer {
				n.slots[i] = slot
				return n
			}
		}
		n.slots = append(n.slots, slot)
		return n
	}
	bit := uint32(1) << (hash >> shift & lineMask)
	at, below := bits.OnesCount32(n.items&(bit-1)), bits.OnesCount32(n.nodes&(bit-1))
	switch {
	case n.nodes&bit != 0:
		n.kids[below] = n.kids[below].with(l, own, shift+lineBits, hash, e)
	case n.items&bit == 0:
		n.items |= bit
		n.slots = insert(n.slots, at, slot)
	case n.slots[at].hash == hash && l.at(n.slots[at].number).consumer == e.consumer:
		n.slots[at] = slot
	default:
		// Two that look alike so far go one level down.
		was := n.slots[at]
		n.items &^= bit
		n.slots = append(n.slots[:at], n.slots[at+1:]...)
		kid := (*indexNode)(nil).with(l, own, shift+lineBits, was.hash, l.at(was.number))
		n.nodes |= bit
		n.kids = insert(n.kids, below, kid.with(l, own, shift+lineBits, hash, e))
	}
	return n
}

// owned returns n, or a copy that own may change.
func (n *indexNode) owned(own *ownership) *indexNode {
	if n == nil {
		return &indexNode{own: own}
	}
	if n.own == own {
		return n
	}
	return &indexNode{
		own: own, nodes: n.nodes, items: n.items,
		kids: append(make([]*indexNode, 0, len(n.kids)), n.kids...), slots: append(make([]indexSlot, 0, len(n.slots)), n.slots...),
	}
}

// insert makes room for one, exactly: most nodes stay as they are for long.
func insert[T any](s []T, at int, v T) []T {
	if len(s) < cap(s) {
		s = s[:len(s)+1]
		copy(s[at+1:], s[at:])
		s[at] = v
		return s
	}
	grown := make([]T, len(s)+1)
	copy(grown, s[:at])
	grown[at] = v
	copy(grown[at+1:], s[at:])
	return grown
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
