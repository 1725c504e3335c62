package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/lotline/lotline/cmd/lotline/bench"
)

// benchCmd has the flags of the load generator. Its fields must be those of
// bench.Options, in the same order.
type benchCmd struct {
	URL            string `group:"What is measured" placeholder:"http://…" help:"A running engine to measure (none: bench starts an engine, and removes it at the end)."`
	SecretKey      string `group:"What is measured" placeholder:"sk_live_…" help:"A secret key of the engine at --url. Bench makes queues with it, which stay there."`
	PublishableKey string `group:"What is measured" placeholder:"pk_live_…" help:"A publishable key of the same organization, for --url."`
	Dir            string `group:"What is measured" default:"." help:"A directory on the disk to measure. The engine that bench starts has its data directory in it, until the end (${default})."`
	Baseline       bool   `group:"What is measured" help:"Also measure a router that answers the same bytes and does nothing else."`
	Postgres       string `group:"What is measured" placeholder:"postgres://…" help:"Also measure a service that keeps the queue in a table on this PostgreSQL server. Bench creates a schema there and drops it at the end."`
	CPUProfile     string `name:"cpuprofile" group:"What is measured" placeholder:"FILE" help:"The file to write a CPU profile of the started engine to."`

	Scenario    []string      `enum:"enter,enter-many,status,launch" default:"enter,enter-many,status,launch" help:"The scenarios to run: ${enum}."`
	Connections int           `default:"64" help:"The number of concurrent connections (${default})."`
	Duration    time.Duration `default:"3s" help:"How long each server is measured at full speed. At half that rate it is measured for half as long (${default})."`
	Most        int64         `placeholder:"N" help:"The most requests that each of these measurements makes (0: as many as there is time for)."`
	Queues      int           `default:"64" help:"The number of queues in enter-many (${default})."`
	Waiting     int64         `default:"10000" help:"The number of consumers who wait in the queue of status (${default})."`
	Consumers   int64         `default:"10000" help:"The number of consumers who arrive in launch (${default})."`
	Within      time.Duration `default:"10s" help:"The time in which the consumers of launch arrive (${default})."`
	Tokens      bool          `help:"Let consumers send access tokens, which are made beforehand, instead of the secret key. The default of --most is then 20000."`

	JSON bool   `name:"json" help:"Print the report as JSON."`
	SVG  string `name:"svg" placeholder:"FILE" help:"The file to draw the latencies to."`
}

// Run runs the load generator.
func (c *benchCmd) Run(ctx context.Context, k *kong.Context, to output) error {
	variables := map[string]bool{}
	for _, command := range k.Model.Leaves(false) {
		for _, group := range command.AllFlags(false) {
			for _, f := range group {
				for _, v := range f.Envs {
					variables[v] = true
				}
			}
		}
	}
	return orBadConfig(bench.Run(ctx, bench.Options(*c), bench.Program{
		Version: programVersion(), Variables: variables, Servers: "bench-server", NewKey: newKey, Out: to.out, Err: to.err,
	}))
}

// orBadConfig turns an error about a flag into a configError. It returns other errors
// unchanged.
func orBadConfig(err error) error {
	if _, ok := errors.AsType[bench.FlagError](err); ok {
		return configError{err}
	}
	return err
}

// benchServerCmd has the servers that the load generator starts as child processes. It
// is not for users.
type benchServerCmd struct {
	Engine benchEngineCmd `cmd:"" help:"The engine."`
	Bare   benchBareCmd   `cmd:"" help:"A router that answers the same bytes to everything."`
	Table  benchTableCmd  `cmd:"" help:"A service that writes to a table of PostgreSQL."`
}

type benchEngineCmd struct {
	serveCmd

	CPUProfile string `name:"cpuprofile" help:"The file to write a CPU profile to."`
}

// Run serves until the standard input ends.
func (c *benchEngineCmd) Run(ctx context.Context, s *settings, to output) error {
	return orBadConfig(bench.ServeEngine(ctx, os.Stdin, c.CPUProfile, func(ctx context.Context) error {
		return c.serveCmd.Run(ctx, s, to)
	}))
}

type benchBareCmd struct{}

// Run serves until the standard input ends.
func (benchBareCmd) Run(ctx context.Context, to output) error {
	return bench.ServeBare(ctx, os.Stdin, to.out, newHTTPServer)
}

type benchTableCmd struct{}

// Run serves until the standard input ends.
func (benchTableCmd) Run(ctx context.Context, to output) error {
	return orBadConfig(bench.ServeTable(ctx, os.Stdin, to.out, newHTTPServer))
}
