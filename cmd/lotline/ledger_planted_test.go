package main

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// A ledger that is content with everything shows nothing. Each of these is what an
// honest engine left behind, with one mistake in it.
func TestLedger_findsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	honest := newEvidence(t)
	if said := honest.clone().judge(t); len(said) > 0 {
		t.Fatalf("nothing is wrong, and it says %q", said)
	}
	for name, c := range map[string]struct {
		plant func(*evidence)
		says  string
	}{
		// What was done.
		"an acknowledged update is lost": {func(e *evidence) {
			e.drop("n-3/1", "queue.updated")
		}, "acknowledged, and the log has [] and []: n-3 "},
		"an acknowledged creation is lost": {func(e *evidence) {
			e.drop("n-8/1", "claim.made")
			e.drop("n-8/1", "queue.created")
			e.drop("n-9/1", "queue.deleted")
		}, "acknowledged, and the log has [] and []: n-8 "},
		"an acknowledged creation has no claim": {func(e *evidence) {
			e.drop("n-8/1", "claim.made")
		}, "and []: n-8 "},
		"an acknowledged update was another event": {func(e *evidence) {
			e.deed("n-3").effect = "deleted"
		}, "acknowledged, and the log has [{{queue-"},
		"an update is done twice": {func(e *evidence) {
			e.updateAgain("n-3/1")
		}, "queue.updated 10}] and []: n-3 "},
		"a repeat is carried out again": {func(e *evidence) {
			d := e.deed("n-3")
			d.attempts, d.again = 2, []reply{*d.reply}
			e.updateAgain("n-3/2")
		}, "done by attempt 1 and by attempt 2: n-3 "},
		"a creation is claimed twice": {func(e *evidence) {
			e.drop("n-8/1", "queue.created")
			e.drop("n-9/1", "queue.deleted")
			e.change("n-8/1", "claim.made", `"requestId":"n-8/1"`, `"requestId":"n-1/1"`)
		}, "claim.made 17}]: n-1 "},
		"an update is claimed": {func(e *evidence) {
			e.change("n-8/1", "claim.made", `"requestId":"n-8/1"`, `"requestId":"n-3/1"`)
		}, "claim.made 17}]: n-3 "},
		"an event of a request that was not made": {func(e *evidence) {
			e.updateAgain("n-3/2")
		}, "nobody asked n-3/2, which caused "},
		"an event of no request": {func(e *evidence) {
			e.updateAgain("")
		}, "@2: nobody asked for queue.updated"},
		"a refusal did something": {func(e *evidence) {
			e.updateAgain("n-2/1")
		}, "refused, and yet caused [{{queue-"},
		"a refusal claimed an id": {func(e *evidence) {
			e.change("n-8/1", "claim.made", `"requestId":"n-8/1"`, `"requestId":"n-4/1"`)
		}, "refused, and yet caused [] and [{{claim-"},
		"what was said not to have been written was": {func(e *evidence) {
			e.deed("n-7").denied[0].body = `{"code":"EVENT_STORE_UNAVAILABLE"}`
		}, "EVENT_STORE_UNAVAILABLE\"} was told in attempt 1"},
		"what came back was done in the other order": {func(e *evidence) {
			e.move("n-3/1", "queue.updated", e.find("n-6/1", "auction.updated"))
		}, "before what its client did first: n-5 "},
		"an If-Match is passed over": {func(e *evidence) {
			e.deed("n-3").ifMatch = `"5"`
		}, "carried out at 1: n-3 "},

		// What was answered.
		"another body": {func(e *evidence) {
			r := e.deed("n-3").reply
			r.body = strings.Replace(r.body, "renamed", "misnamed", 1)
		}, `"1" is not in the log, which has `},
		"an older ETag":       {func(e *evidence) { e.deed("n-3").reply.etag = `"0"` }, `"0" is not in the log, which has `},
		"a later ETag":        {func(e *evidence) { e.deed("n-3").reply.etag = `"2"` }, `"2" is not in the log, which has `},
		"an ETag of nothing":  {func(e *evidence) { e.deed("n-3").reply.etag = `"99"` }, `"99" is not in the log, which has `},
		"no ETag":             {func(e *evidence) { e.deed("n-3").reply.etag = "" }, ` is not in the log, which has `},
		"another's location":  {func(e *evidence) { e.deed("n-1").reply.location = e.deed("n-5").reply.location }, "it stands in queue-"},
		"another's path":      {func(e *evidence) { e.deed("n-3").path = e.deed("n-5").reply.location }, "it stands in queue-"},
		"a fault":             {func(e *evidence) { e.deed("n-4").reply.status = 500 }, "a fault: n-4 "},
		"an unmarked replay":  {func(e *evidence) { e.deed("n-7").reply.replayed = false }, "done by attempt 1: n-7 "},
		"no replay is marked": {func(e *evidence) { e.deed("n-1").reply.replayed = true }, "done by attempt 1: n-1 "},
		"a replay is marked without a key": {func(e *evidence) {
			e.deed("n-3").reply.replayed = true
		}, "done by attempt 1: n-3 "},
		"a refusal is marked as a replay": {func(e *evidence) {
			e.deed("n-2").reply.replayed = true
		}, "a refusal is not remembered: n-2 "},
		"a second replay is not marked": {func(e *evidence) {
			e.deed("n-5").again[0].replayed = false
		}, "repeated, it is answered otherwise: n-5 "},
		"a second replay is refused": {func(e *evidence) {
			e.deed("n-5").again[0].status = 409
		}, "repeated, it is answered otherwise: n-5 "},
		"a second replay shows another state": {func(e *evidence) {
			e.deed("n-5").again[0].etag = `"1"`
		}, "repeated, it is another: n-5 "},
		"a second replay has another body": {func(e *evidence) {
			r := &e.deed("n-6").again[0]
			r.body = strings.Replace(r.body, "OPEN", "CLOSED", 1)
		}, `"3" is not in the log, which has `},

		// The log itself.
		"a broken hash chain": {func(e *evidence) {
			r := &e.log[e.find("n-3/1", "queue.updated")]
			r.Data = bytes.Replace(r.Data, []byte("renamed"), []byte("misnamed"), 1)
		}, "@1: the chain is broken"},
		"an event without a hash": {func(e *evidence) {
			r := &e.log[e.find("n-3/1", "queue.updated")]
			r.UserMetadata, _, _ = domain.SplitHash(r.UserMetadata)
		}, "@1: the chain is broken"},
		"a gap in revisions": {func(e *evidence) {
			e.asRead = func(log []*esdb.RecordedEvent) []*esdb.RecordedEvent {
				return slices.Delete(log, e.find("n-3/1", "queue.updated"), e.find("n-3/1", "queue.updated")+1)
			}
		}, "@2 follows 1"},
		"an event is read twice": {func(e *evidence) {
			e.asRead = func(log []*esdb.RecordedEvent) []*esdb.RecordedEvent {
				i := e.find("n-3/1", "queue.updated")
				return slices.Insert(log, i, log[i])
			}
		}, "@1 follows 2"},
		"positions that do not rise": {func(e *evidence) {
			e.asRead = func(log []*esdb.RecordedEvent) []*esdb.RecordedEvent {
				i := e.find("n-5/1", "auction.created")
				log[i-1], log[i] = log[i], log[i-1]
				return log
			}
		}, ": position 10 follows 11"},
		"an event is in the log and not in its stream": {func(e *evidence) {
			e.asRead = func(log []*esdb.RecordedEvent) []*esdb.RecordedEvent {
				ghost := *log[len(log)-1]
				ghost.EventNumber++
				return append(log, &ghost)
			}
		}, ", read alone, ends otherwise at "},
		"an event that cannot be read": {func(e *evidence) {
			e.change("", "queue.closed", `"at":"20`, `"at":"19`)
		}, "every event can be read"},
		"an event that the rules forbid": {func(e *evidence) {
			e.drop("", "queue.closed")
		}, "the status moves forward, one step at a time"},
		"time runs backwards": {func(e *evidence) {
			e.change("", "queue.closed", `"at":"20`, `"at":"2000-01-01T00:00:00.000Z","was":"20`)
		}, ": at 2000-01-01T00:00:00.000Z follows 20"},
		"a command is interrupted": {func(e *evidence) {
			e.move("n-3/1", "queue.updated", e.find("n-10/1", "queue.scheduled"))
		}, " is at {queue-"},
		"a command is in two streams": {func(e *evidence) {
			first, second := e.commandID("n-1/1", "queue.created"), e.commandID("n-5/1", "auction.created")
			e.change("n-5/1", "auction.created", `"commandId":"`+second, `"commandId":"`+first)
		}, " and at {auction-"},
		"a step is dated late": {func(e *evidence) {
			at := e.at("queue.opened")
			e.change("", "queue.opened", at, later(at))
		}, "queue.opened is dated "},
		"a step is dated early": {func(e *evidence) {
			e.change("n-10/1", "queue.updated", `"openAt":{"old":null,"new":"20`, `"openAt":{"old":null,"new":"21`)
		}, "queue.opened is dated "},
		"a completion is dated late": {func(e *evidence) {
			at := e.at("queue.completed")
			e.change("", "queue.completed", at, later(at))
		}, "queue.completed is dated "},
		"what is due is done after something else": {func(e *evidence) {
			at := e.at("queue.opened")
			e.change("n-3/1", "queue.updated", e.at("queue.updated"), later(at))
			e.move("n-3/1", "queue.updated", e.find("", "queue.opened"))
		}, "though it was SCHEDULED until "},
		"what was read has changed": {func(e *evidence) {
			e.afterwards = func(l *ledger) {
				i := e.find("n-3/1", "queue.updated")
				l.events[i] = strings.Replace(l.events[i], "renamed", "misnamed", 1)
				l.checkUnchanged()
			}
		}, "was\n1 queue.updated "},
		"what was read is gone": {func(e *evidence) {
			e.afterwards = func(l *ledger) {
				l.events = slices.Insert(l.events, 0, l.events[0])
				l.checkUnchanged()
			}
		}, "1 events are gone"},
		"the end of the log is another": {func(e *evidence) {
			e.afterwards = func(l *ledger) {
				l.events[len(l.events)-1] += "?"
				l.readLog()
			}
		}, "the log went on from\n"},

		// What the engine shows.
		"another object is shown": {func(e *evidence) {
			a := e.shown[e.deed("n-1").object()]
			a.body = strings.Replace(a.body, "renamed", "misnamed", 1)
		}, " shows\n{"},
		"an older object is shown": {func(e *evidence) {
			d := e.deed("n-3")
			e.shown[d.object()] = d.reply
		}, "as the log has it"},
		"a later object is shown": {func(e *evidence) {
			e.shown[e.deed("n-1").object()].etag = `"99"`
		}, " shows revision 99, the log has "},
		"an object is not shown": {func(e *evidence) {
			delete(e.shown, e.deed("n-1").object())
		}, "as the log has it"},
		"an object cannot be shown": {func(e *evidence) {
			e.shown[e.deed("n-1").object()].status = 500
		}, ": 500 "},
		"a deleted object is shown": {func(e *evidence) {
			d := e.deed("n-8")
			e.shown[d.object()] = &reply{status: 200, etag: `"0"`, body: d.reply.body}
		}, "as the log has it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := honest.clone()
			c.plant(e)
			said := e.judge(t)
			if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, c.says) }) {
				t.Errorf("it does not say %q but\n%s", c.says, strings.Join(said, "\n"))
			}
		})
	}
}

// evidence is what a ledger judges.
type evidence struct {
	log   []esdb.RecordedEvent
	deeds []*deed
	shown map[string]*reply // by id
	// asRead, when set, is what a client makes of the log that it reads.
	asRead func([]*esdb.RecordedEvent) []*esdb.RecordedEvent
	// afterwards is done when all was judged.
	afterwards func(*ledger)
}

// newEvidence is what an engine and its client leave behind that make no mistake.
func newEvidence(t *testing.T) *evidence {
	t.Helper()
	p := newProcesses(t)
	p.embedded()
	e := &evidence{shown: map[string]*reply{}}
	do := func(status int, d *deed) *reply {
		t.Helper()
		d.client = "the one"
		r := p.do(0, d)
		if r.status != status {
			t.Fatalf("%d %s", r.status, r.body)
		}
		return r
	}
	queue := do(201, p.deed("created", "POST", collections[0], `{"sequenceId":"s"}`))
	do(409, p.deed("updated", "POST", queue.location+"/close", ""))
	update := p.deed("updated", "PUT", queue.location, `{"name":"renamed"}`)
	update.ifMatch = queue.etag
	do(200, update)
	do(400, p.deed("created", "POST", collections[0], `{}`))
	creation := p.deed("created", "POST", collections[2], `{"sequenceId":"s"`+ends(collections[2], in(3_600_000))+`}`)
	auction := do(201, creation)
	opening := p.deed("updated", "POST", auction.location+"/open", "")
	do(200, opening)
	for _, d := range []*deed{creation, opening} {
		r, err := d.send(p.http, p.nodes[0])
		if err != nil {
			t.Fatal(err)
		}
		d.again = append(d.again, *r)
	}
	// The first answer is lost on the way.
	closing := p.deed("updated", "POST", auction.location+"/close", "")
	first := *do(200, closing)
	first.status, first.body = 503, `{"code":"OUTCOME_UNKNOWN"}`
	closing.denied = []reply{first}
	do(200, closing)
	gone := do(201, p.deed("created", "POST", collections[0], `{"sequenceId":"s"}`))
	do(204, p.deed("deleted", "DELETE", gone.location, ""))
	do(200, p.deed("updated", "PUT", queue.location, body(`{"openAt":%q,"closeAt":%q}`, in(50), in(100))))

	p.check()
	for _, path := range []string{queue.location, auction.location} {
		a := p.nodes[0].must(200, "GET", path, testSecretKey, "")
		e.shown[filepath.Base(path)] = &reply{status: a.status, etag: a.header.Get("ETag"), body: string(a.body)}
	}
	c := dialSocket(t, p.dir)
	defer c.Close()
	for _, r := range p.ledger.readAll(c, esdb.Position{}) {
		e.log = append(e.log, *r)
	}
	e.deeds = p.ledger.deeds
	p.nodes[0].kill()
	return e
}

func (e *evidence) clone() *evidence {
	c := *e
	c.log, c.deeds, c.shown = slices.Clone(e.log), nil, map[string]*reply{}
	for _, d := range e.deeds {
		d := *d
		d.reply, d.denied, d.again = new(*d.reply), slices.Clone(d.denied), slices.Clone(d.again)
		c.deeds = append(c.deeds, &d)
	}
	for path, r := range e.shown {
		c.shown[path] = new(*r)
	}
	return &c
}

// judge returns what a ledger finds wrong.
func (e *evidence) judge(t *testing.T) []string {
	t.Helper()
	dir := newClusterStore(t).dir.path
	e.store(t, dir)
	engine := e.serve(t)
	return overhear(t, func(t testing.TB) {
		l := newLedger(t, dir)
		l.deeds, l.patience = e.deeds, 50*time.Millisecond
		var changed []string
		if e.asRead == nil {
			changed = l.readLog()
		} else {
			c := dialSocket(t, dir)
			defer c.Close()
			changed = l.takeAll(e.asRead(l.readAll(c, l.last)))
		}
		l.checkDeeds()
		if e.afterwards != nil {
			e.afterwards(l)
		}
		if !t.Failed() {
			for _, stream := range changed {
				l.checkObject(engine, stream)
			}
		}
	})
}

// store puts the log into a store of its own, which gives it revisions and
// positions.
func (e *evidence) store(t *testing.T, dir string) {
	t.Helper()
	c := dialSocket(t, dir)
	defer c.Close()
	for rest := e.log; len(rest) > 0; {
		var batch []esdb.EventData
		stream := rest[0].StreamID
		for len(rest) > 0 && rest[0].StreamID == stream {
			batch = append(batch, esdb.EventData{
				EventID: rest[0].EventID, EventType: rest[0].EventType, ContentType: esdb.ContentTypeJson, Data: rest[0].Data, Metadata: rest[0].UserMetadata,
			})
			rest = rest[1:]
		}
		if _, err := c.AppendToStream(t.Context(), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, batch...); err != nil {
			t.Fatal(err)
		}
	}
}

// serve is an engine that shows objects.
func (e *evidence) serve(t *testing.T) *engine {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		shown, ok := e.shown[filepath.Base(r.URL.Path)]
		if !ok {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("ETag", shown.etag)
		w.WriteHeader(shown.status)
		_, _ = w.Write([]byte(shown.body))
	}))
	t.Cleanup(s.Close)
	return &engine{t: t, url: s.URL, foreign: true}
}

// What a mistake needs to know of the evidence, and to do to it.

func (e *evidence) deed(id string) *deed {
	return e.deeds[slices.IndexFunc(e.deeds, func(d *deed) bool { return d.id == id })]
}

// object is the id of what an acknowledged deed was done to.
func (d *deed) object() string {
	if d.effect == "created" {
		return filepath.Base(d.reply.location)
	}
	return filepath.Base(d.path)
}

// find is where in the log the first event of a type is which a request caused,
// or anybody when request is "".
func (e *evidence) find(request, eventType string) int {
	return slices.IndexFunc(e.log, func(r esdb.RecordedEvent) bool {
		return r.EventType == eventType && (request == "" || bytes.Contains(r.UserMetadata, []byte(requestMember(request))))
	})
}

func requestMember(id string) string { return `"requestId":"` + id + `"` }

var (
	storedAt        = regexp.MustCompile(`"at":"([^"]*)"`)
	storedCommandID = regexp.MustCompile(`"commandId":"([^"]*)"`)
)

// at is when the first event of a type happened.
func (e *evidence) at(eventType string) string {
	return string(storedAt.FindSubmatch(e.log[e.find("", eventType)].Data)[1])
}

func (e *evidence) commandID(request, eventType string) string {
	return string(storedCommandID.FindSubmatch(e.log[e.find(request, eventType)].UserMetadata)[1])
}

func later(at string) string {
	t, _ := time.Parse(time.RFC3339, at)
	return domain.InstantOf(t.Add(10 * time.Millisecond)).String()
}

// seal makes the hash chains hold.
func (e *evidence) seal() {
	revisions, hashes := map[string]domain.Revision{}, map[string]string{}
	for i := range e.log {
		r := &e.log[i]
		metadata, _, _ := domain.SplitHash(r.UserMetadata)
		hash := domain.EventHash(r.EventID, r.EventType, r.StreamID, revisions[r.StreamID], r.Data, metadata, hashes[r.StreamID])
		r.UserMetadata = domain.WithHash(metadata, hash)
		revisions[r.StreamID]++
		hashes[r.StreamID] = hash
	}
}

func (e *evidence) drop(request, eventType string) {
	i := e.find(request, eventType)
	e.log = slices.Delete(e.log, i, i+1)
	e.seal()
}

// move puts an event right before the one at to, which is behind it.
func (e *evidence) move(request, eventType string, to int) {
	i := e.find(request, eventType)
	moved := e.log[i]
	e.log = slices.Insert(slices.Delete(e.log, i, i+1), to-1, moved)
	e.seal()
}

// change replaces what an event says, in its data or its metadata.
func (e *evidence) change(request, eventType, old, to string) {
	r := &e.log[e.find(request, eventType)]
	r.Data = bytes.Replace(r.Data, []byte(old), []byte(to), 1)
	r.UserMetadata = bytes.Replace(r.UserMetadata, []byte(old), []byte(to), 1)
	e.seal()
}

// updateAgain puts a second update right behind the one by n-3, as if a request
// had caused it, or none when request is "".
func (e *evidence) updateAgain(request string) {
	i := e.find("n-3/1", "queue.updated")
	again := e.log[i]
	again.EventID = uuid.New()
	again.Data = bytes.Replace(again.Data, []byte(`"old":null,"new":"renamed"`), []byte(`"old":"renamed","new":"again"`), 1)
	to := ""
	if request != "" {
		to = requestMember(request) + ","
	}
	metadata := bytes.Replace(again.UserMetadata, []byte(requestMember("n-3/1")+","), []byte(to), 1)
	again.UserMetadata = storedCommandID.ReplaceAll(metadata, []byte(`"commandId":"`+uuid.NewString()+`"`))
	e.log = slices.Insert(e.log, i+1, again)
	e.seal()
}

// eavesdropper takes what is said of a test without failing it.
type eavesdropper struct {
	testing.TB
	said []string
}

// overhear returns what f says.
func overhear(t *testing.T, f func(testing.TB)) []string {
	t.Helper()
	e := &eavesdropper{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(e)
	}()
	<-done
	return e.said
}

func (e *eavesdropper) Error(args ...any) { e.Errorf("%s", fmt.Sprint(args...)) }

func (e *eavesdropper) Errorf(format string, args ...any) {
	e.said = append(e.said, fmt.Sprintf(format, args...))
}

func (e *eavesdropper) Fatal(args ...any) { e.Fatalf("%s", fmt.Sprint(args...)) }

func (e *eavesdropper) Fatalf(format string, args ...any) {
	e.Errorf(format, args...)
	runtime.Goexit()
}

func (e *eavesdropper) Failed() bool { return len(e.said) > 0 }
