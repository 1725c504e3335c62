package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"net"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/google/uuid"
)

// storePassword has characters that must be escaped in a connection string.
const storePassword = "correct:horse@battery/staple"

// writeCertificate writes a certificate for 127.0.0.1 and its key.
func writeCertificate(t testing.TB) (certFile, keyFile string) {
	t.Helper()
	server := httptest.NewTLSServer(nil)
	server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func secured(t testing.TB) []string {
	t.Helper()
	certFile, keyFile := writeCertificate(t)
	return []string{"LOTLINE_EMBEDDED_TLS_CERT=" + certFile, "LOTLINE_EMBEDDED_TLS_KEY=" + keyFile, "LOTLINE_EMBEDDED_PASSWORD=" + storePassword}
}

var printedAddress = regexp.MustCompile(`The event store is listening on (esdb://\S+)`)

// storeAddress returns the connection string that a store or an engine prints.
func (e *engine) storeAddress() string {
	e.t.Helper()
	found := printedAddress.FindStringSubmatch(e.stdout.String())
	if found == nil {
		e.t.Fatalf("it prints no address: %s", e.stdout)
	}
	return found[1]
}

// appendTo appends an event with the official client.
func appendTo(t testing.TB, connection string) error {
	t.Helper()
	config, err := esdb.ParseConnectionString(connection)
	if err != nil {
		t.Fatal(err)
	}
	config.Logger = esdb.NoopLogging()
	client, err := esdb.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, err = client.AppendToStream(t.Context(), "some-stream", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}},
		esdb.EventData{EventID: uuid.New(), EventType: "x", ContentType: esdb.ContentTypeJson, Data: []byte("{}")})
	return err
}

// The printed connection string works when the password is put in. It does not contain the
// password.
func TestStore_theAddressThatIsPrintedWorks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		at  string
		env []string
	}{
		"on loopback":                  {at: "127.0.0.1:0"},
		"on loopback with a password":  {at: "127.0.0.1:0", env: secured(t)},
		"everywhere, with a password":  {at: "0.0.0.0:0", env: secured(t)},
		"everywhere, without an IP":    {at: ":0", env: secured(t)},
		"everywhere, by both families": {at: "[::]:0", env: secured(t)},
	} {
		for _, command := range []string{"store", "serve"} {
			t.Run(name+", "+command, func(t *testing.T) {
				t.Parallel()
				var e *engine
				if command == "store" {
					e = startStore(t, testBinary(t), dataDirectory(t), c.at, c.env...)
				} else {
					e = testBinary(t).serve(t, dataDirectory(t), append([]string{"LOTLINE_EMBEDDED_LISTEN=" + c.at}, c.env...)...)
				}
				address := e.storeAddress()
				if err := appendTo(t, withHost(t, strings.Replace(address, "PASSWORD", url.QueryEscape(storePassword), 1))); err != nil {
					t.Errorf("%s: %v", address, err)
				}
				if code := e.terminate(); code != 0 {
					t.Errorf("exit %d", code)
				}
				if printed := e.stdout.String() + e.stderr.String(); strings.Contains(printed, "horse") {
					t.Errorf("it shows the password: %s", printed)
				}
			})
		}
	}
}

// withHost replaces the certificate's host name, which does not resolve here, by this
// machine's address.
func withHost(t testing.TB, connection string) string {
	t.Helper()
	u, err := url.Parse(connection)
	if err != nil {
		t.Fatal(err)
	}
	u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	return u.String()
}

func TestStore_isUsedBehindTLSAndAPassword(t *testing.T) {
	t.Parallel()
	lotline := testBinary(t)
	store := startStore(t, lotline, dataDirectory(t), "127.0.0.1:0", secured(t)...)
	address := withHost(t, store.storeAddress())
	with := func(password string) []string {
		return []string{
			"LOTLINE_EVENTSTORE=" + strings.Replace(address, "PASSWORD", url.QueryEscape(password), 1),
			"LOTLINE_MASTER_KEY=" + hex.EncodeToString(make([]byte, 32)),
		}
	}
	e := lotline.serve(t, dataDirectory(t), with(storePassword)...)
	key := e.secretKey()
	path := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s"}`).header.Get("Location")
	e.must(200, "GET", path, key, "")
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}

	env := append(with("wrong:horse@battery/staple"), "LOTLINE_DATA_DIR="+dataDirectory(t), "LOTLINE_LISTEN=127.0.0.1:0")
	stdout, stderr, code := lotline.run(t, env, "serve")
	if code == 0 || stdout != "" || !strings.Contains(stderr, "wrong user or password") {
		t.Errorf("with a wrong password: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	for _, printed := range []string{e.stdout.String(), e.stderr.String(), store.stdout.String(), store.stderr.String(), stdout, stderr} {
		if strings.Contains(printed, "horse") {
			t.Errorf("it shows the password: %s", printed)
		}
	}
}

// Two engines run on one `lotline store`. Each serves what the other writes.
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
	// The position makes the other engine wait until it has the event.
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
