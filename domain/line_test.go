package domain

import (
	"fmt"
	"testing"
)

// TestLine_consumersThatHashAlikeAreToldApart: they end in one node, however many
// they are.
func TestLine_consumersThatHashAlikeAreToldApart(t *testing.T) {
	t.Parallel()
	const hash, n = 0xabcd, 3 * maxSlots
	var l line
	for i := range int64(n) {
		l.add(fmt.Sprint(i), 1)
	}
	l.index = nil
	for i := range int64(n) {
		l.index = l.index.with(&l, l.mine(), 0, hash, l.at(i+1))
	}
	fork := l.fork()
	l.add("again", 1)
	again := *l.at(n + 1)
	again.consumer = "7"
	l.put(&again)
	l.index = l.index.with(&l, l.mine(), 0, hash, &again)
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
