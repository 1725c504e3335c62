package projections

import (
	"errors"
	"sync/atomic"

	"github.com/lotline/lotline/domain"
)

// state is the state of a stream after one of its events. A published state does not change
// any more.
type state struct {
	owner    domain.ID              // the organization, "" before a valid creation
	id       domain.ID              // of the object that the stream is about, "" before a valid creation
	history  *domain.History        // nil in quarantine
	folded   bool                   // this process folded it from the log; it was not loaded from the file
	broken   *domain.HistoryError   // why the stream is in quarantine, or nil
	rendered atomic.Pointer[[]byte] // the result of json; nil before the first call
}

// streamSlot holds the newest state of one stream. The indexes point to slots, so an index
// changes only when its order changes, not with every state.
type streamSlot struct {
	id      domain.ID // the id of the states, once it is known
	current *state
}

// newState makes the state of a history. It drops from the history what the views do not
// need any more.
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

// tombstone is the history of a deleted distribution with only the fields that are needed to
// check later events of its stream.
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

// next returns the state after the stream's next event. A stream in quarantine stays there,
// and the event can only reveal which organization owns the stream. owned says that nobody
// else has s. Then next changes the history of s, and the caller must not use s any more.
func (s *state) next(r *domain.Recorded, owned bool) *state {
	if s.broken != nil {
		return s.withOwner(ownerHint(r))
	}
	h, changed := s.history, s.history.Changed
	if !owned {
		h = h.Fork()
	}
	err := h.Apply(r)
	if err == nil {
		next := newState(h)
		next.folded = s.folded
		if h.Changed == changed {
			// The event did not change the admin object.
			next.rendered.Store(s.rendered.Load())
		}
		return next
	}
	return s.quarantined(historyError(r, err)).withOwner(ownerHint(r))
}

// historyError makes err, which applying r returned, a *domain.HistoryError.
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

// visible returns the distribution of the state. It is nil for a deleted distribution, for a
// stream in quarantine and for a stream of another kind.
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

// partial reports whether the state's event is not the last one of its append: more events
// are due at the same time, and a writer appends them together.
func (s *state) partial() bool {
	wake := s.wake()
	return wake != 0 && wake <= s.history.At(0)
}

// latest returns the latest time in the stream, or 0 in quarantine.
func (s *state) latest() domain.Instant {
	if s.history == nil {
		return 0
	}
	return s.history.At(0)
}

// organization returns the organization of the state. It is nil for a stream in quarantine
// and for a stream of another kind.
func (s *state) organization() *domain.Organization {
	if s == nil || s.history == nil || s.id == "" {
		return nil
	}
	o, _ := s.history.Aggregate.(*domain.Organization)
	return o
}

// wake returns the time of the stream's next timer, or 0 when it has none.
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

// nextWake returns the stream's wake in this state. In quarantine its time is 0.
func (s *state) nextWake() domain.Wake {
	if s.broken != nil {
		return domain.Wake{Stream: s.broken.Stream, Revision: s.broken.Revision}
	}
	return domain.Wake{Stream: s.history.Stream, Revision: s.history.Head.Revision, At: s.wake(), Unfinished: s.partial()}
}

// json returns the distribution as an admin sees it. It renders it at the first call,
// because most states are never read.
func (s *state) json() []byte {
	if p := s.rendered.Load(); p != nil {
		return *p
	}
	out := s.visible().AppendJSON(nil)
	s.rendered.CompareAndSwap(nil, &out)
	return *s.rendered.Load()
}

// State returns a copy of a distribution's state for a writer to decide on, and a position
// up to which it holds the log. It returns nil when the stream is unknown, deleted or in
// quarantine. It also returns nil when the state was loaded from the file, which may be
// damaged although the log is not, and when the participants were dropped, because nothing
// more happens to them.
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
