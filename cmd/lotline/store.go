package main

import (
	"context"
	"errors"
	"fmt"
)

type storeCmd struct{}

// Run serves the embedded store until ctx ends.
func (storeCmd) Run(ctx context.Context, s *settings, to output) (err error) {
	log, flush := newLogger(s.LogFormat, to.err)
	defer func() { err = errors.Join(err, flush()) }()
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	store, err := startEmbedded(ctx, s, dir, log)
	if err != nil {
		return err
	}
	fmt.Fprintf(to.out, "The event store is listening on %s\n", dir.file(socketFile))
	store.printAddress(to.out)
	select {
	case <-ctx.Done():
	case err = <-store.failed:
	}
	return errors.Join(err, store.Close())
}
