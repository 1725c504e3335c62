package commands

import (
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// organization creates the organization org.
func (b *bench) organization(t *testing.T) {
	t.Helper()
	_, err := b.Handle(t.Context(), Request{
		Stream: org.Stream(), Command: domain.CreateOrganization{ID: org, Name: "Acme", TimeZone: "UTC", CurrencyCode: "USD"},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func keyCreation(k IdempotencyKey) KeyCreation {
	return KeyCreation{Organization: org, Fields: fields("level", `"secret"`), Caller: Caller{Actor: "key_1"}, IdempotencyKey: k}
}

// A repeated creation, on any node and at any time within a day, returns the API key that
// the first one made, as it was made, but not its text.
func TestHandler_aRepeatedCreationOfAnAPIKeyMakesOne(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.organization(t)
	c := keyCreation(idempotencyKey("k", "body"))
	c.Fields["expiresAt"] = []byte(`"` + domain.InstantOf(b.clock.time().Add(time.Hour)).String() + `"`)
	first, err := b.CreateKey(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if h := domain.KeyHash(first.Text); first.Replayed || h != first.Made.Hash || first.Made.Hint != domain.KeyHint(first.Text) {
		t.Fatalf("made %+v of %q", first.Made, first.Text)
	}
	other := NewHandler(b.log, nil, b.clock.time)
	for _, pass := range []time.Duration{0, time.Minute, 2 * time.Hour} {
		b.clock.add(pass)
		for _, h := range []*Handler{b.Handler, other} {
			again, err := h.CreateKey(t.Context(), c)
			if err != nil || !again.Replayed || again.Text != "" || again.Made != first.Made {
				t.Errorf("%s later: %+v of %q, %v; want %+v", pass, again.Made, again.Text, err, first.Made)
			}
		}
		if pass == time.Minute {
			revoke := Request{Stream: org.Stream(), Command: domain.RevokeKey{KeyID: first.Made.ID, EvenLast: true}}
			if _, err := b.Handle(t.Context(), revoke); err != nil {
				t.Fatal(err)
			}
		}
	}
	c.IdempotencyKey.BodyHash = "another"
	_, err = other.CreateKey(t.Context(), c)
	refusedWith(t, err, domain.IdempotencyReused)
	made := 0
	for _, r := range b.log.streams[org.Stream()] {
		if _, ok := r.Event.(domain.KeyCreated); ok {
			made++
		}
	}
	if made != 1 {
		t.Errorf("%d keys were made", made)
	}
}

// The ids of API keys are different and sort by creation, whether or not the creations have
// idempotency keys.
func TestHandler_idsOfAPIKeysSortByCreation(t *testing.T) {
	t.Parallel()
	last := domain.ID("")
	for i := range 20 {
		k := IdempotencyKey{}
		if i%2 == 0 {
			k = idempotencyKey(string(rune('a'+i)), "")
		}
		id, err := keyID(k)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := domain.ParseID("key", string(id)); !ok || id <= last {
			t.Errorf("%s follows %s", id, last)
		}
		last = id
		for begin := time.Now().UnixMilli(); time.Now().UnixMilli() == begin; {
			runtime.Gosched()
		}
	}
	first, err1 := keyID(idempotencyKey("k", ""))
	second, err2 := keyID(idempotencyKey("k", ""))
	if err := errors.Join(err1, err2); err != nil || first[timeOfID:] != second[timeOfID:] {
		t.Errorf("%s and %s follow from one command, %v", first, second, err)
	}
}

// Creating an API key that the organization already has makes no second one and returns no
// text.
func TestHandler_anAPIKeyThatExistsIsNotMadeAgain(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.organization(t)
	c := keyCreation(IdempotencyKey{})
	c.Random = "provisioned"
	first, err := b.CreateKey(t.Context(), c)
	if err != nil || first.Text != "sk_live_provisioned" {
		t.Fatalf("made %q, %v", first.Text, err)
	}
	again, err := b.CreateKey(t.Context(), c)
	if err != nil || again.Text != "" || again.Made != (domain.Key{}) || again.Position != first.Position {
		t.Errorf("made %+v, %v", again, err)
	}
}

func TestHandler_aPreconditionOnAnOrganization(t *testing.T) {
	t.Parallel()
	b := newBench()
	b.organization(t)
	if _, err := b.CreateKey(t.Context(), keyCreation(IdempotencyKey{})); err != nil {
		t.Fatal(err)
	}
	rename := func(at ...domain.Revision) error {
		_, err := b.Handle(t.Context(), Request{Stream: org.Stream(), Command: domain.Update{Fields: fields("name", `"B"`)}, IfMatch: at})
		return err
	}
	refusedWith(t, rename(1), domain.PreconditionFailed) // the revision of the API key's creation
	if err := rename(7, 0); err != nil {
		t.Errorf("at its own: %v", err)
	}
	refusedWith(t, rename(0), domain.PreconditionFailed) // the revision before the update
}
