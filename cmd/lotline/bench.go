package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/lotline/lotline/cmd/lotline/bench"
)

// benchCmd has the flags of the load generator. They are the fields of bench.Options,
// in the same order.
type benchCmd struct {
	URL            string `group:"What is measured" placeholder:"http://…" help:"A running engine to measure (none: one is started, and removed at the end)."`
	SecretKey      string `group:"What is measured" placeholder:"sk_live_…" help:"A secret key of it, for --url. Queues are made with it and stay there."`
	PublishableKey string `group:"What is measured" placeholder:"pk_live_…" help:"A publishable key of the same organization, for --url."`
	Dir            string `group:"What is measured" default:"." help:"Where the directory of the engine that is started is made, and removed: on the disk to measure."`
	Baseline       bool   `group:"What is measured" help:"Measure in turn a router that does nothing but answer the same bytes."`
	Postgres       string `group:"What is measured" placeholder:"postgres://…" help:"A PostgreSQL server to measure in turn, with the table that a team would write instead. A schema is made there, and dropped at the end."`
	CPUProfile     string `name:"cpuprofile" group:"What is measured" placeholder:"FILE" help:"Where the engine that is started writes what its processors did."`

	Scenario    []string      `enum:"enter,enter-many,status,launch" default:"enter,enter-many,status,launch" help:"What to do: ${enum}."`
	Connections int           `default:"64" help:"How many connections ask at once (${default})."`
	Duration    time.Duration `default:"3s" help:"How long each is asked as fast as it answers; half as long at half that rate (${default})."`
	Most        int64         `placeholder:"N" help:"How many requests each of these measurements has at most (0: as many as there is time for)."`
	Queues      int           `default:"64" help:"How many queues enter-many has (${default})."`
	Waiting     int64         `default:"10000" help:"How many wait in the queue of status (${default})."`
	Consumers   int64         `default:"10000" help:"How many arrive in launch (${default})."`
	Within      time.Duration `default:"10s" help:"The time in which they arrive (${default})."`
	Tokens      bool          `help:"Consumers act with access tokens of their own, made beforehand, not by the hand of the secret key. --most is then 20000 unless it is given."`

	JSON bool   `name:"json" help:"Print the report as JSON."`
	SVG  string `name:"svg" placeholder:"FILE" help:"Where to draw the latencies."`
}

// Run runs the load generator with what it needs of this program.
func (c *benchCmd) Run(ctx context.Context, k *kong.Context, to streams) error {
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

// orBadConfig makes a configError of an error that says what is wrong with a flag.
func orBadConfig(err error) error {
	if _, ok := errors.AsType[bench.FlagError](err); ok {
		return configError{err}
	}
	return err
}

// benchServerCmd has the servers that the load generator starts as processes of their
// own. It is not for users.
type benchServerCmd struct {
	Engine benchEngineCmd `cmd:"" help:"The engine."`
	Bare   benchBareCmd   `cmd:"" help:"A router that answers the same bytes to everything."`
	Table  benchTableCmd  `cmd:"" help:"A service that writes to a table of PostgreSQL."`
}

type benchEngineCmd struct {
	serveCmd

	CPUProfile string `name:"cpuprofile" help:"Where to write what the processors did."`
}

// Run serves until the standard input ends.
func (c *benchEngineCmd) Run(ctx context.Context, s *settings, to streams) error {
	return orBadConfig(bench.ServeEngine(ctx, os.Stdin, c.CPUProfile, func(ctx context.Context) error {
		return c.serveCmd.Run(ctx, s, to)
	}))
}

type benchBareCmd struct{}

// Run serves until the standard input ends.
func (benchBareCmd) Run(ctx context.Context, to streams) error {
	return bench.ServeBare(ctx, os.Stdin, to.out, httpServer)
}

type benchTableCmd struct{}

// Run serves until the standard input ends.
func (benchTableCmd) Run(ctx context.Context, to streams) error {
	return orBadConfig(bench.ServeTable(ctx, os.Stdin, to.out, httpServer))
}
