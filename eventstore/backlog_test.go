package eventstore

import (
	"errors"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestLog_countsTheEventsAfterAPosition(t *testing.T) {
	t.Parallel()
	s := newTestStore(t)
	l := s.log(testKeyring(t, 1))
	queues := []domain.Kind{domain.KindQueue}
	expect := func(after domain.Position, atMost, events int, oldest time.Time) {
		t.Helper()
		b, err := l.Backlog(t.Context(), after, queues, atMost)
		if err != nil {
			t.Fatal(err)
		}
		if b.Events != events || !b.Oldest.Equal(oldest) {
			t.Errorf("after %v: %+v, want %d since %s", after, b, events, oldest)
		}
	}
	expect(domain.Position{}, 100, 0, time.Time{})
	head, first, err := l.Append(t.Context(), stream, domain.EmptyHead(), encode(t, l, stream, queueCreated()))
	if err != nil {
		t.Fatal(err)
	}
	// Events of other kinds do not count.
	if _, _, err := l.Append(t.Context(), "claim-x", domain.EmptyHead(), encode(t, l, "claim-x", domain.Claimed{Stamp: domain.Stamp{At: 1_795_000_000_000}, ID: "queue_01h455vb4pex5vsknk084sn02q"})); err != nil {
		t.Fatal(err)
	}
	_, last, err := l.Append(t.Context(), stream, head, encode(t, l, stream, deleted()))
	if err != nil {
		t.Fatal(err)
	}
	at := func(r domain.Revision) time.Time { return read(t, l, stream, r-1)[0].RecordedAt }
	expect(domain.Position{}, 100, 2, at(0))
	expect(first, 100, 1, at(1))
	expect(last, 100, 0, time.Time{})
	expect(domain.Position{}, 1, 1, at(0))

	s.stop()
	if b, err := l.Backlog(t.Context(), first, queues, 100); !errors.Is(err, domain.ErrUnavailable) || b != (Backlog{}) {
		t.Errorf("without a server: %+v, %v", b, err)
	}
}
