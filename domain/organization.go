package domain

import (
	"maps"
	"slices"
	"strings"
)

// Key is a key of an organization. Whoever holds the key itself is not known.
type Key struct {
	ID        ID       `json:"id"`
	Level     KeyLevel `json:"level"`
	Name      string   `json:"name"`
	Hint      string   `json:"hint"`
	Hash      string   `json:"hash"`
	CreatedAt Instant  `json:"createdAt"`
	RevokedAt Instant  `json:"revokedAt"`
}

// Organization owns distributions and the keys that give access to them. Its
// zero value has not been created. Not safe for concurrent use.
type Organization struct {
	ID           ID         `json:"id"`
	Name         string     `json:"name"`
	TimeZone     string     `json:"timeZone"`
	CurrencyCode Currency   `json:"currencyCode"`
	CreatedAt    Instant    `json:"createdAt"`
	Keys         map[ID]Key `json:"keys"`
	Latest       Instant    `json:"latest"`
}

// Decide implements Aggregate.
func (o *Organization) Decide(now Instant, cmd Command) ([]Event, error) {
	switch c := cmd.(type) {
	case CreateOrganization:
		return o.create(now, c)
	case Advance:
		return nil, nil
	}
	if o.ID == "" {
		return nil, Refuse(OrganizationNotFound, "")
	}
	switch c := cmd.(type) {
	case CreateKey:
		if err := checkText(c.Name, 0, 200); err != nil {
			return nil, &Error{Code: ValidationFailed, Details: []Detail{{"name", err.Error()}}}
		}
		for _, k := range o.Keys {
			if k.Hash == c.Hash {
				return nil, nil
			}
		}
		return []Event{KeyCreated{Stamp{now}, c.KeyID, c.Level, c.Name, c.Hint, c.Hash}}, nil
	case RevokeKey:
		k, ok := o.Keys[c.KeyID]
		if !ok {
			return nil, Refuse(KeyNotFound, "")
		}
		if k.RevokedAt != 0 {
			return nil, nil
		}
		return []Event{KeyRevoked{Stamp{now}, c.KeyID}}, nil
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
	case KeyCreated:
		if _, ok := o.Keys[e.KeyID]; ok {
			return ruleError(ruleKeys, "%s is made twice", e.KeyID)
		}
		o.Keys[e.KeyID] = Key{e.KeyID, e.Level, e.Name, e.Hint, e.Hash, e.At, 0}
	case KeyRevoked:
		k, ok := o.Keys[e.KeyID]
		if !ok || k.RevokedAt != 0 {
			return ruleError(ruleKeys, "%s is not one that can be revoked", e.KeyID)
		}
		k.RevokedAt = e.At
		o.Keys[e.KeyID] = k
	default:
		return ruleError(ruleKind, "an organization does not have %T", e)
	}
	o.Latest = e.When()
	return nil
}

// Wake implements Aggregate.
func (o *Organization) Wake() Instant { return 0 }

// Fork implements Aggregate.
func (o *Organization) Fork() Aggregate {
	f := *o
	f.Keys = maps.Clone(o.Keys)
	return &f
}

// HasKey reports whether the organization has a key of a level that is not
// revoked.
func (o *Organization) HasKey(level KeyLevel) bool {
	for _, k := range o.Keys {
		if k.Level == level && k.RevokedAt == 0 {
			return true
		}
	}
	return false
}

// SortedKeys are the organization's keys in the order in which they were made.
func (o *Organization) SortedKeys() []Key {
	return slices.SortedFunc(maps.Values(o.Keys), func(a, b Key) int { return strings.Compare(string(a.ID), string(b.ID)) })
}
