package commands

import (
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// pastModels are read models that have followed each stream up to a revision.
type pastModels struct {
	log *testLog
	at  domain.Revision
}

func (m pastModels) State(stream string) (*domain.History, domain.Position) {
	m.log.mu.Lock()
	defer m.log.mu.Unlock()
	h := domain.NewHistory(stream)
	var position domain.Position
	for _, r := range m.log.streams[stream] {
		if r.Revision > m.at {
			break
		}
		if err := h.Apply(r); err != nil {
			return nil, domain.Position{}
		}
		position = r.Position
	}
	if position == (domain.Position{}) {
		return nil, position
	}
	return h, position
}

func (pastModels) Known(string) (domain.Revision, *domain.HistoryError) { return domain.NoStream, nil }
func (pastModels) Quarantine(*domain.HistoryError)                      {}

// withReadModelsAt returns another node on the same log, whose read models end at a revision.
func (b *bench) withReadModelsAt(at domain.Revision) *Handler {
	return NewHandler(b.log, pastModels{b.log, at}, b.clock.time)
}

// When a hundred thousand queues open in one second, there is no time to read each stream.
func TestHandler_aStateThatTheReadModelsHaveIsNotRead(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t, "openAt", `"2026-12-15T10:00:00Z"`)
	reads := b.log.reads
	node := b.withReadModelsAt(1)
	if err := node.Load(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	r, err := node.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}})
	if err != nil || shared(r).Status != domain.StatusOpen || r.Raced {
		t.Fatalf("%+v, %v", r, err)
	}
	if last := b.log.streams[stream][len(b.log.streams[stream])-1]; r.Position != last.Position {
		t.Errorf("it has position %v, not %v", r.Position, last.Position)
	}
	if b.log.reads != reads {
		t.Errorf("the stream was read %d times", b.log.reads-reads)
	}
	b.log.verify(t)
}

func TestHandler_readModelsThatAreBehindDecideNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command domain.Command
		ifMatch []domain.Revision // relative to the end of the stream
		check   func(t *testing.T, r Result, err error)
	}{
		"events": {
			command: domain.Update{Fields: fields("name", `"b"`)},
			check: func(t *testing.T, r Result, err error) {
				if err != nil || !r.Raced || *shared(r).Name != "b" || shared(r).Status != domain.StatusOpen {
					t.Errorf("%+v, %v", r, err)
				}
			},
		},
		"a refusal": {
			command: domain.Step{To: domain.StatusClosed},
			check: func(t *testing.T, r Result, err error) {
				if err != nil || shared(r).Status != domain.StatusCompleted {
					t.Errorf("%+v, %v", r, err)
				}
			},
		},
		"nothing to do": {
			command: domain.Update{Fields: fields("name", "null")},
			check: func(t *testing.T, r Result, err error) {
				if err != nil || shared(r).Name != nil {
					t.Errorf("%+v, %v", r, err)
				}
			},
		},
		"a precondition that held": {
			command: domain.Update{Fields: fields("name", `"b"`)}, ifMatch: []domain.Revision{-1},
			check: func(t *testing.T, _ Result, err error) { refusedWith(t, err, domain.PreconditionFailed) },
		},
		"a precondition that holds now": {
			command: domain.Update{Fields: fields("name", `"b"`)}, ifMatch: []domain.Revision{0},
			check: func(t *testing.T, r Result, err error) {
				if err != nil || *shared(r).Name != "b" {
					t.Errorf("%+v, %v", r, err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			stream := b.queue(t)
			if err := b.update(t, stream, "name", `"a"`); err != nil {
				t.Fatal(err)
			}
			if _, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}}); err != nil {
				t.Fatal(err)
			}
			var ifMatch []domain.Revision
			for _, back := range c.ifMatch {
				ifMatch = append(ifMatch, domain.Revision(len(b.log.streams[stream])-1)+back)
			}
			r, err := b.withReadModelsAt(0).Handle(t.Context(), Request{Stream: stream, Command: c.command, IfMatch: ifMatch})
			c.check(t, r, err)
			b.log.verify(t)
		})
	}
}

// The read models keep no idempotency keys, so repeats are recognised from the log.
func TestHandler_aRepeatIsRecognisedBehindAStateOfTheReadModels(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.queue(t)
	open := Request{Stream: stream, Command: domain.Step{To: domain.StatusOpen}, IdempotencyKey: idempotencyKey("k", "body")}
	if _, err := b.Handle(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	for name, loaded := range map[string]bool{"at first": false, "once it is in memory": true} {
		t.Run(name, func(t *testing.T) {
			node := b.withReadModelsAt(domain.Revision(len(b.log.streams[stream]) - 1))
			if loaded {
				if err := node.Load(t.Context(), stream); err != nil {
					t.Fatal(err)
				}
				if _, err := node.Handle(t.Context(), Request{Stream: stream, Command: domain.Update{Fields: fields("name", `"b"`)}}); err != nil {
					t.Fatal(err)
				}
			}
			if r, err := node.Handle(t.Context(), open); err != nil || !r.Replayed {
				t.Errorf("%+v, %v", r, err)
			}
			other := open
			other.IdempotencyKey.BodyHash = "another"
			_, err := node.Handle(t.Context(), other)
			refusedWith(t, err, domain.IdempotencyReused)
		})
	}
	b.log.verify(t)
}

// When another node carried out the wake first, Advance writes nothing. When another node
// only wrote something else to the stream, Advance carries out the wake.
func TestHandler_saysWhetherAnotherNodeLeftSomethingToDo(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		theirs  domain.Command
		written bool
	}{
		"the other node only wrote": {domain.Update{Fields: fields("openAt", `"2026-12-15T09:30:00Z"`)}, true},
		"the other node was there":  {domain.Step{To: domain.StatusOpen}, false},
	} {
		b := newBench()
		stream := b.queue(t, "openAt", `"2026-12-15T10:00:00Z"`)
		node := b.withReadModelsAt(1)
		if err := node.Load(t.Context(), stream); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Handle(t.Context(), Request{Stream: stream, Command: c.theirs}); err != nil {
			t.Fatal(err)
		}
		b.clock.add(2 * time.Hour)
		r, err := node.Handle(t.Context(), Request{Stream: stream, Command: domain.Advance{}})
		if err != nil || !r.Raced || r.Written != c.written || shared(r).Status != domain.StatusOpen {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}
