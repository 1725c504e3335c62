package projections

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/tidwall/btree"

	"github.com/lotline/lotline/domain"
)

// models are the structures that queries are answered from. They follow from the
// states of the streams alone, in whatever order these came.
type models struct {
	streams       map[string]*entry
	tenants       map[domain.ID]*tenant
	deadlines     *btree.BTreeG[deadline]
	organizations map[domain.ID]*domain.Organization
	credentials   map[string][]Credential // under the key's hash, by the key's id
	quarantine    map[string]*domain.HistoryError
	newWakes      *newWakes
	latest        domain.Instant // the latest time in any stream
}

// signal says so on a channel with room for one: once is enough until it is heard.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// newTree makes a tree that is guarded by the lock of the views.
func newTree[T any](compare func(a, b T) int) *btree.BTreeG[T] {
	return btree.NewBTreeGOptions(
		func(a, b T) bool { return compare(a, b) < 0 },
		btree.Options{NoLocks: true},
	)
}

// tenant is what one organization sees.
type tenant struct {
	entries map[domain.ID]*entry // distributions that are not deleted, those in quarantine as well
	lists   map[domain.Kind]*lists
}

// deadline is when a stream wants to be woken.
type deadline struct {
	at     domain.Instant
	stream string
}

func compareDeadlines(a, b deadline) int {
	if a.at != b.at {
		return cmp.Compare(a.at, b.at)
	}
	return strings.Compare(a.stream, b.stream)
}

// Credential is what a key gives access to.
type Credential struct {
	OrganizationID domain.ID
	KeyID          domain.ID
	Level          domain.KeyLevel
}

func newModels(size int) models {
	return models{
		streams:       make(map[string]*entry, size),
		tenants:       map[domain.ID]*tenant{},
		deadlines:     newTree(compareDeadlines),
		organizations: map[domain.ID]*domain.Organization{},
		credentials:   map[string][]Credential{},
		quarantine:    map[string]*domain.HistoryError{},
		newWakes:      &newWakes{woken: make(chan struct{}, 1)},
	}
}

// find returns the stream's entry, or one with the state before the first event.
func (m *models) find(stream string) *entry {
	if e, ok := m.streams[stream]; ok {
		return e
	}
	return &entry{current: &state{history: domain.NewHistory(stream), folded: true}}
}

func (m *models) tenant(id domain.ID) *tenant {
	t, ok := m.tenants[id]
	if !ok {
		t = &tenant{entries: map[domain.ID]*entry{}, lists: map[domain.Kind]*lists{}}
		m.tenants[id] = t
	}
	return t
}

// publish makes next the state of e.
func (m *models) publish(e *entry, next *state) {
	was := e.current
	e.current, e.id = next, next.id
	m.streams[next.stream()] = e
	m.latest = max(m.latest, next.latest())
	if next.owner != "" && domain.StreamKind(next.stream()).Distribution() {
		m.tenant(next.owner).place(e, was, next)
	}
	if old, at := was.wake(), next.wake(); old != at {
		if old != 0 {
			m.deadlines.Delete(deadline{old, next.stream()})
		}
		if at != 0 {
			m.deadlines.Set(deadline{at, next.stream()})
		}
	}
	m.newWakes.tell(next.nextWake())
	m.account(was.organization(), next.organization())
	if next.broken != nil {
		m.quarantine[next.stream()] = next.broken
	}
}

// build makes the models of all states. Sorting them first is several times as
// fast as publishing one after another.
func build(states []*state) models {
	m := newModels(len(states))
	listed := map[*lists][]*entry{}
	var deadlines []deadline
	for _, s := range states {
		e := &entry{id: s.id, current: s}
		m.streams[s.stream()] = e
		m.latest = max(m.latest, s.latest())
		m.account(nil, s.organization())
		if s.broken != nil {
			m.quarantine[s.stream()] = s.broken
		}
		if at := s.wake(); at != 0 {
			deadlines = append(deadlines, deadline{at, s.stream()})
		}
		if d := s.live(); d != nil {
			t := m.tenant(s.owner)
			t.entries[s.id] = e
			l := t.list(d.Kind())
			listed[l] = append(listed[l], e)
		} else if s.broken != nil && s.owner != "" && s.id.Kind().Distribution() {
			m.tenant(s.owner).entries[s.id] = e
		}
	}

	var wg sync.WaitGroup
	wg.Go(func() {
		slices.SortFunc(deadlines, compareDeadlines)
		for _, d := range deadlines {
			m.deadlines.Load(d)
		}
	})
	for l, entries := range listed {
		for i := range l {
			wg.Go(func() { l[i].load(entries, sorts[i]) })
		}
	}
	wg.Wait()
	return m
}

// place puts a distribution where its new state belongs.
func (t *tenant) place(e *entry, was, next *state) {
	if next.broken == nil && next.live() == nil {
		delete(t.entries, e.id)
	} else {
		t.entries[e.id] = e
	}
	t.list(e.id.Kind()).move(e, was.live(), next.live())
}

func (t *tenant) list(k domain.Kind) *lists {
	l, ok := t.lists[k]
	if !ok {
		l = newLists()
		t.lists[k] = l
	}
	return l
}

// account replaces an organization and its credentials by those of its new state.
func (m *models) account(was, next *domain.Organization) {
	if was != nil {
		for _, k := range was.Keys {
			isOld := func(c Credential) bool { return c.KeyID == k.ID && c.OrganizationID == was.ID }
			if left := slices.DeleteFunc(m.credentials[k.Hash], isOld); len(left) > 0 {
				m.credentials[k.Hash] = left
			} else {
				delete(m.credentials, k.Hash)
			}
		}
		delete(m.organizations, was.ID)
	}
	if next == nil {
		return
	}
	m.organizations[next.ID] = next
	for _, k := range next.Keys {
		if k.RevokedAt != 0 || k.Expired {
			continue
		}
		// One key in two organizations is a mistake. Whose it is does not depend
		// on the order in which the streams were loaded.
		m.credentials[k.Hash] = append(m.credentials[k.Hash], Credential{next.ID, k.ID, k.Level})
		slices.SortFunc(m.credentials[k.Hash], func(a, b Credential) int {
			return cmp.Or(cmp.Compare(a.KeyID, b.KeyID), cmp.Compare(a.OrganizationID, b.OrganizationID))
		})
	}
}

// Credential is what a key gives access to whose end is not recorded, found by the
// SHA-256 of the key in lower-case hex. An organization in quarantine has none: its
// revocations may be what was lost.
func (v *Views) Credential(hash string) (Credential, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	all := v.models.credentials[hash]
	if len(all) == 0 {
		return Credential{}, false
	}
	return all[0], true
}

// Organization is the organization with that id. One in quarantine is not shown.
func (v *Views) Organization(id domain.ID) (*domain.Organization, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	o, ok := v.models.organizations[id]
	return o, ok
}

// Account is an organization as it was when it was asked for.
type Account struct {
	// Organization is only to be read: others hold the same.
	Organization *domain.Organization
	// Changed is the revision of the last event that changed it, beside its keys.
	Changed domain.Revision
}

// Account is the organization with that id, likewise.
func (v *Views) Account(id domain.ID) (Account, bool) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e, ok := v.models.streams[id.Stream()]
	if !ok || e.current.organization() == nil {
		return Account{}, false
	}
	return Account{e.current.organization(), e.current.history.Changed}, true
}

// Organizations are all organizations that are not in quarantine, by id.
func (v *Views) Organizations() []*domain.Organization {
	v.mu.RLock()
	defer v.mu.RUnlock()
	return slices.SortedFunc(maps.Values(v.models.organizations), func(a, b *domain.Organization) int {
		return cmp.Compare(a.ID, b.ID)
	})
}

// SigningKeys are the keys by which tokens are signed. Nobody changes them. Errors:
// *domain.HistoryError when their stream is in quarantine, ErrBehind when the first
// has not come yet.
func (v *Views) SigningKeys() (*domain.SigningKeys, error) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e, ok := v.models.streams[domain.SigningStream]
	switch {
	case !ok:
		return nil, ErrBehind
	case e.current.broken != nil:
		return nil, e.current.broken
	}
	return e.current.history.Aggregate.(*domain.SigningKeys), nil
}

// State returns a copy of a distribution's state, and a position up to which it
// holds the log. It is nil when there is none to decide on: the stream is unknown,
// deleted or in quarantine, or a part of its state came from the file, which may be
// damaged where the log is not, or was dropped because nothing more happens to the
// participants.
func (v *Views) State(stream string) (*domain.History, domain.Position) {
	v.mu.RLock()
	defer v.mu.RUnlock()
	e, ok := v.models.streams[stream]
	if !ok || !e.current.folded {
		return nil, domain.Position{}
	}
	if d := e.current.live(); d == nil || !d.KnowsParticipants() {
		return nil, domain.Position{}
	}
	return e.current.history.Fork(), v.position
}
