package backoff

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestBackoff_doublesUpToTheLimit(t *testing.T) {
	t.Parallel()
	b := Backoff{First: 100 * time.Millisecond, Limit: 5 * time.Second}
	take := func(n int) (pauses []int64) {
		for range n {
			pauses = append(pauses, b.Next().Milliseconds())
		}
		return pauses
	}
	if got, want := take(8), []int64{100, 200, 400, 800, 1600, 3200, 5000, 5000}; !slices.Equal(got, want) {
		t.Errorf("pauses are %v, want %v", got, want)
	}
	b.Reset()
	if got, want := take(2), []int64{100, 200}; !slices.Equal(got, want) {
		t.Errorf("after Reset pauses are %v, want %v", got, want)
	}
	b.Raise(2 * time.Second)
	if got, want := take(3), []int64{2000, 4000, 5000}; !slices.Equal(got, want) {
		t.Errorf("after Raise pauses are %v, want %v", got, want)
	}
	b.Raise(time.Second)
	if got, want := take(1), []int64{5000}; !slices.Equal(got, want) {
		t.Errorf("Raise to a shorter pause gives %v, want %v", got, want)
	}
}

func TestSleep_endsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		whole := Sleep(t.Context(), time.Minute)
		if took := time.Since(began); took != time.Minute || !whole {
			t.Errorf("slept for %s, want a minute; reported %t", took, whole)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		whole = Sleep(ctx, time.Hour)
		if took := time.Since(began); took != time.Minute || whole {
			t.Errorf("slept for %s although the context had ended; reported %t", took-time.Minute, whole)
		}
	})
}
