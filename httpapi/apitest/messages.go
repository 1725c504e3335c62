package apitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// Messages is what an AsyncAPI 3.0 document says of what is sent. It is held as
// narrowly as a Contract. Safe for concurrent use.
type Messages struct {
	*document
	types map[string]map[string]string // where a message is described, by its type, by its channel's address
}

// NewMessages reads a document in YAML, whose references all have to lead to places
// in itself. A message's name is its type.
func NewMessages(text []byte) (*Messages, error) {
	var v any
	if err := yaml.Load(text, &v); err != nil {
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	d, err := newDocument(text)
	if err != nil {
		return nil, err
	}
	m := &Messages{document: d, types: map[string]map[string]string{}}
	for name := range object(d.root["channels"]) {
		at, channel := d.resolve(pointer("/channels", name))
		address, _ := channel["address"].(string)
		if m.types[address] != nil {
			return nil, fmt.Errorf("there is another channel at %s", address)
		}
		m.types[address] = map[string]string{}
		for name := range object(channel["messages"]) {
			at, message := d.resolve(pointer(at, "messages", name))
			messageType, _ := message["name"].(string)
			if m.types[address][messageType] != "" {
				return nil, fmt.Errorf("%s has another message %s", address, messageType)
			}
			m.types[address][messageType] = at
		}
	}
	if len(m.types) == 0 {
		return nil, errors.New("the document has no channels")
	}
	return m, nil
}

// Types are the types of messages by the addresses of their channels.
func (m *Messages) Types() map[string][]string {
	all := map[string][]string{}
	for address, types := range m.types {
		for t := range types {
			all[address] = append(all[address], t)
		}
	}
	return all
}

// Check returns what the document does not describe of a message: where it is sent
// to, its headers, and the CloudEvent that it is.
func (m *Messages) Check(address string, headers map[string]string, payload []byte) error {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(payload))
	if err != nil {
		return err
	}
	messageType, _ := object(v)["type"].(string)
	at := m.types[address][messageType]
	if at == "" {
		return fmt.Errorf("%s has no message %q", address, messageType)
	}
	sent := map[string]any{}
	for name, value := range headers {
		sent[name] = value
	}
	return errors.Join(m.Validate(pointer(at, "headers"), sent), m.Validate(pointer(at, "payload"), v))
}
