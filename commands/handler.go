package commands

import (
	"container/list"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
)

const (
	// maxWriters bounds how many idle writers, each with its stream's state, are kept
	// in memory.
	maxWriters = 16_384
	// maxRemembered bounds how many commands with an idempotency key all idle writers
	// together remember. They take some 140 MB. The writer that worked last is kept
	// even if it alone remembers more.
	maxRemembered = 2_000_000
	// maxWaiting bounds how many requests may wait for one stream. Further ones get
	// domain.ErrUnavailable.
	maxWaiting = 100_000
)

// ErrClosed is the error of a command that comes after Close.
var ErrClosed = errors.New("the command handler is closed")

// Handler carries out commands. It decides the commands for one stream one after
// another, each on the state that the one before left. Commands for different streams
// do not wait for each other. Success means that the events are on disk.
//
// A *domain.Error is a refusal: nothing happened. A *domain.HistoryError means that the
// stream is damaged. Any other error is a fault, after which the command may be
// repeated with the same IdempotencyKey. Safe for concurrent use.
type Handler struct {
	log        Log
	readModels ReadModels       // nil when there are no read models
	clock      func() time.Time // for measuring durations; commands are decided by wall
	wall       *walltime.Clock
	health     health
	// observer is nil when nobody observes the handler.
	observer Observer
	// The bounds are fields for tests.
	maxAppend, maxRemembered int

	mu      sync.Mutex         // guards the fields below and each writer's waiting and idle
	writers map[string]*writer // by stream
	idle    *list.List         // of *writer without work, the longest idle at the back
	// remembered is how many commands the idle writers remember together.
	remembered int
	waiting    int // requests that no writer has taken yet
	closed     bool
	working    sync.WaitGroup // writers at work; Add only under mu and before closed
}

// NewHandler returns a handler that appends to log and reads the time from clock. With
// the states of readModels, the handler need not read most streams before it writes to
// them. readModels may be nil.
func NewHandler(log Log, readModels ReadModels, clock func() time.Time) *Handler {
	return &Handler{
		log: log, readModels: readModels, clock: clock, wall: walltime.New(clock),
		maxAppend: maxAppend, maxRemembered: maxRemembered, writers: map[string]*writer{}, idle: list.New(),
	}
}

// UseClock makes the handler decide by c instead of a clock of its own. It must be
// called before the first command.
func (h *Handler) UseClock(c *walltime.Clock) { h.wall = c }

// Now returns the time to decide at. The error says why nothing may be decided now.
func (h *Handler) Now(ctx context.Context) (time.Time, error) { return h.wall.Now(ctx) }

// Handle carries out a command. When ctx ends first, Handle returns its error, and the
// command may still be carried out.
func (h *Handler) Handle(ctx context.Context, r Request) (Result, error) {
	return h.withObserver(ctx, domain.StreamKind(r.Stream), r.Command, &r.Caller, func(ctx context.Context) (Result, error) {
		return h.submit(ctx, &pendingRequest{Request: r})
	})
}

// Load brings a stream's state into memory, so that the next command need not wait for
// it to be read.
func (h *Handler) Load(ctx context.Context, stream string) error {
	_, err := h.submit(ctx, &pendingRequest{Request: Request{Stream: stream}})
	return err
}

// Creation asks for a new distribution.
type Creation struct {
	Kind           domain.Kind
	Organization   domain.ID
	Fields         domain.Fields
	Defaults       domain.Defaults
	Caller         Caller
	IdempotencyKey IdempotencyKey
}

// Create makes a distribution. With an IdempotencyKey it makes only one, however often
// it is repeated and on whatever nodes: the first call claims an id in a stream of its
// own, and every call creates the distribution with the claimed id unless it exists.
// The result of a repeat is the state right after the creation.
func (h *Handler) Create(ctx context.Context, c Creation) (Result, error) {
	return h.withObserver(ctx, c.Kind, domain.Create{}, &c.Caller, func(ctx context.Context) (Result, error) {
		return h.create(ctx, c)
	})
}

// report puts a stream into quarantine when err says that its history is inconsistent.
func (h *Handler) report(err error) {
	if broken, ok := errors.AsType[*domain.HistoryError](err); ok && h.readModels != nil {
		h.readModels.Quarantine(broken)
	}
}

// known returns what ReadModels.Known does, or that nothing is known when there are no
// read models.
func (h *Handler) known(stream string) (domain.Revision, *domain.HistoryError) {
	if h.readModels == nil {
		return domain.NoStream, nil
	}
	return h.readModels.Known(stream)
}

func (h *Handler) create(ctx context.Context, c Creation) (Result, error) {
	// The id contains the time, so the clock must be right.
	if _, err := h.Now(ctx); err != nil {
		return Result{}, err
	}
	id, err := newID(c.Kind)
	if err != nil {
		return Result{}, err
	}
	create := domain.Create{
		ID: id, OrganizationID: c.Organization, Fields: c.Fields, Defaults: c.Defaults, Seed: rand.Text(),
	}
	rand.Read(create.Secret[:])
	if c.IdempotencyKey.given() {
		var claimed bool
		if create.ID, claimed, err = h.claim(ctx, c, create); err != nil {
			return Result{}, err
		}
		if claimed {
			// The call that claimed the id has probably created the distribution.
			if first, err := h.replay(ctx, create.ID.Stream(), c.IdempotencyKey); err != nil || first.History != nil {
				return first, err
			}
		}
	}
	result, err := h.submit(ctx, &pendingRequest{Request: Request{
		Stream: create.ID.Stream(), Command: create, Caller: c.Caller, Organization: c.Organization, IdempotencyKey: c.IdempotencyKey,
	}})
	if err != nil || !result.Replayed {
		return result, err
	}
	return h.replay(ctx, create.ID.Stream(), c.IdempotencyKey)
}

// claim returns the id for a creation with an idempotency key, and whether an earlier
// call claimed it. It claims the id of create if there is no claim yet, unless the
// creation would be refused.
func (h *Handler) claim(ctx context.Context, c Creation, create domain.Create) (id domain.ID, earlier bool, err error) {
	stream := domain.ClaimStream(c.IdempotencyKey.CommandID.String())
	claims := domain.NewHistory(stream)
	for r, err := range h.log.Read(ctx, stream, domain.NoStream) {
		if err == nil {
			err = claims.Apply(r)
		}
		if err != nil {
			h.report(err)
			return "", false, err
		}
	}
	if made := claims.Aggregate.(*domain.Claims).Made; made != "" {
		return made, true, nil
	}
	now, err := h.Now(ctx)
	if err != nil {
		return "", false, err
	}
	if _, err := domain.NewHistory(create.ID.Stream()).Decide(domain.InstantOf(now), create); err != nil {
		return "", false, err
	}
	result, err := h.submit(ctx, &pendingRequest{Request: Request{Stream: stream, Command: domain.Claim{ID: create.ID}, Caller: c.Caller}})
	if err != nil {
		return "", false, err
	}
	made := result.History.Aggregate.(*domain.Claims).Made
	return made, made != create.ID, nil
}

// replay returns the result of a repeated creation: the state after the creation's own
// events, without the later ones. The result has no History when the creation was not
// carried out yet.
func (h *Handler) replay(ctx context.Context, stream string, k IdempotencyKey) (Result, error) {
	if _, broken := h.known(stream); broken != nil {
		return Result{}, broken
	}
	first := Result{Replayed: true}
	made := domain.NewHistory(stream)
	for r, err := range h.log.Read(ctx, stream, domain.NoStream) {
		if err == nil && r.Metadata.CommandID != k.CommandID.String() {
			break
		}
		if err == nil {
			err = made.Apply(r)
		}
		if err != nil {
			h.report(err)
			return Result{}, err
		}
		if r.Metadata.BodyHash != k.BodyHash {
			return Result{}, keyReused()
		}
		first.History, first.Position = made, r.Position
	}
	return first, nil
}

// Health returns why the last append failed, or nil when it succeeded. After half a
// minute without an append it returns nil as well, so that a node which gets no commands
// because it is unhealthy tries again. An append that lost a race does not count.
func (h *Handler) Health() error { return h.health.err(h.clock()) }

func newID(k domain.Kind) (domain.ID, error) {
	u, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	return domain.NewID(k.IDPrefix(), u), nil
}

// Close refuses further commands. It returns when the accepted ones have their results,
// or when ctx ends.
func (h *Handler) Close(ctx context.Context) error {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	done := make(chan struct{})
	go func() {
		h.working.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// submit gives p to its stream's writer and waits for the result.
func (h *Handler) submit(ctx context.Context, p *pendingRequest) (Result, error) {
	p.ctx, p.done = ctx, make(chan struct{})
	p.id = p.IdempotencyKey.CommandID
	if !p.IdempotencyKey.given() {
		p.id = uuid.New()
	}
	if err := h.addWaiting(p); err != nil {
		return Result{}, err
	}
	select {
	case <-p.done:
		return p.result, p.err
	case <-ctx.Done():
		return Result{}, fmt.Errorf("a command for %s: %w", p.Stream, context.Cause(ctx))
	}
}

// addWaiting adds p to the requests that wait for its stream's writer, and starts the
// writer if it is idle.
func (h *Handler) addWaiting(p *pendingRequest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return ErrClosed
	}
	w, ok := h.writers[p.Stream]
	if !ok {
		w = &writer{handler: h, stream: p.Stream}
		h.writers[p.Stream] = w
	}
	if len(w.waiting) >= maxWaiting {
		return domain.ErrUnavailable
	}
	w.waiting = append(w.waiting, p)
	h.waiting++
	if w.working {
		return nil
	}
	w.working = true
	if w.idle != nil {
		h.removeIdle(w)
	}
	h.working.Go(w.run)
	return nil
}

// nextBatch returns the requests that wait for w, at most maxBatch. When there are none,
// it returns nil and w is idle from now on.
func (h *Handler) nextBatch(w *writer) []*pendingRequest {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := min(len(w.waiting), maxBatch)
	if n > 0 {
		batch := w.waiting[:n:n]
		w.waiting = w.waiting[n:]
		h.waiting -= n
		return batch
	}
	w.waiting, w.working = nil, false
	if w.history == nil || domain.StreamKind(w.stream) == domain.KindClaim {
		// There is no state to keep: the load failed, or the stream is a claim, which
		// is hardly ever needed again.
		delete(h.writers, w.stream)
		return nil
	}
	w.idle = h.idle.PushFront(w)
	h.remembered += w.remembered.size()
	for h.idle.Len() > maxWriters || h.remembered > h.maxRemembered && h.idle.Len() > 1 {
		oldest := h.idle.Back().Value.(*writer)
		h.removeIdle(oldest)
		delete(h.writers, oldest.stream)
	}
	return nil
}

// removeIdle removes w from the idle writers.
func (h *Handler) removeIdle(w *writer) {
	h.idle.Remove(w.idle)
	h.remembered -= w.remembered.size()
	w.idle = nil
}
