package commands

import (
	"context"
	"crypto/rand"

	"github.com/google/uuid"

	"github.com/lotline/lotline/domain"
)

// KeyCreation asks for a new key of an organization. Random is the part of it that
// nobody can guess, and is made when it is empty.
type KeyCreation struct {
	Organization   domain.ID
	Fields         domain.Fields
	Random         string
	Caller         Caller
	IdempotencyKey IdempotencyKey
}

// IssuedKey is a key that was made. It is the zero key when the organization had
// one that is the same.
type IssuedKey struct {
	Result
	Made domain.Key
	// Text is the key itself. Nobody can tell it from what is stored, so for a
	// repeated command it is empty.
	Text string
}

// CreateKey makes a key. With a Key it makes one only, as Handle does.
func (h *Handler) CreateKey(ctx context.Context, c KeyCreation) (IssuedKey, error) {
	// An id holds the time as well.
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

// keyID makes the id of a key, a UUIDv7 of now. What is random in it elsewhere
// follows from the command of a repeatable creation, so that a repeat finds what
// the first one made.
func keyID(k IdempotencyKey) (domain.ID, error) {
	u, err := uuid.NewV7()
	if k.given() {
		copy(u[6:], k.CommandID[6:])
		u[6] = u[6]&0x0f | 0x70 // the version
	}
	return domain.NewID("key", u), err
}

// timeOfID is how many characters of a UUIDv7 in base32 are its time.
const timeOfID = len("key_") + 10

// madeBefore is the key of a creation of which id is another attempt, as it was
// made: that it has ended since is not told.
func madeBefore(o *domain.Organization, id domain.ID) (made domain.Key) {
	for _, k := range o.SortedKeys() {
		if len(k.ID) == len(id) && k.ID[timeOfID:] == id[timeOfID:] {
			made = k
		}
	}
	made.RevokedAt, made.Expired = 0, false
	return made
}
