package eventstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/domain"
)

// Backlog describes the events after a position in the log.
type Backlog struct {
	Events int
	Oldest time.Time // when the first of them was recorded; zero if there are none
}

// Backlog counts the events after a position in streams of some kinds. It reads no more
// than atMost events of the log, so the true count may be higher.
func (l *Log) Backlog(ctx context.Context, after domain.Position, kinds []domain.Kind, atMost int) (Backlog, error) {
	var from esdb.AllPosition = esdb.Start{}
	if after != (domain.Position{}) {
		from = esdb.Position{Commit: after.Commit, Prepare: after.Prepare}
	}
	options := esdb.ReadAllOptions{Direction: esdb.Forwards, From: from}
	var b Backlog
	err := l.client.do(ctx, func(ctx context.Context, c *esdb.Client) error {
		// The read begins with the event at the position itself.
		read, err := c.ReadAll(ctx, options, uint64(atMost)+1)
		if err != nil {
			return err
		}
		defer read.Close()
		for {
			resolved, err := read.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			e := resolved.OriginalEvent()
			at := domain.Position{Commit: e.Position.Commit, Prepare: e.Position.Prepare}
			if !after.Before(at) || !slices.Contains(kinds, domain.StreamKind(e.StreamID)) {
				continue
			}
			if b.Events++; b.Events == 1 {
				b.Oldest = e.CreatedDate
			}
		}
	})
	if err != nil {
		return Backlog{}, fmt.Errorf("count the events after position %d: %w: %w", after.Commit, domain.ErrUnavailable, err)
	}
	return b, nil
}
