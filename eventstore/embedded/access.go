package embedded

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gossippb "github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// User is the user name that goes with the password of an Access. A real server creates a
// user of that name, with all rights, at its first start.
const User = "admin"

// Access says what a listener requires of its clients. Any goroutine may call its
// methods.
type Access struct {
	certificate *certificate // nil without TLS
	credentials [sha256.Size]byte
	guarded     bool           // calls need the credentials
	log         zerolog.Logger // of refused calls
	evictions   zerolog.Logger // of connections that were closed to make room for others
}

// NewAccess returns an Access. If certFile and keyFile are given, clients must use TLS;
// both are PEM files, and they are read again when they change. NewAccess fails if they
// hold no usable certificate. If password is given, clients must send it; the official
// clients send a password over TLS only. If nothing is given, every client that can
// connect has access.
func NewAccess(certFile, keyFile, password string, log zerolog.Logger) (*Access, error) {
	// A client that tries many passwords or opens many connections must not fill the log.
	// Each kind of line has its own limit, so that neither kind suppresses the other.
	few := func() zerolog.Logger { return log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute}) }
	a := &Access{log: few(), evictions: few()}
	if certFile != "" || keyFile != "" {
		a.certificate = &certificate{certFile: certFile, keyFile: keyFile, log: few()}
		if err := a.certificate.load(); err != nil {
			return nil, err
		}
	}
	if password != "" {
		a.guarded = true
		a.credentials = sha256.Sum256([]byte(base64.StdEncoding.EncodeToString([]byte(User + ":" + password))))
	}
	return a, nil
}

// public lists the methods that need no credentials: clients send none while they
// discover the server.
var public = map[string]bool{
	gossippb.Gossip_Read_FullMethodName:                              true,
	serverfeatures.ServerFeatures_GetSupportedMethods_FullMethodName: true,
}

// authorize refuses a call that lacks the credentials that its listener requires. The
// first allowed call of a method that is not public ends the pending state of its
// connection, even if the listener requires no credentials.
func authorize(ctx context.Context, method string) error {
	caller, _ := peer.FromContext(ctx)
	if caller == nil {
		return status.Error(codes.Unauthenticated, "the call has no known connection")
	}
	connection, ok := caller.AuthInfo.(*incomingConn)
	if !ok {
		return status.Error(codes.Unauthenticated, "the call comes over a connection that no listener of this server accepted")
	}
	if public[method] {
		return nil
	}
	if err := connection.access.check(ctx, caller.Addr); err != nil {
		return err
	}
	connection.release()
	return nil
}

// check refuses a call with missing or wrong credentials.
func (a *Access) check(ctx context.Context, client net.Addr) error {
	if !a.guarded {
		return nil
	}
	given := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(given) != 1 {
		a.log.Warn().Stringer("client", client).Msg("event store call without credentials")
		return status.Error(codes.Unauthenticated, "this event store requires a user and a password")
	}
	scheme, credentials, _ := strings.Cut(given[0], " ")
	// Comparing hashes hides the length of the password as well.
	sum := sha256.Sum256([]byte(credentials))
	if !strings.EqualFold(scheme, "Basic") || subtle.ConstantTimeCompare(sum[:], a.credentials[:]) != 1 {
		a.log.Warn().Stringer("client", client).Msg("event store call with wrong credentials")
		return status.Error(codes.Unauthenticated, "wrong user or password")
	}
	return nil
}

// authorizeCall is an interceptor. It runs before the server reads a call's first
// message, which may be large.
func authorizeCall(server any, call grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := authorize(call.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(server, call)
}

// tlsConfig returns nil if clients need no TLS.
func (a *Access) tlsConfig() *tls.Config {
	if a.certificate == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// HTTP/1 comes first: gRPC clients offer HTTP/2 only, so a client that offers both
		// protocols wants the health page.
		NextProtos: []string{"http/1.1", "h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.certificate.current(), nil
		},
	}
}

// ConnectionString returns a connection string for clients on other machines, with
// PASSWORD as a placeholder. host and port are those of a listener. If host means all
// addresses, or the certificate is not valid for it, ConnectionString uses a name or an
// address from the certificate instead, if there is one. If this machine does not trust
// the certificate, the string names the certificate file as the authority to trust.
func (a *Access) ConnectionString(host string, port int) string {
	if a.certificate == nil {
		return "esdb://" + net.JoinHostPort(host, strconv.Itoa(port)) + "?tls=false"
	}
	leaf := a.certificate.current().Leaf
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() || leaf.VerifyHostname(host) != nil {
		named := slices.IndexFunc(leaf.DNSNames, func(name string) bool { return !strings.Contains(name, "*") })
		switch {
		case named >= 0:
			host = leaf.DNSNames[named]
		case len(leaf.IPAddresses) > 0:
			host = leaf.IPAddresses[0].String()
		}
	}
	query := "tls=true"
	if !a.certificate.trusted() {
		query += "&tlsCAFile=" + url.QueryEscape(a.certificate.certFile)
	}
	user := ""
	if a.guarded {
		user = User + ":PASSWORD@"
	}
	return "esdb://" + user + net.JoinHostPort(host, strconv.Itoa(port)) + "?" + query
}

// certificate is a TLS certificate from two files. It is read again when the files
// change, so it can be renewed while the server runs.
type certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu     sync.Mutex // guards the fields below
	pair   *tls.Certificate
	loaded [2]fs.FileInfo // of the two files when they were last read
}

// current returns the certificate for new connections. While the files hold no valid
// pair, because they are being replaced, it returns the previous one.
func (c *certificate) current() *tls.Certificate {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.stat()
	if err == nil && unchanged(c.loaded[0], now[0]) && unchanged(c.loaded[1], now[1]) {
		return c.pair
	}
	if err == nil {
		err = c.read(now)
	}
	if err != nil {
		c.log.Error().Err(err).Msg("event store keeps its certificate, the new one cannot be used")
	} else {
		c.log.Info().Time("until", c.pair.Leaf.NotAfter).Msg("event store has a new certificate")
	}
	return c.pair
}

func (c *certificate) load() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, err := c.stat()
	if err != nil {
		return err
	}
	return c.read(now)
}

func (c *certificate) stat() (now [2]fs.FileInfo, err error) {
	for i, name := range []string{c.certFile, c.keyFile} {
		if now[i], err = os.Stat(name); err != nil {
			return now, err
		}
	}
	return now, nil
}

func unchanged(was, is fs.FileInfo) bool {
	return os.SameFile(was, is) && was.ModTime().Equal(is.ModTime()) && was.Size() == is.Size()
}

// read reads the certificate from the files, whose state is now.
func (c *certificate) read(now [2]fs.FileInfo) error {
	// Set this first: otherwise a refused pair would be read and logged again at every
	// connection.
	c.loaded = now
	// The file's group may read the key.
	if mode := now[1].Mode().Perm(); mode&0o037 != 0 {
		return fmt.Errorf("certificate %s: its key %s is open to others (mode %04o): chmod g-wx,o= %s", c.certFile, c.keyFile, mode, c.keyFile)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		c.log.Warn().Time("until", end).Msg("event store's certificate has expired, clients will refuse it")
	}
	return nil
}

// trusted reports whether this machine trusts the authority that signed the certificate.
func (c *certificate) trusted() bool {
	pair := c.current()
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if above, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(above)
		}
	}
	// Ignore whether the certificate has expired.
	then := time.Now()
	if then.After(pair.Leaf.NotAfter) {
		then = pair.Leaf.NotAfter
	}
	_, err := pair.Leaf.Verify(x509.VerifyOptions{Intermediates: between, CurrentTime: then})
	return err == nil
}
