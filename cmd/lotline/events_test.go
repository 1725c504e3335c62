package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestEvents_areTheBytesOfTheLogWithSecretsSealed(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	e := testBinary(t).serve(t, dir)
	key := e.secretKey()
	path := e.must(201, "POST", "/api/v1/draws", key, body(`{"sequenceId":"s","openAt":%q,"drawAt":%q,"winnerCount":1,"encryptionSeed":"very secret"}`, in(-1000), in(3_600_000))).header.Get("Location")
	e.must(200, "POST", path+"/close", key, "")
	id := strings.TrimPrefix(path, "/api/v1/draws/")
	events := "/api/v1/distributions/" + id + "/events"

	stored := eventsOf(t, officialClient(t, dir), id)
	whole := e.must(200, "GET", events, key, "")
	var page struct {
		Data []struct{ Data, Metadata json.RawMessage }
	}
	if err := json.Unmarshal(whole.body, &page); err != nil {
		t.Fatal(err)
	}
	if len(page.Data) != len(stored) {
		t.Fatalf("%d events, stored %d", len(page.Data), len(stored))
	}
	for i, got := range page.Data {
		metadata := strings.TrimSuffix(string(stored[i].UserMetadata), "}")
		if string(got.Data) != string(stored[i].Data) || !strings.HasPrefix(string(got.Metadata), metadata+`,"prevHash":"`) {
			t.Errorf("event %d is %s %s, stored %s %s", i, got.Data, got.Metadata, stored[i].Data, stored[i].UserMetadata)
		}
	}
	if created := string(page.Data[0].Data); strings.Contains(string(whole.body), "very secret") || !strings.Contains(created, `"encryptionSeed":"v1.`) {
		t.Errorf("secrets are told: %s", created)
	}
	lines := e.must(200, "GET", events, key, "", "Accept", "application/x-ndjson")
	if got := strings.Count(string(lines.body), "\n"); got != len(stored) {
		t.Errorf("%d lines: %s", got, lines.body)
	}
	if got := string(e.must(200, "GET", events+"?after=1000000", key, "").body); !strings.HasPrefix(got, `{"data":[],`) {
		t.Errorf("behind the end: %s", got)
	}
}
