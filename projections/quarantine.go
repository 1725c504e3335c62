package projections

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/lotline/lotline/domain"
)

// Quarantine puts a stream into quarantine: from now on nothing is served from it,
// and this node decides nothing on it. Every part of the node that reads a history
// and finds it inconsistent reports it here. The first report of a stream counts, and
// is logged.
func (v *Views) Quarantine(broken *domain.HistoryError) {
	v.mu.Lock()
	defer v.mu.Unlock()
	slot := v.indexes.slotOf(broken.Stream)
	if slot.current.broken == nil {
		v.publish(slot, slot.current.quarantined(broken))
	}
}

// Known is what the read models know of a stream: a revision at which it held an
// event, or domain.NoStream, and why it is in quarantine, or nil.
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

// Believes reports whether an event may be taken for a fact, as far as the read models
// have followed its stream. Of a stream in quarantine only what stands before the
// damage may.
func (v *Views) Believes(r *domain.Recorded) bool {
	revision, broken := v.Known(r.Stream)
	return broken == nil || r.Revision < revision
}

// Quarantined says which streams are in quarantine and why, by name.
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

// quarantined is the state in quarantine that follows s. The stream's name says what
// the stream is about; whose it is remains known if it was.
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

// ownedBy is s, a state in quarantine, with the owner of its stream, if it was not
// known. It is s itself when there is nothing to add.
func (s *state) withOwner(owner domain.ID) *state {
	if s.owner != "" || owner == "" {
		return s
	}
	return &state{owner: owner, id: s.id, broken: s.broken}
}

// ownerHint is the organization that the first event of a distribution names, although
// nothing about the event can be believed, or "". It decides who is told that the
// distribution is in quarantine and may read its events, and nothing else.
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

// keptBy is nil when h, which was read from the log later than s, may be what followed
// s.
func (s *state) contradictedBy(h *domain.History) error {
	if last := s.history.Head; h.Head.Revision == last.Revision && h.Head.Hash != last.Hash {
		return &domain.HistoryError{
			Stream: s.stream(), Revision: last.Revision, Rule: "what was recorded stays",
			Detail: "another event is known at this revision",
		}
	}
	return nil
}
