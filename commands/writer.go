package commands

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

const (
	// maxBatch is how many commands one append may have. maxAppend is the size in bytes
	// above which no further command is added to it. The store's own limit is 1 MiB.
	maxBatch  = 1_000
	maxAppend = 512 << 10
	// retryFor is how long the writer decides a command again after its first append
	// failed, and how long it tries to find out what became of an append.
	retryFor = 2 * time.Second
	// retryPause is the time between two attempts to reach a store that fails.
	retryPause = 50 * time.Millisecond
	// storeTimeout bounds one append, and the time between two events of a read.
	storeTimeout = 10 * time.Second
	// rememberFor is how long the writer recognises a repeated command.
	rememberFor = 25 * time.Hour
)

// pendingRequest is a request that waits for its result. One without a Command only loads
// the stream.
type pendingRequest struct {
	Request
	ctx context.Context
	id  uuid.UUID // the command's id, the same in each attempt

	failingSince time.Time // when its first append failed; owned by the writer
	finished     bool      // owned by the writer
	// unfinished says that the command's own events are in the log, and that events which
	// are due because of them are not yet. Owned by the writer.
	unfinished bool

	done   chan struct{} // closed when the fields below are set
	result Result
	err    error
}

// finish gives the caller the result. Only the first call counts.
func (p *pendingRequest) finish(result Result, err error) {
	if p.finished {
		return
	}
	p.finished = true
	p.result, p.err = result, err
	close(p.done)
}

// fail gives the caller the error why the command, or the rest of it, was not carried
// out.
func (p *pendingRequest) fail(err error) {
	if p.unfinished {
		// err may be a refusal, which would say that nothing happened.
		err = fmt.Errorf("%w: %s", domain.ErrOutcomeUnknown, err.Error())
	}
	p.finish(Result{}, err)
}

// writer carries out all commands for one stream in this process. Its state holds only
// events that are in the log.
type writer struct {
	handler *Handler
	stream  string

	// Guarded by Handler.mu.
	waiting []*pendingRequest
	working bool
	idle    *list.Element

	// Owned by run.
	history        *domain.History // nil before the first load
	caughtUp       bool            // history was read to the end of the stream
	position       domain.Position // of the last event of history
	inDoubt        error           // the error of an append for this batch whose outcome is unknown, or nil
	remembered     doneCommands
	fromReadModels bool // the state is the read models', and remembered is empty
	// knownRevision is a revision at which the stream held an event before this batch.
	knownRevision domain.Revision
}

// run carries out the requests that wait, until there are none.
func (w *writer) run() {
	for {
		batch := w.handler.nextBatch(w)
		if batch == nil {
			return
		}
		for len(batch) > 0 {
			batch = w.carryOutOrRecover(batch)
		}
	}
}

// carryOutOrRecover does what carryOut does. A panic, such as from a bug in the rules, fails
// the batch instead of the process: after a restart the process would panic again.
func (w *writer) carryOutOrRecover(batch []*pendingRequest) (remaining []*pendingRequest) {
	defer func() {
		if p := recover(); p != nil {
			w.forgetState()
			w.failAll(batch, fmt.Errorf("panic while carrying out commands for %s: %v\n%s", w.stream, p, debug.Stack()))
			remaining = nil
		}
	}()
	return w.carryOut(batch)
}

// carryOut carries out the requests of a batch with one append. It returns the requests
// that did not fit into it, first the one whose events did not all fit.
func (w *writer) carryOut(batch []*pendingRequest) []*pendingRequest {
	w.inDoubt = nil
	known, broken := w.handler.known(w.stream)
	if broken != nil {
		w.forgetState()
		w.failAll(batch, broken)
		return nil
	}
	w.knownRevision = known
	w.takeFromReadModels(batch)
	fresh := !w.caughtUp // the state was read from the log for this batch
	if fresh {
		if err := w.read(nil); err != nil {
			w.failAll(batch, err)
			return nil
		}
	}
	raced := false
	byEvent := map[uuid.UUID]*attempt{} // all attempts by the ids of their events
	for attempts := 1; ; attempts++ {
		a, err := w.decide(batch)
		if err != nil {
			w.failAll(batch, err)
			return nil
		}
		if len(a.events) == 0 {
			if w.inDoubt != nil {
				// "Nothing happened" would be wrong if the store carried the append
				// out after that.
				w.failAll(batch, errors.New("its events are not in the stream so far"))
				return nil
			}
			// Without an append the store does not check that the state is the newest.
			// Another node may have written to the stream, so it is read.
			if !fresh && a.dependsOnState() {
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
			a.finish(w.position, raced)
			return a.remaining
		}
		for _, e := range a.events {
			byEvent[e.ID] = a
		}
		head, position, err := w.append(a, attempts)
		if err == nil {
			w.commit(a, head, position)
			a.finish(position, raced)
			return a.remaining
		}
		if errors.Is(err, domain.ErrUnavailable) {
			w.failAll(batch, err)
			return nil
		}
		// Either another node wrote to the stream, or the append's outcome is unknown.
		// In both cases the stream has to be read.
		if errors.Is(err, domain.ErrWrongRevision) {
			raced = true
		} else {
			w.inDoubt = err
		}
		fresh = true
		if batch = w.reconcile(batch, byEvent); len(batch) == 0 {
			return nil
		}
	}
}

// takeFromReadModels takes the state from the read models if they have it, so that the
// stream need not be read. The read models do not keep idempotency keys, so a batch that
// has one must read the stream.
func (w *writer) takeFromReadModels(batch []*pendingRequest) {
	keyed := slices.ContainsFunc(batch, func(p *pendingRequest) bool { return p.IdempotencyKey.given() })
	if w.fromReadModels && keyed {
		w.forgetState()
	}
	if w.history != nil || keyed || w.handler.readModels == nil {
		return
	}
	if w.history, w.position = w.handler.readModels.State(w.stream); w.history != nil {
		w.caughtUp, w.fromReadModels = true, true
	}
}

// append appends the events of a. number is 1 for the first attempt at the batch, 2 for
// the second.
func (w *writer) append(a *attempt, number int) (domain.Head, domain.Position, error) {
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	first := a.events[0].ID
	// The clock measures only appends of new events that the read models follow. A
	// later attempt may send events that are in the log already, and nobody follows claims.
	if number == 1 && domain.StreamKind(w.stream) != domain.KindClaim {
		w.handler.wall.Appending(first)
	}
	started := w.handler.clock()
	head, position, err := w.handler.log.Append(ctx, w.stream, w.history.Head, a.events)
	ended := w.handler.clock()
	w.handler.wall.Appended(first, err)
	w.handler.health.record(err, ended)
	w.observeAppend(a, number, ended.Sub(started), err)
	return head, position, err
}

// commit makes the state of a the writer's state, after its events were appended.
func (w *writer) commit(a *attempt, head domain.Head, position domain.Position) {
	w.history, w.position = a.after, position
	w.history.Head = head
	if a.continued != nil {
		a.continued.unfinished = true
	}
	w.remembered.merge(&a.done)
}

// failAll fails the requests of a batch, and reports an inconsistent history. While the
// outcome of an append is unknown, the error says so, because err may mean that nothing was
// written.
func (w *writer) failAll(batch []*pendingRequest, err error) {
	w.handler.report(err)
	if w.inDoubt != nil {
		err = fmt.Errorf("%w: %w", w.inDoubt, err)
	}
	for _, p := range batch {
		p.fail(err)
	}
}

// forgetState drops the state, so that the next batch reads the stream anew.
func (w *writer) forgetState() {
	w.history, w.caughtUp, w.remembered, w.fromReadModels = nil, false, doneCommands{}, false
}

// read reads the stream from the state's revision to its end. After a fault it keeps the
// events that it has read, and the next read continues after them. seen, which may be nil,
// is called with each event.
func (w *writer) read(seen func(*domain.Recorded)) error {
	if w.history == nil {
		w.history = domain.NewHistory(w.stream)
	}
	w.caughtUp = false
	// A long history may take long, but each event must come within storeTimeout.
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	idle := time.AfterFunc(storeTimeout, cancel)
	defer idle.Stop()
	from := func(after domain.Revision) iter.Seq2[*domain.Recorded, error] {
		return w.handler.log.Read(ctx, w.stream, after)
	}
	for r, err := range domain.ReadWhole(w.stream, w.history.Head.Revision, w.knownRevision, from, readAgain) {
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
			// Commands are forgotten by the stream's time, which can be ahead of the
			// store's clock.
			w.remembered.add(IdempotencyKey{id, r.Metadata.BodyHash}, max(domain.InstantOf(r.RecordedAt), r.Event.When()), r.Revision)
		}
		if seen != nil {
			seen(r)
		}
	}
	w.caughtUp = true
	return nil
}

// readAgain is the domain.Again of a writer. It waits for a server that may lag behind
// another one, for retryFor altogether.
func readAgain(attempt int) (bool, error) {
	time.Sleep(retryPause)
	return attempt < int(retryFor/retryPause), nil
}

// reconcile reads the stream after an append that lost a race or whose outcome is unknown.
// It gives a result to the requests whose events are in the stream, and an error to those
// that have failed for longer than retryFor. It returns the others, to be decided again.
// byEvent has the attempts by the ids of their events.
func (w *writer) reconcile(batch []*pendingRequest, byEvent map[uuid.UUID]*attempt) []*pendingRequest {
	now := w.handler.clock()
	for _, p := range batch {
		if p.failingSince.IsZero() {
			p.failingSince = now
		}
	}
	before := w.history.Head.Revision
	type landed struct {
		attempt  *attempt
		events   []domain.Event
		after    *domain.History // the state right after the events
		position domain.Position
	}
	written := map[string]landed{} // by command id
	for {
		err := w.read(func(r *domain.Recorded) {
			if a, ok := byEvent[r.ID]; ok {
				before := written[r.Metadata.CommandID].events
				written[r.Metadata.CommandID] = landed{a, append(before, r.Event), w.history.Fork(), r.Position}
			}
		})
		if err == nil {
			break
		}
		if _, broken := errors.AsType[*domain.HistoryError](err); broken || w.handler.clock().Sub(now) > retryFor {
			w.failAll(batch, err)
			return nil
		}
		time.Sleep(retryPause)
	}
	if w.history.Head.Revision > before {
		// The append whose outcome was unknown expected the old head. So it is in the
		// stream by now, or the store will refuse it.
		w.inDoubt = nil
	}
	var again []*pendingRequest
	for _, p := range batch {
		found, done := written[p.id.String()]
		// Other requests with the same idempotency key are repeats of this one.
		delete(written, p.id.String())
		switch {
		case done && found.attempt.continued == p:
			p.unfinished = true
			again = append([]*pendingRequest{p}, again...)
		case done:
			r := reply{request: p, result: Result{Position: found.position}}
			for _, e := range found.events {
				r.addPicked(e)
			}
			r.setResult(found.after)
			p.finish(r.result, nil)
		case w.handler.clock().Sub(p.failingSince) > retryFor:
			p.fail(w.giveUpError())
		default:
			again = append(again, p)
		}
	}
	if len(again) > 0 && w.history.Head.Revision == before {
		// The store may refuse every append, for example because its disk is full.
		time.Sleep(retryPause)
	}
	return again
}

// giveUpError is the error of a command that the writer could not append within
// retryFor.
func (w *writer) giveUpError() error {
	if w.inDoubt != nil {
		return w.inDoubt
	}
	return domain.Refuse(domain.ChangedByAnother, "")
}
