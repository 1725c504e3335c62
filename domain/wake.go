package domain

// Wake is when a stream has something to do next, as its events up to Revision say.
// The greater Revision is the newer knowledge.
type Wake struct {
	Stream   string
	Revision Revision
	At       Instant // 0 for never
	// Unfinished says that more events of the same outcome are due at the time of the
	// last one. Their writer is about to append them, unless it has died.
	Unfinished bool
}
