package projections

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// format is raised when a file that this program writes differs from that of the
// one before it: in its tables or in what the JSON of a state holds.
const format = 4

// schema is for people as well: the sqlite3 tool reads the file while it is in
// use.
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

// file is views.db. It is for one goroutine, but for its marks.
type file struct {
	conn    *sqlite3.Conn
	marks   *marks
	origin  Origin
	program string
	put     map[string]*sqlite3.Stmt // by table
	drop    map[string]*sqlite3.Stmt // by table
}

// loaded is what a file holds.
type loaded struct {
	models   models
	position domain.Position
}

// table is where the state of a stream is kept that is not in quarantine.
func table(stream string) string {
	switch {
	case domain.StreamKind(stream) == domain.KindOrganization:
		return "organizations"
	case stream == domain.SigningStream:
		return "signing"
	}
	return "distributions"
}

// program says which build this is.
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

// environmental reports whether an error says that a file cannot be reached,
// rather than that it is of no use.
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

// putAside renames the file rather than remove it: nobody knows what it is.
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
	// SQLite would let everybody read the file.
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

// fileURI names the file at an absolute path for SQLite. The files that SQLite puts
// beside it get its mode.
func fileURI(path string) string {
	// In a query of SQLite's URIs a plus sign is no space.
	mode := strings.ReplaceAll(url.QueryEscape(path), "+", "%20")
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "modeof=" + mode}
	return uri.String()
}

func (f *file) prepare() error {
	// Losing the last second in a power failure costs reading it again.
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

// close finishes the write-ahead log as well, so that the file stands alone.
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

// load reads all rows. What takes the time is decoding them, which all cores do.
func (f *file) load(seals Opener) (loaded, error) {
	var position domain.Position
	of, writer := f.origin.ID, f.program
	err := f.each(`SELECT committed, prepared, log, program FROM position`, func(s *sqlite3.Stmt) {
		position = domain.Position{Commit: uint64(s.ColumnInt64(0)), Prepare: uint64(s.ColumnInt64(1))}
		of, writer = s.ColumnText(2), s.ColumnText(3)
	})
	if err != nil {
		return loaded{}, err
	}
	if of != f.origin.ID {
		return loaded{}, errors.New("they are of another log")
	}
	if f.origin.Head.Before(position) {
		return loaded{}, errors.New("the log ends before them: it has lost events, or is a copy made earlier")
	}
	var states []*state
	err = f.each(`SELECT stream, owner, id, revision, type, rule, detail FROM quarantine`, func(s *sqlite3.Stmt) {
		states = append(states, &state{
			owner: domain.ID(s.ColumnText(1)),
			id:    domain.ID(s.ColumnText(2)),
			broken: &domain.HistoryError{
				Stream: s.ColumnText(0), Revision: domain.Revision(s.ColumnInt64(3)), Type: s.ColumnText(4),
				Rule: s.ColumnText(5), Detail: s.ColumnText(6),
			},
		})
	})
	if err != nil {
		return loaded{}, err
	}
	if len(states) > 0 && writer != f.program {
		return loaded{}, errors.New("streams are in quarantine that another program could not read")
	}
	decoded, err := f.loadStates(seals)
	if err != nil {
		return loaded{}, err
	}
	return loaded{build(append(states, decoded...)), position}, nil
}

// batch is how many rows are handed to a decoder at once.
const batch = 256

func (f *file) loadStates(seals Opener) ([]*state, error) {
	workers := make([]struct {
		states []*state
		err    error
	}, runtime.GOMAXPROCS(0))
	batches := make(chan []stored, len(workers))
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		wg.Go(func() {
			for rows := range batches {
				for _, r := range rows {
					if w.err != nil {
						break
					}
					var s *state
					if s, w.err = r.decode(seals); w.err == nil {
						w.states = append(w.states, s)
					}
				}
			}
		})
	}

	next := make([]stored, 0, batch)
	err := f.each(`SELECT stream, revision, hash, changed, state FROM distributions
		UNION ALL SELECT stream, revision, hash, changed, state FROM organizations
		UNION ALL SELECT stream, revision, hash, changed, state FROM signing`, func(s *sqlite3.Stmt) {
		next = append(next, stored{
			stream:   s.ColumnText(0),
			revision: domain.Revision(s.ColumnInt64(1)),
			hash:     s.ColumnText(2),
			changed:  domain.Revision(s.ColumnInt64(3)),
			state:    s.ColumnBlob(4, nil),
		})
		if len(next) == batch {
			batches <- next
			next = make([]stored, 0, batch)
		}
	})
	batches <- next
	close(batches)
	wg.Wait()
	var all []*state
	for _, w := range workers {
		all = append(all, w.states...)
		err = errors.Join(err, w.err)
	}
	return all, err
}

// Run writes what has changed to the file, about once a second and when much has,
// until ctx ends, and then a last time. What cannot be written is logged and
// tried again; the error that Run returns is that of the last time.
func (v *Views) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	crowded := v.crowded
	changed := map[*entry]*state{}
	for {
		last := false
		select {
		case <-tick.C:
		case <-crowded:
		case <-ctx.Done():
			last = true
		}
		err := v.write(changed)
		if err != nil {
			v.writeFailures.Add(1)
		}
		if last {
			v.snapshotAll()
			return err
		}
		if err == nil {
			crowded = v.crowded
			continue
		}
		// What failed once is not tried again with every crowd.
		crowded = nil
		v.log.Error().Err(err).Int("rows", len(changed)).Msg("views were not written")
	}
}

// WriteFailures is how often Run could not write.
func (v *Views) WriteFailures() int64 { return v.writeFailures.Load() }

// write adds to changed what has changed since the last time and writes all of it,
// with the position that it belongs to. It empties changed when it succeeds.
func (v *Views) write(changed map[*entry]*state) error {
	v.mu.Lock()
	fresh, position := v.dirty, v.position
	v.dirty = map[*entry]*state{}
	v.mu.Unlock()
	maps.Copy(changed, fresh)
	// The mark goes first, so that the file never holds an event that the mark does
	// not cover.
	if err := v.saveSeen(); err != nil {
		return err
	}
	if err := v.file.write(changed, position); err != nil {
		return fmt.Errorf("write views: %w", err)
	}
	v.snapshot(slices.Collect(maps.Values(changed)), snapshotEvery)
	clear(changed)
	return nil
}

// write makes the changes and the position one transaction.
func (f *file) write(changed map[*entry]*state, position domain.Position) error {
	tx, err := f.conn.BeginImmediate()
	if err != nil {
		return err
	}
	if err = f.writeAll(changed, position); err == nil {
		err = tx.Commit()
	}
	// Some errors have ended the transaction already.
	if err != nil && !f.conn.GetAutocommit() {
		err = errors.Join(err, tx.Rollback())
	}
	return err
}

func (f *file) writeAll(changed map[*entry]*state, position domain.Position) error {
	for _, s := range changed {
		if err := f.writeState(s); err != nil {
			return fmt.Errorf("%s: %w", s.stream(), err)
		}
	}
	return exec(f.put["position"], int64(position.Commit), int64(position.Prepare), f.origin.ID, f.program)
}

func (f *file) writeState(s *state) error {
	t := table(s.stream())
	if b := s.broken; b != nil {
		if err := exec(f.drop[t], b.Stream); err != nil {
			return err
		}
		return exec(f.put["quarantine"], b.Stream, string(s.owner), string(s.id), int64(b.Revision), b.Type, b.Rule, b.Detail)
	}
	h := s.history
	encoded, err := encode(h)
	if err != nil {
		return err
	}
	return exec(f.put[t], h.Stream, int64(h.Head.Revision), h.Head.Hash, int64(h.Changed), string(encoded))
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
