package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/httpapi/apitest"
	"github.com/lotline/lotline/projections"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryLog is an event log in memory. It normally passes each event to the views at once.
// After a call of hold it passes no events until release is called.
type memoryLog struct {
	mu      sync.Mutex
	events  map[string]domain.Event // the encoded events, by their data
	streams map[string][]*domain.Recorded
	count   uint64
	views   *projections.Views
	held    []*domain.Recorded // the events that the views do not have yet, while holding
	holding bool
	failing error         // the result of every append, nil to append
	silence chan struct{} // if not nil, appends wait until it is closed
	// stuck, if not nil, makes every read wait until it is closed.
	stuck chan struct{}
}

// silent makes appends wait until release.
func (l *memoryLog) silent() (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	silence := make(chan struct{})
	l.silence = silence
	return func() { close(silence) }
}

func (l *memoryLog) Encode(_ string, e domain.Event, m domain.Metadata) (domain.Proposed, error) {
	metadata, err := json.Marshal(m)
	if err != nil {
		return domain.Proposed{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	name := fmt.Sprintf("%T", e)
	data := fmt.Sprintf(`{%q:%d}`, name, len(l.events))
	l.events[data] = e
	return domain.Proposed{Type: name, Data: []byte(data), Metadata: metadata}, nil
}

func (l *memoryLog) Append(_ context.Context, stream string, head domain.Head, events []domain.Proposed) (domain.Head, domain.Position, error) {
	l.mu.Lock()
	silence := l.silence
	l.mu.Unlock()
	if silence != nil {
		<-silence
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failing != nil {
		return head, domain.Position{}, l.failing
	}
	if got := domain.Revision(len(l.streams[stream]) - 1); got != head.Revision {
		return head, domain.Position{}, domain.ErrWrongRevision
	}
	var position domain.Position
	for _, p := range events {
		l.count++
		position = domain.Position{Commit: l.count, Prepare: l.count}
		r := &domain.Recorded{
			ID: p.ID, Type: p.Type, Stream: stream, Revision: head.Revision + 1, Position: position,
			RecordedAt: time.Now(), Data: p.Data, Event: l.events[string(p.Data)],
		}
		if err := json.Unmarshal(p.Metadata, &r.Metadata); err != nil {
			return head, position, err
		}
		hash := domain.EventHash(p.ID, p.Type, stream, r.Revision, p.Data, p.Metadata, head.Hash)
		r.RawMetadata = domain.WithHash(p.Metadata, hash)
		head = domain.Head{Revision: r.Revision, Hash: hash}
		l.streams[stream] = append(l.streams[stream], r)
		l.deliver(r)
	}
	return head, position, nil
}

func (l *memoryLog) deliver(r *domain.Recorded) {
	if l.holding {
		l.held = append(l.held, r)
		return
	}
	l.follow(r)
}

// follow passes an event to the views, as a caught-up follower of the log does.
func (l *memoryLog) follow(r *domain.Recorded) {
	l.views.Follow(r)
	l.views.Passed(r.Position)
}

func (l *memoryLog) Read(ctx context.Context, stream string, after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := slices.Clone(l.streams[stream][min(int(after)+1, len(l.streams[stream])):])
	stuck := l.stuck
	return func(yield func(*domain.Recorded, error) bool) {
		if stuck != nil {
			select {
			case <-stuck:
			case <-ctx.Done():
				yield(nil, ctx.Err())
				return
			}
		}
		for _, r := range rest {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// hold keeps the events that are appended from now on from the views, until release.
func (l *memoryLog) hold() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = true
}

func (l *memoryLog) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holding = false
	for _, r := range l.held {
		l.follow(r)
	}
	l.held = nil
}

func (l *memoryLog) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failing = err
}

// corrupt appends an event that the rules do not allow at this point.
func (l *memoryLog) corrupt(stream string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.streams[stream][len(l.streams[stream])-1]
	l.count++
	r := &domain.Recorded{
		ID: uuid.New(), Type: "queue.completed", Stream: stream, Revision: last.Revision + 1,
		Position: domain.Position{Commit: l.count, Prepare: l.count}, RecordedAt: time.Now(),
		Event: domain.Completed{Stamp: domain.Stamp{At: 1 << 42}},
	}
	_, before, _ := domain.SplitHash(last.RawMetadata)
	hash := domain.EventHash(r.ID, r.Type, stream, r.Revision, nil, []byte(`{"a":1}`), before)
	r.RawMetadata = domain.WithHash([]byte(`{"a":1}`), hash)
	l.streams[stream] = append(l.streams[stream], r)
	l.deliver(r)
}

type noOpener struct{}

func (noOpener) Open(_, _, _, sealed string) (string, error) { return sealed, nil }

// lines collects log output.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// world is the API with real commands and real views, and a log in memory. It has two
// organizations: the first has several keys, the other one.
type world struct {
	tb      testing.TB
	log     *memoryLog
	views   *projections.Views
	handler *commands.Handler
	logged  *lines
	config  Config
	api     http.Handler
	now     atomic.Int64 // milliseconds

	undocumented bool   // answers are not checked against the OpenAPI document
	accept       string // the default Accept header of do, "" for none

	mine, other domain.ID // organizations
	myKeyID     domain.ID
	revokedID   domain.ID
}

const (
	myKey      = "sk_test_mine0000000000000000000000000"
	mySecond   = "sk_live_mine1111111111111111111111111"
	myRevoked  = "sk_live_mine2222222222222222222222222"
	myPublic   = "pk_live_mine3333333333333333333333333"
	otherKey   = "sk_live_other000000000000000000000000"
	unknownKey = "sk_live_nobody00000000000000000000000"
)

func newWorld(tb testing.TB, change ...func(*Config)) *world {
	tb.Helper()
	log := &memoryLog{events: map[string]domain.Event{}, streams: map[string][]*domain.Recorded{}}
	views, err := projections.Open(filepath.Join(tb.TempDir(), "views.db"), projections.Origin{Log: log}, noOpener{}, zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	log.views = views
	w := &world{tb: tb, log: log, views: views, logged: &lines{}}
	w.now.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMilli())
	clock := func() time.Time { return time.UnixMilli(w.now.Load()) }
	w.handler = commands.NewHandler(log, nil, clock)
	tb.Cleanup(func() {
		if err := w.handler.Close(context.Background()); err != nil {
			tb.Error(err)
		}
		if err := views.Close(); err != nil {
			tb.Error(err)
		}
	})
	w.mine = w.organization("Mine", "Europe/Berlin", "EUR")
	w.other = w.organization("Other", "UTC", "USD")
	w.myKeyID = w.key(w.mine, domain.SecretKey, myKey)
	w.key(w.mine, domain.SecretKey, mySecond)
	w.key(w.mine, domain.PublishableKey, myPublic)
	w.revokedID = w.key(w.mine, domain.SecretKey, myRevoked)
	w.run(w.mine, domain.RevokeKey{KeyID: w.revokedID})
	w.key(w.other, domain.SecretKey, otherKey)
	w.sign(domain.MakeSigningKey{Secret: [32]byte{1}, OnlyFirst: true})
	w.config = Config{
		Commands:  w.handler,
		Views:     views,
		Histories: log,
		CaughtUp:  func() bool { return true },
		Ready:     func(context.Context) []Check { return []Check{{Name: "eventStore"}} },
		TokenKey:  []byte("a key for tests that is long enough"),
		Clock:     clock,
		Log:       zerolog.New(w.logged),
	}
	for _, c := range change {
		c(&w.config)
	}
	w.api = New(w.config)
	return w
}

func (w *world) run(stream domain.ID, c domain.Command) {
	w.tb.Helper()
	_, err := w.handler.Handle(w.tb.Context(), commands.Request{
		Stream: stream.Stream(), Command: c, Caller: commands.Caller{Actor: domain.ActorOperator},
	})
	if err != nil {
		w.tb.Fatal(err)
	}
}

// happens appends an event to the log, even if the rules would not allow it.
func (w *world) happens(stream string, e domain.Event) {
	w.tb.Helper()
	p, err := w.log.Encode(stream, e, domain.Metadata{})
	if err != nil {
		w.tb.Fatal(err)
	}
	p.ID = uuid.New()
	head := domain.Head{Revision: domain.Revision(len(w.log.streams[stream]) - 1)}
	_, head.Hash, _ = domain.SplitHash(w.log.streams[stream][head.Revision].RawMetadata)
	if _, _, err := w.log.Append(w.tb.Context(), stream, head, []domain.Proposed{p}); err != nil {
		w.tb.Fatal(err)
	}
}

// sign carries out a command on the signing keys.
func (w *world) sign(c domain.Command) {
	w.tb.Helper()
	_, err := w.handler.Handle(w.tb.Context(), commands.Request{
		Stream: domain.SigningStream, Command: c, Caller: commands.Caller{Actor: domain.ActorOperator},
	})
	if err != nil {
		w.tb.Fatal(err)
	}
}

func (w *world) organization(name, zone string, currency domain.Currency) domain.ID {
	w.tb.Helper()
	id := domain.NewID("org", uuid.New())
	w.run(id, domain.CreateOrganization{ID: id, Name: name, TimeZone: zone, CurrencyCode: currency})
	return id
}

func (w *world) key(organization domain.ID, level domain.KeyLevel, key string) domain.ID {
	w.tb.Helper()
	id := domain.NewID("key", uuid.Must(uuid.NewV7()))
	f := domain.Fields{"level": encode(level), "name": encode("test"), "mode": encode(key[3:7])}
	w.run(organization, domain.CreateKey{KeyID: id, Fields: f, Random: key[len("sk_live_"):]})
	return id
}

func (w *world) advance(d time.Duration) { w.now.Add(d.Milliseconds()) }

// option changes a request before it is sent.
type option func(*http.Request)

func header(name string, values ...string) option {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func key(k string) option { return header("Authorization", "Bearer "+k) }

// do sends a request with myKey. A body is sent as JSON. It checks the exchange against the
// OpenAPI document.
func (w *world) do(method, path, body string, options ...option) *reply {
	w.tb.Helper()
	var r *http.Request
	if body == "" {
		r = httptest.NewRequestWithContext(w.tb.Context(), method, path, http.NoBody)
	} else {
		r = httptest.NewRequestWithContext(w.tb.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+myKey)
	if w.accept != "" {
		r.Header.Set("Accept", w.accept)
	}
	for _, o := range options {
		o(r)
	}
	recorder := httptest.NewRecorder()
	w.api.ServeHTTP(recorder, r)
	a := &reply{tb: w.tb, ResponseRecorder: recorder, what: method + " " + path + " " + body}
	if w.accept != "" && r.Header.Get("Accept") == w.accept && a.Code >= 400 && !strings.HasPrefix(a.Header().Get("Content-Type"), w.accept) {
		w.tb.Errorf("%s: an error is %s for a client that accepts %s", a.what, a.Header().Get("Content-Type"), w.accept)
	}
	if !w.undocumented && !ofTheConsole(path) {
		if err := contract().Check(apitest.Exchange{
			Request: r, Sent: []byte(body), Status: recorder.Code, Header: recorder.Header(), Answer: recorder.Body.Bytes(),
		}); err != nil {
			w.tb.Errorf("%s: %d %s\nis not as the OpenAPI document says: %v", a.what, a.Code, a.Body, err)
		}
	}
	return a
}

// ofTheConsole reports whether a path belongs to the console. The document leaves these out,
// because the console is a page for people that calls the API like any other client.
func ofTheConsole(path string) bool {
	return path == consolePath || strings.HasPrefix(path, consolePath+"/")
}

// contract is the API's OpenAPI document. do checks every exchange against it.
var contract = sync.OnceValue(func() *apitest.Contract {
	c, err := apitest.New(openAPIJSON().body)
	if err != nil {
		panic(err)
	}
	return c
})

// reply is an answer with helpers to check it.
type reply struct {
	*httptest.ResponseRecorder
	tb   testing.TB
	what string // the request, for messages
}

// is checks the status.
func (a *reply) is(status int) *reply {
	a.tb.Helper()
	if a.Code != status {
		a.tb.Fatalf("%s: status %d, want %d: %s", a.what, a.Code, status, a.Body)
	}
	return a
}

// refuses checks the status, error and code of a failure.
func (a *reply) refuses(status int, text string) *reply {
	a.tb.Helper()
	a.is(status)
	want := strings.ToUpper(strings.ReplaceAll(text, " ", "_"))
	if got := a.failure(); got.Error != text || got.Code != want {
		a.tb.Fatalf("%s: got %q %q, want %q %q: %s", a.what, got.Error, got.Code, text, want, a.Body)
	}
	return a
}

func (a *reply) failure() failure {
	a.tb.Helper()
	var f failure
	if err := json.Unmarshal(a.Body.Bytes(), &f); err != nil {
		a.tb.Fatalf("%s: %v: %s", a.what, err, a.Body)
	}
	if f.RequestID == "" || f.RequestID != a.Header().Get("X-Request-Id") {
		a.tb.Fatalf("%s: requestId %q, header %q", a.what, f.RequestID, a.Header().Get("X-Request-Id"))
	}
	if a.Header().Get("Content-Type") == mediaProblem {
		p := problem{failure: f}
		if err := json.Unmarshal(a.Body.Bytes(), &p); err != nil || p.Title != f.Error || p.Status != a.Code || p.Detail != f.Message || !strings.Contains(a.what, p.Instance) || p.Instance == "" {
			a.tb.Fatalf("%s: no problem of RFC 9457: %s", a.what, a.Body)
		}
	}
	return f
}

// blames checks which fields a validation error names, in order.
func (a *reply) blames(fields ...string) {
	a.tb.Helper()
	a.refuses(http.StatusBadRequest, "Validation failed")
	var got []string
	for _, d := range a.failure().Details {
		if d.Message == "" {
			a.tb.Fatalf("%s: there is no message about %s", a.what, d.Field)
		}
		got = append(got, d.Field)
	}
	if !slices.Equal(got, fields) {
		a.tb.Fatalf("%s: blames %q, want %q", a.what, got, fields)
	}
}

func (a *reply) object() map[string]any {
	a.tb.Helper()
	var o map[string]any
	if err := json.Unmarshal(a.Body.Bytes(), &o); err != nil {
		a.tb.Fatalf("%s: %v: %s", a.what, err, a.Body)
	}
	return o
}

func (a *reply) id() string {
	a.tb.Helper()
	s, ok := a.object()["id"].(string)
	if !ok {
		a.tb.Fatalf("%s: no id in %s", a.what, a.Body)
	}
	return s
}

// wants checks some fields of the object in the answer.
func (a *reply) wants(fields map[string]any) {
	a.tb.Helper()
	o := a.object()
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if o[name] != fields[name] {
			a.tb.Fatalf("%s: %s is %v, want %v", a.what, name, o[name], fields[name])
		}
	}
}

// create creates a distribution and returns its path and id.
func (w *world) create(collection, body string, options ...option) (path, id string) {
	w.tb.Helper()
	a := w.do(http.MethodPost, "/api/v1/"+collection, body, options...).is(http.StatusCreated)
	return a.Header().Get("Location"), a.id()
}

// handlerRestarts makes the API use a new command handler, which remembers nothing.
func (w *world) handlerRestarts() {
	w.config.Commands = commands.NewHandler(w.log, nil, w.config.Clock)
	w.api = New(w.config)
}
