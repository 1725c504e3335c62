package domain

import (
	"encoding/json"
	"slices"
)

// Command asks an aggregate for something. Only this package defines commands. A
// command has everything that a decision needs except the time, which is read when the
// command is decided.
type Command interface{ command() }

// Fields are the JSON values of a request's body by their names.
type Fields map[string]json.RawMessage

// Unknown returns the names in f that are not known: the first MaxDetails of them in
// sorted order, and how many more there are. A request may have very many unknown
// names, so Unknown does not sort all of them.
func (f Fields) Unknown(known func(name string) bool) (first []string, more int) {
	for name := range f {
		if known(name) {
			continue
		}
		at, _ := slices.BinarySearch(first, name)
		if len(first) == MaxDetails {
			more++
			if at == MaxDetails {
				continue
			}
			first = first[:MaxDetails-1]
		}
		first = slices.Insert(first, at, name)
	}
	return first, more
}

// Create makes a distribution. Defaults come from the organization. Seed and Secret are
// random. They are used when the kind needs them and the request gives none.
type Create struct {
	ID             ID
	OrganizationID ID
	Fields         Fields
	Defaults       Defaults
	Seed           string   // becomes encryptionSeed when Fields have none
	Secret         [32]byte // becomes a draw's secret
}

// Defaults fill in what a request leaves out.
type Defaults struct {
	TimeZone     string
	CurrencyCode Currency
}

// Update changes the named fields of a distribution or an organization. The other
// fields keep their values.
type Update struct{ Fields Fields }

// Delete ends a distribution.
type Delete struct{}

// Step takes the next step of the lifecycle by hand. It sets the time of that step to
// now, and Advance does the rest.
type Step struct{ To Status }

// SupplyEntropy gives a draw the value that its entropy source published, as the field
// value.
type SupplyEntropy struct{ Fields Fields }

// Enter gives a consumer an entry at the back of the queue, unless the consumer has one
// already.
type Enter struct{ ConsumerID string }

// Leave ends a consumer's entry or session.
type Leave struct{ ConsumerID string }

// MaxAdmit is the largest Count of an Admit.
const MaxAdmit = 1_000

// Admit admits consumers by hand. With a ConsumerID it admits this consumer, out of
// turn. Without one it admits the next Count consumers who wait, or all of them if
// there are fewer.
type Admit struct {
	ConsumerID string
	Count      int64
}

// Complete ends a consumer's session because the consumer has finished.
type Complete struct{ ConsumerID string }

// Deny ends a consumer's entry or session and bars the consumer.
type Deny struct {
	ConsumerID string
	Reason     DenyReason
}

// Advance carries out the next step that is due. When nothing is due it does nothing, so
// it may come early, late or twice. To carry out every step that is due, a caller
// repeats it until it gives no events.
type Advance struct{}

// CreateOrganization makes an organization.
type CreateOrganization struct {
	ID           ID
	Name         string
	TimeZone     string
	CurrencyCode Currency
}

// CreateKey gives an organization a key. KeyText makes the text of the key from the
// level and mode in Fields and from Random, which must be impossible to guess. When the
// organization has a key with this text already, nothing happens.
type CreateKey struct {
	KeyID  ID
	Fields Fields
	Random string
}

// RevokeKey ends a key. Unless EvenLast is set, it refuses to end the last secret key
// that works: without a secret key, an organization cannot make another key.
type RevokeKey struct {
	KeyID    ID
	EvenLast bool
}

// Claim records in a claim stream that the creation makes the distribution ID.
type Claim struct{ ID ID }

// Consumer implements ConsumerCommand.
func (c Enter) Consumer() string { return c.ConsumerID }

// Consumer implements ConsumerCommand.
func (c Leave) Consumer() string { return c.ConsumerID }

// Consumer implements ConsumerCommand.
func (c Admit) Consumer() string { return c.ConsumerID }

// Consumer implements ConsumerCommand.
func (c Complete) Consumer() string { return c.ConsumerID }

// Consumer implements ConsumerCommand.
func (c Deny) Consumer() string { return c.ConsumerID }

// Picked implements Picker: Admit with a Count picks the consumers who have waited
// longest.
func (c Admit) Picked(e Event) string {
	if admitted, ok := e.(ConsumerAdmitted); ok && c.ConsumerID == "" && admitted.ByHand {
		return admitted.ConsumerID
	}
	return ""
}

// MakeSigningKey makes the key that signs tokens from then on. That is the next key,
// which verifiers know already. When there is no key yet, the first key is made from
// Secret, which must be impossible to guess. With OnlyFirst nothing happens when there is
// a key.
type MakeSigningKey struct {
	Secret    [32]byte
	OnlyFirst bool
}

// RevokeSigningKey makes every token that a key has signed invalid. When the key is the
// one that signs now, a key is made from Secret first and takes its place.
type RevokeSigningKey struct {
	KeyID  string
	Secret [32]byte
}

func (Create) command()             {}
func (Update) command()             {}
func (Delete) command()             {}
func (Step) command()               {}
func (SupplyEntropy) command()      {}
func (Enter) command()              {}
func (Leave) command()              {}
func (Admit) command()              {}
func (Complete) command()           {}
func (Deny) command()               {}
func (Advance) command()            {}
func (CreateOrganization) command() {}
func (CreateKey) command()          {}
func (RevokeKey) command()          {}
func (Claim) command()              {}
func (MakeSigningKey) command()     {}
func (RevokeSigningKey) command()   {}
