package embedded

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/esdb"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// bubbleServer is a server on pipes in a synctest bubble.
type bubbleServer struct {
	*testing.T
	*pipeListener
}

func servePipes(t *testing.T, path string, access *Access, test func(bubbleServer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server, err := open(path, zerolog.Nop(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		listener := newPipeListener()
		served := make(chan error, 1)
		go func() { served <- server.Serve(listener, access) }()
		test(bubbleServer{t, listener})
		if err := errors.Join(server.Close(), <-served); err != nil {
			t.Error(err)
		}
	})
}

// pipeClient is a gRPC client of a bubbleServer.
type pipeClient struct {
	*grpc.ClientConn
	dialed int // number of connections made
}

func (s bubbleServer) client(ip string, secured bool) *pipeClient {
	s.Helper()
	c := &pipeClient{}
	transport := insecure.NewCredentials()
	if secured {
		transport = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})
	}
	conn, err := grpc.NewClient("passthrough:pipe", grpc.WithTransportCredentials(transport),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			c.dialed++
			return s.dialFrom(ip), nil
		}))
	if err != nil {
		s.Fatal(err)
	}
	c.ClientConn = conn
	return c
}

// call reads from $all, which needs the password if there is one.
func (c *pipeClient) call(ctx context.Context, password string) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(User+":"+password)))
	read, err := streamspb.NewStreamsClient(c).Read(ctx, &streamspb.ReadReq{Options: &streamspb.ReadReq_Options{
		StreamOption: &streamspb.ReadReq_Options_All{All: &streamspb.ReadReq_Options_AllOptions{AllOption: &streamspb.ReadReq_Options_AllOptions_Start{}}},
		CountOption:  &streamspb.ReadReq_Options_Count{Count: 1},
	}}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if _, err = read.Recv(); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// silent is what silent connections send before they stop, without and with TLS.
var silent = map[bool]map[string]string{
	false: {
		"nothing at all":            "",
		"the beginning of gRPC":     "PRI",
		"gRPC without its settings": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"gRPC without a call":       h2Client,
		"half of a request":         "GET /health/live HTTP/1.1\r\nHost: ",
		"a request":                 "GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n",
	},
	true: {
		"nothing in place of TLS":  "",
		"half of a message of TLS": "\x16\x03\x01\x02\x00\x01",
	},
}

func TestEntrance_silentConnectionsKeepNobodyOut(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	for secured, sent := range silent {
		for claim, sent := range sent {
			t.Run(claim, func(t *testing.T) {
				t.Parallel()
				access := newAccess(t, "", "", testPassword, zerolog.Nop())
				if secured {
					access = newAccess(t, certFile, keyFile, testPassword, zerolog.Nop())
				}
				servePipes(t, filepath.Join(t.TempDir(), "events.db"), access, func(s bubbleServer) {
					before := s.client("203.0.113.7", secured)
					if err := before.call(s.Context(), testPassword); err != nil {
						s.Fatal(err)
					}
					begun := time.Now()
					for range 2 * connectionsLimit {
						conn := s.dialFrom("203.0.113.7")
						s.Cleanup(func() { conn.Close() })
						go func() { _, _ = io.WriteString(conn, sent) }()
						go func() { _, _ = io.Copy(io.Discard, conn) }()
					}
					for _, ip := range []string{"203.0.113.7", "198.51.100.1", "2001:db8::1"} {
						c := s.client(ip, secured)
						if err := c.call(s.Context(), testPassword); err != nil || c.dialed != 1 {
							s.Errorf("from %s: %d connections, %v", ip, c.dialed, err)
						}
						if err := c.Close(); err != nil {
							s.Error(err)
						}
					}
					// A client that made a call before keeps its connection.
					if err := before.call(s.Context(), testPassword); err != nil || before.dialed != 1 {
						s.Errorf("the one that was in: %d connections, %v", before.dialed, err)
					}
					if took := time.Since(begun); took > time.Second {
						s.Errorf("it took %v", took)
					}
					if err := before.Close(); err != nil {
						s.Error(err)
					}
				})
			})
		}
	}
}

// Silent connections from many addresses do not keep a client out either.
func TestEntrance_silentConnectionsOfManyAddresses(t *testing.T) {
	t.Parallel()
	servePipes(t, filepath.Join(t.TempDir(), "events.db"), nil, func(s bubbleServer) {
		begun := time.Now()
		for i := range 2 * connectionsLimit {
			ip := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
			if i%2 == 1 {
				ip = fmt.Sprintf("2001:db8:%x::1", i)
			}
			conn := s.dialFrom(ip)
			s.Cleanup(func() { conn.Close() })
			go func() { _, _ = io.Copy(io.Discard, conn) }()
		}
		c := s.client("203.0.113.7", false)
		if err := errors.Join(c.call(s.Context(), ""), c.Close()); err != nil {
			s.Error(err)
		}
		if took := time.Since(begun); took > time.Second {
			s.Errorf("it took %v", took)
		}
	})
}

// A client without the password may call the public methods, but its connection stays
// pending and is closed after firstCallTimeout.
func TestEntrance_strangersDoNotStay(t *testing.T) {
	t.Parallel()
	for claim, call := range map[string]func(context.Context, *pipeClient) error{
		"what is public": func(ctx context.Context, c *pipeClient) error {
			_, err := serverfeatures.NewServerFeaturesClient(c).GetSupportedMethods(ctx, &shared.Empty{}, grpc.WaitForReady(true))
			return err
		},
		"wrong passwords": func(ctx context.Context, c *pipeClient) error {
			if err := c.call(ctx, "wrong"); status.Code(err) != codes.Unauthenticated {
				return fmt.Errorf("a wrong password: %w", err)
			}
			return nil
		},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			access := newAccess(t, "", "", testPassword, zerolog.Nop())
			servePipes(t, filepath.Join(t.TempDir(), "events.db"), access, func(s bubbleServer) {
				c := s.client("203.0.113.7", false)
				const tries = 4
				for range tries {
					if err := call(s.Context(), c); err != nil {
						s.Error(err)
					}
					time.Sleep(firstCallTimeout/2 + time.Second) //nolint:forbidigo // in a synctest bubble
				}
				time.Sleep(firstCallTimeout) //nolint:forbidigo // in a synctest bubble
				if state := c.GetState().String(); c.dialed < tries/2 || state != "IDLE" {
					s.Errorf("%d connections, the last is %s", c.dialed, state)
				}
				if err := c.Close(); err != nil {
					s.Error(err)
				}
			})
		})
	}
}

// The same over TCP, with a certificate, a password and the official client.
func TestEntrance_silentConnectionsDoNotHoldTheTLSPort(t *testing.T) {
	t.Parallel()
	certFile, keyFile := writeCertificate(t, t.TempDir(), "127.0.0.1")
	server := start(t)
	address := server.listenTCP(t, newAccess(t, certFile, keyFile, testPassword, zerolog.Nop()))
	for range connectionsLimit {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	begun := time.Now()
	client := connectBy(t, "esdb://"+address+"?tls=true&tlsCAFile="+certFile)
	_, err := client.AppendToStream(within(t), "s", esdb.AppendToStreamOptions{
		ExpectedRevision: esdb.NoStream{}, Authenticated: &esdb.Credentials{Login: User, Password: testPassword},
	}, newEvent("x", "{}"))
	if took := time.Since(begun); err != nil || took > handshakeTimeout-time.Second {
		t.Errorf("after %v: %v", took, err)
	}
}

func TestPending_theOldestOfTheMostNumerousMakesRoom(t *testing.T) {
	t.Parallel()
	closed := make(map[string]int) // number of closed connections by address
	var open []*pendingConn
	var log bytes.Buffer
	p := newPending(zerolog.New(&log))
	add := func(ip string) *pendingConn {
		c := p.add(addressed{closing{closed: func() { closed[ip]++ }}, &net.TCPAddr{IP: net.ParseIP(ip)}})
		open = append(open, c)
		return c
	}
	expect := func(claim string, count int, want map[string]int) {
		t.Helper()
		if p.count != count || !maps.Equal(closed, want) {
			t.Errorf("%s: %d are pending, closed were %v, want %d and %v", claim, p.count, closed, count, want)
		}
	}
	// Both ways to write an address count as one network.
	first := add("10.0.0.1")
	for range pendingPerNetwork - 1 {
		add("::ffff:10.0.0.1")
	}
	for i := range pendingPerNetwork {
		add(fmt.Sprintf("2001:db8::%x", i+1))
	}
	expect("as many as there may be", 2*pendingPerNetwork, map[string]int{})
	add("10.0.0.1")
	if add("2001:db8::ffff"); !first.done.Load() {
		t.Error("the oldest is still there")
	}
	if got := log.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, `"client":"10.0.0.1:0"`) {
		t.Errorf("the log says %s", got)
	}
	expect("one more of each", 2*pendingPerNetwork, map[string]int{"10.0.0.1": 1, "2001:db8::1": 1})
	// A connection that made a call is no longer counted, and is not closed.
	for range pendingPerNetwork - 1 {
		add("10.0.0.2")
	}
	called := add("10.0.0.2")
	called.release()
	add("10.0.0.2")
	expect("one made a call", 3*pendingPerNetwork, map[string]int{"10.0.0.1": 1, "2001:db8::1": 1})
	// When all places are taken, a network with the most connections loses one, and the
	// oldest connection goes if all have the same number.
	for i := range pendingLimit - 3*pendingPerNetwork {
		add(fmt.Sprintf("10.1.%d.%d", i/250, i%250))
	}
	add("10.2.0.0")
	expect("all places are taken", pendingLimit, map[string]int{"10.0.0.1": 1, "::ffff:10.0.0.1": 1, "2001:db8::1": 1})
	for _, c := range open {
		_ = c.Close()
		_ = c.Close()
	}
	if p.count != 0 || len(p.byNetwork) != 0 {
		t.Errorf("%d are left, of %d networks", p.count, len(p.byNetwork))
	}
}

// closing is a connection that can only be closed.
type closing struct {
	net.Conn
	closed func()
}

func (c closing) Close() error {
	c.closed()
	return nil
}
