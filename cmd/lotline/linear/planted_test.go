package linear

import (
	"net/http"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/lotline/lotline/domain"
)

// story is a history in which each operation returns before the next one is called.
type story struct {
	History
}

func (s *story) then(in Input, out Output) *story {
	in.Kind = domain.KindAuction
	if in.Op.Reads() || in.Op == Create {
		in.IfMatch = NoVersion
	}
	at := time.Duration(len(s.History)) * time.Second
	s.Add(0, at, in, at+time.Millisecond, out)
	return s
}

func (s *story) create() *story {
	return s.then(Input{Op: Create}, Output{Status: http.StatusCreated, Object: draft("")})
}

// put gives the object a name, on the condition that its version is ifMatch.
func (s *story) put(name string, ifMatch, version int64) *story {
	return s.then(Input{Op: Put, Fields: map[string]string{"name": name}, IfMatch: ifMatch},
		Output{Status: http.StatusOK, Version: version, Object: draft(name)})
}

// get reads the object on a node that has acknowledged the version acknowledged.
func (s *story) get(name string, version, acknowledged int64) *story {
	return s.then(Input{Op: Get, Acknowledged: acknowledged, Named: NoVersion},
		Output{Status: http.StatusOK, Version: version, Object: draft(name)})
}

func draft(name string) Object { return Object{Status: domain.StatusDraft, Name: name} }

// Check rejects each history with a planted mistake, and accepts the others.
func TestLinear_theModelFindsWhatIsPlanted(t *testing.T) {
	t.Parallel()
	const always = NoVersion
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
