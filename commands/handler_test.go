package commands

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestHandler_noEventIsEarlierThanTheLatestTimeInTheStream(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.clock.add(-time.Hour)
	if err := b.update(t, stream, "name", `"the clock jumped back"`); err != nil {
		t.Fatal(err)
	}
	b.log.verify(t)
	events := b.log.streams[stream]
	if a, z := events[0].Event.When(), events[1].Event.When(); z != a {
		t.Errorf("%s after %s", z, a)
	}
}

func TestHandler_healthTellsOfTheLastAppend(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	if err := b.Health(); err != nil {
		t.Error(err)
	}
	full := fmt.Errorf("%w: the disk is full", domain.ErrUnavailable)
	b.log.before = func(int, string) error { return full }
	if err := b.update(t, stream, "name", `"a"`); !errors.Is(err, full) {
		t.Fatal(err)
	}
	if err := b.Health(); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	b.clock.add(unhealthyFor + time.Second)
	if err := b.Health(); err != nil {
		t.Errorf("a fault of long ago counts: %v", err)
	}
	if err := b.update(t, stream, "name", `"b"`); err == nil {
		t.Fatal("it was not full")
	}
	b.log.before = func(int, string) error { return nil }
	if err := b.update(t, stream, "name", `"c"`); err != nil {
		t.Fatal(err)
	}
	if err := b.Health(); err != nil {
		t.Errorf("after a success: %v", err)
	}
	// A lost race is not a failure of the store.
	b.log.before = func(int, string) error {
		b.log.before = func(int, string) error {
			if err := b.Health(); err != nil {
				t.Errorf("after a lost race: %v", err)
			}
			return full
		}
		return domain.ErrWrongRevision
	}
	if err := b.update(t, stream, "name", `"d"`); !errors.Is(err, full) {
		t.Fatal(err)
	}
	// Neither a lost race nor a damaged stream shows that the store can write.
	for _, err := range []error{domain.ErrWrongRevision, &domain.HistoryError{Stream: stream}} {
		b.health.record(err, b.clock.time())
		if got := b.Health(); !errors.Is(got, full) {
			t.Errorf("after %v: %v", err, got)
		}
	}
}

// Every result has the position of the state that it comes from, so that the caller can
// wait for the read models.
func TestHandler_everyResultHasItsPosition(t *testing.T) {
	t.Parallel()
	b := newBench()
	created, err := b.Create(t.Context(), creation(idempotencyKey("k", "b"), "openAt", `"2026-12-15T10:00:00Z"`))
	if err != nil {
		t.Fatal(err)
	}
	stream := created.History.Stream
	again, err := NewHandler(b.log, nil, b.clock.time).Create(t.Context(), creation(idempotencyKey("k", "b"), "openAt", `"2026-12-15T10:00:00Z"`))
	if err != nil || again.Position != created.Position || created.Position == (domain.Position{}) {
		t.Errorf("%+v and %+v, %v", created.Position, again.Position, err)
	}
	b.clock.add(2 * time.Hour)
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Delete{}})
	refusedWith(t, err, domain.DeleteActive)
	opened := b.log.streams[stream][2].Position
	if r.Position != opened {
		t.Errorf("a refusal after the opening has position %v, not %v", r.Position, opened)
	}
	r, err = b.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{}})
	if err != nil || r.Position != opened {
		t.Errorf("%+v, %v", r, err)
	}
	r, err = NewHandler(b.log, nil, b.clock.time).Handle(t.Context(), Request{Stream: stream, Command: domain.Update{}})
	if err != nil || r.Position != opened {
		t.Errorf("on a node that only read it: %+v, %v", r, err)
	}
}

func TestHandler_anotherOrganizationsDistributionIsNotFound(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	for name, r := range map[string]Request{
		"theirs":  {Stream: stream, Organization: "org_other", Command: domain.Delete{}},
		"unknown": {Stream: "queue-00000000000000000000000000", Organization: org, Command: domain.Delete{}},
	} {
		result, err := b.Handle(t.Context(), r)
		refusedWith(t, err, domain.NotFound(domain.KindQueue))
		if result.Position != (domain.Position{}) {
			t.Errorf("%s has position %v", name, result.Position)
		}
		if err.Error() != "Queue not found" {
			t.Errorf("%s says %q", name, err)
		}
	}
	if got := b.log.types(stream); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestHandler_aPreconditionIsCheckedAfterDueEvents(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t, "openAt", `"2026-12-15T10:00:00Z"`)
	at := []domain.Revision{7, 1}
	update := Request{Stream: stream, Organization: org, Command: domain.Update{Fields: fields("name", `"x"`)}, IfMatch: at}
	if _, err := b.Handle(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	_, err := b.Handle(t.Context(), update)
	refusedWith(t, err, domain.PreconditionFailed)
	update.IfMatch = []domain.Revision{2}
	b.clock.add(2 * time.Hour)
	_, err = b.Handle(t.Context(), update)
	refusedWith(t, err, domain.PreconditionFailed)
	if got := b.log.types(stream); got[len(got)-1] != "domain.Opened" {
		t.Errorf("got %v", got)
	}
}

func TestHandler_ifNoneMatchRefusesAnObjectAtOneOfTheRevisions(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	update := Request{Stream: stream, Organization: org, Command: domain.Update{Fields: fields("name", `"x"`)}}
	for _, at := range [][]domain.Revision{{0}, {7, 0}} {
		update.IfNoneMatch = at
		_, err := b.Handle(t.Context(), update)
		refusedWith(t, err, domain.PreconditionFailed)
	}
	update.IfNoneMatch = []domain.Revision{7, 1}
	if _, err := b.Handle(t.Context(), update); err != nil {
		t.Fatal(err)
	}
	// The update changed the object at revision 1.
	_, err := b.Handle(t.Context(), update)
	refusedWith(t, err, domain.PreconditionFailed)
	update.Stream, update.IfNoneMatch = "queue-01h455vb4pex5vsknk084sn02q", []domain.Revision{0}
	_, err = b.Handle(t.Context(), update)
	refusedWith(t, err, domain.NotFound(domain.KindQueue))
}

func TestHandler_aBrokenHistoryIsNotWrittenTo(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	p, err := b.log.Encode(stream, domain.Closed{Stamp: domain.Stamp{At: 1_795_000_000_000}}, domain.Metadata{})
	if err != nil {
		t.Fatal(err)
	}
	first := b.log.streams[stream][0]
	_, hash, _ := domain.SplitHash(first.RawMetadata)
	if _, _, err := b.log.write(stream, domain.Head{Revision: 0, Hash: hash}, []domain.Proposed{p}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		err = b.update(t, stream, "name", `"x"`)
		broken, ok := errors.AsType[*domain.HistoryError](err)
		if !ok || broken.Stream != stream || broken.Revision != 1 || broken.Type != "domain.Closed" {
			t.Errorf("got %v", err)
		}
	}
	if healthy := b.queue(t); healthy == "" {
		t.Error("another stream is not served")
	}
	// A stream whose first event is wrong is not written to either.
	foreign := b.queue(t)
	taken := foreign[:len(foreign)-1] + "x"
	if taken == foreign {
		taken = foreign[:len(foreign)-1] + "y"
	}
	b.log.streams[taken] = []*domain.Recorded{}
	event := b.log.streams[foreign][0]
	if _, _, err := b.log.write(taken, domain.EmptyHead(), []domain.Proposed{{ID: event.ID, Type: event.Type, Data: event.Data, Metadata: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := b.update(t, taken, "name", `"x"`); !isBroken(err) {
			t.Errorf("got %v", err)
		}
	}
}

// A bug in the rules of one stream fails its commands, but does not end the process.
func TestHandler_aPanicIsAFault(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(n int, _ string) error {
		if n == 2 {
			panic("a mistake")
		}
		return nil
	}
	err := b.update(t, stream, "name", `"x"`)
	if _, refused := errors.AsType[*domain.Error](err); err == nil || refused || !strings.Contains(err.Error(), "a mistake") {
		t.Errorf("got %v", err)
	}
	if err := b.update(t, stream, "name", `"y"`); err != nil {
		t.Error(err)
	}
	b.log.verify(t)
}

func TestHandler_closeWaitsForAcceptedCommands(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		stream := b.queue(t)
		held, release := make(chan struct{}), make(chan struct{})
		b.log.before = func(int, string) error {
			close(held)
			<-release
			return nil
		}
		answered := make(chan error, 1)
		go func() { answered <- b.update(t, stream, "name", `"x"`) }()
		<-held
		closed := make(chan error, 1)
		go func() { closed <- b.Close(t.Context()) }()
		synctest.Wait()
		if err := b.update(t, stream, "name", `"y"`); !errors.Is(err, ErrClosed) {
			t.Errorf("got %v", err)
		}
		select {
		case err := <-closed:
			t.Error("Close did not wait", err)
		default:
		}
		close(release)
		if err := errors.Join(<-answered, <-closed); err != nil {
			t.Error(err)
		}
	})
}

func TestHandler_aCommandWhoseContextEndedIsNotCarriedOut(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Handle(ctx, Request{Stream: stream, Command: domain.Delete{}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	b.working.Wait()
	if got := b.log.types(stream); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}
