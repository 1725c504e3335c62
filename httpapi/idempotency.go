package httpapi

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// commandNamespace is the namespace of the ids of repeatable commands, which are
// UUIDv5 (RFC 9562).
var commandNamespace = uuid.MustParse("0f9a7d0e-5a3b-4f0c-8a55-1f6f0a3c2b77")

const maxIdempotencyKey = 255

// idempotencyKey returns the request's idempotency key within its scope, as the id of
// the command that the request asks for, and uuid.Nil without the header. The scope is
// the organization, the consumer who acts or is acted for, the method and the path. The
// credential is not part of it: a client repeats a request with the key or token that it
// has by then.
func idempotencyKey(x *exchange, r *http.Request) (uuid.UUID, error) {
	keys, ok := r.Header["Idempotency-Key"]
	if !ok {
		return uuid.Nil, nil
	}
	if len(keys) > 1 || !domain.VisibleASCII(keys[0], maxIdempotencyKey) {
		return uuid.Nil, invalid(domain.Detail{Field: "Idempotency-Key", Message: "must be 1 to 255 visible ASCII characters"})
	}
	scoped := domain.HashParts(
		[]byte(x.organization.ID), []byte(x.consumer), []byte(r.Method), []byte(r.URL.Path), []byte(keys[0]),
	)
	return uuid.NewSHA1(commandNamespace, scoped[:]), nil
}

// readRepeatable reads a creation: the object in its body, and what makes it
// repeatable.
func readRepeatable(x *exchange, r *http.Request) (domain.Fields, commands.IdempotencyKey, error) {
	id, err := idempotencyKey(x, r)
	if err != nil {
		return nil, commands.IdempotencyKey{}, err
	}
	fields, b, err := readFields(x, r)
	return fields, commandKey(id, b), err
}

// commandKey is what makes a command repeatable: its id and the body that came with
// it. A command without an id has the zero Key, and is not repeatable.
func commandKey(id uuid.UUID, b body) commands.IdempotencyKey {
	if id == uuid.Nil {
		return commands.IdempotencyKey{}
	}
	return commands.IdempotencyKey{CommandID: id, BodyHash: b.hash()}
}
