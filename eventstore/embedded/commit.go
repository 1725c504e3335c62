package embedded

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
)

const (
	// Bounds of one transaction: it takes the writes that are waiting, up to these.
	batchWrites = 512
	batchBytes  = 4 << 20

	queuedWrites = 512
	cachedHeads  = 65_536
	recentEvents = 65_536
)

// committer is the only writer to the file. Because all writes go through its goroutine,
// the log has one order, a batch of writes shares one sync, and the heads need no lock.
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

	// Only run uses the fields below.

	heads    *headCache
	recent   *recentIDs
	position int64 // of the newest event
	created  int64 // of the newest event
	// headKnown is false if position and created must be read from the file again.
	headKnown bool
	// What the present batch changed in memory, in case it has to be undone.
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
	c.headKnown = err == nil
	return err
}

// run commits writes until the queue is closed and empty.
func (c *committer) run() {
	defer close(c.done)
	batch := make([]*write, 0, batchWrites)
	for first := range c.queue {
		batch = c.gather(append(batch[:0], first))
		c.commit(batch)
		clear(batch)
	}
}

// gather adds the writes that are already waiting. It does not wait for more: the next
// batch collects while this one is committed.
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

// commit carries out a batch in one transaction and then lets its callers continue.
func (c *committer) commit(batch []*write) {
	if err := c.transact(batch); err != nil {
		if errors.Is(err, sqlite3.FULL) {
			err = errFull
		} else {
			err = fmt.Errorf("the outcome is unknown: %w", err)
		}
		// Refused writes get this error as well: a refusal may depend on writes of this
		// batch that did not happen.
		for _, w := range batch {
			w.receipt, w.err = receipt{}, fmt.Errorf("append to %s: %w", w.stream, err)
		}
		c.forgetBatch()
	} else if len(c.touched) > 0 {
		c.store.tail.add(c.written)
		c.store.hub.wake(c.touched)
	}
	clear(c.written)
	c.touched, c.added, c.written = c.touched[:0], c.added[:0], c.written[:0]
	for _, w := range batch {
		close(w.done)
	}
}

// forgetBatch removes from memory what a failed transaction left there. The head of the
// log is read from the file again, because a failed commit may still have reached it.
func (c *committer) forgetBatch() {
	for _, h := range c.touched {
		c.heads.drop(h.name)
	}
	c.recent.forget(c.added)
	c.headKnown = false
}

func (c *committer) transact(batch []*write) (err error) {
	if lost := c.store.files.lost.Load(); lost != nil {
		return *lost
	}
	if err := c.begin.Exec(); err != nil {
		return err
	}
	defer func() {
		// Some errors roll the transaction back by themselves.
		if err != nil && !c.conn.GetAutocommit() {
			err = errors.Join(err, c.conn.Exec(`ROLLBACK`))
		}
	}()
	if !c.headKnown {
		if err := c.readLogHead(); err != nil {
			return err
		}
	}
	// A machine's clock can be set back. The times in the log never decrease.
	c.created = max(c.created, c.store.ticks())
	for _, w := range batch {
		if err := c.apply(w); err != nil {
			return err
		}
	}
	if err := c.end.Exec(); err != nil {
		return err
	}
	// Acknowledged events must be in the files that the next start will open.
	return c.store.files.check()
}

// apply carries out one write inside the transaction. A refused write has its error in
// w.err and changed nothing. A returned error makes the whole transaction fail.
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
		// An append to a deleted stream brings it back without its old events.
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
	if name, isMetadata := describedStream(w.stream); isMetadata && !strings.HasPrefix(name, metadataPrefix) {
		subject, err := c.head(name)
		if err != nil {
			return err
		}
		return c.limit(subject, parseLimits(w.events[len(w.events)-1].data))
	}
	return nil
}

// head returns the head of a stream, from the cache if it was used lately.
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
