package commands

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

// line makes an open queue in which the consumers wait.
func (b *bench) line(t testing.TB, consumers ...string) (stream string) {
	t.Helper()
	stream = b.queue(t)
	if _, err := b.act(t, stream, domain.Step{To: domain.StatusOpen}, IdempotencyKey{}); err != nil {
		t.Fatal(err)
	}
	for _, c := range consumers {
		if _, err := b.act(t, stream, domain.Enter{ConsumerID: c}, IdempotencyKey{}); err != nil {
			t.Fatal(err)
		}
	}
	return stream
}

// act carries out a command of org.
func (b *bench) act(t testing.TB, stream string, c domain.Command, k IdempotencyKey) (Result, error) {
	t.Helper()
	return b.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: c, IdempotencyKey: k})
}

// wantParticipations checks the participations of a result, each written as "a ADMITTED".
func wantParticipations(t *testing.T, r Result, want ...string) {
	t.Helper()
	var got []string
	for _, p := range r.Participations {
		got = append(got, p.Consumer()+" "+p.(*domain.QueuePlace).Standing.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("the result has %q, want %q", got, want)
	}
	if r.History != nil {
		t.Error("it has the history as well, which would be copied for each command")
	}
}

// The result of a command about a consumer has the consumer's participation after the
// command, whether or not the command wrote anything.
func TestHandler_aResultHasTheParticipationAfterTheCommand(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.line(t, "a", "b", "c")
	for _, step := range []struct {
		command domain.Command
		want    []string
	}{
		{domain.Enter{ConsumerID: "d"}, []string{"d QUEUED"}},
		{domain.Enter{ConsumerID: "d"}, []string{"d QUEUED"}},
		{domain.Leave{ConsumerID: "d"}, []string{"d LEFT"}},
		{domain.Admit{ConsumerID: "c"}, []string{"c ADMITTED"}},
		{domain.Admit{Count: 5}, []string{"a ADMITTED", "b ADMITTED"}},
		{domain.Admit{Count: 5}, nil},
		{domain.Complete{ConsumerID: "a"}, []string{"a COMPLETED"}},
		{domain.Deny{ConsumerID: "b", Reason: domain.DenyFraud}, []string{"b DENIED"}},
	} {
		r, err := b.act(t, stream, step.command, IdempotencyKey{})
		if err != nil {
			t.Fatal(err)
		}
		wantParticipations(t, r, step.want...)
	}
	_, err := b.act(t, stream, domain.Leave{ConsumerID: "nobody"}, IdempotencyKey{})
	refusedWith(t, err, domain.NotIn(domain.KindQueue))
	b.log.verify(t)
}

// Of commands that are appended together, each gets the state right after itself.
func TestHandler_eachCommandOfABatchHasItsOwnResult(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.line(t)
	held, release := make(chan struct{}), make(chan struct{})
	first := b.log.appends + 1
	b.log.before = func(n int, _ string) error {
		if n == first {
			close(held)
			<-release
		}
		return nil
	}
	const n = 50
	results := make(chan Result, n)
	send := func(i int) {
		r, err := b.act(t, stream, domain.Enter{ConsumerID: fmt.Sprint(i)}, IdempotencyKey{})
		if err != nil {
			t.Error(err)
		}
		results <- r
	}
	go send(0)
	<-held
	for i := 1; i < n; i++ {
		go send(i)
	}
	b.awaitWaiting(t, stream, n-1)
	close(release)
	places := map[int64]string{}
	for range n {
		p := (<-results).Participations[0].(*domain.QueuePlace)
		if other, taken := places[p.Position]; taken {
			t.Errorf("%s and %s both have place %d", p.ConsumerID, other, p.Position)
		}
		places[p.Position] = p.ConsumerID
	}
	if got := b.log.appends - first; got != 1 {
		t.Errorf("%d appends for those that waited", got)
	}
	b.log.verify(t)
}

// A repeated admission by count returns the consumers that the first one admitted, in their
// present state, and admits nobody.
func TestHandler_admittingByCountIsRepeatable(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.line(t, "a", "b", "c", "d")
	k := idempotencyKey("k", "body")
	r, err := b.act(t, stream, domain.Admit{Count: 2}, k)
	if err != nil {
		t.Fatal(err)
	}
	wantParticipations(t, r, "a ADMITTED", "b ADMITTED")
	if _, err := b.act(t, stream, domain.Complete{ConsumerID: "a"}, IdempotencyKey{}); err != nil {
		t.Fatal(err)
	}
	written := len(b.log.types(stream))
	for name, h := range map[string]*Handler{"same node": b.Handler, "after a restart": NewHandler(b.log, nil, b.clock.time)} {
		again, err := h.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: domain.Admit{Count: 2}, IdempotencyKey: k})
		if err != nil || !again.Replayed {
			t.Errorf("%s: %+v, %v", name, again, err)
		}
		wantParticipations(t, again, "a COMPLETED", "b ADMITTED")
		k := k
		k.BodyHash = "other"
		_, err = h.Handle(t.Context(), Request{Stream: stream, Organization: org, Command: domain.Admit{Count: 3}, IdempotencyKey: k})
		refusedWith(t, err, domain.IdempotencyReused)
	}
	if got := len(b.log.types(stream)); got != written {
		t.Errorf("%d events more", got-written)
	}
	// When the log cannot be read, the repeat fails.
	b.log.reading = func(int, string) error { return domain.ErrUnavailable }
	if r, err := b.act(t, stream, domain.Admit{Count: 2}, k); err == nil {
		t.Errorf("without the log: %+v", r)
	}
}

// The same holds when the repeats are in the same batch.
func TestHandler_admittingByCountIsRepeatableWithinABatch(t *testing.T) {
	t.Parallel()
	b := newBench()
	stream := b.line(t, "a", "b", "c", "d")
	held, release := make(chan struct{}), make(chan struct{})
	first := b.log.appends + 1
	b.log.before = func(n int, _ string) error {
		if n == first {
			close(held)
			<-release
		}
		return nil
	}
	go func() { _, _ = b.act(t, stream, domain.Enter{ConsumerID: "e"}, IdempotencyKey{}) }()
	<-held
	const n = 3
	results := make(chan Result, n)
	for range n {
		go func() {
			r, err := b.act(t, stream, domain.Admit{Count: 2}, idempotencyKey("k", "body"))
			if err != nil {
				t.Error(err)
			}
			results <- r
		}()
	}
	b.awaitWaiting(t, stream, n)
	close(release)
	replayed := 0
	for range n {
		r := <-results
		if wantParticipations(t, r, "a ADMITTED", "b ADMITTED"); r.Replayed {
			replayed++
		}
	}
	if replayed != n-1 {
		t.Errorf("%d of %d were replayed", replayed, n)
	}
	b.log.verify(t)
}

// When the answer to an append is lost, the writer reads from the log which consumers the
// command was about. Consumers that were admitted automatically because of it are not
// among them.
func TestHandler_aLostAnswerStillNamesTheConsumers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command domain.Command
		key     IdempotencyKey
		want    []string
	}{
		"by count":             {domain.Admit{Count: 2}, IdempotencyKey{}, []string{"a ADMITTED", "b ADMITTED"}},
		"by count, with a key": {domain.Admit{Count: 2}, idempotencyKey("k", "body"), []string{"a ADMITTED", "b ADMITTED"}},
		"by name":              {domain.Admit{ConsumerID: "b"}, IdempotencyKey{}, []string{"b ADMITTED"}},
		"entering":             {domain.Enter{ConsumerID: "d"}, idempotencyKey("k", "body"), []string{"d QUEUED"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench()
			stream := b.line(t, "a", "b", "c")
			lost := b.log.appends + 1
			b.log.after = func(n int, _ string) error {
				if n == lost {
					return domain.ErrOutcomeUnknown
				}
				return nil
			}
			written := len(b.log.types(stream))
			r, err := b.act(t, stream, c.command, c.key)
			if err != nil || r.Replayed {
				t.Fatalf("%+v, %v", r, err)
			}
			wantParticipations(t, r, c.want...)
			if got := len(b.log.types(stream)) - written; got != len(c.want) {
				t.Errorf("%d events", got)
			}
			b.log.verify(t)
		})
	}
}

// The largest admission by count, with the largest metadata, fits into one append of the
// store, whatever other commands wait beside it.
func TestHandler_theLargestAdmissionFits(t *testing.T) {
	t.Parallel()
	const limit = 1 << 20 // of the store, in bytes
	b := newBench()
	stream := b.line(t)
	if err := b.update(t, stream, "sessionDurationSeconds", "60"); err != nil {
		t.Fatal(err)
	}
	caller := Caller{
		Actor: "key_01h455vb4pex5vsknk084sn02r", RequestID: strings.Repeat("r", 128),
		Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}
	enter := func(i int) error {
		_, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Enter{ConsumerID: fmt.Sprintf("%0128d", i)}, Caller: caller})
		return err
	}
	for i := range domain.MaxAdmit {
		if err := enter(i); err != nil {
			t.Fatal(err)
		}
	}
	held, release := make(chan struct{}), make(chan struct{})
	first := b.log.appends + 1
	b.log.before = func(n int, _ string) error {
		if n == first {
			close(held)
			<-release
		}
		return nil
	}
	done := make(chan error, 2000)
	go func() { done <- enter(5000) }()
	<-held
	// Other commands come before and after the admission.
	const others = 400
	for i := range others / 2 {
		go func() { done <- enter(6000 + i) }()
	}
	b.awaitWaiting(t, stream, others/2)
	admitted := make(chan Result, 1)
	go func() {
		r, err := b.Handle(t.Context(), Request{Stream: stream, Command: domain.Admit{Count: domain.MaxAdmit}, Caller: caller, IdempotencyKey: idempotencyKey("k", strings.Repeat("b", 64))})
		if err != nil {
			t.Error(err)
		}
		admitted <- r
	}()
	b.awaitWaiting(t, stream, others/2+1)
	for i := range others / 2 {
		go func() { done <- enter(7000 + i) }()
	}
	b.awaitWaiting(t, stream, others+1)
	close(release)
	for range others + 1 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if r := <-admitted; len(r.Participations) != domain.MaxAdmit {
		t.Errorf("%d were admitted", len(r.Participations))
	}
	// Size adds 256 bytes to the encoded bytes of each event. Less than 100 of them are
	// really used, by the hash and by the second copy of the type that the store counts.
	if got := b.log.largest - domain.MaxAdmit*(256-100); got > limit {
		t.Errorf("the largest append has %d bytes", got)
	}
	b.log.verify(t)
}
