package tokens

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unique"

	"github.com/lotline/lotline/domain"
)

// held is a source of signing keys in memory, or of an error.
type held struct {
	mu   sync.Mutex
	keys *domain.SigningKeys
	err  error
}

func (h *held) SigningKeys() (*domain.SigningKeys, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keys, h.err
}

// must carries out a command on the signing keys.
func (h *held) must(tb testing.TB, now domain.Instant, c domain.Command) {
	tb.Helper()
	next := h.keys.Fork().(*domain.SigningKeys)
	events, err := next.Decide(now, c)
	if err != nil {
		tb.Fatal(err)
	}
	for _, e := range events {
		if err := next.Evolve(e); err != nil {
			tb.Fatal(err)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.keys = next
}

const start domain.Instant = 1_800_000_000_000

func newHeld(tb testing.TB) *held {
	h := &held{keys: &domain.SigningKeys{}}
	h.must(tb, start, domain.MakeSigningKey{Secret: [32]byte{1}})
	return h
}

// sign makes a token of the claims c.
func sign(tb testing.TB, t *Tokens, c Claims) string {
	tb.Helper()
	token, err := t.Sign(c)
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

// event is the id of the event that gives the grants in these tests.
const event = "evt_0000000000000000000000000z"

func admission(at, ends domain.Instant) Claims { return grant(Admission, "queue_1", at, ends) }

func grant(use Use, distribution domain.ID, at, ends domain.Instant) Claims {
	return NewGrant("org_1", domain.Grant{
		Use: domain.GrantUse(use), Consumer: "consumer-1", Event: [16]byte{15: 31}, Distribution: distribution, From: at, Until: ends,
	})
}

func TestSign_theSameEventMakesTheSameToken(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	tokens, elsewhere := New(h), New(h)
	c := admission(start.Add(time.Hour), start.Add(2*time.Hour))
	first := sign(t, tokens, c)
	if again := sign(t, elsewhere, c); again != first {
		t.Errorf("elsewhere it is\n%s, here\n%s", again, first)
	}
	for range 3 {
		h.must(t, start.Add(90*time.Minute), domain.MakeSigningKey{Secret: [32]byte{byte(len(h.keys.Keys) + 1)}})
	}
	if again := sign(t, tokens, c); again != first {
		t.Errorf("after a rotation it is\n%s, before\n%s", again, first)
	}
	if got, err := elsewhere.Verify(first, Admission, start.Add(100*time.Minute)); err != nil || got != c {
		t.Errorf("says %+v, %v", got, err)
	}
	h.must(t, start.Add(91*time.Minute), domain.RevokeSigningKey{KeyID: h.keys.Keys[0].ID})
	if _, err := tokens.Verify(first, Admission, start.Add(100*time.Minute)); !errors.Is(err, ErrInvalid) {
		t.Errorf("signed by a revoked key: %v", err)
	}
	again := sign(t, tokens, c)
	if got, err := tokens.Verify(again, Admission, start.Add(100*time.Minute)); err != nil || got != c || again == first {
		t.Errorf("made again it says %+v, %v", got, err)
	}
}

// Verifiers store the key set for a while. So the key that signs after a planned rotation is
// already in the set before, for every rotation.
func TestKeySet_aPlannedRotationSignsWithAKeyThatIsInTheSet(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	tokens := New(h)
	kids := func() (all []string) {
		text, err := tokens.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		var set struct{ Keys []jwk }
		if err := json.Unmarshal(text, &set); err != nil {
			t.Fatal(err)
		}
		for _, k := range set.Keys {
			all = append(all, k.ID)
		}
		return all
	}
	signer := func(now domain.Instant) string {
		header, err := base64.RawURLEncoding.DecodeString(strings.Split(sign(t, tokens, NewAccess("org_1", "c", now)), ".")[0])
		if err != nil {
			t.Fatal(err)
		}
		var named struct{ Kid string }
		if err := json.Unmarshal(header, &named); err != nil {
			t.Fatal(err)
		}
		return named.Kid
	}
	now := start
	for i := range 3 {
		kept, old := kids(), signer(now)
		now = now.Add(time.Hour)
		h.must(t, now, domain.MakeSigningKey{Secret: [32]byte{byte(i + 2)}})
		if id := signer(now); id == old || !slices.Contains(kept, id) {
			t.Errorf("after %s signs %s, which is not in the set %q", old, id, kept)
		}
		if next := kids(); len(next) != len(kept)+1 || slices.Contains(kept, next[len(next)-1]) {
			t.Errorf("no new next key is in %q, which was %q", next, kept)
		}
	}
	// The next key is derived from the secret of the current one. After a revocation it is not,
	// because the secret may be known to others.
	kept, old := kids(), signer(now)
	h.must(t, now, domain.RevokeSigningKey{KeyID: old, Secret: [32]byte{9}})
	if id := signer(now); slices.Contains(kept, id) {
		t.Errorf("after the revocation signs %s, which follows from the revoked key", id)
	}
	if next := kids(); slices.Contains(next, old) || slices.Contains(next, kept[len(kept)-1]) {
		t.Errorf("the set still has the revoked key, or its next: %q, which was %q", next, kept)
	}
}

// The time of issue decides to the millisecond which key signs, although a token has whole
// seconds only. A token from before the rotation, in the same second, is always signed by the
// old key. A token from right after the rotation is not.
func TestSign_inTheSecondOfARotation(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	tokens := New(h)
	before := admission(start+5_300, 0)
	token := sign(t, tokens, before)
	h.must(t, start+5_700, domain.MakeSigningKey{Secret: [32]byte{2}})
	if again := sign(t, tokens, before); again != token {
		t.Error("the same event made another token")
	}
	behind := sign(t, tokens, NewAccess("org_1", "c", start+5_800))
	h.must(t, start+5_900, domain.RevokeSigningKey{KeyID: h.keys.Keys[0].ID})
	if _, err := tokens.Verify(behind, Access, start+6_000); err != nil {
		t.Errorf("signed by the old key: %v", err)
	}
}

// The content of a token is fixed, byte for byte, because other programs read it.
func TestSign_whatATokenSays(t *testing.T) {
	t.Parallel()
	tokens := New(newHeld(t))
	for want, c := range map[string]Claims{
		`{"iss":"lotline","sub":"consumer-1","exp":1800003600,"iat":1800000000,"aud":"lotline:access","org":"org_1"}`:                                                   NewAccess("org_1", "consumer-1", start+999),
		`{"iss":"lotline","sub":"consumer-1","exp":1800000060,"iat":1800000000,"jti":"` + event + `","aud":"lotline:admission","org":"org_1","distribution":"queue_1"}`: admission(start+999, start+60_999),
		`{"iss":"lotline","sub":"consumer-1","exp":1800086400,"iat":1800000000,"jti":"` + event + `","aud":"lotline:admission","org":"org_1","distribution":"queue_1"}`: admission(start, 0),
		`{"iss":"lotline","sub":"consumer-1","exp":1800086400,"iat":1800000000,"jti":"` + event + `","aud":"lotline:payment","org":"org_1","distribution":"auction_1"}`: grant(Payment, "auction_1", start, 0),
	} {
		parts := strings.Split(sign(t, tokens, c), ".")
		for i, want := range []string{`{"alg":"EdDSA","kid":"` + tokens.ring.Load().of.Keys[0].ID + `","typ":"JWT"}`, want} {
			if got, err := base64.RawURLEncoding.DecodeString(parts[i]); err != nil || string(got) != want {
				t.Errorf("part %d is %s, %v, want %s", i, got, err, want)
			}
		}
	}
}

// A token has whole seconds only, so it expires at the last whole second before its grant
// ends, and not a millisecond later.
func TestVerify_refusesATokenFromItsLastSecondOn(t *testing.T) {
	t.Parallel()
	tokens := New(newHeld(t))
	token := sign(t, tokens, admission(start+500, start+60_500))
	for now, want := range map[domain.Instant]error{start: nil, start + 59_999: nil, start + 60_000: ErrExpired, start + 60_500: ErrExpired} {
		for range 2 { // first without and then with the remembered token
			if _, err := tokens.Verify(token, Admission, now); !errors.Is(err, want) {
				t.Errorf("at %d: %v, want %v", now-start, err, want)
			}
		}
	}
	if _, err := tokens.Verify(token, Access, start); !errors.Is(err, ErrUse) {
		t.Errorf("as another: %v", err)
	}
}

// With a stolen key that is retired, nobody can make tokens issued now. Tokens with an older
// time of issue expire soon.
func TestVerify_aRetiredKeySignsNothingNew(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	stale := &held{keys: h.keys} // does not know of the rotation
	retired := start.Add(domain.SigningPeriod)
	h.must(t, retired, domain.Advance{})
	tokens, left := New(h), New(stale)
	if len(h.keys.Keys) != 2 {
		t.Fatalf("%d keys", len(h.keys.Keys))
	}
	for issued, want := range map[domain.Instant]error{
		retired.Add(-time.Minute):                      nil,
		retired.Add(domain.SigningGrace - time.Second): nil,
		retired.Add(domain.SigningGrace):               ErrInvalid,
	} {
		if _, err := tokens.Verify(sign(t, left, NewAccess("org_1", "c", issued)), Access, issued); !errors.Is(err, want) {
			t.Errorf("issued at %s: %v, want %v", issued, err, want)
		}
	}
}

// The token of the longest session is valid until its end, however often keys are rotated.
func TestVerify_theLongestTokenOutlivesTheRotations(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	tokens := New(h)
	at := start.Add(domain.SigningPeriod) - 1000 // one second before the key is rotated
	token := sign(t, tokens, admission(at, at.Add(domain.LongestToken)))
	var now domain.Instant
	for now = at; now < at.Add(domain.LongestToken); now = now.Add(24 * time.Hour) {
		h.must(t, now, domain.Advance{})
		if _, err := tokens.Verify(token, Admission, now); err != nil {
			t.Fatalf("after %s: %v", now.Time().Sub(at.Time()), err)
		}
	}
	for range 400 {
		now = now.Add(24 * time.Hour)
		h.must(t, now, domain.Advance{})
	}
	if n := len(h.keys.Keys); n != 14 {
		t.Errorf("%d keys", n)
	}
}

// Verify accepts the longest token that Sign can make: one for the longest consumer id, in
// the characters that take the most space.
func TestVerify_acceptsTheLongestTokenOfSign(t *testing.T) {
	t.Parallel()
	tokens := New(newHeld(t))
	for _, r := range []string{"<", `"`, `\`, "x", "~"} {
		id := "_" + strings.Repeat("z", 26)
		c := NewGrant(domain.ID("org"+id), domain.Grant{
			Use: domain.GrantAdmission, Consumer: strings.Repeat(r, 128), Event: [16]byte(bytes.Repeat([]byte{255}, 16)),
			Distribution: domain.ID("auction" + id), From: start,
		})
		token := sign(t, tokens, c)
		if got, err := tokens.Verify(token, Admission, start); err != nil || got != c {
			t.Errorf("%d bytes: %+v, %v", len(token), got, err)
		}
	}
}

func TestTokens_withoutSigningKeysReturnTheError(t *testing.T) {
	t.Parallel()
	reason := errors.New("the keys cannot be read")
	h := newHeld(t)
	token := sign(t, New(h), NewAccess("org_1", "c", start))
	h.err = reason
	tokens := New(h)
	_, signed := tokens.Sign(NewAccess("org_1", "c", start))
	_, verified := tokens.Verify(token, Access, start)
	_, shown := tokens.JWKS()
	for _, err := range []error{signed, verified, shown} {
		if !errors.Is(err, reason) {
			t.Errorf("got %v", err)
		}
	}
	empty := New(&held{keys: &domain.SigningKeys{}})
	if _, err := empty.Sign(NewAccess("org_1", "c", start)); err == nil {
		t.Error("signed with nothing")
	}
	if set, err := empty.JWKS(); err != nil || string(set) != `{"keys":[]}` {
		t.Errorf("%s, %v", set, err)
	}
}

// The number of remembered tokens is bounded, and tokens that are used often stay.
func TestMemory_isBounded(t *testing.T) {
	t.Parallel()
	m := &memory{room: 100}
	id := func(i int) [16]byte { return [16]byte{byte(i), byte(i >> 8)} }
	m.add(id(1), verified{consumer: "often"})
	for i := 2; i < 10_000; i++ {
		m.add(id(i), verified{})
		if n := len(m.young) + len(m.old); n > m.room {
			t.Fatalf("%d are remembered", n)
		}
		if v, ok := m.find(id(1)); i%10 == 0 && (!ok || v.consumer != "often") {
			t.Fatalf("forgotten after %d others", i)
		}
	}
	if _, ok := m.find(id(2)); ok {
		t.Error("nothing is forgotten")
	}
}

// The memory that the documentation states.
func TestMemory_takesNoMoreThanDocumented(t *testing.T) {
	const part = 8
	m := &memory{room: remembered / part}
	before := heap()
	for i := range m.room - 1 {
		v := verified{consumer: strconv.Itoa(1_000_000_000+i) + strings.Repeat("0", 20), common: unique.Make(common{key: "key"})}
		m.add([16]byte{byte(i), byte(i >> 8), byte(i >> 16)}, v)
	}
	if got := (heap() - before) * part >> 20; got > 100 {
		t.Errorf("%d MB", got)
	}
	runtime.KeepAlive(m)
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// Several goroutines verify tokens while the signing keys change.
func TestVerify_whileKeysChange(t *testing.T) {
	t.Parallel()
	h := newHeld(t)
	tokens := New(h)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for i := range 50 {
				token, err := tokens.Sign(NewAccess("org_1", strconv.Itoa(i), start))
				if err != nil {
					t.Error(err)
					return
				}
				if c, err := tokens.Verify(token, Access, start); err != nil || c.Consumer != strconv.Itoa(i) {
					t.Errorf("%+v, %v", c, err)
				}
			}
		})
	}
	for i := range 20 {
		h.must(t, start.Add(time.Hour), domain.MakeSigningKey{Secret: [32]byte{byte(i + 2)}})
	}
	all.Wait()
}

// FuzzVerify checks that only tokens of Sign are accepted: for each accepted token, Sign
// makes the same token from its claims.
func FuzzVerify(f *testing.F) {
	h := newHeld(f)
	tokens := New(h)
	token := sign(f, tokens, NewAccess("org_1", "c", start))
	parts := strings.Split(token, ".")
	private := h.keys.Keys[0].Private()
	signed := func(header, payload string) string {
		text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
		return text + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(private, []byte(text)))
	}
	decoded := func(part string) string {
		raw, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			f.Fatal(err)
		}
		return string(raw)
	}
	f.Add(token, decoded(parts[0]), decoded(parts[1]))
	f.Add(token, decoded(parts[0]), strings.Replace(decoded(parts[1]), `"sub":"c"`, `"sub":""`, 1))
	f.Add(strings.Replace(token, ".", "\n.", 1), `{"alg":"none"}`, `{}`)
	f.Add("eyJ.eyJ.", `{"alg":"HS256","kid":"x"}`, `{"exp":1e400,"iat":-1e308}`)
	f.Add("..", `{"alg":"EdDSA","kid":["x"]}`, `{"aud":["lotline:access"],"exp":"1"}`)
	f.Fuzz(func(t *testing.T, foreign, header, payload string) {
		uses := []Use{Access, Admission, Payment}
		for _, use := range uses {
			c, err := tokens.Verify(foreign, use, start)
			if err != nil {
				continue
			}
			if again := sign(t, tokens, c); again != foreign {
				t.Fatalf("%q is accepted as %+v, which is %q", foreign, c, again)
			}
		}
		// Even with a valid signature, an accepted token must have the required claims.
		var holds []Use
		for _, use := range uses {
			c, err := tokens.Verify(signed(header, payload), use, start)
			if err == nil {
				holds = append(holds, c.Use)
				if c.Use != use || c.Consumer == "" || c.ExpiresAt <= start {
					t.Fatalf("%s %s: %+v for %s", header, payload, c, use)
				}
			}
		}
		var h struct{ Alg, Kid any }
		if len(holds) > 1 || len(holds) == 1 && (json.Unmarshal([]byte(header), &h) != nil || !slices.Contains([]any{"EdDSA"}, h.Alg)) {
			t.Fatalf("%s %s: accepted for %q", header, payload, holds)
		}
	})
}

// BenchmarkVerify compares a remembered token with a new one. The checks that are not
// remembered are part of both.
func BenchmarkVerify(b *testing.B) {
	h := newHeld(b)
	token := sign(b, New(h), NewAccess("org_1", "guest_5c2k7m8j5rfx8b4q0vhw3c6dtz", start))
	verify := func(b *testing.B, t *Tokens) {
		if _, err := t.Verify(token, Access, start); err != nil {
			b.Fatal(err)
		}
	}
	b.Run("remembered", func(b *testing.B) {
		tokens := New(h)
		b.ReportAllocs()
		for b.Loop() {
			verify(b, tokens)
		}
	})
	b.Run("new", func(b *testing.B) {
		tokens := New(h)
		b.ReportAllocs()
		for b.Loop() {
			tokens.seen = memory{room: remembered}
			verify(b, tokens)
		}
	})
}

// BenchmarkSign measures the time to make a token on demand.
func BenchmarkSign(b *testing.B) {
	tokens := New(newHeld(b))
	c := admission(start, 0)
	b.ReportAllocs()
	for b.Loop() {
		sign(b, tokens, c)
	}
}
