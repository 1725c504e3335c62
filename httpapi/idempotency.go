package httpapi

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/lotline/lotline/commands"
	"github.com/lotline/lotline/domain"
)

// commandNamespace is the namespace of the ids of repeatable commands, which are
// UUIDv5 (RFC 9562).
var commandNamespace = uuid.MustParse("0f9a7d0e-5a3b-4f0c-8a55-1f6f0a3c2b77")

const maxIdempotencyKey = 255

// idempotencyKey returns the client's key within its scope, or "" when there is
// none. The scope is the organization, the caller, the method and the path, so
// that one key may be used for several things.
func idempotencyKey(x *exchange, r *http.Request) (string, error) {
	keys, ok := r.Header["Idempotency-Key"]
	if !ok {
		return "", nil
	}
	if len(keys) > 1 || !domain.VisibleASCII(keys[0], maxIdempotencyKey) {
		return "", invalid(domain.Detail{Field: "Idempotency-Key", Message: "must be 1 to 255 visible ASCII characters"})
	}
	scope := []string{string(x.organization.ID), x.caller().Actor, r.Method, r.URL.Path, keys[0]}
	if x.consumer != "" {
		// Two consumers who use one key do not mean the same.
		scope = slices.Insert(scope, 2, x.consumer)
	}
	return strings.Join(scope, "\n"), nil
}

// readRepeatable reads a creation: the object in its body, and what makes it
// repeatable.
func readRepeatable(x *exchange, r *http.Request) (domain.Fields, commands.Key, error) {
	key, err := idempotencyKey(x, r)
	if err != nil {
		return nil, commands.Key{}, err
	}
	fields, b, err := readFields(x, r)
	return fields, commandKey(key, b), err
}

// commandKey is what makes a command repeatable: a scoped key and the body that
// came with it. Without a key it is the zero Key, which does not.
func commandKey(scoped string, b body) commands.Key {
	if scoped == "" {
		return commands.Key{}
	}
	return commands.Key{CommandID: uuid.NewSHA1(commandNamespace, []byte(scoped)), BodyHash: b.hash()}
}
