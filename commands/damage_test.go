package commands

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"testing"

	"github.com/lotline/lotline/domain"
)

// damageModels are read models that know no states, only the revisions and the damage that
// a test or the handler tells them.
type damageModels struct {
	mu       sync.Mutex // guards the fields below
	known    map[string]domain.Revision
	broken   map[string]*domain.HistoryError
	reported []*domain.HistoryError
}

func (w *damageModels) State(string) (*domain.History, domain.Position) {
	return nil, domain.Position{}
}

func (w *damageModels) Known(stream string) (domain.Revision, *domain.HistoryError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if known, ok := w.known[stream]; ok {
		return known, w.broken[stream]
	}
	return domain.NoStream, w.broken[stream]
}

func (w *damageModels) Quarantine(broken *domain.HistoryError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reported = append(w.reported, broken)
	if w.broken[broken.Stream] == nil {
		w.broken[broken.Stream] = broken
	}
}

// withReadModels returns another node on the same log, with read models that know nothing.
func (b *bench) withReadModels() (*damageModels, *bench) {
	w := &damageModels{known: map[string]domain.Revision{}, broken: map[string]*domain.HistoryError{}}
	return w, &bench{log: b.log, clock: b.clock, Handler: NewHandler(b.log, w, b.clock.time)}
}

// damage changes a stored event.
func (l *testLog) damage(stream string, at domain.Revision) {
	l.mu.Lock()
	defer l.mu.Unlock()
	changed := *l.streams[stream][at]
	changed.Data = append(slices.Clone(changed.Data), ' ')
	l.streams[stream] = slices.Clone(l.streams[stream])
	l.streams[stream][at] = &changed
}

// The read models know of the damage although the writer holds a good state.
func TestHandler_aQuarantinedStreamTakesNoWrites(t *testing.T) {
	t.Parallel()
	w, b := newBench().withReadModels()
	stream := b.line(t, "a")
	w.Quarantine(&domain.HistoryError{Stream: stream, Revision: 1, Rule: "r"})
	appends := b.log.appends
	for _, c := range []domain.Command{
		domain.Enter{ConsumerID: "b"},
		domain.Enter{ConsumerID: "a"},
		domain.Admit{Count: 1},
		domain.Leave{ConsumerID: "a"},
		domain.Update{Fields: fields("name", `"x"`)},
		domain.Step{To: domain.StatusClosed},
		domain.Advance{},
		domain.Delete{},
	} {
		for _, k := range []IdempotencyKey{{}, idempotencyKey("k", "body")} {
			if r, err := b.act(t, stream, c, k); !isBroken(err) {
				t.Errorf("%T: %+v, %v", c, r, err)
			}
		}
	}
	if err := b.Load(t.Context(), stream); !isBroken(err) {
		t.Errorf("got %v", err)
	}
	if b.log.appends != appends {
		t.Errorf("%d appends", b.log.appends-appends)
	}
	if held := b.Occupancy(); held.Writers != 0 {
		t.Errorf("%d writers hold a state", held.Writers)
	}
	if err := b.update(t, b.queue(t), "name", `"x"`); err != nil {
		t.Error(err)
	}
}

// Every part of the handler that reads a damaged history tells the read models.
func TestHandler_reportsTheDamageThatItFinds(t *testing.T) {
	t.Parallel()
	for name, find := range map[string]func(t *testing.T, b *bench, other *bench) (stream string, err error){
		"a command": func(t *testing.T, b, other *bench) (string, error) {
			stream := b.queue(t)
			b.log.damage(stream, 0)
			return stream, other.update(t, stream, "name", `"x"`)
		},
		"a load ahead of a timer": func(t *testing.T, b, other *bench) (string, error) {
			stream := b.queue(t)
			b.log.damage(stream, 0)
			return stream, other.Load(t.Context(), stream)
		},
		"a tail after a lost race": func(t *testing.T, b, other *bench) (string, error) {
			stream := b.queue(t)
			if err := other.Load(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			if err := b.update(t, stream, "name", `"x"`); err != nil {
				t.Fatal(err)
			}
			b.log.damage(stream, 1)
			return stream, other.update(t, stream, "name", `"y"`)
		},
		"a repeated creation": func(t *testing.T, b, other *bench) (string, error) {
			r, err := b.Create(t.Context(), creation(idempotencyKey("k", "b")))
			if err != nil {
				t.Fatal(err)
			}
			b.log.damage(r.History.Stream, 0)
			_, err = other.Create(t.Context(), creation(idempotencyKey("k", "b")))
			return r.History.Stream, err
		},
		"a repeated creation whose claim is damaged": func(t *testing.T, b, other *bench) (string, error) {
			k := idempotencyKey("k", "b")
			if _, err := b.Create(t.Context(), creation(k)); err != nil {
				t.Fatal(err)
			}
			stream := domain.ClaimStream(k.CommandID.String())
			b.log.damage(stream, 0)
			_, err := other.Create(t.Context(), creation(k))
			return stream, err
		},
		"a repeated admission by count, which the writer remembers": func(t *testing.T, b, other *bench) (string, error) {
			stream := b.line(t, "a", "b", "c")
			if _, err := other.act(t, stream, domain.Admit{Count: 2}, idempotencyKey("k", "b")); err != nil {
				t.Fatal(err)
			}
			b.log.damage(stream, domain.Revision(len(b.log.streams[stream])-1))
			_, err := other.act(t, stream, domain.Admit{Count: 2}, idempotencyKey("k", "b"))
			return stream, err
		},
		"a stream whose end was removed": func(t *testing.T, b, other *bench) (string, error) {
			stream := b.line(t, "a", "b")
			other.readModels.(*damageModels).known[stream] = domain.Revision(len(b.log.streams[stream]) - 1)
			b.log.streams[stream] = b.log.streams[stream][:3]
			_, err := other.act(t, stream, domain.Enter{ConsumerID: "c"}, IdempotencyKey{})
			return stream, err
		},
		"a stream that was removed": func(t *testing.T, b, other *bench) (string, error) {
			stream := b.queue(t)
			other.readModels.(*damageModels).known[stream] = 0
			delete(b.log.streams, stream)
			return stream, other.update(t, stream, "name", `"x"`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			w, other := b.withReadModels()
			stream, err := find(t, b, other)
			if !isBroken(err) {
				t.Errorf("got %v", err)
			}
			if len(w.reported) == 0 || w.reported[0].Stream != stream {
				t.Errorf("reported %v", w.reported)
			}
		})
	}
}

// When the store fails, or lags behind another server, the history is not reported as
// damaged.
func TestHandler_aFaultOfTheStoreIsNotDamage(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.line(t, "a", "b")
	for _, fault := range []error{domain.ErrUnavailable, errors.New("cut off")} {
		w, other := b.withReadModels()
		w.known[stream] = 3
		b.log.reading = func(int, string) error { return fault }
		if _, err := other.act(t, stream, domain.Enter{ConsumerID: "c"}, IdempotencyKey{}); err == nil || isBroken(err) {
			t.Errorf("got %v", err)
		}
		b.log.reading = func(int, string) error { return nil }
		if _, err := other.act(t, stream, domain.Enter{ConsumerID: "c"}, IdempotencyKey{}); err != nil {
			t.Error(err)
		}
		if len(w.reported) > 0 {
			t.Errorf("reported %v", w.reported)
		}
	}
	w, _ := b.withReadModels()
	w.known[stream] = domain.Revision(len(b.log.streams[stream]) - 1)
	late := &lateLog{testLog: b.log, shows: 2}
	h := NewHandler(late, w, b.clock.time)
	if _, err := h.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: domain.Enter{ConsumerID: "d"}}); err != nil {
		t.Error(err)
	}
	if len(w.reported) > 0 || late.reads < 2 {
		t.Errorf("reported %v after %d reads", w.reported, late.reads)
	}
	b.log.verify(t)
}

// lateLog is a log whose first read yields only the first events of the stream, like a
// server that lags behind.
type lateLog struct {
	*testLog
	shows int
	reads int
}

func (l *lateLog) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	l.reads++
	first := l.reads == 1
	return func(yield func(*domain.Recorded, error) bool) {
		for r, err := range l.testLog.Read(ctx, stream, after) {
			if first && int(r.Revision) >= l.shows || !yield(r, err) {
				return
			}
		}
	}
}
