package domain

import (
	"encoding/binary"
	"errors"
)

// errSnapshot says that bytes are not a snapshot that AppendParticipants wrote.
var errSnapshot = errors.New("not a snapshot of participants")

// snapshotReader reads the bytes that AppendParticipants wrote. After their end it
// returns zeros and sets short.
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
