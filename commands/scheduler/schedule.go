package scheduler

import (
	"container/heap"
	"time"

	"github.com/lotline/lotline/domain"
)

// scheduledStream is a stream in a schedule.
type scheduledStream struct {
	stream string
	at     domain.Instant
	index  int // in the heap
}

// schedule holds streams, each with a time, in the order of their times. It holds a
// stream at most once.
type schedule struct {
	byStream map[string]*scheduledStream
	heap     streamHeap
}

func newSchedule() schedule { return schedule{byStream: map[string]*scheduledStream{}} }

// first returns the stream with the earliest time and how long it is until then, at most
// sweepEvery. Of an empty schedule it returns "" and sweepEvery.
func (t *schedule) first(now domain.Instant) (stream string, wait time.Duration) {
	if len(t.heap) == 0 {
		return "", sweepEvery
	}
	next := t.heap[0]
	return next.stream, min(next.at.Time().Sub(now.Time()), sweepEvery)
}

// set adds a stream with its time, or changes the time of one that is in the schedule.
func (t *schedule) set(stream string, at domain.Instant) {
	next, ok := t.byStream[stream]
	switch {
	case !ok:
		next = &scheduledStream{stream: stream, at: at}
		t.byStream[stream] = next
		heap.Push(&t.heap, next)
	case next.at != at:
		next.at = at
		heap.Fix(&t.heap, next.index)
	}
}

func (t *schedule) remove(stream string) {
	if next, ok := t.byStream[stream]; ok {
		delete(t.byStream, stream)
		heap.Remove(&t.heap, next.index)
	}
}

// streamHeap implements heap.Interface. Streams with the same time are in the order of
// their names, which is the order of their creation.
type streamHeap []*scheduledStream

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
	next := x.(*scheduledStream)
	next.index = len(*h)
	*h = append(*h, next)
}

func (h *streamHeap) Pop() any {
	old := *h
	next := old[len(old)-1]
	*h = old[:len(old)-1]
	return next
}
