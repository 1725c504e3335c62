package ledger

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/embedded"
)

// A ledger reports each mistake that is planted in honest evidence. It reports nothing
// about the honest evidence itself.
func TestLedger_findsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	if said := honest(t).judge(t); len(said) > 0 {
		t.Fatalf("nothing is wrong, and it says %q", said)
	}
	for name, c := range map[string]struct {
		plant func(*evidence)
		says  string
	}{
		// Mistakes in the events that requests caused.
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
			e.request("n-3").Effect = "deleted"
		}, "acknowledged, and the log has [{{queue-"},
		"an update is done twice": {func(e *evidence) {
			e.updateAgain("n-3/1")
		}, "queue.updated 10}] and []: n-3 "},
		"a repeat is carried out again": {func(e *evidence) {
			d := e.request("n-3")
			d.Attempts, d.Again = 2, []Reply{*d.Reply}
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
			e.request("n-7").Denied[0].Body = `{"code":"EVENT_STORE_UNAVAILABLE"}`
		}, "EVENT_STORE_UNAVAILABLE\"} was told in attempt 1"},
		"what came back was done in the other order": {func(e *evidence) {
			e.move("n-3/1", "queue.updated", e.find("n-6/1", "auction.updated"))
		}, "before what its client did first: n-5 "},
		"an If-Match is passed over": {func(e *evidence) {
			e.request("n-3").IfMatch = `"5"`
		}, "carried out at 1: n-3 "},

		// Mistakes in the answers.
		"another body": {func(e *evidence) {
			r := e.request("n-3").Reply
			r.Body = strings.Replace(r.Body, "renamed", "misnamed", 1)
		}, `"1" is not in the log, which has `},
		"an older ETag":       {func(e *evidence) { e.request("n-3").Reply.ETag = `"0"` }, `"0" is not in the log, which has `},
		"a later ETag":        {func(e *evidence) { e.request("n-3").Reply.ETag = `"2"` }, `"2" is not in the log, which has `},
		"an ETag of nothing":  {func(e *evidence) { e.request("n-3").Reply.ETag = `"99"` }, `"99" is not in the log, which has `},
		"no ETag":             {func(e *evidence) { e.request("n-3").Reply.ETag = "" }, ` is not in the log, which has `},
		"another's location":  {func(e *evidence) { e.request("n-1").Reply.Location = e.request("n-5").Reply.Location }, "it stands in queue-"},
		"another's path":      {func(e *evidence) { e.request("n-3").Path = e.request("n-5").Reply.Location }, "it stands in queue-"},
		"a fault":             {func(e *evidence) { e.request("n-4").Reply.Status = 500 }, "a fault: n-4 "},
		"an unmarked replay":  {func(e *evidence) { e.request("n-7").Reply.Replayed = false }, "done by attempt 1: n-7 "},
		"no replay is marked": {func(e *evidence) { e.request("n-1").Reply.Replayed = true }, "done by attempt 1: n-1 "},
		"a replay is marked without a key": {func(e *evidence) {
			e.request("n-3").Reply.Replayed = true
		}, "done by attempt 1: n-3 "},
		"a refusal is marked as a replay": {func(e *evidence) {
			e.request("n-2").Reply.Replayed = true
		}, "a refusal is not remembered: n-2 "},
		"a second replay is not marked": {func(e *evidence) {
			e.request("n-5").Again[0].Replayed = false
		}, "repeated, it is answered otherwise: n-5 "},
		"a second replay is refused": {func(e *evidence) {
			e.request("n-5").Again[0].Status = 409
		}, "repeated, it is answered otherwise: n-5 "},
		"a second replay shows another state": {func(e *evidence) {
			e.request("n-5").Again[0].ETag = `"1"`
		}, "repeated, it is another: n-5 "},
		"a second replay has another body": {func(e *evidence) {
			r := &e.request("n-6").Again[0]
			r.Body = strings.Replace(r.Body, "OPEN", "CLOSED", 1)
		}, `"3" is not in the log, which has `},

		// Mistakes in the log itself.
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
			e.afterwards = func(l *Ledger) {
				i := e.find("n-3/1", "queue.updated")
				l.events[i] = strings.Replace(l.events[i], "renamed", "misnamed", 1)
				l.CheckUnchanged()
			}
		}, "was\n1 queue.updated "},
		"what was read is gone": {func(e *evidence) {
			e.afterwards = func(l *Ledger) {
				l.events = slices.Insert(l.events, 0, l.events[0])
				l.CheckUnchanged()
			}
		}, "1 events are gone"},
		"the end of the log is another": {func(e *evidence) {
			e.afterwards = func(l *Ledger) {
				l.events[len(l.events)-1] += "?"
				l.ReadLog()
			}
		}, "the log went on from\n"},

		// Mistakes in the objects that the engine answers with.
		"another object is shown": {func(e *evidence) {
			a := e.shown[e.request("n-1").object()]
			a.Body = strings.Replace(a.Body, "renamed", "misnamed", 1)
		}, " shows\n{"},
		"an older object is shown": {func(e *evidence) {
			d := e.request("n-3")
			e.shown[d.object()] = d.Reply
		}, "as the log has it"},
		"a later object is shown": {func(e *evidence) {
			e.shown[e.request("n-1").object()].ETag = `"99"`
		}, " shows revision 99, the log has "},
		"an object is not shown": {func(e *evidence) {
			delete(e.shown, e.request("n-1").object())
		}, "as the log has it"},
		"an object cannot be shown": {func(e *evidence) {
			e.shown[e.request("n-1").object()].Status = 500
		}, ": 500 "},
		"a deleted object is shown": {func(e *evidence) {
			d := e.request("n-8")
			e.shown[d.object()] = &Reply{Status: 200, ETag: `"0"`, Body: d.Reply.Body}
		}, "as the log has it"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := honest(t)
			c.plant(e)
			said := e.judge(t)
			if !slices.ContainsFunc(said, func(s string) bool { return strings.Contains(s, c.says) }) {
				t.Errorf("it does not say %q but\n%s", c.says, strings.Join(said, "\n"))
			}
		})
	}
}

// evidence is an Evidence in which a mistake can be planted.
type evidence struct {
	log      []esdb.RecordedEvent
	requests []*Request
	shown    map[string]*Reply // by id
	// asRead, when set, changes the events that the ledger reads.
	asRead func([]*esdb.RecordedEvent) []*esdb.RecordedEvent
	// afterwards, when set, is called when the ledger has compared everything.
	afterwards func(*Ledger)
}

// honest returns the evidence of an engine without a planted mistake. It was recorded by
// TestLedger_findsNothingWrongWithAnHonestEngine in cmd/lotline.
func honest(t *testing.T) *evidence {
	t.Helper()
	text, err := os.ReadFile("testdata/honest.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded Evidence
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	e := &evidence{requests: recorded.Requests, shown: recorded.Shown}
	for _, r := range recorded.Log {
		e.log = append(e.log, esdb.RecordedEvent{
			StreamID: r.Stream, EventID: r.ID, EventType: r.Type, Data: []byte(r.Data), UserMetadata: []byte(r.Metadata),
		})
	}
	return e
}

// masterKey is the key under which the recorded log is sealed.
const masterKey = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

// judge returns the errors that a ledger reports of the evidence.
func (e *evidence) judge(t *testing.T) []string {
	t.Helper()
	master, err := hex.DecodeString(masterKey)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := eventstore.NewKeyring(master)
	if err != nil {
		t.Fatal(err)
	}
	socket := startStore(t)
	e.store(t, socket)
	return overhear(t, func(t testing.TB) {
		l := New(t, socket, keys)
		l.requests, l.Patience = e.requests, 50*time.Millisecond
		var changed []string
		if e.asRead == nil {
			changed = l.ReadLog()
		} else {
			c := l.dial()
			defer c.Close()
			changed = l.takeAll(e.asRead(l.readAll(c, l.last)))
		}
		l.checkRequests()
		if e.afterwards != nil {
			e.afterwards(l)
		}
		if !t.Failed() {
			for _, stream := range changed {
				l.CheckObject(e, stream)
			}
		}
	})
}

// startStore starts an embedded store and returns its socket.
func startStore(t *testing.T) string {
	t.Helper()
	// The path of a socket has to be short.
	dir, err := os.MkdirTemp("", "lotline-ledger-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	server, err := embedded.Open(filepath.Join(dir, "events.log"), zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "store.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := server.Serve(listener, nil); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return socket
}

// store appends the log to a store, which gives the events revisions and positions.
func (e *evidence) store(t *testing.T, socket string) {
	t.Helper()
	c, err := Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
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

// Object implements Engine.
func (e *evidence) Object(path string) Reply {
	if shown, ok := e.shown[filepath.Base(path)]; ok {
		return *shown
	}
	return Reply{Status: 404}
}

func (e *evidence) request(id string) *Request {
	return e.requests[slices.IndexFunc(e.requests, func(r *Request) bool { return r.ID == id })]
}

// object returns the id of the object that an acknowledged request created or changed.
func (r *Request) object() string {
	if r.Effect == "created" {
		return filepath.Base(r.Reply.Location)
	}
	return filepath.Base(r.Path)
}

// find returns the index in the log of the first event of a type that a request caused. If
// request is "", any event of the type will do.
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

// at returns the time of the first event of a type.
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

// seal computes the hash chains again.
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

// move puts an event right before the one with the index to, which is later.
func (e *evidence) move(request, eventType string, to int) {
	i := e.find(request, eventType)
	moved := e.log[i]
	e.log = slices.Insert(slices.Delete(e.log, i, i+1), to-1, moved)
	e.seal()
}

// change replaces text in the data and the metadata of an event.
func (e *evidence) change(request, eventType, old, to string) {
	r := &e.log[e.find(request, eventType)]
	r.Data = bytes.Replace(r.Data, []byte(old), []byte(to), 1)
	r.UserMetadata = bytes.Replace(r.UserMetadata, []byte(old), []byte(to), 1)
	e.seal()
}

// updateAgain puts a second update right after the one that n-3 caused. It names another
// request as its cause, or none when request is "".
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

// eavesdropper is a test that keeps its errors and does not fail.
type eavesdropper struct {
	testing.TB
	said []string
}

// overhear returns the errors that f reports.
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
