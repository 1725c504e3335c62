package scheduler

import (
	"container/heap"
	"time"

	"github.com/lotline/lotline/domain"
)

// appointment is the time at which something is to be done for a stream.
type queuedStream struct {
	stream string
	at     domain.Instant
	index  int // in the heap
}

// agenda has at most one appointment of each stream, the earliest first.
type timeQueue struct {
	byStream map[string]*queuedStream
	heap     streamHeap
}

func newTimeQueue() timeQueue { return timeQueue{byStream: map[string]*queuedStream{}} }

// first returns the stream of the earliest appointment and how long it is until then, at
// most sweepEvery.
func (a *timeQueue) first(now domain.Instant) (stream string, wait time.Duration) {
	if len(a.heap) == 0 {
		return "", sweepEvery
	}
	q := a.heap[0]
	return q.stream, min(q.at.Time().Sub(now.Time()), sweepEvery)
}

// set makes a stream's appointment, or moves the one that it has.
func (a *timeQueue) set(stream string, at domain.Instant) {
	q, ok := a.byStream[stream]
	switch {
	case !ok:
		q = &queuedStream{stream: stream, at: at}
		a.byStream[stream] = q
		heap.Push(&a.heap, q)
	case q.at != at:
		q.at = at
		heap.Fix(&a.heap, q.index)
	}
}

func (a *timeQueue) remove(stream string) {
	if q, ok := a.byStream[stream]; ok {
		delete(a.byStream, stream)
		heap.Remove(&a.heap, q.index)
	}
}

// appointments implement heap.Interface. Streams with the same time are in the order of
// their names, which is the order of their creation.
type streamHeap []*queuedStream

func (h streamHeap) Len() int { return len(h) }

func (h streamHeap) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].stream < h[j].stream
}

func (h streamHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *streamHeap) Push(x any) {
	q := x.(*queuedStream)
	q.index = len(*h)
	*h = append(*h, q)
}

func (h *streamHeap) Pop() any {
	old := *h
	q := old[len(old)-1]
	*h = old[:len(old)-1]
	return q
}
