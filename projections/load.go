package projections

import (
	"errors"
	"runtime"
	"sync"

	"github.com/ncruces/go-sqlite3"

	"github.com/lotline/lotline/domain"
)

// loaded is the content of a file.
type loaded struct {
	indexes  indexes
	position domain.Position
}

// load reads all rows. Decoding them takes most of the time, so all cores do it.
func (f *file) load(seals Opener) (loaded, error) {
	var position domain.Position
	of, writer := f.origin.ID, f.program
	err := f.each(`SELECT committed, prepared, log, program FROM position`, func(s *sqlite3.Stmt) {
		position = domain.Position{Commit: uint64(s.ColumnInt64(0)), Prepare: uint64(s.ColumnInt64(1))}
		of, writer = s.ColumnText(2), s.ColumnText(3)
	})
	if err != nil {
		return loaded{}, err
	}
	if of != f.origin.ID {
		return loaded{}, errors.New("the file is of another log")
	}
	if f.origin.Head.Before(position) {
		return loaded{}, errors.New("the log ends before the file's position: it has lost events, or is an older copy")
	}
	var states []*state
	err = f.each(`SELECT stream, owner, id, revision, type, rule, detail FROM quarantine`, func(s *sqlite3.Stmt) {
		states = append(states, &state{
			owner: domain.ID(s.ColumnText(1)),
			id:    domain.ID(s.ColumnText(2)),
			broken: &domain.HistoryError{
				Stream: s.ColumnText(0), Revision: domain.Revision(s.ColumnInt64(3)), Type: s.ColumnText(4),
				Rule: s.ColumnText(5), Detail: s.ColumnText(6),
			},
		})
	})
	if err != nil {
		return loaded{}, err
	}
	if len(states) > 0 && writer != f.program {
		return loaded{}, errors.New("streams are in quarantine because another version of this program could not read them")
	}
	decoded, err := f.loadStates(seals)
	if err != nil {
		return loaded{}, err
	}
	return loaded{build(append(states, decoded...)), position}, nil
}

// batch is how many rows a decoder takes at once.
const batch = 256

func (f *file) loadStates(seals Opener) ([]*state, error) {
	workers := make([]struct {
		states []*state
		err    error
	}, runtime.GOMAXPROCS(0))
	batches := make(chan []stored, len(workers))
	var wg sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		wg.Go(func() {
			for rows := range batches {
				for _, r := range rows {
					if w.err != nil {
						break
					}
					var s *state
					if s, w.err = r.decode(seals); w.err == nil {
						w.states = append(w.states, s)
					}
				}
			}
		})
	}

	next := make([]stored, 0, batch)
	err := f.each(`SELECT stream, revision, hash, changed, state FROM distributions
		UNION ALL SELECT stream, revision, hash, changed, state FROM organizations
		UNION ALL SELECT stream, revision, hash, changed, state FROM signing`, func(s *sqlite3.Stmt) {
		next = append(next, stored{
			stream:   s.ColumnText(0),
			revision: domain.Revision(s.ColumnInt64(1)),
			hash:     s.ColumnText(2),
			changed:  domain.Revision(s.ColumnInt64(3)),
			state:    s.ColumnBlob(4, nil),
		})
		if len(next) == batch {
			batches <- next
			next = make([]stored, 0, batch)
		}
	})
	batches <- next
	close(batches)
	wg.Wait()
	var all []*state
	for _, w := range workers {
		all = append(all, w.states...)
		err = errors.Join(err, w.err)
	}
	return all, err
}
