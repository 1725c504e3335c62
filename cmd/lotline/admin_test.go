package main

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// admin runs an administrative command and returns what it printed.
func admin(t *testing.T, dir string, args ...string) string {
	t.Helper()
	stdout, stderr, code := testBinary(t).run(t, []string{"LOTLINE_DATA_DIR=" + dir}, args...)
	if code != 0 {
		t.Fatalf("%v: exit %d: %s", args, code, stderr)
	}
	return strings.TrimSpace(stdout)
}

// keyID finds the id of the key with a name in the list of keys.
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
	// Another organization sees nothing of it.
	theirs := e.secretKey()
	path := "/api/v1/auctions/" + a["id"].(string)
	e.must(404, "GET", path, theirs, "")
	e.must(404, "DELETE", path, theirs, "")
	e.must(404, "GET", "/api/v1/auctions/auction_00000000000000000000000000", theirs, "")
	e.must(200, "GET", path, key, "")
}

func TestKeys_whatDoesNotExistIsExitCode2(t *testing.T) {
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

func TestServe_takesTheKeysItIsGiven(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	const key, publishable = "sk_live_provisioned-key-0001", "pk_live_provisioned-key-0001"
	for range 2 {
		e := testBinary(t).serve(t, dir, "LOTLINE_SECRET_KEY="+key, "LOTLINE_PUBLISHABLE_KEY="+publishable)
		e.must(200, "GET", "/api/v1/queues", key, "")
		if out := e.stdout.String(); strings.Contains(out, "sk_live") || strings.Contains(out, "pk_live") {
			t.Errorf("it shows keys: %s", out)
		}
		e.terminate()
	}
	if list := admin(t, dir, "keys", "list"); strings.Count(list, "provisioned") != 2 {
		t.Errorf("each key once:\n%s", list)
	}
}

// A start with a key that does not work would leave whoever gave it locked out
// without a word.
func TestServe_aGivenKeyThatDoesNotWorkEndsTheStart(t *testing.T) {
	t.Parallel()
	const key, publishable, revoked = "sk_live_provisioned-key-0001", "pk_live_provisioned-key-0001", "sk_live_provisioned-key-0002"
	lotline, dir := testBinary(t), dataDirectory(t)
	lotline.serve(t, dir, "LOTLINE_SECRET_KEY="+revoked).terminate()
	admin(t, dir, "keys", "revoke", keyID(t, admin(t, dir, "keys", "list"), "secret"))
	lotline.serve(t, dir, "LOTLINE_SECRET_KEY="+key, "LOTLINE_PUBLISHABLE_KEY="+publishable).terminate()
	expired := admin(t, dir, "keys", "create", "--name=short", "--expires-at="+in(2000))
	admin(t, dir, "org", "create", "--name=Other")
	others := admin(t, dir, "keys", "create", "--org=Other", "--name=others")
	othersPublic := admin(t, dir, "keys", "create", "--org=Other", "--level=publishable", "--name=others")
	end := time.Now().Add(2 * time.Second)
	eventually(t, "the key has expired", func() bool { return time.Now().After(end) })
	before := admin(t, dir, "keys", "list")
	for name, c := range map[string]struct{ variable, key, says string }{
		"revoked":            {"LOTLINE_SECRET_KEY", revoked, "was revoked or has expired"},
		"expired":            {"LOTLINE_SECRET_KEY", expired, "was revoked or has expired"},
		"another's":          {"LOTLINE_SECRET_KEY", others, "belongs to another organization"},
		"another's, for all": {"LOTLINE_PUBLISHABLE_KEY", othersPublic, "belongs to another organization"},
	} {
		env := []string{"LOTLINE_DATA_DIR=" + dir, "LOTLINE_LISTEN=127.0.0.1:0", "LOTLINE_SECRET_KEY=" + key, c.variable + "=" + c.key}
		stdout, stderr, code := lotline.run(t, env, "serve")
		if code != exitConfig || stdout != "" || strings.Count(stderr, "\n") != 1 || !strings.Contains(stderr, c.variable+": ") || !strings.Contains(stderr, c.says) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", name, code, stdout, stderr)
		}
		if strings.Contains(stderr, c.key) {
			t.Errorf("%s: it shows the key: %s", name, stderr)
		}
	}
	if after := admin(t, dir, "keys", "list"); after != before {
		t.Errorf("the keys were\n%s\nand are\n%s", before, after)
	}
	lotline.serve(t, dir, "LOTLINE_SECRET_KEY="+key).must(200, "GET", "/api/v1/queues", key, "")
}

// A key that is not the log's is not made up beside it.
func TestStore_hasOneMasterKey(t *testing.T) {
	t.Parallel()
	lotline, dir, at := testBinary(t), dataDirectory(t), freePort(t)
	store := startStore(t, lotline, dir, at)
	env := []string{"LOTLINE_EVENTSTORE=esdb://" + at + "?tls=false", "LOTLINE_LISTEN=127.0.0.1:0"}
	first, second := dataDirectory(t), dataDirectory(t)
	if code := lotline.serve(t, first, env...).terminate(); code != 0 {
		t.Errorf("the first engine on a new log: exit %d", code)
	}
	_, stderr, code := lotline.run(t, append(env, "LOTLINE_DATA_DIR="+second), "serve")
	if code != exitConfig || !strings.Contains(stderr, "LOTLINE_MASTER_KEY") {
		t.Errorf("an engine without the key: exit %d, %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(second, masterKeyFile)); err == nil {
		t.Error("it left a key of its own behind")
	}
	if code := store.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, store.stderr)
	}
	// A directory in which only a store ran is no other than a new one.
	fresh := dataDirectory(t)
	startStore(t, lotline, fresh, freePort(t)).terminate()
	e := lotline.serve(t, fresh)
	e.must(200, "GET", "/api/v1/queues", e.secretKey(), "")
}

// onWrite is a writer that does something first.
type onWrite func(text string)

func (f onWrite) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// A process that ends in the middle of its first start leaves no key in the log
// that nobody has seen.
func TestServe_keysAreShownBeforeTheyAreStored(t *testing.T) {
	t.Parallel()
	s := &settings{DataDir: dataDirectory(t)}
	dir, err := openDataDir(s.DataDir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := openLog(t.Context(), s, dir, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	l.dir = dir
	n, err := newNode(l, dir, nodeOptions{}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(n.shutDown(), l.Close()); err != nil {
			t.Error(err)
		}
	}()
	if !n.catchUp(t.Context()) {
		t.Fatal("it did not catch up")
	}
	stored := func() *domain.Organization {
		claim := inTheLog(t, l, defaultClaim).Aggregate.(*domain.Claims)
		return inTheLog(t, l, claim.Made.Stream()).Aggregate.(*domain.Organization)
	}
	shown := ""
	made, err := (&serveCmd{}).provision(t.Context(), n, onWrite(func(text string) {
		shown += text
		if keys := stored().Keys; len(keys) > 0 {
			t.Errorf("while %q is shown, the log has %v", text, keys)
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if len(made) != 2 || len(stored().Keys) != 2 {
		t.Errorf("made %d, stored %d", len(made), len(stored().Keys))
	}
	for _, key := range made {
		if _, works := n.views.Credential(domain.KeyHash(key)); !works || !strings.Contains(shown, key) {
			t.Errorf("%s… works: %t, shown: %t", domain.KeyHint(key), works, strings.Contains(shown, key))
		}
	}
}

// freePort is a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// Two engines on one `lotline store`: what one writes the other serves.
func TestStore_isSharedByEngines(t *testing.T) {
	t.Parallel()
	lotline, storeDir, at := testBinary(t), dataDirectory(t), freePort(t)
	store := startStore(t, lotline, storeDir, at)
	env := []string{"LOTLINE_EVENTSTORE=esdb://" + at + "?tls=false", "LOTLINE_MASTER_KEY=" + hex.EncodeToString(make([]byte, 32)), "LOTLINE_SECRET_KEY=sk_live_provisioned-key-0001"}
	a := lotline.serve(t, dataDirectory(t), env...)
	b := lotline.serve(t, dataDirectory(t), env...)
	const key = "sk_live_provisioned-key-0001"
	made := a.must(201, "POST", "/api/v1/queues", key, body(`{"sequenceId":"s","openAt":%q,"closeAt":%q}`, in(500), in(1000)))
	path := made.header.Get("Location")
	// The position makes the other engine wait until it knows.
	b.must(200, "GET", path, key, "", "X-Position", made.header.Get("X-Position"))
	for _, e := range []*engine{a, b} {
		eventually(t, "it went through its life", func() bool { return e.must(200, "GET", path, key, "").object(t)["status"] == "COMPLETED" })
	}
	for _, e := range []*engine{a, b} {
		if code := e.terminate(); code != 0 {
			t.Errorf("exit %d: %s", code, e.stderr)
		}
	}
	if code := store.terminate(); code != 0 {
		t.Errorf("exit %d: %s", code, store.stderr)
	}
}
