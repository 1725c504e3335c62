package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

func TestProvision_givenKeysWork(t *testing.T) {
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

// If the start ignored a given key that does not work, its owner would be locked out
// without a message.
func TestProvision_aGivenKeyThatDoesNotWorkEndsTheStart(t *testing.T) {
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

// onWrite is a writer that calls a function with each text.
type onWrite func(text string)

func (f onWrite) Write(p []byte) (int, error) {
	f(string(p))
	return len(p), nil
}

// A first start that crashes leaves no key in the log that it has not printed before.
func TestProvision_keysArePrintedBeforeTheyAreStored(t *testing.T) {
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
