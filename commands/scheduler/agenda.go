package scheduler

import (
	"container/heap"
	"time"

	"github.com/lotline/lotline/domain"
)

// appointment is the time at which something is to be done for a stream.
type appointment struct {
	stream string
	at     domain.Instant
	index  int // in the heap
}

// agenda has at most one appointment of each stream, the earliest first.
type agenda struct {
	at   map[string]*appointment
	heap appointments
}

func newAgenda() agenda { return agenda{at: map[string]*appointment{}} }

// first returns the stream of the earliest appointment and how long it is until then, at
// most sweepEvery.
func (a *agenda) first(now domain.Instant) (stream string, wait time.Duration) {
	if len(a.heap) == 0 {
		return "", sweepEvery
	}
	t := a.heap[0]
	return t.stream, min(t.at.Time().Sub(now.Time()), sweepEvery)
}

// set makes a stream's appointment, or moves the one that it has.
func (a *agenda) set(stream string, at domain.Instant) {
	t, ok := a.at[stream]
	switch {
	case !ok:
		t = &appointment{stream: stream, at: at}
		a.at[stream] = t
		heap.Push(&a.heap, t)
	case t.at != at:
		t.at = at
		heap.Fix(&a.heap, t.index)
	}
}

func (a *agenda) remove(stream string) {
	if t, ok := a.at[stream]; ok {
		delete(a.at, stream)
		heap.Remove(&a.heap, t.index)
	}
}

// appointments implement heap.Interface. Streams with the same time are in the order of
// their names, which is the order of their creation.
type appointments []*appointment

func (h appointments) Len() int { return len(h) }

func (h appointments) Less(i, j int) bool {
	if h[i].at != h[j].at {
		return h[i].at < h[j].at
	}
	return h[i].stream < h[j].stream
}

func (h appointments) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

func (h *appointments) Push(x any) {
	t := x.(*appointment)
	t.index = len(*h)
	*h = append(*h, t)
}

func (h *appointments) Pop() any {
	old := *h
	t := old[len(old)-1]
	*h = old[:len(old)-1]
	return t
}
