// Package embedded is an event store for one machine: a server that speaks
// EventStoreDB's gRPC protocol over one SQLite file, so that a program needs no
// installation to run and none of its code changes when it moves to a cluster.
//
// An append is answered once its transaction is on disk, and not before. Events
// have dense positions 1, 2, 3… in the order in which they were committed, but
// clients must take positions as opaque: those of a real server have gaps.
//
// The package must know nothing of the events it keeps, must not grow features
// that a real server lacks, and must not be given anything but the protocol to
// be reached by: whatever works here has to work on a cluster.
package embedded
