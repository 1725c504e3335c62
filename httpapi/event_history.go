package httpapi

import (
	"context"
	"errors"
	"iter"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/projections"
)

// historyEvent is an event, with the facts about it that depend on other events of its
// stream.
type historyEvent struct {
	*domain.Recorded
	previous string               // the hash of the preceding event, "" for the first
	broken   *domain.HistoryError // the rule that this event breaks, or nil
}

// history yields the events of a stream after a revision, oldest first, and ends after the
// first error. It checks the hash chain. If an event breaks a rule, history reports the
// stream for quarantine but continues, because the events are evidence. If events are
// missing at the beginning or the end of the stream, it yields a *domain.HistoryError.
func (s *server) history(ctx context.Context, stream string, after domain.Revision) iter.Seq2[historyEvent, error] {
	return func(yield func(historyEvent, error) bool) {
		known, quarantine := s.Views.Known(stream)
		again := projections.ReadAgain(ctx)
		if quarantine != nil {
			again = domain.Once
		}
		begin := max(after-1, domain.NoStream)
		head := domain.Head{Revision: begin}
		read := func(after domain.Revision) iter.Seq2[*domain.Recorded, error] {
			return s.Histories.Read(ctx, stream, after)
		}
		// Reading begins one event earlier, because its hash is needed.
		for r, err := range domain.ReadWhole(stream, begin, known, read, again) {
			if err == nil && head == domain.EmptyHead() && r.Revision > 0 {
				_, err = head.Next(stream, r)
			}
			if err != nil {
				s.report(err)
				yield(historyEvent{}, err)
				return
			}
			e := historyEvent{Recorded: r, previous: head.Hash}
			if r.Revision > after {
				_, err := head.Next(stream, r)
				s.report(err)
				e.broken, _ = errors.AsType[*domain.HistoryError](err)
				if quarantine != nil && quarantine.Revision == r.Revision {
					e.broken = quarantine
				}
				if !yield(e, nil) {
					return
				}
			}
			// The next event is checked against the stored hash, even if this event is broken.
			head.Revision = r.Revision
			_, head.Hash, _ = domain.SplitHash(r.RawMetadata)
		}
	}
}

// report tells the read models to quarantine a stream if err says that its history is
// inconsistent.
func (s *server) report(err error) {
	if broken, ok := errors.AsType[*domain.HistoryError](err); ok {
		s.Views.Quarantine(broken)
	}
}
