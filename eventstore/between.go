package eventstore

import (
	"context"
	"fmt"
	"iter"

	"github.com/lotline/lotline/domain"
)

// Between yields the events in streams of some kinds whose position is greater than after
// and not greater than until, in the order of the log. It ends early only if the server
// says that the log ends before until, or after the first error (domain.ErrUnavailable).
// An event that cannot be decoded is yielded together with the reason.
func (l *Log) Between(ctx context.Context, after, until domain.Position, kinds []domain.Kind) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if !after.Before(until) {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		p := &rangeSubscriber{until: until, yield: yield, end: cancel}
		if err := l.subscribe(ctx, after, kinds, p); !p.ended {
			yield(nil, fmt.Errorf("read the log: %w: %w", domain.ErrUnavailable, err))
		}
	}
}

// rangeSubscriber is the subscriber of Between. It is for one goroutine.
type rangeSubscriber struct {
	until domain.Position
	yield func(*domain.Recorded, error) bool
	end   context.CancelFunc
	ended bool // deliveries that still arrive are ignored
}

func (p *rangeSubscriber) event(r *domain.Recorded) {
	if p.ended {
		return
	}
	if p.until.Before(r.Position) || !p.yield(r, nil) {
		p.caughtUp()
		return
	}
	p.passed(r.Position)
}

func (p *rangeSubscriber) passed(at domain.Position) {
	if !at.Before(p.until) {
		p.caughtUp()
	}
}

func (p *rangeSubscriber) caughtUp() {
	p.ended = true
	p.end()
}
