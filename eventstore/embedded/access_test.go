package embedded

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// testPassword has characters that must be escaped in a connection string.
const testPassword = "correct:horse@battery/staple"

// writeCertificate makes a self-signed certificate for names, and writes it to dir, over
// the previous one if there is one.
func writeCertificate(t testing.TB, dir string, names ...string) (certFile, keyFile string) {
	t.Helper()
	return writeCertificateUntil(t, dir, time.Now().Add(time.Hour), names...)
}

func writeCertificateUntil(t testing.TB, dir string, end time.Time, names ...string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "event store of a test"},
		NotBefore: end.Add(-2 * time.Hour), NotAfter: end,
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: certificate}, keyFile: {Type: "PRIVATE KEY", Bytes: private},
	} {
		if err := os.WriteFile(name+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(name+".new", name); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func newAccess(t testing.TB, certFile, keyFile, password string, log zerolog.Logger) *Access {
	t.Helper()
	access, err := NewAccess(certFile, keyFile, password, log)
	if err != nil {
		t.Fatal(err)
	}
	return access
}

// connectBy returns an official client for a connection string.
func connectBy(t testing.TB, connection string) *esdb.Client {
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
	t.Cleanup(func() { client.Close() })
	return client
}

func TestAccess_everyCallNeedsTheRightPassword(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	address := start(t).listenTCP(t, newAccess(t, certFile, keyFile, testPassword, zerolog.New(&log)))
	connection := "esdb://" + address + "?tls=true&tlsCAFile=" + certFile

	client := connectBy(t, connection)
	authenticated := &esdb.Credentials{Login: User, Password: testPassword}
	_, err := client.AppendToStream(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.NoStream{}, Authenticated: authenticated}, newEvent("x", "{}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		claim       string
		credentials *esdb.Credentials
	}{
		{"nothing", nil},
		{"another user", &esdb.Credentials{Login: "ops", Password: testPassword}},
		{"another password", &esdb.Credentials{Login: User, Password: testPassword + "x"}},
		{"part of it", &esdb.Credentials{Login: User, Password: testPassword[:len(testPassword)-1]}},
		{"an empty password", &esdb.Credentials{Login: User}},
	} {
		claim, credentials := c.claim, c.credentials
		refused := func(call string, err error) {
			t.Helper()
			if codeOf(err) != esdb.ErrorCodeUnauthenticated {
				t.Errorf("%s, %s: %v", claim, call, err)
			}
		}
		_, err := client.AppendToStream(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}, Authenticated: credentials}, newEvent("x", "{}"))
		for t.Context().Err() == nil && err != nil && strings.HasSuffix(err.Error(), "EOF") {
			// If the call ends while the official client sends, the client returns EOF
			// instead of the reason. So the test repeats the call until it gets the reason.
			_, err = client.AppendToStream(within(t), "s", esdb.AppendToStreamOptions{ExpectedRevision: esdb.Any{}, Authenticated: credentials}, newEvent("x", "{}"))
		}
		refused("append", err)
		read, err := client.ReadStream(within(t), "s", esdb.ReadStreamOptions{From: esdb.Start{}, Authenticated: credentials}, 1)
		if err == nil {
			_, err = read.Recv()
			read.Close()
		}
		refused("read", err)
		_, err = client.SubscribeToAll(within(t), esdb.SubscribeToAllOptions{From: esdb.Start{}, Authenticated: credentials})
		refused("subscribe", err)
		_, err = client.DeleteStream(within(t), "s", esdb.DeleteStreamOptions{ExpectedRevision: esdb.Any{}, Authenticated: credentials})
		refused("delete", err)
		_, err = client.TombstoneStream(within(t), "s", esdb.TombstoneStreamOptions{ExpectedRevision: esdb.Any{}, Authenticated: credentials})
		refused("tombstone", err)
	}
	read, err := client.ReadAll(within(t), esdb.ReadAllOptions{From: esdb.Start{}, Authenticated: authenticated}, 10)
	if err != nil {
		t.Fatal(err)
	}
	if events, err := drain(read); err != nil || len(events) != 1 {
		t.Errorf("the log holds %d events, %v", len(events), err)
	}
	said := log.String()
	if !strings.Contains(said, "wrong credentials") || !strings.Contains(said, "without credentials") {
		t.Errorf("the refused call is not logged: %s", said)
	}
	if lines := strings.Count(said, "\n"); lines > 10 {
		t.Errorf("a client that tries passwords filled the log with %d lines", lines)
	}
	for _, secret := range []string{testPassword, testPassword[:10], base64.StdEncoding.EncodeToString([]byte(User + ":" + testPassword))[:20]} {
		if strings.Contains(said, secret) {
			t.Errorf("the log contains %q", secret)
		}
	}
}

// The server reads no request before the call is allowed. That holds for calls that the
// official client does not make, and for requests of up to 17 MiB that never end. Methods
// without credentials respond without reading a request.
func TestAccess_noMethodTakesARequestBeforeThePassword(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	server := start(t)
	address := server.listenTCP(t, newAccess(t, certFile, keyFile, testPassword, zerolog.Nop()))
	trusting, err := credentials.NewClientTLSFromFile(certFile, "")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(trusting))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	methods := 0
	for service, info := range server.grpc.GetServiceInfo() {
		for _, method := range info.Methods {
			methods++
			name := "/" + service + "/" + method.Name
			call, err := conn.NewStream(within(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, name)
			if err != nil {
				t.Fatal(err)
			}
			want := codes.Unauthenticated
			if public[name] {
				want = codes.OK
			}
			if err := call.RecvMsg(&shared.Empty{}); status.Code(err) != want {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if methods < 15 {
		t.Errorf("there are %d methods only", methods)
	}
}

func TestAccess_refusesUnknownConnections(t *testing.T) {
	t.Parallel()
	for claim, ctx := range map[string]context.Context{
		"no peer":         t.Context(),
		"no access":       peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{}}),
		"somebody else's": peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{}, AuthInfo: credentials.TLSInfo{}}),
	} {
		if err := authorize(ctx, "/any"); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v", claim, err)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// Other clients may write the header in other forms.
func TestAccess_theFormsOfTheHeader(t *testing.T) {
	t.Parallel()
	access := newAccess(t, "", "", testPassword, zerolog.Nop())
	right := base64.StdEncoding.EncodeToString([]byte(User + ":" + testPassword))
	for _, c := range []struct {
		headers []string
		refused bool
	}{
		{headers: []string{"Basic " + right}},
		{headers: []string{"basic " + right}},
		{headers: []string{"Bearer " + right}, refused: true},
		{headers: []string{right}, refused: true},
		{headers: []string{"Basic"}, refused: true},
		{headers: []string{""}, refused: true},
		{headers: []string{"Basic " + right, "Basic " + right}, refused: true},
		{refused: true},
	} {
		ctx := peer.NewContext(t.Context(), &peer.Peer{Addr: &net.TCPAddr{}, AuthInfo: &incomingConn{access: access, pendingConn: newPending(zerolog.Nop()).add(addressed{remote: &net.TCPAddr{}})}})
		ctx = metadata.NewIncomingContext(ctx, metadata.MD{"authorization": c.headers})
		if err := authorize(ctx, "/any"); (status.Code(err) == codes.Unauthenticated) != c.refused {
			t.Errorf("%q: %v", c.headers, err)
		}
	}
}

func TestAccess_tlsWithoutAPassword(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	address := start(t).listenTCP(t, newAccess(t, certFile, keyFile, "", zerolog.Nop()))
	mustAppend(t, connectBy(t, "esdb://"+address+"?tls=true&tlsCAFile="+certFile), "s", esdb.NoStream{}, newEvent("x", "{}"))
	_, err := connectBy(t, "esdb://"+address+"?tls=true&maxDiscoverAttempts=1").AppendToStream(within(t), "s", esdb.AppendToStreamOptions{}, newEvent("x", "{}"))
	if err == nil || !strings.Contains(err.Error(), "failed to verify certificate") {
		t.Errorf("a client that does not know the certificate: %v", err)
	}
	for version, refused := range map[uint16]bool{tls.VersionTLS11: true, tls.VersionTLS12: false, tls.VersionTLS13: false} {
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: version})
		if err == nil {
			err = errors.Join(conn.Handshake(), conn.Close())
		}
		if (err != nil) != refused {
			t.Errorf("%s: %v", tls.VersionName(version), err)
		}
	}
}

// A certificate is renewed while the server runs, in two steps, as the usual tools do it.
func TestAccess_takesARenewedCertificate(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	dir := t.TempDir()
	certFile, keyFile := writeCertificate(t, dir, "127.0.0.1")
	address := start(t).listenTCP(t, newAccess(t, certFile, keyFile, "", zerolog.New(&log)))
	shown := func() string {
		t.Helper()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	first := shown()
	if again := shown(); again != first {
		t.Errorf("the server sent %s and then %s", first, again)
	}
	old, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, dir, "127.0.0.1")
	renewed, err := os.ReadFile(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for claim, content := range map[string][]byte{"the old key": old, "half of the key": renewed[:len(renewed)/2], "no key": nil} {
		if err := os.WriteFile(keyFile, content, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if now := shown(); now != first {
				t.Errorf("with %s beside the new certificate the server sends %s", claim, now)
			}
		}
	}
	if complaints := strings.Count(log.String(), "cannot be used"); complaints != 3 {
		t.Errorf("it complained %d times: %s", complaints, log.String())
	}
	if err := os.WriteFile(keyFile, renewed, 0o600); err != nil {
		t.Fatal(err)
	}
	second := shown()
	if second == first {
		t.Error("the server still sends the old certificate")
	}
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	if now := shown(); now != second {
		t.Errorf("without the file the server sends %s", now)
	}
}

func TestNewAccess_refusals(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "localhost")
	_, otherKey := writeCertificate(t, t.TempDir(), "localhost")
	for claim, files := range map[string][2]string{
		"no key":           {certFile, ""},
		"no certificate":   {"", keyFile},
		"another's key":    {certFile, otherKey},
		"no PEM":           {os.Args[0], keyFile},
		"nothing is there": {certFile + "x", keyFile},
	} {
		if _, err := NewAccess(files[0], files[1], "", zerolog.Nop()); err == nil {
			t.Errorf("%s: accepted", claim)
		}
	}
}

// The printed connection string works once the password is filled in.
func TestAccess_connectionString(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		names    []string
		host     string
		password string
		want     string
	}{
		"the address itself":       {names: []string{"127.0.0.1", "localhost"}, host: "127.0.0.1", password: testPassword, want: "esdb://admin:PASSWORD@127.0.0.1:"},
		"all addresses":            {names: []string{"localhost"}, host: "0.0.0.0", password: testPassword, want: "esdb://admin:PASSWORD@localhost:"},
		"all addresses, IPv6":      {names: []string{"127.0.0.1"}, host: "::", password: testPassword, want: "esdb://admin:PASSWORD@127.0.0.1:"},
		"no address":               {names: []string{"localhost"}, host: "", password: testPassword, want: "esdb://admin:PASSWORD@localhost:"},
		"not in the certificate":   {names: []string{"localhost"}, host: "127.0.0.1", password: testPassword, want: "esdb://admin:PASSWORD@localhost:"},
		"a name for many":          {names: []string{"*.store.example", "localhost"}, host: "0.0.0.0", password: testPassword, want: "esdb://admin:PASSWORD@localhost:"},
		"a name for many alone":    {names: []string{"*.store.example", "127.0.0.1"}, host: "::", password: testPassword, want: "esdb://admin:PASSWORD@127.0.0.1:"},
		"no password":              {names: []string{"localhost"}, host: "localhost", want: "esdb://localhost:"},
		"neither password nor TLS": {host: "127.0.0.1", want: "esdb://127.0.0.1:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var certFile, keyFile string
			if len(c.names) > 0 {
				dir := filepath.Join(t.TempDir(), "a b&c")
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				certFile, keyFile = writeCertificate(t, dir, c.names...)
			}
			access := newAccess(t, certFile, keyFile, c.password, zerolog.Nop())
			address := start(t).listenTCP(t, access)
			_, port, _ := net.SplitHostPort(address)
			number := 0
			if _, err := fmt.Sscan(port, &number); err != nil {
				t.Fatal(err)
			}
			connection := access.ConnectionString(c.host, number)
			if !strings.HasPrefix(connection, c.want) || strings.Contains(connection, "horse") {
				t.Errorf("got %s, want %s…", connection, c.want)
			}
			escaped := strings.NewReplacer(":", "%3A", "@", "%40", "/", "%2F").Replace(c.password)
			mustAppend(t, connectBy(t, strings.Replace(connection, "PASSWORD", escaped, 1)), "s", esdb.NoStream{}, newEvent("x", "{}"))
		})
	}
}

// A name that cannot be resolved is not used as the host.
func TestAccess_connectionStringWithoutAName(t *testing.T) {
	t.Parallel()
	for _, names := range [][]string{{"*.store.example"}, nil} {
		certFile, keyFile := writeCertificate(t, t.TempDir(), names...)
		connection := newAccess(t, certFile, keyFile, "", zerolog.Nop()).ConnectionString("one.shop.example", 2113)
		if !strings.HasPrefix(connection, "esdb://one.shop.example:2113?") {
			t.Errorf("%v: %s", names, connection)
		}
	}
}

func TestAccess_saysThatACertificateHasExpired(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	dir := t.TempDir()
	certFile, keyFile := writeCertificate(t, dir, "localhost")
	access := newAccess(t, certFile, keyFile, "", zerolog.New(&log))
	if said := log.String(); strings.Contains(said, "expired") {
		t.Errorf("of one that is valid it says %s", said)
	}
	writeCertificateUntil(t, dir, time.Now().Add(-time.Minute), "localhost")
	// Expiry has no influence on whether this machine trusts it.
	if connection := access.ConnectionString("localhost", 2113); !strings.Contains(connection, "tlsCAFile=") {
		t.Errorf("got %s", connection)
	}
	newAccess(t, certFile, keyFile, "", zerolog.New(&log))
	if said := log.String(); strings.Count(said, "has expired") != 2 {
		t.Errorf("at renewal and at the start it says %s", said)
	}
}

func TestAccess_connectionsDoNotFillTheLogWhenTheCertificateIsGone(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	certFile, keyFile := writeCertificate(t, t.TempDir(), "localhost")
	access := newAccess(t, certFile, keyFile, "", zerolog.New(&log))
	if err := os.Remove(certFile); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		access.certificate.current()
	}
	// Clients that try passwords do not suppress this line.
	if lines := strings.Count(log.String(), "cannot be used"); lines == 0 || lines > 20 {
		t.Errorf("it is said in %d lines", lines)
	}
}

// The certificate is for a name, not for the address behind it, so a client that was sent
// to the address would refuse the certificate.
func TestGossip_clientDiscoversByTheNameItAskedFor(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "localhost")
	address := start(t).listenTCP(t, newAccess(t, certFile, keyFile, "long enough", zerolog.Nop()))
	_, port, _ := net.SplitHostPort(address)
	client := connectBy(t, "esdb+discover://admin:long%20enough@localhost:"+port+"?tls=true&maxDiscoverAttempts=3&tlsCAFile="+certFile)
	mustAppend(t, client, "s", esdb.NoStream{}, newEvent("x", "{}"))
}

func TestSplitAuthority(t *testing.T) {
	t.Parallel()
	for authority, want := range map[string]string{
		"store.example:2113": "store.example 2113 true", "[::1]:2113": "[::1] 2113 true", "10.0.0.5:1": "10.0.0.5 1 true",
		"localhost": " 0 false", ":2113": " 0 false", "a:0": "a 0 false", "a:65536": "a 65535 false", "/tmp/s": " 0 false", "": " 0 false",
	} {
		host, port, ok := splitAuthority(authority)
		if got := fmt.Sprint(host, " ", port, " ", ok); got != want {
			t.Errorf("%s: %s, want %s", authority, got, want)
		}
	}
}
