package projections

import (
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestCredential(t *testing.T) {
	t.Parallel()
	l := newLog()
	a, b := l.organization(t), l.organization(t)
	shared := l.apiKey(t, a, "key_2", "shared", 0)
	l.apiKey(t, b, "key_1", "shared", 0)
	own := l.apiKey(t, b, "key_3", "own", 0)
	ending := l.apiKey(t, b, "key_4", "ending", l.now.Add(time.Minute))
	v, path := testViews(t, l)
	want := func(hash string, c Credential, known bool) {
		t.Helper()
		save(t, v)
		restarted := openViews(t, path)
		defer restarted.Close()
		for _, v := range []*Views{v, restarted} {
			if got, ok := v.Credential(hash); got != c || ok != known {
				t.Errorf("%s: got %v, %t", hash, got, ok)
			}
		}
	}
	want(own, Credential{b, "key_3", domain.SecretKey}, true)
	want(shared, Credential{b, "key_1", domain.SecretKey}, true)
	want(ending, Credential{b, "key_4", domain.SecretKey}, true)
	want("unknown", Credential{}, false)
	l.must(t, b, domain.RevokeKey{KeyID: "key_1"})
	l.must(t, b, domain.RevokeKey{KeyID: "key_3"})
	l.now = l.now.Add(time.Minute)
	l.must(t, b, domain.Advance{})
	follow(v, l)
	want(own, Credential{}, false)
	want(ending, Credential{}, false)
	want(shared, Credential{a, "key_2", domain.SecretKey}, true)

	o, ok := v.Organization(b)
	if !ok || o.ID != b || len(o.Keys) != 3 {
		t.Errorf("got %v", o)
	}
	if all := v.Organizations(); len(all) != 2 || all[0].ID != a || all[1].ID != b {
		t.Errorf("got %v", all)
	}
}

// The object is changed by its own updates, not by what happens to its keys.
func TestAccount(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	v, path := testViews(t, l)
	for i, do := range []func(){
		func() {},
		func() { l.apiKey(t, org, "key_1", "first", l.now.Add(time.Minute)) },
		func() { l.now = l.now.Add(time.Minute); l.must(t, org, domain.Advance{}) },
		func() { l.must(t, org, fields("name", `"Other"`)) },
	} {
		do()
		follow(v, l)
		save(t, v)
		restarted := openViews(t, path)
		for _, v := range []*Views{v, restarted} {
			a, ok := v.Account(org)
			if want := domain.Revision(i / 3 * 3); !ok || a.Changed != want || (a.Organization.Name == "Other") != (want > 0) {
				t.Errorf("%d: %+v at %d", i, a.Organization, a.Changed)
			}
		}
		closeViews(t, restarted)
	}
	for _, id := range []domain.ID{l.id("org"), l.create(t, org, domain.KindQueue, nil)} {
		if a, ok := v.Account(id); ok {
			t.Errorf("%s is %+v", id, a)
		}
	}
}
