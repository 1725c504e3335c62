package httpapi

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/lotline/lotline/domain"
)

const (
	// ownWait is how long a read waits for what this node acknowledged. Then it
	// is served as it is: an old answer is better than none.
	ownWait = time.Second
	// positionWait is how long a read waits for the position that it names. Then
	// it is refused: who names one does not want an older answer.
	positionWait = 2 * time.Second
)

// awaitWrites holds a read until it sees what this node has acknowledged to the
// organization, and what the request's X-Position names.
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

// acknowledge notes where the events stand that an answer rests on, and tells the
// client. What rests on none stands nowhere.
func (s *server) acknowledge(x *exchange, p domain.Position) {
	if p == (domain.Position{}) {
		return
	}
	s.acknowledged.note(x.organization.ID, p)
	x.set("X-Position", s.formatPosition(x.organization.ID, p))
}

// maxAcknowledged is of how many organizations the latest writes are known
// apart.
const maxAcknowledged = 10_000

// acknowledged is the latest position that was acknowledged to each
// organization. Its zero value is ready. Safe for concurrent use.
type acknowledged struct {
	mu        sync.RWMutex // guards the fields below
	positions map[domain.ID]domain.Position
	// floor stands for the organizations that are not in positions any more. It
	// makes their reads wait for others' writes, which is slower but never wrong.
	floor domain.Position
}

func (a *acknowledged) latest(organization domain.ID) domain.Position {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if p, ok := a.positions[organization]; ok {
		return p
	}
	return a.floor
}

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
