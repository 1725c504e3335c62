package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/projections"
)

// operator is the caller of all admin commands.
var operator = commands.Caller{Actor: domain.ActorOperator}

// adminClient administers organizations, API keys and signing keys by commands to the
// log. Engines that run at the same time read the events from the log.
type adminClient struct {
	log     commands.Log
	handler *commands.Handler
	views   interface {
		Organizations() []*domain.Organization
		Quarantined() []domain.HistoryError
		SigningKeys() (*domain.SigningKeys, error)
	}
}

// fieldsOf returns request fields with these values. It leaves out empty ones.
func fieldsOf(values map[string]string) domain.Fields {
	fields := domain.Fields{}
	for name, value := range values {
		if value == "" {
			continue
		}
		raw, err := json.Marshal(value)
		if err != nil {
			panic("a string always encodes: " + err.Error())
		}
		fields[name] = raw
	}
	return fields
}

// withAdminClient opens the log that the settings name, runs f, and closes the log. It
// uses the configured server; without one, the socket of the engine that has locked
// the data directory; and if there is no such engine, the directory's own store.
func withAdminClient(ctx context.Context, s *settings, f func(*adminClient) error) (err error) {
	l, err := adminLog(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	scratch, err := os.MkdirTemp("", "lotline-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	views, err := projections.Open(filepath.Join(scratch, viewsFile), projections.Origin{ID: l.id, Log: l, Seen: l.mark}, l.keys, zerolog.Nop())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, views.Close()) }()
	tail := eventstore.NewTail(l.Log, []domain.Kind{domain.KindOrganization, domain.KindSigning}, l.head, zerolog.Nop(), views)
	defer start(tail.Run)()
	select {
	case <-tail.CaughtUp():
	case <-ctx.Done():
		return ctx.Err()
	}
	acknowledged := acknowledgingLog{l, views.Saw}
	handler := commands.NewHandler(acknowledged, nil, clock)
	handler.UseClock(l.clock)
	err = f(&adminClient{acknowledged, handler, views})
	if l.dir != nil && l.mark.Log != "" {
		err = errors.Join(err, projections.SaveMark(l.dir.file(viewsFile), views.Seen()))
	}
	return err
}

// adminLog opens the log for admin commands. If this process has to run the embedded
// store itself, Close also unlocks the data directory.
func adminLog(ctx context.Context, s *settings) (*log, error) {
	dir, err := openDataDir(s.DataDir)
	if err == nil {
		l, err := openLog(ctx, s, dir, zerolog.Nop())
		if err != nil {
			return nil, errors.Join(err, dir.Close())
		}
		l.dir = dir
		return l, nil
	}
	if !errors.Is(err, errLocked) {
		return nil, err
	}
	path, err := filepath.Abs(s.DataDir)
	if err != nil {
		return nil, badConfig("data directory: %w", err)
	}
	theirs := &dataDir{path: path}
	key, made, err := masterKey(s, theirs)
	if err != nil {
		return nil, err
	}
	if made {
		return nil, badConfig("there is no master key in %s yet, and another process is using it: set LOTLINE_MASTER_KEY", path)
	}
	l := &log{clock: walltime.New(clock)}
	if err := requireRightClock(ctx, l.clock); err != nil {
		return nil, err
	}
	if err = l.connect(s, theirs.file(socketFile), key); err == nil {
		err = l.compareClocks(ctx, requireRightClock)
	}
	if err == nil {
		err = l.checkMasterKey(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// refusalToConfigError turns a refusal by the rules into a configError, because the
// arguments are wrong. It returns other errors unchanged.
func refusalToConfigError(err error) error {
	if _, ok := errors.AsType[*domain.Error](err); ok {
		return configError{err}
	}
	return err
}

// withExistingData is withAdminClient for commands that need existing organizations.
// It returns an error if the data directory does not exist, instead of creating it.
func withExistingData(ctx context.Context, s *settings, f func(*adminClient) error) error {
	if _, err := os.Stat(s.DataDir); err != nil {
		return badConfig("data directory: %w", err)
	}
	return withAdminClient(ctx, s, f)
}
