package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/projections"
)

// log is the event log that the settings name, with what stands behind it.
type log struct {
	*eventstore.Log
	id       string          // tells this log from every other
	head     domain.Position // where it ended at the start
	clock    *walltime.Clock
	keys     *eventstore.Keyring
	embedded *embeddedStore   // nil when another process runs the store
	remote   bool             // a server is named, which has a clock of its own
	dir      *dataDir         // locked for the log alone, or nil
	seen     projections.Mark // what views.db says that the node has seen, and the log holds
	restored error            // what the declared restore has lost; nil when none was declared
}

// reachTimeout is how long a start waits for the event store.
const reachTimeout = 30 * time.Second

// openLog opens the log: on the server that is named, or on the embedded store
// of the data directory, which it starts. It refuses to with a clock that is wrong.
func openLog(ctx context.Context, s *settings, dir *dataDir, logger zerolog.Logger) (*log, error) {
	return openLogWith(ctx, s, dir, logger, walltime.New(clock), requireRightClock)
}

// openLogWhen opens the log likewise, but deals with the clock as await does. Nothing
// is written before the clock is right.
func openLogWith(ctx context.Context, s *settings, dir *dataDir, logger zerolog.Logger, c *walltime.Clock, await clockPolicy) (*log, error) {
	if err := await(ctx, c); err != nil {
		return nil, err
	}
	key, made, err := masterKey(s, dir)
	if err != nil {
		return nil, err
	}
	l := &log{clock: c}
	if s.EventStore == "" {
		if l.embedded, err = startEmbedded(ctx, s, dir, logger); err != nil {
			return nil, err
		}
	}
	if err = l.connect(s, dir.file(socketFile), key); err == nil {
		// A log that is there in the place of another one is not written to, not even
		// to compare clocks.
		err = l.checkMark(ctx, s, dir, logger)
	}
	if err == nil {
		err = l.compareClocks(ctx, await)
	}
	if err == nil && made {
		err = l.adopt(ctx, dir, key)
	}
	if err == nil {
		err = l.check(ctx)
	}
	if made && errors.Is(err, eventstore.ErrMasterKey) {
		// Another node was first to give the log a key; ours is of no use.
		err = errors.Join(err, os.Remove(dir.file(masterKeyFile)))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// failed has why the embedded store ended, if it did. It is nil when the store
// runs elsewhere.
func (l *log) failed() <-chan error {
	if l.embedded == nil {
		return nil
	}
	return l.embedded.failed
}

// connect reaches the server that is named, or the embedded one by its socket.
func (l *log) connect(s *settings, socket string, key []byte) (err error) {
	if l.keys, err = eventstore.NewKeyring(key); err != nil {
		return badConfig("%w", err)
	}
	if s.EventStore == "" {
		l.Log, err = eventstore.ConnectSocket(socket, l.keys)
		return err
	}
	if l.Log, err = eventstore.Connect(s.EventStore, l.keys); err != nil {
		return badConfig("LOTLINE_EVENTSTORE: %w", err)
	}
	l.remote = true
	return nil
}

// compareClocks compares the clock with that of a server, and deals with a wrong one
// as await does. The embedded store has the same clock.
func (l *log) compareClocks(ctx context.Context, await clockPolicy) error {
	if !l.remote {
		return nil
	}
	reach, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if _, err := l.Head(reach); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	l.clock.Compare(l.Log, elapsed)
	return await(ctx, l.clock)
}

// adopt saves a new master key, unless the log has one already.
func (l *log) adopt(ctx context.Context, dir *dataDir, key []byte) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	sealed, err := l.Sealed(ctx)
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	if sealed {
		return badConfig("the log is sealed under a master key that is neither in LOTLINE_MASTER_KEY nor in %s", dir.file(masterKeyFile))
	}
	return saveMasterKey(dir, key)
}

// check finds out whether the store answers and the master key is the log's.
func (l *log) check(ctx context.Context) (err error) {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	now, err := l.clock.Now(ctx)
	if err != nil {
		return err
	}
	l.id, err = l.CheckMasterKey(ctx, now)
	if errors.Is(err, eventstore.ErrMasterKey) {
		return badConfig("master key: %w; set LOTLINE_MASTER_KEY to the one that the other nodes have", err)
	}
	if broken, ok := errors.AsType[*domain.HistoryError](err); ok {
		return fmt.Errorf("event store: nothing can be served, because the check value of the master key is damaged: %w; start on a backup", broken)
	}
	if err == nil {
		l.head, err = l.Head(ctx)
	}
	if err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	return nil
}

func (l *log) Close() error {
	var err error
	if l.Log != nil {
		err = l.Log.Close()
	}
	if l.embedded != nil {
		err = errors.Join(err, l.embedded.Close())
	}
	if l.dir != nil {
		err = errors.Join(err, l.dir.Close())
	}
	return err
}
