package relay

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/domain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	stream = "queue-01h455vb4pex5vsknk084sn02q"
	id     = domain.ID("queue_01h455vb4pex5vsknk084sn02q")
	nine   = domain.Instant(1_795_000_000_000)
)

var eventID = uuid.MustParse("01890a5d-ac96-774b-bcce-b302099a8057")

// believing are read models that accept every event.
type believing struct{}

func (believing) Believes(*domain.Recorded) bool { return true }

func at(n uint64) domain.Position { return domain.Position{Commit: n, Prepare: n} }

func recorded(n uint64, eventType string, e domain.Event) *domain.Recorded {
	return &domain.Recorded{ID: eventID, Type: eventType, Stream: stream, Position: at(n), Data: fmt.Appendf(nil, `{"n":%d}`, n), Event: e}
}

func created() *domain.QueueCreated {
	e := &domain.QueueCreated{Stamp: domain.Stamp{At: nine}}
	e.OpenAt = nine + 1000
	return e
}

func renamed() domain.Updated {
	return domain.Updated{Stamp: domain.Stamp{At: nine}, Changed: map[string]domain.Change{"name": {Old: []byte(`null`), New: []byte(`"x"`)}}, Cause: domain.CauseUpdate}
}

// start runs r and returns the function that stops it.
func start(r *Relay) func() {
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
	}
}

func TestRelay_publishesInTheOrderOfTheLog(t *testing.T) {
	t.Parallel()
	bus := gochannel.NewGoChannel(gochannel.Config{BlockPublishUntilSubscriberAck: true}, watermill.NopLogger{})
	messages, err := bus.Subscribe(t.Context(), "queue")
	if err != nil {
		t.Fatal(err)
	}
	r := New(bus, believing{}, at(2), zerolog.Nop())
	stop := start(r)
	const n = 2000
	go func() {
		for i := uint64(1); i <= n; i++ {
			e := recorded(i, "queue.updated", renamed())
			r.Follow(e)
			r.Follow(e) // delivered again, as after a reconnection
		}
		// Events of streams that are not distributions are not published.
		org := recorded(n+1, "organization.created", domain.OrganizationCreated{})
		org.Stream = "organization-01h455vb4pex5vsknk084sn02q"
		r.Follow(org)
		r.Follow(recorded(n+2, "queue.updated", renamed()))
	}()
	var got []uint64
	for len(got) < n-1 {
		m := <-messages
		var e struct{ Data struct{ N uint64 } }
		if err := json.Unmarshal(m.Payload, &e); err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Data.N)
		m.Ack()
	}
	var want []uint64
	for i := uint64(3); i <= n; i++ {
		want = append(want, i)
	}
	if want = append(want, n+2); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	stop()
	if err := bus.Close(); err != nil {
		t.Error(err)
	}
}

// stubborn is a bus that refuses every message a few times.
type stubborn struct {
	mu    sync.Mutex
	tries map[string]int
	taken chan string
}

func (s *stubborn) Publish(topic string, messages ...*message.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range messages {
		if s.tries[topic+m.UUID]++; s.tries[topic+m.UUID] < 3 {
			return errors.New("not now")
		}
		s.taken <- topic
	}
	return nil
}

func (s *stubborn) Close() error { return nil }

func TestRelay_publishesAgainWhatWasRefusedBeforeItGoesOn(t *testing.T) {
	t.Parallel()
	bus := &stubborn{tries: map[string]int{}, taken: make(chan string, 10)}
	r := New(bus, believing{}, domain.Position{}, zerolog.Nop())
	defer start(r)()
	r.Follow(recorded(1, "queue.created", created()))
	if first, second := <-bus.taken, <-bus.taken; first != "queue" || second != "distribution.updated" {
		t.Errorf("got %s, %s", first, second)
	}
}

func TestRelay_doesNotHoldUpTheLog(t *testing.T) {
	t.Parallel()
	var logged bytes.Buffer
	r := New(&stubborn{}, believing{}, domain.Position{}, zerolog.New(&logged))
	for i := uint64(1); i <= queued+10; i++ {
		r.Follow(recorded(i, "queue.updated", renamed()))
	}
	if r.Waiting() != queued || r.Dropped() != 10 {
		t.Errorf("%d wait, %d were dropped", r.Waiting(), r.Dropped())
	}
	<-r.events
	r.Follow(recorded(queued+11, "queue.updated", renamed()))
	if !strings.Contains(logged.String(), `"events":10`) || r.Dropped() != 10 {
		t.Errorf("%d were dropped, logged %s", r.Dropped(), logged.String())
	}
}

// doubting are read models that do not accept openings.
type doubting struct{}

func (doubting) Believes(r *domain.Recorded) bool { return r.Type != "queue.opened" }

// Events that the read models refused are not published.
func TestRelay_publishesNothingThatIsInQuarantine(t *testing.T) {
	t.Parallel()
	bus := &stubborn{tries: map[string]int{}, taken: make(chan string, 10)}
	r := New(bus, doubting{}, domain.Position{}, zerolog.Nop())
	stop := start(r)
	r.Follow(recorded(1, "queue.opened", domain.Opened{Stamp: domain.Stamp{At: nine}}))
	r.Follow(recorded(2, "queue.created", created()))
	if first, second := <-bus.taken, <-bus.taken; first != "queue" || second != "distribution.updated" {
		t.Errorf("got %s, %s", first, second)
	}
	stop()
	if n := len(bus.taken); n > 0 {
		t.Errorf("%d messages more", n)
	}
}
