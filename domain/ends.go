package domain

import "iter"

// ends holds the times at which numbered records end, such as the sessions of a queue.
// It is persistent: a copy of the value is a fork. The zero value is empty.
//
// It is a leftist heap (Okasaki, Purely Functional Data Structures, 1998). A record
// that has ended early stays in the heap until it comes to the top and drop removes it.
type ends struct{ top *endNode }

// endNode has the earliest end on top, and of equal ends the lowest number. It is
// never changed.
type endNode struct {
	at          Instant
	number      int64
	depth       int // of the right spine, which is the shortest way down
	left, right *endNode
}

func (h *endNode) merge(o *endNode) *endNode {
	if h == nil {
		return o
	}
	if o == nil {
		return h
	}
	if o.at < h.at || o.at == h.at && o.number < h.number {
		h, o = o, h
	}
	m := &endNode{at: h.at, number: h.number, left: h.left, right: h.right.merge(o)}
	if m.left.spine() < m.right.spine() {
		m.left, m.right = m.right, m.left
	}
	m.depth = m.right.spine() + 1
	return m
}

func (h *endNode) spine() int {
	if h == nil {
		return 0
	}
	return h.depth
}

// add notes that the record with that number ends at a time.
func (e *ends) add(at Instant, number int64) {
	e.top = e.top.merge(&endNode{at: at, number: number, depth: 1})
}

// drop removes records from the top of the heap as long as over says that they have
// ended.
func (e *ends) drop(over func(number int64) bool) {
	for e.top != nil && over(e.top.number) {
		e.top = e.top.left.merge(e.top.right)
	}
}

// next returns the record that ends next and its time, or zeros.
func (e ends) next() (number int64, at Instant) {
	if e.top == nil {
		return 0, 0
	}
	return e.top.number, e.top.at
}

// until yields the numbers of the records that end at t or before, in order.
func (e ends) until(t Instant) iter.Seq[int64] {
	return func(yield func(int64) bool) {
		for h := e.top; h != nil && h.at <= t; h = h.left.merge(h.right) {
			if !yield(h.number) {
				return
			}
		}
	}
}
