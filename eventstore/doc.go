// Package eventstore is the log: it keeps domain events in EventStoreDB through its
// official client, and reads them back.
//
// Log encodes events, seals their secrets, hashes, appends, reads and subscribes. Tail
// shares the process's one live subscription among all followers of the log. Package
// embedded, in a directory below this one, is a server for installations without
// EventStoreDB: the same client connects to it. Package relay publishes appended events
// on a message bus.
//
// Every call ends when its context ends, whatever the server does. Some responses make
// the official client end the whole process. This package checks responses before the
// client sees them, and returns an error for such a response. To do that it replaces the
// protobuf codec of all gRPC connections in the process. Package storetest tests what
// this package relies on in a server.
//
// This package must not know the rules of distributions: package domain knows what an
// event means. An event that cannot be decoded is passed on together with the reason,
// never dropped.
package eventstore
