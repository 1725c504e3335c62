package domain

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// ReadAdmit reads the body of a request to admit by hand: a consumerId or a count.
// The error is a *Error that names every bad member.
func ReadAdmit(body Fields) (Command, error) {
	var c Admit
	var n Count
	members := []field{{"consumerId", token{&c.ConsumerID}, 0}, {"count", number{&n, MaxAdmit}, 0}}
	var wrong problems
	wrong.readMembers(body, members)
	_, named := body["consumerId"]
	if _, counted := body["count"]; named == counted {
		wrong.add("count", "must be given, or consumerId, and not both")
	}
	wrong.unknownMembers(body, members)
	c.Count = int64(n)
	return c, wrong.refusal(ValidationFailed)
}

// ReadComplete reads the body of a request to complete a consumer's session. The
// error is a *Error that names every bad member.
func ReadComplete(body Fields) (Command, error) {
	consumer, err := ReadConsumer(body)
	return Complete{consumer}, err
}

// ReadDeny reads the body of a request to deny a consumer. The error is a *Error that
// names every bad member.
func ReadDeny(body Fields) (Command, error) {
	var c Deny
	err := readBody(body,
		field{"consumerId", token{&c.ConsumerID}, required},
		field{"reason", denyReason{&c.Reason}, required},
	)
	return c, err
}

// ShownToken is a token to be validated, and the consumer who presents it.
type ShownToken struct{ ConsumerID, Token string }

// ReadShownToken reads the body of a request to validate a token. The error is a
// *Error that names every bad member.
func ReadShownToken(body Fields) (ShownToken, error) {
	var s ShownToken
	err := readBody(body,
		field{"consumerId", token{&s.ConsumerID}, required},
		field{"token", anyText{&s.Token}, required},
	)
	return s, err
}

// ReadConsumer reads the body of a request that names a consumer and nothing else.
// The error is a *Error that names every bad member.
func ReadConsumer(body Fields) (consumer string, err error) {
	err = readBody(body, field{"consumerId", token{&consumer}, required})
	return consumer, err
}

// ReadNothing reads the body of a request that has no members. The error is a *Error that
// names every member.
func ReadNothing(body Fields) error { return readBody(body) }

// readBody reads the members of a body.
func readBody(body Fields, members ...field) error {
	var wrong problems
	wrong.readMembers(body, members)
	wrong.unknownMembers(body, members)
	return wrong.refusal(ValidationFailed)
}

func (p *problems) readMembers(body Fields, members []field) {
	for _, m := range members {
		raw, given := body[m.name]
		switch {
		case given:
			if err := m.value.parse(raw); err != nil {
				p.add(m.name, "%s", err)
			}
		case m.is(required):
			p.add(m.name, "is required")
		}
	}
}

func (p *problems) unknownMembers(body Fields, members []field) {
	p.unknownNames(body, members, "is not a field of this request")
}

// denyReason is a reason that a request may give.
type denyReason struct{ p *DenyReason }

func (v denyReason) parse(raw json.RawMessage) error {
	s, err := parseString(raw)
	if err != nil || !slices.Contains(DenyReasons(), DenyReason(s)) {
		return errDenyReason
	}
	*v.p = DenyReason(s)
	return nil
}

func (v denyReason) clear()                       { *v.p = "" }
func (v denyReason) appendJSON(dst []byte) []byte { return appendString(dst, string(*v.p)) }

var errDenyReason = func() error {
	var names []string
	for _, r := range DenyReasons() {
		names = append(names, string(r))
	}
	last := len(names) - 1
	return errors.New("must be " + strings.Join(names[:last], ", ") + " or " + names[last])
}()

// anyText is a string of any length.
type anyText struct{ p *string }

func (v anyText) parse(raw json.RawMessage) error {
	if isNull(raw) || json.Unmarshal(raw, v.p) != nil {
		return errors.New("must be a string")
	}
	return nil
}

func (v anyText) clear()                       { *v.p = "" }
func (v anyText) appendJSON(dst []byte) []byte { return appendString(dst, *v.p) }
