package projections

import (
	"errors"
	"reflect"
	"testing"

	"github.com/lotline/lotline/domain"
)

// makeSigningKey creates a signing key and returns its secret.
func (l *testLog) makeSigningKey(tb testing.TB, n byte) (secret string) {
	tb.Helper()
	if err := l.send(domain.SigningStream, domain.MakeSigningKey{Secret: [32]byte{n}}); err != nil {
		tb.Fatal(err)
	}
	k, _ := l.history(domain.SigningStream).Aggregate.(*domain.SigningKeys).Current()
	return k.Secret.Plain
}

func TestSigningKeys_surviveARestart(t *testing.T) {
	t.Parallel()
	l := newLog()
	v, path := testViews(t, l)
	if _, err := v.SigningKeys(); !errors.Is(err, ErrBehind) {
		t.Errorf("before the first: %v", err)
	}
	secrets := []string{l.makeSigningKey(t, 1), l.makeSigningKey(t, 2)}
	follow(v, l)
	save(t, v)
	wantNoSecret(t, path, secrets...)
	restarted := openViews(t, path)
	defer closeViews(t, restarted)
	secrets = append(secrets, l.makeSigningKey(t, 3))
	for _, v := range []*Views{v, restarted} {
		follow(v, l)
		keys, err := v.SigningKeys()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range keys.Keys {
			got = append(got, k.Secret.Plain)
		}
		if !reflect.DeepEqual(got, secrets) {
			t.Errorf("keys from %q, want %q", got, secrets)
		}
		if at := keys.Wake(); v.wake(domain.SigningStream).At != at || at == 0 {
			t.Errorf("wakes at %s, want %s", v.wake(domain.SigningStream).At, at)
		}
	}
	if v.Digest() != restarted.Digest() {
		t.Error("the digests differ")
	}
	// Another stream of this kind is ignored.
	l.record("signing-x", &domain.SigningKeyCreated{})
	follow(v, l)
	if q := v.Quarantined(); len(q) > 0 {
		t.Errorf("in quarantine: %v", q)
	}
}

func TestSigningKeys_inQuarantineAreNotServed(t *testing.T) {
	t.Parallel()
	l := newLog()
	l.makeSigningKey(t, 1)
	l.record(domain.SigningStream, domain.SigningKeyRevoked{Stamp: domain.Stamp{At: l.now}, KeyID: "x"})
	v, path := testViews(t, l)
	save(t, v)
	restarted := openViews(t, path)
	defer closeViews(t, restarted)
	for _, v := range []*Views{v, restarted} {
		var broken *domain.HistoryError
		if _, err := v.SigningKeys(); !errors.As(err, &broken) || broken.Stream != domain.SigningStream {
			t.Errorf("got %v", err)
		}
		if v.wake(domain.SigningStream).At != 0 {
			t.Error("a stream in quarantine has a wake")
		}
	}
}
