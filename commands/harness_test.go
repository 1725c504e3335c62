package commands

import (
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

const org = domain.ID("org_01h455vb4pex5vsknk084sn02r")

// clock is a clock that the test sets.
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

// bench is a Handler with a log in memory and a clock that the test sets.
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

func idempotencyKey(s, body string) IdempotencyKey {
	return IdempotencyKey{uuid.NewSHA1(uuid.Nil, []byte(s)), body}
}

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

// hold makes the log hold the append after the creation. The log closes held when the
// append has come, and continues it when the test closes release.
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

func isBroken(err error) bool {
	_, ok := errors.AsType[*domain.HistoryError](err)
	return ok
}
