package eventstore

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/lotline/lotline/domain"
)

var update = flag.Bool("update", false, "make golden files that are missing; what is pinned is never overwritten")

// samples has an event for every stored name, with all fields set that the shape had when
// it was introduced.
func samples() map[schema]domain.Event {
	at := domain.Stamp{At: 1_795_000_000_123}
	id := func(k domain.Kind) domain.Identity {
		return domain.Identity{ID: domain.ID(k.IDPrefix() + "_01h455vb4pex5vsknk084sn02q"), OrganizationID: "org_01h455vb4pex5vsknk084sn02r"}
	}
	common := domain.Common{
		SequenceID: "spring-drop", Name: new("Tom & Jerry <b>\u2028ü\u0001f600"), TimeZone: "Europe/Berlin",
		OpenAt: 1_795_000_100_000, CloseAt: 1_795_000_200_000,
		EncryptionSeed: domain.Secret{Sealed: "v1.c2VhbGVk"},
		Metadata:       json.RawMessage(`{"campaign":"<spring> & co","n":1.50,"list":[1,null,{}]}`),
	}
	who := domain.Participant{ConsumerID: "customer-1", Entry: 42}
	out := map[schema]domain.Event{
		{"queue.consumer.entered", 1}:   domain.ConsumerEntered{Stamp: at, Participant: who},
		{"queue.consumer.admitted", 1}:  domain.ConsumerAdmitted{Stamp: at, Participant: who, ExpiresAt: 1_795_000_600_123, ByHand: true},
		{"queue.consumer.completed", 1}: domain.ConsumerCompleted{Stamp: at, Participant: who},
		{"queue.consumer.expired", 1}:   domain.ConsumerExpired{Stamp: at, Participant: who},
		{"queue.consumer.left", 1}:      domain.ConsumerLeft{Stamp: at, Participant: who, From: domain.StandingQueued},
		{"queue.consumer.denied", 1}:    domain.ConsumerDenied{Stamp: at, Participant: who, From: domain.StandingAdmitted, Reason: domain.DenyFraud},
		{"queue.created", 1}:            &domain.QueueCreated{Stamp: at, Identity: id(domain.KindQueue), Common: common, QueueSettings: domain.QueueSettings{MaxCapacity: 500, AdmissionRate: 100, SessionDurationSeconds: 600}},
		{"draw.created", 1}: &domain.DrawCreated{
			Stamp: at, Identity: id(domain.KindDraw), Common: common,
			DrawSettings:   domain.DrawSettings{DrawAt: 1_795_000_300_000, WinnerCount: 3, MaxEntries: 1000, ClaimWindowSeconds: 3600, Backfill: true, EntropySource: new("drand quicknet round 1000")},
			SeedCommitment: "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925", Secret: domain.Secret{Sealed: "v1.c2VjcmV0"},
		},
		{"auction.created", 1}: &domain.AuctionCreated{Stamp: at, Identity: id(domain.KindAuction), Common: common, AuctionSettings: domain.AuctionSettings{
			SettleAt: 1_795_000_300_000, StartingBid: 1_000_000, MinimumIncrement: 50_000, ReservePrice: 2_000_000, BuyNowPrice: 9_999_900,
			CurrencyCode: "EUR", WinnerCount: 1, AuctionType: domain.English, AutoExtendSeconds: 60, MaxExtensions: 5,
			StartPrice: 1, FloorPrice: 2, PriceDropAmount: 3, PriceDropIntervalSeconds: 4,
		}},
		{"draw.closed", 1}:           domain.DrawClosed{Stamp: at, EntriesRoot: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", EntryCount: 7},
		{"draw.entropy.supplied", 1}: domain.EntropySupplied{Stamp: at, Value: "b3c4d5"},
		{"draw.drawn", 1}:            domain.Drawn{Stamp: at, Secret: "00ff", Entropy: new("b3c4d5"), Seed: "11ee", OperatorTrusted: true, WinnerCount: 2, WinnersDigest: "22dd"},
		{"auction.settled", 1}:       domain.Settled{Stamp: at, WinnerCount: 1},
		{"organization.created", 1}:  domain.OrganizationCreated{Stamp: at, ID: "org_01h455vb4pex5vsknk084sn02r", Name: "default", TimeZone: "UTC", CurrencyCode: "USD"},
		{"organization.key.created", 1}: domain.KeyCreated{
			Stamp: at, KeyID: "key_01h455vb4pex5vsknk084sn02s", Level: domain.SecretKey, Name: "first start", Hint: "sk_live_ABCD",
			Hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
		},
		{"organization.key.revoked", 1}: domain.KeyRevoked{Stamp: at, KeyID: "key_01h455vb4pex5vsknk084sn02s"},
		{"organization.key.expired", 1}: domain.KeyExpired{Stamp: at, KeyID: "key_01h455vb4pex5vsknk084sn02s"},
		{"organization.updated", 1}: domain.Updated{Stamp: at, Changed: map[string]domain.Change{
			"name":         {Old: json.RawMessage(`"default"`), New: json.RawMessage(`"a <b>"`)},
			"timeZone":     {Old: json.RawMessage(`"UTC"`), New: json.RawMessage(`"Europe/Berlin"`)},
			"currencyCode": {Old: json.RawMessage(`"USD"`), New: json.RawMessage(`"EUR"`)},
		}, Cause: domain.CauseUpdate},
		{"signing.key.created", 1}: &domain.SigningKeyCreated{
			Stamp: at, KeyID: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", PublicKey: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
			Secret: domain.Secret{Sealed: "v1.c2VjcmV0"},
		},
		{"signing.key.revoked", 1}: domain.SigningKeyRevoked{Stamp: at, KeyID: "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"},
		{"claim.made", 1}:          domain.Claimed{Stamp: at, ID: "queue_01h455vb4pex5vsknk084sn02q"},
		{"seal.checked", 1}:        &domain.SealChecked{Stamp: at, Value: domain.Secret{Sealed: "v1.Y2hlY2s"}},
		{"clock.compared", 1}:      domain.ClockCompared{Stamp: at},
		{"sink.leased", 1}:         domain.Leased{Stamp: at, Holder: "0198c1f0-6f6e-7c55-9d0e-3a5d1c0b7f42", Position: domain.Position{Commit: 4711, Prepare: 4710}},
	}
	for _, kind := range domain.Kinds() {
		name := string(kind)
		out[schema{name + ".updated", 1}] = domain.Updated{Stamp: at, Changed: map[string]domain.Change{
			"name":   {Old: json.RawMessage(`null`), New: json.RawMessage(`"a <b>"`)},
			"openAt": {Old: json.RawMessage(`"2026-12-15T09:00:00.000Z"`), New: json.RawMessage(`null`)},
		}, Cause: domain.CauseUpdate}
		out[schema{name + ".scheduled", 1}] = domain.Scheduled{Stamp: at}
		out[schema{name + ".unscheduled", 1}] = domain.Unscheduled{Stamp: at}
		out[schema{name + ".opened", 1}] = domain.Opened{Stamp: at}
		out[schema{name + ".deleted", 1}] = domain.Deleted{Stamp: at}
		if kind != domain.KindDraw {
			out[schema{name + ".closed", 1}] = domain.Closed{Stamp: at}
		}
		if kind != domain.KindAuction {
			out[schema{name + ".completed", 1}] = domain.Completed{Stamp: at}
		}
	}
	return out
}

// additions has an event for every shape that got fields later, with those fields set.
// The fields are optional and are not written if unset, so events stored before keep
// their meaning.
func additions() map[schema]domain.Event {
	key := samples()[schema{"organization.key.created", 1}].(domain.KeyCreated)
	key.ExpiresAt = 1_795_000_100_000
	return map[schema]domain.Event{{"organization.key.created", 1}: key}
}

// golden is an event and the name of the file that pins its bytes.
type golden struct {
	schema
	event domain.Event
	file  string
}

// goldens returns all samples and additions by file name.
func goldens() []golden {
	var all []golden
	for suffix, events := range map[string]map[schema]domain.Event{"": samples(), ".added": additions()} {
		for s, e := range events {
			file := fmt.Sprintf("%s.v%d%s.json", s.name, s.version, suffix)
			all = append(all, golden{s, e, filepath.Join("testdata", "events", file)})
		}
	}
	slices.SortFunc(all, func(a, b golden) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version), -cmp.Compare(a.file, b.file))
	})
	return all
}

func TestCodec_goldenFilesPinEveryStoredEvent(t *testing.T) {
	t.Parallel()
	c, all := newCodec(), goldens()
	sampled := samples()
	for s := range c.decoders {
		if _, ok := sampled[s]; !ok {
			t.Errorf("%s version %d has no sample", s.name, s.version)
		}
	}
	for _, g := range all {
		t.Run(filepath.Base(g.file), func(t *testing.T) {
			t.Parallel()
			data, err := c.encode(g.event)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(g.file)
			if os.IsNotExist(err) && *update {
				if err := os.WriteFile(g.file, append(data, '\n'), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want = bytes.TrimSuffix(want, []byte("\n"))
			if !bytes.Equal(data, want) {
				t.Errorf("is stored as\n%s\nwant\n%s", data, want)
			}
			back, err := c.decode(g.schema, want)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(back, g.event) {
				t.Errorf("is read as\n%+v\nwant\n%+v", back, g.event)
			}
		})
	}
	files, err := filepath.Glob("testdata/events/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(all) {
		t.Errorf("%d golden files for %d stored events", len(files), len(all))
	}
}

func TestCodec_writesWhatEncodingJSONWrites(t *testing.T) {
	t.Parallel()
	c := newCodec()
	for _, g := range goldens() {
		var want bytes.Buffer
		enc := json.NewEncoder(&want)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(g.event); err != nil {
			t.Fatal(err)
		}
		got, err := c.encode(g.event)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, bytes.TrimSuffix(want.Bytes(), []byte("\n"))) {
			t.Errorf("%s:\n%s\nwant\n%s", g.file, got, want.Bytes())
		}
	}
}

func TestCodec_schemaOfIsTheNameItIsReadBy(t *testing.T) {
	t.Parallel()
	c := newCodec()
	for s, e := range samples() {
		kind := domain.StreamKind(string(mustKind(t, s.name)) + "-x")
		got, err := c.schemaOf(kind, e)
		if err != nil {
			t.Fatal(err)
		}
		if got != s {
			t.Errorf("%T of a %s is stored as %v, want %v", e, kind, got, s)
		}
	}
	if _, err := c.schemaOf(domain.KindQueue, domain.Drawn{}); err == nil {
		t.Error("a queue has no Drawn")
	}
}

func mustKind(t *testing.T, name string) domain.Kind {
	t.Helper()
	for _, k := range domain.StreamKinds() {
		if len(name) > len(k) && name[:len(k)+1] == string(k)+"." {
			return k
		}
	}
	t.Fatalf("%s begins with no kind", name)
	return ""
}

func TestCodec_unknownNamesAndVersionsAreErrors(t *testing.T) {
	t.Parallel()
	c := newCodec()
	for _, s := range []schema{{"queue.exploded", 1}, {"queue.opened", 2}, {"queue.opened", 0}, {"", 1}} {
		if e, err := c.decode(s, []byte(`{}`)); err == nil {
			t.Errorf("%v was read as %T", s, e)
		}
	}
	if _, err := c.decode(schema{"queue.opened", 1}, []byte(`{"at":5}`)); err == nil {
		t.Error("a number was read as a time")
	}
}

func TestCodec_upcastsChain(t *testing.T) {
	t.Parallel()
	c := &codec{
		decoders: map[schema]func([]byte) (domain.Event, error){},
		names:    map[typeOfKind]schema{},
		upcasts:  map[schema]func([]byte) ([]byte, error){},
	}
	register[domain.EntropySupplied](c, "entropy.supplied", 3, domain.KindDraw)
	rename := func(from, to string) func([]byte) ([]byte, error) {
		return func(raw []byte) ([]byte, error) {
			var m map[string]json.RawMessage
			if err := json.Unmarshal(raw, &m); err != nil {
				return nil, err
			}
			m[to] = m[from]
			delete(m, from)
			return json.Marshal(m)
		}
	}
	c.upcasts[schema{"draw.entropy.supplied", 1}] = rename("a", "b")
	c.upcasts[schema{"draw.entropy.supplied", 2}] = rename("b", "value")
	e, err := c.decode(schema{"draw.entropy.supplied", 1}, []byte(`{"at":"2026-12-15T09:00:00.000Z","a":"x"}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := e.(domain.EntropySupplied).Value; got != "x" {
		t.Errorf("value is %q", got)
	}
}

func TestCodec_aNameIsRegisteredOnce(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("the second registration was taken")
		}
	}()
	register[domain.Opened](newCodec(), "opened", 1, domain.KindQueue)
}

// FuzzCodec_readsAsEncodingJSONDoes compares the faster decoder with the standard one:
// both accept the same bytes and decode the same values.
func FuzzCodec_readsAsEncodingJSONDoes(f *testing.F) {
	c := newCodec()
	all := goldens()
	for i, g := range all {
		data, err := c.encode(g.event)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, data)
	}
	f.Fuzz(func(t *testing.T, i int, data []byte) {
		s := all[uint(i)%uint(len(all))]
		got, err := c.decode(s.schema, data)
		want := reflect.New(reflect.TypeOf(s.event))
		stdErr := json.Unmarshal(data, want.Interface())
		if err == nil && stdErr != nil {
			t.Fatalf("%s accepted %q, encoding/json says %v", s.name, data, stdErr)
		}
		if err != nil || stdErr != nil {
			return
		}
		again, err := c.encode(got)
		if err != nil {
			return // a secret in plain text, which is never stored
		}
		std, err := c.encode(want.Elem().Interface().(domain.Event))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again, std) {
			t.Fatalf("%s: %q read as\n%s\nencoding/json reads\n%s", s.name, data, again, std)
		}
	})
}

// A time that could not be read back is refused, wherever in an event it is.
func TestLog_encodesNoTimeThatCannotBeReadBack(t *testing.T) {
	t.Parallel()
	keys, err := NewKeyring(make([]byte, MasterKeySize))
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{codec: newCodec(), keys: keys}
	const good, bad = domain.Instant(1_795_000_000_123), domain.Instant(7_258_118_400_000)
	for _, e := range []domain.Event{
		domain.Opened{Stamp: domain.Stamp{At: 10_000}},
		domain.Opened{Stamp: domain.Stamp{At: bad}},
		domain.ConsumerAdmitted{Stamp: domain.Stamp{At: good}, ExpiresAt: bad},
		&domain.QueueCreated{Stamp: domain.Stamp{At: good}, Common: domain.Common{OpenAt: bad}},
	} {
		if p, err := l.Encode("queue-1", e, domain.Metadata{}); err == nil {
			t.Errorf("it is stored as %s", p.Data)
		}
	}
}
