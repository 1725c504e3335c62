package esdb_test

// This file replaces the client's own file of the same name, which starts EventStoreDB
// in Docker. This one starts `lotline store` instead, each time with a data directory
// and a port of its own. The functions that the tests call have the same names and
// signatures as in the client's file.

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/goombaio/namegenerator"
)

var NAME_GENERATOR = namegenerator.NewNameGenerator(0)

// Container is a running store.
type Container struct {
	Endpoint string
	process  *exec.Cmd
	dir      string
}

func (c *Container) Close() {
	if err := c.process.Process.Signal(syscall.SIGTERM); err != nil {
		panic(err)
	}
	if err := c.process.Wait(); err != nil {
		panic(err)
	}
	if err := os.RemoveAll(c.dir); err != nil {
		panic(err)
	}
}

func GetEnvOrDefault(key, defaultValue string) string {
	if value, exists := os.LookupEnv(key); exists {
		return value
	}
	return defaultValue
}

func isSecure() bool { return GetEnvOrDefault("EVENTSTORE_INSECURE", "true") == "false" }

// WaitForAdminToBeAvailable returns at once: the store has its one account from the
// start.
func WaitForAdminToBeAvailable(*testing.T, *esdb.Client) {}

// IsESDBVersion20 reports whether the server is EventStoreDB 20, a version from before
// 2021. The store is not.
func IsESDBVersion20() bool { return false }

func CreateEmptyDatabase(t *testing.T) (*Container, *esdb.Client) { return createDatabase(t, false) }

func CreatePopulatedDatabase(t *testing.T) (*Container, *esdb.Client) { return createDatabase(t, true) }

func createDatabase(t *testing.T, populated bool) (*Container, *esdb.Client) {
	// The path must be short, because the store makes a Unix socket in this directory.
	dir, err := os.MkdirTemp("", "ct")
	if err != nil {
		t.Fatal(err)
	}
	if populated {
		if err := populate(filepath.Join(dir, "events.db")); err != nil {
			t.Fatal(err)
		}
	}
	container, err := startStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return container, GetClient(t, container)
}

func startStore(dir string) (*Container, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	port := listener.Addr().(*net.TCPAddr).Port
	if err := listener.Close(); err != nil {
		return nil, err
	}
	address := fmt.Sprintf("127.0.0.1:%d", port)
	store := exec.Command(os.Getenv("LOTLINE"), "store")
	store.Env = append(os.Environ(), "LOTLINE_DATA_DIR="+dir, "LOTLINE_EMBEDDED_LISTEN="+address)
	if isSecure() {
		store.Env = append(store.Env,
			"LOTLINE_EMBEDDED_TLS_CERT="+filepath.Join(certificates, "node", "node.crt"),
			"LOTLINE_EMBEDDED_TLS_KEY="+filepath.Join(certificates, "node", "node.key"),
			"LOTLINE_EMBEDDED_PASSWORD=changeit")
	}
	store.Stdout, store.Stderr = os.Stderr, os.Stderr
	if err := store.Start(); err != nil {
		return nil, err
	}
	c := &Container{Endpoint: fmt.Sprintf("localhost:%d", port), process: store, dir: dir}
	for range 500 {
		var connection net.Conn
		if connection, err = net.Dial("tcp", address); err == nil {
			return c, connection.Close()
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil, fmt.Errorf("the store does not answer: %w", err)
}

func GetClient(t *testing.T, container *Container) *esdb.Client {
	if isSecure() {
		return CreateClient(fmt.Sprintf("esdb://admin:changeit@%s?tlsverifycert=false&tls=true", container.Endpoint), t)
	}
	return CreateClient(fmt.Sprintf("esdb://%s?tls=false", container.Endpoint), t)
}

func createTestClient(conn string, _ *Container, t *testing.T) *esdb.Client {
	return CreateClient(conn, t)
}

func CreateClient(connStr string, t *testing.T) *esdb.Client {
	config, err := esdb.ParseConnectionString(connStr)
	if err != nil {
		t.Fatal(err)
	}
	client, err := esdb.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// certificates is the directory in which the tests look for the certificates.
const certificates = "../certs"

func TestMain(m *testing.M) {
	if isSecure() {
		if err := writeCertificates(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// writeCertificates writes the certificates of this run: one of an authority, one of
// another authority that nobody trusts, and one of the node. The first authority signs
// the node's certificate.
func writeCertificates() error {
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	if _, err := writeCertificate("untrusted-ca/ca", authority, authority, nil); err != nil {
		return err
	}
	authorityKey, err := writeCertificate("ca/ca", authority, authority, nil)
	if err != nil {
		return err
	}
	_, err = writeCertificate("node/node", &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "node of the tests"},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, authorityKey)
	return err
}

// writeCertificate makes a key, and writes it and its certificate to files. signer signs
// the certificate. If signer is nil, the new key signs it.
func writeCertificate(name string, certificate, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if signer == nil {
		signer = key
	}
	signed, err := x509.CreateCertificate(rand.Reader, certificate, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	path := filepath.Join(certificates, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	err = os.WriteFile(path+".crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), 0o600)
}
