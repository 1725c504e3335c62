package embedded

import (
	"errors"
	"strconv"
	"strings"
)

// linkType is the type of a link: an event whose data is "revision@stream" and
// stands for the event at that revision of that stream.
const linkType = "$>"

// resolved is an event that was read. If it is a link, and the reader asked for
// links to be resolved, it has the link's target as well.
type resolved struct {
	recorded           // the event in the place that was read
	link     bool      // whether recorded is a link that was looked up
	target   *recorded // the event that the link points to, nil if readers cannot see one there
}

// pair returns the event that the protocol calls "event", which is the target of a
// link, and the link by which it was reached. Either can be nil, but not both.
func (e *resolved) pair() (event, link *recorded) {
	if e.link {
		return e.target, &e.recorded
	}
	return &e.recorded, nil
}

// size is how many bytes of contents the event holds, and its target with it.
func (e *resolved) size() int {
	size := len(e.data) + len(e.metadata)
	if e.target != nil {
		size += len(e.target.data) + len(e.target.metadata)
	}
	return size
}

// resolver completes an event that was read.
type resolver func(*resolved) error

// resolver looks up the targets of links if resolve is true. Otherwise links stay
// as they are.
func (r *reader) resolver(resolve bool, now int64) resolver {
	if !resolve {
		return func(*resolved) error { return nil }
	}
	return func(e *resolved) error { return r.resolve(e, now) }
}

// resolve looks up the target of e if e is a link. As on a real server, the target
// is found only if a reader of its stream would be shown it, the target of a link
// to a link is the second link, and an event whose data does not begin with a
// revision is not taken for a link.
func (r *reader) resolve(e *resolved, now int64) error {
	if e.kind != linkType {
		return nil
	}
	// Names of streams may contain an @ as well.
	number, stream, _ := strings.Cut(string(e.data), "@")
	revision, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	e.link = true
	h, err := lookUp(r.stream, stream)
	if err != nil {
		return err
	}
	if isGone(h.unreadable()) || revision < h.firstShown() {
		return nil
	}
	for i, value := range []int64{h.id, revision, h.oldestShown(now)} {
		if err := r.target.BindInt64(i+1, value); err != nil {
			return err
		}
	}
	if r.target.Step() {
		target := r.copyEvent(r.target, stream)
		e.target = &target
	}
	return errors.Join(r.target.Err(), r.target.Reset())
}
