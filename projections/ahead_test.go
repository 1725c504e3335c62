package projections

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/lotline/lotline/domain"
)

// LaterThan finds the streams with later times, whether the views have followed the log or
// were loaded from their file.
func TestLaterThan(t *testing.T) {
	t.Parallel()
	l := newLog()
	path := filepath.Join(t.TempDir(), "views.db")
	v := openViews(t, path)
	org := l.organization(t)
	early := l.create(t, org, domain.KindQueue, nil)
	began := l.now
	l.now = began.Add(time.Hour)
	late := l.create(t, org, domain.KindDraw, nil)
	l.now = began.Add(2 * time.Hour)
	latest := l.create(t, org, domain.KindAuction, nil)
	l.must(t, latest, domain.Delete{})
	check := func(v *Views) {
		t.Helper()
		for after, want := range map[time.Duration][]StreamTime{
			0:                 {{latest.Stream(), began.Add(2 * time.Hour)}, {late.Stream(), began.Add(time.Hour)}},
			time.Hour:         {{latest.Stream(), began.Add(2 * time.Hour)}},
			2 * time.Hour:     nil,
			100 * time.Hour:   nil,
			-time.Millisecond: {{latest.Stream(), began.Add(2 * time.Hour)}, {late.Stream(), began.Add(time.Hour)}, {early.Stream(), began}},
		} {
			got := v.LaterThan(began.Add(after))
			if after < 0 { // the organization may be among them
				got = slices.DeleteFunc(got, func(s StreamTime) bool { return s.Stream == org.Stream() })
			}
			if !slices.Equal(got, want) {
				t.Errorf("later than %s are %v, want %v", after, got, want)
			}
		}
	}
	follow(v, l)
	check(v)
	save(t, v)
	closeViews(t, v)
	again := openViews(t, path)
	defer closeViews(t, again)
	check(again)
}
