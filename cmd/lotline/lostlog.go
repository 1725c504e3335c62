package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore/embedded"
	"github.com/lotline/lotline/projections"
)

// remedy tells the operator what to do when the log lacks events that this node has
// seen.
const remedy = "put the whole log back, or start the engine once with lotline serve --restored when an older or another log is meant"

// restoreDeclared is logged by a start with --restored, and /readyz reports it.
const restoreDeclared = "a restore was declared for this start"

// checkLogFile returns an error if the log file is missing from a data directory that
// had one, unless a restore was declared. A first start creates the log before the
// master key and the read models, so a first start that crashed can be repeated.
func (d *dataDir) checkLogFile(restored bool) error {
	path := d.file(eventsFile)
	if restored {
		return embedded.Forget(path)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return nil // the file exists, or the store will report why it cannot be read
	}
	for _, name := range []string{masterKeyFile, viewsFile} {
		if _, err := os.Lstat(d.file(name)); err == nil {
			return badConfig("event store: %s is missing and %s is there, so this data directory had a log: %s", path, name, remedy)
		}
	}
	return nil
}

// readMark reads from views.db which event is the newest that this node has seen.
func (d *dataDir) readMark(logger zerolog.Logger) (projections.Mark, error) {
	m, err := projections.ReadMark(d.file(viewsFile))
	if errors.Is(err, projections.ErrMarkUnreadable) {
		logger.Warn().Err(err).Msg("cannot check whether the log holds all events that this node has seen")
		return projections.Mark{}, nil
	}
	if err != nil {
		return projections.Mark{}, badConfig("read models: %w", err)
	}
	return m, nil
}

// checkMark checks that the log holds the newest event that this node has seen, and
// returns an error if it does not. After a declared restore there is no such error:
// checkMark then puts the read models aside unless the log holds that event.
func (l *log) checkMark(ctx context.Context, s *settings, dir *dataDir, logger zerolog.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, reachTimeout)
	defer cancel()
	m, err := dir.readMark(logger)
	if err != nil {
		return err
	}
	lost := ""
	if m.Log != "" {
		if lost, err = l.missing(ctx, m); err != nil {
			return fmt.Errorf("event store: %w", err)
		}
	}
	if lost != "" && !s.restored {
		if l.embedded != nil {
			l.embedded.server.LeaveAsItIs()
		}
		return badConfig("event store: %s: %s", lost, remedy)
	}
	if lost == "" {
		l.mark = m
	}
	if !s.restored {
		return nil
	}
	l.restored = errors.New(restoreDeclared)
	if lost != "" {
		l.restored = fmt.Errorf("%s: %s", restoreDeclared, lost)
	}
	logger.Warn().Str("lost", lost).Msg(restoreDeclared)
	if l.mark.Log != "" {
		return nil
	}
	// The read models may come from another log.
	if err := projections.PutAside(dir.file(viewsFile)); err != nil {
		return badConfig("read models: %w", err)
	}
	return nil
}

// missing describes what the node has seen and the log lacks. It returns "" if the log
// lacks nothing.
func (l *log) missing(ctx context.Context, m projections.Mark) (string, error) {
	begun, err := l.event(ctx, domain.SealStream, 0)
	if err != nil {
		return "", err
	}
	seen := "this node has seen the log " + m.Log
	if m.Position != (domain.Position{}) {
		seen += fmt.Sprintf(" up to position %d", m.Position.Commit)
	}
	if !m.At.IsZero() {
		seen += ", at " + m.At.UTC().Format(time.RFC3339Nano)
	}
	if begun != nil && logID(begun) != m.Log {
		return fmt.Sprintf("%s, and the store holds another log, %s", seen, logID(begun)), nil
	}
	// If the newest event is there but the beginning cannot be read, the log is damaged
	// and not replaced by another one. The check of the master key reports the damage.
	if held, err := l.holds(ctx, m); err != nil || held {
		return "", err
	}
	if begun == nil {
		return seen + ", and the store holds no log", nil
	}
	head, err := l.Head(ctx)
	switch {
	case err != nil:
		return "", err
	case m.Stream != "":
		return fmt.Sprintf("%s, and the log, which ends at position %d, does not hold its last event there, %s, revision %d of %s",
			seen, head.Commit, uuid.UUID(m.ID), m.Revision, m.Stream), nil
	case head.Before(m.Position):
		return fmt.Sprintf("%s, and it ends at position %d", seen, head.Commit), nil
	}
	return "", nil
}

// holds reports whether the log holds the newest event that the node has seen. It
// looks into the event's stream and, if that was deleted or truncated, at the event's
// position.
func (l *log) holds(ctx context.Context, m projections.Mark) (bool, error) {
	if m.Stream == "" {
		return false, nil
	}
	if e, err := l.event(ctx, m.Stream, m.Revision); err != nil || e != nil && e.ID == m.ID {
		return err == nil, err
	}
	if m.Position == (domain.Position{}) {
		return false, nil
	}
	e, err := l.At(ctx, m.Position)
	return err == nil && e != nil && e.ID == m.ID, err
}

// event returns the event of a stream at a revision, or nil if there is none.
func (l *log) event(ctx context.Context, stream string, revision domain.Revision) (*domain.Recorded, error) {
	for r, err := range l.Read(ctx, stream, revision-1) {
		if _, cut := errors.AsType[*domain.HistoryError](err); cut {
			break
		}
		if err != nil {
			return nil, err
		}
		if r.Revision != revision {
			break
		}
		return r, nil
	}
	return nil, nil
}

// logID returns the id of a log: the id of its first event.
func logID(first *domain.Recorded) string { return uuid.UUID(first.ID).String() }

// firstMark returns a mark at the first event of the log, for a node that has seen no
// other event of it.
func firstMark(id string) (projections.Mark, error) {
	first, err := uuid.Parse(id)
	return projections.Mark{Log: id, Stream: domain.SealStream, ID: first}, err
}

// acknowledgingLog calls onAppend after each append that the log has acknowledged.
type acknowledgingLog struct {
	commands.Log
	onAppend func(stream string, revision domain.Revision, id [16]byte, p domain.Position, at time.Time)
}

func (l acknowledgingLog) Append(ctx context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	after, p, err := l.Log.Append(ctx, stream, head, events)
	if err == nil {
		l.onAppend(stream, after.Revision, events[len(events)-1].ID, p, clock())
	}
	return after, p, err
}
