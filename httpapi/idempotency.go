package httpapi

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// commandNamespace is the namespace of command ids. The id of a command with an
// idempotency key is a UUIDv5 (RFC 9562).
var commandNamespace = uuid.MustParse("0f9a7d0e-5a3b-4f0c-8a55-1f6f0a3c2b77")

// maxIdempotencyKey is the largest length of an Idempotency-Key, in bytes.
const maxIdempotencyKey = 255

// idempotencyKey returns the id of the command that a request asks for, computed from its
// Idempotency-Key header and the scope of that header. It returns uuid.Nil if the request
// has no such header. The scope is the organization, the consumer who acts (with a token,
// or through a secret key), the method and the path. The credential is not part of the
// scope: by the time of a repeat, the client may have another key or token.
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

// readRepeatable reads the fields in the body of a request, and its idempotency key.
func readRepeatable(x *exchange, r *http.Request) (domain.Fields, commands.IdempotencyKey, error) {
	id, err := idempotencyKey(x, r)
	if err != nil {
		return nil, commands.IdempotencyKey{}, err
	}
	fields, b, err := readFields(x, r)
	return fields, commandKey(id, b), err
}

// commandKey returns the idempotency key of the command with the given id and body. It is
// the zero value if id is uuid.Nil: then a repeat is a new command.
func commandKey(id uuid.UUID, b body) commands.IdempotencyKey {
	if id == uuid.Nil {
		return commands.IdempotencyKey{}
	}
	return commands.IdempotencyKey{CommandID: id, BodyHash: b.hash()}
}
