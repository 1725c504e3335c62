package main

import (
	"path/filepath"
	"testing"

	"github.com/lotline/lotline/cmd/lotline/ledger"
	"github.com/lotline/lotline/eventstore"
)

// The tests use the requests and replies of package ledger.
type (
	request = ledger.Request
	reply   = ledger.Reply
)

// newLedger returns a ledger for the log in a data directory. The log must be sealed
// under testMasterKey.
func newLedger(t testing.TB, dir string) *ledger.Ledger {
	t.Helper()
	master, _ := decodeMasterKey(testMasterKey)
	keys, err := eventstore.NewKeyring(master)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.New(t, filepath.Join(dir, socketFile), keys)
}

// Object implements ledger.Engine.
func (e *engine) Object(path string) reply {
	e.t.Helper()
	a := e.call("GET", path, testSecretKey, "")
	return reply{Status: a.status, ETag: a.header.Get("ETag"), Body: string(a.body)}
}

// A ledger finds nothing wrong with what an engine and its client leave behind. The
// planted-fault tests of package ledger start from a record of it. To record it anew,
// run this test with LOTLINE_TEST_RECORD=$PWD/cmd/lotline/ledger/testdata/honest.json.
func TestLedger_findsNothingWrongWithAnHonestEngine(t *testing.T) {
	t.Parallel()
	p := newProcesses(t)
	p.embedded()
	e := &ledger.Evidence{Shown: map[string]*reply{}}
	do := func(status int, d *request) *reply {
		t.Helper()
		d.Client = "the one"
		r := p.do(0, d)
		if r.Status != status {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		return r
	}
	queue := do(201, p.request("created", "POST", collections[0], `{"sequenceId":"s"}`))
	do(409, p.request("updated", "POST", queue.Location+"/close", ""))
	update := p.request("updated", "PUT", queue.Location, `{"name":"renamed"}`)
	update.IfMatch = queue.ETag
	do(200, update)
	do(400, p.request("created", "POST", collections[0], `{}`))
	creation := p.request("created", "POST", collections[2], `{"sequenceId":"s"`+ends(collections[2], in(3_600_000))+`}`)
	auction := do(201, creation)
	opening := p.request("updated", "POST", auction.Location+"/open", "")
	do(200, opening)
	for _, d := range []*request{creation, opening} {
		r, err := d.Send(p.http, p.nodes[0].url, testSecretKey)
		if err != nil {
			t.Fatal(err)
		}
		d.Again = append(d.Again, *r)
	}
	// The client does not get the first answer.
	closing := p.request("updated", "POST", auction.Location+"/close", "")
	first := *do(200, closing)
	first.Status, first.Body = 503, `{"code":"OUTCOME_UNKNOWN"}`
	closing.Denied = []reply{first}
	do(200, closing)
	gone := do(201, p.request("created", "POST", collections[0], `{"sequenceId":"s"}`))
	do(204, p.request("deleted", "DELETE", gone.Location, ""))
	do(200, p.request("updated", "PUT", queue.Location, body(`{"openAt":%q,"closeAt":%q}`, in(50), in(100))))

	p.check()
	for _, path := range []string{queue.Location, auction.Location} {
		e.Shown[filepath.Base(path)] = new(p.nodes[0].Object(path))
	}
	for _, r := range readAll(t, p.dir) {
		e.Log = append(e.Log, ledger.Event{Stream: r.StreamID, ID: r.EventID, Type: r.EventType, Data: string(r.Data), Metadata: string(r.UserMetadata)})
	}
	e.Requests = p.ledger.Requests()
	record(t, e)
}
