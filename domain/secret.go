package domain

import (
	"encoding/json"
	"errors"
)

// Secret is a value that is stored only sealed. Its JSON is the sealed form, and a value
// that has no sealed form cannot be encoded. Plain is the value itself.
type Secret struct {
	Plain  string
	Sealed string
}

// MarshalJSON writes the sealed form.
func (s Secret) MarshalJSON() ([]byte, error) {
	if s.Sealed == "" && s.Plain != "" {
		return nil, errors.New("a secret was about to be written unsealed")
	}
	return json.Marshal(s.Sealed)
}

// UnmarshalJSON reads the sealed form; Plain is empty until it is opened.
func (s *Secret) UnmarshalJSON(raw []byte) error {
	s.Plain = ""
	// A sealed form needs no escapes.
	if n := len(raw); n >= 2 && raw[0] == '"' && plain(string(raw[1:n-1])) {
		s.Sealed = string(raw[1 : n-1])
		return nil
	}
	return json.Unmarshal(raw, &s.Sealed)
}

// SecretField is one secret of an event or of a distribution. The name binds the
// sealed form to its place.
type SecretField struct {
	Name  string
	Value *Secret
}

// SecretHolder is an event or an aggregate with secrets. The Values point into it.
type SecretHolder interface {
	Secrets() []SecretField
}
