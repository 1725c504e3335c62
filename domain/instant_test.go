package domain_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

func TestParseInstant(t *testing.T) {
	t.Parallel()
	const berlin, newYork, lordHowe, apia = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"
	for _, c := range []struct{ in, zone, want string }{
		// With an offset the zone does not matter.
		{"2026-12-15T09:00:00Z", "", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15T09:00:00Z", "no such zone", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15t09:00:00z", "", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15T09:00:00+01:00", newYork, "2026-12-15T08:00:00.000Z"},
		{"2026-12-15T09:00:00-05:30", "", "2026-12-15T14:30:00.000Z"},
		{"2026-12-15T09:00:00+00:00", "", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15T09:00:00-00:00", "", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15T09:00:00+23:59", "", "2026-12-14T09:01:00.000Z"},
		{"2026-12-15T09:00:00-23:59", "", "2026-12-16T08:59:00.000Z"},
		{"2026-03-29T02:30:00+01:00", berlin, "2026-03-29T01:30:00.000Z"},

		// Decimals are cut, not rounded.
		{"2026-12-15T09:00:00.1Z", "", "2026-12-15T09:00:00.100Z"},
		{"2026-12-15T09:00:00.9999Z", "", "2026-12-15T09:00:00.999Z"},
		{"2026-12-15T09:00:00.000999999999999Z", "", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15T09:00:00." + strings.Repeat("5", 100) + "Z", "", "2026-12-15T09:00:00.555Z"},
		{"2026-12-15T09:00:00.1239", berlin, "2026-12-15T08:00:00.123Z"},

		// The years 2000 to 2199, in UTC.
		{"2000-01-01T00:00:00Z", "", "2000-01-01T00:00:00.000Z"},
		{"1999-12-31T23:00:00-01:00", "", "2000-01-01T00:00:00.000Z"},
		{"2199-12-31T23:59:59.999Z", "", "2199-12-31T23:59:59.999Z"},
		{"2199-12-31T23:59:59.9999Z", "", "2199-12-31T23:59:59.999Z"},
		{"2200-01-01T00:59:59+01:00", "", "2199-12-31T23:59:59.000Z"},
		{"2024-02-29T00:00:00Z", "", "2024-02-29T00:00:00.000Z"},
		{"2000-02-29T00:00:00Z", "", "2000-02-29T00:00:00.000Z"},

		// Without an offset, the time is a local time of the zone.
		{"2026-12-15T09:00:00", "UTC", "2026-12-15T09:00:00.000Z"},
		{"2026-12-15T09:00:00", berlin, "2026-12-15T08:00:00.000Z"},
		{"2026-06-15T09:00:00", berlin, "2026-06-15T07:00:00.000Z"},
		{"2026-12-15T09:00:00", "Pacific/Kiritimati", "2026-12-14T19:00:00.000Z"},
		{"2026-12-15T09:00:00", "Pacific/Pago_Pago", "2026-12-15T20:00:00.000Z"},
		{"2026-12-15T09:00:00", "Asia/Kathmandu", "2026-12-15T03:15:00.000Z"},
		{"2198-07-01T12:00:00", berlin, "2198-07-01T10:00:00.000Z"}, // by the rule that the zone ends with

		// Around a gap and an overlap.
		{"2026-03-29T01:59:59.999", berlin, "2026-03-29T00:59:59.999Z"},
		{"2026-03-29T03:00:00", berlin, "2026-03-29T01:00:00.000Z"},
		{"2026-10-25T01:59:59.999", berlin, "2026-10-24T23:59:59.999Z"},
		{"2026-10-25T03:00:00", berlin, "2026-10-25T02:00:00.000Z"},
		{"2026-03-08T01:59:59", newYork, "2026-03-08T06:59:59.000Z"},
		{"2026-03-08T03:00:00", newYork, "2026-03-08T07:00:00.000Z"},
		{"2026-11-01T00:59:59", newYork, "2026-11-01T04:59:59.000Z"},
		{"2026-11-01T02:00:00", newYork, "2026-11-01T07:00:00.000Z"},
		{"2026-10-04T01:59:59", lordHowe, "2026-10-03T15:29:59.000Z"},
		{"2026-10-04T02:30:00", lordHowe, "2026-10-03T15:30:00.000Z"},
		{"2026-04-05T01:29:59", lordHowe, "2026-04-04T14:29:59.000Z"},
		{"2026-04-05T02:00:00", lordHowe, "2026-04-04T15:30:00.000Z"},
		{"2011-12-29T23:59:59", apia, "2011-12-30T09:59:59.000Z"},
		{"2011-12-31T00:00:00", apia, "2011-12-30T10:00:00.000Z"},
		{"2016-05-01T03:00:00", "America/Caracas", "2016-05-01T07:00:00.000Z"},
		{"2026-03-29T03:00:00", "Antarctica/Troll", "2026-03-29T01:00:00.000Z"},
	} {
		got, err := domain.ParseInstant(c.in, c.zone)
		if err != nil || got.String() != c.want {
			t.Errorf("%s in %q is %s, %v; want %s", c.in, c.zone, got, err, c.want)
		}
	}
}

func TestParseInstant_refuses(t *testing.T) {
	t.Parallel()
	const (
		berlin, newYork, lordHowe, apia = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"

		form, absent, span = "must be an RFC 3339 time", "is not a time that exists: ", "must be in the years 2000 to 2199"
		skipped, twice     = "does not exist in ", "happens twice in "
	)
	for _, c := range []struct{ in, zone, want string }{
		{"", "UTC", form},
		{"2026-12-15", "UTC", form},
		{"2026-12-15T09:00", "UTC", form},
		{"2026-12-15T09:00Z", "UTC", form},
		{"2026-12-15 09:00:00Z", "UTC", form},
		{"2026-12-15T9:00:00Z", "UTC", form},
		{"26-12-15T09:00:00Z", "UTC", form},
		{"+2026-12-15T09:00:00Z", "UTC", form},
		{"2026-12-15T09:00:00,5Z", "UTC", form},
		{"2026-12-15T09:00:00.Z", "UTC", form},
		{"2026-12-15T09:00:00 Z", "UTC", form},
		{"2026-12-15T09:00:00Z\n", "UTC", form},
		{" 2026-12-15T09:00:00Z", "UTC", form},
		{"2026-12-15T09:00:00+01", "UTC", form},
		{"2026-12-15T09:00:00+0100", "UTC", form},
		{"2026-12-15T09:00:00+1:00", "UTC", form},
		{"2026-12-15T09:00:00+24:00", "UTC", form},
		{"2026-12-15T09:00:00+01:60", "UTC", form},
		{"2026-12-15T09:00:00\u221201:00", "UTC", form},
		{"2026-12-15T09:00:00 Europe/Berlin", "UTC", form},
		{"1765789200", "UTC", form},

		{"2026-02-30T09:00:00Z", "", absent + "day out of range"},
		{"2026-02-30T09:00:00", "UTC", absent + "day out of range"},
		{"2026-02-29T09:00:00Z", "", absent + "day out of range"},
		{"2100-02-29T09:00:00Z", "", absent + "day out of range"},
		{"2026-00-15T09:00:00Z", "", absent + "month out of range"},
		{"2026-13-15T09:00:00Z", "", absent + "month out of range"},
		{"2026-12-15T24:00:00Z", "", absent + "hour out of range"},
		{"2026-12-15T09:60:00Z", "", absent + "minute out of range"},
		{"2026-12-31T23:59:60Z", "", absent + "second out of range"},

		{"1999-12-31T23:59:59.999Z", "", span},
		{"2200-01-01T00:00:00Z", "", span},
		{"1970-01-01T00:00:00Z", "", span},
		{"0000-01-01T00:00:00Z", "", span},
		{"9999-12-31T23:59:59Z", "", span},
		{"2200-01-01T00:00:00", "Pacific/Pago_Pago", span},
		{"2000-01-01T00:00:00", berlin, span},

		{"2026-12-15T09:00:00", "", "must have an offset"},
		{"2026-12-15T09:00:00", "Mars/Olympus", "is not an IANA time zone"},

		{"2026-03-29T02:00:00", berlin, skipped + berlin},
		{"2026-03-29T02:59:59.999", berlin, skipped + berlin},
		{"2026-10-25T02:00:00", berlin, twice + berlin},
		{"2026-10-25T02:59:59.999", berlin, twice + berlin},
		{"2026-03-08T02:30:00", newYork, skipped + newYork},
		{"2026-11-01T01:00:00", newYork, twice + newYork},
		{"2026-11-01T01:59:59", newYork, twice + newYork},
		{"2026-10-04T02:00:00", lordHowe, skipped + lordHowe},
		{"2026-10-04T02:29:59", lordHowe, skipped + lordHowe},
		{"2026-04-05T01:30:00", lordHowe, twice + lordHowe},
		{"2026-04-05T01:59:59", lordHowe, twice + lordHowe},
		{"2011-12-30T00:00:00", apia, skipped + apia},
		{"2011-12-30T12:00:00", apia, skipped + apia},
		{"2011-12-30T23:59:59", apia, skipped + apia},
		{"2016-05-01T02:45:00", "America/Caracas", skipped + "America/Caracas"},
		{"2007-12-09T02:45:00", "America/Caracas", twice + "America/Caracas"},
		{"2026-03-29T02:30:00", "Antarctica/Troll", skipped + "Antarctica/Troll"},
		{"2026-10-25T01:30:00", "Antarctica/Troll", twice + "Antarctica/Troll"},
		{"2015-08-14T23:45:00", "Asia/Pyongyang", twice + "Asia/Pyongyang"},
	} {
		got, err := domain.ParseInstant(c.in, c.zone)
		if got != 0 || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q in %q is %s, %v; want %q", c.in, c.zone, got, err, c.want)
		}
	}
}

// TestParseInstant_everyQuarterOfAnHour compares each local time around the changes
// of a year with what the instants around it show on the zone's clocks.
func TestParseInstant_everyQuarterOfAnHour(t *testing.T) {
	t.Parallel()
	for zone, year := range map[string]int{
		"Europe/Berlin": 2026, "Australia/Lord_Howe": 2026, "Pacific/Apia": 2011, "America/Caracas": 2007, "Africa/Casablanca": 2026,
	} {
		loc, err := domain.LoadZone(zone)
		if err != nil {
			t.Fatal(err)
		}
		const layout, step = "2006-01-02T15:04:05", 15 * time.Minute
		shown := map[string][]domain.Instant{}
		start, end := time.Date(year-1, 12, 30, 0, 0, 0, 0, time.UTC), time.Date(year+1, 1, 2, 0, 0, 0, 0, time.UTC)
		for u := start; u.Before(end); u = u.Add(step) {
			local := u.In(loc).Format(layout)
			shown[local] = append(shown[local], domain.InstantOf(u))
		}
		for wall := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC); wall.Year() == year; wall = wall.Add(step) {
			_, before := wall.Add(-36 * time.Hour).In(loc).Zone()
			if _, after := wall.Add(36 * time.Hour).In(loc).Zone(); before == after {
				continue // no change near
			}
			local := wall.Format(layout)
			got, err := domain.ParseInstant(local, zone)
			switch want := shown[local]; {
			case len(want) == 1 && (err != nil || got != want[0]):
				t.Errorf("%s in %s is %s, %v; want %s", local, zone, got, err, want[0])
			case len(want) != 1 && err == nil:
				t.Errorf("%s in %s is %s, but happens %d times", local, zone, got, len(want))
			}
		}
	}
}

func TestLoadZone(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires", "Etc/GMT+12", "EST5EDT", "US/Eastern", "America/Port-au-Prince"} {
		if loc, err := domain.LoadZone(name); err != nil || loc.String() != name {
			t.Errorf("%s: %v, %v", name, loc, err)
		}
	}
	for _, name := range []string{
		"", "Local", "localtime", "posixrules", "Factory", "posix/Europe/Berlin", "right/Europe/Berlin", "Mars/Olympus", "CEST", "+01:00",
		"Europe/Berlin ", "Europe//Berlin", "./Europe/Berlin", "Europe/./Berlin", "Europe/../Europe/Berlin", "/Europe/Berlin", "Europe/Berlin/",
		"Europe", ".", "..", "../zoneinfo/UTC", `Europe\Berlin`, "zone.tab", "tzdata.zi", "Europe/Berlin\x00",
	} {
		if _, err := domain.LoadZone(name); err == nil || !strings.Contains(err.Error(), "is not an IANA time zone") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestInstant(t *testing.T) {
	t.Parallel()
	i := domain.InstantOf(time.Date(2026, 12, 15, 9, 0, 0, 123_999_999, time.FixedZone("", 3600)))
	if got := i.String(); got != "2026-12-15T08:00:00.123Z" {
		t.Errorf("is %s", got)
	}
	if got := i.Time(); got.Location() != time.UTC || domain.InstantOf(got) != i {
		t.Errorf("as a time it is %s", got)
	}
	if got := i.Add(-2*time.Second + time.Microsecond).String(); got != "2026-12-15T07:59:58.124Z" {
		t.Errorf("almost two seconds before is %s", got)
	}
	if got := domain.Instant(0).String(); got != "never" {
		t.Errorf("zero is %s", got)
	}
	for text, want := range map[string]domain.Instant{`"2026-12-15T08:00:00.123Z"`: i, `null`: 0} {
		got := domain.Instant(1)
		if err := json.Unmarshal([]byte(text), &got); err != nil || got != want {
			t.Errorf("%s is read as %s, %v", text, got, err)
		}
		if out, err := json.Marshal(want); err != nil || string(out) != text {
			t.Errorf("%s is written as %s, %v", text, out, err)
		}
	}
	for _, text := range []string{`1`, `"2026-12-15T08:00:00"`, `""`, `true`, `"1999-01-01T00:00:00Z"`, `{}`} {
		got := i
		if err := json.Unmarshal([]byte(text), &got); err == nil || got != i {
			t.Errorf("%s is read as %s", text, got)
		}
	}
}

// A time that could not be read back is not written.
func TestInstant_aTimeThatCannotBeReadBackIsNotWritten(t *testing.T) {
	t.Parallel()
	for text, recordable := range map[string]bool{
		"1970-01-01T00:00:10Z": false, "1999-12-31T23:59:59.999Z": false, "2000-01-01T00:00:00Z": true,
		"2199-12-31T23:59:59.999Z": true, "2200-01-01T00:00:00Z": false, "2306-01-01T00:00:00Z": false,
	} {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		i := domain.InstantOf(at)
		raw, err := json.Marshal(i)
		if i.Recordable() != recordable || (err == nil) != recordable {
			t.Errorf("%s: recordable %t, %s, %v", i, i.Recordable(), raw, err)
		}
		var back domain.Instant
		if recordable && (json.Unmarshal(raw, &back) != nil || back != i) {
			t.Errorf("%s is read back as %s", i, back)
		}
	}
}
