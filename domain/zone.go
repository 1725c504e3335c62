package domain

import (
	"archive/zip"
	"bytes"
	_ "embed" // for the time-zone database
	"fmt"
	"io"
	"sync"
	"time"
)

// zoneArchive is the time-zone database of the Go release that the program was
// last brought up to, `make zones`. Package time would prefer the files of the
// machine, and then nodes could disagree about what a history allows.
//
//go:embed zoneinfo.zip
var zoneArchive []byte

// zones holds the locations that were asked for, by name. There are some 600.
var zones sync.Map

// zoneFiles are the files of the archive, by name.
var zoneFiles = sync.OnceValue(func() map[string]*zip.File {
	archive, err := zip.NewReader(bytes.NewReader(zoneArchive), int64(len(zoneArchive)))
	if err != nil {
		panic("the time-zone database in the program is damaged: " + err.Error())
	}
	files := make(map[string]*zip.File, len(archive.File))
	for _, f := range archive.File {
		files[f.Name] = f
	}
	// It stands for "nobody has set the zone" and is none.
	delete(files, "Factory")
	return files
})

// LoadZone finds an IANA time zone by its name, in the program's own database.
func LoadZone(name string) (*time.Location, error) {
	if loc, ok := zones.Load(name); ok {
		return loc.(*time.Location), nil
	}
	f, ok := zoneFiles()[name]
	if !ok || f.FileInfo().IsDir() {
		return nil, fmt.Errorf("%q is not an IANA time zone", name)
	}
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("time zone %s: %w", name, err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("time zone %s: %w", name, err)
	}
	loc, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return nil, fmt.Errorf("time zone %s: %w", name, err)
	}
	zones.Store(name, loc)
	return loc, nil
}
