// Package domain holds the rules of a distribution: its fields, its
// lifecycle, the commands that are allowed in each status, and the rules that a
// history of events has to keep to be accepted.
//
// Each of the three kinds (Queue, Draw, Auction) is an aggregate in decider
// style: Decide turns a command into events or a refusal without changing
// anything, Evolve applies one event and refuses one that the rules forbid, so
// that a history is checked by the same code that made it. The rules that the
// kinds share are in Lifecycle, which each kind embeds and asks first. History joins
// an aggregate to its place in a stream.
//
// The package imports the standard library only. It must not do I/O, read a
// clock or make randomness: times, secrets and ids arrive from outside, and the
// time-zone database is the copy linked into the program.
package domain
