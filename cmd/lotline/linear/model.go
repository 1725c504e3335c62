// Package linear checks that concurrent operations on one distribution are
// linearizable: some order of the operations, carried out one at a time, explains
// every recorded answer.
//
// It is for tests only. It has its own model of a distribution's lifecycle, and must not
// use the rules of package domain to find out what a command changes.
package linear

import (
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/lotline/lotline/domain"
)

// Operation is the kind of a request to one distribution.
type Operation string

// The operations.
const (
	Create Operation = "create"
	Get    Operation = "get"
	List   Operation = "list"
	Put    Operation = "put"
	Step   Operation = "step"
	Delete Operation = "delete"
)

// Reads reports whether the operation changes nothing.
func (o Operation) Reads() bool { return o == Get || o == List }

// Input is a request.
type Input struct {
	Op     Operation
	Kind   domain.Kind
	Client int

	Fields  map[string]string // only for Put; "" means null
	IfMatch int64             // the version in If-Match, or NoVersion
	Key     string            // only for Step: the Idempotency-Key
	To      domain.Status     // only for Step: the next status
	OpenAt  string            // only for Create; "" means null
	Other   bool              // only for Create: the body differs from that of the first creation

	// Only for a read. Acknowledged is the latest version that the node had acknowledged
	// to any client when the read began. Named is the version at the position in the
	// read's X-Position.
	Acknowledged, Named int64
}

// Output is the answer to a request.
type Output struct {
	Unknown  bool // there was no answer, or one that does not say what happened
	Status   int
	Code     string
	Version  int64 // or NoVersion
	Object   Object
	Replayed bool
	// Late is set for a read that took so long that the node may have stopped waiting for
	// the events that it had acknowledged.
	Late bool
}

const (
	// NoVersion means that there is no version.
	NoVersion = int64(-1)
	// Gone is higher than every version. A node that has acknowledged the deletion has
	// acknowledged Gone.
	Gone = int64(math.MaxInt64)
)

// Object has the fields of a distribution that the model knows.
type Object struct {
	Status domain.Status
	Name   string // "" is null
	OpenAt string // "" means null; ByHand is the time of a step by hand
}

// ByHand is the OpenAt of an object that a step by hand opened. The model does not know
// the time of the step.
const ByHand = "by hand"

// version is the object after a write.
type version struct {
	revision int64
	object   Object
	deleted  bool
	key      string // the idempotency key of the step that made this version
	before   *version
	digest   uint64 // of this version and all earlier ones
}

var digestSeed = maphash.MakeSeed()

func (v *version) next(revision int64, o Object, key string, deleted bool) *version {
	n := &version{revision: revision, object: o, deleted: deleted, key: key, before: v}
	type all struct {
		before   uint64
		revision int64
		object   Object
		deleted  bool
		key      string
	}
	n.digest = maphash.Comparable(digestSeed, all{v.hash(), revision, o, deleted, key})
	return n
}

func (v *version) first() *version {
	for v.before != nil {
		v = v.before
	}
	return v
}

// applied reports whether a step with an idempotency key was carried out.
func (v *version) applied(key string) bool {
	for ; v != nil; v = v.before {
		if key != "" && v.key == key {
			return true
		}
	}
	return false
}

// model is the sequential specification of a distribution. On one node a read returns the
// version that the last write left. On several nodes the writes still happen one after
// another, but a read may return an older version. That version must not be older than the
// one that its node has acknowledged to any client, or than the position that the read
// names. The state is a *version. It is nil before the creation.
func model(nodes int) porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return (*version)(nil) },
		Step:              func(s, in, out any) (bool, any) { return s.(*version).step(in.(Input), out.(Output), nodes) },
		Equal:             func(a, b any) bool { return a.(*version).hash() == b.(*version).hash() },
		Hash:              func(s any) uint64 { return s.(*version).hash() },
		DescribeOperation: func(in, out any) string { return describe(in.(Input), out.(Output)) },
		DescribeState: func(s any) string {
			v := s.(*version)
			switch {
			case v == nil:
				return "not there"
			case v.deleted:
				return fmt.Sprintf("deleted @%d", v.revision)
			}
			return fmt.Sprintf("@%d %+v", v.revision, v.object)
		},
	}
}

func (v *version) hash() uint64 {
	if v == nil {
		return 0
	}
	return v.digest
}

func describe(in Input, out Output) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s", in.Client, in.Op)
	for name, value := range in.Fields {
		fmt.Fprintf(&b, " %s=%q", name, value)
	}
	fmt.Fprintf(&b, "%s", in.To)
	if in.Key != "" {
		fmt.Fprintf(&b, " key %s", in.Key)
	}
	if in.IfMatch != NoVersion {
		fmt.Fprintf(&b, " if @%d", in.IfMatch)
	}
	if out.Unknown {
		return b.String() + " -> ?"
	}
	fmt.Fprintf(&b, " -> %d", out.Status)
	if out.Version != NoVersion {
		fmt.Fprintf(&b, " @%d", out.Version)
	}
	if out.Object != (Object{}) {
		fmt.Fprintf(&b, " %+v", out.Object)
	}
	if out.Replayed {
		b.WriteString(" replayed")
	}
	return b.String() + " " + out.Code
}

// step reports whether an operation on version v can have the answer out. It returns the
// version after the operation.
func (v *version) step(in Input, out Output, nodes int) (bool, *version) {
	if in.Op.Reads() {
		return v.read(in, out, nodes), v
	}
	next, want := v.write(in)
	if in.Op == Delete || want.Status >= http.StatusBadRequest {
		want.Version = NoVersion
	}
	return out.Unknown || out == want, next
}

// read reports whether a read can have the answer out. If the answer has no version
// number, as in a list, its object may be any version that is new enough.
func (v *version) read(in Input, out Output, nodes int) bool {
	oldest := max(in.Acknowledged, in.Named)
	switch {
	case out.Late:
		// The node stopped waiting for the events that it had acknowledged.
		oldest = in.Named
	case nodes == 1:
		oldest = Gone
	}
	for ; v != nil; v = v.before {
		if v.shows(out) {
			return true
		}
		if v.revision <= oldest {
			return false
		}
	}
	// The read may be answered with the state before the creation.
	return out.Status == http.StatusNotFound
}

func (v *version) shows(out Output) bool {
	if v.deleted || out.Status == http.StatusNotFound {
		return v.deleted && out.Status == http.StatusNotFound
	}
	sameVersion := out.Version == NoVersion || out.Version == v.revision
	return sameVersion && (out.Status == http.StatusNotModified || out.Object == v.object)
}

// write returns the version after a write, and the answer to the write.
func (v *version) write(in Input) (*version, Output) {
	if in.Op == Create {
		return v.create(in)
	}
	if in.Op == Step && v.applied(in.Key) {
		return v, v.answer(http.StatusOK, true)
	}
	if v == nil || v.deleted {
		return v, refusal(http.StatusNotFound, domain.NotFound(in.Kind))
	}
	if in.IfMatch != NoVersion && in.IfMatch != v.revision {
		return v, refusal(http.StatusPreconditionFailed, domain.PreconditionFailed)
	}
	switch in.Op {
	case Put:
		return v.put(in.Fields)
	case Delete:
		switch v.object.Status {
		case domain.StatusDraft, domain.StatusScheduled, domain.StatusCompleted, domain.StatusSettled:
			return v.next(v.revision+1, v.object, "", true), Output{Status: http.StatusNoContent}
		case domain.StatusOpen, domain.StatusClosed, domain.StatusDrawn:
		}
		return v, refusal(http.StatusConflict, domain.DeleteActive)
	case Step:
		return v.stepByHand(in)
	case Create, Get, List:
	}
	panic("no write: " + in.Op)
}

func refusal(status int, code domain.Code) Output {
	return Output{Status: status, Code: code.Identifier()}
}

func (v *version) answer(status int, replayed bool) Output {
	return Output{Status: status, Version: v.revision, Object: v.object, Replayed: replayed}
}

// create makes the object once. A repeated creation is answered with the object as it
// was made, even after changes and after its deletion.
func (v *version) create(in Input) (*version, Output) {
	if v != nil {
		if in.Other {
			return v, refusal(http.StatusUnprocessableEntity, domain.IdempotencyReused)
		}
		return v, v.first().answer(http.StatusCreated, true)
	}
	made := v.next(0, Object{Status: domain.StatusDraft}, "", false)
	if in.OpenAt != "" {
		// The creation also schedules the object, so it has two events.
		made = v.next(1, Object{Status: domain.StatusScheduled, OpenAt: in.OpenAt}, "", false)
	}
	return made, made.answer(http.StatusCreated, false)
}

func (v *version) put(fields map[string]string) (*version, Output) {
	o := v.object
	switch o.Status {
	case domain.StatusDraft, domain.StatusScheduled, domain.StatusOpen:
	case domain.StatusClosed, domain.StatusDrawn, domain.StatusCompleted, domain.StatusSettled:
		return v, refusal(http.StatusConflict, domain.UpdateClosed)
	}
	revision := v.revision + 1
	if openAt, given := fields["openAt"]; given && openAt != o.OpenAt {
		if o.Status == domain.StatusOpen {
			return v, refusal(http.StatusConflict, domain.UpdateOpen)
		}
		o.OpenAt = openAt
		o.Status = domain.StatusScheduled
		if openAt == "" {
			o.Status = domain.StatusDraft
		}
		revision++ // a change of openAt has a second event
	}
	if name, given := fields["name"]; given {
		o.Name = name
	}
	if o == v.object {
		return v, v.answer(http.StatusOK, false)
	}
	n := v.next(revision, o, "", false)
	return n, n.answer(http.StatusOK, false)
}

// stepByHand carries out a step by hand. The engine first sets the step's time to now and
// then takes all steps that are due, so a step by hand has two or three events.
func (v *version) stepByHand(in Input) (*version, Output) {
	o := v.object
	var events int64
	switch {
	case in.To == domain.StatusOpen && o.Status == domain.StatusDraft:
		o.Status, o.OpenAt, events = domain.StatusOpen, ByHand, 3
	case in.To == domain.StatusOpen && o.Status == domain.StatusScheduled:
		o.Status, o.OpenAt, events = domain.StatusOpen, ByHand, 2
	case in.To == domain.StatusClosed && o.Status == domain.StatusOpen && in.Kind == domain.KindQueue:
		// The queue has no admitted consumers, so it completes at once.
		o.Status, events = domain.StatusCompleted, 3
	case in.To == domain.StatusClosed && o.Status == domain.StatusOpen:
		o.Status, events = domain.StatusClosed, 2
	case in.To == domain.StatusDrawn && o.Status == domain.StatusClosed:
		// The draw has no entries, so it completes at once.
		o.Status, events = domain.StatusCompleted, 3
	case in.To == domain.StatusSettled && o.Status == domain.StatusClosed:
		o.Status, events = domain.StatusSettled, 2
	default:
		return v, refusal(http.StatusConflict, domain.InvalidTransition)
	}
	n := v.next(v.revision+events, o, in.Key, false)
	return n, n.answer(http.StatusOK, false)
}
