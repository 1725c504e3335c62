package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// Contents describes a backup.
type Contents struct {
	Events   int64
	Streams  int64
	Position int64     // of the newest event
	Newest   time.Time // when the newest event was recorded; zero if there is none
	Bytes    int64
}

// Backup copies the store file source to a new file target. A server may have the store
// open meanwhile, in this process or in another one, and appends continue. The copy is a
// single file that Open accepts. It is a snapshot of the log at one moment after the call
// began: it holds every event that was acknowledged before the call, and has no gaps.
//
// The target gets the mode 0600. It appears only once it is complete, checked and on
// disk. Backup fails with fs.ErrExist if target exists, and with fs.ErrPermission if this
// process does not run as the owner of source.
func Backup(ctx context.Context, source, target string) (_ Contents, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("back up %s: %w", source, err)
		}
	}()
	if _, err := os.Lstat(target); err == nil {
		return Contents{}, &fs.PathError{Op: "create", Path: target, Err: fs.ErrExist}
	}
	// SQLite resolves file names from the root directory.
	if source, err = filepath.Abs(source); err != nil {
		return Contents{}, err
	}
	if target, err = filepath.Abs(target); err != nil {
		return Contents{}, err
	}
	if err := checkOwner(source); err != nil {
		return Contents{}, err
	}
	copied, err := os.CreateTemp(filepath.Dir(target), filepath.Base(target)+".*.partial")
	if err != nil {
		return Contents{}, err
	}
	defer func() { err = errors.Join(err, os.Remove(copied.Name())) }()
	position, err := copyLog(ctx, source, copied.Name())
	if err != nil {
		return Contents{}, errors.Join(err, copied.Close())
	}
	contents, err := checkCopy(ctx, copied)
	if err == nil && contents.Position != position {
		err = fmt.Errorf("it ends at position %d, not at %d", contents.Position, position)
	}
	if err != nil {
		return Contents{}, errors.Join(fmt.Errorf("check the copy: %w", err), copied.Close())
	}
	if err := errors.Join(copied.Sync(), copied.Close()); err != nil {
		return Contents{}, err
	}
	// A link, unlike a rename, never replaces an existing file.
	if err := os.Link(copied.Name(), target); err != nil {
		return Contents{}, err
	}
	return contents, syncDirectory(filepath.Dir(target))
}

// stepPages is how many pages are copied between two checks of ctx.
const stepPages = 4096

// copyLog copies a store and returns the position at which the copy ends.
//
// It copies page by page with SQLite's backup interface. VACUUM INTO would rebuild every
// row and index, and take twice as long. For the writing server both are a reader in a
// read transaction. The server's commits continue into the write-ahead log, which cannot
// be reset before the transaction ends and so grows meanwhile. The transaction is ours
// and spans all steps. If each step began its own, the copy would start over after every
// commit of the server.
func copyLog(ctx context.Context, source, target string) (position int64, err error) {
	registerDisk()
	conn, err := sqlite3.OpenFlags(fileURI(source, diskVFS), sqlite3.OPEN_READWRITE|sqlite3.OPEN_URI)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	if err := conn.Exec(settings + `; PRAGMA query_only = ON; BEGIN`); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Exec(`ROLLBACK`)) }()
	fresh, err := checkFormat(conn)
	if err != nil {
		return 0, err
	}
	if fresh {
		return 0, errors.New("the file is empty")
	}
	// A read transaction fixes its snapshot at its first read.
	if position, err = queryInt(conn, lastPosition); err != nil {
		return 0, err
	}
	backup, err := conn.BackupInit("main", fileURI(target, diskVFS))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, backup.Close()) }()
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if done, err = backup.Step(stepPages); err != nil {
			return 0, err
		}
	}
	return position, nil
}

const lastPosition = `SELECT coalesce(max(position), 0) FROM events`

// checkCopy reads all of a copy and checks it.
func checkCopy(ctx context.Context, copied *os.File) (c Contents, err error) {
	conn, err := connect(fileURI(copied.Name(), diskVFS))
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	conn.SetInterrupt(ctx)
	// The copy inherits journal mode WAL. Reading it in that mode would create files
	// beside it.
	if err := conn.Exec(`PRAGMA journal_mode = DELETE; PRAGMA query_only = ON`); err != nil {
		return c, err
	}
	if verdict, err := queryText(conn, `PRAGMA integrity_check(1)`); err != nil || verdict != "ok" {
		return c, errors.Join(err, fmt.Errorf("the file is damaged: %s", verdict))
	}
	var first, created, torn int64
	for _, figure := range []struct {
		value *int64
		sql   string
	}{
		{&c.Events, `SELECT count(*) FROM events`},
		{&c.Streams, `SELECT count(*) FROM streams`},
		{&first, `SELECT coalesce(min(position), 1) FROM events`},
		{&c.Position, lastPosition},
		{&created, `SELECT coalesce(max(created), 0) FROM events WHERE position = (SELECT max(position) FROM events)`},
		{&torn, `SELECT count(*) FROM (SELECT 1 FROM events WHERE revision < 9223372036854775807 GROUP BY stream HAVING count(*) <> max(revision) + 1)`},
	} {
		if *figure.value, err = queryInt(conn, figure.sql); err != nil {
			return c, err
		}
	}
	if first != 1 || c.Events != c.Position {
		return c, fmt.Errorf("%d events have the positions %d to %d", c.Events, first, c.Position)
	}
	if torn > 0 {
		return c, fmt.Errorf("%d streams have gaps", torn)
	}
	if created > 0 {
		c.Newest = time.Unix(0, created*100)
	}
	if c.Bytes, err = queryInt(conn, `SELECT page_count * page_size FROM pragma_page_count, pragma_page_size`); err != nil {
		return c, err
	}
	// The file that was checked must be the file that is kept.
	if info, err := copied.Stat(); err != nil || info.Size() != c.Bytes {
		return c, errors.Join(err, fmt.Errorf("the file does not have the %d bytes that were read", c.Bytes))
	}
	return c, nil
}
