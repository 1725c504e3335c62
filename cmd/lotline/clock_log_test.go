package main

import (
	"errors"
	"testing"
	"time"

	"github.com/lotline/lotline/commands/walltime"
	"github.com/lotline/lotline/domain"
)

// What a sink writes holds the time as well, which nobody could read back.
func TestClockedLog_takesNothingFromAWrongClock(t *testing.T) {
	t.Parallel()
	l := clockedLog{nil, walltime.New(func() time.Time { return time.Unix(10, 0) })}
	_, _, err := l.Append(t.Context(), domain.SinkStream("bus"), domain.EmptyHead(), nil)
	if !isWrong(err) || !errors.Is(err, domain.ErrUnavailable) {
		t.Errorf("it says %v", err)
	}
}
