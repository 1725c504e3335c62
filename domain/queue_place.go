package domain

import "strconv"

// QueuePlace is a consumer's participation in a queue: the state of the latest entry.
type QueuePlace struct {
	QueueID    ID
	ConsumerID string
	Standing   Standing
	// Position is 1 for the consumer who is next, 0 while ADMITTED, and -1 otherwise.
	Position int64
	// EstimatedWait is in seconds, and -1 when nothing can be estimated.
	EstimatedWait int64
	Ticket        string
	EnteredAt     Instant
	AdmittedAt    Instant
	ExpiresAt     Instant // of the session; 0: it has no limit
	CompletedAt   Instant
	DenyReason    DenyReason
	// PollAfter is after how many milliseconds the consumer should ask again, and -1 when
	// nothing more will change.
	PollAfter int64
	// Admission is the id of the event that admitted the consumer. It is zero unless the
	// consumer is ADMITTED.
	Admission [16]byte
}

// Consumer implements Participation.
func (p *QueuePlace) Consumer() string { return p.ConsumerID }

// Grant implements Participation: an admitted consumer has a session.
func (p *QueuePlace) Grant() (Grant, bool) {
	if p.Standing != StandingAdmitted {
		return Grant{}, false
	}
	return Grant{
		Use: GrantAdmission, Consumer: p.ConsumerID, Event: p.Admission, Distribution: p.QueueID,
		From: p.AdmittedAt, Until: p.ExpiresAt,
	}, true
}

// AppendJSON implements Participation.
func (p *QueuePlace) AppendJSON(dst []byte, v View) []byte {
	text := func(s string) readOnly {
		return func(dst []byte) []byte {
			if s == "" {
				return append(dst, "null"...)
			}
			return appendString(dst, s)
		}
	}
	natural := func(n int64) readOnly {
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
		{"enteredAt", readOnly(p.EnteredAt.appendJSON), 0},
		{"admittedAt", readOnly(p.AdmittedAt.appendJSON), 0},
		{"expiresAt", readOnly(p.ExpiresAt.appendJSON), 0},
		{"completedAt", readOnly(p.CompletedAt.appendJSON), 0},
		{"admissionToken", text(v.Token), 0},
		{"denyReason", text(string(p.DenyReason)), 0},
		{"pollAfterMs", natural(p.PollAfter), 0},
	})
}

// The times after which a consumer should ask again, in milliseconds. A consumer who
// waits should ask again after a tenth of the estimated wait. When consumers are
// admitted by hand only, there is no estimate, and the time grows with the consumer's
// position.
const (
	pollSoonest  = 1_000
	pollLatest   = 60_000
	pollSession  = 5_000
	pollForPlace = 20
)

func pollAfter(p *QueuePlace) int64 {
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

// Participation implements Distribution.
func (q *Queue) Participation(consumer string) (Participation, bool) {
	p, ok := q.Place(consumer)
	if !ok {
		return nil, false
	}
	return &p, true
}

// Place is a consumer's place in the queue. It is false for a consumer who never
// entered. The queue has to know its participants.
func (q *Queue) Place(consumer string) (QueuePlace, bool) {
	e := q.line.latest(consumer)
	if e == nil {
		return QueuePlace{}, false
	}
	p := QueuePlace{
		QueueID: q.ID, ConsumerID: consumer, Standing: e.state.status, Position: -1, EstimatedWait: -1,
		Ticket:    string(appendTicket(nil, q.tickets.prepare(q.EncryptionSeed.Plain, q.ID), e.number)),
		EnteredAt: e.state.enteredAt, DenyReason: e.state.reason.reason(),
	}
	if s := e.state.session; s != nil {
		p.AdmittedAt, p.ExpiresAt = s.admittedAt, s.expiresAt
	}
	switch e.state.status {
	case StandingQueued:
		if q.Status == StatusCompleted {
			// The end of the queue denied everybody who still waited.
			p.Standing, p.DenyReason = StandingDenied, DenyQueueClosed
			break
		}
		p.Position = q.line.rank(e.number) + 1
		if r := int64(q.AdmissionRate); r > 0 && q.Status == StatusOpen {
			p.EstimatedWait = (p.Position*60 + r - 1) / r
		}
	case StandingAdmitted:
		p.Position, p.Admission = 0, e.state.session.event
		if q.AdmissionRate > 0 {
			p.EstimatedWait = 0
		}
	case StandingCompleted:
		p.CompletedAt = e.state.session.endedAt
	case StandingNone, StandingExpired, StandingDenied, StandingLeft:
	}
	p.PollAfter = pollAfter(&p)
	return p, true
}

// Tally is how many entries of a queue have each status. A consumer who left and
// entered again has several entries.
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
	panic("there is no count for consumers who never entered")
}

// Entries is how many entries were ever made.
func (t Tally) Entries() int64 {
	return t.Waiting + t.Admitted + t.Completed + t.Expired + t.Denied + t.Left
}
