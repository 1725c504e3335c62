// Package domain holds the rules of a distribution: what it is made of, how it
// lives, what may be asked of it and when, and what a history has to look like
// to be believed.
//
// Each of the three kinds (Queue, Draw, Auction) is an aggregate in decider
// style: Decide turns a command into events or a refusal without changing
// anything, Evolve applies one event and refuses one that the rules forbid, so
// that a history is checked by the same code that made it. What the kinds share
// stands in Lifecycle, which each of them embeds and asks first. History joins
// an aggregate to its place in a stream.
//
// The package imports the standard library only. It must not do I/O, read a
// clock or make randomness: times, secrets and ids arrive from outside, and the
// time-zone database is the copy linked into the program.
package domain
