package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/google/uuid"
	"github.com/mattn/go-isatty"
)

// benchCmd is the load generator. Nothing in it is needed to run an engine.
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

func (c *benchCmd) validate() error {
	if c.URL != "" {
		if _, err := hostPort(c.URL); err != nil {
			return err
		}
		if c.SecretKey == "" || c.PublishableKey == "" {
			return badConfig("--url needs --secret-key and --publishable-key")
		}
		if c.CPUProfile != "" {
			return badConfig("--cpuprofile is for an engine that bench starts")
		}
	}
	if min(int64(c.Connections), int64(c.Queues), c.Waiting, c.Consumers, int64(c.Duration), int64(c.Within)) < 1 || c.Most < 0 {
		return badConfig("counts and times have to be above 0, and --most not below")
	}
	if c.Waiting < int64(c.Connections) {
		return badConfig("--waiting has to be --connections at least")
	}
	if c.Tokens && c.Postgres != "" {
		return badConfig("--postgres does not go together with --tokens, which its service does not know")
	}
	if c.Tokens && c.Most == 0 {
		c.Most = mostWithTokens
	}
	return nil
}

// mostWithTokens is how many requests a measurement has at most when each takes a
// token that has to be made, unless another number is given.
const mostWithTokens = 20_000

// errBenchChecks ends bench when what the server said does not add up.
var errBenchChecks = errors.New("what the server says afterwards does not add up")

// Run measures, checks and reports, also when it is interrupted.
func (c *benchCmd) Run(ctx context.Context, k *kong.Context, to streams) (err error) {
	if err := c.validate(); err != nil {
		return err
	}
	b := &bench{benchCmd: c, to: to, hidden: map[string]bool{}, prefix: uuid.NewString()[:24], report: newBenchReport(c)}
	for _, command := range k.Model.Leaves(false) {
		for _, group := range command.AllFlags(false) {
			for _, f := range group {
				for _, v := range f.Envs {
					b.hidden[v] = true
				}
			}
		}
	}
	defer func() { err = errors.Join(err, b.close()) }()
	if err := b.begin(ctx); err != nil {
		return unlessStopped(ctx, err)
	}
	for _, name := range c.Scenario {
		if ctx.Err() != nil {
			break
		}
		if err := unlessStopped(ctx, b.scenario(ctx, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	b.report.Interrupted = ctx.Err() != nil
	b.report.compare()
	b.progress("")
	if err := b.report.write(to.out, c.JSON); err != nil {
		return err
	}
	if c.SVG != "" {
		if err := os.WriteFile(c.SVG, b.report.draw(), 0o644); err != nil {
			return badConfig("--svg: %w", err)
		}
	}
	if b.report.failed() {
		return errBenchChecks
	}
	return nil
}

// bench is one run of it.
type bench struct {
	*benchCmd

	to     streams
	hidden map[string]bool // variables that servers do not inherit
	prefix string          // of the ids of consumers
	dir    string          // "" when the engine is somebody else's
	api    *benchAPI
	engine *benchServer
	routes []string       // templates of the API's paths
	table  *benchPostgres // nil without one
	tokens [][]byte       // of the consumers by number, those that were made
	report *benchReport
}

func (b *bench) begin(ctx context.Context) (err error) {
	if b.URL != "" {
		address, err := hostPort(b.URL)
		if err != nil {
			return err
		}
		b.api = &benchAPI{strings.TrimRight(b.URL, "/"), b.SecretKey, b.PublishableKey}
		b.engine = &benchServer{name: benchLotline, address: address}
	} else {
		if b.dir, err = os.MkdirTemp(b.Dir, "lotline-bench-"); err != nil {
			return badConfig("--dir: %w", err)
		}
		var args []string
		if b.CPUProfile != "" {
			args = append(args, "--cpuprofile", b.CPUProfile)
		}
		if b.engine, b.api, err = startBenchEngine(ctx, b.hidden, b.dir, args...); err != nil {
			text, _ := os.ReadFile(filepath.Join(b.dir, "log"))
			return fmt.Errorf("%w\n%s", err, text)
		}
	}
	var document struct {
		Paths map[string]json.RawMessage `json:"paths"`
	}
	if err := b.api.call(ctx, http.MethodGet, "/openapi.json", "", &document); err != nil {
		return err
	}
	b.routes = slices.Sorted(maps.Keys(document.Paths))
	if b.Postgres != "" {
		b.table, err = openBenchPostgres(ctx, b.Postgres)
	}
	return err
}

func (b *bench) close() (err error) {
	if b.table != nil {
		err = b.table.close()
	}
	if b.engine != nil {
		err = errors.Join(err, b.engine.stop())
	}
	if b.dir != "" {
		err = errors.Join(err, os.RemoveAll(b.dir))
	}
	return err
}

// progress says on stderr what is being done; on a terminal in one line.
func (b *bench) progress(format string, args ...any) {
	f, isFile := b.to.err.(*os.File)
	switch {
	case isFile && isatty.IsTerminal(f.Fd()):
		fmt.Fprintf(f, "\r\033[K"+format, args...)
	case format != "":
		fmt.Fprintf(b.to.err, format+"\n", args...)
	}
}

func (b *bench) scenario(ctx context.Context, name string) error {
	switch name {
	case "enter":
		return b.enter(ctx, name, 1)
	case "enter-many":
		return b.enter(ctx, name, b.Queues)
	case "status":
		return b.status(ctx, name)
	default:
		return b.launch(ctx, name)
	}
}

// makeQueue makes a queue that is open, with further settings.
func (b *bench) makeQueue(ctx context.Context, settings string) (*benchQueue, error) {
	var made struct {
		ID     string `json:"id"`
		Status string `json:"status"`
	}
	body := `{"sequenceId":"bench","name":"A load test","openAt":"2020-01-01T00:00:00Z"` + settings + `}`
	if err := b.api.call(ctx, http.MethodPost, "/api/v1/queues", body, &made); err != nil {
		return nil, err
	}
	if made.Status != "OPEN" {
		return nil, fmt.Errorf("the queue is %s", made.Status)
	}
	return newBenchQueue(made.ID, b.Connections), nil
}
