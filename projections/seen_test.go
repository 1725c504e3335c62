package projections

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

func mark(tb helper, path string) Mark {
	tb.Helper()
	m, err := ReadMark(path)
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// markOf returns the mark of an event.
func markOf(r *domain.Recorded) Mark {
	return Mark{testOrigin.ID, r.Position, r.Stream, r.Revision, r.ID, r.RecordedAt}
}

func TestKeepSeen_writesWithinASecondWhatWasFollowedOrAcknowledged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		org := l.organization(t)
		v, path := testViews(t, l)
		if m := mark(t, path); m != (Mark{}) {
			t.Errorf("before anything is written it is %+v", m)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- v.KeepSeen(ctx) }()
		within := func(want Mark) {
			t.Helper()
			time.Sleep(time.Second + time.Millisecond) //nolint:forbidigo // synctest
			if got := mark(t, path); got != want {
				t.Errorf("got %+v, want %+v", got, want)
			}
		}
		within(markOf(l.events[len(l.events)-1]))
		l.create(t, org, domain.KindDraw, nil)
		follow(v, l)
		followed := l.events[len(l.events)-1]
		within(markOf(followed))
		// The store acknowledges an append before the event is followed.
		acknowledged := *followed
		acknowledged.Position.Commit += 10
		acknowledged.ID[5]++
		acknowledged.RecordedAt = time.Unix(1_800_000_000, 5).UTC()
		v.Saw(acknowledged.Stream, acknowledged.Revision, acknowledged.ID, acknowledged.Position, acknowledged.RecordedAt)
		v.Saw(followed.Stream, followed.Revision, followed.ID, followed.Position, followed.RecordedAt)
		within(markOf(&acknowledged))

		acknowledged.Position.Commit += 10
		v.Saw(acknowledged.Stream, acknowledged.Revision, acknowledged.ID, acknowledged.Position, acknowledged.RecordedAt)
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := mark(t, path); got != markOf(&acknowledged) {
			t.Errorf("at the end it is %+v", got)
		}
	})
}

// This build of SQLite does not sync the write-ahead log by default.
func TestMarks_areSynced(t *testing.T) {
	t.Parallel()
	v, _ := testViews(t, newLog())
	var level int64
	if err := each(v.file.marks.conn, `PRAGMA synchronous`, func(s *sqlite3.Stmt) error {
		level = s.ColumnInt64(0)
		return nil
	}); err != nil || level != 2 {
		t.Errorf("synchronous is %d, %v", level, err)
	}
}

// The rows in the file are never ahead of the mark.
func TestViews_writeTheMarkBeforeTheRows(t *testing.T) {
	t.Parallel()
	l := newLog()
	l.organization(t)
	v, path := testViews(t, l)
	save(t, v)
	if got, want := mark(t, path), markOf(l.events[len(l.events)-1]); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// A write to a file that the next start would not find fails.
func TestViews_reportThatTheirFileWasRemoved(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	v, path := testViews(t, l)
	save(t, v)
	if err := os.Rename(path, path+".away"); err != nil {
		t.Fatal(err)
	}
	l.create(t, org, domain.KindDraw, nil)
	follow(v, l)
	if err := v.write(map[*streamSlot]*state{}); err == nil || !strings.Contains(err.Error(), path+" was removed, renamed or replaced") {
		t.Errorf("got %v", err)
	}
}

// A new file begins with the mark of the file that was put aside.
func TestOpen_keepsTheMarkOfAFileThatIsPutAside(t *testing.T) {
	t.Parallel()
	l := newLog()
	l.organization(t)
	path := filepath.Join(t.TempDir(), "views.db")
	v := openViews(t, path)
	follow(v, l)
	save(t, v)
	closeViews(t, v)
	run("PRAGMA user_version = 1")(t, path)
	origin := testOrigin
	origin.Seen = mark(t, path)
	if origin.Seen != markOf(l.events[len(l.events)-1]) {
		t.Fatalf("a file of another format has %+v", origin.Seen)
	}
	v, err := Open(path, origin, testSeals{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer closeViews(t, v)
	if v.Position() != (domain.Position{}) {
		t.Error("it was not put aside")
	}
	if got := mark(t, path); got != origin.Seen {
		t.Errorf("the new file has %+v", got)
	}
}

func TestReadMark(t *testing.T) {
	t.Parallel()
	l := newLog()
	l.organization(t)
	path := filepath.Join(t.TempDir(), "views.db")
	if m := mark(t, path); m != (Mark{}) {
		t.Errorf("without a file: %+v", m)
	}
	if err := SaveMark(path, Mark{Log: "log-1"}); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was made")
	}
	v := openViews(t, path)
	follow(v, l)
	save(t, v)
	closeViews(t, v)
	last := markOf(l.events[len(l.events)-1])

	t.Run("of a file from before there were marks", func(t *testing.T) {
		t.Parallel()
		older := copyOf(t, path)
		run("DROP TABLE seen")(t, older)
		if got, want := mark(t, older), (Mark{Log: last.Log, Position: last.Position}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("of a file whose rows are damaged", func(t *testing.T) {
		t.Parallel()
		damaged := copyOf(t, path)
		run("DROP TABLE organizations")(t, damaged)
		if got := mark(t, damaged); got != last {
			t.Errorf("got %+v, want %+v", got, last)
		}
	})
	t.Run("of a file that is none", func(t *testing.T) {
		t.Parallel()
		other := filepath.Join(t.TempDir(), "views.db")
		if err := os.WriteFile(other, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
			t.Fatal(err)
		}
		if m, err := ReadMark(other); !errors.Is(err, ErrMarkUnreadable) {
			t.Errorf("got %+v, %v", m, err)
		}
	})
	t.Run("of a file that cannot be reached", func(t *testing.T) {
		t.Parallel()
		if m, err := ReadMark(t.TempDir()); err == nil || errors.Is(err, ErrMarkUnreadable) {
			t.Errorf("got %+v, %v", m, err)
		}
	})
	t.Run("saved by somebody else", func(t *testing.T) {
		t.Parallel()
		saved := copyOf(t, path)
		want := last
		want.Position.Commit += 10
		want.Revision++
		if err := SaveMark(saved, want); err != nil {
			t.Fatal(err)
		}
		if got := mark(t, saved); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		v := openViews(t, saved)
		defer closeViews(t, v)
		if v.Position() != last.Position {
			t.Errorf("the file was put aside")
		}
	})
	t.Run("put aside", func(t *testing.T) {
		t.Parallel()
		aside := copyOf(t, path)
		if err := os.Mkdir(aside+participantsSuffix, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := PutAside(aside); err != nil {
			t.Fatal(err)
		}
		if m := mark(t, aside); m != (Mark{}) {
			t.Errorf("got %+v", m)
		}
		if m := mark(t, aside+".unusable"); m != last {
			t.Errorf("aside is %+v", m)
		}
		if _, err := os.Stat(aside + participantsSuffix); err == nil {
			t.Error("the snapshots are still there")
		}
	})
}

func copyOf(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), filepath.Base(path))
	if err := os.WriteFile(copied, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return copied
}
