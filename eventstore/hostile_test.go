package eventstore

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/EventStore/EventStore-Client-Go/v4/protos/gossip"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/serverfeatures"
	"github.com/EventStore/EventStore-Client-Go/v4/protos/shared"
	streamspb "github.com/EventStore/EventStore-Client-Go/v4/protos/streams"
	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/lotline/lotline/domain"
)

// Results of a call, as the tables below name them.
const (
	nothing     = "nothing"
	unavailable = "unavailable"
	unknown     = "outcome unknown"
	wrong       = "wrong revision"
	history     = "history"
)

func said(err error) string {
	_, broken := errors.AsType[*domain.HistoryError](err)
	switch {
	case err == nil:
		return nothing
	case broken:
		return history
	case errors.Is(err, domain.ErrWrongRevision):
		return wrong
	case errors.Is(err, domain.ErrOutcomeUnknown):
		return unknown
	case errors.Is(err, domain.ErrUnavailable):
		return unavailable
	}
	return "neither: " + err.Error()
}

// behaviour is how a server behaves, and the results that calls must then have.
type behaviour struct {
	serve              func(*testing.T, net.Listener)
	append, read, head string
	connects           bool // a connection can be made
	endsInTime         bool // calls end before their deadline
}

const (
	soon = 300 * time.Millisecond
	late = time.Minute
	// grace is how much longer than its deadline a call may take, for slow machines. A
	// call that ignores its context would never end.
	grace = 10 * time.Second
)

func TestLog_whateverTheServerDoes(t *testing.T) {
	t.Parallel()
	all := map[string]behaviour{}
	// Without a connection an append is certain not to be sent.
	for name, serve := range map[string]func(net.Conn){
		"accepts and says nothing":        func(c net.Conn) { _, _ = io.Copy(io.Discard, c) },
		"hangs up":                        func(net.Conn) {},
		"resets":                          func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) },
		"speaks TLS":                      say("\x15\x03\x01\x00\x02\x02\x28"),
		"speaks HTTP/1":                   say("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
		"speaks something else":           say("220 mail.example ESMTP\r\n"),
		"settles and says nothing":        say(settings),
		"goes away":                       say(settings + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"),
		"settles over and over":           dribble(settings),
		"settles byte by byte":            dribble(settings[:1]),
		"claims a frame of 16 MiB":        say(settings + "\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
		"responds with half a frame":      say(settings[:4]),
		"responds to no request":          say(settings + "\x00\x00\x01\x01\x05\x00\x00\x00\x63\x88"),
		"has a header that is no header":  say(settings + "\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff"),
		"acknowledges what was not asked": say(settings + "\x00\x00\x00\x04\x01\x00\x00\x00\x00"),
	} {
		all[name] = behaviour{serve: raw(serve), append: unavailable, read: unavailable, head: unavailable}
	}
	all["refuses connections"] = behaviour{
		serve: func(_ *testing.T, l net.Listener) { _ = l.Close() }, append: unavailable, read: unavailable, head: unavailable,
	}
	all["has a version that is no version"] = behaviour{serve: handler(func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, codes.OK, nil, &serverfeatures.SupportedMethods{EventStoreServerVersion: "latest"})
	}), append: unavailable, read: unavailable, head: unavailable}

	// These servers receive the append, and its outcome is unknown.
	doubtful := func(serve http.HandlerFunc, endsInTime bool) behaviour {
		return behaviour{calls(serve), unknown, unavailable, unavailable, true, endsInTime}
	}
	for name, serve := range map[string]http.HandlerFunc{
		"takes calls and says nothing": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"begins a response and stops": func(w http.ResponseWriter, r *http.Request) {
			headers(w)
			<-r.Context().Done()
		},
		"takes a subscription and says nothing": func(w http.ResponseWriter, r *http.Request) {
			headers(w)
			_, _ = w.Write(frame(&streamspb.ReadResp{Content: &streamspb.ReadResp_Confirmation{Confirmation: &streamspb.ReadResp_SubscriptionConfirmation{}}}))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		},
		"sends a byte at a time": func(w http.ResponseWriter, r *http.Request) {
			headers(w)
			for _, b := range frame(event(0)) {
				_, _ = w.Write([]byte{b})
				_ = http.NewResponseController(w).Flush()
				pause(r, 10*time.Millisecond)
			}
		},
	} {
		all[name] = doubtful(serve, false)
	}
	for name, serve := range map[string]http.HandlerFunc{
		"breaks calls off":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"breaks responses off": func(w http.ResponseWriter, _ *http.Request) { headers(w); panic(http.ErrAbortHandler) },
		"is never ready":       refusing(codes.Unavailable),
		"says unknown":         refusing(codes.Unknown),
		"says internal":        refusing(codes.Internal),
		"says aborted":         refusing(codes.Aborted),
		"says cancelled":       refusing(codes.Canceled),
		"says too late":        refusing(codes.DeadlineExceeded),
		"says unauthenticated": refusing(codes.Unauthenticated),
		"says what is no code": refusing(77),
		"has a status that is no number": func(w http.ResponseWriter, _ *http.Request) {
			headers(w)
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "fine")
		},
		"responds without trailers": func(w http.ResponseWriter, _ *http.Request) {
			headers(w)
			_, _ = w.Write(frame(&streamspb.ReadResp{Content: &streamspb.ReadResp_CaughtUp_{}}))
		},
		"responds with a page": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<!doctype html>")) },
		"is behind a proxy":    func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
		"responds with nonsense": func(w http.ResponseWriter, _ *http.Request) {
			headers(w)
			_, _ = w.Write([]byte("\x00\x00\x00\x00\x05abcde"))
		},
		"claims 4 GiB": func(w http.ResponseWriter, _ *http.Request) {
			headers(w)
			_, _ = w.Write([]byte("\x00\xff\xff\xff\xff"))
		},
		"compresses unasked": func(w http.ResponseWriter, _ *http.Request) {
			headers(w)
			_, _ = w.Write([]byte("\x01\x00\x00\x00\x01a"))
		},
		"sends an empty response": func(w http.ResponseWriter, r *http.Request) { respond(w, r, codes.OK, nil, &streamspb.ReadResp{}) },
		"has another leader": func(w http.ResponseWriter, r *http.Request) {
			respond(w, r, codes.NotFound, map[string]string{
				"exception": "not-leader", "leader-endpoint-host": "%%", "leader-endpoint-port": "1",
			})
		},
		"deletes no stream": func(w http.ResponseWriter, r *http.Request) {
			respond(w, r, codes.FailedPrecondition, map[string]string{"exception": "stream-deleted"})
		},
	} {
		all[name] = doubtful(serve, true)
	}
	for name, mutate := range map[string]func(*streamspb.ReadResp_ReadEvent){
		"sends an event without content": func(e *streamspb.ReadResp_ReadEvent) { e.Event = nil },
		"sends an event of no stream":    func(e *streamspb.ReadResp_ReadEvent) { e.Event.StreamIdentifier = nil },
		"sends an event without a time":  func(e *streamspb.ReadResp_ReadEvent) { e.Event.Metadata = nil },
		"sends a time that is no number": func(e *streamspb.ReadResp_ReadEvent) { e.Event.Metadata["created"] = "yesterday" },
		"sends a link of no time": func(e *streamspb.ReadResp_ReadEvent) {
			e.Link = proto.CloneOf(e.Event)
			e.Link.Metadata["created"] = ""
		},
	} {
		all[name] = doubtful(func(w http.ResponseWriter, r *http.Request) {
			e := event(0)
			mutate(e.GetEvent())
			respond(w, r, codes.OK, nil, confirmation(r), e)
		}, true)
	}
	for name, m := range map[string]*streamspb.ReadResp{
		"responds with a checkpoint":       {Content: &streamspb.ReadResp_Checkpoint_{Checkpoint: &streamspb.ReadResp_Checkpoint{}}},
		"responds with the last position":  {Content: &streamspb.ReadResp_LastAllStreamPosition{LastAllStreamPosition: &shared.AllStreamPosition{}}},
		"responds with the first revision": {Content: &streamspb.ReadResp_FirstStreamPosition{}},
		"misses a stream without a name":   {Content: &streamspb.ReadResp_StreamNotFound_{}},
		"misses nothing":                   {Content: &streamspb.ReadResp_StreamNotFound_{StreamNotFound: &streamspb.ReadResp_StreamNotFound{}}},
	} {
		all[name] = doubtful(func(w http.ResponseWriter, r *http.Request) { respond(w, r, codes.OK, nil, m) }, true)
	}
	all["never ends a read"] = behaviour{calls(func(w http.ResponseWriter, r *http.Request) {
		begun := confirmation(r)
		headers(w)
		if begun != nil {
			_, _ = w.Write(frame(begun))
		}
		for n := uint64(0); r.Context().Err() == nil; n++ {
			_, _ = w.Write(frame(event(n)))
			_ = http.NewResponseController(w).Flush()
			pause(r, time.Millisecond)
		}
	}), unknown, unavailable, nothing, true, false}
	all["jumps in its revisions"] = behaviour{calls(func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, codes.OK, nil, confirmation(r), event(7), event(3))
	}), unknown, nothing, nothing, true, true}
	all["has a deleted stream"] = behaviour{calls(func(w http.ResponseWriter, r *http.Request) {
		respond(w, r, codes.FailedPrecondition, map[string]string{"exception": "stream-deleted", "stream-name": "s"})
	}), history, history, unavailable, true, true}
	all["is full"] = behaviour{calls(refusing(codes.ResourceExhausted)), unavailable, unavailable, unavailable, true, true}
	for name, success := range map[string]*streamspb.AppendResp_Success{
		"succeeds in nothing":            nil,
		"succeeds at no place":           {CurrentRevisionOption: &streamspb.AppendResp_Success_CurrentRevision{}},
		"succeeds at a nil position":     {PositionOption: &streamspb.AppendResp_Success_Position{}},
		"succeeds at another revision":   success(1),
		"succeeds without having begun":  {CurrentRevisionOption: &streamspb.AppendResp_Success_NoStream{}},
		"succeeds with the last of them": success(1 << 63),
	} {
		all[name] = doubtful(func(w http.ResponseWriter, r *http.Request) {
			respond(w, r, codes.OK, nil, &streamspb.AppendResp{Result: &streamspb.AppendResp_Success_{Success: success}})
		}, true)
	}
	for name, refusal := range map[string]*streamspb.AppendResp_WrongExpectedVersion{
		"refuses a revision": {CurrentRevisionOption: &streamspb.AppendResp_WrongExpectedVersion_CurrentRevision{CurrentRevision: 7}},
		"refuses, no more":   {},
	} {
		all[name] = behaviour{calls(func(w http.ResponseWriter, r *http.Request) {
			respond(w, r, codes.OK, nil, &streamspb.AppendResp{Result: &streamspb.AppendResp_WrongExpectedVersion_{WrongExpectedVersion: refusal}})
		}), wrong, unavailable, unavailable, true, true}
	}
	// The server resets the HTTP/2 stream. Code 11 asks the client to slow down; gRPC
	// maps it to the same code as a full disk.
	for code := range byte(14) {
		all[fmt.Sprintf("breaks off with code %d", code)] = behaviour{raw(breakOff(code)), unknown, unavailable, unavailable, true, true}
	}
	// In parallel: they only wait.
	var running sync.WaitGroup
	for name, b := range all {
		running.Go(func() { t.Run(name, b.check) })
	}
	running.Wait()
}

func (b behaviour) check(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	b.serve(t, listener)
	// gossipTimeout, in seconds, limits how long an attempt to connect lasts after the
	// log was closed.
	l, err := Connect("esdb://"+address+"?tls=false&gossipTimeout=1", testKeyring(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	call := func(name, want string, f func(context.Context) error) {
		t.Helper()
		deadline := soon
		if want != unavailable && want != unknown || b.endsInTime && name != "tail" {
			deadline = late
		}
		if b.connects {
			// A slow machine might not connect before the deadline otherwise.
			if g, err := l.client.begin(t.Context()); err == nil {
				g.calls.Done()
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		begun := time.Now()
		got := said(f(ctx))
		if took := time.Since(begun); took > deadline+grace {
			t.Errorf("%s returned after %v", name, took)
		}
		if got != want {
			t.Errorf("%s says: %s, want: %s", name, got, want)
		}
	}
	// Make the calls twice: the first round may leave a connection in a state that affects
	// the second round.
	for range 2 {
		call("append", b.append, func(ctx context.Context) error {
			_, _, err := l.Append(ctx, stream, domain.EmptyHead(), encode(t, l, stream, queueCreated()))
			return err
		})
		call("read", b.read, func(ctx context.Context) (err error) {
			for _, err = range l.Read(ctx, stream, domain.NoStream) {
			}
			return err
		})
		call("head", b.head, func(ctx context.Context) error {
			_, err := l.Head(ctx)
			return err
		})
	}
	tail := NewTail(l, domain.Kinds(), domain.Position{Commit: 1 << 62}, zerolog.Nop(), newIgnorant())
	call("tail", unavailable, func(ctx context.Context) error {
		tail.Run(ctx)
		return domain.ErrUnavailable // the error that a returned call must have
	})
	if tail.Connected() {
		t.Error("the tail says that it is connected")
	}
	underWay := make(chan error, 1)
	go func() {
		_, err := l.Head(t.Context())
		underWay <- err
	}()
	call("close", nothing, func(context.Context) error { return l.Close() })
	call("a call that was under way", unavailable, func(context.Context) error {
		if err := <-underWay; err != nil {
			return err
		}
		return domain.ErrUnavailable // the response may have arrived before
	})
	call("a call of a closed log", unavailable, func(ctx context.Context) error {
		_, err := l.Head(ctx)
		return err
	})
}

// ignorant is a follower that ignores every event.
type ignorant struct{ at domain.Position }

func newIgnorant() *ignorant                  { return &ignorant{} }
func (i *ignorant) Position() domain.Position { return i.at }
func (i *ignorant) Follow(r *domain.Recorded) { i.at = r.Position }
func (i *ignorant) Passed(domain.Position)    {}
func (i *ignorant) CaughtUp()                 {}

// settings is the HTTP/2 frame that every connection needs first.
const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// raw serves connections without any protocol.
func raw(serve func(net.Conn)) func(*testing.T, net.Listener) {
	return func(t *testing.T, l net.Listener) {
		var all sync.WaitGroup
		var mu sync.Mutex
		var conns []net.Conn
		all.Go(func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
				all.Go(func() {
					defer c.Close()
					serve(c)
				})
			}
		})
		t.Cleanup(func() {
			_ = l.Close()
			mu.Lock()
			for _, c := range conns {
				_ = c.Close()
			}
			mu.Unlock()
			all.Wait()
		})
	}
}

// say sends a text and then reads until the end.
func say(what string) func(net.Conn) {
	return func(c net.Conn) {
		if _, err := io.WriteString(c, what); err == nil {
			_, _ = io.Copy(io.Discard, c)
		}
	}
}

func dribble(what string) func(net.Conn) {
	return func(c net.Conn) {
		var reading sync.WaitGroup
		defer reading.Wait()
		gone := make(chan struct{})
		reading.Go(func() {
			_, _ = io.Copy(io.Discard, c)
			close(gone)
		})
		for {
			if _, err := io.WriteString(c, what); err != nil {
				return
			}
			select {
			case <-time.After(5 * time.Millisecond):
			case <-gone:
				return
			}
		}
	}
}

// breakOff speaks just enough HTTP/2 to refuse the call for supported methods and to
// reset every other call with an error code.
func breakOff(code byte) func(net.Conn) {
	return func(c net.Conn) {
		in := bufio.NewReader(c)
		if _, err := in.Discard(len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")); err != nil {
			return
		}
		_, _ = io.WriteString(c, settings)
		connecting := true
		for {
			var head [9]byte
			if _, err := io.ReadFull(in, head[:]); err != nil {
				return
			}
			if _, err := in.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2])); err != nil {
				return
			}
			id := string(head[5:])
			switch kind := head[3]; {
			case kind == 4 && head[4] == 0: // SETTINGS
				_, _ = io.WriteString(c, "\x00\x00\x00\x04\x01\x00\x00\x00\x00")
			case kind == 1 && connecting: // HEADERS
				connecting = false
				block := "\x88" + literal("content-type", "application/grpc") + literal("grpc-status", "12")
				_, _ = io.WriteString(c, "\x00\x00"+string(rune(len(block)))+"\x01\x05"+id+block)
			case kind == 1:
				_, _ = io.WriteString(c, "\x00\x00\x04\x03\x00"+id+"\x00\x00\x00"+string(rune(code)))
			}
		}
	}
}

func literal(name, value string) string {
	return "\x00" + string(rune(len(name))) + name + string(rune(len(value))) + value
}

// handler serves HTTP/2 requests.
func handler(serve http.HandlerFunc) func(*testing.T, net.Listener) {
	return func(t *testing.T, l net.Listener) {
		server := &http.Server{Handler: serve, Protocols: &http.Protocols{}, ReadHeaderTimeout: time.Minute}
		server.Protocols.SetUnencryptedHTTP2(true)
		var all sync.WaitGroup
		all.Go(func() { _ = server.Serve(l) })
		t.Cleanup(func() {
			_ = server.Close()
			all.Wait()
		})
	}
}

// calls serves calls of the streams service, and knows no other service.
func calls(serve http.HandlerFunc) func(*testing.T, net.Listener) {
	return handler(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/GetSupportedMethods") {
			respond(w, r, codes.Unimplemented, nil)
			return
		}
		serve(w, r)
	})
}

func pause(r *http.Request, d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	}
}

func headers(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/grpc")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
}

func respond(w http.ResponseWriter, r *http.Request, code codes.Code, trailers map[string]string, messages ...proto.Message) {
	_, _ = io.Copy(io.Discard, r.Body)
	headers(w)
	for _, m := range messages {
		if m != (*streamspb.ReadResp)(nil) {
			_, _ = w.Write(frame(m))
		}
	}
	w.Header().Set(http.TrailerPrefix+"Grpc-Status", fmt.Sprint(uint32(code)))
	for k, v := range trailers {
		w.Header().Set(http.TrailerPrefix+k, v)
	}
}

func refusing(code codes.Code) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { respond(w, r, code, nil) }
}

func frame(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// confirmation reads the request of a call. For a subscription it returns the message
// that begins the response, for other calls nil.
func confirmation(r *http.Request) *streamspb.ReadResp {
	var head [5]byte
	if _, err := io.ReadFull(r.Body, head[:]); err != nil {
		return nil
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:]))
	var request streamspb.ReadReq
	if _, err := io.ReadFull(r.Body, body); err != nil || proto.Unmarshal(body, &request) != nil || request.GetOptions().GetSubscription() == nil {
		return nil
	}
	return &streamspb.ReadResp{Content: &streamspb.ReadResp_Confirmation{Confirmation: &streamspb.ReadResp_SubscriptionConfirmation{}}}
}

func event(revision uint64) *streamspb.ReadResp {
	return &streamspb.ReadResp{Content: &streamspb.ReadResp_Event{Event: &streamspb.ReadResp_ReadEvent{
		Event: &streamspb.ReadResp_ReadEvent_RecordedEvent{
			Id:               &shared.UUID{Value: &shared.UUID_String_{String_: uuid.NewString()}},
			StreamIdentifier: &shared.StreamIdentifier{StreamName: []byte(stream)},
			StreamRevision:   revision, PreparePosition: revision + 1, CommitPosition: revision + 1,
			Metadata: map[string]string{"type": "queue.created", "content-type": "application/json", "created": "17950000000000000"},
		},
	}}}
}

func success(revision uint64) *streamspb.AppendResp_Success {
	return &streamspb.AppendResp_Success{
		CurrentRevisionOption: &streamspb.AppendResp_Success_CurrentRevision{CurrentRevision: revision},
		PositionOption:        &streamspb.AppendResp_Success_Position{Position: &streamspb.AppendResp_Position{CommitPosition: 9, PreparePosition: 9}},
	}
}

func TestCheckCluster_refusesAddressesThatEndTheProcess(t *testing.T) {
	t.Parallel()
	for address, fine := range map[string]bool{
		"10.0.0.1": true, "node-1.example": true, "::1": true, "": true, "%zz": false, "a\x7f": false,
	} {
		members := &gossip.ClusterInfo{Members: []*gossip.MemberInfo{
			{}, {State: gossip.MemberInfo_Leader, IsAlive: true, HttpEndPoint: &gossip.EndPoint{Address: address, Port: 2113}},
		}}
		if err := checkCluster(members); (err == nil) != fine {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestLog_aClusterWithoutMembersIsUnavailable(t *testing.T) {
	t.Parallel()
	for name, address := range map[string]string{"no address": "", "no name": "%zz"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			handler(func(w http.ResponseWriter, r *http.Request) {
				respond(w, r, codes.OK, nil, &gossip.ClusterInfo{Members: []*gossip.MemberInfo{
					{State: gossip.MemberInfo_Leader, IsAlive: true, HttpEndPoint: &gossip.EndPoint{Address: address}},
				}})
			})(t, listener)
			l, err := Connect("esdb+discover://"+listener.Addr().String()+"?tls=false&gossipTimeout=1", testKeyring(t, 1))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ctx, cancel := context.WithTimeout(t.Context(), soon)
			defer cancel()
			if _, err := l.Head(ctx); !errors.Is(err, domain.ErrUnavailable) {
				t.Errorf("head: %v", err)
			}
		})
	}
}

// hostile returns a log whose server is serve.
func hostile(t *testing.T, serve func(*testing.T, net.Listener)) *Log {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, listener)
	l, err := Connect("esdb://"+listener.Addr().String()+"?tls=false", testKeyring(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A proxy that knows nothing of streams may respond with "not found". That does not mean
// that the stream is empty or ends there.
func TestLog_aProxysNotFoundIsNotTheEndOfAStream(t *testing.T) {
	t.Parallel()
	for _, events := range [][]proto.Message{nil, {event(0)}} {
		l := hostile(t, calls(func(w http.ResponseWriter, r *http.Request) { respond(w, r, codes.NotFound, nil, events...) }))
		var last error
		for _, err := range l.Read(t.Context(), stream, domain.NoStream) {
			last = err
		}
		if !errors.Is(last, domain.ErrUnavailable) {
			t.Errorf("after %d events: %v", len(events), last)
		}
	}
}

func TestLog_saysWhyThereIsNoConnection(t *testing.T) {
	t.Parallel()
	l := hostile(t, handler(func(w http.ResponseWriter, r *http.Request) { respond(w, r, codes.Unauthenticated, nil) }))
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if _, err := l.Head(ctx); !errors.Is(err, domain.ErrUnavailable) || !strings.Contains(err.Error(), "authentication failed") {
		t.Errorf("got %v", err)
	}
}
