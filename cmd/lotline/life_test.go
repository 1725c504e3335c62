package main

import (
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// distribution is a distribution's answer from the API and its events in the store.
type distribution struct {
	object string
	events []string
}

// Distributions of all three kinds go through their lifecycles by timers, while the process
// is killed and started again. Nothing of their histories is lost or changed.
func TestLife_allThreeKindsSurviveKillMinus9(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), builtBinary(t)
	e := lotline.serve(t, dir)
	key := e.secretKey()

	open, closing, end := in(3000), in(7000), in(8500)
	created := map[string]answer{}
	for path, own := range map[string]string{
		"queues":   body(`"admissionRate":60`),
		"draws":    body(`"drawAt":%q,"winnerCount":3`, end),
		"auctions": body(`"settleAt":%q,"startingBid":100.5,"currencyCode":"EUR"`, end),
	} {
		a := e.must(201, "POST", "/api/v1/"+path, key, body(`{"sequenceId":"drop","name":"All %s","openAt":%q,"closeAt":%q,%s}`, path, open, closing, own))
		if got := a.object(t)["status"]; got != "SCHEDULED" {
			t.Errorf("%s begin as %s", path, got)
		}
		created[a.header.Get("Location")] = a
	}
	statuses := func() (all []string) {
		for path := range created {
			all = append(all, e.must(200, "GET", path, key, "").object(t)["status"].(string))
		}
		slices.Sort(all)
		return all
	}
	snapshot := func() map[string]distribution {
		all := map[string]distribution{}
		c := officialClient(t, dir)
		for path := range created {
			a := e.must(200, "GET", path, key, "")
			all[path] = distribution{a.header.Get("ETag") + string(a.body), lines(eventsOf(t, c, filepath.Base(path)))}
		}
		return all
	}
	restart := func() {
		before := snapshot()
		e.kill()
		e = lotline.serve(t, dir)
		after := snapshot()
		for path, was := range before {
			is := after[path]
			// Timers may have appended more events. The earlier ones must be unchanged.
			n := min(len(was.events), len(is.events))
			if !slices.Equal(is.events[:n], was.events) || (n == len(is.events) && is.object != was.object) {
				t.Errorf("%s was\n%v\nand is\n%v", path, was, is)
			}
		}
	}

	eventually(t, "all opened", func() bool { return !slices.Contains(statuses(), "SCHEDULED") })
	restart()
	eventually(t, "all closed", func() bool { return !slices.Contains(statuses(), "OPEN") })
	restart()
	eventually(t, "all at their ends", func() bool { return slices.Equal(statuses(), []string{"COMPLETED", "COMPLETED", "SETTLED"}) })

	restart()
	if strings.Contains(e.stdout.String(), "sk_live_") {
		t.Error("keys are shown again")
	}

	want := map[string][]string{
		"queue":   {"queue.created -", "queue.scheduled -", "queue.opened " + open, "queue.closed " + closing, "queue.completed " + closing},
		"draw":    {"draw.created -", "draw.scheduled -", "draw.opened " + open, "draw.closed " + closing, "draw.drawn " + end, "draw.completed " + end},
		"auction": {"auction.created -", "auction.scheduled -", "auction.opened " + open, "auction.closed " + closing, "auction.settled " + end},
	}
	c := officialClient(t, dir)
	for path := range created {
		id := filepath.Base(path)
		events := eventsOf(t, c, id)
		checkChain(t, events)
		var got []string
		for _, r := range events {
			at := answer{body: r.Data}.object(t)["at"].(string)
			if r.EventNumber < 2 {
				at = "-"
			}
			got = append(got, r.EventType+" "+at)
		}
		if kind := string(domain.ID(id).Kind()); !slices.Equal(got, want[kind]) {
			t.Errorf("%s: got %v", id, got)
		}
		for _, r := range events {
			if strings.Contains(string(r.Data), created[path].object(t)["encryptionSeed"].(string)) {
				t.Errorf("%s holds the seed unsealed: %s", r.EventType, r.Data)
			}
		}
	}
	if code := e.terminate(); code != 0 {
		t.Errorf("SIGTERM: exit %d\n%s", code, e.stderr)
	}
}

func TestLife_aMovedTimeIsKeptPromptly(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t))
	key := e.secretKey()
	path := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q,"closeAt":%q}`, in(-1000), in(3_600_000))).header.Get("Location")
	soon := in(300)
	e.must(200, "PUT", path, key, body(`{"closeAt":%q}`, soon))
	// This is well before the next sweep, so the read models have told the scheduler.
	eventually(t, "it closed", func() bool { return e.must(200, "GET", path, key, "").object(t)["status"] == "COMPLETED" })
	if got := e.must(200, "GET", path, key, "").object(t)["updatedAt"]; got != soon {
		t.Errorf("closed at %s, due at %s", got, soon)
	}
}

// A process dies between the two appends of a large outcome. The next process appends the
// rest by itself, even if nothing else happens.
func TestLife_anOutcomeThatACrashCutInTwoIsFinished(t *testing.T) {
	t.Parallel()
	s := &settings{DataDir: dataDirectory(t)}
	e := testBinary(t).serve(t, s.DataDir)
	key := e.secretKey()
	queue := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(-1000))).header.Get("Location")
	e.kill()
	closeInPart(t, s, domain.ID(path.Base(queue)).Stream())
	e = testBinary(t).serve(t, s.DataDir)
	eventually(t, "the rest is done", func() bool {
		return e.must(200, "GET", queue, key, "").object(t)["status"] == "COMPLETED"
	})
}

// closeInPart closes a queue by hand, but appends only the first part of the outcome.
func closeInPart(t *testing.T, s *settings, stream string) {
	t.Helper()
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	defer closeLog(t, l)
	h := inTheLog(t, l, stream)
	head, now := h.Head, h.At(domain.InstantOf(time.Now()))
	events, err := h.Decide(now, domain.Step{To: domain.StatusClosed})
	if err != nil {
		t.Fatal(err)
	}
	for due, err := range h.Advance(now) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, due...)
		break
	}
	m := domain.Metadata{CommandID: uuid.NewString(), Actor: domain.ActorOperator}
	var part []domain.Proposed
	for _, event := range events {
		p, err := l.Encode(stream, event, m)
		if err != nil {
			t.Fatal(err)
		}
		p.ID = uuid.New()
		part = append(part, p)
	}
	if _, _, err := l.Append(t.Context(), stream, head, part); err != nil {
		t.Fatal(err)
	}
}
