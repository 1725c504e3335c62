// Package projections holds the read models, which answer the queries. It builds them from
// the events of the log, in the log's order, and keeps them in memory in structures that
// fit the queries. It also writes them to a SQLite file, so that a restart reads only the
// end of the log. The file holds nothing that is not in the log, so it may be deleted at
// any time.
//
//   - The tenants have the distributions of each organization, for getting one and for
//     listing them.
//   - The deadlines are the next wakes of all distributions, organizations and signing
//     keys. After each event of a stream the scheduler is told the stream's wake.
//   - The organizations and credentials serve authentication.
//
// The package accepts only histories that domain.History accepts. When it finds a stream
// inconsistent, it puts that stream into quarantine and goes on with the others. Other
// packages that find a history inconsistent report it to Views.Quarantine. Before they
// decide on a stream or publish its events, they ask Views.Known or Views.Believes.
//
// The package must not decide anything. It must not have effects outside, because a
// rebuild handles every event again. It must not follow the message bus, which may lose or
// reorder events.
package projections
