package embedded

import "errors"

// check compares the expected revision with the stream's. If they differ, the refusal is
// in w.err. known says that w repeats an append whose events are in the stream already.
// The receipt of that append is then in w.receipt.
func (c *committer) check(w *write, h *head) (known bool, err error) {
	gone, err := c.isTombstoned(h)
	if err != nil {
		return false, err
	}
	if gone {
		w.err = &deletedError{stream: w.stream}
		return false, nil
	}
	refusal := &revisionError{stream: w.stream, expected: w.expected, actual: h.last}
	switch {
	case int64(w.expected) == h.last:
		return false, nil
	case w.expected == expectAny:
		return c.isRepeat(w, h, refusal), nil
	case w.expected == expectStreamExists && h.limits.before == deletedBefore:
		w.err = &deletedError{stream: w.stream}
		return false, nil
	case w.expected == expectStreamExists:
		exists := h.last != noRevision
		if !exists {
			// A stream with metadata counts as existing.
			metadata, err := c.head(metadataPrefix + w.stream)
			if err != nil {
				return false, err
			}
			exists = metadata.last != noRevision
		}
		if !exists {
			w.err = refusal
			return false, nil
		}
		return c.isRepeat(w, h, refusal), nil
	case int64(w.expected) > h.last || w.operation != appendEvents || len(w.events) == 0:
		w.err = refusal
		return false, nil
	}
	matched, position, err := c.countMatching(h, int64(w.expected), w.events)
	switch {
	case err != nil:
		return false, err
	case matched == len(w.events):
		w.receipt = receipt{revision: int64(w.expected) + int64(matched), position: position}
		return true, nil
	case matched == 0 && w.expected == expectNoStream && h.limits.before == deletedBefore:
		return false, nil
	}
	w.err = refusal
	return false, nil
}

// isTombstoned reports whether a stream was tombstoned. A metadata stream counts as
// tombstoned if the stream that it describes was.
func (c *committer) isTombstoned(h *head) (bool, error) {
	if name, isMetadata := describedStream(h.name); isMetadata {
		subject, err := c.head(name)
		return err == nil && subject.last == tombstoneRevision, err
	}
	return h.last == tombstoneRevision, nil
}

// isRepeat reports whether w's events are among the recent ones, as one append. Its
// receipt is then in w.receipt. If only some of them are, the refusal is in w.err.
func (c *committer) isRepeat(w *write, h *head, refusal *revisionError) bool {
	if len(w.events) == 0 {
		return false
	}
	first, found := c.recent.places[w.events[0].id]
	if !found || first.stream != h.id {
		return false
	}
	last := first
	for i := range w.events {
		at, found := c.recent.places[w.events[i].id]
		if !found || at.stream != h.id || at.revision != first.revision+int64(i) {
			w.err = refusal
			return false
		}
		last = at
	}
	w.receipt = receipt{revision: last.revision, position: last.position}
	return true
}

// countMatching returns how many of events follow a revision in the stream, and the
// position of the last of them.
func (c *committer) countMatching(h *head, after int64, events []proposed) (matched int, position int64, err error) {
	for i, value := range []int64{h.id, after, int64(len(events))} {
		if err := c.selectIDs.BindInt64(i+1, value); err != nil {
			return 0, 0, err
		}
	}
	for c.selectIDs.Step() && string(c.selectIDs.ColumnRawBlob(0)) == string(events[matched].id[:]) {
		position = c.selectIDs.ColumnInt64(1)
		matched++
	}
	return matched, position, errors.Join(c.selectIDs.Err(), c.selectIDs.Reset())
}
