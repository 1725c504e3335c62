package domain

// Wake is the time at which a stream has something to do next. It follows from the
// stream's events up to Revision. Of two wakes of a stream, the one with the greater
// Revision is newer.
type Wake struct {
	Stream   string
	Revision Revision
	At       Instant // 0 for never
	// Unfinished says that more events of the same outcome are due at the time of the
	// last one. Their writer is about to append them, unless it has died.
	Unfinished bool
}
