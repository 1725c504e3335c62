// Package commands carries commands out: it finds the stream's one writer, which
// loads the history, decides on the state that it holds in memory, appends with
// the expected revision, and answers.
//
// It must not hold rules (they are in package domain) nor serve reads (they are
// in package projections). What it promises is in the doc comment of Handler.
package commands
