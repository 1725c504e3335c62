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

// log is the event log that the settings name, with the server and the clock that it
// depends on.
type log struct {
	*eventstore.Log
	id       string          // the id of the log's first event
	head     domain.Position // where the log ended at the start
	clock    *walltime.Clock
	keys     *eventstore.Keyring
	embedded *embeddedStore   // nil if another process runs the store
	remote   bool             // a server is configured; it has a clock of its own
	dir      *dataDir         // unlocked by Close; nil if the caller unlocks it
	mark     projections.Mark // the newest event that this node has seen, if the log holds it
	restored error            // set by a declared restore; says what the log has lost
}

// reachTimeout is how long a start waits for the event store to answer.
const reachTimeout = 30 * time.Second

// openLog opens the log: on the configured server or, without one, on the embedded
// store of the data directory, which it starts. It returns an error if the clock is
// wrong.
func openLog(ctx context.Context, s *settings, dir *dataDir, logger zerolog.Logger) (*log, error) {
	return openLogWith(ctx, s, dir, logger, walltime.New(clock), requireRightClock)
}

// openLogWith is openLog with another policy for a wrong clock. It writes nothing
// before the clock is right.
func openLogWith(ctx context.Context, s *settings, dir *dataDir, logger zerolog.Logger, c *walltime.Clock, policy clockPolicy) (*log, error) {
	if err := policy(ctx, c); err != nil {
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
		// This comes before the first write, even the one that compares clocks: if the log
		// was replaced by another one, that must stay as it is.
		err = l.checkMark(ctx, s, dir, logger)
	}
	if err == nil {
		err = l.compareClocks(ctx, policy)
	}
	if err == nil && made {
		err = l.saveNewMasterKey(ctx, dir, key)
	}
	if err == nil {
		err = l.checkMasterKey(ctx)
	}
	if made && errors.Is(err, eventstore.ErrMasterKey) {
		// Another node has given the log a key first, so the new key is useless.
		err = errors.Join(err, os.Remove(dir.file(masterKeyFile)))
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// failed returns a channel that receives the error with which the embedded store
// ended. The channel is nil if another process runs the store.
func (l *log) failed() <-chan error {
	if l.embedded == nil {
		return nil
	}
	return l.embedded.failed
}

// connect connects to the configured server or, without one, to the embedded store
// through its socket.
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

// compareClocks compares the clock with the configured server's, and applies the policy
// to the result. The embedded store uses the same clock, so it is not compared.
func (l *log) compareClocks(ctx context.Context, policy clockPolicy) error {
	if !l.remote {
		return nil
	}
	reach, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	if _, err := l.Head(reach); err != nil {
		return fmt.Errorf("event store: %w", err)
	}
	l.clock.Compare(l.Log, elapsed)
	return policy(ctx, l.clock)
}

// saveNewMasterKey saves a new master key. It returns an error if the log has a key
// already.
func (l *log) saveNewMasterKey(ctx context.Context, dir *dataDir, key []byte) error {
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

// checkMasterKey checks that the store answers and that the log is sealed under this
// master key. It sets the log's id and head.
func (l *log) checkMasterKey(ctx context.Context) (err error) {
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
