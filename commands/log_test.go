package commands

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"reflect"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lotline/lotline/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testLog is a log in memory. Tests can make its calls fail.
type testLog struct {
	mu      sync.Mutex // guards the fields below
	streams map[string][]*domain.Recorded
	written uint64
	appends int
	largest int // size of the largest append in bytes
	reads   int
	encoded int // events that were encoded
	yielded int // events that were read

	// before is called before an append writes, after when it has written. The append
	// returns their error. n is 1 for the first append.
	before, after func(n int, stream string) error
	// reading is called before a read. An error ends the read.
	reading func(n int, stream string) error
	// delay may keep an append back by returning an error, and call write later.
	delay func(n int, write func()) error
	clock func() time.Time
}

func newTestLog(clock func() time.Time) *testLog {
	never := func(int, string) error { return nil }
	return &testLog{streams: map[string][]*domain.Recorded{}, before: never, after: never, reading: never, clock: clock}
}

func (l *testLog) Encode(_ string, e domain.Event, m domain.Metadata) (domain.Proposed, error) {
	if holder, ok := e.(domain.SecretHolder); ok {
		for _, s := range holder.Secrets() {
			s.Value.Sealed = s.Value.Plain
		}
	}
	l.mu.Lock()
	l.encoded++
	l.mu.Unlock()
	data, err := json.Marshal(e)
	if err != nil {
		return domain.Proposed{}, err
	}
	m.SchemaVersion = 1
	metadata, err := json.Marshal(m)
	return domain.Proposed{Type: reflect.TypeOf(e).String(), Data: data, Metadata: metadata}, err
}

func (l *testLog) Append(_ context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	l.mu.Lock()
	l.appends++
	n := l.appends
	size := 0
	for _, p := range events {
		size += p.Size()
	}
	l.largest = max(l.largest, size)
	l.mu.Unlock()
	// The hooks may use the log themselves.
	if err := l.before(n, stream); err != nil {
		return domain.Head{}, domain.Position{}, err
	}
	if l.delay != nil {
		if err := l.delay(n, func() { _, _, _ = l.write(stream, head, events) }); err != nil {
			return domain.Head{}, domain.Position{}, err
		}
	}
	head, position, err := l.write(stream, head, events)
	if err != nil {
		return domain.Head{}, domain.Position{}, err
	}
	if err := l.after(n, stream); err != nil {
		return domain.Head{}, domain.Position{}, err
	}
	return head, position, nil
}

func (l *testLog) write(stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if after, position, ok := l.repeated(stream, head, events); ok {
		return after, position, nil
	}
	if head.Revision != domain.Revision(len(l.streams[stream])-1) {
		return domain.Head{}, domain.Position{}, fmt.Errorf("append to %s: %w", stream, domain.ErrWrongRevision)
	}
	for _, p := range events {
		head.Revision++
		head.Hash = domain.EventHash(p.ID, p.Type, stream, head.Revision, p.Data, p.Metadata, head.Hash)
		l.written++
		r := &domain.Recorded{
			ID: p.ID, Type: p.Type, Stream: stream, Revision: head.Revision,
			Position:   domain.Position{Commit: l.written, Prepare: l.written},
			RecordedAt: l.clock(), Data: p.Data, RawMetadata: domain.WithHash(p.Metadata, head.Hash),
		}
		r.Undecoded = json.Unmarshal(p.Metadata, &r.Metadata)
		r.Event = decode(p.Type, p.Data)
		l.streams[stream] = append(l.streams[stream], r)
	}
	return head, domain.Position{Commit: l.written, Prepare: l.written}, nil
}

// repeated recognises an append that was sent before, as the store does: the events at the
// expected revision have the same ids. It compares nothing else.
func (l *testLog) repeated(stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, bool) {
	stored := l.streams[stream][min(int(head.Revision+1), len(l.streams[stream])):]
	if len(stored) < len(events) {
		return domain.Head{}, domain.Position{}, false
	}
	for i, p := range events {
		if stored[i].ID != p.ID {
			return domain.Head{}, domain.Position{}, false
		}
		head.Revision++
		head.Hash = domain.EventHash(p.ID, p.Type, stream, head.Revision, p.Data, p.Metadata, head.Hash)
	}
	return head, stored[len(events)-1].Position, true
}

// decode makes an event from its bytes, so that it shares no memory with the one that was
// appended.
func decode(name string, data []byte) domain.Event {
	for _, e := range []domain.Event{
		domain.Updated{},
		domain.Scheduled{},
		domain.Unscheduled{},
		domain.Opened{},
		domain.Closed{},
		domain.DrawClosed{},
		domain.EntropySupplied{},
		domain.Drawn{},
		domain.Settled{},
		domain.Completed{},
		domain.Deleted{},
		domain.Claimed{},
		domain.OrganizationCreated{},
		domain.KeyCreated{},
		domain.KeyRevoked{},
		domain.KeyExpired{},
		domain.ConsumerEntered{},
		domain.ConsumerAdmitted{},
		domain.ConsumerCompleted{},
		domain.ConsumerExpired{},
		domain.ConsumerLeft{},
		domain.ConsumerDenied{},
		&domain.QueueCreated{}, &domain.DrawCreated{}, &domain.AuctionCreated{},
	} {
		if reflect.TypeOf(e).String() != name {
			continue
		}
		v := reflect.New(reflect.TypeOf(e))
		if err := json.Unmarshal(data, v.Interface()); err != nil {
			panic(err)
		}
		decoded := v.Elem().Interface().(domain.Event)
		if holder, ok := decoded.(domain.SecretHolder); ok {
			for _, s := range holder.Secrets() {
				s.Value.Plain = s.Value.Sealed
			}
		}
		return decoded
	}
	return nil
}

func (l *testLog) Read(_ context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	return func(yield func(*domain.Recorded, error) bool) {
		l.mu.Lock()
		l.reads++
		n := l.reads
		events := l.streams[stream][min(int(after+1), len(l.streams[stream])):]
		l.mu.Unlock()
		if err := l.reading(n, stream); err != nil {
			yield(nil, fmt.Errorf("read %s: %w", stream, err))
			return
		}
		for _, r := range events {
			l.mu.Lock()
			l.yielded++
			l.mu.Unlock()
			if !yield(r, nil) {
				return
			}
		}
	}
}

// types returns the types of the events of a stream.
func (l *testLog) types(stream string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []string
	for _, r := range l.streams[stream] {
		out = append(out, r.Type)
	}
	return out
}

// verify replays every stream. So it checks the revisions, the hashes and the rules.
func (l *testLog) verify(t testing.TB) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	ids := map[[16]byte]bool{}
	for stream, events := range l.streams {
		h := domain.NewHistory(stream)
		for _, r := range events {
			if ids[r.ID] {
				t.Errorf("%s@%d has the id of another event", stream, r.Revision)
			}
			ids[r.ID] = true
			if err := h.Apply(r); err != nil {
				t.Error(err)
			}
		}
	}
}
