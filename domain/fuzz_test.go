package domain_test

import (
	"strings"
	"testing"

	"github.com/lotline/lotline/domain"
)

func FuzzParseInstant(f *testing.F) {
	for _, s := range []string{
		"2026-12-15T09:00:00Z", "2026-12-15t09:00:00.1239+01:00", "2026-03-29T02:30:00", "2026-10-25T02:30:00", "2011-12-30T12:00:00",
		"2199-12-31T23:59:59.999Z", "2000-01-01T00:00:00-23:59", "2026-02-30T00:00:00Z", "", "T", "2026-12-15T09:00:00.Z",
	} {
		for _, zone := range []string{"", "Europe/Berlin", "Pacific/Apia", "Australia/Lord_Howe", "../etc/passwd", "Local"} {
			f.Add(s, zone)
		}
	}
	f.Fuzz(func(t *testing.T, s, zone string) {
		i, err := domain.ParseInstant(s, zone)
		if err != nil {
			if i != 0 || err.Error() == "" {
				t.Fatalf("%q in %q is %s, %v", s, zone, i, err)
			}
			return
		}
		if year := i.Time().Year(); year < 2000 || year > 2199 {
			t.Fatalf("%q in %q is %s", s, zone, i)
		}
		if again, err := domain.ParseInstant(i.String(), ""); err != nil || again != i {
			t.Fatalf("%q in %q is %s, which is %s, %v", s, zone, i, again, err)
		}
		loc, err := domain.LoadZone(zone)
		if len(s) < len("2006-01-02T15:04:05Z") && err == nil && i.Time().In(loc).Format("2006-01-02T15:04:05") != strings.ToUpper(s) {
			t.Fatalf("%q in %q is %s, there %s", s, zone, i, i.Time().In(loc))
		}
	})
}

func FuzzParseAmount(f *testing.F) {
	for _, s := range []string{"1", "100.5", "0.0001", "999999999999.9999", "1e3", "-1", "0", "00.1", ".5", "1.00000", "1234567890123", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := domain.ParseAmount(s)
		if err != nil {
			if a != 0 || err.Error() == "" {
				t.Fatalf("%q is %d, %v", s, a, err)
			}
			return
		}
		if a < 1 || a > 9_999_999_999_999_999 {
			t.Fatalf("%q is %d", s, a)
		}
		whole, fraction, _ := strings.Cut(s, ".")
		if fraction = strings.TrimRight(fraction, "0"); fraction != "" {
			whole += "." + fraction
		}
		if a.String() != whole {
			t.Fatalf("%q is written as %s", s, a)
		}
		var read domain.Amount
		if err := read.UnmarshalJSON([]byte(`"` + s + `"`)); err != nil || read != a {
			t.Fatalf("%q as JSON is %d, %v; want %d", s, read, err, a)
		}
	})
}

func FuzzParseID(f *testing.F) {
	for _, s := range []string{"queue_" + uuid32, "draw_7zzzzzzzzzzzzzzzzzzzzzzzzz", "org_00000000000000000000000000", "queue_8zzzzzzzzzzzzzzzzzzzzzzzzz", "_", "queue-" + uuid32} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		prefix, rest, _ := strings.Cut(s, "_")
		id, ok := domain.ParseID(prefix, s)
		if !ok {
			if id != "" {
				t.Fatalf("%q is refused as %s", s, id)
			}
			return
		}
		if string(id) != s || len(rest) != 26 || rest[0] > '7' || strings.ToLower(rest) != rest {
			t.Fatalf("%q is %s", s, id)
		}
		if id.Kind() == "" {
			return
		}
		if again, err := domain.StreamID(id.Stream()); err != nil || again != id || domain.StreamKind(id.Stream()) != id.Kind() {
			t.Fatalf("%s is in %s, which is of %s, %v", id, id.Stream(), again, err)
		}
	})
}

func FuzzStreamID(f *testing.F) {
	for _, s := range []string{"queue-" + uuid32, "organization-" + uuid32, "org-" + uuid32, "queue--" + uuid32, "claim-1", "$ce-queue", "-", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		id, err := domain.StreamID(s)
		if err != nil {
			if id != "" {
				t.Fatalf("%q is refused as %s", s, id)
			}
			return
		}
		if again, ok := domain.ParseID(id.Kind().IDPrefix(), string(id)); !ok || again != id || id.Stream() != s || domain.StreamKind(s) != id.Kind() {
			t.Fatalf("%q is of %s, which is in %s", s, id, id.Stream())
		}
	})
}

func FuzzSplitHash(f *testing.F) {
	hash := strings.Repeat("a", 43)
	for _, s := range []string{`{"a":1,"hash":"` + hash + `"}`, `{"a":1,"hash":"` + hash + `"]`, `{"a":1}`, `{"hash":"` + hash + `"}`, `,"hash":"` + hash + `"}`, `{}`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, stored []byte) {
		metadata, hash, ok := domain.SplitHash(stored)
		if !ok {
			if metadata != nil || hash != "" {
				t.Fatalf("%q is refused as %q, %q", stored, metadata, hash)
			}
		} else if again := domain.WithHash(metadata, hash); string(again) != string(stored) {
			t.Fatalf("%q is split, and joined to %q", stored, again)
		}
		if len(stored) < 3 {
			return
		}
		if m, h, ok := domain.SplitHash(domain.WithHash(stored, strings.Repeat("b", 43))); !ok || h != strings.Repeat("b", 43) || string(m) != string(stored[:len(stored)-1])+"}" {
			t.Fatalf("%q is joined, and split into %q, %q, %t", stored, m, h, ok)
		}
	})
}
