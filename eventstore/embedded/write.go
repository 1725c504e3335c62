package embedded

import (
	"errors"
	"fmt"

	"github.com/google/uuid"
)

// expectation is the revision that a writer expects a stream to have, or one of the
// values below. The numbers are those of a real server's errors.
type expectation int64

const (
	expectNoStream     expectation = -1
	expectAny          expectation = -2
	expectStreamExists expectation = -4
)

// operation is what a write does to its stream.
type operation int

const (
	appendEvents operation = iota
	softDelete
	tombstone
)

// proposed is an event to be appended.
type proposed struct {
	id       uuid.UUID
	kind     string
	json     bool
	data     []byte
	metadata []byte
}

// size is what an event counts against the limits on appends and transactions.
func (p *proposed) size() int {
	return len(p.data) + len(p.metadata) + 2*len(p.kind)
}

// receipt is the result of a successful write.
type receipt struct {
	revision int64 // of the stream's newest event; noRevision if it has none
	position int64 // 0 when nothing was appended
}

// revisionError refuses a write because the stream does not have the expected revision.
// Nothing was written.
type revisionError struct {
	stream   string
	expected expectation
	actual   int64
}

func (e *revisionError) Error() string {
	return fmt.Sprintf("stream %s is at revision %d, expected %d", e.stream, e.actual, e.expected)
}

// deletedError refuses a call because its stream was tombstoned, or an append that
// expects the stream to exist because the stream is deleted.
type deletedError struct{ stream string }

func (e *deletedError) Error() string {
	return fmt.Sprintf("stream %s is deleted", e.stream)
}

// errNoStream says that a stream was never written to, or was deleted.
var errNoStream = errors.New("stream not found")

// errFull says that the disk has no room for a write.
//
// It is certain that nothing was written. SQLite reports a full disk if it cannot write a
// frame to the write-ahead log or cannot enlarge the database. Both happen before the
// transaction is committed. A transaction is committed when its last frame, which is
// marked as the commit, is in the log with a checksum that continues those of the frames
// before it. With a full disk that frame failed or was never begun. The frames of the
// failed attempt lie after the last commit. No reader looks there, neither in this
// process nor in one that recovers the log after a crash, and the next transaction
// overwrites them.
//
// On some disks SQLite writes padding after the commit frame, and the padding could be
// what failed. It does so only if it cannot assume that a write leaves neighbouring bytes
// alone. The file layer in use says that it can.
//
// The sync after the commit frame has an error of its own, and so has the update of the
// shared memory after that. Those errors leave the outcome unknown.
var errFull = errors.New("the disk is full, nothing was written")

// write is a call that waits for its transaction. The fields after done belong to the
// committer until done is closed.
type write struct {
	operation operation
	stream    string
	expected  expectation
	events    []proposed
	done      chan struct{}

	receipt receipt
	err     error
}

func (w *write) size() int {
	size := len(w.stream)
	for i := range w.events {
		size += w.events[i].size()
	}
	return size
}
