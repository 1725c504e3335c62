package commands

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/lotline/lotline/domain"
)

func TestHandler_appendsStayBelowTheirBound(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	held, release := b.hold()
	const n = 120
	errs := make(chan error, n)
	// Each update holds the old and the new metadata, some 32 KiB.
	send := func(i int) {
		errs <- b.update(t, stream, "metadata", fmt.Sprintf(`{"n":"%0*d"}`, 16_000, i))
	}
	go send(0)
	<-held
	for i := 1; i < n; i++ {
		go send(i)
	}
	b.awaitWaiting(t, stream, n-1)
	close(release)
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if least := n * 32_000 / (maxAppend + 40_000); b.log.appends < least {
		t.Errorf("%d appends, at least %d keep below the bound", b.log.appends, least)
	}
	b.log.verify(t)
}

func TestHandler_idleWritersAreDropped(t *testing.T) {
	t.Parallel()
	b := newBench()
	const extra = 10
	for i := range maxWriters + extra {
		if err := b.Load(t.Context(), fmt.Sprintf("queue-%026d", i)); err != nil {
			t.Fatal(err)
		}
	}
	b.working.Wait()
	if n := len(b.writers); n != maxWriters {
		t.Errorf("%d writers are held", n)
	}
	if _, ok := b.writers["queue-00000000000000000000000000"]; ok {
		t.Error("the writer that is idle longest is still held")
	}
}

func TestHandler_idleWritersRememberABoundedNumberOfKeys(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.maxRemembered = 10
	var streams []string
	for range 4 {
		stream := b.queue(t)
		streams = append(streams, stream)
		for i := range 4 {
			r := Request{Stream: stream, Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%d"`, i))}, IdempotencyKey: idempotencyKey(stream+strconv.Itoa(i), "b")}
			if _, err := b.Handle(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
	}
	b.working.Wait()
	held := func() (held []string, keys int) {
		for stream, w := range b.writers {
			held = append(held, stream)
			keys += w.remembered.size()
		}
		slices.Sort(held)
		return held, keys
	}
	if got, keys := held(); !slices.Equal(got, streams[2:]) || keys != 8 || b.remembered != 8 {
		t.Errorf("%d keys of %s are held, counted as %d", keys, got, b.remembered)
	}
	// The writer that worked last is kept although it alone is above the bound. The
	// dropped idempotency keys are found in the log.
	for i := range 12 {
		r := Request{Stream: streams[0], Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%d"`, i))}, IdempotencyKey: idempotencyKey(streams[0]+strconv.Itoa(i), "b")}
		result, err := b.Handle(t.Context(), r)
		if err != nil || result.Replayed != (i < 4) {
			t.Fatalf("%d: replayed %t, %v", i, result.Replayed, err)
		}
	}
	b.working.Wait()
	if got, keys := held(); !slices.Equal(got, streams[:1]) || keys != 12 || b.remembered != 12 {
		t.Errorf("%d keys of %s are held, counted as %d", keys, got, b.remembered)
	}
}
