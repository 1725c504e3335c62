// Package httpapi serves the engine over HTTP: it authenticates, reads the
// request, hands a command to package commands or a query to package projections,
// and writes the answer.
//
// It must not hold rules of distributions: these are in package domain. It must not
// hold state either, except the latest position that this node acknowledged to each
// organization, the rate limits, and the tokens that it verified. Every refusal has its
// status in errors.go, and every route is in router.go. What a single kind of
// distribution adds is in a file of that kind, and kinds.go lists these files' tables.
package httpapi
