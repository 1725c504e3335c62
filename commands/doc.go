// Package commands carries commands out: it finds the stream's one writer, which
// loads the history, decides on the state that it holds in memory, appends with
// the expected revision, and returns the result.
//
// It must not hold rules, which are in package domain, nor serve reads, which are in
// package projections. The doc comment of Handler says what the package promises.
package commands
