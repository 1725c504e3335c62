package main

import (
	"archive/zip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

const carriedArchive = "../../domain/zoneinfo.zip"

// unpackZones makes a folder of time zones. zones maps each name in the folder to the
// built-in zone that it gets.
func unpackZones(t *testing.T, edition string, zones map[string]string) string {
	t.Helper()
	archive, err := zip.OpenReader(carriedArchive)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	dir := t.TempDir()
	for name, original := range zones {
		f, err := archive.Open(original)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		out, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := out.ReadFrom(f); err != nil {
			t.Fatal(err)
		}
		if err := out.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "+VERSION"), []byte(edition+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestZones_theVersionNamesThem(t *testing.T) {
	t.Parallel()
	for variable, edition := range map[string]string{
		"":                                   domain.CurrentZones().Edition(),
		"LOTLINE_ZONEINFO=" + carriedArchive: domain.CurrentZones().Edition(),
		"LOTLINE_ZONEINFO=" + unpackZones(t, "2031c", map[string]string{"UTC": "UTC"}): "2031c",
	} {
		stdout, stderr, code := testBinary(t).run(t, []string{variable}, "version")
		if code != 0 || !strings.HasSuffix(stdout, "\ntime zones "+edition+"\n") {
			t.Errorf("%s: exit %d, %q, %q", variable, code, stdout, stderr)
		}
	}
}

// An edition of the time zones applies to new requests only. Decisions that were made
// under another edition are served unchanged, even with zone names that no longer exist.
func TestZones_replayWhatWasDecidedUnderOtherZones(t *testing.T) {
	t.Parallel()
	dir := dataDirectory(t)
	zones := unpackZones(t, "2031c", map[string]string{"UTC": "UTC", "Mars/Olympus": "Asia/Kolkata", "Europe/Berlin": "Asia/Tokyo"})
	e := testBinary(t).serve(t, dir, "LOTLINE_ZONEINFO="+zones)
	key := e.secretKey()
	if f := scrape(t, e.url+"/metrics"); f.value("lotline_zoneinfo_info", "edition", "2031c") != 1 {
		t.Errorf("the metric is %v", f["lotline_zoneinfo_info"])
	}
	// A running engine keeps the zones that it has read.
	if err := os.RemoveAll(zones); err != nil {
		t.Fatal(err)
	}
	const local = `"openAt":"2099-12-15T09:00:00"`
	paths := map[string]string{}
	for _, zone := range []string{"Mars/Olympus", "Europe/Berlin"} {
		made := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s","timeZone":"UTC"}`).object(t)
		paths[zone] = "/api/v1/queues/" + made["id"].(string)
		e.must(200, "PUT", paths[zone], key, body(`{"timeZone":%q,%s}`, zone, local))
	}
	e.must(200, "PUT", "/api/v1/organization", key, `{"timeZone":"Mars/Olympus"}`)
	inherited := e.must(201, "POST", "/api/v1/queues", key, `{"sequenceId":"s",`+local+`}`).object(t)
	paths["inherited"] = "/api/v1/queues/" + inherited["id"].(string)
	e.kill()

	if err := os.Remove(filepath.Join(dir, viewsFile)); err != nil {
		t.Fatal(err)
	}
	e = testBinary(t).serve(t, dir)
	if f := scrape(t, e.url+"/metrics"); f.value("lotline_zoneinfo_info", "edition", domain.CurrentZones().Edition()) != 1 || f.value("lotline_quarantined_streams") != 0 {
		t.Errorf("the metrics are %v, %v", f["lotline_zoneinfo_info"], f["lotline_quarantined_streams"])
	}
	for zone, want := range map[string]string{"Mars/Olympus": "2099-12-15T03:30:00.000Z", "Europe/Berlin": "2099-12-15T00:00:00.000Z", "inherited": "2099-12-15T03:30:00.000Z"} {
		if got := e.must(200, "GET", paths[zone], key, "").object(t)["openAt"]; got != want {
			t.Errorf("in %s it opens at %s, want %s", zone, got, want)
		}
		// The write makes the engine read the history.
		e.must(200, "PUT", paths[zone], key, `{"name":"red"}`)
	}
	if got := e.must(200, "PUT", paths["Europe/Berlin"], key, "{"+local+"}").object(t)["openAt"]; got != "2099-12-15T08:00:00.000Z" {
		t.Errorf("sent again, it opens at %s", got)
	}
	if a := e.must(400, "PUT", paths["Mars/Olympus"], key, "{"+local+"}"); !strings.Contains(string(a.body), `\"Mars/Olympus\" is not an IANA time zone`) {
		t.Errorf("the zone is unknown now: %s", a.body)
	}
}
