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

// User is the name that goes with an Access's password. It is the one that a real
// server has from the beginning, and may do everything.
const User = "admin"

// Access is what clients of a listener need to get in. Its methods may be called
// from any goroutine.
type Access struct {
	certificate *certificate // nil without TLS
	credentials [sha256.Size]byte
	guarded     bool           // whether calls need the credentials
	log         zerolog.Logger // of refused calls
	crowds      zerolog.Logger // of connections that were closed to make room
}

// NewAccess makes an Access with TLS when certFile and keyFile are given, two PEM
// files that are read anew when they change, and with a password when that is
// given. Clients send a password over TLS only. With nothing given everybody gets
// in who can connect.
func NewAccess(certFile, keyFile, password string, log zerolog.Logger) (*Access, error) {
	// Who tries many passwords, or only connects, must not fill the log, and the one
	// not hide the other.
	few := func() zerolog.Logger { return log.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Minute}) }
	a := &Access{log: few(), crowds: few()}
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

// public lists the methods that need no credentials, because clients send none when
// they look for a server.
var public = map[string]bool{
	gossippb.Gossip_Read_FullMethodName:                              true,
	serverfeatures.ServerFeatures_GetSupportedMethods_FullMethodName: true,
}

// authorize refuses a call without the credentials that its connection asks for.
// Once a connection has made a call for which there is something to be allowed, it is
// pending no more.
func authorize(ctx context.Context, method string) error {
	caller, _ := peer.FromContext(ctx)
	if caller == nil {
		return status.Error(codes.Unauthenticated, "nobody knows where this call comes from")
	}
	connection, ok := caller.AuthInfo.(*entrant)
	if !ok {
		return status.Error(codes.Unauthenticated, "nobody knows what this connection may do")
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

// check refuses a call without the right credentials.
func (a *Access) check(ctx context.Context, client net.Addr) error {
	if !a.guarded {
		return nil
	}
	given := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(given) != 1 {
		a.log.Warn().Stringer("client", client).Msg("event store call without credentials")
		return status.Error(codes.Unauthenticated, "this event store asks for a user and a password")
	}
	scheme, credentials, _ := strings.Cut(given[0], " ")
	// Hashing first hides the length as well.
	sum := sha256.Sum256([]byte(credentials))
	if !strings.EqualFold(scheme, "Basic") || subtle.ConstantTimeCompare(sum[:], a.credentials[:]) != 1 {
		a.log.Warn().Stringer("client", client).Msg("event store call with wrong credentials")
		return status.Error(codes.Unauthenticated, "wrong user or password")
	}
	return nil
}

// authorizeCall is an interceptor. It comes before a call's first message is taken,
// which may be large.
func authorizeCall(server any, call grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := authorize(call.Context(), info.FullMethod); err != nil {
		return err
	}
	return handle(server, call)
}

// tlsConfig is nil when clients need no TLS.
func (a *Access) tlsConfig() *tls.Config {
	if a.certificate == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		// Clients of gRPC offer HTTP/2 alone. Who offers both wants a page.
		NextProtos: []string{"http/1.1", "h2"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return a.certificate.current(), nil
		},
	}
}

// ConnectionString is what a client on another machine needs to reach a listener
// on that host and port, but with PASSWORD in the place of the password. A host
// that stands for all addresses, or that the certificate is not for, is replaced
// by one that it is for, if it names one; a certificate that this machine does not trust is named
// as the one to trust.
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

// certificate is read from two files and follows them, so that one can be renewed
// while the server runs.
type certificate struct {
	certFile, keyFile string
	log               zerolog.Logger

	mu     sync.Mutex // guards the fields below
	pair   *tls.Certificate
	loaded [2]fs.FileInfo // the files as they were when they were last looked into
}

// current is the certificate to show. As long as the files hold none that is
// whole, because they are being replaced, it is the one before.
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

// read takes the certificate from the files, which are as in now.
func (c *certificate) read(now [2]fs.FileInfo) error {
	// One that is refused is not tried, and complained of, at every connection.
	c.loaded = now
	// A group that is trusted with keys may read it.
	if mode := now[1].Mode().Perm(); mode&0o037 != 0 {
		return fmt.Errorf("certificate %s: its key %s is open to others (mode %04o): chmod g-wx,o= %s", c.certFile, c.keyFile, mode, c.keyFile)
	}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("certificate %s with key %s: %w", c.certFile, c.keyFile, err)
	}
	c.pair = &pair
	if end := pair.Leaf.NotAfter; time.Now().After(end) {
		c.log.Warn().Time("until", end).Msg("event store's certificate has expired, clients will not believe it")
	}
	return nil
}

// trusted tells whether this machine knows who signed the certificate.
func (c *certificate) trusted() bool {
	pair := c.current()
	between := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if above, err := x509.ParseCertificate(der); err == nil {
			between.AddCert(above)
		}
	}
	// Whether it has expired is another question.
	then := time.Now()
	if then.After(pair.Leaf.NotAfter) {
		then = pair.Leaf.NotAfter
	}
	_, err := pair.Leaf.Verify(x509.VerifyOptions{Intermediates: between, CurrentTime: then})
	return err == nil
}
