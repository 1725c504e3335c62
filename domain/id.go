package domain

import (
	"fmt"
	"strings"
)

// Kind says what a stream is about. The first three are distributions.
type Kind string

// The kinds of streams.
const (
	KindQueue        Kind = "queue"
	KindDraw         Kind = "draw"
	KindAuction      Kind = "auction"
	KindOrganization Kind = "organization"
	KindClaim        Kind = "claim"   // names the distribution that a repeatable creation makes
	KindSeal         Kind = "seal"    // holds the check value of the master key
	KindSink         Kind = "sink"    // holds which node sends messages to a receiver outside, and up to which position
	KindSigning      Kind = "signing" // holds the keys by which tokens are signed
	KindClock        Kind = "clock"   // holds what nodes wrote to compare their clocks with the store's
)

// Kinds are the kinds of distributions.
func Kinds() []Kind { return []Kind{KindQueue, KindDraw, KindAuction} }

// StreamKinds are all kinds of streams. A stream of any other kind is foreign.
func StreamKinds() []Kind {
	return append(Kinds(), KindOrganization, KindClaim, KindSeal, KindSink, KindSigning, KindClock)
}

// Distribution reports whether k is a kind of distribution.
func (k Kind) Distribution() bool {
	return k == KindQueue || k == KindDraw || k == KindAuction
}

// Title is the kind as it begins an error text: "Queue".
func (k Kind) Title() string {
	if k == "" {
		return "Distribution"
	}
	return strings.ToUpper(string(k[:1])) + string(k[1:])
}

// IDPrefix is what the ids of this kind begin with: "queue", but "org" for an
// organization.
func (k Kind) IDPrefix() string {
	if k == KindOrganization {
		return "org"
	}
	return string(k)
}

// ID is a TypeID (https://github.com/jetify-com/typeid, version 0.3): a prefix,
// an underscore and a UUID in 26 characters of lower-case Crockford base32. With
// a UUIDv7 ids of one prefix sort by creation.
type ID string

const base32Digits = "0123456789abcdefghjkmnpqrstvwxyz"

// NewID makes the id of uuid under prefix.
func NewID(prefix string, uuid [16]byte) ID {
	return ID(prefix + "_" + Base32(uuid))
}

// Base32 writes the 128 bits of uuid as 26 base32 characters. The first character holds
// three bits, each of the others five.
func Base32(uuid [16]byte) string {
	var out [26]byte
	// Two zero bits are put in front to make 130 bits, 26 groups of five.
	var acc uint
	bits := 2
	n := 0
	for _, b := range uuid {
		acc = acc<<8 | uint(b)
		bits += 8
		for bits >= 5 {
			bits -= 5
			out[n] = base32Digits[acc>>bits&31]
			n++
		}
		acc &= 1<<bits - 1
	}
	return string(out[:])
}

// ParseID reports whether s is an id with that prefix, and returns it.
func ParseID(prefix, s string) (ID, bool) {
	rest, ok := strings.CutPrefix(s, prefix+"_")
	if !ok || !isBase32ID(rest) {
		return "", false
	}
	return ID(s), true
}

// Kind is the kind that the id's prefix names, or "" when it names none.
func (id ID) Kind() Kind {
	prefix, _, _ := strings.Cut(string(id), "_")
	for _, k := range append(Kinds(), KindOrganization) {
		if k.IDPrefix() == prefix {
			return k
		}
	}
	return ""
}

// Stream is the name of the stream of the object with this id: the kind, a dash, and
// the id without its prefix.
func (id ID) Stream() string {
	_, rest, _ := strings.Cut(string(id), "_")
	return string(id.Kind()) + "-" + rest
}

// ClaimStream is the name of the claim stream of a repeatable creation, whose command
// id is commandID. The stream records which distribution the creation makes.
func ClaimStream(commandID string) string { return string(KindClaim) + "-" + commandID }

// SealStream is the one stream that holds the check value of the master key.
const SealStream = string(KindSeal) + "-check"

// SinkStream is the stream that holds lease and checkpoint of a sink.
func SinkStream(name string) string { return string(KindSink) + "-" + name }

// SigningStream is the one stream that holds the keys by which tokens are signed.
const SigningStream = string(KindSigning) + "-keys"

// ClockStream is the one stream that nodes write to in order to compare their clocks
// with the store's.
const ClockStream = string(KindClock) + "-comparisons"

// StreamKind is the kind that a stream's name begins with, or "" for a foreign
// stream. Names are split at their first dash only.
func StreamKind(stream string) Kind {
	category, _, ok := strings.Cut(stream, "-")
	if !ok {
		return ""
	}
	for _, k := range StreamKinds() {
		if string(k) == category {
			return k
		}
	}
	return ""
}

// StreamID is the id of the distribution or organization that stream is about.
func StreamID(stream string) (ID, error) {
	category, rest, _ := strings.Cut(stream, "-")
	for _, k := range append(Kinds(), KindOrganization) {
		if string(k) == category && isBase32ID(rest) {
			return ID(k.IDPrefix() + "_" + rest), nil
		}
	}
	return "", fmt.Errorf("%q is not the stream of a distribution or organization", stream)
}

func isBase32ID(s string) bool {
	if len(s) != 26 || s[0] > '7' {
		return false
	}
	for i := range len(s) {
		if strings.IndexByte(base32Digits, s[i]) < 0 {
			return false
		}
	}
	return true
}
