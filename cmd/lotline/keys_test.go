package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// keyOf makes a secret key over HTTP.
func keyOf(t *testing.T, c *caller, n *clusterNode, body string) (path, text string) {
	t.Helper()
	a, err := c.call(t.Context(), http.MethodPost, n.url+"/api/v1/keys", body, nil)
	if err != nil || a.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	var made struct{ Key string }
	if err := json.Unmarshal(a.body, &made); err != nil {
		t.Fatal(err)
	}
	return a.header.Get("Location"), made.Key
}

// works reports whether a node accepts a key.
func works(t *testing.T, c *caller, n *clusterNode, key string) bool {
	t.Helper()
	a, err := c.call(t.Context(), http.MethodGet, n.url+"/api/v1/keys", "", http.Header{"Authorization": {"Bearer " + key}})
	if err != nil || a.status != http.StatusOK && a.status != http.StatusUnauthorized {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	return a.status == http.StatusOK
}

// takesEffect is how soon a change to a key takes effect on all nodes.
const takesEffect = time.Second

// A key that is made or revoked takes effect at once on the node that did it, and within
// a second on all nodes.
func TestKeys_countOnAllNodesWithinASecond(t *testing.T) {
	t.Parallel()
	c, nodes := newCaller(t), newCluster(t, 2).nodes
	path, text := keyOf(t, c, nodes[0], `{"level":"secret"}`)
	if !works(t, c, nodes[0], text) {
		t.Error("the key does not work where it was made")
	}
	within(t, takesEffect, "it works on the other node", func() bool { return works(t, c, nodes[1], text) })

	a, err := c.call(t.Context(), http.MethodDelete, nodes[1].url+path, "", nil)
	if err != nil || a.status != http.StatusNoContent {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	if works(t, c, nodes[1], text) {
		t.Error("the key works where it was revoked")
	}
	within(t, takesEffect, "it is revoked on the other node", func() bool { return !works(t, c, nodes[0], text) })
}

// A key works on every node until it expires, and on none afterwards. One event, dated
// at the time when it was due, records the expiry.
func TestKeys_expireOnAllNodesAtTheirTime(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, 2)
	c, nodes := newCaller(t), cluster.nodes
	end := domain.InstantOf(time.Now().Add(2 * time.Second))
	path, text := keyOf(t, c, nodes[0], body(`{"level":"secret","expiresAt":%q}`, end))
	for _, n := range nodes {
		within(t, takesEffect, "it works before its time", func() bool { return works(t, c, n, text) || time.Now().After(end.Time()) })
	}
	after(t, time.Until(end.Time()))
	for i, n := range nodes {
		if works(t, c, n, text) {
			t.Errorf("it works past its time on node %d", i)
		}
	}
	l := cluster.connect(t)
	expired := func() (all []domain.KeyExpired) {
		for r, err := range l.Read(t.Context(), nodes[0].organization(t).Stream(), domain.NoStream) {
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := r.Event.(domain.KeyExpired); ok {
				all = append(all, e)
				if r.Metadata.Actor != domain.ActorClock {
					t.Errorf("recorded by %s", r.Metadata.Actor)
				}
			}
		}
		return all
	}
	within(t, 10*time.Second, "it is recorded before the next sweep", func() bool { return len(expired()) > 0 })
	// The other node's timer comes later and must not record it again.
	after(t, 500*time.Millisecond)
	if all := expired(); len(all) != 1 || all[0].At != end || !strings.HasSuffix(path, string(all[0].KeyID)) {
		t.Errorf("recorded %v, due %s", all, end)
	}
}

func TestKeys_expireByTheCommandLine(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	admin(t, dir, "org", "create", "--name=Acme", "--time-zone=Europe/Berlin")
	admin(t, dir, "keys", "create", "--org=Acme", "--name=summer", "--expires-at=2099-07-01T12:00:00")
	if list := admin(t, dir, "keys", "list"); !strings.HasSuffix(strings.TrimSpace(lineOf(list, "summer")), "  2099-07-01T10:00:00.000Z  -") {
		t.Errorf("the list does not say when:\n%s", list)
	}
	for _, when := range []string{"2020-01-01T00:00:00Z", "tomorrow", "2099-03-29T02:30:00"} {
		stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "keys", "create", "--org=Acme", "--expires-at="+when)
		if code != exitConfig || stdout != "" || !strings.Contains(stderr, "expiresAt") || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", when, code, stdout, stderr)
		}
	}
}

// The operator may revoke an organization's last secret key, because the operator can
// make another one.
func TestKeys_theOperatorEndsTheLastOne(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	id := keyID(t, admin(t, dir, "keys", "list"), "secret")
	if a := e.must(409, "DELETE", "/api/v1/keys/"+id, key, "").object(t); a["error"] != "Not possible in this state" {
		t.Errorf("got %v", a)
	}
	admin(t, dir, "keys", "revoke", id)
	eventually(t, "the key is revoked", func() bool { return e.call("GET", "/api/v1/keys", key, "").status == 401 })
	_, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, "keys", "revoke", id)
	if code != exitConfig || !strings.Contains(stderr, "revoked already") {
		t.Errorf("a second time: exit %d, %s", code, stderr)
	}
	another := admin(t, dir, "keys", "create")
	eventually(t, "another key works", func() bool { return e.call("GET", "/api/v1/keys", another, "").status == 200 })
}

// keyID returns the id of the key with a name from the output of keys list.
func keyID(t *testing.T, list, name string) string {
	t.Helper()
	for line := range strings.Lines(list) {
		if cells := strings.Fields(line); strings.Contains(line, name) {
			return cells[0]
		}
	}
	t.Fatalf("no %q in\n%s", name, list)
	return ""
}

func TestKeys_areMadeAndRevokedWhileTheEngineRuns(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	e.secretKey()

	made := admin(t, dir, "keys", "create", "--name=ci", "--mode=test")
	if !regexp.MustCompile(`^sk_test_[A-Z2-7]{26}$`).MatchString(made) {
		t.Errorf("made %q", made)
	}
	eventually(t, "the new key works", func() bool { return e.call("GET", "/api/v1/queues", made, "").status == 200 })

	list := admin(t, dir, "keys", "list")
	if strings.Contains(list, made) {
		t.Errorf("the list shows the key:\n%s", list)
	}
	id := keyID(t, list, "ci")
	admin(t, dir, "keys", "revoke", id)
	eventually(t, "the key is revoked", func() bool { return e.call("GET", "/api/v1/queues", made, "").status == 401 })
	if line := admin(t, dir, "keys", "list"); strings.Contains(lineOf(line, id), " -\n") {
		t.Errorf("the list does not say so:\n%s", line)
	}
}

func lineOf(text, part string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			return line
		}
	}
	return ""
}

func TestKeys_areMadeAndRevokedWhileNoEngineRuns(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	org := admin(t, dir, "org", "create", "--name=Acme", "--time-zone=Europe/Berlin", "--currency=EUR")
	if !strings.HasPrefix(org, "org_") {
		t.Errorf("made %q", org)
	}
	key := admin(t, dir, "keys", "create", "--org=Acme")
	other := admin(t, dir, "keys", "create", "--org="+org, "--name=other")
	publishable := admin(t, dir, "keys", "create", "--org=Acme", "--level=publishable")
	if !strings.HasPrefix(publishable, "pk_live_") {
		t.Errorf("made %q", publishable)
	}
	admin(t, dir, "keys", "revoke", keyID(t, admin(t, dir, "keys", "list", "--org=Acme"), "other"))

	e := testBinary(t).serve(t, dir)
	e.must(401, "GET", "/api/v1/queues", other, "")
	// The organization's own time zone and currency are the defaults.
	a := e.must(201, "POST", "/api/v1/auctions", key, `{"sequenceId":"s","settleAt":"2099-07-01T12:00:00"}`).object(t)
	if a["timeZone"] != "Europe/Berlin" || a["currencyCode"] != "EUR" || a["settleAt"] != "2099-07-01T10:00:00.000Z" || a["organizationId"] != org {
		t.Errorf("got %v", a)
	}
	// Another organization does not see the auction.
	theirs := e.secretKey()
	path := "/api/v1/auctions/" + a["id"].(string)
	e.must(404, "GET", path, theirs, "")
	e.must(404, "DELETE", path, theirs, "")
	e.must(404, "GET", "/api/v1/auctions/auction_00000000000000000000000000", theirs, "")
	e.must(200, "GET", path, key, "")
}

func TestKeys_anUnknownOrganizationOrKeyIsExitCode2(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	for _, args := range [][]string{
		{"keys", "create", "--org=nobody"},
		{"keys", "list", "--org=nobody"},
		{"keys", "revoke", "key_00000000000000000000000000"},
		{"org", "create", "--name=x", "--time-zone=Mars/Olympus"},
		{"org", "create", "--name=x", "--currency=XYZ"},
		{"org", "create"},
		{"keys"},
	} {
		stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
		if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}
