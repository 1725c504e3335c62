package eventstore

import (
	"context"
	"fmt"
	"iter"

	"github.com/lotline/lotline/domain"
)

// Between yields what the streams of some kinds hold behind after, up to and with
// until, in the order of the log, for as long as the caller takes it. It ends
// earlier only where the server says that the log ends, and after the first error
// (domain.ErrUnavailable). An event that cannot be decoded is yielded with the
// reason.
func (l *Log) Between(ctx context.Context, after, until domain.Position, kinds []domain.Kind) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		if !after.Before(until) {
			return
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		p := &passage{until: until, yield: yield, end: cancel}
		if err := l.subscribe(ctx, after, kinds, p); !p.ended {
			yield(nil, fmt.Errorf("read the log: %w: %w", domain.ErrUnavailable, err))
		}
	}
}

// passage is the subscriber of Between, called by one goroutine.
type passage struct {
	until domain.Position
	yield func(*domain.Recorded, error) bool
	end   context.CancelFunc
	ended bool // what comes now was on its way already
}

func (p *passage) event(r *domain.Recorded) {
	if p.ended {
		return
	}
	if p.until.Before(r.Position) || !p.yield(r, nil) {
		p.caughtUp()
		return
	}
	p.passed(r.Position)
}

func (p *passage) passed(at domain.Position) {
	if !at.Before(p.until) {
		p.caughtUp()
	}
}

func (p *passage) caughtUp() {
	p.ended = true
	p.end()
}
