package projections

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"flag"
	"fmt"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/rs/zerolog"

	"github.com/lotline/lotline/domain"
)

var rows = flag.Int("rows", 100_000, "how many distributions the benchmarks of loading and reading have")

// benchSeals takes as long to seal and open as a keyring does.
type benchSeals struct{ aead cipher.AEAD }

func newBenchSeals(b *testing.B) benchSeals {
	b.Helper()
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		b.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		b.Fatal(err)
	}
	return benchSeals{aead}
}

func (s benchSeals) seal(stream, eventType, field, plain string) string {
	sealed := s.aead.Seal(nil, make([]byte, 12), []byte(plain), []byte(stream+eventType+field))
	return base64.RawURLEncoding.EncodeToString(sealed)
}

func (s benchSeals) Open(stream, eventType, field, sealed string) (string, error) {
	raw, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil {
		return "", err
	}
	plain, err := s.aead.Open(nil, make([]byte, 12), raw, []byte(stream+eventType+field))
	return string(plain), err
}

// many returns the states of n distributions of one organization.
func many(b *testing.B, seals benchSeals, n int) (domain.ID, map[*streamSlot]*state) {
	b.Helper()
	l := newLog()
	org := l.id("org")
	var patterns []*domain.History
	for _, k := range domain.Kinds() {
		id := l.create(b, org, k, map[string]string{"openAt": `"2100-01-01T00:00:00Z"`, "metadata": `{"shop":"north","tags":["a","b"]}`})
		patterns = append(patterns, l.state[id.Stream()])
	}
	changed := make(map[*streamSlot]*state, n)
	for i := range n {
		h := patterns[i%3].Fork()
		d := h.Aggregate.(domain.Distribution)
		s := d.Shared()
		s.ID = l.id(d.Kind().IDPrefix())
		s.SequenceID = fmt.Sprintf("sequence-%d", i)
		name := fmt.Sprintf("Drop %d of the season", i*7919%n)
		s.Name = &name
		s.CreatedAt += domain.Instant(i)
		s.OpenAt += domain.Instant(i * 104729 % n)
		h.Stream = s.ID.Stream()
		h.Head.Hash = fmt.Sprintf("%043d", i)
		for _, secret := range d.Secrets() {
			secret.Value.Sealed = seals.seal(h.Stream, string(d.Kind())+".created", secret.Name, secret.Value.Plain)
		}
		state := newState(h)
		changed[&streamSlot{id: s.ID, current: state}] = state
	}
	return org, changed
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func perSecond(b *testing.B, n int, what string) {
	b.Helper()
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), what+"/s")
}

func BenchmarkLoad(b *testing.B) {
	seals := newBenchSeals(b)
	path := filepath.Join(b.TempDir(), "views.db")
	func() {
		v, err := Open(path, testOrigin, seals, zerolog.Nop())
		if err != nil {
			b.Fatal(err)
		}
		_, changed := many(b, seals, *rows)
		if err := v.write(changed); err != nil {
			b.Fatal(err)
		}
		closeViews(b, v)
	}()
	before := heap()
	var last *Views
	b.ReportAllocs()
	for b.Loop() {
		v, err := Open(path, testOrigin, seals, zerolog.Nop())
		if err != nil {
			b.Fatal(err)
		}
		closeViews(b, v)
		last = v
	}
	perSecond(b, *rows, "rows")
	b.ReportMetric(float64(heap()-before)/float64(*rows), "heapB/row")
	runtime.KeepAlive(last)
}

func BenchmarkWrite(b *testing.B) {
	const n = 10_000
	seals := newBenchSeals(b)
	v, err := Open(filepath.Join(b.TempDir(), "views.db"), testOrigin, seals, zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer closeViews(b, v)
	_, changed := many(b, seals, n)
	for b.Loop() {
		if err := v.file.write(changed, domain.Position{}); err != nil {
			b.Fatal(err)
		}
	}
	perSecond(b, n, "rows")
}

func BenchmarkFollow(b *testing.B) {
	l := newLog()
	org := l.id("org")
	for i := range 10_000 {
		id := l.create(b, org, domain.Kinds()[i%3], map[string]string{"name": fmt.Sprintf(`"drop %d"`, i)})
		l.must(b, id, domain.Step{To: domain.StatusOpen})
		if i%4 == 0 {
			l.must(b, id, fields("name", fmt.Sprintf(`"drop %d of the season"`, i*7919%10_000)))
		}
		l.must(b, id, domain.Step{To: domain.StatusClosed})
		l.now++
	}
	kinds := map[string][]*domain.Recorded{"all": l.events}
	for _, e := range l.events {
		if e.Revision == 0 {
			kinds["created"] = append(kinds["created"], e)
		}
	}
	for name, events := range kinds {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				v := emptyViews()
				for _, e := range events {
					v.Follow(e)
				}
			}
			perSecond(b, len(events), "events")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	seals := newBenchSeals(b)
	org, changed := many(b, seals, *rows)
	var states []*state
	for _, s := range changed {
		states = append(states, s)
	}
	v := newViews(nil, loaded{indexes: build(states)}, zerolog.Nop())
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			row, err := v.Get(org, states[i%1000].id)
			if err != nil {
				b.Fatal(err)
			}
			row.JSON()
		}
	})
	for name, q := range map[string]ListQuery{
		"page":      {SortBy: SortCreatedAt, Descending: true},
		"page-kind": {SortBy: SortName, Kinds: []domain.Kind{domain.KindDraw}},
		"search-1%": {SortBy: SortCreatedAt, Search: "drop 77"},
		"search-0":  {SortBy: SortCreatedAt, Search: "nothing"},
	} {
		q.Organization, q.Limit = org, 20
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.List(q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
