// Package embedded is an event store for one machine: a server that speaks
// EventStoreDB's gRPC protocol over one SQLite file, so that a program needs no
// installation to run and none of its code changes when it moves to a cluster.
//
// An append is answered once its transaction is on disk, and not before. Events
// have dense positions 1, 2, 3… in the order in which they were committed, but
// clients must take positions as opaque: those of a real server have gaps.
//
// Clients reach it as they reach a real server: by gRPC, with TLS and a password
// where its listener asks for them (Access), for streams and for persistent
// subscriptions, and at /health/live by HTTP. Backup copies the file while it is in
// use, and is the only thing that a program may do past the protocol.
//
// The package must know nothing of the events it keeps, and must not grow features
// for its clients that a real server lacks: whatever works here has to work on a
// cluster.
package embedded
