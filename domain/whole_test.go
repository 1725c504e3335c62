package domain_test

import (
	"errors"
	"iter"
	"testing"

	"github.com/lotline/lotline/domain"
)

// servers answer one read each, in order. Each has the events of a stream up to a
// revision, and may return an error after them.
type servers []struct {
	last domain.Revision
	err  error
}

func (s *servers) read(after domain.Revision) iter.Seq2[*domain.Recorded, error] {
	answer := (*s)[0]
	if len(*s) > 1 {
		*s = (*s)[1:]
	}
	return func(yield func(*domain.Recorded, error) bool) {
		for r := after + 1; r <= answer.last; r++ {
			if !yield(&domain.Recorded{Revision: r}, nil) {
				return
			}
		}
		if answer.err != nil {
			yield(nil, answer.err)
		}
	}
}

// A stream is damaged only if its events stay away. A server may lag behind, and a
// fault of a server is no damage.
func TestReadWhole_tellsDamageFromAServerThatLagsBehind(t *testing.T) {
	t.Parallel()
	gone := &domain.HistoryError{Rule: "gone"}
	fault := errors.New("a fault")
	for name, c := range map[string]struct {
		servers servers
		after   domain.Revision
		last    domain.Revision // that is read
		asked   int             // again
		ends    bool            // nobody waits any longer
		fault   error
		broken  bool
	}{
		"all is there":                           {servers: servers{{last: 4}}, after: -1, last: 4},
		"there is more":                          {servers: servers{{last: 9}}, after: -1, last: 9},
		"nothing is known of it":                 {servers: servers{{last: -1}}, after: 7, last: 7},
		"it comes when it is read again":         {servers: servers{{last: 2}, {last: 3}, {last: 5}}, after: -1, last: 5, asked: 2},
		"it is gone on one server only":          {servers: servers{{last: -1, err: gone}, {last: 5}}, after: 1, last: 5, asked: 1},
		"it stays away":                          {servers: servers{{last: 2}}, after: -1, last: 2, asked: 3, broken: true},
		"it stays gone":                          {servers: servers{{last: -1, err: gone}}, after: 1, last: 1, asked: 3, broken: true},
		"nobody waits for a server that is late": {servers: servers{{last: 2}}, after: -1, last: 2, asked: 1, ends: true, fault: fault},
		"a fault is no damage":                   {servers: servers{{last: 2, err: fault}}, after: -1, last: 2, fault: fault},
		"a fault after a server that is late":    {servers: servers{{last: 2}, {last: 2, err: fault}}, after: -1, last: 2, asked: 1, fault: fault},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			known := domain.Revision(4)
			if name == "nothing is known of it" {
				known = domain.NoStream
			}
			asked, next := 0, c.after
			var err error
			for r, failed := range domain.ReadWhole("queue-x", c.after, known, c.servers.read, func(attempt int) (bool, error) {
				asked++
				if c.ends {
					return false, fault
				}
				return attempt < 3, nil
			}) {
				if err = failed; err != nil {
					break
				}
				if next++; r.Revision != next {
					t.Fatalf("revision %d after %d", r.Revision, next-1)
				}
			}
			if next != c.last || asked != c.asked {
				t.Errorf("read up to %d, asked again %d times", next, asked)
			}
			broken, ok := errors.AsType[*domain.HistoryError](err)
			if ok != c.broken || c.fault != nil && !errors.Is(err, c.fault) || c.fault == nil && !c.broken && err != nil {
				t.Errorf("got %v", err)
			}
			if ok && broken != gone && (broken.Stream != "queue-x" || broken.Revision != 3) {
				t.Errorf("got %v", broken)
			}
		})
	}
}
