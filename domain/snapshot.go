package domain

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// snapshotVersion is raised when the bytes come to mean something else.
const snapshotVersion = 1

// errSnapshot says that bytes are not what AppendParticipants wrote.
var errSnapshot = errors.New("not the participants of a queue")

// AppendParticipants appends everybody who ever entered, in a form that
// RestoreParticipants reads. It is for files that may be thrown away: the stream has
// all of it.
func (q *Queue) AppendParticipants(dst []byte) []byte {
	dst = append(dst, snapshotVersion)
	dst = binary.AppendVarint(dst, q.line.count)
	for e := range q.line.all() {
		dst = binary.AppendUvarint(dst, uint64(len(e.consumer)))
		dst = append(dst, e.consumer...)
		dst = append(dst, byte(e.status), byte(e.reason))
		dst = binary.AppendVarint(dst, int64(e.enteredAt))
		s := e.session
		if s == nil {
			dst = append(dst, 0)
			continue
		}
		dst = append(dst, 1)
		dst = binary.AppendVarint(dst, int64(s.admittedAt))
		dst = binary.AppendVarint(dst, int64(s.expiresAt))
		dst = binary.AppendVarint(dst, int64(s.endedAt))
		dst = append(dst, s.event[:]...)
	}
	return dst
}

// RestoreParticipants gives a queue that was restored from its JSON the participants
// that it had then. It fails when they do not fit each other.
func (q *Queue) RestoreParticipants(b []byte) error {
	r := snapshotReader{left: b}
	if version := r.octet(); version != snapshotVersion {
		return fmt.Errorf("%w: version %d", errSnapshot, version)
	}
	q.line, q.tickets = line{}, new(tickets)
	tally := Tally{}
	for count := r.number(); q.line.count < count; {
		consumer, status, reason, entered := r.text(), Standing(r.octet()), denial(r.octet()), Instant(r.number())
		var begun *session
		if r.octet() != 0 {
			begun = &session{admittedAt: Instant(r.number()), expiresAt: Instant(r.number()), endedAt: Instant(r.number())}
			copy(begun.event[:], r.take(len(begun.event)))
		}
		known := status > StandingNone && int(status) < len(standings) && int(reason) <= len(DenyReasons())
		if r.short || !known || status == StandingAdmitted && begun == nil {
			return errSnapshot
		}
		*tally.of(status)++
		q.line.add(consumer, entered)
		if status == StandingQueued {
			continue
		}
		e := *q.line.at(q.line.count)
		e.status, e.reason, e.session = status, reason, begun
		q.line.put(&e)
		if status == StandingAdmitted && begun.expiresAt != 0 {
			q.line.begin(begun.expiresAt, e.number)
		}
	}
	if len(r.left) > 0 || tally != q.Tally {
		return errSnapshot
	}
	return nil
}

// snapshotReader reads what AppendParticipants wrote. After the end of it, it gives
// zeros, and short.
type snapshotReader struct {
	left  []byte
	short bool
}

func (r *snapshotReader) take(n int) []byte {
	if n < 0 || n > len(r.left) {
		r.left, r.short = nil, true
		return nil
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

func (r *snapshotReader) octet() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *snapshotReader) number() int64 {
	v, n := binary.Varint(r.left)
	if r.take(n) == nil {
		r.short = true
		return 0
	}
	return v
}

func (r *snapshotReader) text() string {
	v, n := binary.Uvarint(r.left)
	if r.take(n) == nil || v > uint64(len(r.left)) {
		r.short = true
		return ""
	}
	return string(r.take(int(v)))
}
