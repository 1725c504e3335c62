package main

import (
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"

	"github.com/lotline/lotline/cmd/lotline/ledger"
	"github.com/lotline/lotline/domain"
)

// officialClient is the client that anybody can use, on the engine's socket.
func officialClient(t testing.TB, dir string) *esdb.Client {
	t.Helper()
	c := dialSocket(t, dir)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func dialSocket(t testing.TB, dir string) *esdb.Client {
	t.Helper()
	c, err := ledger.Dial(filepath.Join(dir, socketFile))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// eventsOf reads a distribution's stream with the official client.
func eventsOf(t testing.TB, c *esdb.Client, id string) []*esdb.RecordedEvent {
	t.Helper()
	read, err := c.ReadStream(t.Context(), domain.ID(id).Stream(), esdb.ReadStreamOptions{From: esdb.Start{}}, math.MaxInt64)
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	var out []*esdb.RecordedEvent
	for {
		e, err := read.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e.Event)
	}
}

// lines are events in a form to compare: all that is stored of them.
func lines(events []*esdb.RecordedEvent) []string {
	var out []string
	for _, e := range events {
		out = append(out, ledger.Line(e))
	}
	return out
}

// checkChain recomputes the hashes as docs/integrity.md says.
func checkChain(t *testing.T, events []*esdb.RecordedEvent) {
	t.Helper()
	prev := ""
	for _, e := range events {
		metadata, hash, ok := domain.SplitHash(e.UserMetadata)
		if !ok || hash != domain.EventHash(e.EventID, e.EventType, e.StreamID, domain.Revision(e.EventNumber), e.Data, metadata, prev) {
			t.Errorf("%s@%d: the chain is broken", e.StreamID, e.EventNumber)
		}
		prev = hash
	}
}

// distribution is one as the API and the event store show it.
type distribution struct {
	object string
	events []string
}

// All three kinds go through their lives by the clock while the process is killed
// and started again, and nothing of it is lost or changes.
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
			// The clock may have gone on meanwhile; what was there is there.
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

func TestServe_aMovedTimeIsKeptPromptly(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t))
	key := e.secretKey()
	path := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q,"closeAt":%q}`, in(-1000), in(3_600_000))).header.Get("Location")
	soon := in(300)
	e.must(200, "PUT", path, key, body(`{"closeAt":%q}`, soon))
	// Well before the next sweep, so the read models have told the scheduler.
	eventually(t, "it closed", func() bool { return e.must(200, "GET", path, key, "").object(t)["status"] == "COMPLETED" })
	if got := e.must(200, "GET", path, key, "").object(t)["updatedAt"]; got != soon {
		t.Errorf("closed at %s, due at %s", got, soon)
	}
}

// appendImpossible completes a queue in DRAFT, which cannot be. The event is otherwise
// as the engine would have written it: only the rule is broken.
func appendImpossible(t testing.TB, c *esdb.Client, id string) (stream string) {
	t.Helper()
	last := eventsOf(t, c, id)[0]
	_, prev, _ := domain.SplitHash(last.UserMetadata)
	impossible := esdb.EventData{
		EventID: last.EventID, EventType: "queue.completed", ContentType: esdb.ContentTypeJson, Data: []byte(`{"at":"2099-01-01T00:00:00.000Z"}`),
	}
	impossible.EventID[0] ^= 0xff
	metadata := []byte(`{"schemaVersion":1,"actor":"somebody"}`)
	hash := domain.EventHash(impossible.EventID, impossible.EventType, last.StreamID, 1, impossible.Data, metadata, prev)
	impossible.Metadata = domain.WithHash(metadata, hash)
	if _, err := c.AppendToStream(t.Context(), last.StreamID, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Revision(0)}, impossible); err != nil {
		t.Fatal(err)
	}
	return last.StreamID
}

func TestServe_anImpossibleEventIsQuarantinedAndAllElseWorks(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	create := func() string {
		return e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	}
	bad, good := create(), create()
	stream := appendImpossible(t, officialClient(t, dir), filepath.Base(bad))
	check := func() {
		t.Helper()
		eventually(t, "it is quarantined", func() bool { return e.call("GET", bad, key, "").status == 500 })
		for _, a := range []answer{
			e.call("GET", bad, key, ""),
			e.call("PUT", bad, key, `{"name":"x"}`),
			e.call("POST", bad+"/open", key, ""),
			e.call("DELETE", bad, key, ""),
		} {
			if got := a.object(t); a.status != 500 || got["error"] != "Distribution history is inconsistent" || got["code"] != "DISTRIBUTION_HISTORY_IS_INCONSISTENT" {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
		e.must(200, "GET", good, key, "")
		e.must(200, "PUT", good, key, body(`{"name":%q}`, in(0)))
		e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","drawAt":%q,"winnerCount":1}`, in(60_000)))
		ready, toAll := string(e.call("GET", "/readyz", key, "").body), string(e.call("GET", "/readyz", "", "").body)
		for _, part := range []string{stream, `"revision":1`, "queue.completed", "the status moves forward, one step at a time"} {
			if !strings.Contains(ready, part) || strings.Contains(toAll, part) {
				t.Errorf("/readyz does not say %q to its organization alone: %s, and to everybody %s", part, ready, toAll)
			}
		}
	}
	check()
	e.kill()
	e = testBinary(t).serve(t, dir)
	check()
}

// After a declared restore, read models that know more than the log, or another log,
// are not believed.
func TestServe_aLogFromABackupIsWhatCounts(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir)
	key := e.secretKey()
	create := func() string {
		return e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	}
	kept := create()
	before := e.must(200, "GET", kept, key, "")
	e.terminate()
	// Without the file of the read models all is as it was.
	if err := os.Remove(filepath.Join(dir, viewsFile)); err != nil {
		t.Fatal(err)
	}
	e = lotline.serve(t, dir)
	if after := e.must(200, "GET", kept, key, ""); string(after.body) != string(before.body) || after.header.Get("ETag") != before.header.Get("ETag") {
		t.Errorf("was %s and is %s", before.body, after.body)
	}
	e.terminate()
	events := filepath.Join(dir, eventsFile)
	backup, err := os.ReadFile(events)
	if err != nil {
		t.Fatal(err)
	}
	e = lotline.serve(t, dir)
	lost := create()
	e.must(200, "PUT", kept, key, `{"name":"lost as well"}`)
	e.terminate()
	if err := os.WriteFile(events, backup, 0o600); err != nil {
		t.Fatal(err)
	}
	e = lotline.serveWith(t, dir, restored)
	e.must(404, "GET", lost, key, "")
	if got := e.must(200, "GET", kept, key, "").object(t)["name"]; got != nil {
		t.Errorf("the name is %v", got)
	}
	e.must(200, "GET", create(), key, "")
	e.terminate()
	if err := os.Remove(events); err != nil {
		t.Fatal(err)
	}
	e = lotline.serveWith(t, dir, restored)
	e.must(401, "GET", kept, key, "")
	fresh := e.secretKey()
	e.must(404, "GET", kept, fresh, "")
	if list := e.must(200, "GET", "/api/v1/queues", fresh, "").object(t)["data"].([]any); len(list) != 0 {
		t.Errorf("a new log lists %v", list)
	}
}

// The keys that are shown work, the lines that are printed can be pasted.
func TestServe_theLinesItPrintsWork(t *testing.T) {
	t.Parallel()
	e := testBinary(t).serve(t, dataDirectory(t))
	e.secretKey()
	var pasted []string
	eventually(t, "all lines are printed", func() bool {
		pasted = nil
		for line := range strings.Lines(e.stdout.String()) {
			if rest, ok := strings.CutPrefix(line, "  curl "); ok && strings.HasSuffix(line, "\n") {
				pasted = append(pasted, strings.TrimSpace(rest))
			}
		}
		return len(pasted) == 4
	})
	for _, line := range pasted {
		url, rest, _ := strings.Cut(line, " ")
		quoted := strings.Split(rest, "'")
		method, data, status := "GET", "", 200
		var header []string
		for i := 0; i+1 < len(quoted); i += 2 {
			switch strings.TrimSpace(quoted[i]) {
			case "-H":
				name, value, _ := strings.Cut(quoted[i+1], ": ")
				header = append(header, name, value)
			case "-d":
				method, data, status = "POST", quoted[i+1], 201
			default:
				t.Fatalf("what is %q in %s", quoted[i], line)
			}
		}
		a := e.must(status, method, strings.TrimPrefix(url, e.url), "", data, header...)
		if method == "GET" && len(a.object(t)["data"].([]any)) != 3 {
			t.Errorf("the list has %s", a.body)
		}
	}
}
