package main

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/eventstore"
	"github.com/lotline/lotline/eventstore/natsbus"
)

// asBroker makes the test binary run as a NATS server with JetStream, on an address and
// with its files in a directory. It is a process of its own, so that a test can kill it.
const (
	asBroker  = "LOTLINE_TEST_AS_BROKER"
	brokerDir = "LOTLINE_TEST_BROKER_DIRECTORY"
)

func beBroker(at, dir string) {
	address, err := netip.ParseAddrPort(at)
	var s *server.Server
	if err == nil {
		s, err = server.NewServer(&server.Options{Host: address.Addr().String(), Port: int(address.Port()), JetStream: true, StoreDir: dir, NoSigs: true})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	s.Start()
	if s.ReadyForConnections(patience) {
		fmt.Fprintln(os.Stdout, "ready")
	}
	s.WaitForShutdown()
	os.Exit(0)
}

// broker is a NATS server in its own process.
type broker struct {
	t       *testing.T
	at, dir string
	cmd     *exec.Cmd
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	b := &broker{t: t, at: freePort(t), dir: t.TempDir()}
	t.Cleanup(b.kill)
	return b
}

func (b *broker) url() string { return "nats://" + b.at }

func (b *broker) start() {
	b.t.Helper()
	p := testBinary(b.t)
	b.cmd = p.command(context.Background(), []string{asBroker + "=" + b.at, brokerDir + "=" + b.dir})
	b.cmd.Stderr = os.Stderr
	out, err := b.cmd.StdoutPipe()
	if err == nil {
		err = b.cmd.Start()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		b.t.Fatalf("the broker does not start: %q, %v", line, err)
	}
}

// kill ends the broker with SIGKILL.
func (b *broker) kill() {
	if b.cmd == nil || b.cmd.ProcessState != nil {
		return
	}
	if err := b.cmd.Process.Kill(); err != nil {
		b.t.Error(err)
	}
	_ = b.cmd.Wait() // the error says that it was killed
}

func (b *broker) signal(s syscall.Signal) {
	b.t.Helper()
	if err := b.cmd.Process.Signal(s); err != nil {
		b.t.Fatal(err)
	}
}

// stored returns the broker's messages in order and without repeats, and the number of
// repeats.
func (b *broker) stored() (messages []*nats.Msg, repeats int) {
	b.t.Helper()
	conn, err := nats.Connect(b.url())
	if err != nil {
		b.t.Fatal(err)
	}
	defer conn.Close()
	js, err := conn.JetStream()
	if err != nil {
		b.t.Fatal(err)
	}
	subscription, err := js.SubscribeSync(natsbus.SubjectPrefix+">", nats.OrderedConsumer())
	if err != nil {
		b.t.Fatal(err)
	}
	info, err := js.StreamInfo(natsbus.Stream)
	if err != nil {
		b.t.Fatal(err)
	}
	seen := map[string]bool{}
	for range info.State.Msgs {
		m, err := subscription.NextMsg(patience)
		if err != nil {
			b.t.Fatal(err)
		}
		id := m.Header.Get(nats.MsgIdHdr)
		if seen[id] {
			repeats++
			continue
		}
		seen[id] = true
		messages = append(messages, m)
	}
	return messages, repeats
}

// hasAll waits until the broker has the messages of all events in the log. It checks that
// none is missing and that they are in the order of the log.
func (b *broker) hasAll(l *eventstore.Log) (n int) {
	b.t.Helper()
	end, err := l.Head(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var want []string
	for r, err := range l.Between(b.t.Context(), domain.Position{}, end, domain.Kinds()) {
		if err != nil {
			b.t.Fatal(err)
		}
		messages, err := domain.Messages(r)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, m := range messages {
			want = append(want, natsbus.SubjectPrefix+m.Topic+" "+string(m.Payload))
		}
	}
	var got []*nats.Msg
	var repeats int
	eventually(b.t, "the broker has everything", func() bool {
		got, repeats = b.stored()
		return len(got) >= len(want)
	})
	for i := range want {
		if got := got[i].Subject + " " + string(got[i].Data); got != want[i] {
			b.t.Fatalf("message %d is %s, want %s", i, got, want[i])
		}
	}
	b.t.Logf("%d messages, %d of them twice", len(want), repeats)
	return len(want)
}

// logOn connects to the log of a store in a data directory.
func logOn(t testing.TB, dir string) *eventstore.Log {
	t.Helper()
	key, err := hex.DecodeString(testMasterKey)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := eventstore.NewKeyring(key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := eventstore.ConnectSocket(dir+"/"+socketFile, keys)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, l)
	return l
}

// busState returns what /readyz and the metrics say about the bus.
func busState(e *engine) (ok, sending bool) {
	e.t.Helper()
	checks := e.must(200, "GET", "/readyz", "", "").object(e.t)["checks"].(map[string]any)
	return checks["bus"].(map[string]any)["ok"].(bool), scrape(e.t, e.url+"/metrics").value("lotline_bus_sending") == 1
}

// Two engines write. The broker is killed and started again. Then the engine that sends
// is killed.
func TestBus_noMessageIsMissingAfterAKill(t *testing.T) {
	t.Parallel()
	bus, storeDir, at := newBroker(t), dataDirectory(t), freePort(t)
	bus.start()
	startStore(t, testBinary(t), storeDir, at)
	var engines [2]*engine
	for i := range engines {
		engines[i] = testBinary(t).serve(t, dataDirectory(t), "LOTLINE_EVENTSTORE=esdb://"+at+"?tls=false",
			"LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey, "LOTLINE_BUS="+bus.url())
	}
	l := logOn(t, storeDir)
	var stopped, made atomic.Int64
	var writers sync.WaitGroup
	t.Cleanup(writers.Wait)
	t.Cleanup(func() { stopped.Store(3) })
	write := func(i int) {
		for stopped.Load()&(1<<i) == 0 {
			path, err := tryPost(engines[i], "/api/v1/queues", `{"sequenceId":"s","openAt":"2199-01-01T00:00:00Z"}`)
			if err != nil || path == "" {
				continue
			}
			for _, step := range []string{"/open", "/close"} {
				_, _ = tryPost(engines[i], path+step, "")
			}
			made.Add(1)
		}
	}
	for i := range engines {
		writers.Go(func() { write(i) })
	}
	more := func(n int64) {
		t.Helper()
		n += made.Load()
		eventually(t, "queues are made", func() bool { return made.Load() >= n })
	}
	more(20)
	bus.kill()
	more(20)
	bus.start()
	more(20)
	holder := 0
	eventually(t, "an engine sends", func() bool {
		for i, e := range engines {
			if _, sending := busState(e); sending {
				holder = i
				return true
			}
		}
		return false
	})
	stopped.Store(1 << holder)
	engines[holder].kill()
	more(20)
	stopped.Store(3)
	writers.Wait()
	if n := bus.hasAll(l); n < 80*4 {
		t.Errorf("%d messages only", n)
	}
	if _, sending := busState(engines[1-holder]); !sending {
		t.Error("the other one does not send")
	}
}

// tryPost sends a creation that may fail, to an engine that may be dead. It returns the
// path of the new object.
func tryPost(e *engine, path, body string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+testSecretKey)
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	return resp.Header.Get("Location"), resp.Body.Close()
}

// A bus that is away at the start, or that hangs, stops and slows nothing. The engine
// reports that the bus is away, and sends it everything when it is back.
func TestBus_onlyMessagesWaitForABusThatIsAway(t *testing.T) {
	t.Parallel()
	bus, dir := newBroker(t), dataDirectory(t)
	e := testBinary(t).serve(t, dir, "LOTLINE_MASTER_KEY="+testMasterKey, "LOTLINE_SECRET_KEY="+testSecretKey, "LOTLINE_BUS="+bus.url())
	l := logOn(t, dir)
	write := func() {
		t.Helper()
		for range 20 {
			began := time.Now()
			path := e.must(201, "POST", "/api/v1/queues", testSecretKey, body(`{"sequenceId":"s","openAt":%q}`, in(50))).header.Get("Location")
			if took := time.Since(began); took > time.Second {
				t.Errorf("a command took %s", took)
			}
			eventually(t, "the timer opens it", func() bool {
				return e.must(200, "GET", path, testSecretKey, "").object(t)["status"] == "OPEN"
			})
		}
	}
	reaches := func(want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("the bus is said to be well: %t", want), func() bool {
			ok, _ := busState(e)
			return ok == want
		})
	}
	write()
	reaches(false)
	bus.start()
	reaches(true)
	bus.hasAll(l)
	bus.signal(syscall.SIGSTOP)
	write()
	reaches(false)
	bus.signal(syscall.SIGCONT)
	reaches(true)
	bus.hasAll(l)
	if code := e.terminate(); code != 0 {
		t.Errorf("exit %d", code)
	}
}
