package domain_test

import (
	"archive/zip"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// Every node reads its zones from the program, whatever the machine has.
func TestLoadZone_doesNotAskTheMachine(t *testing.T) {
	t.Setenv("ZONEINFO", "/nowhere")
	for _, name := range []string{"Europe/Berlin", "America/New_York", "UTC", "Etc/GMT+12", "Pacific/Apia"} {
		loc, err := domain.LoadZone(name)
		if err != nil {
			t.Fatal(err)
		}
		if loc.String() != name {
			t.Errorf("%s is called %s", name, loc)
		}
		again, err := domain.LoadZone(name)
		if err != nil || again != loc {
			t.Errorf("%s is loaded twice", name)
		}
	}
	berlin, err := domain.LoadZone("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	if _, offset := time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC).In(berlin).Zone(); offset != 7200 {
		t.Errorf("summer in Berlin is %d s from UTC", offset)
	}
	// What some machines have and the IANA does not list, and what is no name.
	for _, name := range []string{"", "Local", "localtime", "posix/Europe/Berlin", "right/Europe/Berlin", "Factory", "Europe", "Europe/", "europe/berlin", "../UTC", "Mars/Olympus"} {
		if _, err := domain.LoadZone(name); err == nil {
			t.Errorf("%q is a zone", name)
		}
	}
}

// These zones changed their rules in 2026. Older editions are an hour off.
func TestLoadZone_knowsTheRulesOf2026(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ zone, local, want string }{
		{"America/Vancouver", "2026-12-15T09:00:00", "2026-12-15T16:00:00.000Z"},
		{"America/Edmonton", "2026-12-15T09:00:00", "2026-12-15T15:00:00.000Z"},
		{"America/Inuvik", "2026-12-15T09:00:00", "2026-12-15T15:00:00.000Z"},
		{"Africa/Casablanca", "2026-12-15T09:00:00", "2026-12-15T09:00:00.000Z"},
		{"Europe/Chisinau", "2026-03-29T02:30:00", "2026-03-29T00:30:00.000Z"},
	} {
		got, err := domain.ParseInstant(c.local, c.zone)
		if err != nil || got.String() != c.want {
			t.Errorf("%s in %s is %s, %v; want %s", c.local, c.zone, got, err, c.want)
		}
	}
}

// The names of zones differ from edition to edition. A history was decided with the
// edition of its time.
func TestEvolve_aZoneThatIsUnknownNowStillReplays(t *testing.T) {
	t.Parallel()
	zone := func(from, to string) map[string]domain.Change {
		quoted := func(s string) json.RawMessage { return json.RawMessage(fmt.Sprintf("%q", s)) }
		return map[string]domain.Change{"timeZone": {Old: quoted(from), New: quoted(to)}}
	}
	for _, k := range domain.Kinds() {
		made := created(k, "08:00", times("", "11:00"))
		domaintest.Scenario{
			Kind: k,
			Given: list(made,
				domain.Updated{Stamp: stamp("08:01"), Changed: zone("UTC", "Mars/Olympus"), Cause: domain.CauseUpdate}),
			Now: at("08:02"),
			// The zone may stay as it is when other fields change.
			When: domain.Update{Fields: domain.Fields{"name": json.RawMessage(`"red"`), "timeZone": json.RawMessage(`"Mars/Olympus"`)}},
			Then: list(domain.Updated{Stamp: stamp("08:02"), Cause: domain.CauseUpdate, Changed: map[string]domain.Change{
				"name": {Old: json.RawMessage("null"), New: json.RawMessage(`"red"`)},
			}}),
		}.Run(t)
		domaintest.Scenario{
			Kind: k,
			Given: list(made,
				domain.Updated{Stamp: stamp("08:01"), Changed: zone("UTC", "Mars/Olympus"), Cause: domain.CauseUpdate}),
			Now:     at("08:02"),
			When:    domain.Update{Fields: domain.Fields{"closeAt": json.RawMessage(`"2026-12-15T10:00:00"`)}},
			Refused: domain.ValidationFailed,
			Details: []domain.Detail{{Field: "closeAt", Message: `"Mars/Olympus" is not an IANA time zone`}},
		}.Run(t)
	}
	o := domain.NewHistory("organization-1")
	for _, e := range []domain.Event{
		domain.OrganizationCreated{Stamp: stamp("08:00"), ID: "org_1", Name: "default", TimeZone: "Mars/Valles", CurrencyCode: "USD"},
		domain.Updated{Stamp: stamp("08:01"), Changed: zone("Mars/Valles", "Mars/Olympus"), Cause: domain.CauseUpdate},
	} {
		if err := o.Aggregate.Evolve(e); err != nil {
			t.Fatal(err)
		}
	}
}

// The archive in the program holds zones and the name of their edition, nothing
// else, and each of its zones can be used.
func TestZones_everyNameInTheArchiveLoads(t *testing.T) {
	t.Parallel()
	info, err := os.Stat("zoneinfo.zip")
	if err != nil {
		t.Fatal(err)
	}
	if size := info.Size(); size < 200<<10 || size > 1<<20 {
		t.Errorf("it has %d bytes", size)
	}
	archive, err := zip.OpenReader("zoneinfo.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	names := 0
	for _, f := range archive.File {
		if f.Name == "+VERSION" {
			continue
		}
		names++
		if loc, err := domain.LoadZone(f.Name); err != nil || loc.String() != f.Name {
			t.Errorf("%s is %s, %v", f.Name, loc, err)
		}
		if f.Modified.Year() > 1980 || f.UncompressedSize64 > 8<<10 {
			t.Errorf("%s is of %s and has %d bytes", f.Name, f.Modified, f.UncompressedSize64)
		}
	}
	if names < 590 || domain.CurrentZones().Names() != names {
		t.Errorf("of %d names %d are known", names, domain.CurrentZones().Names())
	}
	if edition := domain.CurrentZones().Edition(); !regexp.MustCompile(`^20\d\d[a-z]$`).MatchString(edition) || edition < "2026f" {
		t.Errorf("the edition is %q", edition)
	}
}

func TestReadZones(t *testing.T) {
	t.Parallel()
	archive, err := zip.OpenReader("zoneinfo.zip")
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	zone := func(name string) *fstest.MapFile {
		data, err := fs.ReadFile(archive, name)
		if err != nil {
			t.Fatal(err)
		}
		return &fstest.MapFile{Data: data}
	}
	text := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	utc, berlin := zone("UTC"), zone("Europe/Berlin")
	cut := text(string(berlin.Data[:len(berlin.Data)/2]))
	many := fstest.MapFS{"UTC": utc}
	for i := range 6000 {
		many[fmt.Sprintf("x/%d", i)] = text("")
	}
	for name, c := range map[string]struct {
		files   fstest.MapFS
		edition string // or
		wrong   string
		names   int
	}{
		"with the edition's file": {files: fstest.MapFS{"+VERSION": text("2031c\n"), "UTC": utc}, edition: "2031c", names: 1},
		"with the IANA's source":  {files: fstest.MapFS{"tzdata.zi": text("# version 2031c\n# This zic input file is in the public domain.\n"), "UTC": utc}, edition: "2031c", names: 1},
		"without an edition":      {files: fstest.MapFS{"UTC": utc}, edition: "unknown", names: 1},
		"with a strange edition":  {files: fstest.MapFS{"+VERSION": text("a\nb"), "UTC": utc}, edition: "unknown", names: 1},
		"with all that systems keep there": {files: fstest.MapFS{
			"UTC": utc, "Europe/Berlin": berlin, "posix/UTC": utc, "right/UTC": cut, "localtime": utc, "posixrules": utc, "Factory": utc,
			"zone.tab": text("DE"), "leapseconds": text("# Leap"), "empty": text(""), ".hidden/UTC": utc, "Europe/.hidden": cut,
		}, edition: "unknown", names: 2},
		"nothing":                {files: fstest.MapFS{}, wrong: "it has no time zone UTC"},
		"something else":         {files: fstest.MapFS{"report.pdf": text("%PDF")}, wrong: "it has no time zone UTC"},
		"a part of a database":   {files: fstest.MapFS{"Berlin": berlin}, wrong: "it has no time zone UTC"},
		"a zone that is damaged": {files: fstest.MapFS{"UTC": utc, "Europe/Berlin": cut}, wrong: "Europe/Berlin: malformed time zone information"},
		"far too much":           {files: many, wrong: "it has more than 5000 files"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			z, err := domain.ReadZones(c.files)
			switch {
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("%v, want %s", err, c.wrong)
			case c.wrong == "" && err != nil:
				t.Error(err)
			case err == nil && (z.Edition() != c.edition || z.Names() != c.names):
				t.Errorf("edition %s with %d names, want %s with %d", z.Edition(), z.Names(), c.edition, c.names)
			}
		})
	}
}

func BenchmarkReadZones(b *testing.B) {
	archive, err := zip.OpenReader("zoneinfo.zip")
	if err != nil {
		b.Fatal(err)
	}
	defer archive.Close()
	for b.Loop() {
		if _, err := domain.ReadZones(archive); err != nil {
			b.Fatal(err)
		}
	}
}
