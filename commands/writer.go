package commands

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

const (
	// maxBatch and maxAppend bound what one append holds. The store's own limit
	// is 1 MiB.
	maxBatch  = 1_000
	maxAppend = 512 << 10
	// patience is how long a command is decided again after its first lost race,
	// and how long doubt about an append is looked into.
	patience = 2 * time.Second
	// retryPause is between attempts to reach a store that does not answer.
	retryPause = 50 * time.Millisecond
	// storeTimeout bounds one append, and how long a read may stand still.
	storeTimeout = 10 * time.Second
	// rememberFor is how long a repeated command is recognised.
	rememberFor = 25 * time.Hour
)

// pending is a command that waits for its answer. One without a command only
// loads the stream.
type pending struct {
	Request
	ctx context.Context
	id  uuid.UUID // of the command, the same in each attempt

	contested time.Time // when its first append was lost; owned by the writer
	answered  bool      // owned by the writer
	// begun says that the command's events are in the log, but not all that is due
	// because of them. Owned by the writer.
	begun bool

	done   chan struct{} // closed when the fields below are set
	result Result
	err    error
}

// answer answers once; what comes later is not heard.
func (p *pending) answer(result Result, err error) {
	if p.answered {
		return
	}
	p.answered = true
	p.result, p.err = result, err
	close(p.done)
}

// fail answers that the command, or the rest of its outcome, was not carried out.
func (p *pending) fail(err error) {
	if p.begun {
		// The reason may be a refusal, and would be taken for the answer.
		err = fmt.Errorf("%w: %s", domain.ErrOutcomeUnknown, err.Error())
	}
	p.answer(Result{}, err)
}

// writer is the one who writes to a stream in this process. Its state is
// confirmed: it holds nothing that is not in the log.
type writer struct {
	handler *Handler
	stream  string

	// Guarded by Handler.mu.
	waiting []*pending
	working bool
	idle    *list.Element

	// Owned by run.
	history    *domain.History // nil before the first load
	whole      bool            // the log's end was reached, and the state is what it was there
	position   domain.Position // of the last event of history
	doubt      error           // an append for the present batch ended without an answer
	remembered memory
	borrowed   bool // the state is the read models', who remember no keys
	// known is a revision that the stream had before the present batch.
	known domain.Revision
}

// run answers what waits until nothing does.
func (w *writer) run() {
	for {
		batch := w.handler.next(w)
		if batch == nil {
			return
		}
		for len(batch) > 0 {
			batch = w.carryOrRecover(batch)
		}
	}
}

// carryOrRecover keeps a mistake in the rules of one stream from ending the
// process, which would meet it again after the restart.
func (w *writer) carryOrRecover(batch []*pending) (left []*pending) {
	defer func() {
		if p := recover(); p != nil {
			w.forgetState()
			w.failAll(batch, fmt.Errorf("panic while carrying out commands for %s: %v\n%s", w.stream, p, debug.Stack()))
			left = nil
		}
	}()
	return w.carry(batch)
}

// carry answers the commands of batch and returns those that did not fit into
// one append, first the one whose outcome did not.
func (w *writer) carry(batch []*pending) []*pending {
	w.doubt = nil
	known, broken := w.handler.known(w.stream)
	if broken != nil {
		w.forgetState()
		w.failAll(batch, broken)
		return nil
	}
	w.known = known
	w.borrow(batch)
	fresh := !w.whole // the state was read from the log for this batch
	if fresh {
		if err := w.read(nil); err != nil {
			w.failAll(batch, err)
			return nil
		}
	}
	raced := false
	mine := map[uuid.UUID]*attempt{} // by the events of all attempts
	for attempts := 1; ; attempts++ {
		a, err := w.decide(batch)
		if err != nil {
			w.failAll(batch, err)
			return nil
		}
		if len(a.events) == 0 {
			if w.doubt != nil {
				// An answer that says that nothing happened would be wrong if the
				// append came to land after it.
				w.failAll(batch, errors.New("it is not in the stream so far"))
				return nil
			}
			// What an append would have checked has to be looked up: another node
			// may have written since.
			if !fresh && a.rests() {
				fresh = true
				before := w.history.Head.Revision
				if err := w.read(nil); err != nil {
					w.failAll(batch, err)
					return nil
				}
				if w.history.Head.Revision != before {
					raced = true
					continue
				}
			}
			a.answer(w.position, raced)
			return a.left
		}
		for _, e := range a.events {
			mine[e.ID] = a
		}
		head, position, err := w.append(a, attempts)
		if err == nil {
			w.confirm(a, head, position)
			a.answer(position, raced)
			return a.left
		}
		if errors.Is(err, domain.ErrUnavailable) {
			w.failAll(batch, err)
			return nil
		}
		// Either somebody else wrote to the stream, or it is not known what
		// became of the append. In both cases the stream itself tells.
		if errors.Is(err, domain.ErrWrongRevision) {
			raced = true
		} else {
			w.doubt = err
		}
		fresh = true
		if batch = w.reconcile(batch, mine); len(batch) == 0 {
			return nil
		}
	}
}

// borrow spares reading the stream when the read models have its state. Who
// repeats a command is recognised only by who has read the stream, so a batch with
// a repeatable one needs that.
func (w *writer) borrow(batch []*pending) {
	keyed := slices.ContainsFunc(batch, func(p *pending) bool { return p.IdempotencyKey.given() })
	if w.borrowed && keyed {
		w.forgetState()
	}
	if w.history != nil || keyed || w.handler.states == nil {
		return
	}
	if w.history, w.position = w.handler.states.State(w.stream); w.history != nil {
		w.whole, w.borrowed = true, true
	}
}

// append writes the events of a. number tells how often the batch was tried.
func (w *writer) append(a *attempt, number int) (domain.Head, domain.Position, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	first := a.events[0].ID
	// Later attempts may repeat events that are in the log since before, and claims are
	// not followed.
	if number == 1 && domain.StreamKind(w.stream) != domain.KindClaim {
		w.handler.wall.Appending(first)
	}
	started := w.handler.clock()
	head, position, err := w.handler.log.Append(ctx, w.stream, w.history.Head, a.events)
	ended := w.handler.clock()
	w.handler.wall.Appended(first, err)
	w.handler.health.appended(err, ended)
	w.appended(a, number, ended.Sub(started), err)
	return head, position, err
}

// attempt is one try at a batch: what it would append, and what each command's
// answer is once that is appended.
type attempt struct {
	at       domain.Instant
	after    *domain.History // the state behind the events
	events   []domain.Proposed
	size     int    // of the events in bytes
	made     memory // the repeatable commands that the events are from
	outcomes []outcome
	begun    *pending   // the one whose outcome goes on in the next append
	left     []*pending // those that did not fit, begun first
}

type outcome struct {
	pending *pending
	picked  []string // the consumers whom the aggregate picked for the command
	result  Result
	err     error
	foreign bool // the object is another organization's, of which nothing is told
}

// rests reports whether an answer rests on the state, so that it matters whether
// that is the latest.
func (a *attempt) rests() bool {
	return slices.ContainsFunc(a.outcomes, func(o outcome) bool { return o.pending.Command != nil })
}

// decide decides batch on a fork of the state: first what is due, then each
// command with what is due because of it.
func (w *writer) decide(batch []*pending) (*attempt, error) {
	now, err := w.handler.Now(context.Background())
	if err != nil {
		return nil, err
	}
	a := &attempt{after: w.history.Fork()}
	a.at = a.after.At(domain.InstantOf(now))
	w.remembered.forget(a.at.Add(-rememberFor))
	cause := &pending{id: uuid.New(), Request: Request{Caller: Caller{Actor: domain.ActorClock, Traceparent: batch[0].Caller.Traceparent}}}
	if batch[0].begun {
		cause = batch[0]
	}
	whole, err := w.advance(a, cause, 0)
	if err != nil {
		return nil, err
	}
	if !whole {
		a.begun, a.left = cause, batch
		return a, nil
	}
	for i, p := range batch {
		if a.size > w.handler.maxAppend || len(a.events) > 0 && picks(p.Command) {
			a.left = batch[i:]
			break
		}
		o := outcome{pending: p}
		if !p.begun {
			if whole, err = w.decideOne(a, &o); err != nil {
				return nil, err
			}
			if !whole {
				a.begun, a.left = p, batch[i:]
				break
			}
		}
		o.complete(a.after)
		a.outcomes = append(a.outcomes, o)
	}
	return a, nil
}

// picks reports whether a command lets the aggregate pick consumers, so that it may
// fill an append by itself.
func picks(c domain.Command) bool {
	p, ok := c.(domain.Picker)
	return ok && p.Consumer() == ""
}

// decideOne decides one command and what is due because of it. It reports whether
// all of that is in the attempt. A refusal is left in o.
func (w *writer) decideOne(a *attempt, o *outcome) (whole bool, err error) {
	events, err := w.events(a, o)
	if _, refused := errors.AsType[*domain.Error](err); refused || err != nil && errors.Is(err, o.pending.ctx.Err()) {
		o.err = err
		return true, nil
	}
	if err != nil || len(events) == 0 {
		return true, err
	}
	if o.pending.IdempotencyKey.given() {
		a.made.add(o.pending.IdempotencyKey, a.at, a.after.Head.Revision-domain.Revision(len(events))+1)
	}
	for _, e := range events {
		o.addPicked(e)
	}
	if err := w.propose(a, events, o.pending, 0); err != nil {
		return false, err
	}
	return w.advance(a, o.pending, len(events))
}

// advance does what is due because of a command, whose own events are made of it
// already. It stops when the attempt is full, and reports whether nothing is left.
func (w *writer) advance(a *attempt, cause *pending, made int) (whole bool, err error) {
	for events, err := range a.after.Advance(a.at) {
		if err == nil {
			err = w.propose(a, events, cause, made)
		}
		if err != nil {
			return false, err
		}
		made += len(events)
		if a.size > w.handler.maxAppend {
			return false, nil
		}
	}
	return true, nil
}

// events returns the events of one command, or why there are none.
func (w *writer) events(a *attempt, o *outcome) ([]domain.Event, error) {
	p := o.pending
	if err := p.ctx.Err(); err != nil {
		return nil, err
	}
	if p.Command == nil {
		return nil, nil
	}
	d, isDistribution := a.after.Aggregate.(domain.Distribution)
	if isDistribution && p.Organization != "" && d.Shared().Status != "" && d.Shared().OrganizationID != p.Organization {
		o.foreign = true
		return nil, domain.Refuse(domain.NotFound(d.Kind()), "")
	}
	done, same, first := w.remembered.find(p.IdempotencyKey)
	if done && same {
		if err := w.recall(o, first); err != nil {
			return nil, err
		}
	}
	if !done {
		// It is no command that picks consumers: one attempt has no two of these.
		done, same, _ = a.made.find(p.IdempotencyKey)
	}
	if done {
		if !same {
			return nil, reused()
		}
		o.result.Replayed = true
		return nil, nil
	}
	exists := isDistribution && d.Shared().Status != "" && !d.Shared().Deleted
	if o, ok := a.after.Aggregate.(*domain.Organization); ok {
		exists = o.ID != ""
	}
	changed := a.after.Changed
	if exists && (p.IfMatch != nil && !slices.Contains(p.IfMatch, changed) || slices.Contains(p.IfNoneMatch, changed)) {
		return nil, domain.Refuse(domain.PreconditionFailed, "the object was last changed at revision %d", changed)
	}
	return a.after.Decide(a.at, p.Command)
}

// recall reads back which consumers the aggregate picked when a repeated command was
// carried out. The events of the command begin at first.
func (w *writer) recall(o *outcome, first domain.Revision) error {
	if !picks(o.pending.Command) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	// The event before is read for its hash.
	head := domain.Head{Revision: first - 1}
	for r, err := range w.handler.log.Read(ctx, w.stream, first-2) {
		if err == nil && r.Revision < first {
			_, head.Hash, _ = domain.SplitHash(r.RawMetadata)
			continue
		}
		if err == nil {
			head, err = head.Next(w.stream, r)
		}
		if err != nil {
			return err
		}
		if r.Metadata.CommandID != o.pending.id.String() {
			break
		}
		o.addPicked(r.Event)
	}
	return nil
}

// addPicked notes the consumer whom the aggregate picked when it made e, an event of
// the command.
func (o *outcome) addPicked(e domain.Event) {
	if p, ok := o.pending.Command.(domain.Picker); ok {
		if consumer := p.Picked(e); consumer != "" {
			o.picked = append(o.picked, consumer)
		}
	}
}

// complete makes h the state that the result shows.
func (o *outcome) complete(h *domain.History) {
	c, ok := o.pending.Command.(domain.ConsumerCommand)
	if !ok {
		o.result.History = h.Fork()
		return
	}
	d, ok := h.Aggregate.(domain.Distribution)
	if !ok {
		return
	}
	consumers := o.picked
	if c.Consumer() != "" {
		consumers = []string{c.Consumer()}
	}
	for _, consumer := range consumers {
		if p, ok := d.Participation(consumer); ok {
			o.result.Participations = append(o.result.Participations, p)
		}
	}
}

// eventNamespace is the namespace of event ids.
var eventNamespace = uuid.MustParse("5d2f5c2e-7a0c-4a4f-9a53-0d1f6c1f3a10")

// eventID is a UUIDv5 (RFC 9562) of stream, command, index, type and bytes. The same
// append sent again is the same append to the store. A command that is decided
// again makes other bytes, and so must not be taken for what it was before: the
// store compares ids only, and would acknowledge events that it does not hold.
func eventID(stream, commandID string, index int, p domain.Proposed) uuid.UUID {
	name := domain.HashParts([]byte(stream), []byte(commandID), strconv.AppendInt(nil, int64(index), 10), []byte(p.Type), p.Data, p.Metadata)
	return uuid.NewSHA1(eventNamespace, name[:])
}

// propose adds events of a command to the attempt, of which it made some before.
func (w *writer) propose(a *attempt, events []domain.Event, cause *pending, made int) error {
	m := domain.Metadata{
		CommandID:     cause.id.String(),
		CorrelationID: cause.id.String(),
		CausationID:   cause.id.String(),
		Actor:         cause.Caller.Actor,
		OnBehalfOf:    cause.Caller.OnBehalfOf,
		RequestID:     cause.Caller.RequestID,
		BodyHash:      cause.IdempotencyKey.BodyHash,
		Traceparent:   cause.Caller.Traceparent,
	}
	if m.RequestID != "" {
		m.CorrelationID = m.RequestID
	}
	for i, e := range events {
		proposed, err := w.handler.log.Encode(w.stream, e, m)
		if err != nil {
			return fmt.Errorf("encode %T for %s: %w", e, w.stream, err)
		}
		proposed.ID = eventID(w.stream, m.CommandID, made+i, proposed)
		a.after.Identify(e, proposed.ID)
		a.events = append(a.events, proposed)
		a.size += proposed.Size()
	}
	return nil
}

// answer answers the attempt's commands, after its append if it had one.
func (a *attempt) answer(position domain.Position, raced bool) {
	for _, o := range a.outcomes {
		if !o.foreign {
			o.result.Position, o.result.Raced, o.result.Written = position, raced, len(a.events) > 0
		}
		o.pending.answer(o.result, o.err)
	}
}

// confirm takes over the state that the append made true.
func (w *writer) confirm(a *attempt, head domain.Head, position domain.Position) {
	w.history, w.position = a.after, position
	w.history.Head = head
	if a.begun != nil {
		a.begun.begun = true
	}
	w.remembered.merge(&a.made)
}

// failAll answers a batch with a fault, and reports an inconsistent history. While
// there is doubt about an append, a fault must not say that nothing was written.
func (w *writer) failAll(batch []*pending, err error) {
	w.handler.report(err)
	if w.doubt != nil {
		err = fmt.Errorf("%w: %w", w.doubt, err)
	}
	for _, p := range batch {
		p.fail(err)
	}
}

// forgetState drops a state that is of no use. The stream is then loaded anew.
func (w *writer) forgetState() {
	w.history, w.whole, w.remembered, w.borrowed = nil, false, memory{}, false
}

// read brings the state to the log's end. What was read before a fault is kept,
// and the next read goes on behind it.
func (w *writer) read(seen func(*domain.Recorded)) error {
	if w.history == nil {
		w.history = domain.NewHistory(w.stream)
	}
	w.whole = false
	// A long history takes its time, but it has to go on.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle := time.AfterFunc(storeTimeout, cancel)
	defer idle.Stop()
	from := func(after domain.Revision) iter.Seq2[*domain.Recorded, error] {
		return w.handler.log.Read(ctx, w.stream, after)
	}
	for r, err := range domain.ReadWhole(w.stream, w.history.Head.Revision, w.known, from, readAgain) {
		if err != nil {
			return err
		}
		if err := w.history.Apply(r); err != nil {
			w.forgetState()
			return err
		}
		idle.Reset(storeTimeout)
		w.position = r.Position
		if id, err := uuid.Parse(r.Metadata.CommandID); err == nil && r.Metadata.BodyHash != "" {
			// The stream's time can be ahead of the store's clock, and is what forgetting
			// goes by.
			w.remembered.add(IdempotencyKey{id, r.Metadata.BodyHash}, max(domain.InstantOf(r.RecordedAt), r.Event.When()), r.Revision)
		}
		if seen != nil {
			seen(r)
		}
	}
	w.whole = true
	return nil
}

// readAgain waits for a server that seems to lag behind, but not for ever.
func readAgain(attempt int) (bool, error) {
	time.Sleep(retryPause)
	return attempt < int(patience/retryPause), nil
}

// reconcile reads the stream after an append that lost a race or ended without
// an answer. Commands of whose events one stands in the stream are done, or begun;
// those that ran out of patience are told so; the others are returned, to be
// decided again. mine tells the attempts by their events.
func (w *writer) reconcile(batch []*pending, mine map[uuid.UUID]*attempt) []*pending {
	now := w.handler.clock()
	for _, p := range batch {
		if p.contested.IsZero() {
			p.contested = now
		}
	}
	before := w.history.Head.Revision
	type landed struct {
		attempt  *attempt
		events   []domain.Event
		after    *domain.History // the state right behind the events
		position domain.Position
	}
	written := map[string]landed{} // by command id
	for {
		err := w.read(func(r *domain.Recorded) {
			if a, ok := mine[r.ID]; ok {
				before := written[r.Metadata.CommandID].events
				written[r.Metadata.CommandID] = landed{a, append(before, r.Event), w.history.Fork(), r.Position}
			}
		})
		if err == nil {
			break
		}
		if _, broken := errors.AsType[*domain.HistoryError](err); broken || w.handler.clock().Sub(now) > patience {
			w.failAll(batch, err)
			return nil
		}
		time.Sleep(retryPause)
	}
	if w.history.Head.Revision > before {
		// Appends that were in doubt stood behind the old head: they are in the
		// stream by now, or cannot come there any more.
		w.doubt = nil
	}
	var again []*pending
	for _, p := range batch {
		found, done := written[p.id.String()]
		// Others with the same key are repeats of this one.
		delete(written, p.id.String())
		switch {
		case done && found.attempt.begun == p:
			p.begun = true
			again = append([]*pending{p}, again...)
		case done:
			o := outcome{pending: p, result: Result{Position: found.position}}
			for _, e := range found.events {
				o.addPicked(e)
			}
			o.complete(found.after)
			p.answer(o.result, nil)
		case w.handler.clock().Sub(p.contested) > patience:
			p.fail(w.outOfPatience())
		default:
			again = append(again, p)
		}
	}
	if len(again) > 0 && w.history.Head.Revision == before {
		// A store that refuses every append, as on a full disk, is not pressed.
		time.Sleep(retryPause)
	}
	return again
}

// outOfPatience is the answer to a command that could not be appended.
func (w *writer) outOfPatience() error {
	if w.doubt != nil {
		return w.doubt
	}
	return domain.Refuse(domain.ChangedByAnother, "")
}
