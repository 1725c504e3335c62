package projections

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// format is the number of the file's format. It must be raised when the tables change, or the
// JSON of a state.
const format = 4

// schema has comments for people who read the file with the sqlite3 tool, which they may do
// while it is in use.
const schema = `

CREATE TABLE position (
	id      INTEGER PRIMARY KEY CHECK (id = 1),
	committed INTEGER NOT NULL, -- the last event of the log that is in this file
	prepared INTEGER NOT NULL,  -- likewise
	log     TEXT NOT NULL,      -- which log that is
	program TEXT NOT NULL       -- what wrote it
) STRICT;

CREATE TABLE distributions (
	stream   TEXT PRIMARY KEY,
	revision INTEGER NOT NULL, -- of the stream's last event
	hash     TEXT NOT NULL,    -- likewise
	changed  INTEGER NOT NULL, -- the revision of the last event that changed the object itself
	state    TEXT NOT NULL     -- JSON; of a deleted distribution little is left
) STRICT;

CREATE TABLE organizations (
	stream   TEXT PRIMARY KEY,
	revision INTEGER NOT NULL,
	hash     TEXT NOT NULL,
	changed  INTEGER NOT NULL,
	state    TEXT NOT NULL
) STRICT;

CREATE TABLE signing ( -- the keys by which tokens are signed, sealed
	stream   TEXT PRIMARY KEY,
	revision INTEGER NOT NULL,
	hash     TEXT NOT NULL,
	changed  INTEGER NOT NULL,
	state    TEXT NOT NULL
) STRICT;

CREATE TABLE quarantine (
	stream   TEXT PRIMARY KEY,
	owner    TEXT NOT NULL,    -- the organization, as far as known
	id       TEXT NOT NULL,    -- likewise
	revision INTEGER NOT NULL, -- of the event that was refused
	type     TEXT NOT NULL,
	rule     TEXT NOT NULL,
	detail   TEXT NOT NULL
) STRICT;
`

const (
	putPosition = `INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?)`
	putState    = `INSERT INTO %s VALUES (?, ?, ?, ?, ?)
		ON CONFLICT DO UPDATE SET revision = excluded.revision, hash = excluded.hash,
			changed = excluded.changed, state = excluded.state`
	putQuarantine = `INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?, ?, ?, ?, ?)`
	dropState     = `DELETE FROM %s WHERE stream = ?`
)

// file is views.db. Only one goroutine may use it at a time, except for its marks.
type file struct {
	conn    *sqlite3.Conn
	marks   *marks
	origin  Origin
	program string
	put     map[string]*sqlite3.Stmt // by table
	drop    map[string]*sqlite3.Stmt // by table
}

// table returns the table for the state of a stream that is not in quarantine.
func table(stream string) string {
	switch {
	case domain.StreamKind(stream) == domain.KindOrganization:
		return "organizations"
	case stream == domain.SigningStream:
		return "signing"
	}
	return "distributions"
}

// program returns the version of this build, or "".
func program() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return ""
}

func openFile(path string, origin Origin, seals Opener, program string, log zerolog.Logger) (*file, loaded, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, loaded{}, fmt.Errorf("open views: %w", err)
	}
	f, l, err := tryFile(path, origin, seals, program)
	if err != nil && !environmental(err) {
		log.Warn().Err(err).Str("path", path).Msg("views cannot be loaded and are rebuilt from the log")
		if err := putAside(path); err != nil {
			return nil, loaded{}, fmt.Errorf("put aside %s: %w", path, err)
		}
		f, l, err = tryFile(path, origin, seals, program)
	}
	if err != nil {
		return nil, loaded{}, fmt.Errorf("open views %s: %w", path, err)
	}
	return f, l, nil
}

// environmental reports whether an error says that the file cannot be used now, for example
// because the disk is full. Other errors say that the file's content is useless.
func environmental(err error) bool {
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return true
	}
	for _, code := range []sqlite3.ErrorCode{
		sqlite3.PERM, sqlite3.BUSY, sqlite3.LOCKED, sqlite3.NOMEM, sqlite3.READONLY,
		sqlite3.IOERR, sqlite3.FULL, sqlite3.CANTOPEN, sqlite3.PROTOCOL,
	} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// putAside renames the file. It does not remove it, because it may be somebody's file.
func putAside(path string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		err := os.Rename(path+suffix, path+".unusable"+suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func tryFile(path string, origin Origin, seals Opener, program string) (_ *file, _ loaded, err error) {
	// SQLite would create a file that every user can read.
	made, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, loaded{}, err
	}
	if err := made.Close(); err != nil {
		return nil, loaded{}, err
	}
	conn, err := sqlite3.Open(fileURI(path))
	if err != nil {
		return nil, loaded{}, err
	}
	f := &file{conn: conn, origin: origin, program: program, put: map[string]*sqlite3.Stmt{}, drop: map[string]*sqlite3.Stmt{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if err := f.prepare(); err != nil {
		return nil, loaded{}, err
	}
	l, err := f.load(seals)
	if err == nil {
		f.marks, err = newMarks(path)
	}
	return f, l, err
}

// fileURI returns the URI by which SQLite opens the file at an absolute path. The files that
// SQLite creates beside it get the same mode.
func fileURI(path string) string {
	// In the query of SQLite's URIs a plus sign does not stand for a space.
	mode := strings.ReplaceAll(url.QueryEscape(path), "+", "%20")
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "modeof=" + mode}
	return uri.String()
}

// prepare creates the tables in a new file, checks the format and prepares the statements.
func (f *file) prepare() error {
	// A power failure may lose the last second. Its events are read from the log again.
	err := f.conn.Exec(`PRAGMA busy_timeout = 1000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
		PRAGMA journal_size_limit = 67108864; PRAGMA trusted_schema = OFF`)
	if err != nil {
		return err
	}
	tables, err := f.number(`SELECT count(*) FROM sqlite_schema`)
	if err != nil {
		return err
	}
	version, err := f.number(`PRAGMA user_version`)
	if err != nil {
		return err
	}
	if tables == 0 && version == 0 {
		err = f.conn.Exec(fmt.Sprintf(`BEGIN IMMEDIATE; %s PRAGMA user_version = %d; COMMIT`, schema, format))
	} else if version != format {
		err = fmt.Errorf("the file has format %d, not %d", version, format)
	}
	if err != nil {
		return err
	}
	for _, t := range []string{"distributions", "organizations", "signing"} {
		if err := f.statements(t, fmt.Sprintf(putState, t)); err != nil {
			return err
		}
	}
	if err := f.statements("quarantine", putQuarantine); err != nil {
		return err
	}
	f.put["position"], _, err = f.conn.Prepare(putPosition)
	return err
}

func (f *file) statements(table, put string) (err error) {
	if f.put[table], _, err = f.conn.Prepare(put); err != nil {
		return err
	}
	f.drop[table], _, err = f.conn.Prepare(fmt.Sprintf(dropState, table))
	return err
}

func (f *file) number(query string) (n int64, err error) {
	err = f.each(query, func(s *sqlite3.Stmt) { n = s.ColumnInt64(0) })
	return n, err
}

// each calls row with every row that the query gives.
func (f *file) each(query string, row func(*sqlite3.Stmt)) error {
	return each(f.conn, query, func(s *sqlite3.Stmt) error {
		row(s)
		return nil
	})
}

// each calls row with every row that the query gives, until row fails.
func each(conn *sqlite3.Conn, query string, row func(*sqlite3.Stmt) error) (err error) {
	s, _, err := conn.Prepare(query)
	if err != nil {
		return err
	}
	for err == nil && s.Step() {
		err = row(s)
	}
	return errors.Join(err, s.Close())
}

// close closes the file. SQLite moves the write-ahead log into it, so that all data is in
// one file.
func (f *file) close() error {
	var errs []error
	for _, statements := range []map[string]*sqlite3.Stmt{f.put, f.drop} {
		for _, s := range statements {
			errs = append(errs, s.Close())
		}
	}
	if f.marks != nil {
		errs = append(errs, f.marks.close())
	}
	return errors.Join(append(errs, f.conn.Close())...)
}

// exec runs a statement. Parameters are strings and int64s.
func exec(s *sqlite3.Stmt, parameters ...any) error {
	for i, p := range parameters {
		var err error
		switch p := p.(type) {
		case string:
			err = s.BindText(i+1, p)
		case int64:
			err = s.BindInt64(i+1, p)
		}
		if err != nil {
			return err
		}
	}
	return s.Exec()
}
