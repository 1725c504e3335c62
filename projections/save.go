package projections

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/lotline/lotline/domain"
)

// Run writes what has changed to the file, about once a second and when much has,
// until ctx ends, and then a last time. What cannot be written is logged and
// tried again; the error that Run returns is that of the last time.
func (v *Views) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	crowded := v.backlogFull
	changed := map[*streamSlot]*state{}
	for {
		last := false
		select {
		case <-tick.C:
		case <-crowded:
		case <-ctx.Done():
			last = true
		}
		err := v.write(changed)
		if err != nil {
			v.writeFailures.Add(1)
		}
		if last {
			v.snapshotAll()
			return err
		}
		if err == nil {
			crowded = v.backlogFull
			continue
		}
		// What failed once is not tried again with every crowd.
		crowded = nil
		v.log.Error().Err(err).Int("rows", len(changed)).Msg("views were not written")
	}
}

// WriteFailures is how often Run could not write.
func (v *Views) WriteFailures() int64 { return v.writeFailures.Load() }

// write adds to changed what has changed since the last time and writes all of it,
// with the position that it belongs to. It empties changed when it succeeds.
func (v *Views) write(changed map[*streamSlot]*state) error {
	v.mu.Lock()
	fresh, position := v.dirty, v.position
	v.dirty = map[*streamSlot]*state{}
	v.mu.Unlock()
	maps.Copy(changed, fresh)
	// The mark goes first, so that the file never holds an event that the mark does
	// not cover.
	if err := v.saveSeen(); err != nil {
		return err
	}
	if err := v.file.write(changed, position); err != nil {
		return fmt.Errorf("write views: %w", err)
	}
	v.snapshot(slices.Collect(maps.Values(changed)), snapshotEvery)
	clear(changed)
	return nil
}

// write makes the changes and the position one transaction.
func (f *file) write(changed map[*streamSlot]*state, position domain.Position) error {
	tx, err := f.conn.BeginImmediate()
	if err != nil {
		return err
	}
	if err = f.writeAll(changed, position); err == nil {
		err = tx.Commit()
	}
	// Some errors have ended the transaction already.
	if err != nil && !f.conn.GetAutocommit() {
		err = errors.Join(err, tx.Rollback())
	}
	return err
}

func (f *file) writeAll(changed map[*streamSlot]*state, position domain.Position) error {
	for _, s := range changed {
		if err := f.writeState(s); err != nil {
			return fmt.Errorf("%s: %w", s.stream(), err)
		}
	}
	return exec(f.put["position"], int64(position.Commit), int64(position.Prepare), f.origin.ID, f.program)
}

func (f *file) writeState(s *state) error {
	t := table(s.stream())
	if b := s.broken; b != nil {
		if err := exec(f.drop[t], b.Stream); err != nil {
			return err
		}
		return exec(f.put["quarantine"], b.Stream, string(s.owner), string(s.id), int64(b.Revision), b.Type, b.Rule, b.Detail)
	}
	h := s.history
	encoded, err := encode(h)
	if err != nil {
		return err
	}
	return exec(f.put[t], h.Stream, int64(h.Head.Revision), h.Head.Hash, int64(h.Changed), string(encoded))
}
