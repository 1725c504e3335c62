package embedded

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

func (g *group) checkpointDue(now time.Time) bool {
	return g.finishedSince >= g.settings.MaxCheckpointCount ||
		g.finishedSince > 0 && g.finishedSince >= g.settings.MinCheckpointCount &&
			!now.Before(g.checkpointAt.Add(milliseconds(g.settings.CheckpointAfter)))
}

// checkpoint writes the group's progress. If that fails, it tries again after more
// messages: at worst those messages are delivered again after a restart.
func (g *group) checkpoint(now time.Time) {
	g.finishedSince, g.checkpointAt = 0, now
	place := g.source.firstUnfinished() - 1
	if place <= g.checkpointed {
		return
	}
	if err := g.writeCheckpoint(place); err != nil {
		g.log.Error().Err(err).Msg("persistent subscription cannot write its checkpoint")
	}
}

func (g *group) writeCheckpoint(place int64) error {
	err := g.store.appendOne(context.Background(), g.settings.checkpointStream(), proposed{
		kind: "$SubscriptionCheckpoint", json: true, data: strconv.AppendQuote(nil, g.settings.format(place)),
	})
	if err == nil {
		g.checkpointed = place
	}
	return err
}

// truncateParked hides the parked events below a revision.
func (g *group) truncateParked(before int64) {
	if before <= g.hiddenBelow {
		return
	}
	err := g.store.appendOne(context.Background(), metadataPrefix+g.settings.parkedStream(), proposed{
		kind: metadataType, json: true, data: fmt.Appendf(nil, `{"$tb":%d}`, before),
	})
	if err != nil {
		g.log.Error().Err(err).Msg("persistent subscription cannot mark parked events as replayed")
		return
	}
	g.hiddenBelow = before
}

// replay delivers the parked events below a revision again.
func (g *group) replay(ctx context.Context, stopAt int64) error {
	if g.failure != nil {
		return g.failure
	}
	h, err := g.store.state(ctx, g.settings.parkedStream())
	if err != nil {
		return err
	}
	return g.do(ctx, func() { g.replayEnd = max(g.replayEnd, min(stopAt, after(h.last))) })
}
