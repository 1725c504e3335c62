// Package embedded is an event store for one machine: a server that speaks EventStoreDB's
// gRPC protocol over one SQLite file, so that the engine needs no other program to run,
// and none of its code changes when it moves to a cluster.
//
// The server responds to an append only after its transaction is on disk. Events have
// dense positions 1, 2, 3… in the order of their commits. Clients must still treat
// positions as opaque: the positions of a real server have gaps.
//
// Clients connect as to a real server: by gRPC, with TLS and a password if the listener
// requires them (Access). The server also responds to /health/live over HTTP/1. Backup
// copies the file while it is in use. No other function reads the events without the
// protocol.
//
// The engine appends, reads and subscribes. The other calls are for operators' own
// programs, through EventStoreDB's official clients:
//   - The clients for NodeJS and for .NET append by BatchAppend. The client for Go, and
//     with it the engine, calls Append only.
//   - Persistent subscriptions are groups of consumers that share events. All official
//     clients have them, the client for Go included. The engine creates none.
//   - All official clients have links, deletions, tombstones and stream metadata. The
//     engine uses one of these: it sets $maxCount.
//
// "Other clients of the embedded store" in docs/operations.md lists the clients that are
// tested, and what is left out.
//
// The package must know nothing of the events it keeps. It must not offer what a real
// server lacks: whatever works here has to work on a cluster.
package embedded
