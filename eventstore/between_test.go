package eventstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/lotline/lotline/domain"
)

// between returns what Between yields, with "error" for an error.
func between(ctx context.Context, l *Log, after, until domain.Position) []string {
	var out []string
	for r, err := range l.Between(ctx, after, until, domain.Kinds()) {
		if err != nil {
			return append(out, "error")
		}
		out = append(out, fmt.Sprint(r.Type, " ", r.Revision))
	}
	return out
}

func TestLog_betweenTwoPositions(t *testing.T) {
	t.Parallel()
	l := newTestLog(t)
	head, first := appendTo(t, l, stream, domain.EmptyHead(), queueCreated())
	_, foreign := appendTo(t, l, domain.ClaimStream("x"), domain.EmptyHead(), domain.Claimed{ID: "queue_1"})
	head, third := appendTo(t, l, stream, head, domain.Updated{})
	_, last := appendTo(t, l, stream, head, deleted())
	created, updated, gone := "queue.created 0", "queue.updated 1", "queue.deleted 2"
	for name, c := range map[string]struct {
		after, until domain.Position
		want         []string
	}{
		"all of it":                     {domain.Position{}, last, []string{created, updated, gone}},
		"up to an event":                {domain.Position{}, third, []string{created, updated}},
		"up to an event of others":      {domain.Position{}, foreign, []string{created}},
		"behind one":                    {first, third, []string{updated}},
		"up to where nothing is yet":    {third, domain.Position{Commit: last.Commit + 1000, Prepare: last.Prepare + 1000}, []string{gone}},
		"nothing, where others' are":    {first, foreign, nil},
		"nothing, at one place":         {third, third, nil},
		"nothing, the wrong way around": {last, first, nil},
	} {
		if got := between(t.Context(), l, c.after, c.until); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	for _, err := range l.Between(t.Context(), domain.Position{}, last, domain.Kinds()) {
		if err != nil {
			t.Error(err)
		}
		break // must not leave a goroutine behind
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if got := between(ended, l, domain.Position{}, last); !slices.Equal(got, []string{"error"}) {
		t.Errorf("a cancelled read: got %v", got)
	}
}

func TestLog_betweenTellsAnOutageFromTheEnd(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	l := s.log(testKeyring(t, 1))
	head := domain.EmptyHead()
	var last domain.Position
	for range 20 {
		head, last = appendTo(t, l, stream, head, slices.Repeat([]domain.Event{domain.Updated{}}, 100)...)
	}
	n := 0
	for _, err := range l.Between(t.Context(), domain.Position{}, last, domain.Kinds()) {
		if n == 0 {
			s.stop()
		}
		if n++; err != nil {
			if !errors.Is(err, domain.ErrUnavailable) {
				t.Error(err)
			}
			return
		}
	}
	t.Errorf("Between ended without an error after %d of 2000 events", n)
}

func TestLog_newestEventOfALimitedStream(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	l := s.log(testKeyring(t, 1))
	sink := domain.SinkStream("x")
	for range 2 {
		if err := l.KeepNewest(t.Context(), sink, 2); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := l.Newest(t.Context(), sink); r != nil || err != nil {
		t.Errorf("of an empty stream: %v, %v", r, err)
	}
	head := domain.EmptyHead()
	for i := range 5 {
		head, _ = appendTo(t, l, sink, head, domain.Leased{Holder: fmt.Sprint(i)})
	}
	r, err := l.Newest(t.Context(), sink)
	if err != nil {
		t.Fatal(err)
	}
	_, hash, _ := domain.SplitHash(r.RawMetadata)
	if got, ok := r.Event.(domain.Leased); !ok || got.Holder != "4" || (domain.Head{Revision: r.Revision, Hash: hash}) != head {
		t.Errorf("got %+v at %d, want the head %+v", r.Event, r.Revision, head)
	}
	kept := 0
	for _, err := range l.Read(t.Context(), sink, domain.NoStream) {
		if err != nil {
			t.Fatal(err)
		}
		kept++
	}
	if kept != 2 {
		t.Errorf("%d are kept", kept)
	}
	s.stop()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Newest(ended, sink); !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("without a store: %v", err)
	}
	if err := l.KeepNewest(ended, sink, 2); err == nil {
		t.Error("without a store: no error")
	}
}
