// Package queuemodel is a model of a queue, written as plainly as possible. It says
// which state a queue has after an event (Apply), which event is due next without a
// request (Due), which events a request leads to (Decide), and how many consumers a queue
// may admit in a time (Pace).
//
// The property tests of package domain compare the rules with it. The load generator and
// the checks of recorded histories replay an engine's history with it. It states the
// rules of a queue a second time, independently of package domain. Therefore it must not
// import any other package of this module.
package queuemodel

import (
	"iter"
	"maps"
	"slices"
)

// Time is a point in time in milliseconds since 1970. 0 stands for no time.
type Time int64

// Status is the status of a queue.
type Status string

// The statuses of a queue. Statuses before the opening are not listed: the model needs no
// names for them.
const (
	StatusOpen      Status = "OPEN"
	StatusClosed    Status = "CLOSED"
	StatusCompleted Status = "COMPLETED"
)

// Standing is the status of an entry.
type Standing string

// The standings of an entry.
const (
	None      Standing = "" // the consumer never entered
	Queued    Standing = "QUEUED"
	Admitted  Standing = "ADMITTED"
	Completed Standing = "COMPLETED"
	Expired   Standing = "EXPIRED"
	Denied    Standing = "DENIED"
	Left      Standing = "LEFT"
)

// Settings are the fields of a queue that its rules depend on. In each field 0 stands
// for null.
type Settings struct {
	Capacity int64 // how many consumers may wait
	Rate     int64 // automatic admissions per minute
	Session  int64 // the length of a session in seconds
	CloseAt  Time
}

// Entry is one entry of a consumer in a queue.
type Entry struct {
	Consumer string
	Number   int64
	// Standing is the standing after the entry's last event. The completion of a queue
	// is no event of an entry: see Queue.Standing.
	Standing Standing

	EnteredAt, AdmittedAt, ExpiresAt, CompletedAt Time
	Reason                                        string // of a denial
}

// Queue is a queue after some events. The zero Queue is one without events.
type Queue struct {
	Settings

	Status Status
	Latest Time // of the last event

	entries []Entry        // in the order in which they were made
	newest  map[string]int // the index of each consumer's newest entry
	waiting int64          // the number of entries that are queued
	front   int            // no entry before this index is queued

	// What the queue has saved up for automatic admissions: see saved.
	credit                  int64
	creditAt, lastAdmission Time
}

// Clone returns a copy of q. Later changes to q do not change the copy.
func (q *Queue) Clone() *Queue {
	c := *q
	c.entries, c.newest = slices.Clone(q.entries), maps.Clone(q.newest)
	return &c
}

// Entries are all entries in the order in which they were made. The caller must not
// change them.
func (q *Queue) Entries() []Entry { return q.entries }

// Line iterates over the entries that are queued, the first in line first.
func (q *Queue) Line() iter.Seq[Entry] {
	return func(yield func(Entry) bool) {
		for _, e := range q.entries[q.front:] {
			if e.Standing == Queued && !yield(e) {
				return
			}
		}
	}
}

// First returns the entry that is first in line, and false if no entry is queued.
func (q *Queue) First() (Entry, bool) {
	for ; q.front < len(q.entries); q.front++ {
		if q.entries[q.front].Standing == Queued {
			return q.entries[q.front], true
		}
	}
	return Entry{}, false
}

// Waiting returns the number of entries that are queued. The completion of the queue does
// not change it.
func (q *Queue) Waiting() int64 { return q.waiting }

// Full reports whether the queue has no room for another entry.
func (q *Queue) Full() bool { return q.Capacity != 0 && q.waiting >= q.Capacity }

// Index returns the index in Entries of a consumer's newest entry, and false when the
// consumer never entered.
func (q *Queue) Index(consumer string) (int, bool) {
	i, ok := q.newest[consumer]
	return i, ok
}

// Newest returns a consumer's newest entry, and false when the consumer never
// entered.
func (q *Queue) Newest(consumer string) (Entry, bool) {
	i, ok := q.newest[consumer]
	if !ok {
		return Entry{}, false
	}
	return q.entries[i], true
}

// Standing returns the standing of a consumer's newest entry. A queue that completes
// denies the entries that are still queued.
func (q *Queue) Standing(consumer string) Standing {
	e, _ := q.Newest(consumer)
	if e.Standing == Queued && q.Status == StatusCompleted {
		return Denied
	}
	return e.Standing
}

// MayEnter reports whether a consumer can make another entry.
func (q *Queue) MayEnter(consumer string) bool {
	switch q.Standing(consumer) {
	case None, Left, Expired:
		return true
	case Queued, Admitted, Completed, Denied:
	}
	return false
}

// Unknown stands for a number that is null in an answer.
const Unknown = int64(-1)

// Place is the answer to a consumer that asks for its place: the state of its newest
// entry.
type Place struct {
	Standing      Standing
	Position      int64 // from 1; 0 when admitted, otherwise Unknown
	EstimatedWait int64 // in seconds, or Unknown

	EnteredAt, AdmittedAt, ExpiresAt, CompletedAt Time
	Reason                                        string
}

// ReasonClosed is the reason of the denial of entries that are queued when the queue
// completes.
const ReasonClosed = "QUEUE_CLOSED"

// Place returns a consumer's place, and false if the consumer never entered.
func (q *Queue) Place(consumer string) (Place, bool) {
	e, ok := q.Newest(consumer)
	p := Place{
		Standing: q.Standing(consumer), Position: Unknown, EstimatedWait: Unknown,
		EnteredAt: e.EnteredAt, AdmittedAt: e.AdmittedAt, ExpiresAt: e.ExpiresAt, CompletedAt: e.CompletedAt, Reason: e.Reason,
	}
	switch p.Standing {
	case Queued:
		p.Position = 0
		for other := range q.Line() {
			p.Position++
			if other.Number == e.Number {
				break
			}
		}
		if q.Rate > 0 && q.Status == StatusOpen {
			p.EstimatedWait = (p.Position*60 + q.Rate - 1) / q.Rate
		}
	case Admitted:
		p.Position = 0
		if q.Rate > 0 {
			p.EstimatedWait = 0
		}
	case Denied:
		if p.Reason == "" {
			p.Reason = ReasonClosed
		}
	case None, Completed, Expired, Left:
	}
	return p, ok
}
