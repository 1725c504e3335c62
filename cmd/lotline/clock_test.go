package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Machines set their clocks. Time in a stream never runs backwards for it, and
// what is done stays done.
func TestClock_jumpsChangeNothingThatHappened(t *testing.T) {
	t.Parallel()
	p := newProcesses(t)
	wrong := filepath.Join(t.TempDir(), "clock")
	set := func(by time.Duration) {
		t.Helper()
		// The engine never finds half of it.
		err := os.WriteFile(wrong+".new", []byte(by.String()), 0o600)
		if err == nil {
			err = os.Rename(wrong+".new", wrong)
		}
		if err != nil {
			t.Fatal(err)
		}
		p.ledger.Wrong = by
	}
	set(0)
	p.embedded(clockFile + "=" + wrong)

	// Some open before the clock is set, some would have opened right after, some
	// open and close within the two hours that it is then set ahead.
	schedule := func(n int, openAt, endAt string) (paths []string) {
		for i := range n {
			paths = append(paths, p.create(0, collections[i%3], body(`,"openAt":%q`, openAt)+ends(collections[i%3], endAt)))
		}
		return paths
	}
	early := schedule(9, in(300), in(5_000_000))
	soon := schedule(9, in(3000), in(1_800_000))
	late := schedule(9, in(3_600_000), in(5_400_000))
	byHand := schedule(3, in(5_000_000), in(9_000_000))
	var steps []*deed
	for _, path := range byHand {
		d := p.deed("updated", "POST", path+"/open", "")
		if r := p.do(0, d); r.Status != 200 {
			t.Fatalf("%d %s", r.Status, r.Body)
		}
		steps = append(steps, d)
	}
	times := 0
	everywhere := func() {
		t.Helper()
		times++
		for _, paths := range [][]string{early, soon, late, byHand} {
			for _, path := range paths {
				if r := p.do(0, p.deed("updated", "PUT", path, body(`{"name":"for the %dth time"}`, times))); r.Status != 200 && r.Status != 409 {
					t.Errorf("%d %s", r.Status, r.Body)
				}
			}
		}
		for _, d := range steps {
			r, err := d.Send(p.http, p.nodes[0].url, testSecretKey)
			if err != nil {
				t.Fatal(err)
			}
			d.Again = append(d.Again, *r)
		}
	}
	statuses := func(paths ...[]string) (all []string) {
		for _, path := range slices.Concat(paths...) {
			all = append(all, p.nodes[0].must(200, "GET", path, testSecretKey, "").object(t)["status"].(string))
		}
		return all
	}
	are := func(want string, paths ...string) bool {
		return !slices.ContainsFunc(statuses(paths), func(s string) bool { return s != want })
	}
	eventually(t, "the early ones opened", func() bool { return are("OPEN", early...) })
	everywhere()

	set(-time.Hour)
	everywhere()
	// The clock of today's machine is an hour ahead of the engine's.
	fresh := schedule(3, in(-3_600_000+200), in(3_600_000))
	eventually(t, "what is due by the new time opened", func() bool { return are("OPEN", fresh...) })
	// On a slow machine some may have opened before.
	before := statuses(early, soon, late, byHand)
	<-time.After(3 * time.Second)
	everywhere()
	if after := statuses(early, soon, late, byHand); !slices.Equal(after, before) || slices.Contains(before[:9], "SCHEDULED") {
		t.Errorf("the clock was set back, and what was %v is %v", before, after)
	}
	p.check()

	set(2 * time.Hour)
	// The first command, or timer, does all that is due first.
	for n, path := range append(soon[:4:4], late[:4]...) {
		if r := p.do(0, p.deed("updated", "PUT", path, body(`{"name":"too late %d"}`, n))); r.Status != 409 {
			t.Errorf("%d %s", r.Status, r.Body)
		}
	}
	schedule(1, in(7_300_000), in(9_000_000)) // the scheduler looks again
	for _, paths := range [][]string{early, soon, late} {
		for i, path := range paths {
			want := []string{"COMPLETED", "COMPLETED", "SETTLED"}[i%3]
			eventually(t, fmt.Sprintf("%s is %s", path, want), func() bool { return are(want, path) })
		}
	}
	everywhere()
	p.check()

	// Back where it was, and through a restart.
	set(0)
	everywhere()
	p.check()
	p.nodes[0].kill()
	p.embedded(clockFile + "=" + wrong)
	everywhere()
	p.check()
}
