package linear_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/lotline/lotline/cmd/lotline/linear"
	"github.com/lotline/lotline/domain"
)

// story is a history in which one operation after another returns before the next is
// called.
type story struct {
	linear.History
}

func (s *story) then(in linear.Input, out linear.Output) *story {
	in.Kind = domain.KindAuction
	if in.Op.Reads() || in.Op == linear.Create {
		in.IfMatch = linear.NoVersion
	}
	at := time.Duration(len(s.History)) * time.Second
	s.Add(0, at, in, at+time.Millisecond, out)
	return s
}

func (s *story) create() *story {
	return s.then(linear.Input{Op: linear.Create}, linear.Output{Status: http.StatusCreated, Object: draft("")})
}

// put gives the object a name, if it has the version ifMatch.
func (s *story) put(name string, ifMatch, version int64) *story {
	return s.then(linear.Input{Op: linear.Put, Fields: map[string]string{"name": name}, IfMatch: ifMatch},
		linear.Output{Status: http.StatusOK, Version: version, Object: draft(name)})
}

// get reads on a node that has acknowledged a version.
func (s *story) get(name string, version, acknowledged int64) *story {
	return s.then(linear.Input{Op: linear.Get, Acknowledged: acknowledged, Named: linear.NoVersion},
		linear.Output{Status: http.StatusOK, Version: version, Object: draft(name)})
}

func draft(name string) linear.Object { return linear.Object{Status: domain.StatusDraft, Name: name} }

// The model refuses each mistake that is planted in a history, and nothing else.
func TestLinear_theModelFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	const always = linear.NoVersion
	for name, c := range map[string]struct {
		nodes int
		told  *story
		want  porcupine.CheckResult
	}{
		"nothing":                                   {1, new(story).create().put("a", always, 1).get("a", 1, 1).put("b", 1, 2).get("b", 2, 2), porcupine.Ok},
		"an old version on another node":            {2, new(story).create().put("a", always, 1).get("", 0, 0), porcupine.Ok},
		"an acknowledged update is lost":            {1, new(story).create().put("a", always, 1).get("", 0, 1), porcupine.Illegal},
		"a client reads what it has overwritten":    {2, new(story).create().put("a", always, 1).get("", 0, 1), porcupine.Illegal},
		"an update is carried out again later":      {1, new(story).create().put("a", always, 1).put("b", always, 2).get("a", 3, 2), porcupine.Illegal},
		"a condition that fails is passed over":     {1, new(story).create().put("a", always, 1).put("b", 0, 2), porcupine.Illegal},
		"an update is acknowledged under two names": {1, new(story).create().put("a", always, 1).get("b", 1, 1), porcupine.Illegal},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := c.told.Check(c.nodes); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
