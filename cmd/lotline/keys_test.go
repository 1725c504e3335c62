package main

import (
	"encoding/json"
	"net/http"
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

// works reports whether a node lets a key in.
func works(t *testing.T, c *caller, n *clusterNode, key string) bool {
	t.Helper()
	a, err := c.call(t.Context(), http.MethodGet, n.url+"/api/v1/keys", "", http.Header{"Authorization": {"Bearer " + key}})
	if err != nil || a.status != http.StatusOK && a.status != http.StatusUnauthorized {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	return a.status == http.StatusOK
}

// takesEffect is how soon all nodes go by what happened to a key.
const takesEffect = time.Second

// What is made or revoked on one node counts on all of them within a second, and on
// that one at once.
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

// A key works until its time on every node, and on none from then on. That it has
// expired is recorded once, promptly, and dated when it was due.
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
	// The other node comes later and finds it done.
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

// The operator may end the last secret key, because he can make another.
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

func TestOrg_isShownAndChanged(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	shown := admin(t, dir, "org", "show")
	id := e.must(200, "GET", "/api/v1/organization", key, "").object(t)["id"].(string)
	for name, value := range map[string]string{"id": id, "name": "default", "time zone": "UTC", "currency": "USD"} {
		if line := lineOf(shown, name); strings.Join(strings.Fields(strings.TrimPrefix(line, name)), " ") != value {
			t.Errorf("%s: %q in\n%s", name, line, shown)
		}
	}
	changed := admin(t, dir, "org", "update", "--name=Acme", "--time-zone=Europe/Berlin")
	if again := admin(t, dir, "org", "show", "--org="+id); again != changed || !strings.Contains(changed, "Europe/Berlin") {
		t.Errorf("changed to\n%s\nshown as\n%s", changed, again)
	}
	eventually(t, "the engine knows", func() bool {
		o := e.must(200, "GET", "/api/v1/organization", key, "").object(t)
		return o["name"] == "Acme" && o["timeZone"] == "Europe/Berlin" && o["currencyCode"] == "USD"
	})
	// The default organization is the default under another name, too.
	made := admin(t, dir, "keys", "create")
	eventually(t, "a key for it works", func() bool { return e.call("GET", "/api/v1/organization", made, "").status == 200 })
	if a := e.must(200, "GET", "/api/v1/organization", made, "").object(t); a["id"] != id {
		t.Errorf("got %v", a)
	}
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	testBinary(t).serve(t, dir).must(200, "GET", "/api/v1/organization", key, "")
	if list := admin(t, dir, "keys", "list"); strings.Count(list, "first start") != 2 {
		t.Errorf("it was made again:\n%s", list)
	}
	for _, args := range [][]string{
		{"org", "update"},
		{"org", "update", "--time-zone=Mars/Olympus"},
		{"org", "update", "--currency=XYZ"},
		{"org", "update", "--org=nobody", "--name=x"},
		{"org", "show", "--org=nobody"},
	} {
		stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
		if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
}
