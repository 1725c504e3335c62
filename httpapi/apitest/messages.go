package apitest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"
)

// Messages is an AsyncAPI 3.0 document to check messages against. It is as strict as a
// Contract. Safe for concurrent use.
type Messages struct {
	*document
	types map[string]map[string]string // channel address -> message type -> JSON pointer of its description
}

// NewMessages reads a document in YAML. All its references must point into the document
// itself. The name of a message in the document is the message's type.
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

// Types returns the types of messages of each channel, by the channel's address.
func (m *Messages) Types() map[string][]string {
	all := map[string][]string{}
	for address, types := range m.types {
		for t := range types {
			all[address] = append(all[address], t)
		}
	}
	return all
}

// Check returns an error about everything in a message that the document does not describe:
// its address, its headers, and its payload, which is a CloudEvent.
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
