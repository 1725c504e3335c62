package embedded

import (
	"errors"
	"strconv"
	"strings"
)

// linkType is the type of links. The data of a link is "revision@stream" and refers to
// the event at that revision of that stream.
const linkType = "$>"

// resolved is an event that was read. If it is a link, and the reader asked to resolve
// links, it has the link's target as well.
type resolved struct {
	recorded           // the event that was read
	link     bool      // recorded is a link whose target was looked up
	target   *recorded // of the link; nil if readers cannot see such an event
}

// pair returns what the protocol calls "event", which is the target if e is a link, and
// the link through which it was reached. Either can be nil, but not both.
func (e *resolved) pair() (event, link *recorded) {
	if e.link {
		return e.target, &e.recorded
	}
	return &e.recorded, nil
}

// size returns how many bytes of contents the event and its target hold.
func (e *resolved) size() int {
	size := len(e.data) + len(e.metadata)
	if e.target != nil {
		size += len(e.target.data) + len(e.target.metadata)
	}
	return size
}

// resolver looks up the target of an event if the event is a link.
type resolver func(*resolved) error

// resolver returns a resolver that looks up targets if resolve is true, and one that does
// nothing otherwise.
func (r *reader) resolver(resolve bool, now int64) resolver {
	if !resolve {
		return func(*resolved) error { return nil }
	}
	return func(e *resolved) error { return r.resolve(e, now) }
}

// resolve looks up the target of e if e is a link. As on a real server:
//   - the target is found only if a reader of its stream can see it;
//   - a link to a link leads to the second link, not further;
//   - an event whose data does not begin with a revision is not a link.
func (r *reader) resolve(e *resolved, now int64) error {
	if e.kind != linkType {
		return nil
	}
	// Stream names may contain an @ as well.
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
	if hasNoEvents(h.unreadable()) || revision < h.firstVisible() {
		return nil
	}
	for i, value := range []int64{h.id, revision, h.oldestVisible(now)} {
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
