package storetest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
)

// planted is a bug that a store could have, and what the case that must find it reports.
type planted struct {
	bug  func() faults
	says string // a regular expression
	// waits says that the bug shows as something that does not happen.
	waits bool
}

// bugs are the bugs that each case must find.
var bugs = map[string]map[string]planted{
	"racing writers": {
		"takes a stale revision": {takesStaleRevisions, `was given to two writers`, false},
		"forgets an append":      {forgetsEveryFifthAppend, `was given to two writers|was refused, and the stream ends there`, false},
	},
	"expected revisions": {
		"takes a stale revision":   {takesStaleRevisions, `revision 0, the stream is missing: accepted`, false},
		"refuses a good revision":  {refusesGoodRevisions, `no stream, the stream is missing: refused`, false},
		"writes what it refuses":   {writesWhatItRefuses, `no stream, the stream is of one event: it holds 2 events then, not 1`, false},
		"does not know tombstones": {takesTombstonesForMissing, `the stream is tombstoned: \[ErrorCodeWrongExpectedVersion\]`, false},
	},
	"reads cut short": {
		"ends a read early": {endsReadsEarly, `the reader has 5 events of 8 and the error <nil>`, false},
	},
	"lost responses": {
		"writes a repeated append again": {writesRepeatedAppends, `the stream holds \d+ events of 8`, false},
		"refuses a repeated append":      {refusesRepeatedAppends, `the same append sent again: .*another revision`, false},
	},
	"dropped subscriptions": {
		"skips the first event when taken up": {skipsWhenTakenUp, `revision \d came when it was \d's turn`, false},
	},
	"slow subscribers": {
		"has appends wait for subscribers": {appendsWaitForSubscribers, `an append beside a subscriber that stands still: .*unknown`, true},
		"drops what is not taken":          {dropsEventsOfTheFirst, `a subscriber that stood still: revision 8 came when it was 7's turn`, false},
	},
	"large events": {
		"cuts large data off":             {cutsDataOff, `comes back with 65536 bytes of`, false},
		"takes what is too large":         {takesLargeAppends, `an append of .* beyond 1 MiB: <nil>`, false},
		"keeps a part of what it refuses": {keepsPartOfLargeAppends, `was refused, and \d events were written`, false},
	},
	"deletes": {
		"does not know tombstones":     {takesTombstonesForMissing, `a tombstoned stream is read as one that was never there`, false},
		"begins a deleted stream at 0": {beginsDeletedStreamsAtZero, `the stream goes on at revision 0`, false},
		"shows what was deleted":       {showsDeletedEvents, `a deleted stream shows 1 events`, false},
	},
	"repeated appends": {
		"writes a repeated append again": {writesRepeatedAppends, `again: the stream holds 6 events then, not 3`, false},
		"refuses a repeated append":      {refusesRepeatedAppends, `again: refused`, false},
		"takes a part for the whole":     {takesPartForWhole, `another behind: not refused`, false},
	},
	"order of the log": {
		"exchanges two events":         {onSubscriptions(exchangesEvents), `is not what a read of the log has there`, false},
		"skips an event":               {onSubscriptions(skipsEvent), `is not what a read of the log has there`, false},
		"delivers an event twice":      {onSubscriptions(deliversTwice), `is not what a read of the log has there`, false},
		"renumbers an event":           {onSubscriptions(renumbersEvent), `is not what a read of the log has there`, false},
		"has checkpoints run ahead":    {onSubscriptions(checkpointsAhead), `checkpoint .* came before the event at`, false},
		"has no checkpoints":           {onSubscriptions(dropsCheckpoints), `there was no checkpoint`, false},
		"acknowledges before it works": {acknowledgesEarly, `was acknowledged before another was begun, and comes behind it`, false},
		"loses events in $all":         {losesEventsInAll, `an acknowledged event is not in the log`, false},
		"goes back in $all":            {goesBackInAll, `position .* follows`, false},
	},
	"reading what was appended": {
		"reads from an old state": {readsFromOldState, `does not see event 0, which was acknowledged`, false},
		"has an old end":          {hasOldEnd, `sees the log end at`, false},
	},
	"the bytes that were appended": {
		"writes metadata anew": {compactsMetadata, `event 0 has the metadata`, false},
		"ends data at a zero":  {endsDataAtZero, `event 2 has the data`, false},
		"takes all for JSON":   {takesAllForJSON, `event 2 is application/json`, false},
	},
}

func TestCases_failOnPlantedBugs(t *testing.T) {
	t.Parallel()
	if got, want := slices.Sorted(maps.Keys(bugs)), slices.Sorted(maps.Keys(cases)); !slices.Equal(got, want) {
		t.Fatalf("there are bugs for %v, and cases %v", got, want)
	}
	for name, planted := range bugs {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// First without a bug: otherwise the proxy itself could be what the case
			// fails on.
			s := embeddedStore(t)
			s.small = true
			through, _ := s.throughProxy(t, faults{})
			if said := record(t, func(t testing.TB) { cases[name](t, through) }); len(said) > 0 {
				t.Errorf("without a bug it says: %s", strings.Join(said, "\n"))
			}
			for bug, p := range planted {
				if said := p.findings(t, s, cases[name]); !slices.ContainsFunc(said, regexp.MustCompile(p.says).MatchString) {
					t.Errorf("a store that %s: the case says %q, and not: %s", bug, said, p.says)
				}
			}
		})
	}
}

// findings runs a case on a store with the bug and returns what it reports. Bugs that
// show without waiting get full patience at once, because on a slow machine the case
// could otherwise report a timeout instead.
func (p planted) findings(t *testing.T, s store, run func(testing.TB, store)) (said []string) {
	t.Helper()
	patience := plenty
	if p.waits {
		patience = time.Second
	}
	for ; patience <= plenty && !slices.ContainsFunc(said, regexp.MustCompile(p.says).MatchString); patience *= 4 {
		s, _ := s.throughProxy(t, p.bug())
		s.patience = patience
		said = record(t, func(t testing.TB) { run(t, s) })
	}
	return said
}

// recorder is a testing.TB that records failures instead of failing the test.
type recorder struct {
	testing.TB
	ctx context.Context

	mu       sync.Mutex // guards the fields below
	said     []string
	cleanups []func()
}

// record runs a case and returns the failures it reports.
func record(t *testing.T, run func(testing.TB)) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &recorder{TB: t, ctx: ctx}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Package testing has the same order: it first cancels the context, and then runs
		// the cleanups, the last one first.
		defer func() {
			cancel()
			for _, f := range slices.Backward(r.cleanups) {
				f()
			}
		}()
		run(r)
	}()
	<-done
	return r.said
}

func (r *recorder) Context() context.Context { return r.ctx }

func (r *recorder) Cleanup(f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cleanups = append(r.cleanups, f)
}

func (r *recorder) Error(args ...any) { r.Errorf("%s", fmt.Sprint(args...)) }

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.said = append(r.said, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.said) > 0
}

// Helpers for the bugs below.

func setAny(c *appendCall) {
	c.options().ExpectedStreamRevision = &streamspb.AppendReq_Options_Any{Any: &shared.Empty{}}
}

// claimed returns the success that a client with an exact expected revision expects.
func claimed(c *appendCall) *streamspb.AppendResp {
	revision := uint64(len(c.requests) - 2)
	if expected, ok := c.options().GetExpectedStreamRevision().(*streamspb.AppendReq_Options_Revision); ok {
		revision = expected.Revision + uint64(len(c.requests)-1)
	}
	return &streamspb.AppendResp{Result: &streamspb.AppendResp_Success_{Success: &streamspb.AppendResp_Success{
		CurrentRevisionOption: &streamspb.AppendResp_Success_CurrentRevision{CurrentRevision: revision},
		PositionOption:        &streamspb.AppendResp_Success_Position{Position: &streamspb.AppendResp_Position{CommitPosition: 1, PreparePosition: 1}},
	}}}
}

func refusal() *streamspb.AppendResp {
	return &streamspb.AppendResp{Result: &streamspb.AppendResp_WrongExpectedVersion_{WrongExpectedVersion: &streamspb.AppendResp_WrongExpectedVersion{}}}
}

func onAppend(f func(*appendCall) (*streamspb.AppendResp, error)) faults { return faults{append: f} }

// expectsRevision reports whether an append expects a revision, or no stream.
func expectsRevision(c *appendCall) bool {
	switch c.options().GetExpectedStreamRevision().(type) {
	case *streamspb.AppendReq_Options_Revision, *streamspb.AppendReq_Options_NoStream:
		return true
	}
	return false
}

func isMetadata(stream string) bool { return strings.HasPrefix(stream, "$$") }

// reading returns faults that change or drop the events of the reads that match.
func reading(matches func(*streamspb.ReadReq_Options) bool, event func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool) func() faults {
	return func() faults {
		return faults{read: func(r *streamspb.ReadReq) sieve {
			if !matches(r.GetOptions()) {
				return nil
			}
			keep := event()
			return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
				if e := m.GetEvent().GetEvent(); e != nil && !keep(e) {
					return nil
				}
				return send(m)
			}
		}}
	}
}

func ofStream(o *streamspb.ReadReq_Options) bool { return o.GetStream() != nil }

func ofAll(o *streamspb.ReadReq_Options) bool {
	return o.GetAll() != nil && o.GetSubscription() == nil && o.GetReadDirection() == streamspb.ReadReq_Options_Forwards
}

// Bugs of appends.

func takesStaleRevisions() faults {
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if !expectsRevision(c) {
			return c.forward(c)
		}
		response := claimed(c)
		setAny(c)
		if _, err := c.forward(c); err != nil {
			return nil, err
		}
		return response, nil
	})
}

func forgetsEveryFifthAppend() faults {
	var n atomic.Int64
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if n.Add(1)%5 == 0 {
			return claimed(c), nil
		}
		return c.forward(c)
	})
}

func refusesGoodRevisions() faults {
	var known sync.Map // names of streams
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if _, ok := known.LoadOrStore(c.stream(), true); !ok && len(c.requests) == 2 && !isMetadata(c.stream()) {
			return refusal(), nil
		}
		return c.forward(c)
	})
}

func writesWhatItRefuses() faults {
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		response, err := c.forward(c)
		if response.GetWrongExpectedVersion() == nil {
			return response, err
		}
		setAny(c)
		if _, err := c.forward(c); err != nil {
			return nil, err
		}
		return response, nil
	})
}

// takesTombstonesForMissing responds for a tombstoned stream as for a missing one.
func takesTombstonesForMissing() faults {
	return faults{
		append: func(c *appendCall) (*streamspb.AppendResp, error) {
			response, err := c.forward(c)
			if err != nil && strings.Contains(err.Error(), "is deleted") {
				return refusal(), nil
			}
			return response, err
		},
		end: func(r *streamspb.ReadReq, err error, send func(*streamspb.ReadResp) error) error {
			if err == nil || !strings.Contains(err.Error(), "is deleted") {
				return err
			}
			return send(&streamspb.ReadResp{Content: &streamspb.ReadResp_StreamNotFound_{StreamNotFound: &streamspb.ReadResp_StreamNotFound{
				StreamIdentifier: r.GetOptions().GetStream().GetStreamIdentifier(),
			}}})
		},
	}
}

// repeated remembers the id of each append's first event.
type repeated struct{ sync.Map }

func (r *repeated) seen(c *appendCall) bool {
	_, ok := r.LoadOrStore(c.requests[1].GetProposedMessage().GetId().String(), true)
	return ok
}

func writesRepeatedAppends() faults {
	var known repeated
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if !known.seen(c) {
			return c.forward(c)
		}
		response := claimed(c)
		setAny(c)
		for _, r := range c.requests[1:] {
			r.GetProposedMessage().Id = &shared.UUID{Value: &shared.UUID_String_{String_: uuid.NewString()}}
		}
		if _, err := c.forward(c); err != nil {
			return nil, err
		}
		return response, nil
	})
}

func refusesRepeatedAppends() faults {
	var known repeated
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if known.seen(c) {
			return refusal(), nil
		}
		return c.forward(c)
	})
}

func takesPartForWhole() faults {
	var known repeated
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if known.seen(c) {
			return claimed(c), nil
		}
		return c.forward(c)
	})
}

func size(c *appendCall) (n int) {
	for _, r := range c.requests {
		n += len(r.GetProposedMessage().GetData())
	}
	return n
}

func takesLargeAppends() faults {
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		if size(c) > 1<<20 {
			return claimed(c), nil
		}
		return c.forward(c)
	})
}

func keepsPartOfLargeAppends() faults {
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		response, err := c.forward(c)
		if err != nil && size(c) > 1<<20 {
			c.requests = c.requests[:2]
			c.requests[1].GetProposedMessage().Data = []byte("{}")
			_, _ = c.forward(c) // the bug is in the response
		}
		return response, err
	})
}

// acknowledgesEarly acknowledges one append at once, but carries it out only after 40
// other appends have arrived.
func acknowledgesEarly() faults {
	var n atomic.Int64
	go40 := make(chan struct{})
	var late sync.Map // stream names to channels, which are closed when the append may continue
	return onAppend(func(c *appendCall) (*streamspb.AppendResp, error) {
		switch n.Add(1) {
		case 7:
			done := make(chan struct{})
			late.Store(c.stream(), done)
			go func() {
				defer close(done)
				select {
				case <-go40:
				case <-time.After(plenty):
				}
				ctx, cancel := context.WithTimeout(context.Background(), plenty)
				defer cancel()
				_, _ = c.forward(ctx)
			}()
			return claimed(c), nil
		case 47:
			close(go40)
		}
		if done, ok := late.Load(c.stream()); ok {
			<-done.(chan struct{})
		}
		return c.forward(c)
	})
}

// Bugs of reads.

var endsReadsEarly = func() faults {
	return faults{read: func(r *streamspb.ReadReq) sieve {
		n := 0
		return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
			if n++; n > 5 && ofStream(r.GetOptions()) {
				return errEnd
			}
			return send(m)
		}
	}}
}

var readsFromOldState = reading(ofStream, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool { return false }
})

var losesEventsInAll = reading(ofAll, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	n := 0
	return func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool { n++; return n%10 != 0 }
})

var goesBackInAll = reading(ofAll, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	n := uint64(0)
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		if n++; n == 10 {
			e.CommitPosition, e.PreparePosition = e.CommitPosition-5, e.PreparePosition-5
		}
		return true
	}
})

var hasOldEnd = reading(func(o *streamspb.ReadReq_Options) bool {
	return o.GetAll() != nil && o.GetReadDirection() == streamspb.ReadReq_Options_Backwards
}, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		e.CommitPosition, e.PreparePosition = 1, 1
		return e.GetStreamRevision() > 0
	}
})

var cutsDataOff = reading(ofStream, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		e.Data = e.Data[:min(len(e.Data), 64<<10)]
		return true
	}
})

var compactsMetadata = reading(ofStream, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		var compact bytes.Buffer
		if json.Compact(&compact, e.CustomMetadata) == nil {
			e.CustomMetadata = compact.Bytes()
		}
		return true
	}
})

var endsDataAtZero = reading(ofStream, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		e.Data, _, _ = bytes.Cut(e.Data, []byte{0})
		return true
	}
})

var takesAllForJSON = reading(ofStream, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		e.Metadata["content-type"] = "application/json"
		return true
	}
})

var beginsDeletedStreamsAtZero = reading(ofStream, func() func(*streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
	return func(e *streamspb.ReadResp_ReadEvent_RecordedEvent) bool {
		e.StreamRevision = 0
		return true
	}
})

// showsDeletedEvents returns an event for every read of a stream without visible events.
func showsDeletedEvents() faults {
	return faults{read: func(r *streamspb.ReadReq) sieve {
		return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
			if m.GetStreamNotFound() == nil {
				return send(m)
			}
			return send(&streamspb.ReadResp{Content: &streamspb.ReadResp_Event{Event: &streamspb.ReadResp_ReadEvent{
				Event: &streamspb.ReadResp_ReadEvent_RecordedEvent{
					Id:               &shared.UUID{Value: &shared.UUID_String_{String_: uuid.NewString()}},
					StreamIdentifier: r.GetOptions().GetStream().GetStreamIdentifier(),
					Metadata:         map[string]string{"created": "0"},
				},
			}}})
		}
	}}
}

// Bugs of subscriptions.

// onSubscriptions applies a sieve to every subscription.
func onSubscriptions(mistake func() sieve) func() faults {
	return func() faults {
		return faults{read: func(r *streamspb.ReadReq) sieve {
			if r.GetOptions().GetSubscription() == nil {
				return nil
			}
			return mistake()
		}}
	}
}

// tenth applies a sieve to the tenth event only.
func tenth(f sieve) sieve {
	n := 0
	return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		if m.GetEvent() != nil {
			if n++; n == 10 {
				return f(m, send)
			}
		}
		return send(m)
	}
}

func skipsEvent() sieve {
	return tenth(func(*streamspb.ReadResp, func(*streamspb.ReadResp) error) error { return nil })
}

func deliversTwice() sieve {
	return tenth(func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		if err := send(m); err != nil {
			return err
		}
		return send(proto.CloneOf(m))
	})
}

func renumbersEvent() sieve {
	return tenth(func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		m.GetEvent().GetEvent().StreamRevision += 7
		return send(m)
	})
}

func exchangesEvents() sieve {
	var held *streamspb.ReadResp
	holds := tenth(func(m *streamspb.ReadResp, _ func(*streamspb.ReadResp) error) error {
		held = m
		return nil
	})
	return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		before := held
		if err := holds(m, send); err != nil || before == nil || m.GetEvent() == nil {
			return err
		}
		held = nil
		return send(before)
	}
}

func checkpointsAhead() sieve {
	return tenth(func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		e := m.GetEvent().GetEvent()
		if err := send(&streamspb.ReadResp{Content: &streamspb.ReadResp_Checkpoint_{Checkpoint: &streamspb.ReadResp_Checkpoint{
			CommitPosition: e.GetCommitPosition(), PreparePosition: e.GetPreparePosition(),
		}}}); err != nil {
			return err
		}
		return send(m)
	})
}

func dropsCheckpoints() sieve {
	return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		if m.GetCheckpoint() != nil {
			return nil
		}
		return send(m)
	}
}

func skipsWhenTakenUp() faults {
	return faults{read: func(r *streamspb.ReadReq) sieve {
		if r.GetOptions().GetSubscription() == nil || r.GetOptions().GetAll().GetPosition() == nil {
			return nil
		}
		skipped := false
		return func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
			if m.GetEvent() != nil && !skipped {
				skipped = true
				return nil
			}
			return send(m)
		}
	}}
}

// ofFirst applies a sieve to the first subscription only.
func ofFirst(first sieve) func(*streamspb.ReadReq) sieve {
	var n atomic.Int64
	return func(r *streamspb.ReadReq) sieve {
		if r.GetOptions().GetSubscription() == nil || n.Add(1) > 1 {
			return nil
		}
		return first
	}
}

func appendsWaitForSubscribers() faults {
	var mu sync.Mutex
	return faults{
		append: func(c *appendCall) (*streamspb.AppendResp, error) {
			mu.Lock()
			defer mu.Unlock()
			return c.forward(c)
		},
		read: ofFirst(func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
			mu.Lock()
			defer mu.Unlock()
			return send(m)
		}),
	}
}

func dropsEventsOfTheFirst() faults {
	return faults{read: ofFirst(func(m *streamspb.ReadResp, send func(*streamspb.ReadResp) error) error {
		if e := m.GetEvent().GetEvent(); e != nil && e.GetStreamRevision() == 7 {
			return nil
		}
		return send(m)
	})}
}
