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
	// maxBatch and maxAppend bound what one append holds. The store's own limit
	// is 1 MiB.
	maxBatch  = 1_000
	maxAppend = 512 << 10
	// patience is how long a command is decided again after its first lost race,
	// and how long doubt about an append is looked into.
	retryFor = 2 * time.Second
	// retryPause is between attempts to reach a store that does not answer.
	retryPause = 50 * time.Millisecond
	// storeTimeout bounds one append, and how long a read may stand still.
	storeTimeout = 10 * time.Second
	// rememberFor is how long a repeated command is recognised.
	rememberFor = 25 * time.Hour
)

// pending is a command that waits for its answer. One without a command only
// loads the stream.
type pendingRequest struct {
	Request
	ctx context.Context
	id  uuid.UUID // of the command, the same in each attempt

	failingSince time.Time // when its first append was lost; owned by the writer
	finished     bool      // owned by the writer
	// begun says that the command's events are in the log, but not all that is due
	// because of them. Owned by the writer.
	unfinished bool

	done   chan struct{} // closed when the fields below are set
	result Result
	err    error
}

// answer answers once; what comes later is not heard.
func (p *pendingRequest) finish(result Result, err error) {
	if p.finished {
		return
	}
	p.finished = true
	p.result, p.err = result, err
	close(p.done)
}

// fail answers that the command, or the rest of its outcome, was not carried out.
func (p *pendingRequest) fail(err error) {
	if p.unfinished {
		// The reason may be a refusal, and would be taken for the answer.
		err = fmt.Errorf("%w: %s", domain.ErrOutcomeUnknown, err.Error())
	}
	p.finish(Result{}, err)
}

// writer is the one who writes to a stream in this process. Its state is
// confirmed: it holds nothing that is not in the log.
type writer struct {
	handler *Handler
	stream  string

	// Guarded by Handler.mu.
	waiting []*pendingRequest
	working bool
	idle    *list.Element

	// Owned by run.
	history        *domain.History // nil before the first load
	caughtUp       bool            // the log's end was reached, and the state is what it was there
	position       domain.Position // of the last event of history
	inDoubt        error           // an append for the present batch ended without an answer
	remembered     doneCommands
	fromReadModels bool // the state is the read models', who remember no keys
	// known is a revision that the stream had before the present batch.
	knownRevision domain.Revision
}

// run answers what waits until nothing does.
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

// carryOrRecover keeps a mistake in the rules of one stream from ending the
// process, which would meet it again after the restart.
func (w *writer) carryOutOrRecover(batch []*pendingRequest) (left []*pendingRequest) {
	defer func() {
		if p := recover(); p != nil {
			w.forgetState()
			w.failAll(batch, fmt.Errorf("panic while carrying out commands for %s: %v\n%s", w.stream, p, debug.Stack()))
			left = nil
		}
	}()
	return w.carryOut(batch)
}

// carry answers the commands of batch and returns those that did not fit into
// one append, first the one whose outcome did not.
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
	mine := map[uuid.UUID]*attempt{} // by the events of all attempts
	for attempts := 1; ; attempts++ {
		a, err := w.decide(batch)
		if err != nil {
			w.failAll(batch, err)
			return nil
		}
		if len(a.events) == 0 {
			if w.inDoubt != nil {
				// An answer that says that nothing happened would be wrong if the
				// append came to land after it.
				w.failAll(batch, errors.New("it is not in the stream so far"))
				return nil
			}
			// What an append would have checked has to be looked up: another node
			// may have written since.
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
			mine[e.ID] = a
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
		// Either somebody else wrote to the stream, or it is not known what
		// became of the append. In both cases the stream itself tells.
		if errors.Is(err, domain.ErrWrongRevision) {
			raced = true
		} else {
			w.inDoubt = err
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
	w.handler.health.record(err, ended)
	w.observeAppend(a, number, ended.Sub(started), err)
	return head, position, err
}

// confirm takes over the state that the append made true.
func (w *writer) commit(a *attempt, head domain.Head, position domain.Position) {
	w.history, w.position = a.after, position
	w.history.Head = head
	if a.unfinished != nil {
		a.unfinished.unfinished = true
	}
	w.remembered.merge(&a.done)
}

// failAll answers a batch with a fault, and reports an inconsistent history. While
// there is doubt about an append, a fault must not say that nothing was written.
func (w *writer) failAll(batch []*pendingRequest, err error) {
	w.handler.report(err)
	if w.inDoubt != nil {
		err = fmt.Errorf("%w: %w", w.inDoubt, err)
	}
	for _, p := range batch {
		p.fail(err)
	}
}

// forgetState drops a state that is of no use. The stream is then loaded anew.
func (w *writer) forgetState() {
	w.history, w.caughtUp, w.remembered, w.fromReadModels = nil, false, doneCommands{}, false
}

// read brings the state to the log's end. What was read before a fault is kept,
// and the next read goes on behind it.
func (w *writer) read(seen func(*domain.Recorded)) error {
	if w.history == nil {
		w.history = domain.NewHistory(w.stream)
	}
	w.caughtUp = false
	// A long history takes its time, but it has to go on.
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
			// The stream's time can be ahead of the store's clock, and is what forgetting
			// goes by.
			w.remembered.add(IdempotencyKey{id, r.Metadata.BodyHash}, max(domain.InstantOf(r.RecordedAt), r.Event.When()), r.Revision)
		}
		if seen != nil {
			seen(r)
		}
	}
	w.caughtUp = true
	return nil
}

// readAgain waits for a server that seems to lag behind, but not for ever.
func readAgain(attempt int) (bool, error) {
	time.Sleep(retryPause)
	return attempt < int(retryFor/retryPause), nil
}

// reconcile reads the stream after an append that lost a race or ended without
// an answer. Commands of whose events one stands in the stream are done, or begun;
// those that ran out of patience are told so; the others are returned, to be
// decided again. mine tells the attempts by their events.
func (w *writer) reconcile(batch []*pendingRequest, mine map[uuid.UUID]*attempt) []*pendingRequest {
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
		if _, broken := errors.AsType[*domain.HistoryError](err); broken || w.handler.clock().Sub(now) > retryFor {
			w.failAll(batch, err)
			return nil
		}
		time.Sleep(retryPause)
	}
	if w.history.Head.Revision > before {
		// Appends that were in doubt stood behind the old head: they are in the
		// stream by now, or cannot come there any more.
		w.inDoubt = nil
	}
	var again []*pendingRequest
	for _, p := range batch {
		found, done := written[p.id.String()]
		// Others with the same key are repeats of this one.
		delete(written, p.id.String())
		switch {
		case done && found.attempt.unfinished == p:
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
		// A store that refuses every append, as on a full disk, is not pressed.
		time.Sleep(retryPause)
	}
	return again
}

// outOfPatience is the answer to a command that could not be appended.
func (w *writer) giveUpError() error {
	if w.inDoubt != nil {
		return w.inDoubt
	}
	return domain.Refuse(domain.ChangedByAnother, "")
}
