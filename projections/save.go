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

// Run writes the changed states to the file until ctx ends, and then a last time. It writes
// once a second, or when 20,000 states have changed. A write that fails is logged and
// repeated. Run returns the error of the last write.
func (v *Views) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	backlogFull := v.backlogFull
	changed := map[*streamSlot]*state{}
	for {
		last := false
		select {
		case <-tick.C:
		case <-backlogFull:
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
			backlogFull = v.backlogFull
			continue
		}
		// After a failure, a full backlog does not cause a write before the next second.
		backlogFull = nil
		v.log.Error().Err(err).Int("rows", len(changed)).Msg("views were not written")
	}
}

// WriteFailures returns how many writes of Run have failed.
func (v *Views) WriteFailures() int64 { return v.writeFailures.Load() }

// write adds to changed the states that have changed since the last call, and writes all of
// changed with the position. It empties changed when it succeeds.
func (v *Views) write(changed map[*streamSlot]*state) error {
	v.mu.Lock()
	fresh, position := v.dirty, v.position
	v.dirty = map[*streamSlot]*state{}
	v.mu.Unlock()
	maps.Copy(changed, fresh)
	// The mark is written first, so that the file never holds an event after the mark.
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

// write writes the changed states and the position in one transaction.
func (f *file) write(changed map[*streamSlot]*state, position domain.Position) error {
	tx, err := f.conn.BeginImmediate()
	if err != nil {
		return err
	}
	if err = f.writeAll(changed, position); err == nil {
		err = tx.Commit()
	}
	// SQLite has ended the transaction already after some errors.
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
