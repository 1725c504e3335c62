package domain

import (
	"hash/maphash"
	"iter"
	"strings"
	"sync/atomic"
)

// book holds the numbered records of a distribution, such as the entries of a
// queue. It finds a record by its number, and a consumer's latest record by the
// consumer's id. It counts the live records, so that a rank and the next live
// records are found in a few steps however many there are.
//
// The book is persistent: fork costs nothing, and a change to a fork copies each
// node that it touches once. The zero value is empty. Not safe for concurrent use.
//
// Records are the leaves of a radix tree over their numbers. Each node of the tree
// counts the live records below it. The index by consumer is a hash trie with
// buckets.
type book[T state] struct {
	own    *ownership
	count  int64 // how many records there are; they are numbered from 1
	levels int   // of nodes above the leaves
	root   *bookNode[T]
	index  *indexNode[T]
}

// state is what a record holds beside its number and its consumer.
type state interface {
	// live reports whether the book counts the record in ranks.
	live() bool
}

// record is one record of a book. It is never changed: put replaces it. A million of
// them are in memory, so it is kept small.
type record[T state] struct {
	consumer string
	number   int64
	state    T
}

// ownership marks the nodes that one book has made since its last fork. No other
// book has seen them, so that book may change them in place.
type ownership struct{ lost atomic.Bool }

// A node has 16 children. With more children, copying a node takes longer. With fewer,
// the tree is deeper.
const (
	nodeBits  = 4
	nodeWidth = 1 << nodeBits
	nodeMask  = nodeWidth - 1
)

// bookNode has kids or, in a leaf, records.
type bookNode[T state] struct {
	own     *ownership
	kids    *[nodeWidth]*bookNode[T]
	records *[nodeWidth]*record[T]
	live    [nodeWidth]int32 // live records below each child
}

// fork returns a copy. From then on, neither the original nor the copy changes a node
// that they share.
func (b *book[T]) fork() book[T] {
	if b.own != nil {
		b.own.lost.Store(true)
	}
	return *b
}

// owner returns the ownership under which b may make and change nodes.
func (b *book[T]) owner() *ownership {
	if b.own == nil || b.own.lost.Load() {
		b.own = &ownership{}
	}
	return b.own
}

// at returns the record with a number from 1 to count.
func (b *book[T]) at(number int64) *record[T] {
	i := number - 1
	n := b.root
	for level := b.levels; level > 0; level-- {
		n = n.kids[i>>(nodeBits*level)&nodeMask]
	}
	return n.records[i&nodeMask]
}

// latest returns a consumer's last record, or nil.
func (b *book[T]) latest(consumer string) *record[T] {
	return b.index.find(b, hashOf(consumer), consumer)
}

// add appends a record, which becomes its consumer's latest.
func (b *book[T]) add(consumer string, s T) *record[T] {
	if b.count == int64(nodeWidth)<<(nodeBits*b.levels) {
		above := &bookNode[T]{own: b.owner(), kids: &[nodeWidth]*bookNode[T]{b.root}}
		for _, n := range b.root.live {
			above.live[0] += n
		}
		b.root, b.levels = above, b.levels+1
	}
	b.count++
	// The id may be a part of a longer text, such as a request body. The clone keeps
	// the book from holding all of that text in memory.
	r := &record[T]{consumer: strings.Clone(consumer), number: b.count, state: s}
	b.put(r)
	b.index = b.index.with(b, b.owner(), 0, hashOf(consumer), r)
	return r
}

// put replaces the record that has r's number.
func (b *book[T]) put(r *record[T]) { b.root, _ = b.root.set(b.owner(), b.levels, r) }

// set returns n with r in it, and by how much the number of live records grew.
func (n *bookNode[T]) set(own *ownership, level int, r *record[T]) (_ *bookNode[T], more int32) {
	n = n.owned(own, level)
	i := (r.number - 1) >> (nodeBits * level) & nodeMask
	if level > 0 {
		n.kids[i], more = n.kids[i].set(own, level-1, r)
		n.live[i] += more
		return n, more
	}
	more = -n.live[i]
	n.live[i] = 0
	if r.state.live() {
		n.live[i] = 1
	}
	n.records[i] = r
	return n, more + n.live[i]
}

// owned returns n when own made it, and otherwise a copy that own may change.
func (n *bookNode[T]) owned(own *ownership, level int) *bookNode[T] {
	if n != nil && n.own == own {
		return n
	}
	c := &bookNode[T]{own: own}
	switch {
	case n != nil && level > 0:
		kids := *n.kids
		c.kids, c.live = &kids, n.live
	case n != nil:
		records := *n.records
		c.records, c.live = &records, n.live
	case level > 0:
		c.kids = &[nodeWidth]*bookNode[T]{}
	default:
		c.records = &[nodeWidth]*record[T]{}
	}
	return c
}

// rank is how many live records have a lower number.
func (b *book[T]) rank(number int64) (before int64) {
	n := b.root
	for level := b.levels; level >= 0; level-- {
		at := (number - 1) >> (nodeBits * level) & nodeMask
		for _, live := range n.live[:at] {
			before += int64(live)
		}
		if level > 0 {
			n = n.kids[at]
		}
	}
	return before
}

// live yields the live records by their numbers, the lowest first.
func (b *book[T]) live() iter.Seq[*record[T]] {
	return func(yield func(*record[T]) bool) { b.root.eachLive(yield) }
}

func (n *bookNode[T]) eachLive(yield func(*record[T]) bool) (more bool) {
	if n == nil {
		return true
	}
	for i, live := range n.live {
		switch {
		case live == 0:
		case n.kids != nil && !n.kids[i].eachLive(yield), n.kids == nil && !yield(n.records[i]):
			return false
		}
	}
	return true
}

// all yields every record by its number, the lowest first.
func (b *book[T]) all() iter.Seq[*record[T]] {
	return func(yield func(*record[T]) bool) {
		for n := int64(1); n <= b.count; n++ {
			if !yield(b.at(n)) {
				return
			}
		}
	}
}

// indexNode finds a consumer's latest record by the hash of the consumer's id. Each
// level of the trie uses the next nodeBits bits of the hash. A node has kids or, at the
// bottom, slots in no order.
type indexNode[T state] struct {
	own   *ownership
	kids  *[nodeWidth]*indexNode[T]
	slots []indexSlot
}

// indexSlot is the number of a record and the hash of its consumer. The hash tells
// most consumers apart without a look at the record.
type indexSlot struct {
	hash   uint32
	number uint32 // large enough: memory has no room for more records
}

const (
	// hashBits is how many bits a hash has.
	hashBits = 32
	// maxSlots is how many slots a node has before they are spread over kids, as
	// long as the hash has bits left.
	maxSlots = 32
)

var bookSeed = maphash.MakeSeed()

// hashOf returns the hash of a consumer's id. Every process has other hashes, so no
// decision may depend on them.
func hashOf(consumer string) uint32 { return uint32(maphash.String(bookSeed, consumer)) }

// find returns the latest record of a consumer, or nil.
func (n *indexNode[T]) find(b *book[T], hash uint32, consumer string) *record[T] {
	for shift := 0; n != nil; shift += nodeBits {
		if n.kids == nil {
			r, _ := n.slot(b, hash, consumer)
			return r
		}
		n = n.kids[hash>>shift&nodeMask]
	}
	return nil
}

// slot returns the latest record of a consumer and the slot that names it, or nil.
func (n *indexNode[T]) slot(b *book[T], hash uint32, consumer string) (*record[T], int) {
	for i, s := range n.slots {
		if s.hash == hash {
			if r := b.at(int64(s.number)); r.consumer == consumer {
				return r, i
			}
		}
	}
	return nil, -1
}

// with returns n with r as its consumer's latest record.
func (n *indexNode[T]) with(b *book[T], own *ownership, shift int, hash uint32, r *record[T]) *indexNode[T] {
	n = n.owned(own)
	if n.kids == nil {
		put := indexSlot{hash, uint32(r.number)}
		if _, i := n.slot(b, hash, r.consumer); i >= 0 {
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
	n.kids[i] = n.kids[i].with(b, own, shift+nodeBits, hash, r)
	return n
}

// spread moves a node's slots to kids.
func (n *indexNode[T]) spread(shift int) {
	n.kids = &[nodeWidth]*indexNode[T]{}
	for _, s := range n.slots {
		i := s.hash >> shift & nodeMask
		if n.kids[i] == nil {
			n.kids[i] = &indexNode[T]{own: n.own}
		}
		n.kids[i].slots = append(n.kids[i].slots, s)
	}
	n.slots = nil
}

// owned returns n when own made it, and otherwise a copy that own may change.
func (n *indexNode[T]) owned(own *ownership) *indexNode[T] {
	switch {
	case n == nil:
		return &indexNode[T]{own: own}
	case n.own == own:
		return n
	case n.kids == nil:
		return &indexNode[T]{own: own, slots: append(make([]indexSlot, 0, len(n.slots)+1), n.slots...)}
	}
	kids := *n.kids
	return &indexNode[T]{own: own, kids: &kids}
}
