package commands

import (
	"context"
	"crypto/rand"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// KeyCreation asks for a new API key of an organization. Random is the secret part of
// the key. When it is empty, CreateKey makes it.
type KeyCreation struct {
	Organization   domain.ID
	Fields         domain.Fields
	Random         string
	Caller         Caller
	IdempotencyKey IdempotencyKey
}

// IssuedKey is the result of creating an API key.
type IssuedKey struct {
	Result
	// Made is the new key. It is zero if the organization already has a key with the
	// same text.
	Made domain.Key
	// Text is the key that the client sends. Only its hash is stored, so Text is empty
	// when the command is a repeat.
	Text string
}

// CreateKey makes an API key. With an IdempotencyKey it makes only one, however often it
// is repeated.
func (h *Handler) CreateKey(ctx context.Context, c KeyCreation) (IssuedKey, error) {
	// The id contains the time, so the clock must be right.
	if _, err := h.Now(ctx); err != nil {
		return IssuedKey{}, err
	}
	id, err := keyID(c.IdempotencyKey)
	if err != nil {
		return IssuedKey{}, err
	}
	if c.Random == "" {
		c.Random = rand.Text()
	}
	result, err := h.Handle(ctx, Request{
		Stream: c.Organization.Stream(), Caller: c.Caller, Organization: c.Organization, IdempotencyKey: c.IdempotencyKey,
		Command: domain.CreateKey{KeyID: id, Fields: c.Fields, Random: c.Random},
	})
	issued := IssuedKey{Result: result}
	if err != nil {
		return issued, err
	}
	o := result.History.Aggregate.(*domain.Organization)
	if result.Replayed {
		issued.Made = madeBefore(o, id)
		return issued, nil
	}
	if made, ok := o.Keys[id]; ok {
		issued.Made, issued.Text = made, domain.KeyText(made.Level, made.Mode(), c.Random)
	}
	return issued, nil
}

// keyID makes the id of an API key, a UUIDv7 of the present time. With an idempotency key
// the rest of the UUID, which is random otherwise, comes from the command's id. So a
// repeat finds the API key that the first creation made.
func keyID(k IdempotencyKey) (domain.ID, error) {
	u, err := uuid.NewV7()
	if k.given() {
		copy(u[6:], k.CommandID[6:])
		u[6] = u[6]&0x0f | 0x70 // the version
	}
	return domain.NewID("key", u), err
}

// timeOfID is how many characters of an API key's id are its prefix and its time.
const timeOfID = len("key_") + 10

// madeBefore returns the API key that an earlier call of the creation made, given the id
// of this call. It returns the key as it was made, even if it has ended since.
func madeBefore(o *domain.Organization, id domain.ID) (made domain.Key) {
	for _, k := range o.SortedKeys() {
		if len(k.ID) == len(id) && k.ID[timeOfID:] == id[timeOfID:] {
			made = k
		}
	}
	made.RevokedAt, made.Expired = 0, false
	return made
}
