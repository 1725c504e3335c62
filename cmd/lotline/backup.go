package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/lotline/lotline/eventstore/embedded"
)

type backupCmd struct {
	File string `arg:"" placeholder:"FILE" help:"The file to create. An existing file is not replaced."`
}

// Run copies the log of the data directory to a file, whether an engine is
// running on it or not.
func (c *backupCmd) Run(ctx context.Context, s *settings, to output) error {
	if s.EventStore != "" {
		return badConfig("LOTLINE_EVENTSTORE names another server: the log is there, and is backed up there")
	}
	dir, err := filepath.Abs(s.DataDir)
	if err != nil {
		return badConfig("data directory: %w", err)
	}
	contents, err := embedded.Backup(ctx, filepath.Join(dir, eventsFile), c.File)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return badConfig("%w", err)
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(to.out, "%s holds the log: %d events in %d streams, to position %d", c.File, contents.Events, contents.Streams, contents.Position)
	if !contents.Newest.IsZero() {
		fmt.Fprintf(to.out, ", recorded at %s", contents.Newest.UTC().Format(time.RFC3339Nano))
	}
	fmt.Fprintf(to.out, " (%d bytes)\n", contents.Bytes)
	key := filepath.Join(dir, masterKeyFile)
	if s.MasterKey != "" {
		key = "LOTLINE_MASTER_KEY"
	}
	_, err = fmt.Fprintf(to.out, "It does not hold the master key, without which the secrets in it are lost: keep %s as well, in another place\n", key)
	return err
}
