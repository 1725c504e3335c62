package projections

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/domaintest"
)

// A deleted distribution is not served, but later events of its stream are still checked.
func TestViews_aDeletedDistributionIsGone(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.id("org")
	id := l.create(t, org, domain.KindQueue, map[string]string{"openAt": `"2100-01-01T00:00:00Z"`})
	kept := l.create(t, org, domain.KindQueue, nil)
	v, path := testViews(t, l)
	if v.wake(id.Stream()).At == 0 {
		t.Fatal("it does not wait for its opening")
	}
	l.must(t, id, domain.Delete{})
	follow(v, l)

	gone := func(v *Views) {
		t.Helper()
		if _, err := v.Get(org, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("got %v", err)
		}
		page, err := v.List(ListQuery{Organization: org, SortBy: SortName, Limit: 9})
		if err != nil || !slices.Equal(rowIDs(page.Rows), []domain.ID{kept}) {
			t.Errorf("listed %v, %v", rowIDs(page.Rows), err)
		}
		if v.wake(id.Stream()).At != 0 {
			t.Error("it is still woken")
		}
		if q, ok := v.Owned(org, id); !ok || q != nil {
			t.Errorf("its history is owned %v, %v", ok, q)
		}
		for _, other := range []domain.ID{"", l.id("org"), id} {
			if _, ok := v.Owned(other, id); ok {
				t.Errorf("%q owns its history", other)
			}
		}
		v.Wakes(func(w domain.Wake) bool {
			t.Errorf("%s is still woken", w.Stream)
			return true
		})
	}
	gone(v)
	save(t, v)
	restarted := openViews(t, path)
	defer restarted.Close()
	gone(restarted)

	// An event after the deletion continues the stream, but is not allowed.
	l.record(id.Stream(), domain.Opened{Stamp: domain.Stamp{At: l.now}})
	follow(v, l)
	follow(restarted, l)
	for _, v := range []*Views{v, restarted} {
		q := v.Quarantined()
		if len(q) != 1 || q[0].Rule != "nothing follows the deletion" {
			t.Errorf("in quarantine: %v", q)
		}
		if _, err := v.Get(org, id); !errors.As(err, new(*domain.HistoryError)) {
			t.Errorf("got %v", err)
		}
		if why, ok := v.Owned(org, id); !ok || why == nil || why.Rule != q[0].Rule {
			t.Errorf("its history is owned %v, %v", ok, why)
		}
	}
}

// A writer gets a state that was folded from the log, not from a file that may be damaged. It
// is a copy, so deciding on it does not change the visible state.
func TestState(t *testing.T) {
	t.Parallel()
	l := newLog()
	org := l.organization(t)
	id := l.create(t, org, domain.KindDraw, nil)
	deleted := l.create(t, org, domain.KindQueue, nil)
	l.must(t, deleted, domain.Delete{})
	broken := l.create(t, org, domain.KindQueue, nil)
	l.record(broken.Stream(), domain.Settled{Stamp: domain.Stamp{At: l.now}})
	v, path := testViews(t, l)

	got, position := v.State(id.Stream())
	if !reflect.DeepEqual(got, folded(t, l, id)) || position != v.Position() {
		t.Fatalf("%+v at %v", got, position)
	}
	if _, err := domaintest.Carry(got, l.now, fields("name", `"apart"`)); err != nil {
		t.Fatal(err)
	}
	if row, err := v.Get(org, id); err != nil || row.Distribution.Shared().Name != nil {
		t.Errorf("the visible state is %s, %v", row.JSON(), err)
	}
	unknown := l.id("queue")
	for _, id := range []domain.ID{deleted, broken, unknown, org} {
		if h, _ := v.State(id.Stream()); h != nil {
			t.Errorf("%s is %+v", id, h)
		}
	}

	save(t, v)
	restarted := openViews(t, path)
	defer restarted.Close()
	l.must(t, id, fields("name", `"after the restart"`))
	fresh := l.create(t, org, domain.KindQueue, nil)
	follow(restarted, l)
	if h, _ := restarted.State(id.Stream()); h != nil {
		t.Errorf("from a file: %+v", h)
	}
	if h, _ := restarted.State(fresh.Stream()); !reflect.DeepEqual(h, folded(t, l, fresh)) {
		t.Errorf("%+v", h)
	}
}

// folded returns a stream's state, folded from its first event.
func folded(t *testing.T, l *testLog, id domain.ID) *domain.History {
	t.Helper()
	h := domain.NewHistory(id.Stream())
	for _, r := range l.events {
		if r.Stream != h.Stream {
			continue
		}
		if err := h.Apply(r); err != nil {
			t.Fatal(err)
		}
	}
	return h
}
