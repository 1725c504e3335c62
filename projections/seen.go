package projections

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"

	"github.com/lotline/lotline/domain"
)

// Mark names the newest event that a node knows to be in its log: the node followed the
// event, or the log acknowledged it to the node. views.db keeps the mark, so that the next
// start can check whether the log still holds that event. The position alone would not be
// enough: a log that was cut and has grown again has other events at the same positions.
type Mark struct {
	Log      string          // the id of the log; "" when no event was seen
	Position domain.Position // of the event; zero for the first event of the log
	Stream   string          // "" when only the position is known
	Revision domain.Revision
	ID       [16]byte
	At       time.Time // when the event was recorded or acknowledged; may be zero
}

// ErrMarkUnreadable says that the mark cannot be read because views.db is damaged.
var ErrMarkUnreadable = errors.New("the mark of the newest event that was seen cannot be read")

// createSeen is not a part of the schema: files of all formats have the same table, so that
// the mark can be read from a file whose format is not supported.
const createSeen = `CREATE TABLE IF NOT EXISTS seen ( -- the newest event that this node knows to be in the log
	id        INTEGER PRIMARY KEY CHECK (id = 1),
	log       TEXT NOT NULL,    -- which log that is
	committed INTEGER NOT NULL, -- the event's position
	prepared  INTEGER NOT NULL, -- likewise
	stream    TEXT NOT NULL,
	revision  INTEGER NOT NULL,
	event     TEXT NOT NULL,    -- its id
	at        TEXT NOT NULL     -- when it was recorded or acknowledged
) STRICT`

const (
	putSeen    = `INSERT OR REPLACE INTO seen VALUES (1, ?, ?, ?, ?, ?, ?, ?)`
	selectSeen = `SELECT log, committed, prepared, stream, revision, event, at FROM seen`
	// selectPosition is for files that were written before there was a mark.
	selectPosition = `SELECT log, committed, prepared, '', 0, '00000000-0000-0000-0000-000000000000', '0001-01-01T00:00:00Z' FROM position`
)

// ReadMark returns the mark in the file at path, or the zero Mark when there is none. It must
// be called before Open, which writes a new mark. The error is ErrMarkUnreadable when the
// file is damaged. Any other error means that the file could not be read now.
func ReadMark(path string) (m Mark, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return Mark{}, nil
	}
	conn, err := openMarks(path)
	if err == nil {
		m, err = readMark(conn)
		err = errors.Join(err, conn.Close())
	}
	if err != nil && !environmental(err) {
		err = fmt.Errorf("%w: %w", ErrMarkUnreadable, err)
	}
	if err != nil {
		return Mark{}, fmt.Errorf("%s: %w", path, err)
	}
	return m, nil
}

func readMark(conn *sqlite3.Conn) (m Mark, err error) {
	tables := map[string]bool{}
	err = each(conn, `SELECT name FROM sqlite_schema WHERE name IN ('seen', 'position')`, func(s *sqlite3.Stmt) error {
		tables[s.ColumnText(0)] = true
		return nil
	})
	for _, from := range []struct{ table, query string }{{"seen", selectSeen}, {"position", selectPosition}} {
		if err != nil || m.Log != "" || !tables[from.table] {
			continue
		}
		err = each(conn, from.query, func(s *sqlite3.Stmt) error {
			m.Log = s.ColumnText(0)
			m.Position = domain.Position{Commit: uint64(s.ColumnInt64(1)), Prepare: uint64(s.ColumnInt64(2))}
			m.Stream, m.Revision = s.ColumnText(3), domain.Revision(s.ColumnInt64(4))
			id, err := uuid.Parse(s.ColumnText(5))
			if err == nil {
				m.ID = id
				m.At, err = time.Parse(time.RFC3339Nano, s.ColumnText(6))
			}
			return err
		})
	}
	return m, err
}

// SaveMark writes a mark into the file at path. It does nothing when there is no file.
func SaveMark(path string, m Mark) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	marks, err := newMarks(path)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return errors.Join(marks.save(m), marks.close())
}

// PutAside renames the file at path, so that Open creates a new one, and removes the
// snapshots of participants. It is for a node whose log was replaced.
func PutAside(path string) error {
	if err := putAside(path); err != nil {
		return err
	}
	return os.RemoveAll(path + participantsSuffix)
}

// marks writes the mark into views.db. It has a connection of its own, because every write of
// the mark is synced to the disk, and must not wait until many rows are written.
type marks struct {
	conn *sqlite3.Conn
	put  *sqlite3.Stmt
	path string
	file fs.FileInfo // the file that was at path when it was opened

	mu    sync.Mutex // guards the connection and the field below
	saved Mark
}

func openMarks(path string) (*sqlite3.Conn, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	conn, err := sqlite3.OpenFlags(fileURI(path), sqlite3.OPEN_READWRITE|sqlite3.OPEN_URI)
	if err != nil {
		return nil, err
	}
	// Some builds of SQLite do not sync the write-ahead log by default.
	if err := conn.Exec(`PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL; PRAGMA trusted_schema = OFF`); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func newMarks(path string) (*marks, error) {
	conn, err := openMarks(path)
	if err != nil {
		return nil, err
	}
	m := &marks{conn: conn, path: path}
	if err = conn.Exec(createSeen); err == nil {
		m.put, _, err = conn.Prepare(putSeen)
	}
	if err == nil {
		m.file, err = os.Stat(path)
	}
	if err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (s *marks) close() error { return errors.Join(s.put.Close(), s.conn.Close()) }

// save writes the mark and returns when it is on disk. It fails when the file at path is not
// the open one any more, because the next start would not find the mark.
func (s *marks) save(m Mark) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m == s.saved {
		return nil
	}
	if now, err := os.Stat(s.path); err != nil || !os.SameFile(now, s.file) {
		return fmt.Errorf("%s was removed, renamed or replaced while it was open: start again", s.path)
	}
	err := exec(s.put, m.Log, int64(m.Position.Commit), int64(m.Position.Prepare), m.Stream, int64(m.Revision),
		uuid.UUID(m.ID).String(), m.At.UTC().Format(time.RFC3339Nano))
	if err != nil {
		return fmt.Errorf("write the mark: %w", err)
	}
	s.saved = m
	return nil
}

// newest holds the mark of the newest event that was seen.
type newest struct {
	mu   sync.Mutex // guards the field below
	mark Mark
}

// Saw says that an event is in the log. It may be called with events in any order: the one
// with the highest position becomes the mark.
func (v *Views) Saw(stream string, revision domain.Revision, id [16]byte, p domain.Position, at time.Time) {
	v.seen.mu.Lock()
	defer v.seen.mu.Unlock()
	if m := &v.seen.mark; m.Position.Before(p) {
		m.Position, m.Stream, m.Revision, m.ID, m.At = p, stream, revision, id, at
	}
}

// Seen returns the mark of the newest event that was seen.
func (v *Views) Seen() Mark {
	v.seen.mu.Lock()
	defer v.seen.mu.Unlock()
	return v.seen.mark
}

// KeepSeen writes the mark to the file once a second until ctx ends, and then a last time. A
// mark that it has written survives a power failure.
func (v *Views) KeepSeen(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := v.saveSeen(); err != nil {
				v.log.Error().Err(err).Msg("the newest event that was seen was not written")
			}
		case <-ctx.Done():
			return v.saveSeen()
		}
	}
}

func (v *Views) saveSeen() error { return v.file.marks.save(v.Seen()) }
