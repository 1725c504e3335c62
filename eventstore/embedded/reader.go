package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/ncruces/go-sqlite3"
)

const (
	// A read takes one page from the file at a time. It is limited by bytes, because an
	// event can have a mebibyte, and by rows, because a filter may match none of them.
	pageBytes = 1 << 20
	pageRows  = 1024

	internedLimit = 4096
)

// reader is a connection for reading. One goroutine at a time uses it.
type reader struct {
	conn            *sqlite3.Conn
	stream          *sqlite3.Stmt
	streamForwards  *sqlite3.Stmt
	streamBackwards *sqlite3.Stmt
	allForwards     *sqlite3.Stmt
	allBackwards    *sqlite3.Stmt
	target          *sqlite3.Stmt
	last            *sqlite3.Stmt
	// interned holds names and types that many events share, so that they are not copied
	// for each event.
	interned map[string]string
}

func openReader(uri string) (*reader, error) {
	conn, err := connect(uri)
	if err != nil {
		return nil, err
	}
	r := &reader{conn: conn, interned: make(map[string]string)}
	if err := conn.Exec(`PRAGMA query_only = ON; PRAGMA cache_size = -8192`); err != nil {
		return nil, errors.Join(err, r.close())
	}
	const (
		ofOne = selectEvent + ` FROM events e WHERE e.stream = ? AND e.revision BETWEEN ? AND ? AND e.created >= ? ORDER BY e.revision `
		// CROSS JOIN makes SQLite scan the events and look up the stream of each.
		ofAll = selectEvent + `, s.name FROM events e CROSS JOIN streams s ON s.id = e.stream WHERE e.position BETWEEN ? AND ? ORDER BY e.position `
	)
	err = prepareAll(conn, map[**sqlite3.Stmt]string{
		&r.stream:          selectStream,
		&r.streamForwards:  ofOne + `LIMIT ?`,
		&r.streamBackwards: ofOne + `DESC LIMIT ?`,
		&r.allForwards:     ofAll + `LIMIT ?`,
		&r.allBackwards:    ofAll + `DESC LIMIT ?`,
		&r.target:          selectTarget,
		&r.last:            `SELECT max(position) FROM events`,
	})
	if err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func (r *reader) close() error {
	return closeConnection(r.conn)
}

func prepareAll(conn *sqlite3.Conn, statements map[**sqlite3.Stmt]string) error {
	for target, sql := range statements {
		stmt, _, err := conn.PrepareFlags(sql, sqlite3.PREPARE_PERSISTENT)
		if err != nil {
			return err
		}
		*target = stmt
	}
	return nil
}

// closeConnection closes the statements first: SQLite refuses to close a connection that
// has open ones.
func closeConnection(conn *sqlite3.Conn) error {
	var errs []error
	for _, stmt := range slices.Collect(conn.Stmts()) {
		errs = append(errs, stmt.Close())
	}
	return errors.Join(append(errs, conn.Close())...)
}

const (
	// selectEvent selects the columns that copyEvent reads.
	selectEvent  = `SELECT e.position, e.revision, e.id, e.type, e.is_json, e.created, e.data, e.metadata`
	selectTarget = selectEvent + ` FROM events e WHERE e.stream = ? AND e.revision = ? AND e.created >= ?`
)

const selectStream = `SELECT s.id, s.truncate_before, s.max_count, s.max_age,
	(SELECT e.revision FROM events e WHERE e.stream = s.id ORDER BY e.revision DESC LIMIT 1)
	FROM streams s WHERE s.name = ?`

// lookUp reads the head of a stream. A stream that is not in the file has the id 0 and
// noRevision.
func lookUp(stmt *sqlite3.Stmt, name string) (head, error) {
	h := head{name: name, last: noRevision}
	if err := stmt.BindText(1, name); err != nil {
		return h, err
	}
	if stmt.Step() {
		h.id = stmt.ColumnInt64(0)
		h.limits = limits{
			before:   stmt.ColumnInt64(1),
			maxCount: stmt.ColumnInt64(2),
			maxAge:   stmt.ColumnInt64(3),
		}
		// A stream can have metadata before it has events.
		if stmt.ColumnType(4) != sqlite3.NULL {
			h.last = stmt.ColumnInt64(4)
		}
	}
	if _, isMetadata := describedStream(name); isMetadata {
		// Only the newest metadata counts. Clients rely on reading it as the first event
		// of the metadata stream.
		h.limits = limits{maxCount: 1}
	}
	return h, errors.Join(stmt.Err(), stmt.Reset())
}

// page is the result of one read from the file.
type page struct {
	events []resolved
	// considered is the number of rows that were read, whether the filter matched them or
	// not.
	considered int
	// last is the revision or position of the last row that was read. It has no meaning
	// if considered is 0.
	last int64
	// newest is the revision of the newest event in the stream that was read.
	newest int64
	// complete says that there are no more rows after the page.
	complete bool
}

// withReader calls do with a reader. It fails if a file of the store is no longer at its
// path, so that a caller that only checks the store's health notices.
func (s *store) withReader(ctx context.Context, do func(*reader) error) error {
	select {
	case r, open := <-s.readers:
		if !open {
			return errClosed
		}
		defer func() { s.readers <- r }()
		if err := s.files.check(); err != nil {
			return err
		}
		if r == nil {
			opened, err := openReader(s.uri)
			if err != nil {
				return err
			}
			r = opened
		}
		return do(r)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// lastPosition returns the position of the newest event, or 0 if there is none.
func (s *store) lastPosition(ctx context.Context) (int64, error) {
	var position int64
	err := s.withReader(ctx, func(r *reader) error {
		if r.last.Step() {
			position = r.last.ColumnInt64(0)
		}
		return errors.Join(r.last.Err(), r.last.Reset())
	})
	if err != nil {
		return 0, fmt.Errorf("read last position: %w", err)
	}
	return position, nil
}

// state returns the head of a stream: its newest revision and what its metadata hides.
func (s *store) state(ctx context.Context, stream string) (head, error) {
	var h head
	err := s.withReader(ctx, func(r *reader) (err error) {
		h, err = lookUp(r.stream, stream)
		return err
	})
	if err != nil {
		return head{}, fmt.Errorf("read state of %s: %w", stream, err)
	}
	return h, nil
}

// unreadable returns why a stream cannot be read: errNoStream if it has no events or was
// deleted, a *deletedError if it was tombstoned, nil if it can be read.
func (h *head) unreadable() error {
	switch {
	case h.last == tombstoneRevision:
		return &deletedError{stream: h.name}
	case h.last == noRevision || h.limits.before == deletedBefore:
		return errNoStream
	}
	return nil
}

// readStream returns up to count events of a stream, beginning with the revision from,
// and resolves links if resolve is true. If the stream cannot be read, it returns the
// error of unreadable.
func (s *store) readStream(ctx context.Context, stream string, from int64, backwards, resolve bool, count int64) (page, error) {
	var p page
	err := s.withReader(ctx, func(r *reader) error {
		h, err := lookUp(r.stream, stream)
		if err == nil {
			err = h.unreadable()
		}
		if err != nil {
			return err
		}
		p.newest = h.last
		low, high, stmt := max(from, h.firstVisible()), h.last, r.streamForwards
		if backwards {
			low, high, stmt = h.firstVisible(), min(from, h.last), r.streamBackwards
		}
		p.complete = true
		if low > high {
			return nil
		}
		now := s.ticks()
		return r.collectStream(stmt, &p, &h, low, high, h.oldestVisible(now), min(count, pageRows), r.resolver(resolve, now))
	})
	if err != nil {
		return page{}, fmt.Errorf("read %s: %w", stream, err)
	}
	return p, nil
}

// readLive returns a page of a stream's events, beginning with the revision from. Unlike
// readStream it also returns events that the stream's metadata hides, and the tombstone.
// It resolves links if resolve is true.
func (s *store) readLive(ctx context.Context, stream string, from int64, resolve bool) (page, error) {
	p := page{complete: true}
	err := s.withReader(ctx, func(r *reader) error {
		h, err := lookUp(r.stream, stream)
		if err != nil || from > h.last {
			return err
		}
		return r.collectStream(r.streamForwards, &p, &h, from, h.last, math.MinInt64, pageRows, r.resolver(resolve, s.ticks()))
	})
	if err != nil {
		return page{}, fmt.Errorf("read %s: %w", stream, err)
	}
	return p, nil
}

// collectStream copies into p the events of a stream from revision low to high that were
// created at oldest or later.
func (r *reader) collectStream(stmt *sqlite3.Stmt, p *page, h *head, low, high, oldest, rows int64, resolve resolver) error {
	for i, value := range []int64{h.id, low, high, oldest, rows} {
		if err := stmt.BindInt64(i+1, value); err != nil {
			return err
		}
	}
	return r.collect(stmt, p, rows, rows, func() (string, bool) { return h.name, true },
		func(e *recorded) int64 { return e.revision }, resolve)
}

// readAll returns up to count matching events of the whole log, beginning with the
// position from. It reads limit rows at most. It resolves links if resolve is true; the
// filter is applied to the link, not to its target.
func (s *store) readAll(ctx context.Context, from int64, backwards, resolve bool, matching *filter, count, limit int64) (page, error) {
	var p page
	err := s.withReader(ctx, func(r *reader) error {
		low, high, stmt := from, int64(math.MaxInt64), r.allForwards
		if backwards {
			low, high, stmt = 0, from, r.allBackwards
		}
		rows := min(limit, pageRows)
		for i, value := range []int64{low, high, rows} {
			if err := stmt.BindInt64(i+1, value); err != nil {
				return err
			}
		}
		p.complete = true
		return r.collect(stmt, &p, rows, count, func() (string, bool) {
			name := stmt.ColumnRawText(8)
			if matching != nil && !matching.matches(name, stmt.ColumnRawText(3)) {
				return "", false
			}
			return r.intern(name), true
		}, func(e *recorded) int64 { return e.position }, r.resolver(resolve, s.ticks()))
	})
	if err != nil {
		return page{}, fmt.Errorf("read $all: %w", err)
	}
	return p, nil
}

// collect copies rows into p until p has count events, p has enough bytes, or the
// statement has no more rows. rows is the limit of the statement itself. named returns
// the stream of the current row and whether the row matches.
func (r *reader) collect(
	stmt *sqlite3.Stmt, p *page, rows, count int64, named func() (string, bool), at func(*recorded) int64, resolve resolver,
) error {
	var bytesHeld int
	for stmt.Step() {
		p.considered++
		p.last = at(&recorded{position: stmt.ColumnInt64(0), revision: stmt.ColumnInt64(1)})
		if stream, wanted := named(); wanted {
			e := resolved{recorded: r.copyEvent(stmt, stream)}
			if err := resolve(&e); err != nil {
				return errors.Join(err, stmt.Reset())
			}
			p.events = append(p.events, e)
			bytesHeld += e.size()
		}
		if int64(len(p.events)) == count || bytesHeld >= pageBytes || int64(p.considered) == rows {
			p.complete = false
			break
		}
	}
	return errors.Join(stmt.Err(), stmt.Reset())
}

// copyEvent copies the event in a statement's current row. The columns are those of
// selectEvent.
func (r *reader) copyEvent(stmt *sqlite3.Stmt, stream string) recorded {
	e := recorded{
		position: stmt.ColumnInt64(0),
		stream:   stream,
		revision: stmt.ColumnInt64(1),
		kind:     r.intern(stmt.ColumnRawText(3)),
		json:     stmt.ColumnBool(4),
		created:  stmt.ColumnInt64(5),
		data:     bytes.Clone(stmt.ColumnRawBlob(6)),
		metadata: bytes.Clone(stmt.ColumnRawBlob(7)),
	}
	copy(e.id[:], stmt.ColumnRawBlob(2))
	return e
}

func (r *reader) intern(raw []byte) string {
	if known, ok := r.interned[string(raw)]; ok {
		return known
	}
	if len(r.interned) >= internedLimit {
		clear(r.interned)
	}
	text := string(raw)
	r.interned[text] = text
	return text
}
