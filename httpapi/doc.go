// Package httpapi serves the engine over HTTP: it authenticates, reads the
// request, hands a command to package commands or a query to package projections,
// and writes the answer.
//
// It must not hold rules of distributions (they are in package domain), nor
// state, beside what a node has acknowledged to whom. Everything that it may
// answer with is in one table, in errors.go; every route is in router.go.
package httpapi
