package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"unicode/utf8"
	"unsafe"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
)

// truncate hides a stream's events below a revision. To do so it appends to the metadata
// stream an event with the new $tb and all other metadata unchanged.
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

// limit stores the limits from a stream's metadata in its row of the table streams, where
// readers find them without reading the metadata stream.
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

// insert writes events to a stream, beginning at a revision.
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

// bindBytes stores bytes as text if they are valid text, so that people can read them and
// SQLite's JSON functions accept them. Bytes with a zero byte stay a blob, because most
// tools would cut the text off there.
func bindBytes(stmt *sqlite3.Stmt, parameter int, b []byte) error {
	if len(b) == 0 {
		return stmt.BindText(parameter, "")
	}
	if utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 {
		// SQLite copies the text before the call returns.
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
