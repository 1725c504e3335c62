package httpapi

import (
	"fmt"

	"go.yaml.in/yaml/v4"
)

// node is a node of a YAML document. The zero value is a missing node: it has no text,
// members or items.
type node struct{ *yaml.Node }

func (n node) exists() bool { return n.Node != nil }

// text returns the text of a scalar, and "" for every other node.
func (n node) text() string {
	if n.Node == nil || n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.Value
}

// at follows a path of member names from n.
func (n node) at(keys ...string) node {
next:
	for _, key := range keys {
		for name, value := range n.members() {
			if name == key {
				n = value
				continue next
			}
		}
		return node{}
	}
	return n
}

// members yields the members of a mapping, in the document's order.
func (n node) members() func(yield func(string, node) bool) {
	return func(yield func(string, node) bool) {
		if n.Node == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, node{n.Content[i+1]}) {
				return
			}
		}
	}
}

// items returns the elements of a sequence.
func (n node) items() []node {
	if n.Node == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	items := make([]node, len(n.Content))
	for i, item := range n.Content {
		items[i] = node{item}
	}
	return items
}

// appendNode appends a YAML node as JSON, with the members in the same order. It panics if
// JSON cannot express the node.
func appendNode(dst []byte, n *yaml.Node) []byte {
	switch n.Kind {
	case yaml.MappingNode:
		dst = append(dst, '{')
		for i := 0; i < len(n.Content); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(dst, encode(n.Content[i].Value)...)
			dst = append(dst, ':')
			dst = appendNode(dst, n.Content[i+1])
		}
		return append(dst, '}')
	case yaml.SequenceNode:
		dst = append(dst, '[')
		for i, item := range n.Content {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendNode(dst, item)
		}
		return append(dst, ']')
	case yaml.ScalarNode:
		var v any
		if err := n.Decode(&v); err != nil {
			panic(fmt.Sprintf("line %d of the OpenAPI document: %v", n.Line, err))
		}
		return append(dst, encode(v)...)
	}
	panic(fmt.Sprintf("line %d of the OpenAPI document has an alias, or something that JSON cannot express", n.Line))
}
