package domain

import (
	"encoding/binary"
	"fmt"
)

// queueSnapshotVersion is raised when the format of the bytes changes.
const queueSnapshotVersion = 1

// AppendParticipants implements Distribution.
func (q *Queue) AppendParticipants(dst []byte) []byte {
	dst = append(dst, queueSnapshotVersion)
	dst = binary.AppendVarint(dst, q.line.count)
	for e := range q.line.all() {
		dst = binary.AppendUvarint(dst, uint64(len(e.consumer)))
		dst = append(dst, e.consumer...)
		dst = append(dst, byte(e.state.status), byte(e.state.reason))
		dst = binary.AppendVarint(dst, int64(e.state.enteredAt))
		s := e.state.session
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

// RestoreParticipants implements Distribution.
func (q *Queue) RestoreParticipants(b []byte) error {
	r := snapshotReader{left: b}
	if version := r.octet(); version != queueSnapshotVersion {
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
		q.line.add(consumer, queueEntry{enteredAt: entered, status: StandingQueued})
		if status == StandingQueued {
			continue
		}
		e := *q.line.at(q.line.count)
		e.state = queueEntry{entered, begun, status, reason}
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
