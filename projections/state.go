package projections

import (
	"errors"
	"sync/atomic"

	"github.com/lotline/lotline/domain"
)

// state is what is known of a stream after one of its events. It is not changed
// any more once it is published.
type state struct {
	owner    domain.ID            // the organization, "" while no creation was believed
	id       domain.ID            // of what the stream is about, "" likewise
	history  *domain.History      // nil in quarantine
	folded   bool                 // from the log, by this process, not loaded from a file
	broken   *domain.HistoryError // why the stream is in quarantine
	rendered atomic.Pointer[[]byte]
}

// entry is where the newest state of one stream is found. Indexes point to it, so
// that they change only when their own order does.
type streamSlot struct {
	id      domain.ID // as in the states, once it is known
	current *state
}

func newState(h *domain.History) *state {
	s := &state{history: h}
	switch a := h.Aggregate.(type) {
	case domain.Distribution:
		s.owner, s.id = a.Shared().OrganizationID, a.Shared().ID
		if a.Shared().Deleted {
			s.history = tombstone(h, a)
		} else if a.ParticipantsDone() {
			a.ForgetParticipants()
		}
	case *domain.Organization:
		s.owner, s.id = a.ID, a.ID
	}
	return s
}

// tombstone keeps of a deleted distribution what judging a later event of its
// stream takes.
func tombstone(h *domain.History, d domain.Distribution) *domain.History {
	bare := domain.NewDistribution(d.Kind())
	*bare.Shared() = domain.Lifecycle{
		Identity: d.Shared().Identity,
		Status:   d.Shared().Status,
		Latest:   d.Shared().Latest,
		Deleted:  true,
	}
	t := *h
	t.Aggregate = bare
	return &t
}

// after is the state that the stream's next event leads to. Quarantine has no
// way out: it is s itself then, unless the event says whose the stream is. A state that is the caller's alone is of no use any
// more.
func (s *state) next(r *domain.Recorded, callers bool) *state {
	if s.broken != nil {
		return s.withOwner(ownerHint(r))
	}
	h, changed := s.history, s.history.Changed
	if !callers {
		h = h.Fork()
	}
	err := h.Apply(r)
	if err == nil {
		next := newState(h)
		next.folded = s.folded
		if h.Changed == changed {
			// The object looks as before.
			next.rendered.Store(s.rendered.Load())
		}
		return next
	}
	return s.quarantined(historyError(r, err)).withOwner(ownerHint(r))
}

func historyError(r *domain.Recorded, err error) *domain.HistoryError {
	if bad, ok := errors.AsType[*domain.HistoryError](err); ok {
		return bad
	}
	bad := &domain.HistoryError{
		Stream: r.Stream, Revision: r.Revision, Type: r.Type,
		Rule: "every event can be applied", Detail: err.Error(),
	}
	if v, ok := errors.AsType[*domain.RuleError](err); ok {
		bad.Rule, bad.Detail = v.Rule, v.Detail
	}
	return bad
}

func (s *state) stream() string {
	if s.broken != nil {
		return s.broken.Stream
	}
	return s.history.Stream
}

// live is the distribution of the state, or nil when it shows none.
func (s *state) visible() domain.Distribution {
	if s == nil || s.history == nil || s.id == "" {
		return nil
	}
	d, ok := s.history.Aggregate.(domain.Distribution)
	if !ok || d.Shared().Deleted {
		return nil
	}
	return d
}

// partial reports whether the state is one within an append: a writer appends
// together all that is due at one time.
func (s *state) partial() bool {
	wake := s.wake()
	return wake != 0 && wake <= s.history.At(0)
}

// latest is the latest time in the stream, or 0 in quarantine.
func (s *state) latest() domain.Instant {
	if s.history == nil {
		return 0
	}
	return s.history.At(0)
}

// organization is the organization of the state, or nil when it shows none.
func (s *state) organization() *domain.Organization {
	if s == nil || s.history == nil || s.id == "" {
		return nil
	}
	o, _ := s.history.Aggregate.(*domain.Organization)
	return o
}

func (s *state) wake() domain.Instant {
	if d := s.visible(); d != nil {
		return d.Wake()
	}
	if o := s.organization(); o != nil {
		return o.Wake()
	}
	if s == nil || s.history == nil {
		return 0
	}
	if k, ok := s.history.Aggregate.(*domain.SigningKeys); ok {
		return k.Wake()
	}
	return 0
}

// nextWake is the stream's wake as this state has it. A stream in quarantine has none.
func (s *state) nextWake() domain.Wake {
	if s.broken != nil {
		return domain.Wake{Stream: s.broken.Stream, Revision: s.broken.Revision}
	}
	return domain.Wake{Stream: s.history.Stream, Revision: s.history.Head.Revision, At: s.wake(), Unfinished: s.partial()}
}

// json is the distribution as an admin sees it. It is rendered when it is first
// asked for: following and loading pass through many more states than are read.
func (s *state) json() []byte {
	if p := s.rendered.Load(); p != nil {
		return *p
	}
	out := s.visible().AppendJSON(nil)
	s.rendered.CompareAndSwap(nil, &out)
	return *s.rendered.Load()
}

// State returns a copy of a distribution's state, and a position up to which it
// holds the log. It is nil when there is none to decide on: the stream is unknown,
// deleted or in quarantine, or a part of its state came from the file, which may be
// damaged where the log is not, or was dropped because nothing more happens to the
// participants.
func (v *Views) State(stream string) (*domain.History, domain.Position) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[stream]
	if !ok || !slot.current.folded {
		return nil, domain.Position{}
	}
	if d := slot.current.visible(); d == nil || !d.KnowsParticipants() {
		return nil, domain.Position{}
	}
	return slot.current.history.Fork(), v.position
}
