package httpapi

import (
	"maps"
	"slices"
	"testing"

	"github.com/lotline/lotline/domain"
)

func TestKinds_listEveryKindOfDistribution(t *testing.T) {
	t.Parallel()
	want := slices.Sorted(slices.Values(domain.Kinds()))
	if got := slices.Sorted(maps.Keys(kinds)); !slices.Equal(got, want) {
		t.Errorf("kinds has %q, want %q", got, want)
	}
}
