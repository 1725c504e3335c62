// Package domaintest says in tests what a command leads to after a history. It is
// for test files only.
package domaintest

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

// Scenario is a claim about the rules: after the events Given, the command When
// that is decided at Now leads to the events Then, those that are due at Now
// first. Without a command only what is due happens. A command that is refused
// adds no event of its own and has the code Refused and exactly those Details.
type Scenario struct {
	Kind    domain.Kind
	Given   []domain.Event
	Now     domain.Instant // what the clock shows; the stream may be ahead of it
	When    domain.Command
	Then    []domain.Event
	Refused domain.Code
	Details []domain.Detail
}

// Run proves the claim. It also folds all events anew, which has to give the same
// state with nothing left to do.
func (s Scenario) Run(t *testing.T) {
	t.Helper()
	h := Fold(t, s.Kind, s.Given)
	now := h.At(s.Now)
	got, err := Advance(h, now)
	if err != nil {
		t.Fatalf("advance: %v", err)
	}
	var refusal *domain.Error
	if s.When != nil {
		events, err := Carry(h, now, s.When)
		if err != nil && !errors.As(err, &refusal) {
			t.Fatalf("not a refusal: %v", err)
		}
		got = append(got, events...)
	}
	Same(t, got, s.Then)
	switch {
	case refusal == nil && s.Refused != "":
		t.Errorf("not refused; want %q", s.Refused)
	case refusal != nil && refusal.Code != s.Refused:
		t.Errorf("refused with %q, want %q", refusal, s.Refused)
	case refusal != nil && !slices.Equal(refusal.Details, s.Details):
		t.Errorf("details\n got %+v\nwant %+v", refusal.Details, s.Details)
	}
	again := Fold(t, s.Kind, append(slices.Clone(s.Given), got...))
	if !SameState(again, h) {
		t.Errorf("folded again\n got %+v\nwant %+v", again.Aggregate, h.Aggregate)
	}
	if rest, err := Advance(again, now); len(rest) > 0 || err != nil {
		t.Errorf("still due: %s, %v", Show(rest), err)
	}
}

// TB is what the helpers need of a test; *testing.T and *rapid.T have it.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Fold is the history of events; each must be one that the rules allow.
func Fold(t TB, k domain.Kind, events []domain.Event) *domain.History {
	t.Helper()
	h := domain.NewHistory(string(k) + "-1")
	for i, e := range events {
		if err := h.Aggregate.Evolve(e); err != nil {
			t.Fatalf("event %d, %s: %v", i, Show([]domain.Event{e}), err)
		}
		h.Head.Revision++
		if domain.ChangesObject(e) {
			h.Changed = h.Head.Revision
		}
	}
	return h
}

// Asked is a command and what the clock shows when it is decided.
type Asked struct {
	Now     domain.Instant
	Command domain.Command
}

// Play returns the events to which commands lead, one after the other. None may be
// refused. A nil command does only what is due.
func Play(t TB, k domain.Kind, commands ...Asked) []domain.Event {
	t.Helper()
	h := domain.NewHistory(string(k) + "-1")
	var all []domain.Event
	for i, c := range commands {
		now := h.At(c.Now)
		due, err := Advance(h, now)
		all = append(all, due...)
		if err == nil && c.Command != nil {
			var events []domain.Event
			events, err = Carry(h, now, c.Command)
			all = append(all, events...)
		}
		if err != nil {
			t.Fatalf("command %d, %T: %v", i, c.Command, err)
		}
	}
	return all
}

// Advance does all that is due at now and returns it.
func Advance(h *domain.History, now domain.Instant) (all []domain.Event, err error) {
	for events, err := range h.Advance(now) {
		if err != nil {
			return all, err
		}
		all = append(all, events...)
	}
	return all, nil
}

// Carry decides cmd at now and returns its events with those that are due because
// of them.
func Carry(h *domain.History, now domain.Instant, cmd domain.Command) ([]domain.Event, error) {
	events, err := h.Decide(now, cmd)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	due, err := Advance(h, now)
	return append(events, due...), err
}

// SameState reports whether two histories have come to the same, however that is
// laid out in memory.
func SameState(a, b *domain.History) bool {
	plainA, whoA := bare(a)
	plainB, whoB := bare(b)
	return reflect.DeepEqual(plainA, plainB) && reflect.DeepEqual(whoA, whoB) && a.Aggregate.Wake() == b.Aggregate.Wake()
}

// bare returns a copy of a history without its participants, and the participants.
func bare(h *domain.History) (*domain.History, []domain.Participation) {
	f := h.Fork()
	d, ok := f.Aggregate.(domain.Distribution)
	if !ok {
		return f, nil
	}
	who := slices.Collect(d.Participants())
	d.ForgetParticipants()
	return f, who
}

// Same fails the test unless got and want are the same events, all of each.
func Same(t TB, got, want []domain.Event) {
	t.Helper()
	if g, w := Show(got), Show(want); g != w {
		t.Errorf("events\n got %s\nwant %s", g, w)
	}
}

// Show writes events down, one a line, with all that they hold: the name of the Go
// type and the JSON, in which secrets are readable.
func Show(events []domain.Event) string {
	if len(events) == 0 {
		return "none"
	}
	var out strings.Builder
	for _, e := range events {
		if _, ok := e.(domain.SecretHolder); ok {
			open := reflect.New(reflect.TypeOf(e).Elem())
			open.Elem().Set(reflect.ValueOf(e).Elem())
			e = open.Interface().(domain.Event)
			for _, s := range open.Interface().(domain.SecretHolder).Secrets() {
				s.Value.Sealed = fmt.Sprintf("%+v", *s.Value)
			}
		}
		data, err := json.Marshal(e)
		if err != nil {
			data = []byte(err.Error())
		}
		fmt.Fprintf(&out, "\n\t%T %s", e, data)
	}
	return out.String()
}
