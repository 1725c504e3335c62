package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	gojson "github.com/goccy/go-json"

	"github.com/lotline/lotline/cmd/lotline/claims"
	"github.com/lotline/lotline/domain"
	"github.com/lotline/lotline/domain/queuemodel"
)

// entry is an entry that the engine acknowledged.
type entry struct {
	consumer           int64
	sent, acknowledged time.Duration // since the run began
	position           int64
}

// queue is a queue to which only this run sends requests. It keeps what the engine
// answered, so that its history can be checked.
type queue struct {
	id           string
	rate         int64     // admissions per minute, 0 for none
	acknowledged [][]entry // of each caller

	mu       sync.Mutex                    // guards the fields below
	doubtful map[int64]bool                // consumers whose request to enter failed; they may have entered
	ends     map[int64]queuemodel.Standing // the final standing in the last answer to each consumer
}

func newQueue(id string, callers int) *queue {
	return &queue{id: id, acknowledged: make([][]entry, callers), doubtful: map[int64]bool{}, ends: map[int64]queuemodel.Standing{}}
}

func (q *queue) doubt(consumer int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.doubtful[consumer] = true
}

func (q *queue) end(consumer int64, as queuemodel.Standing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ends[consumer] = as
}

// history calls a function with each event of a distribution, in order.
func (a *api) history(ctx context.Context, id string, with func(*claims.Event)) error {
	r, err := a.request(ctx, http.MethodGet, "/api/v1/distributions/"+id+"/events", "")
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/x-ndjson")
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 1<<10))
		return fmt.Errorf("the history of %s: %d %s", id, answer.StatusCode, text)
	}
	lines := bufio.NewScanner(answer.Body)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e claims.Event
		if err := gojson.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("the history of %s: %w", id, err)
		}
		with(&e)
	}
	return lines.Err()
}

// line is a queue's history, with facts that the check needs and the model does not keep.
type line struct {
	claims.History

	positions []int64           // of each entry: its position when it was made
	admitted  []queuemodel.Time // the automatic admissions
	moved     bool              // an entry has left the line
}

func (l *line) take(e *claims.Event, v *claims.Verdicts) {
	fits := l.Take(e, v)
	switch {
	case e.Type == queuemodel.ConsumerEntered:
		l.positions = append(l.positions, l.Queue.Waiting())
	case queuemodel.Moves(e.Type):
		l.moved = true
		if fits && e.Automatic() {
			l.admitted = append(l.admitted, queuemodel.Time(e.Data.At))
		}
	}
}

// check compares the answers of a scenario with the histories of its queues. more makes
// the checks that only this scenario needs.
func (r *runner) check(ctx context.Context, scenario string, queues []*queue, more func(context.Context, *claims.Verdicts) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	v := &claims.Verdicts{}
	r.progress("%s: checking the answers against the history", scenario)
	for _, q := range queues {
		if err := r.checkQueue(ctx, q, v); err != nil {
			return err
		}
	}
	err := more(ctx, v)
	r.report.Checks = append(r.report.Checks, Checked{scenario, v.All})
	return err
}

func (r *runner) checkQueue(ctx context.Context, q *queue, v *claims.Verdicts) error {
	l := &line{}
	if err := r.api.history(ctx, q.id, func(e *claims.Event) { l.take(e, v) }); err != nil {
		return err
	}
	r.checkEntries(q, l, v)
	l.checkRate(q.rate, v)
	var shown struct {
		ConsumerCount int64 `json:"consumerCount"`
	}
	if err := r.api.show(ctx, "/api/v1/queues/"+q.id, &shown); err != nil {
		return err
	}
	v.Of(claims.Tally).Hold(shown.ConsumerCount == l.Queue.Waiting(), "%d, of whom the history has %d", shown.ConsumerCount, l.Queue.Waiting())
	return nil
}

// checkRate checks the 60 seconds that end with each admission.
func (l *line) checkRate(rate int64, v *claims.Verdicts) {
	pace := &queuemodel.Pace{}
	for i, at := range l.admitted {
		if i == 0 {
			pace.Rate(at, rate)
		}
		_, minute := pace.Admit(at)
		v.Of(claims.Rate).Hold(minute.Kept(), "%d from %s on, of at most %d", minute.Count, domain.Instant(minute.From), minute.Most)
	}
}

// checkEntries compares the entries in the history with those that were acknowledged.
func (r *runner) checkEntries(q *queue, l *line, v *claims.Verdicts) {
	type placed struct {
		place int
		entry
	}
	var all []placed
	known := make([]bool, len(l.positions)) // by place in the queue: the entry was acknowledged
	for _, entries := range q.acknowledged {
		for _, e := range entries {
			id := r.consumerID(e.consumer)
			place, ok := l.Queue.Index(id)
			v.Of(claims.Once).Hold(ok, "%s is not there", id)
			if !ok {
				continue
			}
			known[place] = true
			had := l.positions[place]
			exact := e.position == had
			if l.moved {
				// Other entries may have left the line before the engine answered.
				exact = e.position >= 0 && e.position <= had
			}
			v.Of(claims.Position).Hold(exact, "%s was told %d and had %d", id, e.position, had)
			all = append(all, placed{place, e})
		}
	}
	doubtful := map[string]bool{}
	for n := range q.doubtful {
		doubtful[r.consumerID(n)] = true
	}
	for place, e := range l.Queue.Entries() {
		v.Of(claims.Asked).Hold(known[place] || doubtful[e.Consumer], "%s", e.Consumer)
	}
	for n, as := range q.ends {
		id := r.consumerID(n)
		e, ok := l.Queue.Newest(id)
		v.Of(claims.End).Hold(ok && e.Standing == as, "%s was told %s and is %s", id, as, l.Standing(id))
	}
	slices.SortFunc(all, func(a, b placed) int { return a.place - b.place })
	var asked time.Duration // when the last request so far was sent
	for _, p := range all {
		v.Of(claims.Order).Hold(p.acknowledged >= asked, "place %d was acknowledged before one ahead of it was asked for", p.place+1)
		asked = max(asked, p.sent)
	}
}
