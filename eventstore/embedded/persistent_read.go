package embedded

import (
	"context"
	"errors"
	"strings"
	"time"
)

// readPause is how long a group waits after a failed read. It does not grow: reads
// fail only while the file cannot be read at all.
const readPause = time.Second

// canRead reports whether there are events to read and consumers to read them for. The
// number and the size of the waiting messages are limited.
func (g *group) canRead(now time.Time) bool {
	return len(g.consumers) > 0 && !now.Before(g.readAgainAt) &&
		(g.mayHaveMore && g.hasRoom(&g.source) || g.parked.next < g.replayEnd && g.hasRoom(&g.parked))
}

func (g *group) hasRoom(l *lane) bool {
	return l.waiting.Len()+int(g.settings.ReadBatchSize) <= int(g.settings.HistoryBufferSize) && l.bytes < pageBytes
}

func (g *group) read(ctx context.Context) error {
	if g.parked.next < g.replayEnd && g.hasRoom(&g.parked) {
		return g.readParked(ctx)
	}
	var p page
	var err error
	if g.settings.ofAll() {
		p, err = g.store.readAll(ctx, g.source.next, false, g.settings.ResolveLinks, g.matching, int64(g.settings.ReadBatchSize), pageRows)
	} else {
		p, err = g.store.readStream(ctx, g.settings.Stream, g.source.next, false, g.settings.ResolveLinks, int64(g.settings.ReadBatchSize))
	}
	if hasNoEvents(err) {
		g.mayHaveMore = false
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range p.events {
		// Groups on the whole log skip these streams: each checkpoint of one group would
		// otherwise be a new event for all others, without end.
		name, _ := strings.CutPrefix(e.stream, metadataPrefix)
		if g.settings.ofAll() && strings.HasPrefix(name, groupStreamPrefix) {
			continue
		}
		g.track(&g.source, &e)
	}
	if p.considered > 0 {
		g.source.next = after(p.last)
	}
	g.mayHaveMore = !p.complete
	return nil
}

// readParked reads parked events that are to be replayed. They stay parked until they are
// finished.
func (g *group) readParked(ctx context.Context) error {
	count := min(int64(g.settings.ReadBatchSize), g.replayEnd-g.parked.next)
	p, err := g.store.readStream(ctx, g.settings.parkedStream(), g.parked.next, false, true, count)
	if err != nil && !hasNoEvents(err) {
		return err
	}
	for _, e := range p.events {
		// An event that was deleted in the meantime cannot be replayed.
		if e.target != nil {
			g.track(&g.parked, &e)
		}
	}
	if p.considered > 0 {
		g.parked.next = after(p.last)
	}
	if p.complete || hasNoEvents(err) {
		g.parked.next = max(g.parked.next, g.replayEnd)
	}
	return nil
}

// track makes a message of an event that was read. It does nothing if there is a message
// of the event already.
func (g *group) track(l *lane, e *resolved) {
	place := e.revision
	if l == &g.source && g.settings.ofAll() {
		place = e.position
	}
	if _, known := l.unfinished.Get(place); known {
		return
	}
	m := &message{delivery: delivery{resolved: e}, lane: l, place: place}
	l.unfinished.Set(place, m)
	l.addWaiting(m)
}

// hasNoEvents reports whether err says that a stream has no readable events. For a caller
// that waits for events this is not an error.
func hasNoEvents(err error) bool {
	_, deleted := errors.AsType[*deletedError](err)
	return deleted || errors.Is(err, errNoStream)
}
