package eventstore

import (
	"fmt"
	"reflect"

	"github.com/goccy/go-json"

	"github.com/lotline/lotline/domain"
)

// codec maps stored event names and schema versions to Go types, and back. It is
// immutable. The names are written out here and never derived, so renaming a Go type
// changes nothing in the log.
type codec struct {
	decoders map[schema]func([]byte) (domain.Event, error)
	names    map[typeOfKind]schema
	upcasts  map[schema]func([]byte) ([]byte, error)
}

// schema is a stored event name and the version of its shape.
type schema struct {
	name    string
	version int
}

type typeOfKind struct {
	goType reflect.Type
	kind   domain.Kind
}

// newCodec lists every event that has ever been stored. If a shape changes, add its new
// version here and an upcast from the old version. Golden files in testdata/events pin
// every shape.
func newCodec() *codec {
	c := &codec{
		decoders: map[schema]func([]byte) (domain.Event, error){},
		names:    map[typeOfKind]schema{},
		upcasts:  map[schema]func([]byte) ([]byte, error){},
	}
	const queue, draw, auction = domain.KindQueue, domain.KindDraw, domain.KindAuction
	register[*domain.QueueCreated](c, "created", 1, queue)
	register[*domain.DrawCreated](c, "created", 1, draw)
	register[*domain.AuctionCreated](c, "created", 1, auction)
	register[domain.Updated](c, "updated", 1, queue, draw, auction, domain.KindOrganization)
	register[domain.Scheduled](c, "scheduled", 1, queue, draw, auction)
	register[domain.Unscheduled](c, "unscheduled", 1, queue, draw, auction)
	register[domain.Opened](c, "opened", 1, queue, draw, auction)
	register[domain.Closed](c, "closed", 1, queue, auction)
	register[domain.DrawClosed](c, "closed", 1, draw)
	register[domain.EntropySupplied](c, "entropy.supplied", 1, draw)
	register[domain.Drawn](c, "drawn", 1, draw)
	register[domain.Settled](c, "settled", 1, auction)
	register[domain.Completed](c, "completed", 1, queue, draw)
	register[domain.Deleted](c, "deleted", 1, queue, draw, auction)
	register[domain.ConsumerEntered](c, "consumer.entered", 1, queue)
	register[domain.ConsumerAdmitted](c, "consumer.admitted", 1, queue)
	register[domain.ConsumerCompleted](c, "consumer.completed", 1, queue)
	register[domain.ConsumerExpired](c, "consumer.expired", 1, queue)
	register[domain.ConsumerLeft](c, "consumer.left", 1, queue)
	register[domain.ConsumerDenied](c, "consumer.denied", 1, queue)
	register[domain.OrganizationCreated](c, "created", 1, domain.KindOrganization)
	register[domain.KeyCreated](c, "key.created", 1, domain.KindOrganization)
	register[domain.KeyRevoked](c, "key.revoked", 1, domain.KindOrganization)
	register[domain.KeyExpired](c, "key.expired", 1, domain.KindOrganization)
	register[*domain.SigningKeyCreated](c, "key.created", 1, domain.KindSigning)
	register[domain.SigningKeyRevoked](c, "key.revoked", 1, domain.KindSigning)
	register[domain.Claimed](c, "made", 1, domain.KindClaim)
	register[*domain.SealChecked](c, "checked", 1, domain.KindSeal)
	register[domain.Leased](c, "leased", 1, domain.KindSink)
	register[domain.ClockCompared](c, "compared", 1, domain.KindClock)
	return c
}

// register adds an event as "<kind>.<suffix>" for each kind. It panics if the name is
// taken, because that is a mistake in the list above.
func register[E domain.Event](c *codec, suffix string, version int, kinds ...domain.Kind) {
	for _, kind := range kinds {
		s := schema{string(kind) + "." + suffix, version}
		if _, taken := c.decoders[s]; taken {
			panic(fmt.Sprintf("event %s version %d is registered twice", s.name, s.version))
		}
		c.decoders[s] = func(data []byte) (domain.Event, error) {
			var e E
			err := json.Unmarshal(data, &e)
			return e, err
		}
		c.names[typeOfKind{reflect.TypeFor[E](), kind}] = s
	}
}

// schemaOf returns the stored name and version of e in a stream of a kind.
func (c *codec) schemaOf(kind domain.Kind, e domain.Event) (schema, error) {
	s, ok := c.names[typeOfKind{reflect.TypeOf(e), kind}]
	if !ok {
		return schema{}, fmt.Errorf("a %s has no %T", kind, e)
	}
	return s, nil
}

// encode returns e as JSON. The caller has sealed its secrets.
func (c *codec) encode(e domain.Event) ([]byte, error) {
	// Fields must come back byte for byte, so encode escapes only what JSON requires.
	return json.MarshalWithOption(e, json.DisableHTMLEscape())
}

// decode returns an event from its stored form, in any version that was ever stored.
func (c *codec) decode(s schema, data []byte) (domain.Event, error) {
	for {
		upcast, old := c.upcasts[s]
		if !old {
			break
		}
		var err error
		if data, err = upcast(data); err != nil {
			return nil, fmt.Errorf("upcast %s from version %d: %w", s.name, s.version, err)
		}
		s.version++
	}
	decode, ok := c.decoders[s]
	if !ok {
		return nil, fmt.Errorf("event type %q version %d is unknown to this program", s.name, s.version)
	}
	e, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("decode %s version %d: %w", s.name, s.version, err)
	}
	return e, nil
}
