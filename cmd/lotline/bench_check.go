package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	gojson "github.com/goccy/go-json"

	"github.com/lotline/lotline/domain"
)

// benchEntry is an entry that was acknowledged.
type benchEntry struct {
	consumer           int64
	sent, acknowledged time.Duration // since one time for all
	position           int64
}

// benchQueue is a queue of which every request is known, so that its history can be
// checked.
type benchQueue struct {
	id           string
	rate         int64          // of admission a minute, 0: none
	acknowledged [][]benchEntry // of each caller

	mu       sync.Mutex                // guards the fields below
	doubtful map[int64]bool            // consumers who may have entered, and may not
	ends     map[int64]domain.Standing // how consumers were told last that they ended
}

func newBenchQueue(id string, callers int) *benchQueue {
	return &benchQueue{id: id, acknowledged: make([][]benchEntry, callers), doubtful: map[int64]bool{}, ends: map[int64]domain.Standing{}}
}

func (q *benchQueue) doubt(consumer int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.doubtful[consumer] = true
}

func (q *benchQueue) end(consumer int64, as domain.Standing) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.ends[consumer] = as
}

// benchVerdicts counts for each claim how often it was looked at, and how often it did
// not hold.
type benchVerdicts struct{ all []*benchVerdict }

type benchVerdict struct {
	Claim   string `json:"claim"`
	Looked  int64  `json:"looked"`
	Broken  int64  `json:"broken"`
	Example string `json:"example,omitempty"` // of how it does not hold
}

func (v *benchVerdicts) of(claim string) *benchVerdict {
	for _, one := range v.all {
		if one.Claim == claim {
			return one
		}
	}
	one := &benchVerdict{Claim: claim}
	v.all = append(v.all, one)
	return one
}

// hold looks at a claim once more.
func (v *benchVerdict) hold(ok bool, format string, args ...any) {
	v.Looked++
	if ok {
		return
	}
	if v.Broken++; v.Example == "" {
		v.Example = fmt.Sprintf(format, args...)
	}
}

func (v *benchVerdict) add(o *benchVerdict) {
	v.Looked += o.Looked
	if v.Broken += o.Broken; v.Example == "" {
		v.Example = o.Example
	}
}

// Claims that are checked.
const (
	claimWhole    = "the history has no gap, and each event names the hash of the one before"
	claimOnce     = "every acknowledged entry is in the history once"
	claimAsked    = "nothing is in the history that nobody asked for"
	claimOrder    = "who was acknowledged before another asked stands before the other"
	claimPosition = "the position that was answered is the place in the history"
	claimTurn     = "nobody is admitted before someone who entered earlier and still waits"
	claimLife     = "nobody is admitted twice for one entry, and entries end once"
	claimRate     = "60 seconds hold no more admissions than the rate allows"
	claimTally    = "the queue's count is that of the history"
	claimForward  = "a place never gets worse while its owner waits"
	claimEnd      = "what a consumer was told last is how it ended"
	claimTable    = "the table has what was acknowledged from it"
)

// benchEvent is what is looked at in an event of a history.
type benchEvent struct {
	Type     string `json:"type"`
	Revision int64  `json:"revision"`
	Data     struct {
		At         domain.Instant `json:"at"`
		ConsumerID string         `json:"consumerId"`
		Entry      int64          `json:"entry"`
		ByHand     bool           `json:"byHand"`
	} `json:"data"`
	Metadata struct {
		Hash     string `json:"hash"`
		PrevHash string `json:"prevHash"`
	} `json:"metadata"`
}

// history calls with each event of a distribution, in order.
func (a *benchAPI) history(ctx context.Context, id string, with func(*benchEvent)) error {
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
		var e benchEvent
		if err := gojson.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("the history of %s: %w", id, err)
		}
		with(&e)
	}
	return lines.Err()
}

// benchPlace is an entry as the history has it.
type benchPlace struct {
	consumer string
	waiting  int64 // how many waited with it
	status   domain.Standing
	looked   bool // at its acknowledgement
}

// benchStandings are the standings that events bring.
var benchStandings = map[string]domain.Standing{
	"queue.consumer.admitted":  domain.StandingAdmitted,
	"queue.consumer.completed": domain.StandingCompleted,
	"queue.consumer.expired":   domain.StandingExpired,
	"queue.consumer.left":      domain.StandingLeft,
	"queue.consumer.denied":    domain.StandingDenied,
}

// benchLine is a queue's history, carried out once more.
type benchLine struct {
	places   []benchPlace
	latest   map[string]int // the latest place of a consumer
	waiting  int64
	front    int // nobody before it waits
	admitted []domain.Instant
	revision int64
	hash     string
	moved    bool // somebody has gone from the line
}

// carryOut applies an event and looks at what may be said of it.
func (l *benchLine) carryOut(e *benchEvent, v *benchVerdicts) {
	v.of(claimWhole).hold(e.Revision == l.revision && e.Metadata.PrevHash == l.hash,
		"%s has revision %d in the place of %d, or another hash before it", e.Type, e.Revision, l.revision)
	l.revision, l.hash = e.Revision+1, e.Metadata.Hash
	to, ok := benchStandings[e.Type]
	i, entered := l.latest[e.Data.ConsumerID]
	switch {
	case e.Type == "queue.consumer.entered":
		again := !entered || l.places[i].status == domain.StandingLeft || l.places[i].status == domain.StandingExpired
		v.of(claimOnce).hold(again, "%s entered again while %s", e.Data.ConsumerID, l.standing(i, entered))
		l.waiting++
		l.latest[e.Data.ConsumerID] = len(l.places)
		l.places = append(l.places, benchPlace{e.Data.ConsumerID, l.waiting, domain.StandingQueued, false})
	case ok:
		l.moved = true
		from := domain.StandingAdmitted
		if to == domain.StandingAdmitted || entered && l.places[i].status == domain.StandingQueued && to != domain.StandingCompleted && to != domain.StandingExpired {
			from = domain.StandingQueued
		}
		fits := entered && l.places[i].status == from
		v.of(claimLife).hold(fits, "%s for %s, who is %s", e.Type, e.Data.ConsumerID, l.standing(i, entered))
		if !fits {
			return
		}
		if to == domain.StandingAdmitted && !e.Data.ByHand {
			for l.places[l.front].status != domain.StandingQueued {
				l.front++
			}
			v.of(claimTurn).hold(l.front == i, "%s before %s", e.Data.ConsumerID, l.places[l.front].consumer)
			l.admitted = append(l.admitted, e.Data.At)
		}
		if from == domain.StandingQueued {
			l.waiting--
		}
		l.places[i].status = to
	}
}

func (l *benchLine) standing(i int, entered bool) string {
	if !entered {
		return "nowhere"
	}
	return l.places[i].status.String()
}

// check compares what was acknowledged with what the server says of the queues.
// more looks at what else there is.
func (b *bench) check(ctx context.Context, scenario string, queues []*benchQueue, more func(context.Context, *benchVerdicts) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Minute)
	defer cancel()
	v := &benchVerdicts{}
	b.progress("%s: checking what the server says", scenario)
	for _, q := range queues {
		if err := b.checkQueue(ctx, q, v); err != nil {
			return err
		}
	}
	err := more(ctx, v)
	b.report.Checks = append(b.report.Checks, benchChecked{scenario, v.all})
	return err
}

func (b *bench) checkQueue(ctx context.Context, q *benchQueue, v *benchVerdicts) error {
	line := &benchLine{latest: map[string]int{}}
	if err := b.api.history(ctx, q.id, func(e *benchEvent) { line.carryOut(e, v) }); err != nil {
		return err
	}
	b.checkEntries(q, line, v)
	line.checkRate(q.rate, v)
	var shown struct {
		ConsumerCount int64 `json:"consumerCount"`
	}
	if err := b.api.show(ctx, "/api/v1/queues/"+q.id, &shown); err != nil {
		return err
	}
	v.of(claimTally).hold(shown.ConsumerCount == line.waiting, "%d, of whom the history has %d", shown.ConsumerCount, line.waiting)
	return nil
}

// checkRate looks at the 60 seconds that begin with each admission.
func (l *benchLine) checkRate(rate int64, v *benchVerdicts) {
	most := int(math.Ceil(float64(rate) * 61 / 60))
	end := 0 // behind the last of the 60 seconds: it only goes forward
	for i, at := range l.admitted {
		for end < len(l.admitted) && l.admitted[end].Time().Sub(at.Time()) < time.Minute {
			end++
		}
		v.of(claimRate).hold(end-i <= most, "%d from %s on, of at most %d", end-i, at, most)
	}
}

// checkEntries compares the history's entries with those that were acknowledged.
func (b *bench) checkEntries(q *benchQueue, line *benchLine, v *benchVerdicts) {
	type placed struct {
		place int
		benchEntry
	}
	var all []placed
	for _, entries := range q.acknowledged {
		for _, e := range entries {
			id := b.consumerID(e.consumer)
			place, ok := line.latest[id]
			v.of(claimOnce).hold(ok, "%s is not there", id)
			if !ok {
				continue
			}
			p := &line.places[place]
			p.looked = true
			exact := e.position == p.waiting
			if line.moved {
				// Others may have gone before it was answered.
				exact = e.position >= 0 && e.position <= p.waiting
			}
			v.of(claimPosition).hold(exact, "%s was told %d and had %d", id, e.position, p.waiting)
			all = append(all, placed{place, e})
		}
	}
	doubtful := map[string]bool{}
	for n := range q.doubtful {
		doubtful[b.consumerID(n)] = true
	}
	for _, p := range line.places {
		v.of(claimAsked).hold(p.looked || doubtful[p.consumer], "%s", p.consumer)
	}
	for n, as := range q.ends {
		id := b.consumerID(n)
		i, ok := line.latest[id]
		v.of(claimEnd).hold(ok && line.places[i].status == as, "%s was told %s and is %s", id, as, line.standing(i, ok))
	}
	slices.SortFunc(all, func(a, b placed) int { return a.place - b.place })
	var asked time.Duration // the latest that was asked of those so far
	for _, p := range all {
		v.of(claimOrder).hold(p.acknowledged >= asked, "place %d was acknowledged before one ahead of it was asked for", p.place+1)
		asked = max(asked, p.sent)
	}
}
