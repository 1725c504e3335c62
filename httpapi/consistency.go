package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

const (
	// ownWait is how long a read waits until the read models have caught up with the
	// writes that this node acknowledged. After that the read is served anyway: an old
	// answer is better than none.
	ownWait = time.Second
	// positionWait is how long a read waits for the position in its X-Position header.
	// After that it is refused: a client that sends a position does not want an older
	// answer.
	positionWait = 2 * time.Second
)

// awaitWrites makes a read wait until the read models include every write that this
// node acknowledged to the organization, and the position in the request's X-Position
// header.
func (s *server) awaitWrites(x *exchange, r *http.Request) error {
	if own := s.acknowledged.latest(x.organization.ID); s.Views.Position().Before(own) {
		ctx, cancel := context.WithTimeout(r.Context(), ownWait)
		defer cancel()
		_ = s.Views.WaitFor(ctx, own) // the read is served anyway
	}
	tokens := r.Header["X-Position"]
	if len(tokens) == 0 {
		return nil
	}
	p, ok := s.parsePosition(x.organization.ID, tokens[0])
	if !ok || len(tokens) > 1 {
		return invalid(domain.Detail{Field: "X-Position", Message: "is not a position that was given out here"})
	}
	ctx, cancel := context.WithTimeout(r.Context(), positionWait)
	defer cancel()
	return s.Views.WaitFor(ctx, p)
}

// acknowledge remembers the log position of the state that an answer was computed from,
// and sends it to the client in X-Position. It does nothing for the zero position: then
// no event was read or written for the answer.
func (s *server) acknowledge(x *exchange, p domain.Position) {
	if p == (domain.Position{}) {
		return
	}
	s.acknowledged.note(x.organization.ID, p)
	x.set("X-Position", s.formatPosition(x.organization.ID, p))
}

// maxAcknowledged is the number of organizations whose latest positions are remembered
// separately.
const maxAcknowledged = 10_000

// acknowledged remembers the latest position that this node acknowledged to each
// organization. Its zero value is ready to use. Safe for concurrent use.
type acknowledged struct {
	mu        sync.RWMutex // guards the fields below
	positions map[domain.ID]domain.Position
	// floor is the position of every organization that is not in positions. It is at or
	// after each position that was forgotten. So these organizations' reads may wait
	// for writes of other organizations, which is slower but never wrong.
	floor domain.Position
}

// latest returns the position that the organization's reads have to wait for.
func (a *acknowledged) latest(organization domain.ID) domain.Position {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if p, ok := a.positions[organization]; ok {
		return p
	}
	return a.floor
}

// note remembers p for an organization, unless a later position is known. If the map is
// full, it first forgets all positions in favour of the floor.
func (a *acknowledged) note(organization domain.ID, p domain.Position) {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.positions[organization]
	if ok && !known.Before(p) {
		return
	}
	if !ok && len(a.positions) >= maxAcknowledged {
		for _, q := range a.positions {
			if a.floor.Before(q) {
				a.floor = q
			}
		}
		a.positions = nil
	}
	if a.positions == nil {
		a.positions = map[domain.ID]domain.Position{}
	}
	if p.Before(a.floor) {
		p = a.floor
	}
	a.positions[organization] = p
}
