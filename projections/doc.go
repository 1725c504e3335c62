// Package projections holds the read models: what queries are answered from. They
// are built from the log, in its order, kept in memory in structures made for
// their queries, and written behind to a SQLite file, so that a restart reads
// only the log's tail. The file holds nothing that the log does not: it may be
// thrown away at any time.
//
//   - The catalog has every distribution, for getting one and for listing them.
//   - The deadlines are the next wakes of all distributions, organizations and signing
//     keys. Whoever keeps time is told of a stream's wake after each of its events.
//   - The accounts are the organizations and their keys.
//
// The package reads histories and believes only what domain.History accepts; a
// stream that it refuses is quarantined, and everything else goes on. Other packages
// that find a history inconsistent report it to Views.Quarantine, and those that decide
// or publish ask before.
//
// It must not decide anything, cause anything outside (a rebuild handles every
// event again) or follow the message bus, which may lose or reorder what the log
// does not.
package projections
