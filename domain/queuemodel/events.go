package queuemodel

// The types of the events that change a queue.
const (
	QueueCreated   = "queue.created"
	QueueOpened    = "queue.opened"
	QueueClosed    = "queue.closed"
	QueueCompleted = "queue.completed"
	QueueUpdated   = "queue.updated"

	ConsumerEntered   = "queue.consumer.entered"
	ConsumerAdmitted  = "queue.consumer.admitted"
	ConsumerCompleted = "queue.consumer.completed"
	ConsumerExpired   = "queue.consumer.expired"
	ConsumerLeft      = "queue.consumer.left"
	ConsumerDenied    = "queue.consumer.denied"
)

// outcomes maps the type of an event to the standing to which it moves an entry.
var outcomes = map[string]Standing{
	ConsumerAdmitted:  Admitted,
	ConsumerCompleted: Completed,
	ConsumerExpired:   Expired,
	ConsumerLeft:      Left,
	ConsumerDenied:    Denied,
}

// Moves reports whether events of a type move an entry from one standing to another.
func Moves(eventType string) bool { return outcomes[eventType] != None }

// The fields that an update can change.
const (
	FieldCapacity = "maxCapacity"
	FieldRate     = "admissionRate"
	FieldSession  = "sessionDurationSeconds"
	FieldCloseAt  = "closeAt"
)

// Event is an event of a queue. An event of a type that is not listed above changes
// nothing but the time.
type Event struct {
	Type string
	At   Time

	Settings Settings         // of the creation
	Changes  map[string]int64 // of an update: the new values by field; 0 for null

	// The fields of an event of an entry.
	Consumer  string
	Entry     int64    // the entry's number
	From      Standing // of leaving and of a denial
	Reason    string   // of a denial
	ExpiresAt Time     // of an admission; 0 for a session without end

	ByHand bool // an admission that a request asked for, or an update that closes
}

// Fits reports whether the entry of an event has a standing from which the event can
// move it. Events of other types always fit.
func (q *Queue) Fits(e Event) bool {
	newest, _ := q.Newest(e.Consumer)
	switch e.Type {
	case ConsumerEntered:
		return q.MayEnter(e.Consumer)
	case ConsumerAdmitted:
		return newest.Standing == Queued
	case ConsumerCompleted, ConsumerExpired:
		return newest.Standing == Admitted
	case ConsumerLeft, ConsumerDenied:
		return newest.Standing == Queued || newest.Standing == Admitted
	}
	return true
}

// Apply applies an event to the queue. An event that does not fit changes only the time.
// The exception is a consumer's second entry, which is applied.
func (q *Queue) Apply(e Event) {
	q.Latest = e.At
	switch e.Type {
	case QueueCreated:
		q.Settings = e.Settings
	case QueueOpened:
		q.Status, q.credit, q.creditAt = StatusOpen, 0, e.At
	case QueueClosed:
		q.Status = StatusClosed
	case QueueCompleted:
		q.Status = StatusCompleted
	case QueueUpdated:
		q.update(e)
	case ConsumerEntered:
		if q.newest == nil {
			q.newest = map[string]int{}
		}
		q.newest[e.Consumer] = len(q.entries)
		q.entries = append(q.entries, Entry{Consumer: e.Consumer, Number: e.Entry, Standing: Queued, EnteredAt: e.At})
		q.waiting++
	default:
		if to := outcomes[e.Type]; to != None && q.Fits(e) {
			q.move(&q.entries[q.newest[e.Consumer]], to, e)
		}
	}
}

// move applies an event that moves an entry.
func (q *Queue) move(entry *Entry, to Standing, e Event) {
	if entry.Standing == Queued {
		q.waiting--
	}
	entry.Standing = to
	switch to {
	case Admitted:
		entry.AdmittedAt, entry.ExpiresAt = e.At, e.ExpiresAt
		if !e.ByHand {
			q.credit, q.creditAt, q.lastAdmission = q.saved(e.At)-admission, e.At, e.At
		}
	case Completed:
		entry.CompletedAt = e.At
	case Denied:
		entry.Reason = e.Reason
	case None, Queued, Expired, Left:
	}
}

// update applies an update.
func (q *Queue) update(e Event) {
	for field, to := range e.Changes {
		switch field {
		case FieldCapacity:
			q.Capacity = to
		case FieldSession:
			q.Session = to
		case FieldCloseAt:
			q.CloseAt = Time(to)
		case FieldRate:
			// The queue keeps no more credit than the bucket of the new rate holds.
			q.credit, q.creditAt = min(q.saved(e.At), bucket(to)), e.At
			if q.Rate = to; to == 0 {
				q.credit = 0
			}
		}
	}
}
