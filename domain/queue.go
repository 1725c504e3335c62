package domain

// QueueSettings are a queue's own fields.
type QueueSettings struct {
	MaxCapacity            Count `json:"maxCapacity"`            // consumers waiting at once; null: no bound
	AdmissionRate          Count `json:"admissionRate"`          // a minute; null: only by hand
	SessionDurationSeconds Count `json:"sessionDurationSeconds"` // null: no limit
}

// Queue gives access first come, first served. Its zero value is a queue that
// has not been created. Not safe for concurrent use.
type Queue struct {
	Lifecycle
	QueueSettings
}

// Kind is KindQueue.
func (q *Queue) Kind() Kind { return KindQueue }

func (q *Queue) fields() []field {
	return q.allFields(
		field{"maxCapacity", count(&q.MaxCapacity), nullable},
		field{"admissionRate", count(&q.AdmissionRate), nullable},
		field{"sessionDurationSeconds", seconds(&q.SessionDurationSeconds), nullable},
	)
}

func (q *Queue) preset(Defaults) {}

func (q *Queue) check(wrong *problems) { q.checkOrder(wrong, "", 0) }

func (q *Queue) created(s Stamp, _ Create) Event {
	return &QueueCreated{s, q.Identity, q.Common, q.QueueSettings}
}

func (q *Queue) entered() bool { return false }

// AppendJSON appends the queue as an admin sees it.
func (q *Queue) AppendJSON(dst []byte) []byte { return appendFields(dst, q.fields()) }

// AppendPublicJSON appends the queue as everybody may see it. Nobody waits in it,
// because nobody can enter yet.
func (q *Queue) AppendPublicJSON(dst []byte) []byte {
	return appendFields(dst, q.publicFields(
		field{"capacity", count(&q.MaxCapacity), 0},
		field{"consumerCount", shown(func(dst []byte) []byte { return append(dst, '0') }), computed},
	))
}

// Secrets names the queue's secrets.
func (q *Queue) Secrets() []SecretField { return q.secrets() }

// Fork returns a copy that can evolve without changing q.
func (q *Queue) Fork() Aggregate {
	c := *q
	return &c
}

// Decide implements Aggregate.
func (q *Queue) Decide(now Instant, cmd Command) ([]Event, error) {
	if _, ok := cmd.(Advance); ok && !q.Deleted {
		return q.due(now), nil
	}
	return q.decide(now, cmd, q)
}

func (q *Queue) due(now Instant) []Event {
	switch {
	case q.Status == StatusOpen && reached(q.CloseAt, now):
		return []Event{Closed{q.dated(q.CloseAt)}}
	case q.Status == StatusClosed:
		// Nobody was admitted, so nobody is left to finish.
		return []Event{Completed{q.dated(q.Latest)}}
	}
	return q.Lifecycle.due(now)
}

// Wake implements Aggregate.
func (q *Queue) Wake() Instant {
	switch {
	case q.Deleted:
		return 0
	case q.Status == StatusOpen:
		return q.CloseAt
	case q.Status == StatusClosed:
		return q.Latest
	}
	return q.wake()
}

// Evolve implements Aggregate.
func (q *Queue) Evolve(e Event) error {
	if err := q.admit(e); err != nil {
		return err
	}
	switch e := e.(type) {
	case *QueueCreated:
		q.QueueSettings = e.QueueSettings
		return q.begin(e, e.Identity, e.Common, KindQueue)
	case Closed:
		if q.CloseAt == 0 {
			return ruleError(ruleDue, "closed without closeAt")
		}
		return q.move(e, StatusClosed, q.CloseAt, StatusOpen)
	case Completed:
		return q.move(e, StatusCompleted, 0, StatusClosed)
	}
	return q.evolve(e, q)
}
