package embedded

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/ncruces/go-sqlite3"
)

const (
	// applicationID identifies the file as a store in SQLite's header ("LOTL").
	applicationID = 0x4c4f544c
	// formatVersion increases when an earlier release can no longer read the files of
	// this program.
	formatVersion = 1

	// readConnections is small because a read uses a connection only while it copies a
	// page, never while it waits for a client.
	readConnections = 4
)

// schema is also for people: they can open the file with the sqlite3 tool while it is in
// use, and the file keeps these comments.
const schema = `
CREATE TABLE streams (
	id              INTEGER PRIMARY KEY,
	name            TEXT NOT NULL UNIQUE,
	-- What the newest event of the stream's metadata stream says, NULL for nothing:
	truncate_before INTEGER, -- $tb: first revision still shown; 9223372036854775807 when the stream is deleted
	max_count       INTEGER, -- $maxCount: how many of the newest events are shown
	max_age         INTEGER  -- $maxAge: for how many seconds an event is shown
) STRICT;

CREATE TABLE events (
	position INTEGER PRIMARY KEY,                    -- 1, 2, 3… in the order of commits
	stream   INTEGER NOT NULL REFERENCES streams(id),
	revision INTEGER NOT NULL,                       -- 0, 1, 2… within the stream; 9223372036854775807 for a tombstone
	id       BLOB NOT NULL,                          -- the 16 bytes of a UUID
	type     TEXT NOT NULL,
	is_json  INTEGER NOT NULL,                       -- 1 when the writer said that data is JSON
	created  INTEGER NOT NULL,                       -- ticks of 100 ns since 1970, never falling
	data     ANY NOT NULL,                           -- the bytes as they came: TEXT when they are text, else BLOB
	metadata ANY NOT NULL
) STRICT;

CREATE UNIQUE INDEX events_by_stream ON events (stream, revision);

CREATE VIEW log AS
	SELECT e.position, s.name AS stream, e.revision, e.type,
	       strftime('%Y-%m-%dT%H:%M:%fZ', e.created / 1e7, 'unixepoch') AS created,
	       lower(hex(e.id)) AS id, e.data, e.metadata
	FROM events e CROSS JOIN streams s ON s.id = e.stream;
`

// recorded is an event in the log.
type recorded struct {
	position int64
	stream   string
	revision int64
	id       uuid.UUID
	kind     string
	json     bool
	created  int64 // ticks of 100 ns since 1970
	data     []byte
	metadata []byte
}

// store is the log in its file. Any goroutine may call its methods. What they return
// belongs to the caller.
type store struct {
	lock       *os.File
	writer     *committer
	readers    chan *reader // nil for a reader that was not opened yet
	uri        string
	hub        hub
	tail       tailCache
	now        func() time.Time
	files      *openFiles
	leaveFiles atomic.Bool // close must not change the files

	mu     sync.RWMutex // guards closed and sending to the writer's queue
	closed bool
}

var errClosed = errors.New("the event store is closed")

func openStore(path string, now func() time.Time) (*store, error) {
	registerDisk()
	return openStoreOn(diskVFS, path, now)
}

// openStoreOn opens a store on a named file layer of SQLite.
func openStoreOn(vfsName, path string, now func() time.Time) (_ *store, err error) {
	path, err = filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open event store: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("open event store %s: %w", path, err)
		}
	}()

	lock, err := lockFile(lockPath(path))
	if err != nil {
		return nil, err
	}
	s := &store{lock: lock, uri: fileURI(path, vfsName), now: now, readers: make(chan *reader, readConnections)}
	s.hub.watchers = make(map[string]map[*watcher]struct{})
	defer func() {
		if err != nil {
			err = errors.Join(err, unlockFile(lock))
		}
	}()

	if err := checkNotLost(path, lock); err != nil {
		return nil, err
	}
	// SQLite would create the file with permissions for everybody.
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := file.Close(); err != nil {
		return nil, err
	}
	s.writer, err = openCommitter(s)
	if err != nil {
		return nil, err
	}
	// The directory entries of the file and of its write-ahead log must survive a power
	// failure as well. SQLite's file layer in use does not sync the directory.
	err = syncDirectory(filepath.Dir(path))
	if err == nil {
		err = leaveNote(lock)
	}
	if err == nil {
		s.files, err = findOpenFiles(path, s.writer.conn)
	}
	if err != nil {
		return nil, errors.Join(err, s.writer.close())
	}
	for range readConnections {
		s.readers <- nil
	}
	go s.writer.run()
	return s, nil
}

func fileURI(path, vfsName string) string {
	// With modeof the write-ahead log gets the mode and the owner of the database. Its
	// index, -shm, does not: it belongs to the process that creates it, with the mode of
	// that process's umask. In a query SQLite does not read a plus sign as a space.
	mode := strings.ReplaceAll(url.QueryEscape(path), "+", "%20")
	uri := url.URL{Scheme: "file", Path: path, RawQuery: "vfs=" + vfsName + "&modeof=" + mode}
	return uri.String()
}

func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(directory.Sync(), directory.Close())
}

// settings are for all connections. Without them the SQLite build in use syncs the
// write-ahead log at checkpoints only, which would lose acknowledged events.
const settings = `PRAGMA synchronous = FULL; PRAGMA busy_timeout = 5000; PRAGMA trusted_schema = OFF`

// connect opens a connection and applies settings.
func connect(uri string) (*sqlite3.Conn, error) {
	conn, err := sqlite3.Open(uri)
	if err != nil {
		return nil, err
	}
	if err := conn.Exec(settings); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// checkFormat returns an error if the file is not a store in a format that this program
// knows. fresh says that the file is empty.
func checkFormat(conn *sqlite3.Conn) (fresh bool, err error) {
	application, err := queryInt(conn, `PRAGMA application_id`)
	if err != nil {
		return false, err
	}
	version, err := queryInt(conn, `PRAGMA user_version`)
	if err != nil {
		return false, err
	}
	tables, err := queryInt(conn, `SELECT count(*) FROM sqlite_schema`)
	if err != nil {
		return false, err
	}
	fresh = application == 0 && version == 0 && tables == 0
	switch {
	case !fresh && application != applicationID:
		return false, errors.New("the file is an SQLite database but not an event store")
	case version > formatVersion:
		return false, fmt.Errorf("the file has format %d, this program knows formats up to %d: use a newer release", version, formatVersion)
	}
	return fresh, nil
}

// prepareFile checks the format of the file, and creates the tables if the file is new.
func prepareFile(conn *sqlite3.Conn) error {
	fresh, err := checkFormat(conn)
	if err != nil {
		return err
	}
	// SQLite returns the mode that is in effect, which is another one if it cannot use
	// this one.
	if mode, err := queryText(conn, `PRAGMA journal_mode = WAL`); err != nil {
		return err
	} else if mode != "wal" {
		return fmt.Errorf("the file system does not allow a write-ahead log: journal mode is %q", mode)
	}
	err = conn.Exec(`PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 67108864; PRAGMA cache_size = -65536`)
	if err != nil || !fresh {
		return err
	}
	script := fmt.Sprintf(`BEGIN IMMEDIATE; %s PRAGMA application_id = %d; PRAGMA user_version = %d; COMMIT`,
		schema, applicationID, formatVersion)
	if err := conn.Exec(script); err != nil {
		return fmt.Errorf("create tables: %w", err)
	}
	return nil
}

func queryInt(conn *sqlite3.Conn, sql string) (int64, error) {
	text, err := queryText(conn, sql)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

func queryText(conn *sqlite3.Conn, sql string) (string, error) {
	stmt, _, err := conn.Prepare(sql)
	if err != nil {
		return "", err
	}
	defer stmt.Close()
	var value string
	if stmt.Step() {
		value = stmt.ColumnText(0)
	}
	return value, stmt.Err()
}

// close waits for the appends in the queue and closes the file. Reads must have ended:
// later reads fail.
func (s *store) close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.writer.queue)
	s.mu.Unlock()

	<-s.writer.done
	var errs []error
	for range readConnections {
		if r := <-s.readers; r != nil {
			errs = append(errs, r.close())
		}
	}
	close(s.readers)
	if s.leaveFiles.Load() || s.files.lost.Load() != nil {
		// SQLite deletes the write-ahead log by its name, which may belong to another
		// file by now.
		_, err := s.writer.conn.Config(sqlite3.DBCONFIG_NO_CKPT_ON_CLOSE, true)
		errs = append(errs, err)
	}
	// The writer is closed last: the last connection to close moves the write-ahead log
	// into the database.
	errs = append(errs, s.writer.close(), unlockFile(s.lock))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close event store: %w", err)
	}
	return nil
}

// append appends events to a stream if it has the expected revision. It returns once they
// are on disk. After a *revisionError, a *deletedError or errFull nothing was written;
// after any other error the outcome is unknown.
func (s *store) append(ctx context.Context, stream string, expected expectation, events []proposed) (receipt, error) {
	return s.write(ctx, &write{stream: stream, expected: expected, events: events})
}

// delete hides the present events of a stream. If a client appends to the stream later,
// its revisions continue from where they were.
func (s *store) delete(ctx context.Context, stream string, expected expectation) (receipt, error) {
	return s.write(ctx, &write{operation: softDelete, stream: stream, expected: expected})
}

// tombstone ends a stream: nobody can append to it any more.
func (s *store) tombstone(ctx context.Context, stream string, expected expectation) (receipt, error) {
	return s.write(ctx, &write{operation: tombstone, stream: stream, expected: expected})
}

func (s *store) write(ctx context.Context, w *write) (receipt, error) {
	if err := s.begin(ctx, w); err != nil {
		return receipt{}, err
	}
	return s.finish(ctx, w)
}

// begin queues a write. Writes that one goroutine begins are carried out in that order.
func (s *store) begin(ctx context.Context, w *write) error {
	w.done = make(chan struct{})
	if err := s.enqueue(ctx, w); err != nil {
		return fmt.Errorf("append to %s: %w", w.stream, err)
	}
	return nil
}

// finish waits for the result of a write that was begun.
func (s *store) finish(ctx context.Context, w *write) (receipt, error) {
	select {
	case <-w.done:
		return w.receipt, w.err
	case <-ctx.Done():
		return receipt{}, fmt.Errorf("append to %s: %w", w.stream, ctx.Err())
	}
}

func (s *store) enqueue(ctx context.Context, w *write) error {
	// The lock is held while sending, so that close cannot close the queue meanwhile. The
	// committer keeps receiving.
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return errClosed
	}
	select {
	case s.writer.queue <- w:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ticks returns the time in the unit of the log, 100 ns.
func (s *store) ticks() int64 {
	return s.now().UnixNano() / 100
}

// tombstoneRevision is the revision of a tombstone, the event that ends a stream.
const tombstoneRevision = math.MaxInt64
