package domain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// field is one admin field of a distribution, an organization or a key, bound to the
// variable that holds it. An object's list of fields has them in the order of the
// contract. It defines the name of each field, how the field is read and written, and
// when it may be given or changed.
type field struct {
	name  string
	value value
	rules rule
}

type rule int

const (
	computed     rule = 1 << iota // set by the engine, never by a request
	creationOnly                  // never changes after the creation
	required                      // on creation
	nullable                      // null clears it
	untilOpen                     // frozen once OPEN
	untilEntered                  // frozen once somebody entered or bid
	timing                        // part of the schedule: may not be moved into the past while OPEN, nor cleared then
)

func (f field) is(r rule) bool { return f.rules&r != 0 }

func (f field) json() json.RawMessage { return f.value.appendJSON(nil) }

// value reads and writes one kind of variable. parse and appendJSON are inverse
// to each other for every value that is not null.
type value interface {
	parse(raw json.RawMessage) error // the error's text is for the client
	clear()
	appendJSON(dst []byte) []byte
}

func isNull(raw json.RawMessage) bool { return string(bytes.TrimSpace(raw)) == "null" }

// appendString writes a JSON string, and escapes nothing that JSON does not ask
// for.
func appendString(dst []byte, s string) []byte {
	if !plain(s) {
		var b bytes.Buffer
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			panic("a string always encodes: " + err.Error())
		}
		return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// plain reports whether s needs no escaping in a JSON string: it is ASCII without
// quotes, backslashes and control characters.
func plain(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

func parseString(raw json.RawMessage) (string, error) {
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("must be a string")
	}
	if loneSurrogate(raw) {
		return "", errLoneSurrogate
	}
	return s, nil
}

var errLoneSurrogate = errors.New("must be Unicode: half of a surrogate pair is no character")

// loneSurrogate reports whether raw has the escape of half a surrogate pair, which
// would be read as another character.
func loneSurrogate(raw json.RawMessage) bool {
	for i := 0; i+1 < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if raw[i] != 'u' {
			continue
		}
		r, next := escaped(raw[i-1:]), escaped(raw[min(i+5, len(raw)):])
		if !utf16.IsSurrogate(r) {
			continue
		}
		if utf16.DecodeRune(r, next) == utf8.RuneError {
			return true
		}
		i += 6
	}
	return false
}

// escaped is the code unit of the escape that raw begins with, or 0.
func escaped(raw json.RawMessage) rune {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

// replayed is a value for which events may hold texts that parse refuses now.
type replayed interface {
	replay(raw json.RawMessage) error
}

// readOnly is a computed value. A request never sets it.
type readOnly func(dst []byte) []byte

func (readOnly) parse(json.RawMessage) error    { return nil }
func (readOnly) clear()                         {}
func (f readOnly) appendJSON(dst []byte) []byte { return f(dst) }

// text is a string of min to max characters, without control characters; a nil
// pointer is null.
type text struct {
	p        **string
	min, max int
}

func (v text) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	if err := checkText(s, v.min, v.max); err != nil {
		return err
	}
	*v.p = &s
	return nil
}

func checkText(s string, shortest, longest int) error {
	if n := utf8.RuneCountInString(s); n < shortest || n > longest {
		return fmt.Errorf("must have %d to %d characters", shortest, longest)
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f {
			return fmt.Errorf("must not have control characters")
		}
	}
	return nil
}

func (v text) clear() { *v.p = nil }

func (v text) appendJSON(dst []byte) []byte {
	if *v.p == nil {
		return append(dst, "null"...)
	}
	return appendString(dst, **v.p)
}

// label is a text whose empty value means "not set" and is null.
type label struct {
	p        *string
	min, max int
}

func (v label) parse(raw json.RawMessage) error {
	var s *string
	if err := (text{&s, v.min, v.max}).parse(raw); err != nil {
		return err
	}
	*v.p = *s
	return nil
}

func (v label) clear() { *v.p = "" }

func (v label) appendJSON(dst []byte) []byte {
	if *v.p == "" {
		return append(dst, "null"...)
	}
	return appendString(dst, *v.p)
}

// token is an id of the caller's: 1 to 128 visible ASCII characters.
type token struct{ p *string }

func (v token) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	if !VisibleASCII(s, 128) {
		return fmt.Errorf("must be 1 to 128 visible ASCII characters")
	}
	*v.p = s
	return nil
}

func (v token) clear()                       { *v.p = "" }
func (v token) appendJSON(dst []byte) []byte { return appendString(dst, *v.p) }

// VisibleASCII reports whether s is 1 to longest characters from '!' to '~'.
func VisibleASCII(s string, longest int) bool {
	if s == "" || len(s) > longest {
		return false
	}
	for i := range len(s) {
		if s[i] < '!' || s[i] > '~' {
			return false
		}
	}
	return true
}

// secret is a text of 1 to 256 characters that is stored sealed.
type secret struct{ p *Secret }

func (v secret) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	if err := checkText(s, 1, 256); err != nil {
		return err
	}
	*v.p = Secret{Plain: s}
	return nil
}

func (v secret) clear()                       { *v.p = Secret{} }
func (v secret) appendJSON(dst []byte) []byte { return appendString(dst, v.p.Plain) }

// zone is an IANA time zone.
type zone struct{ p *string }

func (v zone) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	// The present zone may stay, even if the database in use does not have it.
	if _, err := LoadZone(s); err != nil && s != *v.p {
		return fmt.Errorf("must be an IANA time zone such as Europe/Berlin")
	}
	*v.p = s
	return nil
}

// replay accepts any name: the database in use may not have the zone.
func (v zone) replay(raw json.RawMessage) (err error) {
	*v.p, err = parseString(raw)
	return err
}

func (v zone) clear()                       { *v.p = "" }
func (v zone) appendJSON(dst []byte) []byte { return appendString(dst, *v.p) }

// instant is a time. A time without an offset is read in the object's zone, so the
// zone comes first in the list of fields.
type instant struct {
	p    *Instant
	zone *string
}

func (v instant) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	i, err := ParseInstant(s, *v.zone)
	if err != nil {
		return err
	}
	*v.p = i
	return nil
}

func (v instant) clear()                       { *v.p = 0 }
func (v instant) appendJSON(dst []byte) []byte { return v.p.appendJSON(dst) }

// Count is a positive whole number. Zero means "not set" and is null in JSON.
type Count int64

// MarshalJSON writes null or the number.
func (c Count) MarshalJSON() ([]byte, error) { return c.appendJSON(nil), nil }

// UnmarshalJSON reads null or a whole number.
func (c *Count) UnmarshalJSON(raw []byte) error {
	if isNull(raw) {
		*c = 0
		return nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	*c = Count(n)
	return err
}

func (c Count) appendJSON(dst []byte) []byte {
	if c == 0 {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, int64(c), 10)
}

// appendCardinal appends a count as a number. 0 is written as 0, not as null.
func (c Count) appendCardinal(dst []byte) []byte { return strconv.AppendInt(dst, int64(c), 10) }

// number is a count from 1 to max.
type number struct {
	p   *Count
	max int64
}

const (
	maxCount   = math.MaxInt32
	maxSeconds = 31_536_000
)

func count(p *Count) number   { return number{p, maxCount} }
func seconds(p *Count) number { return number{p, maxSeconds} }

func (v number) parse(raw json.RawMessage) error {
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 1 || n > v.max {
		return fmt.Errorf("must be a whole number from 1 to %d", v.max)
	}
	*v.p = Count(n)
	return nil
}

func (v number) clear()                       { *v.p = 0 }
func (v number) appendJSON(dst []byte) []byte { return v.p.appendJSON(dst) }

// money is a positive amount; whether it fits the currency is checked with the
// whole object.
type money struct{ p *Amount }

func (v money) parse(raw json.RawMessage) error { return v.p.UnmarshalJSON(raw) }
func (v money) clear()                          { *v.p = 0 }
func (v money) appendJSON(dst []byte) []byte    { return v.p.appendJSON(dst) }

type currency struct{ p *Currency }

func (v currency) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	if !Currency(s).Known() {
		return fmt.Errorf("must be an ISO 4217 code such as USD")
	}
	*v.p = Currency(s)
	return nil
}

func (v currency) clear()                       { *v.p = "" }
func (v currency) appendJSON(dst []byte) []byte { return appendString(dst, string(*v.p)) }

type flag struct{ p *bool }

func (v flag) parse(raw json.RawMessage) error {
	switch string(raw) {
	case "true":
		*v.p = true
	case "false":
		*v.p = false
	default:
		return fmt.Errorf("must be true or false")
	}
	return nil
}

func (v flag) clear()                       { *v.p = false }
func (v flag) appendJSON(dst []byte) []byte { return strconv.AppendBool(dst, *v.p) }

// choice is one of a few words.
type choice[T ~string] struct {
	p     *T
	words []T
}

func (v choice[T]) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil {
		return err
	}
	for _, w := range v.words {
		if s == string(w) {
			*v.p = w
			return nil
		}
	}
	return fmt.Errorf("must be one of %v", v.words)
}

func (v choice[T]) clear()                       { *v.p = "" }
func (v choice[T]) appendJSON(dst []byte) []byte { return appendString(dst, string(*v.p)) }

// object is a JSON object of at most max bytes, kept compact.
type object struct {
	p   *json.RawMessage
	max int
}

// maxNesting is how deep objects and arrays may be nested in an object. Some widely
// used JSON parsers fail at a few hundred levels.
const maxNesting = 64

func (v object) parse(raw json.RawMessage) error {
	if loneSurrogate(raw) {
		return errLoneSurrogate
	}
	if nesting(raw) > maxNesting {
		return fmt.Errorf("must be nested at most %d levels deep", maxNesting)
	}
	return v.replay(raw)
}

// replay accepts what parse accepted in any version.
func (v object) replay(raw json.RawMessage) error {
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil || b.Len() == 0 || b.Bytes()[0] != '{' || !utf8.Valid(raw) {
		return fmt.Errorf("must be a JSON object")
	}
	if b.Len() > v.max {
		return fmt.Errorf("must be at most %d bytes of JSON", v.max)
	}
	*v.p = b.Bytes()
	return nil
}

// nesting is the greatest depth of objects and arrays in a JSON text.
func nesting(raw json.RawMessage) int {
	deepest, depth, inString := 0, 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			inString = !inString
		case inString && c == '\\':
			i++
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

func (v object) clear() { *v.p = nil }

func (v object) appendJSON(dst []byte) []byte {
	if *v.p == nil {
		return append(dst, "null"...)
	}
	return append(dst, *v.p...)
}

// read parses raw, or clears the field for null.
func (f field) read(raw json.RawMessage) error {
	if f.is(computed) {
		return nil
	}
	if !isNull(raw) {
		return f.value.parse(raw)
	}
	if !f.is(nullable) {
		return fmt.Errorf("may not be null")
	}
	f.value.clear()
	return nil
}

// replay reads the value that an event holds. An earlier version with looser rules may
// have accepted it.
func (f field) replay(raw json.RawMessage) error {
	if v, ok := f.value.(replayed); ok && !isNull(raw) {
		return v.replay(raw)
	}
	return f.read(raw)
}
