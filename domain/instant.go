package domain

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

// Instant is a moment in milliseconds since 1970-01-01 UTC. Zero means "not
// set" and is null in JSON; every other value is written in UTC with three
// decimals of a second, "2026-12-15T09:00:00.000Z".
type Instant int64

const instantLayout = "2006-01-02T15:04:05.000Z"

// InstantOf cuts t to the millisecond.
func InstantOf(t time.Time) Instant { return Instant(t.UnixMilli()) }

// Time is i in UTC.
func (i Instant) Time() time.Time { return time.UnixMilli(int64(i)).UTC() }

// Add returns the instant d later, cut to the millisecond.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d.Milliseconds()) }

func (i Instant) String() string {
	if i == 0 {
		return "never"
	}
	return i.Time().Format(instantLayout)
}

// MarshalJSON writes null or the instant in UTC. A time that UnmarshalJSON would not
// read is an error, so that no event is stored that cannot be read back.
func (i Instant) MarshalJSON() ([]byte, error) {
	if i != 0 && !i.Recordable() {
		return nil, fmt.Errorf("%s cannot be stored: only the years 2000 to 2199 can", i)
	}
	return i.appendJSON(nil), nil
}

// Recordable reports whether i is in the years 2000 to 2199. Events can hold only such
// times.
func (i Instant) Recordable() bool { return i >= earliest && i <= latest }

func (i Instant) appendJSON(dst []byte) []byte {
	if i == 0 {
		return append(dst, "null"...)
	}
	dst = append(dst, '"')
	dst = i.Time().AppendFormat(dst, instantLayout)
	return append(dst, '"')
}

// UnmarshalJSON reads what MarshalJSON writes; a time without an offset is an
// error here, because no object's time zone is known.
func (i *Instant) UnmarshalJSON(raw []byte) error {
	if bytes.Equal(raw, []byte("null")) {
		*i = 0
		return nil
	}
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return fmt.Errorf("%s is not a time", raw)
	}
	text := string(raw[1 : len(raw)-1])
	if got, ok := parseWritten(text); ok {
		*i = got
		return nil
	}
	got, err := ParseInstant(text, "")
	if err != nil {
		return err
	}
	*i = got
	return nil
}

// parseWritten is a fast parser for what MarshalJSON writes, because read models parse
// millions of such times. A text that it does not accept may still be a valid time.
func parseWritten(s string) (Instant, bool) {
	if len(s) != len(instantLayout) {
		return 0, false
	}
	var n [7]int // year to millisecond
	field := 0
	for i := range len(s) {
		digit := s[i] - '0'
		switch layout := instantLayout[i]; {
		case layout >= '0' && layout <= '9':
			if digit > 9 {
				return 0, false
			}
			n[field] = n[field]*10 + int(digit)
		case s[i] != layout:
			return 0, false
		default:
			field++
		}
	}
	t := time.Date(n[0], time.Month(n[1]), n[2], n[3], n[4], n[5], n[6]*int(time.Millisecond), time.UTC)
	i := InstantOf(t)
	// time.Date turns a date that does not exist into another one.
	return i, t.Format(instantLayout) == s && i.Recordable()
}

var (
	timePattern = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?$`)

	earliest = InstantOf(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	latest   = InstantOf(time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)) - 1
)

// ParseInstant reads an RFC 3339 time with any offset. A local time without an
// offset is read in timeZone and refused when that zone's clocks skip it or show
// it twice. Years 2000 to 2199; more than three decimals of a second are cut.
// The error's text is meant for the sender of the time.
func ParseInstant(s, timeZone string) (Instant, error) {
	s = strings.ToUpper(s) // lower-case "t" and "z" are allowed
	m := timePattern.FindStringSubmatch(s)
	if m == nil {
		return 0, errors.New("must be an RFC 3339 time such as 2026-12-15T09:00:00Z")
	}
	var t time.Time
	var err error
	if m[2] != "" {
		t, err = time.Parse(time.RFC3339Nano, s)
	} else {
		if timeZone == "" {
			return 0, errors.New("must have an offset, such as Z or +01:00")
		}
		t, err = parseLocal(s, timeZone)
	}
	if syntax, ok := errors.AsType[*time.ParseError](err); ok {
		return 0, errors.New("is not a time that exists: " + strings.TrimPrefix(syntax.Message, ": "))
	}
	if err != nil {
		return 0, err
	}
	i := InstantOf(t)
	if !i.Recordable() {
		return 0, errors.New("must be in the years 2000 to 2199")
	}
	return i, nil
}

// parseLocal reads a wall-clock time in a zone. It tries each offset that the zone uses
// around that day. If one offset fits, it gives the answer. If none fits, the clocks
// were put forward over the time. If two fit, the clocks were put back through it.
func parseLocal(s, timeZone string) (time.Time, error) {
	wall, err := time.Parse("2006-01-02T15:04:05", s)
	if err != nil {
		return time.Time{}, err
	}
	loc, err := LoadZone(timeZone)
	if err != nil {
		return time.Time{}, err
	}
	var found []time.Time
	for _, near := range []time.Duration{-25 * time.Hour, 0, 25 * time.Hour} {
		_, offset := wall.Add(near).In(loc).Zone()
		t := wall.Add(-time.Duration(offset) * time.Second)
		if _, o := t.In(loc).Zone(); o != offset {
			continue
		}
		if len(found) == 0 || !found[len(found)-1].Equal(t) {
			found = append(found, t)
		}
	}
	switch len(found) {
	case 0:
		return time.Time{}, fmt.Errorf("does not exist in %s: the clocks are put forward over it; give an offset", timeZone)
	case 1:
		return found[0], nil
	default:
		return time.Time{}, fmt.Errorf("happens twice in %s: the clocks are put back through it; give an offset", timeZone)
	}
}
