package projections

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

func TestRun(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "views.db")
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		org := l.organization(t)
		v := openViews(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()

		l.create(t, org, domain.KindQueue, nil)
		follow(v, l)
		second()
		if reload(t, path) != v.Digest() {
			t.Error("nothing was written after a second")
		}
		l.create(t, org, domain.KindAuction, nil)
		follow(v, l)
		if reload(t, path) == v.Digest() {
			t.Error("written at once")
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if reload(t, path) != v.Digest() {
			t.Error("not written at the end")
		}
		closeViews(t, v)
	})
}

// second lets a little more than a second of fake time pass.
func second() {
	time.Sleep(1100 * time.Millisecond) //nolint:forbidigo // synctest
	synctest.Wait()
}

// While the file cannot be written, nothing is lost and queries go on.
func TestRun_failingWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "views.db")
	synctest.Test(t, func(t *testing.T) {
		l := newLog()
		org := l.organization(t)
		logged := make(chan string, 10)
		v, err := Open(path, testOrigin, testSeals{}, zerolog.New(lines(logged)))
		if err != nil {
			t.Fatal(err)
		}
		run("CREATE TRIGGER refuse BEFORE INSERT ON position BEGIN SELECT raise(ABORT, 'refused'); END")(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- v.Run(ctx) }()

		var ids []domain.ID
		for range 50 {
			ids = append(ids, l.create(t, org, domain.KindQueue, nil))
		}
		follow(v, l)
		second()
		l.must(t, ids[0], fields("name", `"newer than what failed"`))
		follow(v, l)
		second()
		if n := len(logged); n != 2 || !strings.Contains(<-logged, "refused") || v.WriteFailures() != 2 {
			t.Errorf("%d failures, and it counted %d", n, v.WriteFailures())
		}
		if page, err := v.List(ListQuery{Organization: org, SortBy: SortCreatedAt, Limit: 100}); err != nil || len(page.Rows) != 50 {
			t.Error(len(page.Rows), err)
		}
		if reload(t, path) == v.Digest() {
			t.Error("the file was written all the same")
		}
		run("DROP TRIGGER refuse")(t, path)
		second()
		if reload(t, path) != v.Digest() {
			t.Error("what failed was not written later")
		}
		run("CREATE TRIGGER refuse BEFORE INSERT ON position BEGIN SELECT raise(ABORT, 'refused'); END")(t, path)
		cancel()
		if err := <-done; err == nil {
			t.Error("the last write failed without an error")
		}
		if v.WriteFailures() != 3 {
			t.Errorf("it counted %d failures", v.WriteFailures())
		}
		closeViews(t, v)
	})
}

// lines receives the lines of a logger.
type lines chan string

func (l lines) Write(line []byte) (int, error) {
	l <- string(line)
	return len(line), nil
}

// A full backlog is signalled before the second is over.
func TestRun_aFullBacklogIsWrittenAtOnce(t *testing.T) {
	t.Parallel()
	v := emptyViews()
	for range backlogLimit - 1 {
		v.dirty[&streamSlot{}] = nil
	}
	l := newLog()
	l.create(t, l.id("org"), domain.KindQueue, nil)
	l.create(t, l.id("org"), domain.KindQueue, nil)
	follow(v, l)
	if len(v.backlogFull) != 1 {
		t.Fatal("it is not signalled")
	}
}
