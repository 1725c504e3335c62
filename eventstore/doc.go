// Package eventstore is the log: it keeps domain events in EventStoreDB through
// its official client, and gives them back.
//
// Log encodes, seals, hashes, appends, reads and subscribes; Tail hands the one
// live subscription of a process to all that follow it. Package embedded, below
// this one, is a server for those who do not run EventStoreDB: the same client
// talks to it. Package relay publishes what is appended to a message bus.
//
// Whatever the server does, calls end with their contexts, and an answer that the
// official client would end the process over is an error instead; for that the
// package puts itself before the codec that all gRPC of the process uses. What is
// relied on in a server, package storetest tests.
//
// It must not know the rules: what an event means is package domain's, and an
// event that cannot be decoded is passed on with the reason, not dropped.
package eventstore
