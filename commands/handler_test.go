package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

const org = domain.ID("org_01h455vb4pex5vsknk084sn02r")

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 12, 15, 9, 0, 0, 0, time.UTC)} }

func (c *clock) time() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type bench struct {
	log   *testLog
	clock *clock
	*Handler
}

func newBench() *bench {
	c := newClock()
	b := &bench{log: newTestLog(c.time), clock: c}
	b.Handler = NewHandler(b.log, nil, b.clock.time)
	return b
}

func fields(pairs ...string) domain.Fields {
	f := domain.Fields{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = json.RawMessage(pairs[i+1])
	}
	return f
}

func key(s, body string) IdempotencyKey { return IdempotencyKey{uuid.NewSHA1(uuid.Nil, []byte(s)), body} }

func creation(k IdempotencyKey, extra ...string) Creation {
	return Creation{
		Kind: domain.KindQueue, Organization: org, IdempotencyKey: k, Caller: Caller{Actor: "key_1", RequestID: "r1"},
		Fields: fields(append([]string{"sequenceId", `"s"`}, extra...)...), Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"},
	}
}

func (b *bench) queue(t testing.TB, extra ...string) string {
	t.Helper()
	r, err := b.Create(t.Context(), creation(IdempotencyKey{}, extra...))
	if err != nil {
		t.Fatal(err)
	}
	return r.History.Stream
}

func (b *bench) update(t testing.TB, stream, field, value string) error {
	t.Helper()
	_, err := b.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: domain.Update{Fields: fields(field, value)}})
	return err
}

// hold makes the append after the creation wait: held is closed when it has come,
// and it goes on when release is closed.
func (b *bench) hold() (held, release chan struct{}) {
	held, release = make(chan struct{}), make(chan struct{})
	b.log.before = func(k int, _ string) error {
		if k == 2 {
			close(held)
			<-release
		}
		return nil
	}
	return held, release
}

// awaitWaiting returns when n commands wait for a stream.
func (b *bench) awaitWaiting(t testing.TB, stream string, n int) {
	t.Helper()
	waiting := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.writers[stream].waiting)
	}
	for waiting() != n {
		select {
		case <-t.Context().Done():
			t.Fatalf("%d commands wait", waiting())
		case <-time.After(time.Millisecond):
		}
	}
}

func refusedWith(t *testing.T, err error, code domain.Code) {
	t.Helper()
	refusal, ok := errors.AsType[*domain.Error](err)
	if !ok || refusal.Code != code {
		t.Errorf("got %v, want %q", err, code)
	}
}

func shared(r Result) *domain.Lifecycle { return r.History.Aggregate.(domain.Distribution).Shared() }

func TestHandler_appendsWithWhatIsDue(t *testing.T) {
	t.Parallel()
	b := newBench()
	r, err := b.Create(t.Context(), creation(IdempotencyKey{}, "openAt", `"2026-12-15T08:00:00Z"`, "closeAt", `"2026-12-15T10:00:00Z"`))
	if err != nil {
		t.Fatal(err)
	}
	stream := r.History.Stream
	want := []string{"*domain.QueueCreated", "domain.Scheduled", "domain.Opened"}
	if got := b.log.types(stream); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if b.log.appends != 1 || r.Position.Commit != 3 || shared(r).Status != domain.StatusOpen || r.History.Changed != 2 {
		t.Errorf("%d appends, %+v", b.log.appends, r)
	}
	// What is due comes first even when the command is refused.
	b.clock.add(2 * time.Hour)
	err = b.update(t, stream, "name", `"late"`)
	refusedWith(t, err, domain.UpdateClosed)
	want = append(want, "domain.Closed", "domain.Completed")
	if got := b.log.types(stream); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

func TestHandler_aCommandCountsNotBeforeTheLatestTimeInTheStream(t *testing.T) {
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

func TestHandler_batchesWhatWaits(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	held, release := b.hold()
	const n = 200
	errs := make(chan error, n)
	send := func(i int) { errs <- b.update(t, stream, "name", fmt.Sprintf(`"%d"`, i)) }
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
	if b.log.appends != 3 {
		t.Errorf("%d appends for the creation, one update and those that waited", b.log.appends)
	}
	if got := len(b.log.types(stream)); got != n+1 {
		t.Errorf("%d events", got)
	}
	b.log.verify(t)
}

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

func TestHandler_decidesAgainAfterALostRace(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	other := NewHandler(b.log, nil, b.clock.time)
	lost := false
	b.log.before = func(_ int, _ string) error {
		if lost {
			return nil
		}
		lost = true
		_, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"theirs"`)}})
		return err
	}
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"ours"`)}})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Raced || r.History.Head.Revision != 2 {
		t.Errorf("%+v", r)
	}
	if m := b.log.streams[stream][0].Metadata; m.CorrelationID != "r1" || m.CausationID != m.CommandID {
		t.Errorf("metadata %+v", m)
	}
	last := b.log.streams[stream][2].Event.(domain.Updated)
	if got := string(last.Changed["name"].Old); got != `"theirs"` {
		t.Errorf("decided on %s", got)
	}
	b.log.verify(t)
}

func TestHandler_givesUpARaceAfterTwoSeconds(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(int, string) error {
		b.clock.add(300 * time.Millisecond)
		return domain.ErrWrongRevision
	}
	refusedWith(t, b.update(t, stream, "name", `"x"`), domain.ChangedByAnother)
	if b.log.appends < 5 || b.log.appends > 10 {
		t.Errorf("%d attempts in two seconds of 300 ms each", b.log.appends)
	}
	b.log.before = func(int, string) error { return nil }
	if err := b.update(t, stream, "name", `"y"`); err != nil {
		t.Error(err)
	}
}

func TestHandler_aStoreThatNeverAnswersAnAppendLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(int, string) error {
		b.clock.add(300 * time.Millisecond)
		return domain.ErrOutcomeUnknown
	}
	if err := b.update(t, stream, "name", `"x"`); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if b.log.appends > 10 {
		t.Errorf("%d attempts in two seconds of 300 ms each", b.log.appends)
	}
}

func TestHandler_aLostAnswerIsFoundInTheStream(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.after = func(n int, _ string) error {
		if n == 2 {
			return domain.ErrOutcomeUnknown
		}
		return nil
	}
	// Decided again it would be refused.
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Position.Commit != 4 || r.History.Head.Revision != 3 || r.Replayed {
		t.Errorf("%+v", r)
	}
	if got := b.log.types(stream); len(got) != 4 {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

func TestHandler_anAppendThatDidNothingIsDoneAgain(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.log.before = func(n int, _ string) error {
		if n == 2 {
			return domain.ErrOutcomeUnknown
		}
		return nil
	}
	if err := b.update(t, stream, "name", `"once"`); err != nil {
		t.Fatal(err)
	}
	if got := b.log.types(stream); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestHandler_aStoreThatStaysAwayLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	away := true
	b.log.after = func(int, string) error {
		if away {
			return domain.ErrOutcomeUnknown
		}
		return nil
	}
	b.log.reading = func(int, string) error {
		b.clock.add(500 * time.Millisecond)
		if away {
			return domain.ErrUnavailable
		}
		return nil
	}
	k := key("k", "body")
	update := Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"x"`)}, IdempotencyKey: k}
	if _, err := b.Handle(t.Context(), update); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if b.log.reads > 10 {
		t.Errorf("%d attempts to read in two seconds of 500 ms each", b.log.reads)
	}
	away = false
	// It had been written, so the repeat finds it.
	r, err := b.Handle(t.Context(), update)
	if err != nil || !r.Replayed {
		t.Errorf("%+v, %v", r, err)
	}
	if got := b.log.types(stream); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

// The k-th append fails, before or after doing its work, for every k; then all
// is repeated on a new node. The log is the same as without failures.
func TestHandler_theKthAppendFails(t *testing.T) {
	t.Parallel()
	story := func(h *Handler, ctx context.Context) error {
		created, err := h.Create(ctx, creation(key("create", "b")))
		if err != nil {
			return err
		}
		stream := created.History.Stream
		for i, cmd := range []domain.Command{
			domain.Update{Fields: fields("name", `"n"`)}, domain.Step{To: domain.StatusOpen}, domain.Step{To: domain.StatusClosed}, domain.Delete{},
		} {
			if _, err := h.Handle(ctx, Request{Stream: stream, Command: cmd, IdempotencyKey: key(fmt.Sprint(i), "b")}); err != nil {
				return err
			}
		}
		return nil
	}
	count := func(l *testLog) (n int) {
		for _, events := range l.streams {
			n += len(events)
		}
		return n
	}
	clean := newBench()
	if err := story(clean.Handler, t.Context()); err != nil {
		t.Fatal(err)
	}
	want := count(clean.log)
	for _, point := range []string{"before", "after"} {
		for _, kind := range []error{domain.ErrUnavailable, domain.ErrOutcomeUnknown} {
			if point == "after" && errors.Is(kind, domain.ErrUnavailable) {
				continue // an append that did its work is never "nothing was written"
			}
			for k := 1; k <= clean.log.appends; k++ {
				b := newBench()
				fail := func(n int, _ string) error {
					if n == k {
						return kind
					}
					return nil
				}
				if point == "before" {
					b.log.before = fail
				} else {
					b.log.after = fail
				}
				err := story(b.Handler, t.Context())
				if errors.Is(kind, domain.ErrUnavailable) != errors.Is(err, domain.ErrUnavailable) {
					t.Errorf("%s, %v at %d: %v", point, kind, k, err)
				}
				if err := story(NewHandler(b.log, nil, b.clock.time), t.Context()); err != nil {
					t.Errorf("%s, %v at %d, repeated: %v", point, kind, k, err)
				}
				if got := count(b.log); got != want {
					t.Errorf("%s, %v at %d: %d events, want %d", point, kind, k, got, want)
				}
				b.log.verify(t)
			}
		}
	}
}

// However appends fail with as many commands waiting as may wait, each command is
// carried out once, and a failure costs deciding one batch again and reading what
// stands behind the state.
func TestHandler_aFailedAppendCostsOneBatchAndTheTail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		stream := b.queue(t)
		held, release := b.hold()
		var failed int
		holding := b.log.before
		b.log.before = func(k int, s string) error {
			if k%3 == 0 {
				failed++
				return domain.ErrOutcomeUnknown
			}
			return holding(k, s)
		}
		b.log.after = func(k int, _ string) error {
			if k%3 == 1 {
				failed++
				return domain.ErrOutcomeUnknown
			}
			return nil
		}
		ask := func(i int) *pending {
			k := key(strconv.Itoa(i), "b")
			p := &pending{
				Request: Request{Stream: stream, Command: domain.Update{Fields: fields("name", strconv.Quote(strconv.Itoa(i)))}, IdempotencyKey: k},
				ctx:     t.Context(), id: k.CommandID, done: make(chan struct{}),
			}
			if err := b.hand(p); err != nil {
				t.Fatal(err)
			}
			return p
		}
		all := []*pending{ask(0)}
		<-held
		for i := range maxWaiting {
			all = append(all, ask(i+1))
		}
		before := b.log.encoded
		close(release)
		wrong := 0
		for i, p := range all {
			<-p.done
			if p.err != nil || *shared(p.result).Name != strconv.Itoa(i) {
				wrong++
			}
			p.result = Result{}
		}
		b.working.Wait()
		if wrong > 0 {
			t.Errorf("%d commands were not answered with what they did", wrong)
		}
		if got := len(b.log.types(stream)); got != maxWaiting+2 {
			t.Errorf("%d events", got)
		}
		if least := 2 * maxWaiting / maxBatch / 3; failed < least {
			t.Errorf("only %d appends failed", failed)
		}
		if again := b.log.encoded - before - maxWaiting; again > failed*maxBatch {
			t.Errorf("%d events were made again after %d failures", again, failed)
		}
		if b.log.yielded > failed*maxBatch {
			t.Errorf("%d events were read after %d failures", b.log.yielded, failed)
		}
		b.log.verify(t)
	})
}

// An outcome that does not fit into one append is written in parts. The command is
// answered when all of it is in the log.
func TestHandler_anOutcomeLargerThanAnAppendIsWrittenInParts(t *testing.T) {
	t.Parallel()
	past := []string{"openAt", `"2026-12-15T08:00:00Z"`, "closeAt", `"2026-12-15T08:30:00Z"`}
	want := []string{"*domain.QueueCreated", "domain.Scheduled", "domain.Opened", "domain.Closed", "domain.Completed"}
	const appends = 5 // the claim, the creation with what follows first, and each of the rest
	create := func(t *testing.T, b *bench) error {
		b.maxAppend = 1
		r, err := b.Create(t.Context(), creation(key("create", "b"), past...))
		if err != nil {
			return err
		}
		stream := r.History.Stream
		if got := b.log.types(stream); shared(r).Status != domain.StatusCompleted || !slices.Equal(got, want) {
			t.Errorf("answered as %s when the log had %s", shared(r).Status, got)
		}
		for _, e := range b.log.streams[stream] {
			if e.Metadata.RequestID != "r1" || e.Metadata.CommandID != key("create", "").CommandID.String() {
				t.Errorf("%s is not told to be the request's: %+v", e.Type, e.Metadata)
			}
		}
		return nil
	}
	synctest.Test(t, func(t *testing.T) {
		b := newBench()
		if err := create(t, b); err != nil || b.log.appends != appends {
			t.Fatalf("%d appends, %v", b.log.appends, err)
		}
		b.log.verify(t)
	})
	fail := map[string]func(b *bench, k int, err error){
		"before": func(b *bench, k int, err error) {
			b.log.before = func(n int, _ string) error { return unlessOther(n, k, err) }
		},
		"after": func(b *bench, k int, err error) {
			b.log.after = func(n int, _ string) error { return unlessOther(n, k, err) }
		},
	}
	for point, plant := range fail {
		for k := 2; k <= appends; k++ {
			synctest.Test(t, func(t *testing.T) {
				b := newBench()
				plant(b, k, domain.ErrOutcomeUnknown)
				if err := create(t, b); err != nil {
					t.Errorf("%s append %d: %v", point, k, err)
				}
				b.log.verify(t)
			})
		}
	}
	// A store that goes away between two parts has written something, and whoever
	// repeats the request finds the rest done.
	for k := 3; k <= appends; k++ {
		synctest.Test(t, func(t *testing.T) {
			b := newBench()
			fail["before"](b, k, domain.ErrUnavailable)
			if err := create(t, b); !errors.Is(err, domain.ErrOutcomeUnknown) {
				t.Errorf("append %d: %v", k, err)
			}
			next := NewHandler(b.log, nil, b.clock.time)
			next.maxAppend = 1
			r, err := next.Create(t.Context(), creation(key("create", "b"), past...))
			if err != nil || !r.Replayed {
				t.Fatalf("append %d, repeated: %v", k, err)
			}
			if _, err := next.Handle(t.Context(), Request{Stream: r.History.Stream, Command: domain.Advance{}}); err != nil {
				t.Fatal(err)
			}
			if got := b.log.types(r.History.Stream); !slices.Equal(got, want) {
				t.Errorf("append %d: %s", k, got)
			}
			b.log.verify(t)
		})
	}
}

func unlessOther(n, k int, err error) error {
	if n != k {
		return nil
	}
	return err
}

// What waits behind an outcome in parts is decided when all of it is in the log,
// also when another node writes some of it.
func TestHandler_whatFollowsAnOutcomeInPartsWaitsForTheLast(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.maxAppend = 1
	stream := b.queue(t, "openAt", `"2026-12-15T10:00:00Z"`, "closeAt", `"2026-12-15T11:00:00Z"`)
	b.clock.add(3 * time.Hour)
	other := NewHandler(b.log, nil, b.clock.time)
	other.maxAppend = 1
	first := b.log.appends + 1
	b.log.after = func(n int, _ string) error {
		if n == first {
			_, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Advance{}})
			return err
		}
		return nil
	}
	refusedWith(t, b.update(t, stream, "name", `"late"`), domain.UpdateClosed)
	want := []string{"*domain.QueueCreated", "domain.Scheduled", "domain.Opened", "domain.Closed", "domain.Completed"}
	if got := b.log.types(stream); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
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
	b.clock.add(faultCounts + time.Second)
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
	// A lost race is none of the store's fault.
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
	// Nor does it show that the store can write, and nor does one broken stream.
	for _, err := range []error{domain.ErrWrongRevision, &domain.HistoryError{Stream: stream}} {
		b.health.appended(err, b.clock.time())
		if got := b.Health(); !errors.Is(got, full) {
			t.Errorf("after %v: %v", err, got)
		}
	}
}

func TestHandler_aRepeatedCreationIsOne(t *testing.T) {
	t.Parallel()
	b := newBench()
	k := key("k", "body")
	first, err := b.Create(t.Context(), creation(k))
	if err != nil {
		t.Fatal(err)
	}
	stream := first.History.Stream
	if err := b.update(t, stream, "name", `"changed since"`); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*Handler{"same node": b.Handler, "another node": NewHandler(b.log, nil, b.clock.time)} {
		again, err := h.Create(t.Context(), creation(k))
		if err != nil {
			t.Fatal(err)
		}
		if !again.Replayed || again.History.Stream != stream || again.History.Head.Revision != first.History.Head.Revision {
			t.Errorf("%s: %+v", name, again)
		}
		if shared(again).Name != nil {
			t.Errorf("%s: the repeat shows what came later", name)
		}
		_, err = h.Create(t.Context(), creation(key("k", "another body")))
		refusedWith(t, err, domain.IdempotencyReused)
	}
}

func TestHandler_twoNodesThatCreateAtOnceMakeOne(t *testing.T) {
	t.Parallel()
	b := newBench()
	nodes := []*Handler{b.Handler, NewHandler(b.log, nil, b.clock.time)}
	for round := range 50 {
		k := key(fmt.Sprint(round), "body")
		var ids, seeds [2]string
		var all sync.WaitGroup
		for i, h := range nodes {
			all.Go(func() {
				r, err := h.Create(t.Context(), creation(k))
				if err != nil {
					t.Error(err)
					return
				}
				ids[i], seeds[i] = r.History.Stream, shared(r).EncryptionSeed.Plain
			})
		}
		all.Wait()
		if ids[0] != ids[1] || seeds[0] != seeds[1] {
			t.Errorf("made %v with the seeds %v", ids, seeds)
		}
		if got := b.log.types(ids[0]); len(got) != 1 {
			t.Errorf("got %v", got)
		}
	}
	b.log.verify(t)
}

func TestHandler_aRefusalIsNotRemembered(t *testing.T) {
	t.Parallel()
	b := newBench()
	k := key("k", "bad")
	_, err := b.Create(t.Context(), creation(k, "maxCapacity", "0"))
	refusedWith(t, err, domain.ValidationFailed)
	if len(b.log.streams) != 0 {
		t.Errorf("a refusal left %v", b.log.streams)
	}
	k.BodyHash = "good"
	r, err := b.Create(t.Context(), creation(k))
	if err != nil || r.Replayed {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestHandler_aRepeatedCommandIsDoneOnce(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	open := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: key("k", "")}
	open.IdempotencyKey.BodyHash = "e3b0"
	if r, err := b.Handle(t.Context(), open); err != nil || r.Replayed {
		t.Fatal(r, err)
	}
	n := len(b.log.types(stream))
	for name, h := range map[string]*Handler{"same node": b.Handler, "after a restart": NewHandler(b.log, nil, b.clock.time)} {
		r, err := h.Handle(t.Context(), open)
		if err != nil || !r.Replayed || shared(r).Status != domain.StatusOpen {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		other := open
		other.IdempotencyKey.BodyHash = "another"
		_, err = h.Handle(t.Context(), other)
		refusedWith(t, err, domain.IdempotencyReused)
	}
	if got := len(b.log.types(stream)); got != n {
		t.Errorf("%d events became %d", n, got)
	}
}

// Repeats that wait together are decided together.
func TestHandler_aRepeatInTheSameBatchIsDoneOnce(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	held, release := b.hold()
	answered := make(chan error, 1)
	go func() { answered <- b.update(t, stream, "name", `"first"`) }()
	<-held
	const n = 5
	results := make(chan Result, n)
	open := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: key("k", "body")}
	for range n {
		go func() {
			r, err := b.Handle(t.Context(), open)
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	b.awaitWaiting(t, stream, n)
	close(release)
	if err := <-answered; err != nil {
		t.Error(err)
	}
	replayed := 0
	for range n {
		if r := <-results; r.Replayed {
			replayed++
		}
	}
	if replayed != n-1 {
		t.Errorf("%d of %d were replayed", replayed, n)
	}
	b.log.verify(t)
}

// Two nodes that decide the same command at once must not both be told that
// their events stand in the log.
func TestHandler_twoNodesThatDecideTheSameCommandAtOnceAgree(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	other := NewHandler(b.log, nil, b.clock.time)
	if err := other.Load(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	open := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: key("k", "body")}
	raced := false
	b.log.before = func(int, string) error {
		if raced {
			return nil
		}
		raced = true
		b.clock.add(7 * time.Millisecond)
		_, err := other.Handle(t.Context(), open)
		return err
	}
	r, err := b.Handle(t.Context(), open)
	if err != nil || !r.Replayed {
		t.Errorf("%+v, %v", r, err)
	}
	if at := b.log.streams[stream][1].Event.When(); shared(r).OpenAt != at {
		t.Errorf("answers %s, the log says %s", shared(r).OpenAt, at)
	}
	b.log.before = func(int, string) error { return nil }
	for _, h := range []*Handler{b.Handler, other} {
		if _, err := h.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%p"`, h))}}); err != nil {
			t.Error(err)
		}
	}
	b.log.verify(t)
}

func TestHandler_aRacedRepeatWithAnotherBodyIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	other := NewHandler(b.log, nil, b.clock.time)
	theirs := Request{Stream: stream, Organization: org, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: key("k", "theirs")}
	raced := false
	b.log.before = func(int, string) error {
		if raced {
			return nil
		}
		raced = true
		_, err := other.Handle(t.Context(), theirs)
		return err
	}
	ours := theirs
	ours.IdempotencyKey.BodyHash = "ours"
	_, err := b.Handle(t.Context(), ours)
	refusedWith(t, err, domain.IdempotencyReused)
}

// An append whose answer was lost lands only after the stream was read back and
// the command was decided again.
func TestHandler_anAppendThatLandsLateIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	var late func()
	b.log.delay = func(n int, write func()) error {
		switch n {
		case 2:
			late = write
			return domain.ErrOutcomeUnknown
		case 3:
			b.clock.add(7 * time.Millisecond)
			late()
		}
		return nil
	}
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"one"`)}})
	if err != nil || r.History.Head.Revision != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if err := b.update(t, stream, "name", `"two"`); err != nil {
		t.Error(err)
	}
	if got := b.log.types(stream); len(got) != 3 {
		t.Errorf("got %v", got)
	}
	b.log.verify(t)
}

// While an append may still land, nobody is told that nothing happened.
func TestHandler_aRefusalDoesNotOvertakeAnAppendInDoubt(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t, "openAt", `"2026-12-15T08:00:00Z"`, "closeAt", `"2026-12-15T10:00:00Z"`)
	var land func()
	doubtful := b.log.appends + 1
	b.log.delay = func(n int, write func()) error {
		if n != doubtful {
			return nil
		}
		land = write
		b.clock.add(10 * time.Second) // by which the closing time asked for is past
		return domain.ErrOutcomeUnknown
	}
	if err := b.update(t, stream, "closeAt", `"2026-12-15T09:00:05Z"`); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	land()
	if got := b.log.types(stream); got[len(got)-1] != "domain.Updated" {
		t.Errorf("got %v", got)
	}
	// Once the stream has moved on, the append cannot land any more, and answers are
	// certain again.
	b.clock.add(-10 * time.Second)
	other := NewHandler(b.log, nil, b.clock.time)
	doubtful = b.log.appends + 1
	b.log.delay = func(n int, _ func()) error {
		if n != doubtful {
			return nil
		}
		if _, err := other.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusClosed}}); err != nil {
			t.Error(err)
		}
		return domain.ErrOutcomeUnknown
	}
	refusedWith(t, b.update(t, stream, "name", `"late"`), domain.UpdateClosed)
	b.log.verify(t)
}

// A clock that was days ahead once leaves its time in the stream for ever.
func TestHandler_aClockThatWasDaysAheadForgetsNoKey(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	b.clock.add(48 * time.Hour)
	if err := b.update(t, stream, "name", `"ahead"`); err != nil {
		t.Fatal(err)
	}
	b.clock.add(-48 * time.Hour)
	r := Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"a"`)}, IdempotencyKey: key("k", "b")}
	if _, err := b.Handle(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := b.update(t, stream, "name", `"b"`); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]*Handler{"the same node": b.Handler, "another one": NewHandler(b.log, nil, b.clock.time)} {
		if again, err := h.Handle(t.Context(), r); err != nil || !again.Replayed || *shared(again).Name != "b" {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
	}
	b.log.verify(t)
}

// An answer that writes nothing rests on what the log holds, not on what this
// node remembers.
func TestHandler_refusalsAndAnswersWithoutEventsRestOnTheLog(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		theirs, ours domain.Command
		ifMatch      []domain.Revision
		refused      domain.Code
	}{
		"a step that is next by now": {theirs: domain.Step{To: domain.StatusOpen}, ours: domain.Step{To: domain.StatusClosed}},
		"a tag that holds by now":    {theirs: domain.Update{Fields: fields("name", `"x"`)}, ours: domain.Update{Fields: fields("name", `"y"`)}, ifMatch: []domain.Revision{1}},
		"nothing to change, deleted": {theirs: domain.Delete{}, ours: domain.Update{}, refused: "Queue not found"},
	} {
		b := newBench()
		stream := b.queue(t)
		if _, err := NewHandler(b.log, nil, b.clock.time).Handle(t.Context(), Request{Stream: stream, Command: c.theirs}); err != nil {
			t.Fatal(err)
		}
		r, err := b.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: c.ours, IfMatch: c.ifMatch})
		switch {
		case c.refused != "":
			refusedWith(t, err, c.refused)
		case err != nil || !r.Raced:
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		b.log.verify(t)
	}
}

// Whoever is answered can be shown at once what the answer rests on.
func TestHandler_everyAnswerSaysWhereItStands(t *testing.T) {
	t.Parallel()
	b := newBench()
	created, err := b.Create(t.Context(), creation(key("k", "b"), "openAt", `"2026-12-15T10:00:00Z"`))
	if err != nil {
		t.Fatal(err)
	}
	stream := created.History.Stream
	again, err := NewHandler(b.log, nil, b.clock.time).Create(t.Context(), creation(key("k", "b"), "openAt", `"2026-12-15T10:00:00Z"`))
	if err != nil || again.Position != created.Position || created.Position == (domain.Position{}) {
		t.Errorf("%+v and %+v, %v", created.Position, again.Position, err)
	}
	b.clock.add(2 * time.Hour)
	r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Delete{}})
	refusedWith(t, err, domain.DeleteActive)
	opened := b.log.streams[stream][2].Position
	if r.Position != opened {
		t.Errorf("a refusal after the opening stands at %v, not %v", r.Position, opened)
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

// The claim holds for ever, and so must the answer.
func TestHandler_aCreationIsRepeatableForEver(t *testing.T) {
	t.Parallel()
	b := newBench()
	first, err := b.Create(t.Context(), creation(key("k", "b")))
	if err != nil {
		t.Fatal(err)
	}
	b.clock.add(72 * time.Hour)
	again, err := NewHandler(b.log, nil, b.clock.time).Create(t.Context(), creation(key("k", "b")))
	if err != nil || !again.Replayed || again.History.Stream != first.History.Stream {
		t.Errorf("%+v, %v", again, err)
	}
	_, err = b.Create(t.Context(), creation(key("k", "another")))
	refusedWith(t, err, domain.IdempotencyReused)
}

// Two requests with one key wait together when the answer to their append is
// lost: one is done, the other is a repeat or a misuse.
func TestHandler_aLostAnswerToARepeatedCommandIsForOneOfThem(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"body", "another"} {
		b := newBench()
		stream := b.queue(t)
		held, release := b.hold()
		b.log.after = func(n int, _ string) error {
			if n == 3 {
				return domain.ErrOutcomeUnknown
			}
			return nil
		}
		first := make(chan error, 1)
		go func() { first <- b.update(t, stream, "name", `"first"`) }()
		<-held
		type answer struct {
			Result
			err error
		}
		answers := make(chan answer, 2)
		for i, body := range []string{"body", other} {
			go func() {
				r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: key("k", body)})
				answers <- answer{r, err}
			}()
			b.awaitWaiting(t, stream, i+1)
		}
		close(release)
		if err := <-first; err != nil {
			t.Error(err)
		}
		done, repeated, misused := 0, 0, 0
		for range 2 {
			a := <-answers
			switch {
			case a.err != nil:
				refusedWith(t, a.err, domain.IdempotencyReused)
				misused++
			case a.Replayed:
				repeated++
			default:
				done++
			}
		}
		if done != 1 || (other == "body") != (repeated == 1) || (other == "another") != (misused == 1) {
			t.Errorf("%s: %d done, %d repeated, %d misused", other, done, repeated, misused)
		}
		b.log.verify(t)
	}
}

// Once an append ended without an answer, no fault may say that nothing was
// written.
func TestHandler_doubtIsNotForgotten(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	var late func()
	b.log.delay = func(n int, write func()) error {
		switch n {
		case 2:
			late = write
			b.clock.add(7 * time.Millisecond) // or the next attempt were the same
			return domain.ErrOutcomeUnknown
		case 3:
			late()
			b.log.reading = func(int, string) error {
				b.clock.add(time.Second)
				return domain.ErrUnavailable
			}
		}
		return nil
	}
	if err := b.update(t, stream, "name", `"x"`); !errors.Is(err, domain.ErrOutcomeUnknown) {
		t.Errorf("got %v, and the stream has %v", err, b.log.types(stream))
	}
}

func TestHandler_forgetsKeysAfterMoreThanADay(t *testing.T) {
	t.Parallel()
	var m memory
	day := domain.Instant(24 * time.Hour / time.Millisecond)
	m.add(key("old", "b"), day, 0)
	m.add(key("new", "b"), 2*day, 1)
	m.add(key("old", "c"), 3*day, 2)
	m.forget(day + 1)
	if done, _, _ := m.find(key("old", "b")); done {
		t.Error("the old one is remembered")
	}
	if done, same, first := m.find(key("new", "b")); !done || !same || first != 1 {
		t.Error("the new one is forgotten")
	}
	if done, same, _ := m.find(key("new", "c")); !done || same {
		t.Error("another body is taken for the same")
	}
	// A writer forgets as its stream goes on.
	b := newBench()
	stream := b.queue(t)
	for i := range 3 {
		b.clock.add(24 * time.Hour)
		r := Request{Stream: stream, Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%d"`, i))}, IdempotencyKey: key(fmt.Sprint(i), "b")}
		if _, err := b.Handle(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	b.working.Wait()
	if n := len(b.writers[stream].remembered.order); n != 2 {
		t.Errorf("%d keys are remembered", n)
	}
	if rememberFor < 24*time.Hour {
		t.Error("keys hold for 24 hours at least")
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
			t.Errorf("%s stands at %v", name, result.Position)
		}
		if err.Error() != "Queue not found" {
			t.Errorf("%s says %q", name, err)
		}
	}
	if got := b.log.types(stream); len(got) != 1 {
		t.Errorf("got %v", got)
	}
}

func TestHandler_aPreconditionIsCheckedAfterWhatIsDue(t *testing.T) {
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

func TestHandler_ifNoneMatchRefusesWhatIsAtOneOfTheRevisions(t *testing.T) {
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
	// That made it one of them.
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
	// One that is wrong from its first event on is not gone on with behind it.
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

func isBroken(err error) bool {
	_, ok := errors.AsType[*domain.HistoryError](err)
	return ok
}

// A mistake in the rules of one stream is a fault of its commands, not the end
// of the process.
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
		t.Error("the longest idle is still there")
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
			r := Request{Stream: stream, Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%d"`, i))}, IdempotencyKey: key(stream+strconv.Itoa(i), "b")}
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
	// The one in use is kept though it alone is over the bound, and what was
	// dropped is found in the log.
	for i := range 12 {
		r := Request{Stream: streams[0], Command: domain.Update{Fields: fields("name", fmt.Sprintf(`"%d"`, i))}, IdempotencyKey: key(streams[0]+strconv.Itoa(i), "b")}
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

func TestHandler_closeAnswersWhatWasAccepted(t *testing.T) {
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

func TestHandler_aCallerThatLeftIsNotServed(t *testing.T) {
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

func BenchmarkHandler_update(b *testing.B) {
	bench := newBench()
	stream := bench.queue(b)
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		i++
		if err := bench.update(b, stream, "admissionRate", fmt.Sprint(i%1000+1)); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHandler_load(b *testing.B) {
	for _, n := range []int{1, 10, 100, 1_000, 10_000} {
		b.Run(fmt.Sprintf("events=%d", n), func(b *testing.B) {
			bench := newBench()
			stream := bench.queue(b)
			for i := range n - 1 {
				if err := bench.update(b, stream, "admissionRate", fmt.Sprint(i%1000+1)); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				if err := NewHandler(bench.log, nil, bench.clock.time).Load(b.Context(), stream); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/event")
		})
	}
}
