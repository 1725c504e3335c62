package scheduler

import (
	"container/heap"
	"time"

	"github.com/lotline/lotline/domain"
)

// queuedStream is a stream in a timeQueue.
type queuedStream struct {
	stream string
	at     domain.Instant
	index  int // in the heap
}

// timeQueue holds streams, each with a time, in the order of their times. It holds a
// stream at most once.
type timeQueue struct {
	byStream map[string]*queuedStream
	heap     streamHeap
}

func newTimeQueue() timeQueue { return timeQueue{byStream: map[string]*queuedStream{}} }

// first returns the stream with the earliest time and how long it is until then, at most
// sweepEvery. With an empty queue it returns "" and sweepEvery.
func (t *timeQueue) first(now domain.Instant) (stream string, wait time.Duration) {
	if len(t.heap) == 0 {
		return "", sweepEvery
	}
	q := t.heap[0]
	return q.stream, min(q.at.Time().Sub(now.Time()), sweepEvery)
}

// set adds a stream with its time, or changes the time of one that is in the queue.
func (t *timeQueue) set(stream string, at domain.Instant) {
	q, ok := t.byStream[stream]
	switch {
	case !ok:
		q = &queuedStream{stream: stream, at: at}
		t.byStream[stream] = q
		heap.Push(&t.heap, q)
	case q.at != at:
		q.at = at
		heap.Fix(&t.heap, q.index)
	}
}

func (t *timeQueue) remove(stream string) {
	if q, ok := t.byStream[stream]; ok {
		delete(t.byStream, stream)
		heap.Remove(&t.heap, q.index)
	}
}

// streamHeap implements heap.Interface. Streams with the same time are in the order of
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
