package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/ncruces/go-sqlite3"

	"github.com/lotline/lotline/domain"
)

// tamper changes the log's file directly, as anybody can who has access to it. The test
// fails if nothing is changed.
func tamper(t testing.TB, dir, sql string, args ...string) {
	t.Helper()
	conn, err := sqlite3.Open("file:" + filepath.Join(dir, eventsFile))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec(`PRAGMA busy_timeout = 5000`); err != nil {
		t.Fatal(err)
	}
	s, _, err := conn.Prepare(sql)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, arg := range args {
		if err := s.BindText(i+1, arg); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Exec(); err != nil {
		t.Fatal(err)
	}
	if conn.Changes() == 0 {
		t.Fatalf("%s %v changes nothing", sql, args)
	}
}

// ofStream limits a change to the events of a stream.
const ofStream = ` WHERE stream = (SELECT id FROM streams WHERE name = ?)`

// corruptFirstEvent changes the data of a stream's first event.
func corruptFirstEvent(t testing.TB, dir, stream string) {
	t.Helper()
	tamper(t, dir, `UPDATE events SET data = replace(data, 'Raffle', 'Rigged')`+ofStream+` AND revision = 0`, stream)
}

func streamOf(path string) string { return domain.ID(filepath.Base(path)).Stream() }

// forgetViews removes the read models, so that the next start makes them anew.
func forgetViews(t testing.TB, dir string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, viewsFile)); err != nil {
		t.Fatal(err)
	}
}

const inconsistent = "Distribution history is inconsistent"

// quarantinedLines returns the log lines that report the quarantine of a stream.
func (e *engine) quarantinedLines(stream string) (lines []string) {
	for line := range strings.Lines(e.stderr.String()) {
		if strings.Contains(line, `"stream quarantined"`) && strings.Contains(line, `"stream":"`+stream+`"`) {
			lines = append(lines, line)
		}
	}
	return lines
}

// told checks that operators learn of exactly these streams: from /readyz, from the
// metric, and from one log line at level error for each.
func (e *engine) told(streams ...string) {
	e.t.Helper()
	operators := e.operators()
	ready := operators.must(200, "GET", "/readyz", "", "").object(e.t)["checks"].(map[string]any)["histories"].(map[string]any)
	var named []string
	all, _ := ready["quarantined"].([]any)
	for _, q := range all {
		named = append(named, q.(map[string]any)["stream"].(string))
	}
	if len(named) != len(streams) || ready["ok"] != (len(streams) == 0) {
		e.t.Errorf("/readyz names %v, not %v", named, streams)
	}
	for _, stream := range streams {
		if !strings.Contains(fmt.Sprint(named), stream) {
			e.t.Errorf("/readyz names %v, not %s", named, stream)
		}
		eventually(e.t, "the log tells of "+stream, func() bool { return len(e.quarantinedLines(stream)) > 0 })
		if lines := e.quarantinedLines(stream); len(lines) != 1 || !strings.Contains(lines[0], `"level":"error"`) {
			e.t.Errorf("of %s the log says %q", stream, lines)
		}
	}
	want := fmt.Sprintf("\nlotline_quarantined_streams %d\n", len(streams))
	eventually(e.t, "the figure is "+want, func() bool {
		return strings.Contains(string(operators.must(200, "GET", "/metrics", "", "").body), want)
	})
}

// refuses checks that the engine serves nothing of a distribution and carries out no
// command on it.
func (e *engine) refuses(path, key string) {
	e.t.Helper()
	calls := [][3]string{
		{"GET", path, ""},
		{"PUT", path, `{"name":"x"}`},
		{"DELETE", path, ""},
		{"POST", path + "/open", ""},
		{"POST", path + "/close", ""},
	}
	if strings.Contains(path, "/queues/") {
		calls = append(calls, [][3]string{
			{"POST", path + "/enter", ""},
			{"POST", path + "/leave", ""},
			{"GET", path + "/status", ""},
			{"GET", path + "/stats", ""},
			{"POST", path + "/admit", `{"count":1}`},
			{"POST", path + "/complete", `{"consumerId":"c"}`},
			{"POST", path + "/deny", `{"consumerId":"c","reason":"ADMIN_ACTION"}`},
		}...)
	}
	for _, c := range calls {
		var acting []string
		if strings.HasSuffix(c[1], "/enter") || strings.HasSuffix(c[1], "/leave") || strings.HasSuffix(c[1], "/status") {
			acting = []string{"X-Consumer-Id", "c"}
		}
		a := e.call(c[0], c[1], key, c[2], acting...)
		if a.status != http.StatusInternalServerError || !strings.Contains(string(a.body), `"error":"`+inconsistent+`"`) {
			e.t.Errorf("%s %s: %d %s", c[0], c[1], a.status, a.body)
		}
	}
}

// tenant makes an organization beside the default one, and returns a key of it.
func tenant(t *testing.T, dir, name string) (key string) {
	t.Helper()
	admin(t, dir, "org", "create", "--name="+name)
	return admin(t, dir, "keys", "create", "--org="+name)
}

func defaultStream(t *testing.T, e *engine, key string) string {
	t.Helper()
	return domain.ID(e.must(200, "GET", "/api/v1/organization", key, "").object(t)["id"].(string)).Stream()
}

// One damaged event of one organization must not stop the other organizations.
func TestDamage_aDamagedDefaultOrganizationStopsNobodyElse(t *testing.T) {
	t.Parallel()
	junk := func(t *testing.T, dir string, e *engine, stream string) {
		t.Helper()
		last := officialClient(t, dir)
		event := esdb.EventData{EventType: "junk", ContentType: esdb.ContentTypeJson, Data: []byte(`{}`), Metadata: []byte(`{}`)}
		if _, err := last.AppendToStream(t.Context(), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.StreamExists{}}, event); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is quarantined", func() bool { return len(e.quarantinedLines(stream)) == 1 })
	}
	rename := func(t *testing.T, dir string, _ *engine, stream string) {
		t.Helper()
		tamper(t, dir, `UPDATE events SET data = replace(data, 'default', 'defect!')`+ofStream+` AND revision = 0`, stream)
	}
	revive := func(t *testing.T, dir string, _ *engine, stream string) {
		t.Helper()
		tamper(t, dir, `DELETE FROM events`+ofStream+` AND revision = 1`, stream)
	}
	gone := func(t *testing.T, dir string, _ *engine, stream string) {
		t.Helper()
		if _, err := officialClient(t, dir).TombstoneStream(t.Context(), stream, esdb.TombstoneStreamOptions{ExpectedRevision: esdb.StreamExists{}}); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		damage func(t *testing.T, dir string, e *engine, stream string)
		live   bool // the engine runs while the log is changed
		anew   bool // the read models are made anew afterwards
	}{
		"junk appended":                              {junk, true, false},
		"junk appended, read models made anew":       {junk, true, true},
		"an event changed":                           {rename, false, false},
		"an event changed, read models made anew":    {rename, false, true},
		"an event taken away":                        {revive, false, false},
		"the stream ended, read models as they were": {gone, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, lotline := dataDirectory(t), testBinary(t)
			e := lotline.serve(t, dir, operatorsListen)
			key := e.secretKey()
			theirs := tenant(t, dir, "Acme")
			var path string
			eventually(t, "their key works", func() bool {
				a := e.call("POST", "/api/v1/queues", theirs, body(`{"sequenceId":"s","openAt":%q}`, in(-1000)))
				path = a.header.Get("Location")
				return a.status == 201
			})
			mine := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
			stream := defaultStream(t, e, key)
			if c.live {
				c.damage(t, dir, e, stream)
			}
			e.terminate()
			if !c.live {
				c.damage(t, dir, e, stream)
			}
			if c.anew {
				forgetViews(t, dir)
			}
			e = lotline.serve(t, dir, operatorsListen, "LOTLINE_SECRET_KEY="+key)
			e.must(200, "POST", path+"/enter", theirs, "", "X-Consumer-Id", "c")
			e.must(200, "GET", path, theirs, "")
			e.must(201, "POST", "/api/v1/draws", theirs, body(`{"sequenceId":"s","drawAt":%q,"winnerCount":1}`, in(60_000)))
			for _, at := range []string{"/api/v1/organization", "/api/v1/queues", mine} {
				e.must(401, "GET", at, key, "")
			}
			e.told(stream)
			eventually(t, "the start says that it made no keys", func() bool { return strings.Contains(e.stderr.String(), "no keys were set up") })
			// The operator can administer the other organizations, and learns what is wrong with
			// this one.
			if list := admin(t, dir, "keys", "list"); !strings.Contains(list, "Acme") {
				t.Errorf("the list is\n%s", list)
			}
			another := admin(t, dir, "keys", "create", "--org=Acme")
			eventually(t, "the new key works", func() bool { return e.call("GET", path, another, "").status == 200 })
			id, err := domain.StreamID(stream)
			if err != nil {
				t.Fatal(err)
			}
			_, stderr, code := lotline.run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "keys", "list", "--org=Beta")
			if code != exitConfig || !strings.Contains(stderr, "the histories of 1 are inconsistent: give the id") {
				t.Errorf("exit %d: %s", code, stderr)
			}
			for _, org := range []string{"default", string(id)} {
				_, stderr, code := lotline.run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "keys", "create", "--org="+org)
				if code != 1 || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, stream) {
					t.Errorf("%s: exit %d: %s", org, code, stderr)
				}
			}
			if code := e.terminate(); code != 0 {
				t.Errorf("exit %d: %s", code, e.stderr)
			}
		})
	}
}

// Damage to the claim of the default organization, or to the signing keys, stops only the
// calls that need them.
func TestDamage_ofAClaimOrTheSigningKeysStopsOnlyWhatNeedsThem(t *testing.T) {
	t.Parallel()
	spoil := `UPDATE events SET data = replace(data, '{', '{"spoilt":1,')`
	t.Run("which organization is the default one", func(t *testing.T) {
		t.Parallel()
		dir, lotline := dataDirectory(t), testBinary(t)
		e := lotline.serve(t, dir, operatorsListen)
		key := e.secretKey()
		e.terminate()
		tamper(t, dir, spoil+ofStream, defaultClaim)
		e = lotline.serve(t, dir, operatorsListen)
		e.must(200, "GET", "/api/v1/queues", key, "")
		e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`, "Idempotency-Key", "k")
		e.told(defaultClaim)
		eventually(t, "the start says that it made no keys", func() bool { return strings.Contains(e.stderr.String(), "no keys were set up") })
	})
	t.Run("the signing keys", func(t *testing.T) {
		t.Parallel()
		dir, lotline := dataDirectory(t), testBinary(t)
		e := lotline.serve(t, dir, operatorsListen)
		key := e.secretKey()
		e.terminate()
		tamper(t, dir, spoil+ofStream, domain.SigningStream)
		forgetViews(t, dir)
		e = lotline.serve(t, dir, operatorsListen)
		queue := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(-1000))).header.Get("Location")
		e.must(200, "POST", queue+"/enter", key, "", "X-Consumer-Id", "c")
		e.must(500, "POST", "/api/v1/auth/consumer", key, `{"consumerId":"c"}`)
		e.told(domain.SigningStream)
	})
	// Without the check value the engine cannot tell whether it can decrypt secrets, so it
	// serves nothing.
	t.Run("the check value of the master key", func(t *testing.T) {
		t.Parallel()
		for _, sql := range []string{spoil, `UPDATE events SET type = 'junk'`, `UPDATE events SET metadata = '{}'`, `DELETE FROM events`} {
			dir, lotline := dataDirectory(t), testBinary(t)
			e := lotline.serve(t, dir, operatorsListen)
			e.terminate()
			if sql == `DELETE FROM events` {
				tamper(t, dir, `UPDATE streams SET truncate_before = 9223372036854775807 WHERE name = ?`, domain.SealStream)
			} else {
				tamper(t, dir, sql+ofStream, domain.SealStream)
			}
			for range 2 {
				_, stderr, code := lotline.run(t, []string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=127.0.0.1:0"}, "serve")
				last := stderr[strings.LastIndex(strings.TrimSuffix(stderr, "\n"), "\n")+1:]
				if code != 1 || !strings.Contains(last, "the check value of the master key is damaged: "+domain.SealStream+"@") {
					t.Errorf("%s: exit %d: %s", sql, code, stderr)
				}
			}
		}
	})
}

// If a queue's history lost an event, its consumers must get an error and no normal
// answer.
func TestDamage_aQuarantinedDistributionTakesNoWrites(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	open := func() string {
		path := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(-1000))).header.Get("Location")
		for _, c := range []string{"a", "b", "c"} {
			e.must(200, "POST", path+"/enter", key, "", "X-Consumer-Id", c)
		}
		return path
	}
	end, middle, live, sound := open(), open(), open(), open()
	draw := e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","drawAt":%q,"winnerCount":1}`, in(3_600_000))).header.Get("Location")
	auction := e.must(201, "POST", "/api/v1/auctions", key, body(`{"sequenceId":"s","settleAt":%q}`, in(3_600_000))).header.Get("Location")

	// The writer has a good state in memory. The read models find the damage.
	for _, path := range []string{live, draw, auction} {
		stream := streamOf(path)
		junk := esdb.EventData{EventType: "junk", ContentType: esdb.ContentTypeJson, Data: []byte(`{}`), Metadata: []byte(`{}`)}
		if _, err := officialClient(t, dir).AppendToStream(t.Context(), stream, esdb.AppendToStreamOptions{ExpectedRevision: esdb.StreamExists{}}, junk); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is quarantined", func() bool { return len(e.quarantinedLines(stream)) == 1 })
		e.refuses(path, key)
	}
	e.terminate()
	revision := body(` AND revision = (SELECT max(revision) FROM events%s)`, ofStream)
	tamper(t, dir, `DELETE FROM events`+ofStream+revision, streamOf(end), streamOf(end))
	tamper(t, dir, `DELETE FROM events`+ofStream+` AND type = 'queue.consumer.entered' AND data LIKE '%"b"%'`, streamOf(middle))
	e = lotline.serve(t, dir, operatorsListen)
	for _, path := range []string{end, middle, live, draw, auction} {
		e.refuses(path, key)
	}
	e.must(200, "POST", sound+"/enter", key, "", "X-Consumer-Id", "d")
	e.must(200, "PUT", sound, key, `{"name":"x"}`)
	e.told(streamOf(end), streamOf(middle), streamOf(live), streamOf(draw), streamOf(auction))
	e.terminate()

	// The quarantine survives a restart and is reported again.
	e = lotline.serve(t, dir, operatorsListen)
	e.refuses(middle, key)
	e.told(streamOf(end), streamOf(middle), streamOf(live), streamOf(draw), streamOf(auction))
}

// The log is changed after the read models were made, so they still have the true state.
// The next part that reads the log finds the damage and tells all other parts.
func TestDamage_thePartThatFindsItTellsAllOthers(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	create := func(kind, fields string, header ...string) string {
		return e.must(201, "POST", "/api/v1/"+kind, key, body(`{"sequenceId":"s","name":"Raffle",%s}`, fields), header...).header.Get("Location")
	}
	drawn := body(`"drawAt":%q,"winnerCount":1`, in(3_600_000))
	over := create("queues", body(`"openAt":%q`, in(-1000)))
	e.must(200, "POST", over+"/enter", key, "", "X-Consumer-Id", "c")
	e.must(200, "POST", over+"/close", key, "")
	underWay := create("queues", body(`"openAt":%q`, in(-1000)))
	e.must(200, "POST", underWay+"/enter", key, "", "X-Consumer-Id", "c")
	finders := []struct {
		name string
		path string
		find func(path string)
	}{
		{"a command", create("draws", drawn), func(path string) { e.must(500, "POST", path+"/open", key, "") }},
		{"a command about an auction", create("auctions", body(`"settleAt":%q`, in(3_600_000))), func(path string) {
			e.must(500, "PUT", path, key, `{"name":"x"}`)
		}},
		{"a read of the events", create("draws", drawn), func(path string) {
			first := e.events(filepath.Base(path), key)[0]
			if data := fmt.Sprint(first["data"]); !strings.Contains(data, "Rigged") || first["problem"] == nil {
				t.Errorf("the evidence is %v", first)
			}
		}},
		{"a repeated creation", create("draws", drawn, "Idempotency-Key", "k"), func(string) {
			e.must(500, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","name":"Raffle",%s}`, drawn), "Idempotency-Key", "k")
		}},
		{"a queue that is over, when somebody asks who was in it", over, func(path string) {
			e.must(500, "GET", path+"/status", key, "", "X-Consumer-Id", "c")
		}},
	}
	e.terminate()
	for _, f := range finders {
		corruptFirstEvent(t, dir, streamOf(f.path))
	}
	// A start reads the queues that are open.
	corruptFirstEvent(t, dir, streamOf(underWay))
	e = lotline.serve(t, dir, operatorsListen)
	found := []string{streamOf(underWay)}
	e.refuses(underWay, key)
	e.told(found...)
	for _, f := range finders {
		if name := e.must(200, "GET", f.path, key, "").object(t)["name"]; name != "Raffle" {
			t.Errorf("%s: before, it is called %v", f.name, name)
		}
		f.find(f.path)
		e.refuses(f.path, key)
		found = append(found, streamOf(f.path))
		e.told(found...)
	}
}

// If a timer cannot advance a stream because of damage, the engine reports the damage.
func TestDamage_isFoundByTheTimerToo(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	path := e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","name":"Raffle","openAt":%q,"drawAt":%q,"winnerCount":1}`, in(3_000), in(3_600_000))).header.Get("Location")
	e.terminate()
	corruptFirstEvent(t, dir, streamOf(path))
	e = lotline.serve(t, dir, operatorsListen)
	eventually(t, "the timer has found it", func() bool { return e.call("GET", path, key, "").status == 500 })
	e.refuses(path, key)
	e.told(streamOf(path))
}

// events returns a distribution's events, as an auditor gets them.
func (e *engine) events(id, key string) (all []map[string]any) {
	e.t.Helper()
	page := e.must(200, "GET", "/api/v1/distributions/"+id+"/events", key, "").object(e.t)
	for _, event := range page["data"].([]any) {
		all = append(all, event.(map[string]any))
	}
	return all
}

// If the first event of a history is damaged, nobody knows which organization owns it.
func TestDamage_ofTheFirstEventIsNotTakenForAMissingDistribution(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	theirs := tenant(t, dir, "Acme")
	var paths []string
	for kind, fields := range map[string]string{
		"queues":   body(`"openAt":%q`, in(-1000)),
		"draws":    body(`"drawAt":%q,"winnerCount":1`, in(3_600_000)),
		"auctions": body(`"settleAt":%q`, in(3_600_000)),
	} {
		paths = append(paths, e.must(201, "POST", "/api/v1/"+kind, key, body(`{"sequenceId":"s","name":"Raffle",%s}`, fields)).header.Get("Location"))
	}
	unread := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	e.terminate()
	for _, path := range paths {
		corruptFirstEvent(t, dir, streamOf(path))
	}
	tamper(t, dir, `UPDATE events SET type = 'queue.made'`+ofStream, streamOf(unread))
	forgetViews(t, dir)
	e = lotline.serve(t, dir, operatorsListen)
	var streams []string
	for _, path := range append(paths, unread) {
		streams = append(streams, streamOf(path))
		e.refuses(path, key)
		events := e.events(filepath.Base(path), key)
		for i, event := range events {
			if (event["problem"] != nil) != (i == 0) {
				t.Errorf("event %d: problem %v", i, event["problem"])
			}
		}
		// To other organizations the distribution does not exist.
		e.must(404, "GET", path, theirs, "")
		e.must(404, "PUT", path, theirs, `{"name":"x"}`)
		e.must(404, "GET", "/api/v1/distributions/"+filepath.Base(path)+"/events", theirs, "")
	}
	if list := e.must(200, "GET", "/api/v1/distributions", key, "").object(t)["data"].([]any); len(list) != 0 {
		t.Errorf("the list has %v", list)
	}
	e.told(streams...)
}

// A break in the chain is marked at its event, on whatever page that event is. The events
// after it are still served as evidence.
func TestDamage_isMarkedAtTheEventWhereTheChainBreaks(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	make5 := func() string {
		path := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
		for i := range 4 {
			e.must(200, "PUT", path, key, body(`{"name":"Raffle %d"}`, i))
		}
		return path
	}
	changed, missing := make5(), make5()
	e.terminate()
	tamper(t, dir, `UPDATE events SET data = replace(data, 'Raffle 1', 'Rigged 1')`+ofStream+` AND revision = 2`, streamOf(changed))
	tamper(t, dir, `DELETE FROM events`+ofStream+` AND revision = 1`, streamOf(missing))
	e = lotline.serve(t, dir, operatorsListen)
	for path, rule := range map[string]string{changed: "each event's hash covers it and the event before", missing: "revisions have no gaps"} {
		problem := func(event map[string]any) string {
			p, _ := event["problem"].(map[string]any)
			if p == nil {
				return ""
			}
			return p["rule"].(string)
		}
		for _, event := range e.events(filepath.Base(path), key) {
			if want := map[float64]string{2: rule}[event["revision"].(float64)]; problem(event) != want {
				t.Errorf("revision %v: problem %q, want %q", event["revision"], problem(event), want)
			}
		}
		page := e.must(200, "GET", "/api/v1/distributions/"+filepath.Base(path)+"/events?after=2", key, "").object(t)["data"].([]any)
		for _, event := range page {
			if p := problem(event.(map[string]any)); p != "" {
				t.Errorf("behind the break: problem %q", p)
			}
		}
		e.refuses(path, key)
	}
	e.told(streamOf(changed), streamOf(missing))
}

// Of a truncated stream the engine serves nothing, not even evidence.
func TestDamage_aTruncatedStreamIsNotServed(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	create := func() string {
		path := e.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q}`, in(-1000))).header.Get("Location")
		e.must(200, "POST", path+"/enter", key, "", "X-Consumer-Id", "c")
		e.must(200, "POST", path+"/close", key, "")
		return path
	}
	soft, ended, limited, deleted := create(), create(), create(), create()
	e.must(204, "DELETE", deleted, key, "")
	c := officialClient(t, dir)
	for _, path := range []string{soft, deleted} {
		if _, err := c.DeleteStream(t.Context(), streamOf(path), esdb.DeleteStreamOptions{ExpectedRevision: esdb.StreamExists{}}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.TombstoneStream(t.Context(), streamOf(ended), esdb.TombstoneStreamOptions{ExpectedRevision: esdb.StreamExists{}}); err != nil {
		t.Fatal(err)
	}
	var newest esdb.StreamMetadata
	newest.SetMaxCount(2)
	if _, err := c.SetStreamMetadata(t.Context(), streamOf(limited), esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}}, newest); err != nil {
		t.Fatal(err)
	}
	e.kill()
	e = lotline.serve(t, dir, operatorsListen)
	for _, path := range []string{soft, ended, limited, deleted} {
		a := e.call("GET", "/api/v1/distributions/"+filepath.Base(path)+"/events", key, "")
		if a.status != 500 || !strings.Contains(string(a.body), inconsistent) {
			t.Errorf("%d %s", a.status, a.body)
		}
		e.refuses(path, key)
	}
	e.told(streamOf(soft), streamOf(ended), streamOf(limited), streamOf(deleted))
}

// A damaged claim makes one idempotency key unusable and nothing else.
func TestDamage_ofAClaimEndsOneIdempotencyKey(t *testing.T) {
	t.Parallel()
	dir, lotline := dataDirectory(t), testBinary(t)
	e := lotline.serve(t, dir, operatorsListen)
	key := e.secretKey()
	create := func(status int, idempotencyKey string) string {
		return e.must(status, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`, "Idempotency-Key", idempotencyKey).header.Get("Location")
	}
	path := create(201, "a")
	e.terminate()
	id := filepath.Base(path)
	tamper(t, dir, `UPDATE events SET data = replace(data, ?, 'queue_00000000000000000000000000') WHERE type LIKE 'claim.%'
		AND data LIKE '%' || ? || '%'`, id, id)
	e = lotline.serve(t, dir, operatorsListen)
	create(500, "a")
	create(201, "b")
	e.must(200, "GET", path, key, "")
	e.must(200, "PUT", path, key, `{"name":"x"}`)
	if q := e.must(200, "GET", "/readyz", key, "").object(t)["checks"].(map[string]any)["histories"].(map[string]any)["count"]; q != 1.0 {
		t.Errorf("%v streams are told of", q)
	}
}

// The test follows the runbook about damage step by step, on an engine whose log was
// changed.
func TestDamage_theCommandsOfTheRunbookWork(t *testing.T) {
	t.Parallel()
	base := filepath.Dir(dataDirectory(t))
	for _, dir := range []string{"lib", "log", "backups", "elsewhere", "bin"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	lotline := testBinary(t)
	for _, name := range []string{"lotline", asCurl} {
		if err := os.Symlink(lotline.path, filepath.Join(base, "bin", name)); err != nil {
			t.Fatal(err)
		}
	}
	e := lotline.serve(t, base+"/lib/lotline")
	key := e.secretKey()
	create := func() string {
		return e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","name":"Raffle","drawAt":%q,"winnerCount":1}`, in(3_600_000))).header.Get("Location")
	}
	bad, good := create(), create()
	stream := streamOf(bad)
	places := map[string]string{
		"/var/lib/": base + "/lib/", "/var/log/": base + "/log/", "/backups/": base + "/backups/", "/elsewhere/": base + "/elsewhere/",
	}
	page := operationsPage(t)
	commands := func(name string) string {
		t.Helper()
		_, rest, found := strings.Cut(page, "<!-- run: "+name+" -->\n```sh\n")
		block, _, ended := strings.Cut(rest, "```\n")
		if !found || !ended {
			t.Fatalf("the page has no commands %q", name)
		}
		for from, to := range places {
			block = strings.ReplaceAll(block, from, to)
		}
		return block
	}
	shell := func(script string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "sh", "-eu", "-c", script)
		c.Env = append(os.Environ(), append(lotline.env, "PATH="+filepath.Join(base, "bin")+":"+os.Getenv("PATH"), "KEY="+key, "ID="+filepath.Base(bad))...)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s\n%s", err, script, out)
		}
		return string(out)
	}
	// Each block ends with a serve command. The test starts that engine itself.
	serve := func(name string) *engine {
		t.Helper()
		prepare, start, found := strings.Cut(commands(name), "LOTLINE_DATA_DIR=")
		dir, flags, serves := strings.Cut(start, " lotline serve")
		if !found || !serves {
			t.Fatalf("the last command does not serve: %s", start)
		}
		shell(prepare)
		dir, _, _ = strings.Cut(dir, " ") // without the address that the page adds
		return lotline.serveWith(t, dir, strings.Fields(flags), operatorsListen)
	}

	shell(commands("backup"))
	shell(commands("key"))
	e.terminate()
	corruptFirstEvent(t, base+"/lib/lotline", stream)
	e = lotline.serve(t, base+"/lib/lotline")
	e.must(500, "POST", bad+"/open", key, "")
	places["http://localhost:8080"] = e.url

	eventually(t, "it is logged", func() bool { return len(e.quarantinedLines(stream)) == 1 })
	if err := os.WriteFile(filepath.Join(base, "log", "lotline.log"), []byte(e.stderr.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var seen string
	eventually(t, "the figure is measured anew", func() bool {
		seen = shell(commands("see damage"))
		return strings.HasSuffix(seen, "lotline_quarantined_streams 1\n")
	})
	if n := strings.Count(seen, stream); n != 2 { // in the log and in /readyz
		t.Errorf("the stream is named %d times:\n%s", n, seen)
	}
	e.must(200, "GET", good, key, "")
	if got := shell(commands("keep the evidence")); strings.Count(got, `"problem":{`) != 1 || !strings.Contains(got, "Rigged") {
		t.Errorf("the evidence is\n%s", got)
	}
	other := serve("open a backup")
	places["http://localhost:8081"] = other.url
	got := shell(commands("compare"))
	if strings.Count(got, "\n< ") != 1 || strings.Count(got, "\n> ") != 1 || !strings.Contains(got, "Raffle") || !strings.Contains(got, "Rigged") {
		t.Errorf("they differ by\n%s", got)
	}
	other.terminate()
	e.terminate()

	e = serve("restore")
	e.told()
	if name := e.must(200, "GET", bad, key, "").object(t)["name"]; name != "Raffle" {
		t.Errorf("it is called %v", name)
	}
	e.must(200, "POST", bad+"/open", key, "")
}

// An event that breaks the rules is not published, even if it can be decoded and its hash
// is right: subscribers must not act on it.
func TestDamage_damagedEventsAreNotSentToTheBus(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	b.start()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir, "LOTLINE_BUS="+b.url())
	key := e.secretKey()
	create := func() string {
		return e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	}
	bad, good := create(), create()
	stream := appendImpossible(t, officialClient(t, dir), filepath.Base(bad))
	eventually(t, "it is quarantined", func() bool { return e.call("GET", bad, key, "").status == 500 })
	e.must(200, "PUT", good, key, `{"name":"x"}`)
	eventually(t, "what happened later is sent", func() bool {
		messages, _ := b.stored()
		for _, m := range messages {
			if strings.Contains(string(m.Data), `"queue.completed"`) {
				t.Fatalf("of %s is sent %s", stream, m.Data)
			}
		}
		return len(messages) == 3
	})
}

// appendImpossible appends an event that completes a queue in DRAFT, which the rules do
// not allow. In all else the event is as the engine writes it.
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

func TestDamage_anImpossibleEventIsQuarantinedAndAllElseWorks(t *testing.T) {
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
