package main

import (
	"archive/zip"
	"errors"
	"os"

	"github.com/lotline/lotline/domain"
)

// useZones replaces the built-in time-zone database with the configured one, if any.
// It reads the whole database at once: files that change later have no effect.
func (s *settings) useZones() error {
	if s.ZoneInfo == "" {
		return nil
	}
	zones, err := readZones(s.ZoneInfo)
	if err != nil {
		return badConfig("LOTLINE_ZONEINFO: %s is not a time-zone database: %w", s.ZoneInfo, err)
	}
	domain.UseZones(zones)
	return nil
}

func readZones(path string) (*domain.Zones, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		return domain.ReadZones(os.DirFS(path))
	}
	archive, err := zip.OpenReader(path)
	if err != nil {
		return nil, err
	}
	zones, err := domain.ReadZones(archive)
	return zones, errors.Join(err, archive.Close())
}
