package projections

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/lotline/lotline/domain"
)

// Quarantine puts a stream into quarantine: from now on nothing is served from it, and this
// node decides nothing on it. Every part of the node that finds a history inconsistent calls
// Quarantine. The first call for a stream counts and is logged, later ones do nothing.
func (v *Views) Quarantine(broken *domain.HistoryError) {
	v.mu.Lock()
	defer v.mu.Unlock()
	slot := v.indexes.slotOf(broken.Stream)
	if slot.current.broken == nil {
		v.publish(slot, slot.current.quarantined(broken))
	}
}

// Known returns a revision at which the stream held an event, or domain.NoStream. The error
// says why the stream is in quarantine; it is nil when it is not.
func (v *Views) Known(stream string) (domain.Revision, *domain.HistoryError) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	slot, ok := v.indexes.streams[stream]
	switch {
	case !ok:
		return domain.NoStream, nil
	case slot.current.broken != nil:
		return slot.current.broken.Revision, slot.current.broken
	}
	return slot.current.history.Head.Revision, nil
}

// Believes reports whether an event may be trusted, as far as the read models have followed
// its stream. In a stream in quarantine, only the events before the damage may.
func (v *Views) Believes(r *domain.Recorded) bool {
	revision, broken := v.Known(r.Stream)
	return broken == nil || r.Revision < revision
}

// Quarantined returns why streams are in quarantine, sorted by the names of the streams.
func (v *Views) Quarantined() []domain.HistoryError {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := make([]domain.HistoryError, 0, len(v.indexes.quarantine))
	for _, stream := range slices.Sorted(maps.Keys(v.indexes.quarantine)) {
		all = append(all, *v.indexes.quarantine[stream])
	}
	return all
}

func (v *Views) logQuarantine(b *domain.HistoryError) {
	v.log.Error().Str("stream", b.Stream).Int64("revision", int64(b.Revision)).Str("type", b.Type).
		Str("rule", b.Rule).Str("detail", b.Detail).Msg("stream quarantined")
}

// quarantined returns the state in quarantine after s. It keeps the owner of s, and takes the
// id from the stream's name.
func (s *state) quarantined(broken *domain.HistoryError) *state {
	next := &state{owner: s.owner, broken: broken}
	if id, err := domain.StreamID(broken.Stream); err == nil {
		next.id = id
	}
	if next.id.Kind() == domain.KindOrganization {
		next.owner = next.id
	}
	return next
}

// withOwner returns a state in quarantine with the owner of its stream. It returns s itself
// when s has an owner already or owner is "".
func (s *state) withOwner(owner domain.ID) *state {
	if s.owner != "" || owner == "" {
		return s
	}
	return &state{owner: owner, id: s.id, broken: s.broken}
}

// ownerHint returns the organization that the first event of a distribution names, or "". The
// event is not trusted. The hint only decides which organization learns that the
// distribution is in quarantine and may read its events.
func ownerHint(r *domain.Recorded) domain.ID {
	if r.Revision != 0 || !domain.StreamKind(r.Stream).Distribution() {
		return ""
	}
	var creation struct {
		OrganizationID string `json:"organizationId"`
	}
	if json.Unmarshal(r.Data, &creation) != nil {
		return ""
	}
	id, _ := domain.ParseID(domain.KindOrganization.IDPrefix(), creation.OrganizationID)
	return id
}

// contradictedBy compares s with h, which was read from the log later. It returns an error
// when both end at the same revision, but with different events.
func (s *state) contradictedBy(h *domain.History) error {
	if last := s.history.Head; h.Head.Revision == last.Revision && h.Head.Hash != last.Hash {
		return &domain.HistoryError{
			Stream: s.stream(), Revision: last.Revision, Rule: "what was recorded stays",
			Detail: "another event is known at this revision",
		}
	}
	return nil
}
