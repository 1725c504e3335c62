package sink

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// lease is a node's copy of the newest event in the sink's stream.
type lease struct {
	head     domain.Head
	holder   string
	position domain.Position
	written  time.Time // when this node began to write it; zero if another node wrote it
	// unchangedSince is when this node last saw the lease change, or saw that nothing was
	// unsent.
	unchangedSince time.Time
}

// keptEvents is how many events of its stream a sink keeps visible. The program needs the
// newest only, the others are for operators.
const keptEvents = 100

func (s *Sink) holdsLease() bool { return s.lease.holder == s.node }

// mayTakeLease reports whether this node holds the lease or may take it.
func (s *Sink) mayTakeLease() bool {
	return s.lease.holder == "" || s.holdsLease() || s.now().Sub(s.lease.unchangedSince) >= takeOverAfter
}

// readLease reads the lease from the log.
func (s *Sink) readLease(ctx context.Context) error {
	r, err := s.log.Newest(ctx, s.stream)
	if err != nil || r == nil || r.Revision == s.lease.head.Revision {
		return err
	}
	e, ok := r.Event.(domain.Leased)
	_, hash, hashed := domain.SplitHash(r.RawMetadata)
	if !ok || !hashed {
		return fmt.Errorf("%s@%d is not a lease that this program can read", s.stream, r.Revision)
	}
	s.lease = lease{
		head: domain.Head{Revision: r.Revision, Hash: hash}, holder: e.Holder, position: e.Position, unchangedSince: s.now(),
	}
	s.markSent(e.Position)
	return nil
}

// keepLease makes sure that this node holds the lease for the next message. It takes the
// lease if this node does not hold it, and renews it after writeEvery.
func (s *Sink) keepLease(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.holdsLease() && s.now().Sub(s.lease.written) < writeEvery {
		return nil
	}
	s.waitToWrite(ctx, nil)
	if err := s.writeLease(ctx, s.node); err != nil {
		return err
	}
	if took := s.now().Sub(s.lease.written); took >= leaseLasts {
		return fmt.Errorf("%w: writing to %s took %s, longer than the lease lasts", domain.ErrUnavailable, s.stream, took)
	}
	return nil
}

// waitToWrite waits until this node may write the lease again. If news receives a value
// first, it returns at once and reports true. news may be nil.
func (s *Sink) waitToWrite(ctx context.Context, news <-chan struct{}) bool {
	return wait(ctx, news, s.lastWrite.Add(writeEvery).Sub(s.now()))
}

// writeLease records in the log which node holds the lease from now on, and up to where
// everything is sent. An empty holder gives the lease back.
func (s *Sink) writeLease(ctx context.Context, holder string) error {
	began := s.now()
	s.lastWrite = began
	if s.lease.head == domain.EmptyHead() {
		if err := s.log.KeepNewest(ctx, s.stream, keptEvents); err != nil {
			return err
		}
	}
	id := uuid.New()
	proposed, err := s.log.Encode(s.stream, domain.Leased{
		Stamp: domain.Stamp{At: domain.InstantOf(began)}, Holder: holder, Position: s.sent,
	}, domain.Metadata{
		CommandID: id.String(), CorrelationID: id.String(), CausationID: id.String(), Actor: domain.ActorClock,
	})
	if err != nil {
		return err
	}
	proposed.ID = id
	head, _, err := s.log.Append(ctx, s.stream, s.lease.head, []domain.Proposed{proposed})
	if err != nil {
		return err
	}
	if holder != s.lease.holder {
		s.logger.Info().Str("from", s.lease.holder).Str("to", holder).Msg("the sink's lease changes hands")
	}
	s.lease = lease{head: head, holder: holder, position: s.sent, written: began, unchangedSince: began}
	return nil
}
