package embedded

import (
	"fmt"
	"math"
	"reflect"
	"testing"
)

// A page from the cache is the same as the page from the file.
func TestTailCache_holdsWhatTheFileHolds(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	const commits = 400
	for i := range commits {
		events := proposals(1+i%25, 50+i*5)
		events[0].metadata = []byte{0xff, byte(i)} // not text
		if _, err := s.append(t.Context(), fmt.Sprintf("stream-%d", i%3), expectAny, events); err != nil {
			t.Fatal(err)
		}
	}
	last, err := s.lastPosition(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := s.tail.events[0].position
	if held := len(s.tail.events); held > tailEvents || s.tail.bytes > tailBytes || first == 1 || int64(held) != last-first+1 {
		t.Fatalf("the cache holds %[2]d of %[1]d events, in %[3]d bytes", last, held, s.tail.bytes)
	}
	for _, f := range []*filter{nil, {prefixes: [][]byte{[]byte("stream-1"), []byte("stream-2")}}} {
		for from := first - 2; from <= last+2; from += 7 {
			for _, limit := range []int64{1, 5, math.MaxInt64} {
				got, ok := s.tail.read(from, false, f, limit)
				if ok != (from >= first && from <= last) {
					t.Fatalf("from %d of %d to %d: %t", from, first, last, ok)
				}
				if !ok {
					continue
				}
				want, err := s.readAll(t.Context(), from, false, false, f, math.MaxInt64, limit)
				if err != nil {
					t.Fatal(err)
				}
				// A full page from the file does not say that nothing follows it.
				if got.last == last {
					want.complete = true
				}
				if !reflect.DeepEqual(got, want) {
					t.Fatalf("from %d, at most %d:\n got %+v\nwant %+v", from, limit, got, want)
				}
			}
		}
	}
}

// A commit of unknown outcome leaves a gap, which only the file can fill.
func TestTailCache_hasNoGaps(t *testing.T) {
	t.Parallel()
	var n tailCache
	n.add([]recorded{{position: 1}, {position: 2}})
	n.add([]recorded{{position: 5}})
	if _, ok := n.read(2, false, nil, 10); ok {
		t.Error("events after the gap are missing")
	}
	if p, ok := n.read(5, false, nil, 10); !ok || len(p.events) != 1 || n.bytes != 0 {
		t.Errorf("got %+v, %t", p, ok)
	}
}
