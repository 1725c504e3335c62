package projections

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ncruces/go-sqlite3"
	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

// full returns a history of a kind in which every field has a value.
func full(tb testing.TB, k domain.Kind) *domain.History {
	tb.Helper()
	h := domain.NewHistory(string(k) + "-00000000000000000000000001")
	h.Head = domain.Head{Revision: 7, Hash: "hash"}
	h.Changed = 5
	fill(reflect.ValueOf(h.Aggregate).Elem())
	if d, ok := h.Aggregate.(domain.Distribution); ok {
		d.Shared().ID = domain.ID(k.IDPrefix() + "_00000000000000000000000001")
		d.Shared().Deleted = false
		for _, s := range d.Secrets() {
			s.Value.Plain = "plain & <simple>"
			s.Value.Sealed = testSeals{}.seal(h.Stream, string(k)+".created", s.Name, s.Value.Plain)
		}
	}
	return h
}

func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("a <b> & \u2028 \"ä\"")
	case reflect.Int64:
		v.SetInt(1_800_000_000_123)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		for _, f := range v.Fields() {
			if f.CanSet() {
				fill(f)
			}
		}
	case reflect.Slice:
		v.Set(reflect.ValueOf(json.RawMessage("{\"<a>\":[1.50,\"&\u2028\"]}")))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for _, key := range []string{"key_1", "key_2"} {
			value := reflect.New(v.Type().Elem()).Elem()
			fill(value)
			v.SetMapIndex(reflect.ValueOf(domain.ID(key)), value)
		}
	default:
		panic("a field of a kind that is not known here: " + v.Type().String())
	}
}

func TestStored_isExact(t *testing.T) {
	t.Parallel()
	for _, k := range append(domain.Kinds(), domain.KindOrganization) {
		bare := domain.NewHistory(string(k) + "-00000000000000000000000001")
		if o, ok := bare.Aggregate.(*domain.Organization); ok {
			o.Keys = map[domain.ID]domain.Key{}
		}
		for name, h := range map[string]*domain.History{"full": full(t, k), "empty": bare} {
			got, err := encode(h)
			if err != nil {
				t.Fatal(err)
			}
			var want bytes.Buffer
			plain := json.NewEncoder(&want)
			plain.SetEscapeHTML(false)
			if err := plain.Encode(h.Aggregate); err != nil {
				t.Fatal(err)
			}
			if strings.ReplaceAll(string(got), "\u2028", `\u2028`) != strings.ReplaceAll(strings.TrimSpace(want.String()), "\u2028", `\u2028`) {
				t.Errorf("%s %s:\n got %s\nwant %s", name, k, got, want.String())
			}
			if name == "empty" && k != domain.KindOrganization {
				h.Aggregate.(domain.Distribution).Shared().Deleted = true // it has no secrets
				if got, err = encode(h); err != nil {
					t.Fatal(err)
				}
			}
			s, err := stored{h.Stream, h.Head.Revision, h.Changed, h.Head.Hash, got}.decode(testSeals{})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(s.history, h) {
				t.Errorf("%s %s:\n got %+v\nwant %+v", name, k, s.history.Aggregate, h.Aggregate)
			}
		}
	}
}

// shape returns the JSON names and the types of a type's fields.
func shape(t reflect.Type) string {
	var b strings.Builder
	for _, f := range reflect.VisibleFields(t) {
		if !f.Anonymous && f.IsExported() {
			fmt.Fprintf(&b, "%s %s;", f.Tag.Get("json"), f.Type)
		}
	}
	return b.String()
}

// A file that an older program wrote lacks the new fields of the aggregates. When this
// fails, raise format and run the test again: it writes the new shape into testdata.
func TestFormat_isRaisedWithTheAggregates(t *testing.T) {
	t.Parallel()
	const written = 4
	got := map[string]string{}
	for name, v := range map[string]any{
		"queue": domain.Queue{}, "draw": domain.Draw{}, "auction": domain.Auction{},
		"organization": domain.Organization{}, "key": domain.Key{}, "signing keys": domain.SigningKeys{}, "signing key": domain.SigningKey{},
	} {
		got[name] = shape(reflect.TypeOf(v))
	}
	out, err := json.MarshalIndent(got, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, '\n')
	path := filepath.Join("testdata", fmt.Sprintf("format%d.json", format))
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		err = os.WriteFile(path, out, 0o600)
		t.Logf("%s is new", path)
		want = out
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, out) || format != written {
		t.Errorf("format %d had another shape; now it is\n%s", format, out)
	}
}

func TestStored_neverUnsealed(t *testing.T) {
	t.Parallel()
	l := newLog()
	id := l.create(t, l.id("org"), domain.KindDraw, nil)
	made := l.events[0].Event.(*domain.DrawCreated)
	made.EncryptionSeed.Sealed = ""
	v, path := testViews(t, l)
	if err := v.write(map[*streamSlot]*state{}); err == nil || !strings.Contains(err.Error(), "unsealed") || !strings.Contains(err.Error(), id.Stream()) {
		t.Fatalf("got %v", err)
	}
	wantNoSecret(t, path, made.EncryptionSeed.Plain)
}

// The file and the files beside it contain secrets only in sealed form.
func TestFile_secrets(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	var secrets []string
	for _, k := range domain.Kinds() {
		id := l.create(t, org, k, nil)
		l.must(t, id, fields("name", `"in the clear"`))
	}
	for _, e := range l.events {
		if h, ok := e.Event.(domain.SecretHolder); ok {
			for _, s := range h.Secrets() {
				secrets = append(secrets, s.Value.Plain)
			}
		}
	}
	v, path := testViews(t, l)
	save(t, v)
	if len(secrets) != 4 {
		t.Fatalf("%d secrets", len(secrets))
	}
	wantNoSecret(t, path, secrets...)
	if !strings.Contains(wholeFile(t, path), "in the clear") {
		t.Fatal("the test does not read the rows")
	}
	restarted := openViews(t, path)
	defer restarted.Close()
	if restarted.Digest() != v.Digest() {
		t.Fatal("the secrets were not opened")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("other users may read it: %v %v", info.Mode(), err)
	}
}

func wholeFile(tb testing.TB, path string) string {
	tb.Helper()
	names, err := filepath.Glob(path + "*")
	if err != nil {
		tb.Fatal(err)
	}
	var all strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		all.Write(content)
	}
	return all.String()
}

func wantNoSecret(tb testing.TB, path string, secrets ...string) {
	tb.Helper()
	content := wholeFile(tb, path)
	for _, s := range secrets {
		if s == "" || strings.Contains(content, s) {
			tb.Errorf("%q is in the file", s)
		}
	}
}

type noKey struct{}

func (noKey) Open(string, string, string, string) (string, error) {
	return "", errors.New("another master key")
}

// Open puts an unusable file aside, and the views are built from the log.
func TestOpen_unusable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		spoil func(t *testing.T, path string)
		seals Opener
	}{
		"no database": {spoil: func(t *testing.T, path string) {
			t.Helper()
			if err := os.WriteFile(path, bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"damaged pages": {spoil: func(t *testing.T, path string) {
			t.Helper()
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			copy(content[4096:], bytes.Repeat([]byte{0x5a}, len(content)))
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		"no format":          {spoil: run("PRAGMA user_version = 0")},
		"an older format":    {spoil: run("PRAGMA user_version = 1; UPDATE organizations SET state = json_remove(state, '$.updatedAt')")},
		"a newer format":     {spoil: run(fmt.Sprintf("PRAGMA user_version = %d", format+1))},
		"a table is missing": {spoil: run("DROP TABLE quarantine")},
		"a state is cut":     {spoil: run("UPDATE distributions SET state = substr(state, 1, 100)")},
		"the position is no number": {spoil: run(
			"DROP TABLE position; CREATE TABLE position (id, committed, prepared); INSERT INTO position VALUES (1, 2, 3)")},
		"another master key": {spoil: run(""), seals: noKey{}},
		"another log":        {spoil: run("UPDATE position SET log = 'log-2'")},
		"more than the log":  {spoil: run("UPDATE position SET committed = 1 << 61")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLog()
			org := l.organization(t)
			l.create(t, org, domain.KindDraw, nil)
			path := filepath.Join(t.TempDir(), "views.db")
			first := openViews(t, path)
			follow(first, l)
			save(t, first)
			closeViews(t, first)
			c.spoil(t, path)

			if c.seals == nil {
				c.seals = testSeals{}
			}
			var out bytes.Buffer
			v, err := Open(path, testOrigin, c.seals, zerolog.New(&out))
			if err != nil {
				t.Fatal(err)
			}
			defer v.Close()
			if v.Position() != (domain.Position{}) || !strings.Contains(out.String(), "rebuilt") {
				t.Fatalf("at %v; logged %s", v.Position(), out.String())
			}
			follow(v, l)
			if v.Digest() != first.Digest() {
				t.Fatal("the rebuild differs")
			}
			save(t, v)
			if _, err := os.Stat(path + ".unusable"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// run returns a function that runs an SQL script on the file.
func run(script string) func(*testing.T, string) {
	return func(t *testing.T, path string) {
		t.Helper()
		conn, err := sqlite3.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if err := conn.Exec(script); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that cannot be opened now is not put aside.
func TestOpen_unreachable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing", "views.db")
	if v, err := Open(path, testOrigin, testSeals{}, zerolog.Nop()); err == nil {
		closeViews(t, v)
		t.Fatal("opened in a directory that does not exist")
	}
	path = filepath.Join(t.TempDir(), "views.db")
	closeViews(t, openViews(t, path))
	conn, err := sqlite3.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE"); err != nil {
		t.Fatal(err)
	}
	if v, err := Open(path, testOrigin, testSeals{}, zerolog.Nop()); err == nil {
		closeViews(t, v)
		t.Fatal("opened a file that another process has locked")
	}
	if _, err := os.Stat(path + ".unusable"); err == nil {
		t.Fatal("put aside a file that another process has locked")
	}
}

// A stream that one version of the program could not read is read again by the next version.
func TestOpen_quarantineOfAnotherProgram(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.id("org")
	id := l.create(t, org, domain.KindQueue, nil)
	unknown := l.record(id.Stream(), domain.Scheduled{Stamp: domain.Stamp{At: l.now}})
	unknown.Event, unknown.Undecoded = nil, errors.New("unknown type")
	path := filepath.Join(t.TempDir(), "views.db")
	for i, c := range []struct {
		program string
		at      domain.Position
	}{{"one", domain.Position{}}, {"one", unknown.Position}, {"two", domain.Position{}}} {
		f, loaded, err := openFile(path, testOrigin, testSeals{}, c.program, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		v := newViews(f, loaded, zerolog.Nop())
		if v.Position() != c.at {
			t.Errorf("%d: resumes at %v", i, v.Position())
		}
		follow(v, l)
		save(t, v)
		closeViews(t, v)
	}
}

// reload returns the digest of the file's present content.
func reload(tb helper, path string) string {
	tb.Helper()
	v := openViews(tb, path)
	defer closeViews(tb, v)
	return v.Digest()
}

// A full disk fails the transaction. Later the same states can be written.
func TestFile_full(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	for range 50 {
		l.create(t, org, domain.KindQueue, nil)
	}
	v, path := testViews(t, l)
	if err := v.file.conn.Exec("PRAGMA max_page_count = 1"); err != nil {
		t.Fatal(err)
	}
	changed := map[*streamSlot]*state{}
	for range 2 {
		if err := v.write(changed); !errors.Is(err, sqlite3.FULL) {
			t.Fatalf("got %v", err)
		}
	}
	if err := v.file.conn.Exec("PRAGMA max_page_count = 1000000"); err != nil {
		t.Fatal(err)
	}
	if err := v.write(changed); err != nil {
		t.Fatal(err)
	}
	if reload(t, path) != v.Digest() {
		t.Fatal("what failed was not written later")
	}
}

// The rows can be read with the sqlite3 tool.
func TestFile_readable(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	l.create(t, org, domain.KindQueue, map[string]string{"name": `"autumn"`})
	v, path := testViews(t, l)
	save(t, v)
	conn, err := sqlite3.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, _, err := conn.Prepare(`SELECT json_extract(d.state, '$.name'), json_extract(o.state, '$.name')
		FROM distributions d JOIN organizations o ON json_extract(o.state, '$.id') = json_extract(d.state, '$.organizationId')`)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var got []string
	for s.Step() {
		got = append(got, s.ColumnText(0), s.ColumnText(1))
	}
	if !slices.Equal(got, []string{"autumn", "Org"}) {
		t.Fatalf("got %v, %v", got, s.Err())
	}
}
