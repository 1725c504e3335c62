package domain

// Status is the stage of a distribution's life.
type Status string

// The statuses. A distribution passes them in this order.
const (
	StatusDraft     Status = "DRAFT"     // openAt is null
	StatusScheduled Status = "SCHEDULED" // openAt is set, not reached
	StatusOpen      Status = "OPEN"      // entering, bidding
	StatusClosed    Status = "CLOSED"    // too late to take part
	StatusDrawn     Status = "DRAWN"     // draw: winners selected
	StatusCompleted Status = "COMPLETED" // queue, draw: nothing more happens
	StatusSettled   Status = "SETTLED"   // auction: nothing more happens
)

// Statuses are all statuses in the order in which a distribution passes them.
func Statuses() []Status {
	return []Status{StatusDraft, StatusScheduled, StatusOpen, StatusClosed, StatusDrawn, StatusCompleted, StatusSettled}
}

// beforeOpen reports whether an update may still change every setting. over reports
// whether an update may not change any setting.
func (s Status) beforeOpen() bool { return s == StatusDraft || s == StatusScheduled }
func (s Status) over() bool       { return !s.beforeOpen() && s != StatusOpen }

// deletable reports whether the distribution may be deleted: no consumer takes part or
// waits for an outcome.
func (s Status) deletable() bool {
	return s.beforeOpen() || s == StatusCompleted || s == StatusSettled
}

// statusPending is the public status of a distribution that has not opened.
const statusPending = "PENDING"
