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
// sweepEvery. For an empty schedule it returns "" and sweepEvery.
func (s *schedule) first(now domain.Instant) (stream string, wait time.Duration) {
	if len(s.heap) == 0 {
		return "", sweepEvery
	}
	e := s.heap[0]
	return e.stream, min(e.at.Time().Sub(now.Time()), sweepEvery)
}

// set adds a stream with its time, or changes the time of one that is in the schedule.
func (s *schedule) set(stream string, at domain.Instant) {
	e, ok := s.byStream[stream]
	switch {
	case !ok:
		e = &scheduledStream{stream: stream, at: at}
		s.byStream[stream] = e
		heap.Push(&s.heap, e)
	case e.at != at:
		e.at = at
		heap.Fix(&s.heap, e.index)
	}
}

func (s *schedule) remove(stream string) {
	if e, ok := s.byStream[stream]; ok {
		delete(s.byStream, stream)
		heap.Remove(&s.heap, e.index)
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
	e := x.(*scheduledStream)
	e.index = len(*h)
	*h = append(*h, e)
}

func (h *streamHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	return e
}
