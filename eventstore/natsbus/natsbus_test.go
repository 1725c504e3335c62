package natsbus

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/eventstore/sink"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// broker is a NATS server with JetStream that a test can stop and start again.
type broker struct {
	t       *testing.T
	options *server.Options
	server  *server.Server
}

func newBroker(t *testing.T, change ...func(*server.Options)) *broker {
	t.Helper()
	b := &broker{t: t, options: &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true,
	}}
	for _, c := range change {
		c(b.options)
	}
	b.start()
	b.options.Port = b.server.Addr().(*net.TCPAddr).Port
	t.Cleanup(b.stop)
	return b
}

func (b *broker) start() {
	b.t.Helper()
	var err error
	if b.server, err = server.NewServer(b.options.Clone()); err != nil {
		b.t.Fatal(err)
	}
	b.server.Start()
	if !b.server.ReadyForConnections(30 * time.Second) {
		b.t.Fatal("the broker does not start")
	}
}

func (b *broker) stop() {
	b.server.Shutdown()
	b.server.WaitForShutdown()
}

func (b *broker) url() string { return "nats://" + b.server.Addr().String() }

func (b *broker) bus(address string) *Bus {
	b.t.Helper()
	bus, err := New(address, zerolog.Nop(), watermill.NopLogger{})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return bus
}

// jetStream returns a client of the broker for the test itself.
func (b *broker) jetStream() nats.JetStreamContext {
	b.t.Helper()
	conn, err := nats.Connect(b.url(), nats.UserInfo(b.options.Username, b.options.Password))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(conn.Close)
	js, err := conn.JetStream()
	if err != nil {
		b.t.Fatal(err)
	}
	return js
}

// deliver publishes as a sink does: it repeats until the bus takes the message.
func deliver(t *testing.T, b *Bus, topic, id, payload string) {
	t.Helper()
	for {
		err := b.Ready(t.Context())
		if err == nil {
			err = b.Publish(topic, message.NewMessage(id, []byte(payload)))
		}
		if err == nil {
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(err)
		}
	}
}

// stored returns the messages in the stream that takes a subject.
func stored(t *testing.T, js nats.JetStreamContext, stream string) []string {
	t.Helper()
	info, err := js.StreamInfo(stream)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for seq := info.State.FirstSeq; seq <= info.State.LastSeq; seq++ {
		m, err := js.GetMsg(stream, seq)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, strings.Join([]string{m.Subject, m.Header.Get(nats.MsgIdHdr), m.Header.Get("content-type"), string(m.Data)}, " "))
	}
	return out
}

func TestNew_addresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string][]string{
		"nats://localhost":                            {"nats://localhost"},
		"nats://u:p%40ss@a:4222,b:4223,nats://c":      {"nats://u:p%40ss@a:4222", "nats://u:p%40ss@b:4223", "nats://u:p%40ss@c"},
		"tls://token@a.example,v:w@b.example,[::1]:1": {"tls://token@a.example", "tls://v:w@b.example", "tls://token@[::1]:1"},
	} {
		got, err := parse(address)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", address, got, err)
		}
	}
	for address, says := range map[string]string{
		"carrier-pigeon://loft":          "nats://",
		"localhost:4222":                 "nats://",
		"":                               "nats://",
		"nats://":                        "host",
		"nats://a,":                      "host",
		"nats://a,kafka://b":             "nats://",
		"nats://a:0":                     "port",
		"nats://a:65536":                 "port",
		"nats://a:port":                  "parsed",
		"nats://u:hor/se@a:4222":         "escaped",
		"nats://u:hor,se@a:4222":         "parsed",
		"nats://a:4222/subject":          "follow",
		"nats://a:4222?stream=x":         "follow",
		"nats://u:horse@a:4222#fragment": "follow",
	} {
		err := Check(address)
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hor") && says != "host" {
			t.Errorf("%s: %v", address, err)
		}
		if _, err := New(address, zerolog.Nop(), watermill.NopLogger{}); err == nil {
			t.Errorf("%s makes a bus", address)
		}
	}
}

func TestBus_makesTheStreamThatIsMissingAndPublishesOnceForAnID(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	bus := b.bus(b.url())
	for range 2 {
		deliver(t, bus, "queue", "1", `{"a":1}`)
	}
	deliver(t, bus, "distribution.updated", "2", `{"b":2}`)
	js := b.jetStream()
	want := []string{
		`lotline.queue 1 application/cloudevents+json {"a":1}`,
		`lotline.distribution.updated 2 application/cloudevents+json {"b":2}`,
	}
	if got := stored(t, js, Stream); !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	info, err := js.StreamInfo(Stream)
	if err != nil {
		t.Fatal(err)
	}
	if c := info.Config; c.Storage != nats.FileStorage || c.MaxAge != keptFor || !slices.Equal(c.Subjects, []string{"lotline.>"}) {
		t.Errorf("the stream is %+v", c)
	}
	// It makes the stream again when somebody deletes it.
	if err := js.DeleteStream(Stream); err != nil {
		t.Fatal(err)
	}
	deliver(t, bus, "queue", "3", "x")
	if got := stored(t, js, Stream); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}

func TestBus_leavesAStreamAloneThatSomebodyHasMade(t *testing.T) {
	t.Parallel()
	for name, subjects := range map[string][]string{"EVENTS": {"lotline.>"}, Stream: {"lotline.queue", "lotline.draw"}} {
		b := newBroker(t)
		js := b.jetStream()
		config := &nats.StreamConfig{Name: name, Subjects: subjects, MaxMsgs: 7, Storage: nats.MemoryStorage}
		if _, err := js.AddStream(config); err != nil {
			t.Fatal(err)
		}
		bus := b.bus(b.url())
		deliver(t, bus, "queue", "1", "x")
		if got := stored(t, js, name); len(got) != 1 {
			t.Errorf("%s holds %q", name, got)
		}
		if name != Stream {
			continue
		}
		// A stream that takes only some subjects is left alone as well, and Publish names
		// it as the reason.
		if err := bus.Publish("auction", message.NewMessage("2", nil)); !errors.Is(err, nats.ErrNoStreamResponse) {
			t.Errorf("got %v", err)
		}
		if err := bus.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		if info, err := js.StreamInfo(name); err != nil || info.Config.MaxMsgs != 7 {
			t.Errorf("%+v, %v", info, err)
		}
	}
}

func TestBus_saysThatAMessageIsTooLarge(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	if _, err := b.jetStream().AddStream(&nats.StreamConfig{Name: Stream, Subjects: []string{"lotline.>"}, MaxMsgSize: 1000}); err != nil {
		t.Fatal(err)
	}
	bus := b.bus(b.url())
	deliver(t, bus, "queue", "1", "small")
	for name, size := range map[string]int{"for the stream": 2000, "for the server": 2 << 20} {
		if err := bus.Publish("queue", message.NewMessage(name, make([]byte, size))); !errors.Is(err, sink.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	deliver(t, bus, "queue", "2", "small")
}

func TestBus_goesOnAfterTheBrokerWasAway(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	bus := b.bus(b.url())
	for _, id := range []string{"1", "2", "3"} {
		deliver(t, bus, "queue", id, "x")
		b.stop()
		if err := bus.Publish("queue", message.NewMessage("lost", nil)); err == nil {
			t.Error("a broker that is away takes a message")
		}
		if err := bus.Ready(t.Context()); err == nil {
			t.Error("a broker that is away is ready")
		}
		b.start()
	}
	deliver(t, bus, "queue", "4", "x")
	var ids []string
	for _, m := range stored(t, b.jetStream(), Stream) {
		ids = append(ids, strings.Fields(m)[1])
	}
	if want := []string{"1", "2", "3", "4"}; !slices.Equal(ids, want) {
		t.Errorf("got %v", ids)
	}
}

func TestBus_withoutABroker(t *testing.T) {
	t.Parallel()
	b := newBroker(t)
	bus := b.bus(b.url())
	b.stop()
	if err := bus.Ready(t.Context()); err == nil {
		t.Error("ready")
	}
	b.start()
	deliver(t, bus, "queue", "1", "x")
}

func TestBus_userAndPasswordHoldForAllServers(t *testing.T) {
	t.Parallel()
	b := newBroker(t, func(o *server.Options) { o.Username, o.Password = "lotline", "battery/staple" })
	away := newBroker(t)
	gone := strings.TrimPrefix(away.url(), "nats://")
	away.stop()
	at := b.server.Addr().String()
	deliver(t, b.bus("nats://lotline:battery%2Fstaple@"+gone+","+at), "queue", "1", "x")
	err := b.bus("nats://lotline:horse@" + at).Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "Authorization Violation") || strings.Contains(err.Error(), "horse") {
		t.Errorf("a wrong password: %v", err)
	}
}

func TestBus_tlsIsNotLeftOut(t *testing.T) {
	t.Parallel()
	plain := newBroker(t)
	if err := plain.bus("tls://" + plain.server.Addr().String()).Ready(t.Context()); !errors.Is(err, nats.ErrSecureConnWanted) {
		t.Errorf("a broker without TLS: %v", err)
	}
	// The broker's certificate is not signed by a trusted authority.
	secured := newBroker(t, func(o *server.Options) {
		o.TLS, o.TLSConfig, o.TLSTimeout = true, &tls.Config{Certificates: []tls.Certificate{certificate(t)}}, 5
	})
	unknown := x509.UnknownAuthorityError{}
	if err := secured.bus("tls://" + secured.server.Addr().String()).Ready(t.Context()); !errors.As(err, &unknown) {
		t.Errorf("a broker whose certificate nobody vouches for: %v", err)
	}
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestBus_aUserWhoMayOnlyPublishPublishes(t *testing.T) {
	t.Parallel()
	b := newBroker(t, func(o *server.Options) {
		o.Users = []*server.User{{Username: "admin", Password: "a"}, {Username: "lotline", Password: "l", Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: []string{"lotline.>"}}, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX.>"}},
		}}}
	})
	b.options.Username, b.options.Password = "admin", "a"
	js := b.jetStream()
	if _, err := js.AddStream(&nats.StreamConfig{Name: Stream, Subjects: []string{"lotline.>"}}); err != nil {
		t.Fatal(err)
	}
	deliver(t, b.bus("nats://lotline:l@"+b.server.Addr().String()), "queue", "1", "x")
	if got := stored(t, js, Stream); len(got) != 1 {
		t.Errorf("got %q", got)
	}
}
