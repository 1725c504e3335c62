package domain_test

import (
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
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
