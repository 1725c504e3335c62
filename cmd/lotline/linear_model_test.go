package main

import (
	"fmt"
	"hash/maphash"
	"math"
	"net/http"
	"strings"

	"github.com/anishathalye/porcupine"

	"github.com/lotline/lotline/domain"
)

// What a client asks of one distribution.
type operation string

const (
	opCreate operation = "create"
	opGet    operation = "get"
	opList   operation = "list"
	opPut    operation = "put"
	opStep   operation = "step"
	opDelete operation = "delete"
)

// input is an operation as it was asked for.
type input struct {
	op     operation
	kind   domain.Kind
	client int

	fields  map[string]string // of a put; "" is null
	ifMatch int64             // or noVersion
	key     string            // Idempotency-Key of a step
	to      domain.Status     // of a step
	planned bool              // a creation: openAt is set
	other   bool              // a creation: with another body than the first

	// Of a read: the latest version that the node had acknowledged to anybody when
	// the read began, and the one whose position the read names.
	acknowledged, named int64
}

// output is what came back.
type output struct {
	unknown  bool // there was no answer, or one that does not say
	status   int
	code     string
	version  int64 // or noVersion
	object   shownObject
	replayed bool
	late     bool // a read took as long as a node waits for its own writes
}

const (
	noVersion = int64(-1)
	// gone is behind all versions: the object is deleted.
	gone = int64(math.MaxInt64)
)

// shownObject is what the model knows of a distribution's fields.
type shownObject struct {
	status domain.Status
	name   string // "" is null
	openAt string // "" is null, byHandTime what a step set
}

const byHandTime = "by hand"

// version is an object as an operation left it.
type version struct {
	revision int64
	object   shownObject
	deleted  bool
	key      string // of the step that led here
	before   *version
	digest   uint64 // of this version and all before
}

var digestSeed = maphash.MakeSeed()

func (v *version) next(revision int64, o shownObject, key string, deleted bool) *version {
	n := &version{revision: revision, object: o, deleted: deleted, key: key, before: v}
	type all struct {
		before   uint64
		revision int64
		object   shownObject
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

// applied reports whether a step with that key was carried out.
func (v *version) applied(key string) bool {
	for ; v != nil; v = v.before {
		if key != "" && v.key == key {
			return true
		}
	}
	return false
}

// model is the sequential specification of a distribution. On one node a read
// shows what the last write left. On several, writes are still one after another,
// and a read shows no less than its node has acknowledged to anybody, and no less
// than the position that it names. The state is a *version, nil before the
// creation.
func model(nodes int) porcupine.Model {
	return porcupine.Model{
		Init:              func() any { return (*version)(nil) },
		Step:              func(s, in, out any) (bool, any) { return s.(*version).step(in.(input), out.(output), nodes) },
		Equal:             func(a, b any) bool { return a.(*version).hash() == b.(*version).hash() },
		Hash:              func(s any) uint64 { return s.(*version).hash() },
		DescribeOperation: func(in, out any) string { return describe(in.(input), out.(output)) },
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

func describe(in input, out output) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d: %s", in.client, in.op)
	for name, value := range in.fields {
		fmt.Fprintf(&b, " %s=%q", name, value)
	}
	fmt.Fprintf(&b, "%s", in.to)
	if in.key != "" {
		fmt.Fprintf(&b, " key %s", in.key)
	}
	if in.ifMatch != noVersion {
		fmt.Fprintf(&b, " if @%d", in.ifMatch)
	}
	if out.unknown {
		return b.String() + " -> ?"
	}
	fmt.Fprintf(&b, " -> %d", out.status)
	if out.version != noVersion {
		fmt.Fprintf(&b, " @%d", out.version)
	}
	if out.object != (shownObject{}) {
		fmt.Fprintf(&b, " %+v", out.object)
	}
	if out.replayed {
		b.WriteString(" replayed")
	}
	return b.String() + " " + out.code
}

// step reports whether an operation may have that outcome now, and what it leaves.
func (v *version) step(in input, out output, nodes int) (bool, *version) {
	if in.op == opGet || in.op == opList {
		return v.read(in, out, nodes), v
	}
	next, want := v.write(in)
	if in.op == opDelete || want.status >= http.StatusBadRequest {
		want.version = noVersion
	}
	return out.unknown || out == want, next
}

// read reports whether a read may show that. What is shown without a version, as
// in a list, may be of any that fits.
func (v *version) read(in input, out output, nodes int) bool {
	oldest := max(in.acknowledged, in.named)
	switch {
	case out.late:
		// The node did not wait any longer for what it had acknowledged.
		oldest = in.named
	case nodes == 1:
		oldest = gone
	}
	for ; v != nil; v = v.before {
		if v.shows(out) {
			return true
		}
		if v.revision <= oldest {
			return false
		}
	}
	// From before the creation.
	return out.status == http.StatusNotFound
}

func (v *version) shows(out output) bool {
	if v.deleted || out.status == http.StatusNotFound {
		return v.deleted && out.status == http.StatusNotFound
	}
	sameVersion := out.version == noVersion || out.version == v.revision
	return sameVersion && (out.status == http.StatusNotModified || out.object == v.object)
}

// write is the version that a write leaves, and the answer to it.
func (v *version) write(in input) (*version, output) {
	if in.op == opCreate {
		return v.create(in)
	}
	if in.op == opStep && v.applied(in.key) {
		return v, v.answer(http.StatusOK, true)
	}
	if v == nil || v.deleted {
		return v, refusal(http.StatusNotFound, domain.NotFound(in.kind))
	}
	if in.ifMatch != noVersion && in.ifMatch != v.revision {
		return v, refusal(http.StatusPreconditionFailed, domain.PreconditionFailed)
	}
	switch in.op {
	case opPut:
		return v.put(in.fields)
	case opDelete:
		switch v.object.status {
		case domain.StatusDraft, domain.StatusScheduled, domain.StatusCompleted, domain.StatusSettled:
			return v.next(v.revision+1, v.object, "", true), output{status: http.StatusNoContent}
		case domain.StatusOpen, domain.StatusClosed, domain.StatusDrawn:
		}
		return v, refusal(http.StatusConflict, domain.DeleteActive)
	case opStep:
		return v.stepByHand(in)
	case opCreate, opGet, opList:
	}
	panic("no write: " + in.op)
}

func refusal(status int, code domain.Code) output {
	return output{status: status, code: code.Identifier()}
}

func (v *version) answer(status int, replayed bool) output {
	return output{status: status, version: v.revision, object: v.object, replayed: replayed}
}

// create makes the object once. Whoever asks again is shown what was made, also
// when that has changed since or is gone.
func (v *version) create(in input) (*version, output) {
	if v != nil {
		if in.other {
			return v, refusal(http.StatusUnprocessableEntity, domain.IdempotencyReused)
		}
		return v, v.first().answer(http.StatusCreated, true)
	}
	made := v.next(0, shownObject{status: domain.StatusDraft}, "", false)
	if in.planned {
		// It is scheduled in the same append.
		made = v.next(1, shownObject{status: domain.StatusScheduled, openAt: farOpening}, "", false)
	}
	return made, made.answer(http.StatusCreated, false)
}

func (v *version) put(fields map[string]string) (*version, output) {
	o := v.object
	switch o.status {
	case domain.StatusDraft, domain.StatusScheduled, domain.StatusOpen:
	case domain.StatusClosed, domain.StatusDrawn, domain.StatusCompleted, domain.StatusSettled:
		return v, refusal(http.StatusConflict, domain.UpdateClosed)
	}
	revision := v.revision + 1
	if openAt, given := fields["openAt"]; given && openAt != o.openAt {
		if o.status == domain.StatusOpen {
			return v, refusal(http.StatusConflict, domain.UpdateOpen)
		}
		o.openAt = openAt
		o.status = domain.StatusScheduled
		if openAt == "" {
			o.status = domain.StatusDraft
		}
		revision++ // for the step that follows
	}
	if name, given := fields["name"]; given {
		o.name = name
	}
	if o == v.object {
		return v, v.answer(http.StatusOK, false)
	}
	n := v.next(revision, o, "", false)
	return n, n.answer(http.StatusOK, false)
}

// stepByHand is an update of the time and the steps that are due then.
func (v *version) stepByHand(in input) (*version, output) {
	o := v.object
	var events int64
	switch {
	case in.to == domain.StatusOpen && o.status == domain.StatusDraft:
		o.status, o.openAt, events = domain.StatusOpen, byHandTime, 3
	case in.to == domain.StatusOpen && o.status == domain.StatusScheduled:
		o.status, o.openAt, events = domain.StatusOpen, byHandTime, 2
	case in.to == domain.StatusClosed && o.status == domain.StatusOpen && in.kind == domain.KindQueue:
		// Nobody was admitted, so it is completed at once.
		o.status, events = domain.StatusCompleted, 3
	case in.to == domain.StatusClosed && o.status == domain.StatusOpen:
		o.status, events = domain.StatusClosed, 2
	case in.to == domain.StatusDrawn && o.status == domain.StatusClosed:
		// Nobody entered, so it is completed at once.
		o.status, events = domain.StatusCompleted, 3
	case in.to == domain.StatusSettled && o.status == domain.StatusClosed:
		o.status, events = domain.StatusSettled, 2
	default:
		return v, refusal(http.StatusConflict, domain.InvalidTransition)
	}
	n := v.next(v.revision+events, o, in.key, false)
	return n, n.answer(http.StatusOK, false)
}
