// Package domaintest checks in tests which events a command leads to after a history.
// It is for test files only.
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

// Scenario is a test case for the rules. After the events Given, the command When is
// decided at Now. The result must be the events Then, which begin with the events that
// are due at Now. Without a command, Then has only what is due.
//
// A command that must be refused has the code Refused and exactly the details Details.
// It adds no event of its own.
type Scenario struct {
	Kind    domain.Kind
	Given   []domain.Event
	Now     domain.Instant // what the clock shows; the stream may be ahead of it
	When    domain.Command
	Then    []domain.Event
	Refused domain.Code
	Details []domain.Detail
}

// Run checks the scenario. It also replays all events. The replay must give the same
// state, with nothing left to do at Now.
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

// TB is the part of a test that the helpers use. *testing.T and *rapid.T implement it.
type TB interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Fold returns the history of events. The test fails when the rules refuse one of them.
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

// Asked is a command and the time that the clock shows when the command is decided.
type Asked struct {
	Now     domain.Instant
	Command domain.Command
}

// Play carries out commands one after another, beginning with an empty stream, and
// returns all events. The test fails when a command is refused. A nil command does only
// what is due.
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

// Advance does everything that is due at now and returns the events.
func Advance(h *domain.History, now domain.Instant) (all []domain.Event, err error) {
	for events, err := range h.Advance(now) {
		if err != nil {
			return all, err
		}
		all = append(all, events...)
	}
	return all, nil
}

// Carry decides cmd at now. It returns the events of cmd, and after them the events
// that are due because of them.
func Carry(h *domain.History, now domain.Instant, cmd domain.Command) ([]domain.Event, error) {
	events, err := h.Decide(now, cmd)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	due, err := Advance(h, now)
	return append(events, due...), err
}

// SameState reports whether two histories have the same state and the same wake. Their
// layout in memory may differ.
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

// Same fails the test unless got and want are equal, with all fields of all events.
func Same(t TB, got, want []domain.Event) {
	t.Helper()
	if g, w := Show(got), Show(want); g != w {
		t.Errorf("events\n got %s\nwant %s", g, w)
	}
}

// Show returns a text with one line for each event: the name of its Go type and its
// JSON. Secrets are readable in it.
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
