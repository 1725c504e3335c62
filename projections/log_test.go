package projections

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testOrigin is a log whose end is after every event of the tests.
var testOrigin = Origin{ID: "log-1", Head: domain.Position{Commit: 1 << 60}}

// testSeals encodes a secret together with its place, without encryption.
type testSeals struct{}

func (testSeals) seal(stream, eventType, field, plain string) string {
	return fmt.Sprintf("%s %s %s %s", stream, eventType, field, hex.EncodeToString([]byte(plain)))
}

func (testSeals) Open(stream, eventType, field, sealed string) (string, error) {
	rest, ok := strings.CutPrefix(sealed, fmt.Sprintf("%s %s %s ", stream, eventType, field))
	plain, err := hex.DecodeString(rest)
	if !ok || err != nil {
		return "", errors.New("not sealed for this place")
	}
	return string(plain), nil
}

// testLog makes a log by deciding commands, as the engine does.
type testLog struct {
	now    domain.Instant
	events []*domain.Recorded
	hashes map[string]string          // of each stream's last event
	ends   map[string]domain.Revision // of each stream's next event
	state  map[string]*domain.History
	serial uint64
}

func newLog() *testLog {
	return &testLog{
		now:    1_800_000_000_000,
		hashes: map[string]string{},
		ends:   map[string]domain.Revision{},
		state:  map[string]*domain.History{},
	}
}

// id returns a new id. Ids sort by creation.
func (l *testLog) id(prefix string) domain.ID {
	l.serial++
	var uuid [16]byte
	uuid[0] = 1
	uuid[13], uuid[14], uuid[15] = byte(l.serial>>16), byte(l.serial>>8), byte(l.serial)
	return domain.NewID(prefix, uuid)
}

func (l *testLog) history(stream string) *domain.History {
	h, ok := l.state[stream]
	if !ok {
		h = domain.NewHistory(stream)
		l.state[stream] = h
	}
	return h
}

// send records the events that are due, and those of the command.
func (l *testLog) send(stream string, cmd domain.Command) error {
	h := l.history(stream)
	now := h.At(l.now)
	due, err := domaintest.Advance(h, now)
	if err != nil {
		return err
	}
	l.append(stream, due...)
	events, err := domaintest.Carry(h, now, cmd)
	l.append(stream, events...)
	return err
}

func (l *testLog) must(tb testing.TB, id domain.ID, cmd domain.Command) {
	tb.Helper()
	if err := l.send(id.Stream(), cmd); err != nil {
		tb.Fatal(err)
	}
}

// try sends a command that may be refused.
func (l *testLog) try(stream string, cmd domain.Command) {
	if err := l.send(stream, cmd); err != nil && !errors.As(err, new(*domain.Error)) {
		panic(err)
	}
}

func (l *testLog) append(stream string, events ...domain.Event) {
	for _, e := range events {
		l.record(stream, e)
	}
}

// record appends an event, even if the rules do not allow it.
func (l *testLog) record(stream string, e domain.Event) *domain.Recorded {
	r := &domain.Recorded{
		Type:     eventType(stream, e),
		Stream:   stream,
		Revision: l.ends[stream],
		Position: domain.Position{Commit: uint64(len(l.events)+1) * 10, Prepare: uint64(len(l.events)+1) * 10},
		Event:    e,
		Metadata: domain.Metadata{SchemaVersion: 1, CommandID: fmt.Sprint(len(l.events))},
	}
	r.ID[0], r.ID[1], r.ID[2] = byte(len(l.events)>>16), byte(len(l.events)>>8), byte(len(l.events))
	if holder, ok := e.(domain.SecretHolder); ok {
		for _, s := range holder.Secrets() {
			s.Value.Sealed = testSeals{}.seal(stream, r.Type, s.Name, s.Value.Plain)
		}
	}
	var err1, err2 error
	var metadata []byte
	r.Data, err1 = json.Marshal(e)
	metadata, err2 = json.Marshal(r.Metadata)
	if err := errors.Join(err1, err2); err != nil {
		panic(err)
	}
	hash := domain.EventHash(r.ID, r.Type, stream, r.Revision, r.Data, metadata, l.hashes[stream])
	r.RawMetadata = domain.WithHash(metadata, hash)
	l.hashes[stream] = hash
	l.ends[stream]++
	l.events = append(l.events, r)
	return r
}

func eventType(stream string, e domain.Event) string {
	kind := string(domain.StreamKind(stream))
	switch e.(type) {
	case *domain.QueueCreated, *domain.DrawCreated, *domain.AuctionCreated:
		return kind + ".created"
	case *domain.SigningKeyCreated:
		return kind + ".key.created"
	}
	return fmt.Sprintf("%s.%T", kind, e)
}

// organization creates an organization.
func (l *testLog) organization(tb testing.TB) domain.ID {
	tb.Helper()
	id := l.id("org")
	l.must(tb, id, domain.CreateOrganization{ID: id, Name: "Org", TimeZone: "UTC", CurrencyCode: "USD"})
	return id
}

// apiKey creates a secret API key of an organization and returns its hash. The key expires at
// expires, unless that is 0.
func (l *testLog) apiKey(tb testing.TB, org, id domain.ID, random string, expires domain.Instant) string {
	tb.Helper()
	f := fields("level", `"secret"`, "expiresAt", instant(expires)).Fields
	l.must(tb, org, domain.CreateKey{KeyID: id, Fields: f, Random: random})
	return domain.KeyHash(domain.KeyText(domain.SecretKey, domain.LiveKey, random))
}

// create creates a distribution. The fields are JSON values, in addition to those that its
// kind requires.
func (l *testLog) create(tb testing.TB, org domain.ID, k domain.Kind, fields map[string]string) domain.ID {
	tb.Helper()
	id := l.id(k.IDPrefix())
	all := domain.Fields{"sequenceId": json.RawMessage(`"s"`)}
	end := json.RawMessage(`"2199-01-01T00:00:00Z"`)
	if k == domain.KindDraw {
		all["drawAt"], all["winnerCount"] = end, json.RawMessage("3")
	}
	if k == domain.KindAuction {
		all["settleAt"] = end
	}
	for name, value := range fields {
		all[name] = json.RawMessage(value)
	}
	c := domain.Create{
		ID: id, OrganizationID: org, Fields: all,
		Defaults: domain.Defaults{TimeZone: "UTC", CurrencyCode: "USD"},
		Seed:     "plain seed of " + string(id),
	}
	copy(c.Secret[:], id)
	l.must(tb, id, c)
	return id
}

// fields returns an update of the fields that are given as names and JSON values.
func fields(pairs ...string) domain.Update {
	f := domain.Fields{}
	for i := 0; i < len(pairs); i += 2 {
		f[pairs[i]] = json.RawMessage(pairs[i+1])
	}
	return domain.Update{Fields: f}
}

func instant(i domain.Instant) string {
	raw, err := json.Marshal(i)
	if err != nil {
		panic(err)
	}
	return string(raw)
}

// helper is the common part of *testing.T and *rapid.T.
type helper interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

func openViews(tb helper, path string) *Views {
	tb.Helper()
	v, err := Open(path, testOrigin, testSeals{}, zerolog.Nop())
	if err != nil {
		tb.Fatal(err)
	}
	return v
}

// emptyViews returns views without a file.
func emptyViews() *Views { return newViews(nil, loaded{indexes: newIndexes(0)}, zerolog.Nop()) }

func closeViews(tb helper, v *Views) {
	tb.Helper()
	if err := v.Close(); err != nil {
		tb.Fatal(err)
	}
}

// save writes all changed states to the file.
func save(tb helper, v *Views) {
	tb.Helper()
	if err := v.write(map[*streamSlot]*state{}); err != nil {
		tb.Fatal(err)
	}
}

// testViews opens views in a temporary directory and follows the log.
func testViews(t *testing.T, l *testLog) (v *Views, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "views.db")
	v = openViews(t, path)
	t.Cleanup(func() { closeViews(t, v) })
	follow(v, l)
	return v, path
}

// follow gives the views the events that they have not handled.
func follow(v *Views, l *testLog) {
	for _, e := range l.events {
		if v.Position().Before(e.Position) {
			v.Follow(e)
		}
	}
	if n := len(l.events); n > 0 {
		v.Passed(l.events[n-1].Position)
	}
}
