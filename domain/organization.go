package domain

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// Key is an API key of an organization. Its text is not stored, only its hash.
type Key struct {
	ID        ID       `json:"id"`
	Level     KeyLevel `json:"level"`
	Name      string   `json:"name"`
	Hint      string   `json:"hint"`
	Hash      string   `json:"hash"`
	CreatedAt Instant  `json:"createdAt"`
	ExpiresAt Instant  `json:"expiresAt"`
	RevokedAt Instant  `json:"revokedAt"`
	Expired   bool     `json:"expired"`
}

// Works reports whether the key gives access at now. A key that has expired does not,
// even before its end is recorded. A key whose end is recorded does not work again on a
// node whose clock is behind.
func (k Key) Works(now Instant) bool { return !k.ended() && !reached(k.ExpiresAt, now) }

// ended reports whether the key's end is recorded.
func (k Key) ended() bool { return k.RevokedAt != 0 || k.Expired }

// Mode is what the key is meant for. The text of the key shows it.
func (k Key) Mode() KeyMode {
	if strings.HasPrefix(k.Hint, KeyText(k.Level, TestKey, "")) {
		return TestKey
	}
	return LiveKey
}

// AppendJSON appends the key as an admin sees it.
func (k Key) AppendJSON(dst []byte) []byte {
	mode := k.Mode()
	return appendFields(dst, []field{
		{"id", readOnly(func(dst []byte) []byte { return appendString(dst, string(k.ID)) }), computed},
		{"level", choice[KeyLevel]{p: &k.Level}, 0},
		{"mode", choice[KeyMode]{p: &mode}, 0},
		{"name", label{p: &k.Name}, 0},
		{"hint", label{p: &k.Hint}, computed},
		{"createdAt", readOnly(k.CreatedAt.appendJSON), computed},
		{"expiresAt", readOnly(k.ExpiresAt.appendJSON), 0},
		{"revokedAt", readOnly(k.RevokedAt.appendJSON), computed},
	})
}

// Prefix is what keys of the level begin with.
func (l KeyLevel) Prefix() string {
	if l == PublishableKey {
		return "pk_"
	}
	return "sk_"
}

// KeyText is the text of a key: its level and mode, and a random part.
func KeyText(l KeyLevel, m KeyMode, random string) string {
	return l.Prefix() + string(m) + "_" + random
}

// KeyHash is the SHA-256 of a key's text in lower-case hex. It is stored instead of the
// text, and keys are looked up by it.
func KeyHash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// KeyHint is the beginning of a key's text, with four characters of the random part, so
// that people can tell keys apart.
func KeyHint(text string) string { return text[:min(len(text), len("sk_live_")+4)] }

// Organization owns distributions and the keys that give access to them. Its
// zero value has not been created. Not safe for concurrent use.
type Organization struct {
	ID           ID         `json:"id"`
	Name         string     `json:"name"`
	TimeZone     string     `json:"timeZone"`
	CurrencyCode Currency   `json:"currencyCode"`
	CreatedAt    Instant    `json:"createdAt"`
	UpdatedAt    Instant    `json:"updatedAt"` // of the last event that changed the above
	Keys         map[ID]Key `json:"keys"`
	Latest       Instant    `json:"latest"`
}

func (o *Organization) fields() []field {
	return []field{
		{"id", readOnly(func(dst []byte) []byte { return appendString(dst, string(o.ID)) }), computed},
		{"name", label{&o.Name, 1, 200}, 0},
		{"timeZone", zone{&o.TimeZone}, 0},
		{"currencyCode", currency{&o.CurrencyCode}, 0},
		{"createdAt", readOnly(o.CreatedAt.appendJSON), computed},
		{"updatedAt", readOnly(o.UpdatedAt.appendJSON), computed},
	}
}

// AppendJSON appends the organization as an admin sees it, without its keys.
func (o *Organization) AppendJSON(dst []byte) []byte { return appendFields(dst, o.fields()) }

// Decide implements Aggregate.
func (o *Organization) Decide(now Instant, cmd Command) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateOrganization:
		return o.create(now, c)
	case Advance:
		if k, ok := o.nextToExpire(); ok && k.ExpiresAt <= now {
			return []Event{KeyExpired{Part{}, Stamp{max(k.ExpiresAt, o.Latest)}, k.ID}}, nil
		}
		return nil, nil
	}
	if o.ID == "" {
		return nil, Refuse(OrganizationNotFound, "")
	}
	switch c := cmd.(type) {
	case Update:
		return o.update(now, c)
	case CreateKey:
		return o.createKey(now, c)
	case RevokeKey:
		return o.revokeKey(now, c)
	}
	return nil, Refuse(InvalidTransition, "an organization does not take %T", cmd)
}

func (o *Organization) create(now Instant, c CreateOrganization) ([]Event, error) {
	if o.ID != "" {
		return nil, nil
	}
	var wrong problems
	if err := checkText(c.Name, 1, 200); err != nil {
		wrong.add("name", "%s", err)
	}
	if _, err := LoadZone(c.TimeZone); err != nil {
		wrong.add("timeZone", "must be an IANA time zone such as Europe/Berlin")
	}
	if !c.CurrencyCode.Known() {
		wrong.add("currencyCode", "must be an ISO 4217 code such as USD")
	}
	if err := wrong.refusal(ValidationFailed); err != nil {
		return nil, err
	}
	return []Event{OrganizationCreated{Stamp{now}, c.ID, c.Name, c.TimeZone, c.CurrencyCode}}, nil
}

func (o *Organization) update(now Instant, c Update) ([]Event, error) {
	var wrong problems
	next := *o
	changed := wrong.readChanges(c.Fields, o.fields(), next.fields(), func(field, json.RawMessage) {})
	if err := wrong.refusal(ValidationFailed); err != nil || len(changed) == 0 {
		return nil, err
	}
	return []Event{Updated{Stamp{now}, changed, CauseUpdate}}, nil
}

func (o *Organization) createKey(now Instant, c CreateKey) ([]Event, error) {
	made := KeyCreated{Stamp: Stamp{now}, KeyID: c.KeyID}
	mode := LiveKey
	var wrong problems
	wrong.readNew(c.Fields, []field{
		{"level", choice[KeyLevel]{&made.Level, []KeyLevel{SecretKey, PublishableKey}}, required},
		{"mode", choice[KeyMode]{&mode, []KeyMode{LiveKey, TestKey}}, 0},
		{"name", label{&made.Name, 0, 200}, 0},
		{"expiresAt", instant{&made.ExpiresAt, &o.TimeZone}, 0},
	})
	if reached(made.ExpiresAt, now) {
		wrong.add("expiresAt", "must be in the future")
	}
	if err := wrong.refusal(ValidationFailed); err != nil {
		return nil, err
	}
	text := KeyText(made.Level, mode, c.Random)
	made.Hint, made.Hash = KeyHint(text), KeyHash(text)
	for _, k := range o.Keys {
		if k.Hash == made.Hash {
			return nil, nil
		}
	}
	return []Event{made}, nil
}

func (o *Organization) revokeKey(now Instant, c RevokeKey) ([]Event, error) {
	k, ok := o.Keys[c.KeyID]
	switch {
	case !ok:
		return nil, Refuse(KeyNotFound, "")
	case k.Expired:
		return nil, Refuse(KeyNotFound, "it has expired already")
	case k.RevokedAt != 0:
		return nil, Refuse(KeyNotFound, "it is revoked already")
	}
	if k.Level == SecretKey && !c.EvenLast && !o.hasOther(k, now) {
		return nil, Refuse(NotPossible, "it is the last secret key that works: make another first")
	}
	return []Event{KeyRevoked{Part{}, Stamp{now}, c.KeyID}}, nil
}

// hasOther reports whether another key of k's level works at now.
func (o *Organization) hasOther(k Key, now Instant) bool {
	for _, other := range o.Keys {
		if other.ID != k.ID && other.Level == k.Level && other.Works(now) {
			return true
		}
	}
	return false
}

// nextToExpire is the key that expires next, and false when none will.
func (o *Organization) nextToExpire() (next Key, found bool) {
	for _, k := range o.Keys {
		if k.ExpiresAt == 0 || k.ended() {
			continue
		}
		if !found || cmp.Or(cmp.Compare(k.ExpiresAt, next.ExpiresAt), cmp.Compare(k.ID, next.ID)) < 0 {
			next, found = k, true
		}
	}
	return next, found
}

// Evolve implements Aggregate.
func (o *Organization) Evolve(e Event) error {
	_, creation := e.(OrganizationCreated)
	if creation != (o.ID == "") {
		return ruleError(ruleCreation, "%T for organization %q", e, o.ID)
	}
	if e.When() < o.Latest {
		return ruleError(ruleTime, "%s after %s", e.When(), o.Latest)
	}
	switch e := e.(type) {
	case OrganizationCreated:
		o.ID, o.Name, o.TimeZone, o.CurrencyCode, o.CreatedAt = e.ID, e.Name, e.TimeZone, e.CurrencyCode, e.At
		o.Keys = map[ID]Key{}
	case Updated:
		if err := e.apply(o.fields(), func(field) error { return nil }); err != nil {
			return err
		}
	case KeyCreated:
		if _, ok := o.Keys[e.KeyID]; ok {
			return ruleError(ruleKeys, "%s is made twice", e.KeyID)
		}
		if reached(e.ExpiresAt, e.At) {
			return ruleError(ruleKeys, "%s ends at %s, before it is made", e.KeyID, e.ExpiresAt)
		}
		o.Keys[e.KeyID] = Key{
			ID: e.KeyID, Level: e.Level, Name: e.Name, Hint: e.Hint, Hash: e.Hash, CreatedAt: e.At, ExpiresAt: e.ExpiresAt,
		}
	case KeyRevoked:
		k, ok := o.Keys[e.KeyID]
		if !ok || k.ended() {
			return ruleError(ruleKeys, "%s is not one that can be revoked", e.KeyID)
		}
		k.RevokedAt = e.At
		o.Keys[e.KeyID] = k
	case KeyExpired:
		k, ok := o.Keys[e.KeyID]
		if !ok || k.ended() || k.ExpiresAt == 0 {
			return ruleError(ruleKeys, "%s is not one that can expire", e.KeyID)
		}
		if e.At < k.ExpiresAt {
			return ruleError(ruleDue, "%s expired at %s, due at %s", e.KeyID, e.At, k.ExpiresAt)
		}
		k.Expired = true
		o.Keys[e.KeyID] = k
	default:
		return ruleError(ruleKind, "an organization does not have %T", e)
	}
	if ChangesObject(e) {
		o.UpdatedAt = e.When()
	}
	o.Latest = e.When()
	return nil
}

// Wake implements Aggregate.
func (o *Organization) Wake() Instant {
	k, _ := o.nextToExpire()
	return k.ExpiresAt
}

// Time implements Aggregate.
func (o *Organization) Time() Instant { return o.Latest }

// Fork implements Aggregate.
func (o *Organization) Fork() Aggregate {
	f := *o
	f.Keys = maps.Clone(o.Keys)
	return &f
}

// HasKey reports whether the organization has a key of a level that has not
// ended.
func (o *Organization) HasKey(level KeyLevel) bool {
	for _, k := range o.Keys {
		if k.Level == level && !k.ended() {
			return true
		}
	}
	return false
}

// SortedKeys are the organization's keys in the order in which they were made.
func (o *Organization) SortedKeys() []Key {
	return slices.SortedFunc(maps.Values(o.Keys), func(a, b Key) int { return strings.Compare(string(a.ID), string(b.ID)) })
}
