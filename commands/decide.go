package commands

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// attempt is what a writer decided on a batch: the events to append, and the reply to
// each request once they are appended.
type attempt struct {
	at      domain.Instant
	after   *domain.History // the state after the events
	events  []domain.Proposed
	size    int          // of the events in bytes
	done    doneCommands // the commands with an idempotency key among the decided ones
	replies []reply
	// continued is the request whose events go on in the next append, or nil. It need not be
	// one of the batch: events that were due before the batch have a request of their own.
	continued *pendingRequest
	remaining []*pendingRequest // the requests of the batch for the next append
}

// reply is what a request gets once its attempt is appended.
type reply struct {
	request *pendingRequest
	picked  []string // the consumers that the aggregate picked for the command
	result  Result
	err     error
	// otherOrganization says that the object belongs to another organization. The result
	// must not reveal anything about such an object.
	otherOrganization bool
}

// dependsOnState reports whether a reply depends on the state, so that the state must be
// the newest one. A load has no such reply.
func (a *attempt) dependsOnState() bool {
	return slices.ContainsFunc(a.replies, func(r reply) bool { return r.request.Command != nil })
}

// decide decides a batch on a fork of the state. It begins with the events that are due.
// After each command it adds the events that are due because of it.
func (w *writer) decide(batch []*pendingRequest) (*attempt, error) {
	now, err := w.handler.Now(context.Background())
	if err != nil {
		return nil, err
	}
	a := &attempt{after: w.history.Fork()}
	a.at = a.after.At(domain.InstantOf(now))
	w.remembered.forgetBefore(a.at.Add(-rememberFor))
	cause := &pendingRequest{id: uuid.New(), Request: Request{Caller: Caller{Actor: domain.ActorClock, Traceparent: batch[0].Caller.Traceparent}}}
	if batch[0].unfinished {
		cause = batch[0]
	}
	fits, err := w.advance(a, cause, 0)
	if err != nil {
		return nil, err
	}
	if !fits {
		a.continued, a.remaining = cause, batch
		return a, nil
	}
	for i, p := range batch {
		if a.size > w.handler.maxAppend || len(a.events) > 0 && picks(p.Command) {
			a.remaining = batch[i:]
			break
		}
		r := reply{request: p}
		if !p.unfinished {
			if fits, err = w.decideOne(a, &r); err != nil {
				return nil, err
			}
			if !fits {
				a.continued, a.remaining = p, batch[i:]
				break
			}
		}
		r.setResult(a.after)
		a.replies = append(a.replies, r)
	}
	return a, nil
}

// picks reports whether a command lets the aggregate pick consumers. Such a command may
// fill an append alone.
func picks(c domain.Command) bool {
	p, ok := c.(domain.Picker)
	return ok && p.Consumer() == ""
}

// decideOne decides one command and adds the events that are due because of it. It
// reports whether all of them fit into the attempt. It puts a refusal into r.
func (w *writer) decideOne(a *attempt, r *reply) (fits bool, err error) {
	events, err := w.events(a, r)
	if _, refused := errors.AsType[*domain.Error](err); refused || err != nil && errors.Is(err, r.request.ctx.Err()) {
		r.err = err
		return true, nil
	}
	if err != nil || len(events) == 0 {
		return true, err
	}
	if r.request.IdempotencyKey.given() {
		a.done.add(r.request.IdempotencyKey, a.at, a.after.Head.Revision-domain.Revision(len(events))+1)
	}
	for _, e := range events {
		r.addPicked(e)
	}
	if err := w.propose(a, events, r.request, 0); err != nil {
		return false, err
	}
	return w.advance(a, r.request, len(events))
}

// advance adds the events that are due, in the name of the command of cause. made is how
// many events the command has in the attempt already. advance stops when the attempt is
// full, and reports whether all events fit.
func (w *writer) advance(a *attempt, cause *pendingRequest, made int) (fits bool, err error) {
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

// events returns the events of one command. It returns none when the command changes
// nothing, and an error when it is refused or cannot be decided.
func (w *writer) events(a *attempt, r *reply) ([]domain.Event, error) {
	p := r.request
	if err := p.ctx.Err(); err != nil {
		return nil, err
	}
	if p.Command == nil {
		return nil, nil
	}
	d, isDistribution := a.after.Aggregate.(domain.Distribution)
	if isDistribution && p.Organization != "" && d.Shared().Status != "" && d.Shared().OrganizationID != p.Organization {
		r.otherOrganization = true
		return nil, domain.Refuse(domain.NotFound(d.Kind()), "")
	}
	done, same, first := w.remembered.find(p.IdempotencyKey)
	if done && same {
		if err := w.recall(r, first); err != nil {
			return nil, err
		}
	}
	if !done {
		// A command that picks consumers begins an attempt, so its repeat is never in
		// the same attempt, and there is nothing to recall.
		done, same, _ = a.done.find(p.IdempotencyKey)
	}
	if done {
		if !same {
			return nil, keyReused()
		}
		r.result.Replayed = true
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

// recall reads from the log which consumers the aggregate picked when a repeated command
// was carried out first. The events of that command begin at first. It does nothing for
// a command that does not let the aggregate pick.
func (w *writer) recall(repeat *reply, first domain.Revision) error {
	if !picks(repeat.request.Command) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	// The chain is checked from the hash of the event before.
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
		if r.Metadata.CommandID != repeat.request.id.String() {
			break
		}
		repeat.addPicked(r.Event)
	}
	return nil
}

// addPicked adds the consumer that the aggregate picked when it made e, an event of the
// command.
func (r *reply) addPicked(e domain.Event) {
	if p, ok := r.request.Command.(domain.Picker); ok {
		if consumer := p.Picked(e); consumer != "" {
			r.picked = append(r.picked, consumer)
		}
	}
}

// setResult sets the result to what the state h says.
func (r *reply) setResult(h *domain.History) {
	c, ok := r.request.Command.(domain.ConsumerCommand)
	if !ok {
		r.result.History = h.Fork()
		return
	}
	d, ok := h.Aggregate.(domain.Distribution)
	if !ok {
		return
	}
	consumers := r.picked
	if c.Consumer() != "" {
		consumers = []string{c.Consumer()}
	}
	for _, consumer := range consumers {
		if p, ok := d.Participation(consumer); ok {
			r.result.Participations = append(r.result.Participations, p)
		}
	}
}

// eventNamespace is the namespace of event ids.
var eventNamespace = uuid.MustParse("5d2f5c2e-7a0c-4a4f-9a53-0d1f6c1f3a10")

// eventID is a UUIDv5 (RFC 9562) of stream, command, index, type and bytes. So the store
// recognises an append that is sent twice. The bytes are part of the id because a command
// that is decided again may make other events: the store compares only ids, and would
// acknowledge the new events although it holds the old ones.
func eventID(stream, commandID string, index int, p domain.Proposed) uuid.UUID {
	name := domain.HashParts([]byte(stream), []byte(commandID), strconv.AppendInt(nil, int64(index), 10), []byte(p.Type), p.Data, p.Metadata)
	return uuid.NewSHA1(eventNamespace, name[:])
}

// propose adds events of the command of cause to the attempt. made is how many events of
// the command the attempt has already.
func (w *writer) propose(a *attempt, events []domain.Event, cause *pendingRequest, made int) error {
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

// finish gives the attempt's requests their results. If the attempt has events, they are
// appended before.
func (a *attempt) finish(position domain.Position, raced bool) {
	for _, r := range a.replies {
		if !r.otherOrganization {
			r.result.Position, r.result.Raced, r.result.Written = position, raced, len(a.events) > 0
		}
		r.request.finish(r.result, r.err)
	}
}
