package domain

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Standing is where a consumer stands with one entry.
type Standing uint8

// The standings. Who is QUEUED or ADMITTED may still become another; the others
// are final for their entry.
const (
	StandingNone Standing = iota // never entered
	StandingQueued
	StandingAdmitted
	StandingCompleted
	StandingExpired
	StandingDenied
	StandingLeft
)

var standings = [...]string{"", "QUEUED", "ADMITTED", "COMPLETED", "EXPIRED", "DENIED", "LEFT"}

func (s Standing) String() string { return standings[s] }

// final reports whether nothing more becomes of the entry.
func (s Standing) final() bool { return s != StandingQueued && s != StandingAdmitted }

// outside reports whether the consumer may enter, again or for the first time.
func (s Standing) outside() bool {
	return s == StandingNone || s == StandingLeft || s == StandingExpired
}

// MarshalJSON writes the name.
func (s Standing) MarshalJSON() ([]byte, error) { return appendString(nil, s.String()), nil }

// UnmarshalJSON reads what MarshalJSON writes.
func (s *Standing) UnmarshalJSON(raw []byte) error {
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return err
	}
	i := slices.Index(standings[:], name)
	if i < 1 {
		return fmt.Errorf("%q is not a standing", name)
	}
	*s = Standing(i)
	return nil
}

// DenyReason says why a consumer was denied.
type DenyReason string

// The reasons. QUEUE_CLOSED is never given by hand: it is the end of those who
// still wait when their queue is COMPLETED.
const (
	DenyOrderLimit  DenyReason = "ORDER_LIMIT_EXCEEDED"
	DenyFraud       DenyReason = "FRAUD_DETECTED"
	DenyAdmin       DenyReason = "ADMIN_ACTION"
	DenyQueueClosed DenyReason = "QUEUE_CLOSED"
)

// DenyReasons are those that may be given by hand.
func DenyReasons() []DenyReason { return []DenyReason{DenyOrderLimit, DenyFraud, DenyAdmin} }

// denial is a reason in one byte: 0 is none, the others are those that may be given
// by hand.
type denial uint8

func denialOf(r DenyReason) denial { return denial(slices.Index(DenyReasons(), r) + 1) }

func (d denial) reason() DenyReason {
	if d == 0 {
		return ""
	}
	return DenyReasons()[d-1]
}

// maxConsumerID is how long a consumer's id may be.
const maxConsumerID = 128

// Participation is a consumer's standing in a queue, by the latest entry.
type Participation struct {
	QueueID    ID
	ConsumerID string
	Standing   Standing
	// Position is 1 for who is next, 0 for who is ADMITTED, and -1 otherwise.
	Position int64
	// EstimatedWait is in seconds, -1 when there is nothing to go by.
	EstimatedWait int64
	Ticket        string
	EnteredAt     Instant
	AdmittedAt    Instant
	ExpiresAt     Instant // of the session; 0: it has no limit
	CompletedAt   Instant
	DenyReason    DenyReason
	// PollAfter is how long to wait before asking again, in milliseconds, and -1 when
	// there is nothing to wait for.
	PollAfter int64
	// Admission is the id of the event that admitted the consumer, for who is ADMITTED.
	Admission [16]byte
}

// AppendJSON appends the participation as the API shows it. admissionToken is the
// token that its session gives access with, or "".
func (p *Participation) AppendJSON(dst []byte, admissionToken string) []byte {
	text := func(s string) shown {
		return func(dst []byte) []byte {
			if s == "" {
				return append(dst, "null"...)
			}
			return appendString(dst, s)
		}
	}
	natural := func(n int64) shown {
		return func(dst []byte) []byte {
			if n < 0 {
				return append(dst, "null"...)
			}
			return strconv.AppendInt(dst, n, 10)
		}
	}
	return appendFields(dst, []field{
		{"queueId", text(string(p.QueueID)), 0},
		{"consumerId", text(p.ConsumerID), 0},
		{"status", text(p.Standing.String()), 0},
		{"position", natural(p.Position), 0},
		{"estimatedWaitTimeInSeconds", natural(p.EstimatedWait), 0},
		{"ticket", text(p.Ticket), 0},
		{"enteredAt", shown(p.EnteredAt.appendJSON), 0},
		{"admittedAt", shown(p.AdmittedAt.appendJSON), 0},
		{"expiresAt", shown(p.ExpiresAt.appendJSON), 0},
		{"completedAt", shown(p.CompletedAt.appendJSON), 0},
		{"admissionToken", text(admissionToken), 0},
		{"denyReason", text(string(p.DenyReason)), 0},
		{"pollAfterMs", natural(p.PollAfter), 0},
	})
}

// How often to ask again, in milliseconds: a tenth of the time that is left, or
// with the line's length when it moves by hand only.
const (
	pollSoonest  = 1_000
	pollLatest   = 60_000
	pollSession  = 5_000
	pollForPlace = 20
)

func pollAfter(p *Participation) int64 {
	switch {
	case p.Standing == StandingAdmitted:
		return pollSession
	case p.Standing.final():
		return -1
	case p.EstimatedWait >= 0:
		return min(max(pollSoonest, p.EstimatedWait*100), pollLatest)
	}
	return min(pollSoonest+p.Position*pollForPlace, pollLatest)
}

// Participation is where a consumer stands, or false for one who never entered.
// The queue has to know its Participants.
func (q *Queue) Participation(consumer string) (Participation, bool) {
	e := q.line.latest(consumer)
	if e == nil {
		return Participation{}, false
	}
	p := Participation{
		QueueID: q.ID, ConsumerID: consumer, Standing: e.status, Position: -1, EstimatedWait: -1,
		Ticket:    string(appendTicket(nil, q.tickets.prepare(q.EncryptionSeed.Plain, q.ID), e.number)),
		EnteredAt: e.enteredAt, DenyReason: e.reason.reason(),
	}
	if s := e.session; s != nil {
		p.AdmittedAt, p.ExpiresAt = s.admittedAt, s.expiresAt
	}
	switch e.status {
	case StandingQueued:
		if q.Status == StatusCompleted {
			// Said of all who still waited by the end of the queue.
			p.Standing, p.DenyReason = StandingDenied, DenyQueueClosed
			break
		}
		p.Position = q.line.rank(e.number) + 1
		if r := int64(q.AdmissionRate); r > 0 && q.Status == StatusOpen {
			p.EstimatedWait = (p.Position*60 + r - 1) / r
		}
	case StandingAdmitted:
		p.Position, p.Admission = 0, e.session.event
		if q.AdmissionRate > 0 {
			p.EstimatedWait = 0
		}
	case StandingCompleted:
		p.CompletedAt = e.session.endedAt
	case StandingNone, StandingExpired, StandingDenied, StandingLeft:
	}
	p.PollAfter = pollAfter(&p)
	return p, true
}

// Tally is how many entries of a queue stand where. Who left and entered again has
// several.
type Tally struct {
	Waiting   int64 `json:"waiting"`
	Admitted  int64 `json:"admitted"` // and not finished
	Completed int64 `json:"completed"`
	Expired   int64 `json:"expired"`
	Denied    int64 `json:"denied"`
	Left      int64 `json:"left"`
}

func (t *Tally) of(s Standing) *int64 {
	switch s {
	case StandingQueued:
		return &t.Waiting
	case StandingAdmitted:
		return &t.Admitted
	case StandingCompleted:
		return &t.Completed
	case StandingExpired:
		return &t.Expired
	case StandingDenied:
		return &t.Denied
	case StandingLeft:
		return &t.Left
	case StandingNone:
	}
	panic("nobody is counted who never entered")
}

// Entries is how many entries there ever were.
func (t Tally) Entries() int64 {
	return t.Waiting + t.Admitted + t.Completed + t.Expired + t.Denied + t.Left
}
