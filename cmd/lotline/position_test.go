package main

import (
	"encoding/base64"
	"encoding/binary"
	"testing"
)

// A tenant's positions tell it nothing about the writes of other tenants. It cannot use
// another tenant's position. Every engine on the store accepts the tenant's own positions.
func TestPosition_doesNotTellATenantTheVolumeOfOthers(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir, "LOTLINE_SECRET_KEY="+testSecretKey)
	admin(t, dir, "org", "create", "--name=Tenant")
	tenantsKey := admin(t, dir, "keys", "create", "--org=Tenant")
	organizationOf(t, e, tenantsKey)
	for range 3 {
		made := e.must(201, "POST", "/api/v1/queues", tenantsKey, `{"sequenceId":"s"}`)
		position := made.header.Get("X-Position")
		raw, err := base64.RawURLEncoding.DecodeString(position)
		if err != nil || len(raw) < 16 {
			t.Fatalf("%q: %v", position, err)
		}
		for i := range len(raw) - 7 {
			// In random bytes, one window in 2^31 looks like a small number.
			if n := min(binary.BigEndian.Uint64(raw[i:]), binary.LittleEndian.Uint64(raw[i:])); n < 1<<32 {
				t.Fatalf("%s reads as position %d", position, n)
			}
		}
		path := made.header.Get("Location")
		e.must(200, "GET", path, tenantsKey, "", "X-Position", position)
		if details := e.must(400, "GET", "/api/v1/queues", testSecretKey, "", "X-Position", position).object(t)["details"]; details == nil {
			t.Error("it is not said that X-Position is wrong")
		}
		for range 20 {
			e.must(201, "POST", "/api/v1/queues", testSecretKey, `{"sequenceId":"others"}`)
		}
	}
	last := e.must(201, "POST", "/api/v1/queues", tenantsKey, `{"sequenceId":"s"}`).header
	e.terminate()
	again := testBinary(t).serve(t, dir, "LOTLINE_SECRET_KEY="+testSecretKey)
	again.must(200, "GET", last.Get("Location"), tenantsKey, "", "X-Position", last.Get("X-Position"))
}
