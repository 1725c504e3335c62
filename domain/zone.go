package domain

import (
	"archive/zip"
	"bytes"
	_ "embed" // for the time-zone database
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// zoneArchive is the time-zone database that the program carries: `make zones`
// brings it up to the IANA's newest edition. Package time would prefer the files of
// the machine, and then nodes could read one local time as different instants.
//
//go:embed zoneinfo.zip
var zoneArchive []byte

// carriedZones is the program's own database.
var carriedZones = sync.OnceValue(func() *Zones {
	archive, err := zip.NewReader(bytes.NewReader(zoneArchive), int64(len(zoneArchive)))
	if err != nil {
		panic("the time-zone database in the program is damaged: " + err.Error())
	}
	z, err := ReadZones(archive)
	if err != nil {
		panic("the time-zone database in the program is damaged: " + err.Error())
	}
	return z
})

// otherZones is what UseZones was given, or nil.
var otherZones atomic.Pointer[Zones]

// UseZones replaces the program's own database. The database is used to read requests.
// Histories do not depend on it.
func UseZones(z *Zones) { otherZones.Store(z) }

// CurrentZones is the database in use.
func CurrentZones() *Zones {
	if z := otherZones.Load(); z != nil {
		return z
	}
	return carriedZones()
}

// LoadZone finds an IANA time zone by its name, in the database in use.
func LoadZone(name string) (*time.Location, error) {
	loc, ok := CurrentZones().locations[name]
	if !ok {
		return nil, fmt.Errorf("%q is not an IANA time zone", name)
	}
	return loc, nil
}

// Zones is a time-zone database. It is immutable.
type Zones struct {
	edition   string
	locations map[string]*time.Location // by name
}

// Edition is the name of the IANA's edition, such as 2026f, or "unknown".
func (z *Zones) Edition() string { return z.edition }

// Names is the number of zone names. An alias counts as a name of its own.
func (z *Zones) Names() int { return len(z.locations) }

const (
	// maxZoneFiles bounds how many files are read, in case the folder is no time-zone
	// database.
	maxZoneFiles    = 5_000
	maxZoneFileSize = 1 << 20
	// zoneMagic begins every file of a time zone.
	zoneMagic = "TZif"
	// Where an edition's name is: in a file of its own, or at the beginning of the
	// IANA's source.
	editionFile   = "+VERSION"
	editionSource = "tzdata.zi"
)

// ReadZones reads a database that is laid out as /usr/share/zoneinfo is: a file in
// the TZif format for each name. It reads everything, so that the database stays
// the same when the files change. Files of other kinds are left out.
func ReadZones(files fs.FS) (*Zones, error) {
	z := &Zones{edition: readEdition(files), locations: map[string]*time.Location{}}
	seen := 0
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if seen++; seen > maxZoneFiles {
			return fmt.Errorf("it has more than %d files", maxZoneFiles)
		}
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case !isZoneName(name) && entry.IsDir():
			return fs.SkipDir
		case !isZoneName(name) || entry.IsDir():
			return nil
		}
		return z.read(files, name)
	})
	if err != nil {
		return nil, err
	}
	if z.locations["UTC"] == nil {
		return nil, errors.New("it has no time zone UTC")
	}
	return z, nil
}

// isZoneName is false for what systems keep beside the zones: copies with and
// without leap seconds, the machine's own zone, hidden files, and Factory, which
// stands for "nobody has set the zone".
func isZoneName(name string) bool {
	switch name {
	case "posix", "right", "localtime", "posixrules", "Factory":
		return false
	}
	return !strings.HasPrefix(path.Base(name), ".")
}

// read reads one file, unless it is no time zone.
func (z *Zones) read(files fs.FS, name string) error {
	// Stat follows symbolic links.
	info, err := fs.Stat(files, name)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxZoneFileSize {
		return err
	}
	data, err := fs.ReadFile(files, name)
	if err != nil || !bytes.HasPrefix(data, []byte(zoneMagic)) {
		return err
	}
	if z.locations[name], err = time.LoadLocationFromTZData(name, data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

var editionPattern = regexp.MustCompile(`^(?:# version )?(\d{4}[a-z]{0,2})\s`)

func readEdition(files fs.FS) string {
	for _, name := range []string{editionFile, editionSource} {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			continue
		}
		if m := editionPattern.FindSubmatch(append(text, '\n')); m != nil {
			return string(m[1])
		}
	}
	return "unknown"
}
