package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/tokens"
	"github.com/lotline/lotline/projections"
)

// session opens a consumer's session on a node.
func session(t *testing.T, c *caller, n *clusterNode) (token string) {
	t.Helper()
	a, err := c.call(t.Context(), http.MethodPost, n.url+"/api/v1/auth/consumer", `{"consumerId":"c"}`, nil)
	if err != nil || a.status != http.StatusCreated {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	return a.object(t)["accessToken"].(string)
}

// holds reports whether a node accepts a token. It sends the token with a publishable key,
// with a request that needs only the key.
func holds(t *testing.T, c *caller, n *clusterNode, publishable, token string) bool {
	t.Helper()
	a, err := c.call(t.Context(), http.MethodGet, n.url+"/api/v1/queues/queue_00000000000000000000000000", "", http.Header{
		"Authorization": {"Bearer " + token}, "X-Publishable-Key": {publishable},
	})
	if err != nil || a.status != http.StatusNotFound && a.status != http.StatusUnauthorized {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	return a.status == http.StatusNotFound
}

func signingKeys(t *testing.T, n *clusterNode) []domain.SigningKey {
	t.Helper()
	keys, err := n.views.SigningKeys()
	if err != nil {
		t.Fatal(err)
	}
	return keys.Keys
}

// A token is valid on all nodes, whichever node made it. Within a second after its signing
// key is revoked, it is invalid on all nodes.
func TestSigning_aRevokedKeyStopsCountingOnAllNodesWithinASecond(t *testing.T) {
	t.Parallel()
	c, nodes := newCaller(t), newCluster(t, 2).nodes
	_, publishable := keyOf(t, c, nodes[0], `{"level":"publishable"}`)
	within(t, takesEffect, "the key works", func() bool { return holds(t, c, nodes[1], publishable, session(t, c, nodes[0])) })
	old := session(t, c, nodes[0])
	o := &adminClient{nodes[0].log, nodes[0].handler, nodes[0].views}
	if _, err := o.changeSigningKeys(t.Context(), domain.MakeSigningKey{Secret: randomSecret()}); err != nil {
		t.Fatal(err)
	}
	within(t, takesEffect, "both nodes sign with the new key", func() bool {
		return len(signingKeys(t, nodes[0])) == 2 && len(signingKeys(t, nodes[1])) == 2
	})
	young := session(t, c, nodes[1])
	for i, n := range nodes {
		if !holds(t, c, n, publishable, old) || !holds(t, c, n, publishable, young) {
			t.Errorf("after the rotation a token does not hold on node %d", i)
		}
	}
	for _, token := range []string{old, young} {
		keys := signingKeys(t, nodes[1])
		revoked := keys[0].ID
		if token == young {
			revoked = keys[len(keys)-1].ID
		}
		if _, err := o.changeSigningKeys(t.Context(), domain.RevokeSigningKey{KeyID: revoked, Secret: randomSecret()}); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			within(t, takesEffect, "the token does not hold", func() bool { return !holds(t, c, n, publishable, token) })
		}
		if token == old && !holds(t, c, nodes[1], publishable, young) {
			t.Error("another key's token does not hold any more")
		}
	}
	if again := session(t, c, nodes[1]); !holds(t, c, nodes[1], publishable, again) {
		t.Error("no tokens are given out any more")
	}
}

// Nodes that start at once on a log without keys end up with the same one.
func TestSigning_nodesThatStartAtOnceHaveTheSameKey(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, 0)
	var starting sync.WaitGroup
	errs := make(chan error, 3)
	for range cap(errs) {
		n := cluster.openNode(t, lockedDir(t))
		if !n.catchUp(t.Context()) {
			t.Fatal(t.Context().Err())
		}
		if _, err := n.views.SigningKeys(); !errors.Is(err, projections.ErrBehind) {
			t.Fatalf("before the start: %v", err)
		}
	}
	for _, n := range cluster.nodes {
		starting.Go(func() { errs <- n.makeSigningKey(t.Context()) })
	}
	starting.Wait()
	first := signingKeys(t, cluster.nodes[0])
	for _, n := range cluster.nodes {
		if err := <-errs; err != nil {
			t.Error(err)
		}
		if keys := signingKeys(t, n); len(keys) != 1 || keys[0] != first[0] {
			t.Errorf("keys %v and %v", keys, first)
		}
	}
}

// A node that starts after a signing key's time is over makes the next key. Tokens of the
// old key stay valid.
func TestSigning_rotatesByItself(t *testing.T) {
	t.Parallel()
	cluster := newCluster(t, 0)
	l := cluster.connect(t)
	past := domain.InstantOf(time.Now()).Add(-domain.SigningPeriod)
	var keys domain.SigningKeys
	made, err := keys.Decide(past, domain.MakeSigningKey{Secret: randomSecret()})
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Encode(domain.SigningStream, made[0], domain.Metadata{CommandID: uuid.NewString(), Actor: domain.ActorOperator})
	if err != nil {
		t.Fatal(err)
	}
	p.ID = uuid.New()
	if _, _, err := l.Append(t.Context(), domain.SigningStream, domain.EmptyHead(), []domain.Proposed{p}); err != nil {
		t.Fatal(err)
	}
	if err := keys.Evolve(made[0]); err != nil {
		t.Fatal(err)
	}
	n, c := cluster.startNode(t), newCaller(t)
	eventually(t, "another key signs", func() bool { return len(signingKeys(t, n)) == 2 })
	if got, want := signingKeys(t, n)[1].ID, keys.Keys[0].Next().ID; got != want {
		t.Errorf("%s follows, announced was %s", got, want)
	}
	before, err := tokens.New(fixedKeys{&keys}).Sign(tokens.NewAccess(n.organization(t), "c", domain.InstantOf(time.Now().Add(-time.Minute))))
	if err != nil {
		t.Fatal(err)
	}
	_, publishable := keyOf(t, c, n, `{"level":"publishable"}`)
	if !holds(t, c, n, publishable, before) || !holds(t, c, n, publishable, session(t, c, n)) {
		t.Error("a token does not hold")
	}
}

// fixedKeys are signing keys that do not change.
type fixedKeys struct{ keys *domain.SigningKeys }

func (f fixedKeys) SigningKeys() (*domain.SigningKeys, error) { return f.keys, nil }

// A data directory of an older release has no signing keys. The next start makes one, and
// only one.
func TestSigning_aDirectoryWithoutKeysGetsOne(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	admin(t, dir, "org", "create", "--name=Acme")
	if list := admin(t, dir, "signing", "list"); strings.Count(list, "\n") != 0 {
		t.Errorf("there are keys already:\n%s", list)
	}
	var ids []string
	for range 2 {
		e := testBinary(t).serve(t, dir)
		ids = append(ids, e.keySet()...)
		if code := e.terminate(); code != 0 {
			t.Errorf("exit %d", code)
		}
	}
	if len(ids) != 4 || ids[0] != ids[2] || ids[1] != ids[3] {
		t.Errorf("the key and the next one, twice: %q", ids)
	}
}

// keySet returns the ids of the keys in the published key set.
func (e *engine) keySet() (ids []string) {
	e.t.Helper()
	var set struct{ Keys []struct{ Kid string } }
	if err := json.Unmarshal(e.must(200, "GET", "/.well-known/jwks.json", "", "").body, &set); err != nil {
		e.t.Fatal(err)
	}
	for _, k := range set.Keys {
		ids = append(ids, k.Kid)
	}
	return ids
}

// The published key set has the next key too. So a verifier can check tokens after a
// rotation with the key set that it read before. After the signing key is revoked, the
// verifier has to read the key set again.
func TestSigning_aRotationSignsWithTheKeyThatVerifiersWereTold(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	signer := func() string {
		token := e.must(201, "POST", "/api/v1/auth/consumer", key, `{"consumerId":"c"}`).object(t)["accessToken"].(string)
		encoded, _, _ := strings.Cut(token, ".")
		header, err := base64.RawURLEncoding.DecodeString(encoded)
		if err != nil {
			t.Fatal(err)
		}
		var named struct{ Kid string }
		if err := json.Unmarshal(header, &named); err != nil {
			t.Fatal(err)
		}
		return named.Kid
	}
	for range 2 {
		kept, old := e.keySet(), signer()
		id := admin(t, dir, "signing", "rotate")
		eventually(t, "another key signs", func() bool { return signer() != old })
		if id != signer() || !slices.Contains(kept, id) {
			t.Errorf("%s signs, %s was printed, and verifiers know %q", signer(), id, kept)
		}
		if set := e.keySet(); len(set) != len(kept)+1 || slices.Contains(kept, set[len(set)-1]) {
			t.Errorf("no new next key in %q, which was %q", set, kept)
		}
	}
	kept, old := e.keySet(), signer()
	admin(t, dir, "signing", "revoke", old)
	eventually(t, "another key signs", func() bool { return signer() != old })
	if slices.Contains(kept, signer()) {
		t.Errorf("%s signs, which follows from the revoked key", signer())
	}
}

func TestSigning_byTheCommandLine(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	publishable := admin(t, dir, "keys", "create", "--level=publishable")
	open := func() string {
		return e.must(201, "POST", "/api/v1/auth/consumer", key, `{"consumerId":"c"}`).object(t)["accessToken"].(string)
	}
	holds := func(token string) bool {
		return e.call("GET", "/api/v1/queues/queue_00000000000000000000000000", token, "", "X-Publishable-Key", publishable).status == 404
	}
	first := strings.Fields(admin(t, dir, "signing", "list"))[4]
	token := open()
	eventually(t, "the token holds", func() bool { return holds(token) })
	second := admin(t, dir, "signing", "rotate")
	list := admin(t, dir, "signing", "list")
	retired, signs := strings.Fields(lineOf(list, first)), strings.Fields(lineOf(list, second))
	if len(retired) != 4 || retired[2] == "-" || retired[3] != "-" || len(signs) != 4 || signs[2] != "-" {
		t.Errorf("after the rotation:\n%s", list)
	}
	if !holds(token) {
		t.Error("a rotation ends what was signed")
	}
	if got := admin(t, dir, "signing", "revoke", first); got != "revoked "+first {
		t.Errorf("printed %q", got)
	}
	eventually(t, "the token does not hold", func() bool { return !holds(token) })
	for _, args := range [][]string{{"signing"}, {"signing", "revoke"}, {"signing", "revoke", first}, {"signing", "revoke", "x"}} {
		stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
		if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
	}
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
	// The key that signs is revoked while no engine runs. Another key replaces it.
	admin(t, dir, "signing", "revoke", second)
	cells := strings.Fields(lineOf(admin(t, dir, "signing", "list"), second))
	if len(cells) != 4 || cells[2] == "-" || cells[3] == "-" {
		t.Errorf("the revoked key is listed as %q", cells)
	}
	testBinary(t).serve(t, dir).must(201, "POST", "/api/v1/auth/consumer", key, `{"consumerId":"c"}`)
}
