package domain

import (
	"fmt"
	"testing"
)

// TestBook_consumersThatHashAlikeAreToldApart: consumers with the same hash are in the
// same node, however many they are.
func TestBook_consumersThatHashAlikeAreToldApart(t *testing.T) {
	t.Parallel()
	const hash, n = 0xabcd, 3 * maxSlots
	var l book[queueEntry]
	for i := range int64(n) {
		l.add(fmt.Sprint(i), queueEntry{})
	}
	l.index = nil
	for i := range int64(n) {
		l.index = l.index.with(&l, l.owner(), 0, hash, l.at(i+1))
	}
	fork := l.fork()
	l.add("again", queueEntry{})
	again := *l.at(n + 1)
	again.consumer = "7"
	l.put(&again)
	l.index = l.index.with(&l, l.owner(), 0, hash, &again)
	for i := range int64(n) {
		want := i + 1
		if e := fork.index.find(&fork, hash, fmt.Sprint(i)); e == nil || e.number != want {
			t.Errorf("%d is found as %+v", i, e)
		}
		if i == 7 {
			want = n + 1
		}
		if e := l.index.find(&l, hash, fmt.Sprint(i)); e == nil || e.number != want {
			t.Errorf("%d is found as %+v, once it is there again", i, e)
		}
	}
	if e := l.index.find(&l, hash, "who"); e != nil {
		t.Errorf("nobody is found as %+v", e)
	}
}
