package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
)

const (
	// A transaction takes what is waiting, up to these bounds.
	batchWrites = 512
	batchBytes  = 4 << 20

	queuedWrites = 512
	cachedHeads  = 65_536
	recentEvents = 65_536
)

// expectation is the revision that a writer expects a stream to have, or one of
// the values below it. The numbers are the ones a real server uses in errors.
type expectation int64

const (
	expectNoStream     expectation = -1
	expectAny          expectation = -2
	expectStreamExists expectation = -4
)

type operation int

const (
	appendEvents operation = iota
	softDelete
	tombstone
)

// proposed is an event that is to be appended.
type proposed struct {
	id       uuid.UUID
	kind     string
	json     bool
	data     []byte
	metadata []byte
}

// size is what an event counts towards the limits on appends and batches.
func (p *proposed) size() int {
	return len(p.data) + len(p.metadata) + 2*len(p.kind)
}

// receipt says where an append ended.
type receipt struct {
	revision int64 // of the stream's newest event, noRevision when it has none
	position int64 // 0 when nothing was appended
}

// revisionError refuses a write because the stream is not where its writer
// expected it. Nothing was written.
type revisionError struct {
	stream   string
	expected expectation
	actual   int64
}

func (e *revisionError) Error() string {
	return fmt.Sprintf("stream %s is at revision %d, expected %d", e.stream, e.actual, e.expected)
}

// deletedError refuses a stream that was ended for good.
type deletedError struct{ stream string }

func (e *deletedError) Error() string {
	return fmt.Sprintf("stream %s is deleted", e.stream)
}

// errNoStream tells a reader that a stream has never been written to or was
// deleted.
var errNoStream = errors.New("stream not found")

// errFull says that there was no room for a write.
//
// It is certain that nothing was written. SQLite reports a full disk when it
// cannot write a frame of the write-ahead log or cannot enlarge the database,
// and both come before the transaction counts: it does from the moment on which
// its last frame, which is marked as the commit, is in the log with a checksum
// that continues those of the frames before it. That frame is the one that
// failed, or was not begun. What is left of the attempt in the log stands behind
// the last commit, where neither this process nor one that recovers the log after
// a crash looks, and is overwritten by the next transaction. (A commit frame is
// followed by padding, which could be what failed, only on disks of which SQLite
// does not assume that a write leaves the bytes beside it alone; the file layer
// in use says that it does.) The sync that follows the commit frame, and the
// shared memory that is told of it after that, have errors of their own, and
// those leave the outcome open.
var errFull = errors.New("the disk is full, nothing was written")

// write is one call waiting for its transaction. The fields below done belong to
// the committer until done is closed.
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

// committer is the only one that writes to the file. Taking all writes through
// one goroutine orders the log, lets a batch share one sync, and needs no lock on
// the heads.
type committer struct {
	store *store
	conn  *sqlite3.Conn
	queue chan *write
	done  chan struct{} // closed when run has ended

	selectStream  *sqlite3.Stmt
	insertStream  *sqlite3.Stmt
	updateStream  *sqlite3.Stmt
	insertEvent   *sqlite3.Stmt
	selectIDs     *sqlite3.Stmt
	selectNewest  *sqlite3.Stmt
	selectLogHead *sqlite3.Stmt
	begin         *sqlite3.Stmt
	end           *sqlite3.Stmt

	// The fields below are owned by run.

	heads    *headCache
	recent   *recentIDs
	position int64 // of the newest event
	created  int64 // of the newest event
	// known is false when position and created have to be read from the file.
	known bool
	// What the present batch has touched, in case it has to be taken back.
	touched []*head
	added   []uuid.UUID
	written []recorded
}

func openCommitter(s *store) (_ *committer, err error) {
	conn, err := connect(s.uri)
	if err != nil {
		return nil, err
	}
	c := &committer{
		store:  s,
		conn:   conn,
		queue:  make(chan *write, queuedWrites),
		done:   make(chan struct{}),
		heads:  newHeadCache(cachedHeads),
		recent: newRecentIDs(recentEvents),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := prepareFile(conn); err != nil {
		return nil, err
	}
	err = prepareAll(conn, map[**sqlite3.Stmt]string{
		&c.begin:         `BEGIN IMMEDIATE`,
		&c.end:           `COMMIT`,
		&c.selectStream:  selectStream,
		&c.insertStream:  `INSERT INTO streams (name) VALUES (?)`,
		&c.updateStream:  `UPDATE streams SET truncate_before = nullif(?, 0), max_count = nullif(?, 0), max_age = nullif(?, 0) WHERE id = ?`,
		&c.insertEvent:   `INSERT INTO events (position, stream, revision, id, type, is_json, created, data, metadata) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		&c.selectIDs:     `SELECT id, position FROM events WHERE stream = ? AND revision > ? ORDER BY revision LIMIT ?`,
		&c.selectNewest:  `SELECT data FROM events WHERE stream = ? ORDER BY revision DESC LIMIT 1`,
		&c.selectLogHead: `SELECT position, created FROM events ORDER BY position DESC LIMIT 1`,
	})
	if err != nil {
		return nil, err
	}
	return c, c.readLogHead()
}

func (c *committer) close() error {
	return closeConnection(c.conn)
}

func (c *committer) readLogHead() error {
	c.position, c.created = 0, 0
	if c.selectLogHead.Step() {
		c.position = c.selectLogHead.ColumnInt64(0)
		c.created = c.selectLogHead.ColumnInt64(1)
	}
	err := errors.Join(c.selectLogHead.Err(), c.selectLogHead.Reset())
	c.known = err == nil
	return err
}

// run commits what comes until the queue is closed and empty.
func (c *committer) run() {
	defer close(c.done)
	batch := make([]*write, 0, batchWrites)
	for first := range c.queue {
		batch = c.gather(append(batch[:0], first))
		c.commit(batch)
		clear(batch)
	}
}

// gather adds what is waiting already. It does not wait for more: while a batch
// is being committed the next one collects by itself.
func (c *committer) gather(batch []*write) []*write {
	size := batch[0].size()
	for len(batch) < batchWrites && size < batchBytes {
		select {
		case w, open := <-c.queue:
			if !open {
				return batch
			}
			batch = append(batch, w)
			size += w.size()
		default:
			return batch
		}
	}
	return batch
}

// commit carries a batch out in one transaction and answers its writers.
func (c *committer) commit(batch []*write) {
	if err := c.transact(batch); err != nil {
		if errors.Is(err, sqlite3.FULL) {
			err = errFull
		} else {
			err = fmt.Errorf("the outcome is unknown: %w", err)
		}
		// Refusals are answered with the error as well: they may rest on writes of
		// this batch that did not happen.
		for _, w := range batch {
			w.receipt, w.err = receipt{}, fmt.Errorf("append to %s: %w", w.stream, err)
		}
		c.takeBack()
	} else if len(c.touched) > 0 {
		c.store.news.add(c.written)
		c.store.hub.wake(c.touched)
	}
	clear(c.written)
	c.touched, c.added, c.written = c.touched[:0], c.added[:0], c.written[:0]
	for _, w := range batch {
		close(w.done)
	}
}

// takeBack forgets all that a failed transaction left in memory. The file is
// asked again, because a commit that fails can have reached it nevertheless.
func (c *committer) takeBack() {
	for _, h := range c.touched {
		c.heads.drop(h.name)
	}
	c.recent.forget(c.added)
	c.known = false
}

func (c *committer) transact(batch []*write) (err error) {
	if lost := c.store.places.lost.Load(); lost != nil {
		return *lost
	}
	if err := c.begin.Exec(); err != nil {
		return err
	}
	defer func() {
		// Some failures end the transaction by themselves.
		if err != nil && !c.conn.GetAutocommit() {
			err = errors.Join(err, c.conn.Exec(`ROLLBACK`))
		}
	}()
	if !c.known {
		if err := c.readLogHead(); err != nil {
			return err
		}
	}
	// The clock of a machine can be set back; the log's never runs backwards.
	c.created = max(c.created, c.store.ticks())
	for _, w := range batch {
		if err := c.apply(w); err != nil {
			return err
		}
	}
	if err := c.end.Exec(); err != nil {
		return err
	}
	// What is acknowledged has to be in the files that the next start opens.
	return c.store.places.check()
}

// apply does one write inside the transaction. A refusal is left in w and has
// changed nothing; an error spoils the transaction.
func (c *committer) apply(w *write) error {
	h, err := c.head(w.stream)
	if err != nil {
		return err
	}
	known, err := c.check(w, h)
	if known || err != nil || w.err != nil {
		return err
	}
	switch w.operation {
	case softDelete:
		return c.truncate(w, h, deletedBefore)
	case tombstone:
		w.receipt, err = c.insert(h, tombstoneRevision, []proposed{{id: uuid.New(), kind: tombstoneType}})
		return err
	case appendEvents:
	}
	if len(w.events) == 0 {
		w.receipt = receipt{revision: h.last}
		return nil
	}
	if h.limits.before == deletedBefore {
		// Writing to a deleted stream brings it back without its old events.
		if err := c.truncate(w, h, h.last+1); err != nil {
			return err
		}
	}
	first := h.last + 1
	if w.receipt, err = c.insert(h, first, w.events); err != nil {
		return err
	}
	if w.expected < 0 && w.expected != expectNoStream {
		for i := range w.events {
			c.remember(w.events[i].id, h.id, first+int64(i), c.position-int64(len(w.events)-1-i))
		}
	}
	if name, isMetadata := described(w.stream); isMetadata && !strings.HasPrefix(name, metadataPrefix) {
		subject, err := c.head(name)
		if err != nil {
			return err
		}
		return c.limit(subject, parseLimits(w.events[len(w.events)-1].data))
	}
	return nil
}

// head returns where a stream stands, from memory when it was used lately.
func (c *committer) head(name string) (*head, error) {
	if h, found := c.heads.get(name); found {
		return h, nil
	}
	h, err := lookUp(c.selectStream, name)
	if err != nil {
		return nil, fmt.Errorf("look up stream: %w", err)
	}
	c.heads.put(&h)
	return &h, nil
}

// check compares what a writer expects with where the stream is. When it does
// not fit, the refusal is left in w. Known says that w's events are in the stream
// already, by an append that is being repeated; its receipt is then left in w.
func (c *committer) check(w *write, h *head) (known bool, err error) {
	gone, err := c.isGone(h)
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
		return c.repeated(w, h, refusal), nil
	case w.expected == expectStreamExists && h.limits.before == deletedBefore:
		w.err = &deletedError{stream: w.stream}
		return false, nil
	case w.expected == expectStreamExists:
		exists := h.last != noRevision
		if !exists {
			// A stream that has been given metadata counts as existing.
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
		return c.repeated(w, h, refusal), nil
	case int64(w.expected) > h.last || w.operation != appendEvents || len(w.events) == 0:
		w.err = refusal
		return false, nil
	}
	matched, position, err := c.matching(h, int64(w.expected), w.events)
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

// isGone tells whether a stream, or the stream that it describes, was ended for
// good.
func (c *committer) isGone(h *head) (bool, error) {
	if name, isMetadata := described(h.name); isMetadata {
		subject, err := c.head(name)
		return err == nil && subject.last == tombstoneRevision, err
	}
	return h.last == tombstoneRevision, nil
}

// repeated looks for w's events among the recent ones.
func (c *committer) repeated(w *write, h *head, refusal *revisionError) bool {
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

// matching counts how many of events stand in the stream right after a revision,
// and gives the position of the last that does.
func (c *committer) matching(h *head, after int64, events []proposed) (matched int, position int64, err error) {
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

// truncate hides a stream's events below a revision, by an event in its metadata
// stream that keeps all else the metadata says.
func (c *committer) truncate(w *write, h *head, before int64) error {
	metadata, err := c.head(metadataPrefix + h.name)
	if err != nil {
		return err
	}
	newest, err := c.newest(metadata)
	if err != nil {
		return fmt.Errorf("read metadata of %s: %w", h.name, err)
	}
	changed, err := withTruncateBefore(newest, before)
	if err != nil {
		return fmt.Errorf("write metadata of %s: %w", h.name, err)
	}
	w.receipt, err = c.insert(metadata, metadata.last+1, []proposed{{id: uuid.New(), kind: metadataType, json: true, data: changed}})
	if err != nil {
		return err
	}
	return c.limit(h, parseLimits(changed))
}

func (c *committer) newest(h *head) ([]byte, error) {
	if err := c.selectNewest.BindInt64(1, h.id); err != nil {
		return nil, err
	}
	var data []byte
	if c.selectNewest.Step() {
		data = c.selectNewest.ColumnBlob(0, nil)
	}
	return data, errors.Join(c.selectNewest.Err(), c.selectNewest.Reset())
}

// limit records what a stream's metadata says beside its name, where readers
// find it without reading the metadata stream.
func (c *committer) limit(h *head, l limits) error {
	if err := c.ensureStream(h); err != nil {
		return err
	}
	c.touch(h)
	h.limits = l
	for i, value := range []int64{l.before, l.maxCount, l.maxAge, h.id} {
		if err := c.updateStream.BindInt64(i+1, value); err != nil {
			return err
		}
	}
	if err := c.updateStream.Exec(); err != nil {
		return fmt.Errorf("limit stream: %w", err)
	}
	return nil
}

func (c *committer) ensureStream(h *head) error {
	if h.id != 0 {
		return nil
	}
	c.touch(h)
	if err := c.insertStream.BindText(1, h.name); err != nil {
		return err
	}
	if err := c.insertStream.Exec(); err != nil {
		return fmt.Errorf("insert stream: %w", err)
	}
	h.id = c.conn.LastInsertRowID()
	return nil
}

// insert writes events to a stream from a revision on.
func (c *committer) insert(h *head, revision int64, events []proposed) (receipt, error) {
	if err := c.ensureStream(h); err != nil {
		return receipt{}, err
	}
	c.touch(h)
	for i := range events {
		e := &events[i]
		if err := c.insertOne(h.id, revision+int64(i), e); err != nil {
			return receipt{}, fmt.Errorf("insert event: %w", err)
		}
		c.position++
		c.written = append(c.written, recorded{
			position: c.position, stream: h.name, revision: revision + int64(i), id: e.id,
			kind: e.kind, json: e.json, created: c.created, data: e.data, metadata: e.metadata,
		})
	}
	h.last = revision + int64(len(events)) - 1
	return receipt{revision: h.last, position: c.position}, nil
}

func (c *committer) insertOne(stream, revision int64, e *proposed) error {
	isJSON := int64(0)
	if e.json {
		isJSON = 1
	}
	stmt := c.insertEvent
	return errors.Join(
		stmt.BindInt64(1, c.position+1),
		stmt.BindInt64(2, stream),
		stmt.BindInt64(3, revision),
		stmt.BindBlob(4, e.id[:]),
		stmt.BindText(5, e.kind),
		stmt.BindInt64(6, isJSON),
		stmt.BindInt64(7, c.created),
		bindBytes(stmt, 8, e.data),
		bindBytes(stmt, 9, e.metadata),
		stmt.Exec(),
	)
}

// bindBytes stores bytes as text when they are text, so that people can read
// them and SQLite's JSON functions take them. A zero byte would cut the text
// short in most tools.
func bindBytes(stmt *sqlite3.Stmt, parameter int, b []byte) error {
	if len(b) == 0 {
		return stmt.BindText(parameter, "")
	}
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		// The text is copied into SQLite's memory before the call returns.
		return stmt.BindText(parameter, unsafe.String(unsafe.SliceData(b), len(b)))
	}
	return stmt.BindBlob(parameter, b)
}

func (c *committer) touch(h *head) {
	c.touched = append(c.touched, h)
}

func (c *committer) remember(id uuid.UUID, stream, revision, position int64) {
	c.recent.add(id, place{stream: stream, revision: revision, position: position})
	c.added = append(c.added, id)
}
