package domain

import (
	"fmt"
	"slices"
	"testing"
)

// Unknown returns the first MaxDetails unknown names in sorted order, and the number of
// the others.
func TestFields_unknownNamesAreBoundedAndInOrder(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, MaxDetails - 1, MaxDetails, MaxDetails + 1, 5000} {
		given := Fields{"known": nil}
		var all []string
		for i := range n {
			name := fmt.Sprintf("%05d", i*7919%100_000)
			all = append(all, name)
			given[name] = nil
		}
		slices.Sort(all)
		told := min(n, MaxDetails)
		first, more := given.Unknown(func(name string) bool { return name == "known" })
		if !slices.Equal(first, all[:told]) || more != n-told {
			t.Errorf("of %d: %d more than %q", n, more, first)
		}
	}
}

func TestError_saysHowMuchMoreIsWrong(t *testing.T) {
	t.Parallel()
	var p problems
	for range MaxDetails + 2 {
		p.add("name", "is %s", "wrong")
	}
	e, ok := p.refusal(ValidationFailed).(*Error) //nolint:errorlint // made here
	if !ok || len(e.Details) != MaxDetails || e.More != 2 {
		t.Fatalf("%+v", e)
	}
	short := &Error{Code: ValidationFailed, Details: e.Details[:1], More: 2}
	if got, want := short.Error(), "Validation failed: name is wrong; 2 more are wrong"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
